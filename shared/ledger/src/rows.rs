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

/// The columns of an open delivery that [`insert_open`] writes, in order.
pub(crate) const OPEN: &str =
    "id, event, subscription, shard, webhook, attempts, due_at, created_at, opened_at, opened_version";

/// The columns of a delivery that say what its last attempt came to.
pub(crate) const LAST: &str = "last_status_code, last_error";

/// The columns of a closed delivery, in the order of [`closed_row`].
pub(crate) const CLOSED: &str = "id, event, subscription, webhook, status, reason, attempts, created_at, closed_at, \
                                 last_status_code, last_error, attempt_at, attempt_duration_us, attempt_detail";

/// Open and closed deliveries with the same columns, as the API shows them: `d` with its event `e`.
pub(crate) const SHOWN_OPEN: &str = "SELECT d.id, d.event, e.id AS event_id, d.subscription, d.webhook, \
    CAST(0 AS smallint) AS status, NULL AS reason, d.attempts, d.due_at, d.created_at, NULL AS closed_at, \
    d.last_status_code, d.last_error, NULL AS attempt_at, NULL AS attempt_duration_us, NULL AS attempt_detail \
    FROM deliveries_open d JOIN events e ON e.uid = d.event";
pub(crate) const SHOWN_CLOSED: &str = "SELECT d.id, d.event, e.id AS event_id, d.subscription, d.webhook, \
    d.status, d.reason, d.attempts, NULL AS due_at, d.created_at, d.closed_at, \
    d.last_status_code, d.last_error, d.attempt_at, d.attempt_duration_us, d.attempt_detail \
    FROM deliveries_closed d JOIN events e ON e.uid = d.event";

/// What [`delivery`] reads, of an open delivery that is due at `due`, and its event.
pub(crate) fn selected(due: &str) -> String {
    format!("id, event, subscription, webhook, attempts, {due} AS due, created_at, opened_at, opened_version")
}

/// Reads an open delivery, see [`selected`].
pub(crate) fn delivery(row: &QueryResult) -> Result<Delivery, Error> {
    let attempts: i64 = get(row, "attempts")?;
    Ok(Delivery {
        id: DeliveryId(uuid(row, "id")?),
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
        &format!("INSERT INTO deliveries_open ({OPEN})"),
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

    /// Reads the columns [`LAST`].
    pub(crate) fn read(row: &QueryResult) -> Result<Self, Error> {
        Ok(Self {
            status_code: get(row, "last_status_code")?,
            error: get(row, "last_error")?,
        })
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
    insert_rows(txn, &format!("INSERT INTO deliveries_closed ({CLOSED})"), rows).await
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
