//! Days that are dropped whole, on PostgreSQL: see `migrations/src/postgres/0004_retention.sql`.

use super::{Removed, pause};
use crate::sql::{get, one};
use crate::{Error, Ledger};
use herald_domain::retention::Limits;
use herald_domain::time::Timestamp;
use sea_orm::{ConnectionTrait, TransactionTrait};
use tokio::time::Instant;

const DROP_DAY: &str =
    "SELECT dropped, dropped_events AS events, dropped_deliveries AS deliveries FROM herald_drop_day($1, $2, $3)";

impl Ledger {
    /// Drops the days before that time, the oldest first, each in a transaction of its own.
    pub(super) async fn drop_days(
        &self,
        before: Timestamp,
        limits: Limits,
        removed: &mut Removed,
    ) -> Result<(), Error> {
        loop {
            let began = Instant::now();
            let txn = self.store.queries().begin().await?;
            // It reads a whole day, and nothing waits for it.
            txn.execute_unprepared("SET LOCAL statement_timeout = '1h'").await?;
            let limits = [before, limits.ended, limits.dead].map(|time| time.as_micros().into());
            let row = one(&txn, DROP_DAY, limits).await?;
            txn.commit().await?;
            let Some(row) = row else { return Ok(()) };
            let Some(day) = get::<Option<String>>(&row, "dropped")? else {
                return Ok(());
            };
            let (events, deliveries): (i64, i64) = (get(&row, "events")?, get(&row, "deliveries")?);
            removed.events += u64::try_from(events).unwrap_or(0);
            removed.deliveries += u64::try_from(deliveries).unwrap_or(0);
            tracing::info!(day, events, deliveries, "a day of the ledger was dropped");
            pause(began).await;
        }
    }
}
