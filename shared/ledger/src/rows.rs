//! Rows of open and closed deliveries and of attempts: their columns, how they are read, and how they are written.
//!
//! The last attempt of a closed delivery stands in the delivery's own row, so a delivery that succeeds at once is one
//! row.

use crate::Error;
use crate::sql::{corrupt, for_repeatable_rows, for_rows, for_values, get, insert_rows, timestamp, uuid};
use herald_domain::catalogue::Webhook;
use herald_domain::delivery::{Attempt, Closed, Delivery, Reason};
use herald_domain::id::{DeliveryId, EventUid, Shard, SubscriptionId};
use herald_domain::time::Timestamp;
use sea_orm::{DatabaseTransaction, QueryResult, Value};
use std::time::Duration;

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
        opened_version: get(row, "opened_version")?,
    })
}

/// Inserts open deliveries; those that are there already stay as they are.
pub(crate) async fn insert_open(
    txn: &DatabaseTransaction,
    deliveries: impl Iterator<Item = (EventUid, &Delivery)>,
) -> Result<(), Error> {
    let rows = deliveries.map(|(event, delivery)| -> [Value; 10] {
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
            delivery.opened_version.into(),
        ]
    });
    for_repeatable_rows(
        txn,
        "INSERT INTO deliveries_open (id, event, subscription, shard, webhook, attempts, due_at, created_at, opened_at, \
         opened_version)",
        rows.collect(),
        "ON CONFLICT DO NOTHING",
    )
    .await?;
    Ok(())
}

/// What the last attempt came to, as lists show it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Last {
    pub(crate) status_code: Option<i32>,
    pub(crate) error: Option<String>,
}

impl Last {
    pub(crate) fn of(attempt: &Attempt) -> Self {
        Self {
            status_code: attempt.outcome.status_code().map(i32::from),
            error: attempt.outcome.error().map(|error| error.name().to_owned()),
        }
    }
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
    insert_rows(
        txn,
        "INSERT INTO deliveries_closed (id, event, subscription, webhook, status, reason, attempts, created_at, closed_at, \
         last_status_code, last_error, attempt_at, attempt_duration_us, attempt_detail)",
        rows,
    )
    .await
}

/// Puts the attempts that stand in the rows of these closed deliveries among the others.
pub(crate) async fn keep_attempts(txn: &DatabaseTransaction, closed: Vec<Value>) -> Result<(), Error> {
    for_values(
        txn,
        "INSERT INTO attempts (delivery, number, at, duration_us, status_code, error, detail) \
         SELECT id, attempts, attempt_at, attempt_duration_us, last_status_code, last_error, attempt_detail \
         FROM deliveries_closed WHERE attempt_at IS NOT NULL AND id",
        closed,
        "ON CONFLICT DO NOTHING",
    )
    .await?;
    Ok(())
}

pub(crate) type AttemptRow = [Value; 8];

/// The row of an attempt that stands apart from its delivery.
pub(crate) fn attempt_row(delivery: DeliveryId, attempt: &Attempt, next_due_at: Option<Timestamp>) -> AttemptRow {
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

/// Inserts attempts; those that are there already stay as they are.
pub(crate) async fn insert_attempts(txn: &DatabaseTransaction, rows: Vec<AttemptRow>) -> Result<(), Error> {
    for_rows(
        txn,
        "INSERT INTO attempts (delivery, number, at, duration_us, status_code, error, detail, next_due_at)",
        rows,
        "ON CONFLICT DO NOTHING",
    )
    .await?;
    Ok(())
}

pub(crate) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
