//! What must follow from a change: a row written with it, done after it, removed when it is done.

use crate::delivering::{Last, closed_row, delivery, insert_closed};
use crate::sql::{all, execute, for_rows, for_values, get, timestamp, uuid};
use crate::{Error, Ledger};
use herald_domain::catalogue::Webhook;
use herald_domain::delivery::{Closed, Reason};
use herald_domain::id::{DeliveryId, EventUid, Shard, SubscriptionId};
use herald_domain::time::Timestamp;
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend, Value};

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

impl Job {
    /// When it was written.
    pub fn created_at(&self) -> Timestamp {
        self.opened_before
    }
}

/// A job that publishes the copy of a dead delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeadLetterJob {
    /// Its number.
    pub id: i64,
    /// The delivery.
    pub delivery: DeliveryId,
    /// When it was written.
    pub created_at: Timestamp,
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

/// Writes the jobs that publish copies of deliveries that are dead. On SQLite there is no broker to
/// publish them to.
pub(crate) async fn copy_dead_letters(
    txn: &DatabaseTransaction,
    deliveries: impl Iterator<Item = DeliveryId>,
    now: Timestamp,
) -> Result<(), Error> {
    if txn.get_database_backend() != DbBackend::Postgres {
        return Ok(());
    }
    let rows = deliveries
        .map(|id| ["dead_letter".into(), id.0.into(), now.as_micros().into()])
        .collect();
    for_rows(txn, "INSERT INTO outbox (kind, delivery, created_at)", rows, "").await?;
    Ok(())
}

impl Ledger {
    /// The oldest jobs that publish copies of dead deliveries.
    pub async fn dead_letter_jobs(&self, limit: u64) -> Result<Vec<DeadLetterJob>, Error> {
        if !self.store.is_shared() {
            return Ok(Vec::new());
        }
        let rows = self
            .ask(
                "SELECT id, delivery, created_at FROM outbox WHERE kind = 'dead_letter' ORDER BY id LIMIT $1",
                [limit.into()],
            )
            .await?;
        rows.iter()
            .map(|row| {
                Ok(DeadLetterJob {
                    id: get(row, "id")?,
                    delivery: DeliveryId(uuid(row, "delivery")?),
                    created_at: timestamp(row, "created_at")?,
                })
            })
            .collect()
    }

    /// Removes jobs that are done.
    pub async fn jobs_done(&self, jobs: Vec<i64>) -> Result<(), Error> {
        let jobs = jobs.into_iter().map(Value::from).collect();
        self.store
            .write(move |txn, _now| {
                Box::pin(async move {
                    for_values(txn, "DELETE FROM outbox WHERE id", jobs, "").await?;
                    Ok(())
                })
            })
            .await
    }

    /// The oldest job that cancels deliveries, if there is one.
    pub async fn next_job(&self) -> Result<Option<Job>, Error> {
        let rows = self.ask("SELECT id, subscription, opened_before FROM outbox WHERE kind = 'cancel_deliveries' ORDER BY id LIMIT 1",
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

    /// Does a part of a job, in one transaction; the webhooks of the deliveries that it cancelled. The job is
    /// removed with its last part, which is when fewer than a chunk were left.
    pub async fn work_on(&self, job: Job) -> Result<Vec<Webhook>, Error> {
        let cancelled = self
            .store
            .write(move |txn, now| Box::pin(cancel_chunk(txn, job, now)))
            .await?;
        self.signals.closed(cancelled.len());
        Ok(cancelled)
    }
}

async fn cancel_chunk(txn: &DatabaseTransaction, job: Job, now: Timestamp) -> Result<Vec<Webhook>, Error> {
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
    let chosen = all(
        txn,
        "SELECT id FROM deliveries_open WHERE shard = $1 AND subscription = $2 AND opened_at < $3 ORDER BY due_at LIMIT $4",
        [
            i16::from(Shard::of(job.subscription).0).into(),
            job.subscription.0.into(),
            job.opened_before.as_micros().into(),
            CANCEL_CHUNK.into(),
        ],
    )
    .await?;
    let ids = chosen
        .iter()
        .map(|row| Ok(uuid(row, "id")?.into()))
        .collect::<Result<_, Error>>()?;
    // The delete is the gate: what an outcome has closed since is not cancelled too.
    let rows = for_values(
        txn,
        "DELETE FROM deliveries_open WHERE id",
        ids,
        "RETURNING id AS delivery, event, subscription, webhook, attempts, due_at AS due, created_at, opened_at, \
         last_status_code, last_error",
    )
    .await?;
    let mut closed = Vec::with_capacity(rows.len());
    let mut cancelled = Vec::with_capacity(rows.len());
    for row in &rows {
        let delivery = delivery(row)?;
        let last = Last {
            status_code: get(row, "last_status_code")?,
            error: get(row, "last_error")?,
        };
        let event = EventUid(uuid(row, "event")?);
        cancelled.push(delivery.webhook);
        closed.push(closed_row(
            &delivery,
            event,
            (Closed::Cancelled, Some(reason)),
            last,
            None,
            now,
        ));
    }
    insert_closed(txn, closed).await?;
    if u64::try_from(chosen.len()).is_ok_and(|chosen| chosen < CANCEL_CHUNK) {
        execute(txn, "DELETE FROM outbox WHERE id = $1", [job.id.into()]).await?;
    }
    Ok(cancelled)
}
