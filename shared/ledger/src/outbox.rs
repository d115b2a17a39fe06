//! What must follow from a change: a row written with it, done after it, removed when it is done.

use crate::delivering::{Last, closed_row, delivery, insert_closed};
use crate::sql::{all, execute, for_values, get, timestamp, uuid};
use crate::{Error, Ledger};
use herald_domain::delivery::{Closed, Reason};
use herald_domain::id::{EventUid, Shard, SubscriptionId};
use herald_domain::time::Timestamp;
use sea_orm::{DatabaseTransaction, Value};

/// How many deliveries one transaction cancels; other writes wait for it.
const CANCEL_CHUNK: u64 = 1024;

/// A job of the outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Job {
    /// Its number.
    pub id: i64,
    /// Cancel the open deliveries of this subscription,
    pub subscription: SubscriptionId,
    /// which were opened before this.
    pub opened_before: Timestamp,
}

/// Writes the job that cancels what is open now.
pub(crate) async fn cancel_deliveries(
    txn: &DatabaseTransaction,
    subscription: SubscriptionId,
    now: Timestamp,
) -> Result<(), Error> {
    execute(
        txn,
        "INSERT INTO outbox (kind, subscription, opened_before, created_at) VALUES ('cancel_deliveries', $1, $2, $2)",
        [subscription.0.into(), now.as_micros().into()],
    )
    .await?;
    Ok(())
}

impl Ledger {
    /// The oldest job, if there is one.
    pub async fn next_job(&self) -> Result<Option<Job>, Error> {
        let rows = all(
            self.store.read(),
            "SELECT id, subscription, opened_before FROM outbox ORDER BY id LIMIT 1",
            [],
        )
        .await?;
        let job = |row| {
            Ok(Job {
                id: get(row, "id")?,
                subscription: SubscriptionId(uuid(row, "subscription")?),
                opened_before: timestamp(row, "opened_before")?,
            })
        };
        rows.first().map(job).transpose()
    }

    /// Does a part of a job, in one transaction; how many deliveries it cancelled. The job is removed
    /// with its last part, which is when fewer than a chunk were left.
    pub async fn work_on(&self, job: Job) -> Result<u64, Error> {
        let cancelled = self
            .store
            .write(move |txn, now| Box::pin(cancel_chunk(txn, job, now)))
            .await?;
        self.signals.closed(usize::try_from(cancelled).unwrap_or(0));
        Ok(cancelled)
    }
}

async fn cancel_chunk(txn: &DatabaseTransaction, job: Job, now: Timestamp) -> Result<u64, Error> {
    let reason = match all(
        txn,
        "SELECT deleted FROM subscriptions WHERE id = $1",
        [job.subscription.0.into()],
    )
    .await?
    .first()
    {
        Some(row) if !get::<bool>(row, "deleted")? => Reason::SubscriptionInactive,
        _ => Reason::SubscriptionDeleted,
    };
    let rows = all(
        txn,
        "SELECT id AS delivery, event, subscription, webhook, attempts, due_at, created_at, opened_at, last_status_code, last_error \
         FROM deliveries_open WHERE shard = $1 AND subscription = $2 AND opened_at < $3 ORDER BY due_at LIMIT $4",
        [
            i16::from(Shard::of(job.subscription).0).into(),
            job.subscription.0.into(),
            job.opened_before.as_micros().into(),
            CANCEL_CHUNK.into(),
        ],
    )
    .await?;
    let mut ids: Vec<Value> = Vec::with_capacity(rows.len());
    let mut closed = Vec::with_capacity(rows.len());
    for row in &rows {
        let delivery = delivery(row)?;
        let last = Last {
            status_code: get(row, "last_status_code")?,
            error: get(row, "last_error")?,
        };
        let event = EventUid(uuid(row, "event")?);
        ids.push(delivery.id.0.into());
        closed.push(closed_row(
            &delivery,
            event,
            (Closed::Cancelled, Some(reason)),
            last,
            None,
            now,
        ));
    }
    for_values(txn, "DELETE FROM deliveries_open WHERE id IN", ids, "").await?;
    insert_closed(txn, closed).await?;
    let cancelled = u64::try_from(rows.len()).unwrap_or(u64::MAX);
    if cancelled < CANCEL_CHUNK {
        execute(txn, "DELETE FROM outbox WHERE id = $1", [job.id.into()]).await?;
    }
    Ok(cancelled)
}
