//! The delivery queue: what is due, and what came of it.
//!
//! A delivery is closed by deleting its row from `deliveries_open`; that delete is the only gate, and
//! what it finds goes to `deliveries_closed` in the same transaction. A success counts whoever reports
//! it; a failure counts only from the shard's present owner.

use crate::dispatching::{EventRecord, event_record};
use crate::shards::{Ownership, epochs};
use crate::sql::{all, corrupt, for_rows, for_values, get, optional_timestamp, timestamp, uuid};
use crate::{Error, Ledger, subscriptions};
use herald_domain::catalogue::Webhook;
use herald_domain::delivery::{Attempt, Closed, Delivery, Reason};
use herald_domain::id::{DeliveryId, EventUid, Shard, SubscriptionId};
use herald_domain::time::Timestamp;
use sea_orm::{DatabaseTransaction, QueryResult, Value};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// What is to be recorded about a delivery.
#[derive(Debug, Clone)]
pub struct Finish {
    /// The delivery, as it was before the attempt.
    pub delivery: Delivery,
    /// Its event.
    pub event: EventUid,
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
    /// The open deliveries of a subscription in the order of `due_at`, with their events.
    pub async fn open_deliveries(
        &self,
        subscription: SubscriptionId,
        limit: usize,
    ) -> Result<Vec<(Delivery, Arc<EventRecord>)>, Error> {
        let rows = all(
            self.store.read(),
            "SELECT d.id AS delivery, d.subscription, d.webhook, d.attempts, max(d.due_at, d.busy_until) AS due_at, \
             d.created_at, d.opened_at, e.uid, e.id, e.type, e.objects, e.data, e.accepted_at, e.traceparent \
             FROM deliveries_open d JOIN events e ON e.uid = d.event \
             WHERE d.shard = $1 AND d.subscription = $2 ORDER BY d.due_at LIMIT $3",
            [
                i16::from(Shard::of(subscription).0).into(),
                subscription.0.into(),
                u64::try_from(limit).unwrap_or(u64::MAX).into(),
            ],
        )
        .await?;
        rows.iter()
            .map(|row| Ok((delivery(row)?, Arc::new(event_record(row)?))))
            .collect()
    }

    /// The lanes with open deliveries, each with its earliest `due_at`: what a takeover looks at. One
    /// index look-up per lane, however many deliveries it has.
    pub async fn open_lanes(&self) -> Result<Vec<(SubscriptionId, Timestamp)>, Error> {
        let rows = all(
            self.store.read(),
            "WITH RECURSIVE lane (shard, subscription) AS ( \
               SELECT * FROM (SELECT shard, subscription FROM deliveries_open ORDER BY shard, subscription LIMIT 1) \
               UNION ALL \
               SELECT (SELECT shard FROM deliveries_open d WHERE (d.shard, d.subscription) > (lane.shard, lane.subscription) \
                       ORDER BY shard, subscription LIMIT 1), \
                      (SELECT subscription FROM deliveries_open d WHERE (d.shard, d.subscription) > (lane.shard, lane.subscription) \
                       ORDER BY shard, subscription LIMIT 1) \
               FROM lane WHERE lane.shard IS NOT NULL) \
             SELECT subscription, (SELECT due_at FROM deliveries_open d WHERE d.shard = lane.shard \
               AND d.subscription = lane.subscription ORDER BY due_at LIMIT 1) AS due_at \
             FROM lane WHERE shard IS NOT NULL",
            [],
        )
        .await?;
        rows.iter()
            .map(|row| Ok((SubscriptionId(uuid(row, "subscription")?), timestamp(row, "due_at")?)))
            .collect()
    }

    /// How many deliveries are open, counted.
    pub(crate) async fn count_open(&self) -> Result<i64, Error> {
        let rows = all(self.store.read(), "SELECT count(*) AS n FROM deliveries_open", []).await?;
        rows.first().map_or(Ok(0), |row| get(row, "n"))
    }

    /// Records a batch of outcomes in one transaction; what became of each, in order.
    pub async fn finish(&self, batch: Vec<Finish>, owned: Ownership) -> Result<Vec<Finished>, Error> {
        let closing: Vec<bool> = batch
            .iter()
            .map(|finish| matches!(finish.then, Then::Close { .. }))
            .collect();
        let (finished, deactivated) = self
            .store
            .write(move |txn, now| Box::pin(finish(txn, batch, owned, now)))
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

async fn finish(
    txn: &DatabaseTransaction,
    batch: Vec<Finish>,
    owned: Ownership,
    now: Timestamp,
) -> Result<(Vec<Finished>, bool), Error> {
    let mut finished = vec![Finished::Stale; batch.len()];
    let epochs = if batch.iter().all(counts_at_any_epoch) {
        HashMap::new()
    } else {
        epochs(txn).await?
    };
    let current = |finish: &Finish| {
        let shard = Shard::of(finish.delivery.subscription);
        owned
            .epoch(shard)
            .is_some_and(|epoch| epochs.get(&shard) == Some(&epoch))
    };
    let counted: Vec<(usize, Finish)> = batch
        .into_iter()
        .enumerate()
        .filter(|(_, finish)| counts_at_any_epoch(finish) || current(finish))
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
        "INSERT INTO attempts (delivery, number, at, duration_us, status_code, error, detail, next_due_at) VALUES",
        attempts,
        "ON CONFLICT DO NOTHING",
    )
    .await?;
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

fn counts_at_any_epoch(finish: &Finish) -> bool {
    matches!(
        finish.then,
        Then::Close {
            status: Closed::Delivered,
            ..
        }
    )
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
        "WITH failed (id, due_at, attempts, status_code, error) AS (VALUES",
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
        "DELETE FROM deliveries_open WHERE id IN",
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
        "INSERT INTO deliveries_open (id, event, subscription, shard, webhook, attempts, due_at, created_at, opened_at) VALUES",
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
         last_status_code, last_error, attempt_at, attempt_duration_us, attempt_detail) VALUES",
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

/// Reads a delivery; its id in the column `delivery`.
pub(crate) fn delivery(row: &QueryResult) -> Result<Delivery, Error> {
    let attempts: i64 = get(row, "attempts")?;
    Ok(Delivery {
        id: DeliveryId(uuid(row, "delivery")?),
        subscription: SubscriptionId(uuid(row, "subscription")?),
        webhook: Webhook::coded(get(row, "webhook")?).ok_or_else(|| corrupt("an unknown webhook"))?,
        attempts: u32::try_from(attempts).map_err(|_negative| corrupt("an impossible attempt count"))?,
        due_at: optional_timestamp(row, "due_at")?.unwrap_or(Timestamp::from_micros(0)),
        created_at: timestamp(row, "created_at")?,
        opened_at: timestamp(row, "opened_at")?,
    })
}
