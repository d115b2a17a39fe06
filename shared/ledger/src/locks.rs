//! The advisory locks of PostgreSQL, with their numbers. SQLite has one writer at a time, and needs none.
//!
//! | number | shared by | alone with |
//! |---|---|---|
//! | 18501 | what relies on the registry and on shards' owners: [`fence`] | a change of either: [`change`] |
//! | 18502 | | the making of partitions: `herald_make_partitions` |
//! | [`DAYS`] | a manual retry, a late success | the dropping of a day: `herald_drop_day` |
//! | [`REMOVAL`] | | the removal of expired records |
//! | [`SCHEMA`] | | a change of the schema |
//!
//! Functions in `migrations/src/postgres` take 18501 and 18502, and [`DAYS`] for dropping a day.

use crate::sql::{all, corrupt, execute, get, one, timestamp};
use crate::store::postgres::ESTIMATED;
use crate::{Error, version};
use herald_domain::time::Timestamp;
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend, QueryResult};

/// The lock on days of closed deliveries, which may be dropped.
const DAYS: i64 = 18503;

/// The lock on the removal of expired records, which one process does at a time.
const REMOVAL: i64 = 18504;

/// The lock on the schema.
const SCHEMA: i64 = 0x4845_5241_4c44;

/// Keeps the registry and the ownership of shards as they are until the transaction ends. Many transactions may do
/// so at once. Returns the registry's version, and a time that is after every earlier change and before every later one.
pub(crate) async fn fence(txn: &DatabaseTransaction, now: Timestamp) -> Result<(i64, Timestamp), Error> {
    if txn.get_database_backend() != DbBackend::Postgres {
        return Ok((version::of(txn).await?, now));
    }
    locked(txn, "SELECT version, now FROM herald_hold()").await
}

/// Waits until no transaction has the lock of [`fence`], and then has it alone until the transaction ends. Returns the
/// time of the change. Every change of the registry begins with this, so changes come one after the other.
pub(crate) async fn change(txn: &DatabaseTransaction, now: Timestamp) -> Result<Timestamp, Error> {
    if txn.get_database_backend() != DbBackend::Postgres {
        return Ok(now);
    }
    Ok(locked(txn, "SELECT version, now FROM herald_change()").await?.1)
}

async fn locked(txn: &DatabaseTransaction, sql: &str) -> Result<(i64, Timestamp), Error> {
    let row = one(txn, sql, []).await?.ok_or_else(|| corrupt("no registry version"))?;
    Ok((get(&row, "version")?, timestamp(&row, "now")?))
}

/// Waits until no day is being dropped, and keeps days from being dropped until the transaction ends.
pub(crate) async fn keep_days(txn: &DatabaseTransaction) -> Result<(), Error> {
    if txn.get_database_backend() == DbBackend::Postgres {
        execute(txn, "SELECT pg_advisory_xact_lock_shared($1)", [DAYS.into()]).await?;
    }
    Ok(())
}

/// Does the same as [`keep_days`] without waiting. Returns false if a day is being dropped.
pub(crate) async fn try_to_keep_days(txn: &DatabaseTransaction) -> Result<bool, Error> {
    if txn.get_database_backend() != DbBackend::Postgres {
        return Ok(true);
    }
    let sql = "SELECT pg_try_advisory_xact_lock_shared($1) AS taken";
    is_taken(&all(txn, sql, [DAYS.into()]).await?)
}

/// Takes the lock on the removal of expired records for this transaction, whose statements are then planned by
/// estimates. Returns false if another transaction has the lock.
pub(crate) async fn try_to_remove(txn: &DatabaseTransaction) -> Result<bool, Error> {
    if txn.get_database_backend() != DbBackend::Postgres {
        return Ok(true);
    }
    let sql = format!("SELECT pg_try_advisory_xact_lock($1) AS taken, {ESTIMATED}");
    is_taken(&all(txn, &sql, [REMOVAL.into()]).await?)
}

/// Takes the lock on the schema of a PostgreSQL database for this transaction. Returns false if another transaction
/// has the lock.
pub(crate) async fn try_to_change_schema(txn: &DatabaseTransaction) -> Result<bool, Error> {
    let sql = "SELECT pg_try_advisory_xact_lock($1) AS taken";
    is_taken(&all(txn, sql, [SCHEMA.into()]).await?)
}

fn is_taken(rows: &[QueryResult]) -> Result<bool, Error> {
    rows.first().map_or(Ok(false), |row| get(row, "taken"))
}
