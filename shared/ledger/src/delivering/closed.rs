//! Rows of closed deliveries. The last attempt stands in the delivery's own row, so a delivery that succeeds at once is
//! one row.

use super::micros;
use crate::Error;
use crate::sql::{for_values, insert_rows};
use herald_domain::delivery::{Attempt, Closed, Delivery, Reason};
use herald_domain::id::EventUid;
use herald_domain::time::Timestamp;
use sea_orm::{DatabaseTransaction, Value};

/// What the last attempt came to, as lists show it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Last {
    pub(crate) status_code: Option<i32>,
    pub(crate) error: Option<String>,
}

impl Last {
    pub(super) fn of(attempt: &Attempt) -> Self {
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
