//! The lanes with open deliveries, page by page.

use crate::sql::{for_rows, get, timestamp, uuid};
use crate::wakeups::Wakeup;
use crate::{Error, Ledger, shards};
use herald_domain::id::SubscriptionId;
use herald_domain::lanes::{LaneId, Page, Progress};
use sea_orm::{DbBackend, Value};
use uuid::Uuid;

impl Ledger {
    /// A page of the lanes with open deliveries, each with its earliest `due_at`, and how far the page came. It
    /// costs one or two index look-ups per lane, however many deliveries that has.
    pub async fn open_lanes(&self, page: &Page) -> Result<(Vec<Wakeup>, Progress), Error> {
        let from = page.from.iter().map(|(shard, after)| -> [Value; 2] {
            let after = after.map_or(Uuid::nil(), |after| after.subscription().0);
            [i16::from(shard.0).into(), after.into()]
        });
        let limit = page.limit;
        // PostgreSQL ends the recursion when no more rows are asked for. SQLite needs a limit of its own for that.
        let stop = match self.store.read().get_database_backend() {
            DbBackend::Postgres => String::new(),
            _ => format!("LIMIT {limit}"),
        };
        let after = format!(
            ") , lane (shard, subscription) AS ( \
               SELECT s.shard, (SELECT d.subscription FROM deliveries_open d WHERE d.shard = s.shard \
                                AND d.subscription > s.subscription ORDER BY d.subscription LIMIT 1) FROM start s \
               UNION ALL \
               SELECT lane.shard, (SELECT d.subscription FROM deliveries_open d WHERE d.shard = lane.shard \
                                   AND d.subscription > lane.subscription ORDER BY d.subscription LIMIT 1) \
               FROM lane WHERE lane.subscription IS NOT NULL {stop}) \
             SELECT shard, subscription, (SELECT due_at FROM deliveries_open d WHERE d.shard = lane.shard \
               AND d.subscription = lane.subscription ORDER BY due_at LIMIT 1) AS due_at \
             FROM lane LIMIT {limit}"
        );
        let begin = "WITH RECURSIVE start (shard, subscription) AS (";
        let rows = for_rows(self.store.read(), begin, from.collect(), &after);
        let (mut lanes, mut progress) = (Vec::new(), Progress::default());
        for row in &self.store.soon(rows).await? {
            let shard = shards::shard(row)?;
            // A row without a subscription ends its shard. A lane whose last delivery was just closed has no `due_at`,
            // but lanes may come after it.
            if get::<Option<Uuid>>(row, "subscription")?.is_none() {
                progress.ended.insert(shard);
                continue;
            }
            let lane = LaneId::of(SubscriptionId(uuid(row, "subscription")?));
            progress.last.insert(shard, lane);
            if get::<Option<i64>>(row, "due_at")?.is_some() {
                let due_at = timestamp(row, "due_at")?;
                lanes.push(Wakeup { lane, due_at });
            }
        }
        Ok((lanes, progress))
    }
}
