//! The delivery queue: what is due, and what came of it.
//!
//! A delivery is closed by deleting its row from `deliveries_open`; that delete is the only gate, and
//! what it finds goes to `deliveries_closed` in the same transaction. A success counts whoever reports
//! it; a failure counts only from the shard's present owner.

mod at_once;
mod due;

use crate::shards::epochs;
use crate::sql::{corrupt, for_rows, for_values, get, time, timestamp, uuid};
use crate::{Error, Ledger, outbox, shards, subscriptions};
use herald_domain::catalogue::Webhook;
use herald_domain::delivery::{Attempt, Closed, Delivery, Reason};
use herald_domain::id::{DeliveryId, EventUid, Shard, SubscriptionId};
use herald_domain::time::Timestamp;
use sea_orm::{DatabaseTransaction, QueryResult, Value};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;

/// What is to be recorded about a delivery.
#[derive(Debug, Clone)]
pub struct Finish {
    /// The delivery, as it was before the attempt.
    pub delivery: Delivery,
    /// Its event.
    pub event: EventUid,
    /// The epoch of its shard at which it was taken up.
    pub epoch: i64,
    /// The attempt; none when it was closed without one.
    pub attempt: Option<Attempt>,
    /// What follows.
    pub then: Then,
}

/// What follows from an attempt, or from the look before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// It is closed.
    Close {
        /// How.
        status: Closed,
        /// Why, unless it was delivered.
        reason: Option<Reason>,
        /// The subscriber wants no more (410): its subscription is deactivated too, if it is still as it
        /// was when the attempt began, last changed at this time.
        deactivate: Option<Timestamp>,
    },
    /// It stays open and is due then.
    Retry(Timestamp),
}

/// What became of a [`Finish`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finished {
    /// As it asked.
    Done,
    /// Somebody else had closed the delivery; the attempt is kept.
    Late,
    /// The shard has another owner by now; nothing was written.
    Stale,
}

impl Ledger {
    /// The lanes of these shards with open deliveries, each with its earliest `due_at`: what a takeover
    /// looks at. One index look-up per lane, however many deliveries it has.
    pub async fn open_lanes(
        &self,
        shards: impl IntoIterator<Item = Shard>,
    ) -> Result<Vec<(SubscriptionId, Timestamp)>, Error> {
        let lanes = for_values(
            self.store.read(),
            "WITH RECURSIVE lane (shard, subscription) AS ( \
               SELECT s.shard, (SELECT d.subscription FROM deliveries_open d WHERE d.shard = s.shard \
                                ORDER BY d.subscription LIMIT 1) FROM shards s WHERE s.shard",
            shards::numbers(shards),
            "  UNION ALL \
               SELECT lane.shard, (SELECT d.subscription FROM deliveries_open d WHERE d.shard = lane.shard \
                                   AND d.subscription > lane.subscription ORDER BY d.subscription LIMIT 1) \
               FROM lane WHERE lane.subscription IS NOT NULL) \
             SELECT subscription, (SELECT due_at FROM deliveries_open d WHERE d.shard = lane.shard \
               AND d.subscription = lane.subscription ORDER BY due_at LIMIT 1) AS due_at \
             FROM lane WHERE subscription IS NOT NULL",
        );
        let rows = self.store.soon(lanes).await?;
        rows.iter()
            .map(|row| Ok((SubscriptionId(uuid(row, "subscription")?), timestamp(row, "due_at")?)))
            .collect()
    }

    /// Counts how many deliveries are open in these shards, for [`crate::Signals::open_deliveries`].
    pub async fn count_open(&self, shards: impl IntoIterator<Item = Shard>) -> Result<(), Error> {
        let rows = for_values(
            self.store.queries(),
            "SELECT count(*) AS n FROM deliveries_open WHERE shard",
            shards::numbers(shards),
            "",
        )
        .await?;
        let open: i64 = rows.first().map_or(Ok(0), |row| get(row, "n"))?;
        self.signals.open_deliveries.store(open, Ordering::Relaxed);
        Ok(())
    }

    /// Records a batch of outcomes, each whole or not at all; what became of each, in order.
    pub async fn finish(&self, batch: Vec<Finish>) -> Result<Vec<Finished>, Error> {
        if !self.store.is_shared() {
            return self.finish_in_transaction(batch).await;
        }
        let mut finished = vec![Finished::Done; batch.len()];
        let closed = at_once::close(self, &batch).await?;
        let (places, rest): (Vec<_>, Vec<_>) = batch
            .into_iter()
            .enumerate()
            .filter(|(_, finish)| !closed.contains(&finish.delivery.id))
            .unzip();
        if !rest.is_empty() {
            for (place, came) in places.into_iter().zip(self.finish_in_transaction(rest).await?) {
                finished[place] = came;
            }
        }
        Ok(finished)
    }

    async fn finish_in_transaction(&self, batch: Vec<Finish>) -> Result<Vec<Finished>, Error> {
        let closing: Vec<bool> = batch
            .iter()
            .map(|finish| matches!(finish.then, Then::Close { .. }))
            .collect();
        let (finished, deactivated) = self
            .store
            .write(move |txn, now| Box::pin(finish(txn, batch, now)))
            .await?;
        let closed = finished
            .iter()
            .zip(closing)
            .filter(|(finished, closing)| *closing && **finished == Finished::Done);
        self.signals.closed(closed.count());
        if deactivated {
            self.signals.registry.notify_waiters();
            self.signals.outbox.notify_one();
        }
        Ok(finished)
    }
}

async fn finish(txn: &DatabaseTransaction, batch: Vec<Finish>, now: Timestamp) -> Result<(Vec<Finished>, bool), Error> {
    let mut finished = vec![Finished::Stale; batch.len()];
    let former = of_former_owners(txn, &batch, now).await?;
    let counted: Vec<(usize, Finish)> = batch
        .into_iter()
        .enumerate()
        .filter(|(_, finish)| former.get(&finish.delivery.id) != Some(&Former::Void))
        .collect();
    let (closings, retries): (Vec<_>, Vec<_>) = counted
        .into_iter()
        .partition(|(_, finish)| matches!(finish.then, Then::Close { .. }));
    let ids = closings.iter().map(|(_, finish)| finish.delivery.id.0.into()).collect();
    let closed = delete_open(txn, ids).await?;
    let reopened = reopen(txn, &retries).await?;
    let mut rows = Vec::with_capacity(closings.len());
    let mut attempts = Vec::new();
    for (position, finish) in closings.iter().chain(&retries) {
        let Finish {
            delivery,
            event,
            attempt,
            then,
            ..
        } = finish;
        let done = closed.contains_key(&delivery.id) || reopened.contains(&delivery.id);
        finished[*position] = if done { Finished::Done } else { Finished::Late };
        match then {
            Then::Close { status, reason, .. } if done => {
                let last = match (attempt, closed.get(&delivery.id)) {
                    (Some(attempt), _) => Last::of(attempt),
                    (None, earlier) => earlier.cloned().unwrap_or_default(),
                };
                rows.push(closed_row(
                    delivery,
                    *event,
                    (*status, *reason),
                    last,
                    attempt.as_ref(),
                    now,
                ));
            }
            Then::Retry(due_at) if done => {
                attempts.extend(
                    attempt
                        .as_ref()
                        .map(|attempt| attempt_row(delivery.id, attempt, Some(*due_at))),
                );
            }
            Then::Close { .. } | Then::Retry(_) => {
                attempts.extend(attempt.as_ref().map(|attempt| attempt_row(delivery.id, attempt, None)));
            }
        }
    }
    insert_closed(txn, rows).await?;
    for_rows(
        txn,
        "INSERT INTO attempts (delivery, number, at, duration_us, status_code, error, detail, next_due_at)",
        attempts,
        "ON CONFLICT DO NOTHING",
    )
    .await?;
    dead_letters(txn, &closings, &finished, now).await?;
    let handed_over: Vec<Delivery> = retries
        .iter()
        .filter(|(_, finish)| former.contains_key(&finish.delivery.id))
        .filter_map(|(_, finish)| match finish.then {
            Then::Retry(due_at) => Some(Delivery {
                due_at,
                ..finish.delivery
            }),
            Then::Close { .. } => None,
        })
        .collect();
    shards::wake(txn, &handed_over).await?;
    let mut deactivated = false;
    for (position, finish) in &closings {
        if let (
            Then::Close {
                deactivate: Some(unchanged_since),
                ..
            },
            Finished::Done,
        ) = (finish.then, finished[*position])
        {
            let id = finish.delivery.subscription;
            deactivated |= subscriptions::deactivate_gone(txn, id, unchanged_since, now).await?;
        }
    }
    Ok((finished, deactivated))
}

/// What an outcome counts that is not the present owner's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Former {
    /// The delivery is the former owner's until then, as it said when it gave the shard back.
    Busy,
    /// Nothing: the present owner may have sent the delivery too.
    Void,
}

/// Of the outcomes that count only from an owner, those whose shard has changed hands since.
async fn of_former_owners(
    txn: &DatabaseTransaction,
    batch: &[Finish],
    now: Timestamp,
) -> Result<HashMap<DeliveryId, Former>, Error> {
    let owners: Vec<&Finish> = batch.iter().filter(|finish| !counts_at_any_epoch(finish)).collect();
    let shards: HashSet<Shard> = owners.iter().map(|finish| shard(finish)).collect();
    let epochs = epochs(txn, shards).await?;
    let mut former: HashMap<_, _> = owners
        .into_iter()
        .filter(|finish| epochs.get(&shard(finish)) != Some(&finish.epoch))
        .map(|finish| (finish.delivery.id, Former::Void))
        .collect();
    if former.is_empty() {
        return Ok(former);
    }
    let now = time(txn, now).await?;
    let ids = former.keys().map(|id| id.0.into()).collect();
    let busy = format!("AND busy_until > {} ", now.as_micros());
    for row in for_values(txn, "SELECT id FROM deliveries_open WHERE id", ids, &busy).await? {
        former.insert(DeliveryId(uuid(&row, "id")?), Former::Busy);
    }
    Ok(former)
}

fn shard(finish: &Finish) -> Shard {
    Shard::of(finish.delivery.subscription)
}

fn counts_at_any_epoch(finish: &Finish) -> bool {
    matches!(
        finish.then,
        Then::Close {
            status: Closed::Delivered,
            ..
        }
    )
}

/// Leaves a job for each delivery that this batch closed as dead: others want a copy.
async fn dead_letters(
    txn: &DatabaseTransaction,
    closings: &[(usize, Finish)],
    finished: &[Finished],
    now: Timestamp,
) -> Result<(), Error> {
    let dead = closings.iter().filter(|(position, finish)| {
        let dead = matches!(
            finish.then,
            Then::Close {
                status: Closed::Dead,
                ..
            }
        );
        dead && finished[*position] == Finished::Done
    });
    outbox::copy_dead_letters(txn, dead.map(|(_, finish)| finish.delivery.id), now).await
}

/// Sets the next `due_at` of what failed and is still open; which it was.
async fn reopen(txn: &DatabaseTransaction, retries: &[(usize, Finish)]) -> Result<HashSet<DeliveryId>, Error> {
    let mut rows: Vec<[Value; 5]> = Vec::with_capacity(retries.len());
    for (
        _,
        Finish {
            delivery,
            attempt,
            then,
            ..
        },
    ) in retries
    {
        if let (Then::Retry(due_at), Some(attempt)) = (then, attempt) {
            rows.push([
                delivery.id.0.into(),
                due_at.as_micros().into(),
                i64::from(attempt.number).into(),
                attempt.outcome.status_code().map(i32::from).into(),
                attempt.outcome.error().map(|error| error.name().to_owned()).into(),
            ]);
        }
    }
    let updated = for_rows(
        txn,
        "WITH failed (id, due_at, attempts, status_code, error) AS (",
        rows,
        ") UPDATE deliveries_open SET due_at = failed.due_at, attempts = failed.attempts, busy_until = 0, \
         last_status_code = failed.status_code, last_error = failed.error FROM failed \
         WHERE deliveries_open.id = failed.id AND deliveries_open.attempts < failed.attempts RETURNING deliveries_open.id",
    )
    .await?;
    returned_ids(&updated)
}

/// What the last attempt came to, as lists show it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Last {
    pub(crate) status_code: Option<i32>,
    pub(crate) error: Option<String>,
}

impl Last {
    fn of(attempt: &Attempt) -> Self {
        Self {
            status_code: attempt.outcome.status_code().map(i32::from),
            error: attempt.outcome.error().map(|error| error.name().to_owned()),
        }
    }
}

/// The gate: whoever's delete finds the row closes the delivery.
async fn delete_open(txn: &DatabaseTransaction, ids: Vec<Value>) -> Result<HashMap<DeliveryId, Last>, Error> {
    let rows = for_values(
        txn,
        "DELETE FROM deliveries_open WHERE id",
        ids,
        "RETURNING id, last_status_code, last_error",
    )
    .await?;
    let last = |row| {
        Ok::<_, Error>(Last {
            status_code: get(row, "last_status_code")?,
            error: get(row, "last_error")?,
        })
    };
    rows.iter()
        .map(|row| Ok((DeliveryId(uuid(row, "id")?), last(row)?)))
        .collect()
}

fn returned_ids(rows: &[QueryResult]) -> Result<HashSet<DeliveryId>, Error> {
    rows.iter().map(|row| Ok(DeliveryId(uuid(row, "id")?))).collect()
}

/// Inserts open deliveries; those that are there already stay as they are.
pub(crate) async fn insert_open(
    txn: &DatabaseTransaction,
    deliveries: impl Iterator<Item = (EventUid, &Delivery)>,
) -> Result<(), Error> {
    let rows = deliveries.map(|(event, delivery)| -> [Value; 9] {
        [
            delivery.id.0.into(),
            event.0.into(),
            delivery.subscription.0.into(),
            i16::from(Shard::of(delivery.subscription).0).into(),
            delivery.webhook.code().into(),
            i64::from(delivery.attempts).into(),
            delivery.due_at.as_micros().into(),
            delivery.created_at.as_micros().into(),
            delivery.opened_at.as_micros().into(),
        ]
    });
    for_rows(
        txn,
        "INSERT INTO deliveries_open (id, event, subscription, shard, webhook, attempts, due_at, created_at, opened_at)",
        rows.collect(),
        "ON CONFLICT DO NOTHING",
    )
    .await?;
    Ok(())
}

pub(crate) type ClosedRow = [Value; 14];

pub(crate) fn closed_row(
    delivery: &Delivery,
    event: EventUid,
    (status, reason): (Closed, Option<Reason>),
    last: Last,
    attempt: Option<&Attempt>,
    now: Timestamp,
) -> ClosedRow {
    [
        delivery.id.0.into(),
        event.0.into(),
        delivery.subscription.0.into(),
        delivery.webhook.code().into(),
        status.code().into(),
        reason.map(|reason| reason.name().to_owned()).into(),
        i64::from(attempt.map_or(delivery.attempts, |attempt| attempt.number)).into(),
        delivery.created_at.as_micros().into(),
        now.as_micros().into(),
        last.status_code.into(),
        last.error.into(),
        attempt.map(|attempt| attempt.at.as_micros()).into(),
        attempt.map(|attempt| micros(attempt.duration)).into(),
        attempt.and_then(|attempt| attempt.detail.clone()).into(),
    ]
}

pub(crate) async fn insert_closed(txn: &DatabaseTransaction, rows: Vec<ClosedRow>) -> Result<(), Error> {
    for_rows(
        txn,
        "INSERT INTO deliveries_closed (id, event, subscription, webhook, status, reason, attempts, created_at, closed_at, \
         last_status_code, last_error, attempt_at, attempt_duration_us, attempt_detail)",
        rows,
        "",
    )
    .await?;
    Ok(())
}

fn attempt_row(delivery: DeliveryId, attempt: &Attempt, next_due_at: Option<Timestamp>) -> [Value; 8] {
    [
        delivery.0.into(),
        i64::from(attempt.number).into(),
        attempt.at.as_micros().into(),
        micros(attempt.duration).into(),
        attempt.outcome.status_code().map(i32::from).into(),
        attempt.outcome.error().map(|error| error.name().to_owned()).into(),
        attempt.detail.clone().into(),
        next_due_at.map(Timestamp::as_micros).into(),
    ]
}

fn micros(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// Reads a delivery; its id in the column `delivery`, and when it is due in `due`.
pub(crate) fn delivery(row: &QueryResult) -> Result<Delivery, Error> {
    let attempts: i64 = get(row, "attempts")?;
    Ok(Delivery {
        id: DeliveryId(uuid(row, "delivery")?),
        subscription: SubscriptionId(uuid(row, "subscription")?),
        webhook: Webhook::coded(get(row, "webhook")?).ok_or_else(|| corrupt("an unknown webhook"))?,
        attempts: u32::try_from(attempts).map_err(|_negative| corrupt("an impossible attempt count"))?,
        due_at: timestamp(row, "due")?,
        created_at: timestamp(row, "created_at")?,
        opened_at: timestamp(row, "opened_at")?,
    })
}
