//! The registry's version, and the log of what was changed.

use crate::notices::Notice;
use crate::sql::{corrupt, execute, for_rows, get, one};
use crate::{Error, notices};
use herald_domain::id::AccountId;
use herald_domain::time::Timestamp;
use sea_orm::{ConnectionTrait, DatabaseTransaction};

/// The version, as this connection sees it.
pub(crate) async fn of<C: ConnectionTrait>(connection: &C) -> Result<i64, Error> {
    let row = one(connection, "SELECT version FROM registry_version", []).await?;
    get(&row.ok_or_else(|| corrupt("no registry version"))?, "version")
}

/// Moves the version on, and returns the new one. [`crate::locks::change`] must come before it.
pub(crate) async fn bump(txn: &DatabaseTransaction) -> Result<i64, Error> {
    let next = "UPDATE registry_version SET version = version + 1 RETURNING version";
    let row = one(txn, next, []).await?;
    let version = get(&row.ok_or_else(|| corrupt("no registry version"))?, "version")?;
    notices::tell(txn, Notice::Registry).await?;
    Ok(version)
}

/// Writes down who changed what.
pub(crate) async fn log(
    txn: &DatabaseTransaction,
    by: Option<AccountId>,
    action: &str,
    subject: &str,
    now: Timestamp,
) -> Result<(), Error> {
    execute(
        txn,
        "INSERT INTO audit_log (at, account, action, subject) VALUES ($1, $2, $3, $4)",
        [
            now.as_micros().into(),
            by.map(|account| account.0).into(),
            action.into(),
            subject.into(),
        ],
    )
    .await?;
    Ok(())
}

/// Writes a change of each of these to the log, without an account, because no request made it.
pub(crate) async fn log_all(
    txn: &DatabaseTransaction,
    action: &str,
    subjects: impl Iterator<Item = impl ToString>,
    now: Timestamp,
) -> Result<(), Error> {
    let row = |subject: String| [now.as_micros().into(), action.into(), subject.into()];
    let rows = subjects.map(|subject| row(subject.to_string())).collect();
    for_rows::<3, _>(txn, "INSERT INTO audit_log (at, action, subject)", rows, "").await?;
    Ok(())
}
