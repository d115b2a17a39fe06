//! Outcomes on PostgreSQL, where every statement is a round trip.
//!
//! Successes are closed in one statement. Those that it does not find open are left to the transaction that every
//! other outcome goes through. Deliveries that are due again are updated in one call.

use super::{NextStep, OutcomeRecord, Reopening, returned_ids};
use crate::rows::{CLOSED, micros};
use crate::sql::{CLOCK, all, array};
use crate::{Error, Ledger};
use herald_domain::delivery::{Attempt, Closed};
use herald_domain::id::DeliveryId;
use sea_orm::sea_query::ArrayType;
use sea_orm::{DatabaseTransaction, Value};
use std::collections::HashSet;

/// Closes the deliveries of the batch that were delivered and are open. Returns their ids.
pub(super) async fn close(ledger: &Ledger, batch: &[OutcomeRecord]) -> Result<HashSet<DeliveryId>, Error> {
    let mut delivered: Vec<(&OutcomeRecord, &Attempt)> = batch
        .iter()
        .filter(|outcome| {
            matches!(
                outcome.next,
                NextStep::Close {
                    status: Closed::Delivered,
                    ..
                }
            )
        })
        .filter_map(|outcome| Some((outcome, outcome.attempt.as_ref()?)))
        .collect();
    if delivered.is_empty() {
        return Ok(HashSet::new());
    }
    // In one order, as in every statement that locks many rows.
    delivered.sort_by_key(|(outcome, _)| outcome.delivery.id);
    // An outcome that comes twice, because an answer was lost, closes its delivery once.
    delivered.dedup_by_key(|(outcome, _)| outcome.delivery.id);
    let column = |kind, value: fn(&OutcomeRecord, &Attempt) -> Value| {
        array(kind, delivered.iter().map(|(outcome, attempt)| value(outcome, attempt)))
    };
    let values = vec![
        column(ArrayType::Uuid, |outcome, _| outcome.delivery.id.0.into()),
        column(ArrayType::Uuid, |outcome, _| outcome.event.0.into()),
        column(ArrayType::Uuid, |outcome, _| outcome.delivery.subscription.0.into()),
        column(ArrayType::SmallInt, |outcome, _| outcome.delivery.webhook.code().into()),
        column(ArrayType::BigInt, |outcome, _| {
            outcome.delivery.created_at.as_micros().into()
        }),
        column(ArrayType::BigInt, |_, attempt| i64::from(attempt.number).into()),
        column(ArrayType::Int, |_, attempt| {
            attempt.outcome.status_code().map(i32::from).into()
        }),
        column(ArrayType::BigInt, |_, attempt| attempt.at.as_micros().into()),
        column(ArrayType::BigInt, |_, attempt| micros(attempt.duration).into()),
        column(ArrayType::String, |_, attempt| attempt.detail.clone().into()),
    ];
    // The delete has the open table alone: in a join with the arrays a planner that takes the table for empty would
    // read it from end to end. `IS TRUE` keeps the condition from becoming a join too; its look-ups are hashed.
    let sql = format!(
        "WITH closed AS (DELETE FROM deliveries_open WHERE id = ANY ($1::uuid[]) RETURNING id) \
         INSERT INTO deliveries_closed ({CLOSED}) \
         SELECT id, event, subscription, webhook, {}, NULL, attempts, created_at, {CLOCK}, status_code, NULL, at, duration, \
         nullif(detail, E'\\u0001NULL\\u0001') \
         FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::smallint[], $5::bigint[], $6::bigint[], $7::integer[], \
         $8::bigint[], $9::bigint[], $10::text[]) \
         AS d (id, event, subscription, webhook, created_at, attempts, status_code, at, duration, detail) \
         WHERE (d.id IN (SELECT closed.id FROM closed)) IS TRUE RETURNING id",
        Closed::Delivered.code()
    );
    returned_ids(&ledger.store.run(&sql, values).await?)
}

/// Sets when these deliveries are due again, with the outcome of their attempts. Returns those that were open. See
/// `migrations/src/postgres/0015_by_index.sql`.
pub(super) async fn reopen(txn: &DatabaseTransaction, mut rows: Vec<Reopening>) -> Result<HashSet<DeliveryId>, Error> {
    if rows.is_empty() {
        return Ok(HashSet::new());
    }
    // In one order, as in every statement that locks many rows.
    rows.sort_by_key(|(id, _)| *id);
    let column = |kind, n: usize| array(kind, rows.iter().filter_map(|(_, row)| row.get(n).cloned()));
    let values = vec![
        array(ArrayType::Uuid, rows.iter().map(|(id, _)| id.0.into())),
        column(ArrayType::BigInt, 0),
        column(ArrayType::BigInt, 1),
        column(ArrayType::Int, 2),
        column(ArrayType::String, 3),
    ];
    let sql = "SELECT id FROM herald_reopen($1, $2, $3, $4, $5) AS id";
    returned_ids(&all(txn, sql, values).await?)
}
