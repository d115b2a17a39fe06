//! The removal of expired records, so that the ledger does not grow for ever.
//!
//! Each removed record is counted in the transaction that removes it: an event that outlives some of its deliveries
//! says how many are gone, and the row of `expired` has the sums of everything that is gone. So an audit is exact
//! before, during and after a removal.
//!
//! On PostgreSQL days are dropped whole ([`postgres`]). On SQLite rows are deleted ([`sqlite`]); the file does not
//! shrink, but its free pages are used again. Everything else that grows is deleted in batches on both. A batch delays
//! other writes for some milliseconds, and [`pause`] limits batches to a fifth of the time.

mod postgres;
mod sqlite;

use crate::sql::{all, execute, for_rows, for_values, timestamp, uuid};
use crate::{Error, Ledger, dispatching, locks};
use herald_domain::delivery::Closed;
use herald_domain::id::{Shard, SubscriptionId};
use herald_domain::retention::{Limits, Retention};
use herald_domain::time::Timestamp;
use sea_orm::{DatabaseTransaction, Value};
use std::time::Duration;
use tokio::time::Instant;
use uuid::Uuid;

/// The most rows that one transaction removes.
const BATCH: u64 = 256;

/// How long a process that died is remembered.
const DEAD_FOR: Duration = Duration::from_hours(24);

/// The most rejected messages that one transaction removes: each may have 1 MiB.
const LARGE_BATCH: u64 = 16;

/// What a pass removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removed {
    /// How many events were removed.
    pub events: u64,
    /// Deliveries that had ended, with their attempts.
    pub deliveries: u64,
    /// Keys by which repeated `Id`s were recognised.
    pub keys: u64,
    /// How many rejected messages were removed.
    pub rejected: u64,
    /// Entries of the audit log.
    pub audit_log: u64,
    /// Subscriptions that had been deleted.
    pub subscriptions: u64,
}

impl Ledger {
    /// Removes records that have expired at `now`, and adds their numbers to `removed`, so that those removed before
    /// an error are known too. Keys are removed when the idempotency window is over, whatever the settings say.
    ///
    /// # Errors
    /// If the database fails, or another process removes, or somebody reads for so long that it is better tried later.
    pub async fn remove_expired(
        &self,
        retention: &Retention,
        now: Timestamp,
        removed: &mut Removed,
    ) -> Result<(), Error> {
        let keys_until = self.forget_keys(now, removed).await?;
        self.forget_workers(now).await?;
        if let Some(since) = retention.audit_log_since(now) {
            self.remove_log(since, removed).await?;
        }
        let Some(limits) = retention.limits(now) else {
            return Ok(());
        };
        self.remove_rejected(limits, removed).await?;
        self.remove_subscriptions(limits, removed).await?;
        // The key of an event is found by way of the event, so the event stays until its key is gone.
        let before = limits.ended.min(time_of(keys_until));
        if self.store.is_shared() {
            self.drop_days(before, limits, removed).await
        } else {
            self.remove_rows(before, limits, removed).await
        }
    }

    /// Deletes the keys of events in the order of the events, which is that of time; the keys' own order is not.
    /// Returns the event up to which this is done.
    async fn forget_keys(&self, now: Timestamp, removed: &mut Removed) -> Result<Uuid, Error> {
        let window = now.minus(dispatching::IDEMPOTENCY_WINDOW);
        let until = first_uuid(window);
        let mut after = self.keys_until().await?;
        while after < until {
            let began = Instant::now();
            let rows = all(
                self.store.queries(),
                "SELECT uid, id, recorded_at FROM events WHERE uid >= $1 AND uid < $2 ORDER BY uid LIMIT $3",
                [after.into(), until.into(), BATCH.into()],
            )
            .await?;
            // An event that was recorded long after it was read still has its key. The next pass goes on from there.
            let mut ids: Vec<Value> = Vec::with_capacity(rows.len());
            let mut next = None;
            for row in &rows {
                let uid = uuid(row, "uid")?;
                if timestamp(row, "recorded_at")? >= window {
                    next = Some(uid);
                    break;
                }
                ids.push(uuid(row, "id")?.into());
                after = successor(uid);
            }
            let stopped = next.is_some();
            if !stopped && u64::try_from(rows.len()).is_ok_and(|n| n < BATCH) {
                after = until;
            }
            let upto = next.unwrap_or(after);
            removed.keys += self
                .remove(move |txn| {
                    Box::pin(async move {
                        let before = window.as_micros();
                        let gone = for_values(
                            txn,
                            &format!("DELETE FROM event_keys WHERE recorded_at < {before} AND id"),
                            ids,
                            "RETURNING id",
                        )
                        .await?;
                        execute(
                            txn,
                            "UPDATE expired SET keys_until = $1 WHERE keys_until < $1",
                            [upto.into()],
                        )
                        .await?;
                        Ok(gone.len() as u64)
                    })
                })
                .await?;
            if stopped {
                return Ok(upto);
            }
            pause(began).await;
        }
        Ok(after)
    }

    /// Forgets processes that died long ago.
    async fn forget_workers(&self, now: Timestamp) -> Result<(), Error> {
        let before = now.minus(DEAD_FOR).as_micros();
        let sql = "DELETE FROM workers WHERE lease_until < $1";
        self.remove(move |txn| Box::pin(async move { execute(txn, sql, [before.into()]).await }))
            .await?;
        Ok(())
    }

    /// Removes subscriptions that were deleted long ago, when no delivery to them is kept any more.
    async fn remove_subscriptions(&self, limits: Limits, removed: &mut Removed) -> Result<(), Error> {
        let before = limits.ended.min(limits.dead);
        let mut after = Uuid::nil();
        loop {
            let began = Instant::now();
            let found = all(
                self.store.queries(),
                "SELECT id FROM subscriptions WHERE deleted AND updated_at < $1 AND id > $2 ORDER BY id LIMIT $3",
                [before.as_micros().into(), after.into(), BATCH.into()],
            )
            .await?;
            let mut rows: Vec<[Value; 2]> = Vec::with_capacity(found.len());
            for row in &found {
                after = uuid(row, "id")?;
                let shard = Shard::of(SubscriptionId(after));
                rows.push([after.into(), i16::from(shard.0).into()]);
            }
            if rows.is_empty() {
                return Ok(());
            }
            let gone = self.remove(move |txn| {
                Box::pin(async move {
                    for_rows(
                        txn,
                        "WITH old (id, shard) AS (",
                        rows,
                        ") DELETE FROM subscriptions WHERE id IN (SELECT id FROM old WHERE \
                         NOT EXISTS (SELECT 1 FROM deliveries_open d WHERE d.shard = old.shard AND d.subscription = old.id) \
                         AND NOT EXISTS (SELECT 1 FROM deliveries_closed d WHERE d.subscription = old.id) \
                         AND NOT EXISTS (SELECT 1 FROM outbox WHERE outbox.subscription = old.id)) RETURNING id",
                    )
                    .await
                })
            });
            removed.subscriptions += gone.await?.len() as u64;
            pause(began).await;
        }
    }

    async fn keys_until(&self) -> Result<Uuid, Error> {
        let rows = all(self.store.queries(), "SELECT keys_until FROM expired", []).await?;
        rows.first().map_or(Ok(Uuid::nil()), |row| uuid(row, "keys_until"))
    }

    async fn remove_log(&self, since: Timestamp, removed: &mut Removed) -> Result<(), Error> {
        let sql = "DELETE FROM audit_log WHERE at < $1 AND id IN (SELECT id FROM audit_log ORDER BY id LIMIT $2)";
        loop {
            let began = Instant::now();
            let values: [Value; 2] = [since.as_micros().into(), BATCH.into()];
            let gone = self
                .remove(move |txn| Box::pin(async move { execute(txn, sql, values).await }))
                .await?;
            removed.audit_log += gone;
            if gone < BATCH {
                return Ok(());
            }
            pause(began).await;
        }
    }

    async fn remove_rejected(&self, limits: Limits, removed: &mut Removed) -> Result<(), Error> {
        loop {
            let began = Instant::now();
            let gone = self
                .remove(move |txn| {
                    Box::pin(async move {
                        // The id is made by the clock of the process that rejects, so the time decides.
                        let sql = "DELETE FROM rejected_events WHERE id IN (SELECT id FROM rejected_events \
                                   WHERE id < $1 AND received_at < $2 ORDER BY id LIMIT $3)";
                        let (until, before) = (first_uuid(limits.ended), limits.ended.as_micros());
                        let gone = execute(txn, sql, [until.into(), before.into(), LARGE_BATCH.into()]).await?;
                        let count = i64::try_from(gone).unwrap_or(i64::MAX);
                        execute(txn, "UPDATE expired SET rejected = rejected + $1", [count.into()]).await?;
                        Ok(gone)
                    })
                })
                .await?;
            removed.rejected += gone;
            if gone < LARGE_BATCH {
                return Ok(());
            }
            pause(began).await;
        }
    }

    /// Runs a write that removes, if no other process removes and, on SQLite, when no other write waits. The write
    /// joins rows to tables that grow, so PostgreSQL plans it by estimates, although it writes beside deliveries.
    async fn remove<T, F>(&self, write: F) -> Result<T, Error>
    where
        F: for<'t> FnOnce(&'t DatabaseTransaction) -> futures_util::future::BoxFuture<'t, Result<T, Error>>
            + Send
            + 'static,
        T: Send + 'static,
    {
        self.store.lull().await;
        self.store
            .write(move |txn, _now| {
                Box::pin(async move {
                    if !locks::try_to_remove(txn).await? {
                        return Err(Error::Busy);
                    }
                    write(txn).await
                })
            })
            .await
    }
}

/// Has a manual retry wait while the day of its delivery may be being dropped. This comes before any other lock, so
/// that nothing waits for the retry.
pub(crate) async fn wait_for_removal(txn: &DatabaseTransaction, id: Uuid, now: Timestamp) -> Result<(), Error> {
    let youngest = now.minus(dispatching::IDEMPOTENCY_WINDOW);
    if id < first_uuid(youngest) {
        locks::keep_days(txn).await?;
    }
    Ok(())
}

/// Whether a closed delivery may be changed: not while its day is being dropped, because the change would be lost. This
/// does not wait, because the caller has other locks.
pub(crate) async fn is_kept(txn: &DatabaseTransaction, id: Uuid, now: Timestamp) -> Result<bool, Error> {
    let youngest = now.minus(dispatching::IDEMPOTENCY_WINDOW);
    if id >= first_uuid(youngest) {
        return Ok(true);
    }
    locks::try_to_keep_days(txn).await
}

/// The column of `expired` that counts deliveries with this end.
pub(crate) const fn column(end: Closed) -> &'static str {
    match end {
        Closed::Delivered => "delivered",
        Closed::Dead => "dead",
        Closed::Cancelled => "cancelled",
        Closed::Refused => "refused",
    }
}

/// Pauses for four times as long as the batch took, at most 5 s.
async fn pause(began: Instant) {
    tokio::time::sleep((began.elapsed() * 4).min(Duration::from_secs(5))).await;
}

/// The least id that an event of that time, or a delivery of it, can have.
fn first_uuid(at: Timestamp) -> Uuid {
    Uuid::from_u128(u128::from(at.as_unix_millis()) << 80)
}

/// The time of a [`first_uuid`], or of a `UUIDv7`.
fn time_of(id: Uuid) -> Timestamp {
    let millis = u64::try_from(id.as_u128() >> 80).unwrap_or(u64::MAX);
    Timestamp::from_micros(i64::try_from(millis.saturating_mul(1000)).unwrap_or(i64::MAX))
}

fn successor(id: Uuid) -> Uuid {
    Uuid::from_u128(id.as_u128().saturating_add(1))
}
