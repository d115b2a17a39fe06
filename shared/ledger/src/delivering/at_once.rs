//! Closing what was delivered on PostgreSQL: one statement for all of it, because there every statement is a
//! round trip. What it does not find open is left to the transaction that every other outcome goes through.

use super::{Finish, Then, micros, returned_ids};
use crate::sql::{CLOCK, array};
use crate::{Error, Ledger};
use herald_domain::delivery::{Attempt, Closed};
use herald_domain::id::DeliveryId;
use sea_orm::Value;
use sea_orm::sea_query::ArrayType;
use std::collections::HashSet;

/// Closes those of the batch that were delivered and are open; which they were.
pub(super) async fn close(ledger: &Ledger, batch: &[Finish]) -> Result<HashSet<DeliveryId>, Error> {
    let mut delivered: Vec<(&Finish, &Attempt)> = batch
        .iter()
        .filter(|finish| {
            matches!(
                finish.then,
                Then::Close {
                    status: Closed::Delivered,
                    ..
                }
            )
        })
        .filter_map(|finish| Some((finish, finish.attempt.as_ref()?)))
        .collect();
    if delivered.is_empty() {
        return Ok(HashSet::new());
    }
    // In one order, as every statement that takes many rows.
    delivered.sort_unstable_by_key(|(finish, _)| finish.delivery.id);
    let column = |kind, value: fn(&Finish, &Attempt) -> Value| {
        array(kind, delivered.iter().map(|(finish, attempt)| value(finish, attempt)))
    };
    let values = vec![
        column(ArrayType::Uuid, |finish, _| finish.delivery.id.0.into()),
        column(ArrayType::Uuid, |finish, _| finish.event.0.into()),
        column(ArrayType::Uuid, |finish, _| finish.delivery.subscription.0.into()),
        column(ArrayType::SmallInt, |finish, _| finish.delivery.webhook.code().into()),
        column(ArrayType::BigInt, |finish, _| {
            finish.delivery.created_at.as_micros().into()
        }),
        column(ArrayType::BigInt, |_, attempt| i64::from(attempt.number).into()),
        column(ArrayType::Int, |_, attempt| {
            attempt.outcome.status_code().map(i32::from).into()
        }),
        column(ArrayType::BigInt, |_, attempt| attempt.at.as_micros().into()),
        column(ArrayType::BigInt, |_, attempt| micros(attempt.duration).into()),
        column(ArrayType::String, |_, attempt| attempt.detail.clone().into()),
    ];
    let sql = format!(
        "WITH closed AS (DELETE FROM deliveries_open o USING unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::smallint[], \
         $5::bigint[], $6::bigint[], $7::integer[], $8::bigint[], $9::bigint[], $10::text[]) \
         AS d (id, event, subscription, webhook, created_at, attempts, status_code, at, duration, detail) \
         WHERE o.id = d.id RETURNING d.*) \
         INSERT INTO deliveries_closed (id, event, subscription, webhook, status, attempts, created_at, closed_at, \
         last_status_code, attempt_at, attempt_duration_us, attempt_detail) \
         SELECT id, event, subscription, webhook, {}, attempts, created_at, {CLOCK}, status_code, at, duration, \
         nullif(detail, E'\\u0001NULL\\u0001') FROM closed RETURNING id",
        Closed::Delivered.code()
    );
    returned_ids(&ledger.store.run(&sql, values).await?)
}
