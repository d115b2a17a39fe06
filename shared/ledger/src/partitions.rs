//! Partitions of PostgreSQL's tables: each has a day of events, and is made ahead.
//!
//! An event's uid begins with its time, and so does a delivery's id. So the primary keys themselves say to which day a
//! row belongs, and a day is dropped whole. There is no default partition, because rows in it would never be dropped.

use crate::sql::{all, execute, get, one};
use crate::store::{Store, postgres};
use crate::{Error, Ledger, locks};
use herald_migrations::Migrator;
use prometheus::{Gauge, Registry};
use sea_orm::{ConnectionTrait, DatabaseConnection, DatabaseTransaction, TransactionTrait};
use sea_orm_migration::MigratorTrait;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How many days ahead partitions are made, and how many back: an event keeps the uid that it was given
/// when it was first read, however long the ledger was away.
const AHEAD: u32 = 7;
const BACK: u32 = 2;

/// How often to look whether there are enough partitions: sooner while there are too few, and at once when one was
/// missing.
const INTERVAL: Duration = Duration::from_hours(1);
const SOONER: Duration = Duration::from_mins(1);

/// The least time between two looks: many writes may miss the same day.
const PAUSE: Duration = Duration::from_secs(1);

/// How often a process that waits for the lock on the schema looks whether it is free.
const LOCK_LOOK: Duration = Duration::from_millis(200);

/// For how long a step is tried again that did not get the lock on a table in time, and after what pause.
const TRIED_AGAIN: Duration = Duration::from_mins(1);
const PAUSE_OF_STEPS: Duration = Duration::from_secs(3);

/// Brings the schema up to date. One connection holds the lock while another does the work. On a large ledger that may
/// take long, and half of it is of no use. So there is no time limit, except for waiting for others.
pub(crate) async fn migrate(url: &str) -> Result<(), Error> {
    let address = postgres::Address::read(url)?;
    postgres::check(&address).await?;
    // One connection each, so that the settings of a session are valid for all that follows.
    let trust = postgres::Trust::default();
    let migrating = (postgres::WITHOUT_LIMIT, postgres::Plans::Estimated);
    let locking = postgres::connect(&address, 1, migrating, &trust).await?;
    let working = postgres::connect(&address, 1, migrating, &trust).await?;
    let lock = lock_schema(&locking).await?;
    bring_up(&working).await?;
    make(&working).await?;
    lock.commit().await?;
    Ok(())
}

/// Waits until no other process changes the schema. It asks again and again, instead of waiting in a statement: an
/// index that is made beside writes waits for all statements that began before it, and would wait for this one.
async fn lock_schema(connection: &DatabaseConnection) -> Result<DatabaseTransaction, Error> {
    let lock = connection.begin().await?;
    // The connection with the lock is idle while the other one works, and so is one that waits for the lock.
    execute(&lock, "SET LOCAL idle_in_transaction_session_timeout = 0", []).await?;
    loop {
        if locks::try_to_change_schema(&lock).await? {
            return Ok(lock);
        }
        tokio::time::sleep(LOCK_LOOK).await;
    }
}

/// Does the migrations that are left. A migration that waits too long for the lock on a table gives up, so that others
/// get it, and is tried again.
async fn bring_up(connection: &DatabaseConnection) -> Result<(), Error> {
    let began = Instant::now();
    loop {
        let error = match Migrator::up(connection, None).await.map_err(Error::from) {
            Err(error) if error.is_kept_waiting() => error,
            done => return done,
        };
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "the schema could not be changed, because others use a table of it"
        );
        if began.elapsed() >= TRIED_AGAIN {
            return Err(Error::Schema(
                "a transaction that has been open for long uses a table that is to be changed; pg_stat_activity shows \
                 it: end it, or wait for its end, and run herald migrate again",
            ));
        }
        tokio::time::sleep(PAUSE_OF_STEPS).await;
    }
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
    // Migrations that this version does not know are a later version's, which only adds what this one can live with.
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

/// For how many days after today there are partitions, without a gap: 0 if today's is the last, -1 if there is none for
/// today.
async fn ahead(connection: &impl ConnectionTrait) -> Result<i64, Error> {
    let sql = "SELECT coalesce(min(n), 100)::bigint - 1 AS ahead FROM generate_series(0, 99) AS n \
               WHERE (SELECT count(*) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid \
                      WHERE i.inhparent IN ('events'::regclass, 'deliveries_closed'::regclass, 'attempts'::regclass) \
                      AND right(c.relname, 9) = to_char((clock_timestamp() AT TIME ZONE 'UTC')::date + n, '_YYYYMMDD')) < 3";
    let row = one(connection, sql, []).await?;
    get(&row.ok_or(Error::Corrupt("no partitions"))?, "ahead")
}

/// The warning to operators, if there are too few days ahead.
fn in_words(ahead: i64) -> Option<String> {
    match ahead {
        2.. => None,
        0 | 1 => Some(format!(
            "the ledger's partitions end {}: nothing can be recorded after that; run herald migrate as their owner",
            if ahead == 0 { "today" } else { "tomorrow" }
        )),
        _ => Some(
            "the ledger has no partition for today, so nothing can be recorded; run herald migrate as their owner"
                .to_owned(),
        ),
    }
}

/// The gauge of the days ahead for which there are partitions. It is shown only when the number is known: before that
/// any number would be wrong.
#[derive(Debug)]
pub struct Days {
    gauge: Gauge,
    registry: Registry,
    shown: bool,
}

impl Days {
    /// A gauge that will be shown at `registry`.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = Gauge::new(
            "herald_ledger_partitions_ahead",
            "For how many days after today the ledger's partitions are there; they are made 7 ahead.",
        )?;
        Ok(Self {
            gauge,
            registry: registry.clone(),
            shown: false,
        })
    }

    fn set(&mut self, days: i64) {
        #[expect(clippy::cast_precision_loss, reason = "at most 99")]
        self.gauge.set(days as f64);
        if !std::mem::replace(&mut self.shown, true)
            && let Err(error) = self.registry.register(Box::new(self.gauge.clone()))
        {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "the days ahead cannot be shown as a metric"
            );
        }
    }
}

impl Ledger {
    /// Makes partitions ahead until shutdown. After each look `tell` gets the warning, if there are too few.
    pub async fn keep_partitions(
        &self,
        mut days: Days,
        tell: impl Fn(Option<String>) + Send + Sync,
        shutdown: CancellationToken,
    ) {
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
            let mut wait = SOONER;
            match self.store.soon(ahead(self.store.read())).await {
                Ok(ahead) => {
                    days.set(ahead);
                    tell(in_words(ahead));
                    if ahead >= i64::from(AHEAD) {
                        wait = INTERVAL;
                    }
                }
                Err(error) => tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "partitions could not be counted"
                ),
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.store.day_missing() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_days_ahead_are_told_before_there_are_none() {
        assert_eq!(in_words(7), None);
        assert_eq!(in_words(2), None);
        assert!(in_words(1).is_some_and(|words| words.contains("tomorrow")));
        assert!(in_words(0).is_some_and(|words| words.contains("today")));
        assert!(in_words(-1).is_some_and(|words| words.contains("no partition")));
    }
}
