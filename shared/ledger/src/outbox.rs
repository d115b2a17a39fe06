//! The outbox: jobs that must follow from a change. Each is a row that is written in the same transaction as the
//! change, and removed when the job is done.

use crate::rows::{self, LAST, Last, closed_row, delivery, insert_closed};
use crate::shards::{self, ShardLeases};
use crate::sql::{all, execute, for_rows, for_values, get, timestamp, uuid};
use crate::{Error, Ledger, locks};
use herald_domain::catalogue::Webhook;
use herald_domain::delivery::{Closed, Reason};
use herald_domain::id::{DeliveryId, EventUid, Shard, SubscriptionId};
use herald_domain::time::Timestamp;
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend, Value};
use std::collections::HashSet;

/// The most deliveries that one transaction cancels. Other writes wait for it.
const CANCEL_CHUNK: usize = 1024;

/// How many jobs are read at a time.
const JOBS: u64 = 1024;

/// A job that cancels the open deliveries of a subscription that were opened before a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CancelJob {
    /// The number of the job, by which it is removed.
    pub id: i64,
    /// The subscription whose deliveries are cancelled.
    pub subscription: SubscriptionId,
    /// The time of the change. It counts only where a version was not noted.
    pub opened_before: Timestamp,
    /// The registry's version that the change made; 0 if it was not noted.
    pub opened_before_version: i64,
}

impl CancelJob {
    /// When it was written.
    pub fn created_at(&self) -> Timestamp {
        self.opened_before
    }

    /// The shard of its deliveries. Its owner does the job, because it knows what is in flight.
    pub fn shard(&self) -> Shard {
        Shard::of(self.subscription)
    }
}

/// The result of a part of a [`CancelJob`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cancelled {
    /// The webhooks of the deliveries that it cancelled.
    pub webhooks: Vec<Webhook>,
    /// Whether there is more to cancel at once.
    pub more: bool,
}

/// A job that publishes the copy of a dead delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeadLetterJob {
    /// The number of the job, by which it is removed.
    pub id: i64,
    /// The dead delivery to be copied.
    pub delivery: DeliveryId,
    /// When it was written.
    pub created_at: Timestamp,
}

/// Writes the jobs that cancel the deliveries of these subscriptions that are open now.
pub(crate) async fn cancel_deliveries(
    txn: &DatabaseTransaction,
    subscriptions: &[SubscriptionId],
    (version, now): (i64, Timestamp),
) -> Result<(), Error> {
    let now: Value = now.as_micros().into();
    let row = |id: &SubscriptionId| {
        [
            "cancel_deliveries".into(),
            id.0.into(),
            version.into(),
            now.clone(),
            now.clone(),
        ]
    };
    for_rows(
        txn,
        "INSERT INTO outbox (kind, subscription, opened_before_version, opened_before, created_at)",
        subscriptions.iter().map(row).collect(),
        "",
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
    /// The oldest jobs that publish copies of dead deliveries. The condition is a range of kind and id, which has an
    /// index of its own. With the kind alone, the database might read past jobs of other kinds in the order of ids.
    pub async fn dead_letter_jobs(&self, limit: u64) -> Result<Vec<DeadLetterJob>, Error> {
        if !self.store.is_shared() {
            return Ok(Vec::new());
        }
        let rows = self
            .ask(
                "SELECT id, delivery, created_at FROM outbox WHERE (kind, id) > ('dead_letter', 0) \
                 AND (kind, id) <= ('dead_letter', 9223372036854775807) ORDER BY kind, id LIMIT $1",
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

    /// The oldest jobs that cancel deliveries of these shards, at most `limit`.
    pub async fn cancel_jobs(&self, owned: &ShardLeases, limit: usize) -> Result<Vec<CancelJob>, Error> {
        let mut jobs: Vec<CancelJob> = Vec::new();
        let mut after = 0;
        loop {
            let rows = self
                .ask(
                    "SELECT id, subscription, opened_before, opened_before_version FROM outbox \
                     WHERE (kind, id) > ('cancel_deliveries', $1) \
                     AND (kind, id) <= ('cancel_deliveries', 9223372036854775807) ORDER BY kind, id LIMIT $2",
                    [after.into(), JOBS.into()],
                )
                .await?;
            for row in &rows {
                let job = CancelJob {
                    id: get(row, "id")?,
                    subscription: SubscriptionId(uuid(row, "subscription")?),
                    opened_before: timestamp(row, "opened_before")?,
                    opened_before_version: get(row, "opened_before_version")?,
                };
                after = job.id;
                if owned.epoch(job.shard()).is_some() {
                    jobs.push(job);
                }
            }
            if jobs.len() >= limit || u64::try_from(rows.len()).is_ok_and(|n| n < JOBS) {
                jobs.truncate(limit);
                return Ok(jobs);
            }
        }
    }

    /// Does a part of a job, in one transaction. Deliveries that the shard's owner has in flight are left alone until
    /// their outcome is known, and the job stays for so long. The caller must not begin any more deliveries that the
    /// job cancels.
    pub async fn work_on(
        &self,
        job: CancelJob,
        owned: &ShardLeases,
        in_flight: &HashSet<DeliveryId>,
    ) -> Result<Cancelled, Error> {
        let epoch = owned.epoch(job.shard());
        let in_flight = in_flight.clone();
        let cancelled = self
            .store
            .write(move |txn, now| Box::pin(cancel_chunk(txn, job, epoch, in_flight, now)))
            .await?;
        self.signals.closed(cancelled.webhooks.len());
        Ok(cancelled)
    }
}

async fn cancel_chunk(
    txn: &DatabaseTransaction,
    job: CancelJob,
    epoch: Option<i64>,
    in_flight: HashSet<DeliveryId>,
    now: Timestamp,
) -> Result<Cancelled, Error> {
    // The lock keeps the owner of the shard: another owner might send what this cancels.
    let (_version, now) = locks::fence(txn, now).await?;
    if shards::epochs(txn, [job.shard()]).await?.get(&job.shard()).copied() != epoch {
        return Ok(Cancelled::default());
    }
    let limit = CANCEL_CHUNK + in_flight.len();
    let rows = all(
        txn,
        "SELECT id, busy_until FROM deliveries_open WHERE shard = $1 AND subscription = $2 \
         AND CASE WHEN opened_version > 0 AND $4 > 0 THEN opened_version < $4 ELSE opened_at < $3 END \
         ORDER BY due_at LIMIT $5",
        [
            i16::from(job.shard().0).into(),
            job.subscription.0.into(),
            job.opened_before.as_micros().into(),
            job.opened_before_version.into(),
            u64::try_from(limit).unwrap_or(u64::MAX).into(),
        ],
    )
    .await?;
    let mut chosen = Vec::with_capacity(rows.len());
    for row in &rows {
        let id = uuid(row, "id")?;
        // A delivery that a former owner has in flight is left until its reservation ends.
        if !in_flight.contains(&DeliveryId(id)) && timestamp(row, "busy_until")? <= now {
            chosen.push(id.into());
        }
    }
    let (left, more) = (rows.len() - chosen.len(), rows.len() == limit);
    let webhooks = cancel(txn, job, chosen, now).await?;
    if left == 0 && !more {
        execute(txn, "DELETE FROM outbox WHERE id = $1", [job.id.into()]).await?;
    }
    Ok(Cancelled { webhooks, more })
}

/// Closes these deliveries as cancelled. Returns the webhooks of those that were open.
async fn cancel(
    txn: &DatabaseTransaction,
    job: CancelJob,
    ids: Vec<Value>,
    now: Timestamp,
) -> Result<Vec<Webhook>, Error> {
    let is_deleted = "SELECT deleted FROM subscriptions WHERE id = $1";
    let reason = match all(txn, is_deleted, [job.subscription.0.into()]).await?.first() {
        Some(row) if !get::<bool>(row, "deleted")? => Reason::SubscriptionInactive,
        _ => Reason::SubscriptionDeleted,
    };
    // Only what this delete finds is cancelled: an outcome may have closed some of them since.
    let returning = format!("RETURNING {}, {LAST}", rows::selected("due_at"));
    let rows = for_values(txn, "DELETE FROM deliveries_open WHERE id", ids, &returning).await?;
    let mut closed = Vec::with_capacity(rows.len());
    let mut cancelled = Vec::with_capacity(rows.len());
    for row in &rows {
        let delivery = delivery(row)?;
        let last = Last::read(row)?;
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
    Ok(cancelled)
}
