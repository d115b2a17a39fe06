//! Outcomes on SQLite.

use super::{Reopening, returned_ids};
use crate::Error;
use crate::sql::for_rows;
use herald_domain::id::DeliveryId;
use sea_orm::DatabaseTransaction;
use std::collections::HashSet;

/// Sets when these deliveries are due again, with the outcome of their attempts. Returns those that were open.
pub(super) async fn reopen(txn: &DatabaseTransaction, rows: Vec<Reopening>) -> Result<HashSet<DeliveryId>, Error> {
    let rows = rows
        .into_iter()
        .map(|(id, [due_at, attempts, status_code, error])| [id.0.into(), due_at, attempts, status_code, error])
        .collect();
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
