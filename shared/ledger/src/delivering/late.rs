//! Late attempts: those whose delivery was closed before they ended.
//!
//! A success counts whenever it comes: a delivery that was cancelled, refused or given up meanwhile is
//! Delivered all the same. Every attempt counts in `attempts`, also one that failed.

use super::OutcomeRecord;
use crate::rows::keep_attempts;
use crate::sql::{corrupt, execute, for_update, for_values, get, uuid};
use crate::{Error, retention};
use herald_domain::delivery::{Attempt, Closed};
use herald_domain::id::DeliveryId;
use herald_domain::time::Timestamp;
use sea_orm::{DatabaseTransaction, Value};
use std::collections::{HashMap, HashSet};

/// Corrects the closed deliveries that these attempts belong to. Returns those that become Delivered.
pub(super) async fn correct(
    txn: &DatabaseTransaction,
    late: &[&OutcomeRecord],
    now: Timestamp,
) -> Result<HashSet<DeliveryId>, Error> {
    // If a delivery has several, the success counts.
    let mut attempts: HashMap<DeliveryId, &Attempt> = HashMap::new();
    for outcome in late {
        if let Some(attempt) = &outcome.attempt {
            let known = attempts.entry(outcome.delivery.id).or_insert(attempt);
            if attempt.outcome.is_success() {
                *known = attempt;
            }
        }
    }
    let mut ids: Vec<_> = attempts.keys().copied().collect();
    ids.sort_unstable();
    let ids = ids.into_iter().map(|id| id.0.into()).collect();
    let lock = format!("ORDER BY id{}", for_update(txn));
    let closed = for_values(
        txn,
        "SELECT id, status, attempts FROM deliveries_closed WHERE id",
        ids,
        &lock,
    )
    .await?;
    let (mut delivered, mut counted) = (Vec::new(), Vec::new());
    for row in &closed {
        let id = DeliveryId(uuid(row, "id")?);
        let status = Closed::coded(get(row, "status")?).ok_or_else(|| corrupt("an unknown status"))?;
        let known: i64 = get(row, "attempts")?;
        let Some(attempt) = attempts.get(&id) else { continue };
        let number = i64::from(attempt.number);
        let succeeds = attempt.outcome.is_success() && status != Closed::Delivered;
        let counts = succeeds || number > known;
        if !counts || !retention::is_kept(txn, id.0, now).await? {
            continue;
        }
        let values: [Value; 4] = [
            id.0.into(),
            number.max(known).into(),
            attempt.outcome.status_code().map(i32::from).into(),
            attempt.outcome.error().map(|error| error.name().to_owned()).into(),
        ];
        if succeeds {
            delivered.push((id, values));
        } else {
            counted.push(values);
        }
    }
    let changed = delivered.iter().map(|(_, values)| values).chain(&counted);
    let changed = changed.map(|[id, ..]| id.clone());
    keep_attempts(txn, changed.collect()).await?;
    // One by one: there are few, and for a join the database might read all closed rows.
    let update = "UPDATE deliveries_closed SET attempts = $2, attempt_at = NULL, attempt_duration_us = NULL, \
                  attempt_detail = NULL";
    // Of a delivery that was delivered the success stays the last attempt that lists show.
    let shown = "last_status_code = CASE status WHEN 1 THEN last_status_code ELSE $3 END, \
                 last_error = CASE status WHEN 1 THEN last_error ELSE $4 END";
    for values in counted {
        execute(txn, &format!("{update}, {shown} WHERE id = $1"), values).await?;
    }
    let ended = format!(
        "status = {}, reason = NULL, closed_at = {}, last_status_code = $3, last_error = $4",
        Closed::Delivered.code(),
        now.as_micros()
    );
    let mut corrected = HashSet::new();
    for (id, values) in delivered {
        if execute(txn, &format!("{update}, {ended} WHERE id = $1"), values).await? > 0 {
            corrected.insert(id);
        }
    }
    Ok(corrected)
}
