//! Wake-ups: rows that tell the owner of a shard to look at a lane.

use crate::notices::{self, Notice};
use crate::shards::{ShardLeases, shard};
use crate::sql::{all, for_rows, for_values, get, timestamp, uuid};
use crate::{Error, Ledger};
use herald_domain::delivery::Delivery;
use herald_domain::id::{Shard, SubscriptionId};
use herald_domain::lanes::LaneId;
pub use herald_domain::lanes::Wakeup;
use sea_orm::{DatabaseTransaction, Value};
use std::collections::{BTreeMap, HashSet};
use uuid::Uuid;

/// The most wake-ups that are taken at a time.
pub const MOST_WAKEUPS: usize = 4096;

/// Writes wake-ups for the lanes of these deliveries.
pub(crate) async fn wake(txn: &DatabaseTransaction, deliveries: &[Delivery]) -> Result<(), Error> {
    // In the order in which they are taken too: else two transactions with the same rows could wait for each other.
    let mut lanes = BTreeMap::new();
    for delivery in deliveries {
        let lane = (Shard::of(delivery.subscription), delivery.subscription);
        let due = lanes.entry(lane).or_insert(delivery.due_at);
        *due = delivery.due_at.min(*due);
    }
    let mut rows: Vec<[Value; 3]> = Vec::with_capacity(lanes.len());
    for ((shard, subscription), due_at) in lanes {
        rows.push([
            i16::from(shard.0).into(),
            subscription.0.into(),
            due_at.as_micros().into(),
        ]);
    }
    if rows.is_empty() {
        return Ok(());
    }
    notices::tell(txn, Notice::Wakeup).await?;
    for_rows(
        txn,
        "INSERT INTO wakeups (shard, subscription, due_at)",
        rows,
        "ON CONFLICT (shard, subscription) DO UPDATE SET due_at = \
         CASE WHEN excluded.due_at < wakeups.due_at THEN excluded.due_at ELSE wakeups.due_at END",
    )
    .await?;
    Ok(())
}

/// Keeps the deliveries whose shards this process still owns in this transaction, and writes wake-ups for the owners
/// of the others. Each delivery comes with a value that belongs to it.
pub(crate) async fn keep_mine<T: Send>(
    owned: &ShardLeases,
    txn: &DatabaseTransaction,
    mut deliveries: Vec<(T, Delivery)>,
) -> Result<Vec<(T, Delivery)>, Error> {
    let shards: HashSet<Shard> = deliveries
        .iter()
        .map(|(_, delivery)| Shard::of(delivery.subscription))
        .collect();
    if shards.is_empty() {
        return Ok(deliveries);
    }
    let numbers = shards.into_iter().map(|shard| i16::from(shard.0).into()).collect();
    let rows = for_values(txn, "SELECT shard, owner, epoch FROM shards WHERE shard", numbers, "").await?;
    let mut mine = HashSet::new();
    for row in &rows {
        let shard = shard(row)?;
        let owner: Option<Uuid> = get(row, "owner")?;
        if owner == Some(owned.worker()) && owned.epoch(shard) == Some(get(row, "epoch")?) {
            mine.insert(shard);
        }
    }
    let others = deliveries.extract_if(.., |(_, delivery)| !mine.contains(&Shard::of(delivery.subscription)));
    let others: Vec<_> = others.map(|(_, delivery)| delivery).collect();
    wake(txn, &others).await?;
    Ok(deliveries)
}

impl Ledger {
    /// Takes the wake-ups of the shards that are owned, at most [`MOST_WAKEUPS`].
    pub async fn take_wakeups(&self, owned: &ShardLeases) -> Result<Vec<Wakeup>, Error> {
        let returned = "RETURNING subscription, due_at";
        let owner: Value = owned.worker().into();
        let rows = if self.store.is_shared() {
            // Shard by shard, and by physical place (ctid): with a join the database might read all rows. Rows that
            // another transaction is writing are skipped, and taken next time.
            let take = format!(
                "DELETE FROM wakeups WHERE ctid = ANY (ARRAY(SELECT w.place \
                 FROM (SELECT shard FROM shards WHERE owner = $1 ORDER BY shard OFFSET 0) s \
                 CROSS JOIN LATERAL (SELECT ctid AS place FROM wakeups WHERE wakeups.shard = s.shard \
                 ORDER BY subscription FOR UPDATE SKIP LOCKED) w LIMIT {MOST_WAKEUPS})) {returned}"
            );
            self.store.run(&take, vec![owner]).await?
        } else {
            let take = format!(
                "DELETE FROM wakeups WHERE (shard, subscription) IN (SELECT shard, subscription FROM wakeups \
                 WHERE shard IN (SELECT shard FROM shards WHERE owner = $1) ORDER BY shard, subscription \
                 LIMIT {MOST_WAKEUPS}) {returned}"
            );
            // A read comes first: mostly there is no wake-up, and a read does not wait for the writer.
            let waiting = "SELECT 1 FROM wakeups w JOIN shards s ON s.shard = w.shard WHERE s.owner = $1 LIMIT 1";
            if self.ask(waiting, [owner.clone()]).await?.is_empty() {
                return Ok(Vec::new());
            }
            let delete = self
                .store
                .write(move |txn, _now| Box::pin(async move { all(txn, &take, [owner]).await }));
            delete.await?
        };
        rows.iter()
            .map(|row| {
                Ok(Wakeup {
                    lane: LaneId::of(SubscriptionId(uuid(row, "subscription")?)),
                    due_at: timestamp(row, "due_at")?,
                })
            })
            .collect()
    }
}
