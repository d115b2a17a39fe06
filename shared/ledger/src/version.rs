//! The registry's version: who keeps it as it is, who moves it on, and the log of what was changed.

use crate::notices::Notice;
use crate::sql::{corrupt, execute, for_rows, get, one, timestamp};
use crate::{Error, notices};
use herald_domain::id::AccountId;
use herald_domain::time::Timestamp;
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend};

/// The version, as this connection sees it.
pub(crate) async fn of<C: ConnectionTrait>(connection: &C) -> Result<i64, Error> {
    let row = one(connection, "SELECT version FROM registry_version", []).await?;
    get(&row.ok_or_else(|| corrupt("no registry version"))?, "version")
}

/// Holds the registry and the ownership of shards as they are until the transaction ends: the version,
/// and a time that is after every change before and before every change after. Many may hold at once.
pub(crate) async fn hold(txn: &DatabaseTransaction, now: Timestamp) -> Result<(i64, Timestamp), Error> {
    if txn.get_database_backend() != DbBackend::Postgres {
        return Ok((of(txn).await?, now));
    }
    held(txn, "SELECT version, now FROM herald_hold()").await
}

/// Waits until nobody holds what [`hold`] holds, and then has it alone until the transaction ends; the
/// time of the change. Every change of the registry begins with it, so changes come one after the other.
pub(crate) async fn change(txn: &DatabaseTransaction, now: Timestamp) -> Result<Timestamp, Error> {
    if txn.get_database_backend() != DbBackend::Postgres {
        return Ok(now);
    }
    Ok(held(txn, "SELECT version, now FROM herald_change()").await?.1)
}

/// Moves the version on; the new one. After [`change`].
pub(crate) async fn bump(txn: &DatabaseTransaction) -> Result<i64, Error> {
    let next = "UPDATE registry_version SET version = version + 1 RETURNING version";
    let row = one(txn, next, []).await?;
    let version = get(&row.ok_or_else(|| corrupt("no registry version"))?, "version")?;
    notices::tell(txn, Notice::Registry).await?;
    Ok(version)
}

async fn held(txn: &DatabaseTransaction, sql: &str) -> Result<(i64, Timestamp), Error> {
    let row = one(txn, sql, []).await?.ok_or_else(|| corrupt("no registry version"))?;
    Ok((get(&row, "version")?, timestamp(&row, "now")?))
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

/// Writes down what was changed of each of these, by nobody's request.
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
