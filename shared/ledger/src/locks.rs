//! The advisory locks, with their numbers. On SQLite there is one writer at a time, and nothing to lock.
//!
//! | number | shared by | alone with |
//! |---|---|---|
//! | 18501 | whoever relies on the registry and the owners of shards as they are: [`hold`] | whoever changes either: [`change`] |
//! | 18502 | | whoever makes partitions: `herald_make_partitions` |
//! | [`DAYS`] | a manual retry, a late success | whoever drops a day: `herald_drop_day` |
//! | [`REMOVAL`] | | whoever removes what has expired |
//! | [`SCHEMA`] | | whoever changes the schema |
//!
//! Those of 18501, 18502 and of dropping a day are taken by functions in `migrations/src/postgres`.

use crate::sql::{all, corrupt, execute, get, one, timestamp};
use crate::store::postgres::ESTIMATED;
use crate::{Error, version};
use herald_domain::time::Timestamp;
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend, QueryResult};

/// Closed deliveries of a day that may be dropped.
const DAYS: i64 = 18503;

/// Removing what has expired, so that one does.
const REMOVAL: i64 = 18504;

/// The schema.
const SCHEMA: i64 = 0x4845_5241_4c44;

/// Holds the registry and the ownership of shards as they are until the transaction ends: the version,
/// and a time that is after every change before and before every change after. Many may hold at once.
pub(crate) async fn hold(txn: &DatabaseTransaction, now: Timestamp) -> Result<(i64, Timestamp), Error> {
    if txn.get_database_backend() != DbBackend::Postgres {
        return Ok((version::of(txn).await?, now));
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

async fn held(txn: &DatabaseTransaction, sql: &str) -> Result<(i64, Timestamp), Error> {
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

/// As [`keep_days`], without waiting: whether no day was being dropped.
pub(crate) async fn try_to_keep_days(txn: &DatabaseTransaction) -> Result<bool, Error> {
    if txn.get_database_backend() != DbBackend::Postgres {
        return Ok(true);
    }
    let sql = "SELECT pg_try_advisory_xact_lock_shared($1) AS taken";
    is_taken(&all(txn, sql, [DAYS.into()]).await?)
}

/// Takes removing what has expired for this transaction, whose statements are then planned by estimates; whether
/// nobody else has it.
pub(crate) async fn try_to_remove(txn: &DatabaseTransaction) -> Result<bool, Error> {
    if txn.get_database_backend() != DbBackend::Postgres {
        return Ok(true);
    }
    let sql = format!("SELECT pg_try_advisory_xact_lock($1) AS taken, {ESTIMATED}");
    is_taken(&all(txn, &sql, [REMOVAL.into()]).await?)
}

/// Takes the schema of a PostgreSQL database for this transaction; whether nobody else has it.
pub(crate) async fn try_to_change_schema(txn: &DatabaseTransaction) -> Result<bool, Error> {
    let sql = "SELECT pg_try_advisory_xact_lock($1) AS taken";
    is_taken(&all(txn, sql, [SCHEMA.into()]).await?)
}

fn is_taken(rows: &[QueryResult]) -> Result<bool, Error> {
    rows.first().map_or(Ok(false), |row| get(row, "taken"))
}
