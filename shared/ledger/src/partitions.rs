//! Partitions of PostgreSQL's tables: a day of events each, made ahead.
//!
//! An event's uid begins with its time and so does a delivery's id, so the primary keys themselves say
//! which day a row belongs to, and a day is dropped whole. There is no default partition: a row for which
//! there is no day must not hide where nobody drops it.

use crate::sql::{all, execute, get};
use crate::store::{Store, postgres};
use crate::{Error, Ledger};
use herald_migrations::Migrator;
use sea_orm::ConnectionTrait;
use sea_orm_migration::MigratorTrait;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How many days ahead partitions are made, and how many back: an event keeps the uid that it was given
/// when it was first read, however long the ledger was away.
const AHEAD: u32 = 7;
const BACK: u32 = 2;

/// How often to look whether there are enough.
const INTERVAL: Duration = Duration::from_hours(1);

/// The key of the advisory lock under which the schema is changed.
const SCHEMA_LOCK: i64 = 0x4845_5241_4c44;

/// Brings the schema up to date; the lock is held on one connection while another does the work. On a large
/// ledger that may take long, and a half of it is worth nothing, so there is no limit.
pub(crate) async fn migrate(url: &str) -> Result<(), Error> {
    use sea_orm::TransactionTrait;
    let patient = postgres::connect(url, 2, postgres::WITHOUT_LIMIT).await?;
    let lock = patient.begin().await?;
    // Whoever waits here is not idle, so it is not cut off; the holder is, for as long as it works.
    execute(&lock, "SET LOCAL idle_in_transaction_session_timeout = 0", []).await?;
    execute(&lock, "SELECT pg_advisory_xact_lock($1)", [SCHEMA_LOCK.into()]).await?;
    Migrator::up(&patient, None).await?;
    make(&patient).await?;
    lock.commit().await?;
    Ok(())
}

/// Whether the schema is this version's, without changing anything.
pub(crate) async fn check(store: &Store) -> Result<(), Error> {
    let exists = all(
        store.read(),
        "SELECT to_regclass('herald_migrations') IS NOT NULL AS there",
        [],
    )
    .await?;
    let there = exists.first().map_or(Ok(false), |row| get(row, "there"))?;
    if !there {
        return Err(Error::Schema("there is none; run herald migrate"));
    }
    let applied = all(store.read(), "SELECT version FROM herald_migrations", []).await?;
    let applied: Vec<String> = applied
        .iter()
        .map(|row| get(row, "version"))
        .collect::<Result<_, _>>()?;
    // More than this version knows is a later version's, which only adds what this one can live with.
    let behind = Migrator::migrations()
        .iter()
        .any(|migration| !applied.iter().any(|name| name == migration.name()));
    if behind {
        return Err(Error::Schema("it is behind; run herald migrate"));
    }
    Ok(())
}

async fn make(connection: &impl ConnectionTrait) -> Result<(), Error> {
    let days = [i64::from(BACK).into(), i64::from(AHEAD).into()];
    execute(connection, "SELECT herald_make_partitions($1, $2)", days).await?;
    Ok(())
}

impl Ledger {
    /// Makes partitions ahead until shutdown. On SQLite there are none.
    pub async fn keep_partitions(&self, shutdown: CancellationToken) {
        if !self.store.is_shared() {
            return shutdown.cancelled().await;
        }
        loop {
            let made = self
                .store
                .write(|txn, _now| Box::pin(async move { make(txn).await }))
                .await;
            if let Err(error) = made {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    days = AHEAD,
                    "partitions could not be made; those that there are last for days"
                );
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(INTERVAL) => {}
            }
        }
    }
}
