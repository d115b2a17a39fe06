//! Sessions of PostgreSQL: the settings that each must have, whatever the role or the database sets, and the end of
//! sessions that must not be used any more.

use super::{Address, PATIENCE};
use crate::Error;
use sea_orm::sqlx::postgres::{PgConnectOptions, PgConnection, PgPoolOptions};
use sea_orm::sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgPool, Row, raw_sql};
use sea_orm::{DbErr, RuntimeErr};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a client may be idle in a transaction before the server cuts it off.
const IDLE_IN_TRANSACTION: Duration = Duration::from_secs(5);

/// How long an idle connection is taken to be alive without being asked.
const TESTED_IF_IDLE: Duration = Duration::from_secs(1);

/// How long a connection may take to say that it is alive. Without this limit the kernel would wait a quarter of an
/// hour for a machine that is gone.
const ANSWER: Duration = Duration::from_secs(2);

/// How long a pool waits for a connection. It is less than the time limit of the work that needs it, so that the work
/// fails with the reason that there was none.
const CONNECTION: Duration = Duration::from_secs(7);

/// How long a trial connection may take, which is only made to see whether one can be made.
const TRIAL: Duration = Duration::from_secs(1);

/// How PostgreSQL chooses its plan for reading the rows of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plans {
    /// By the planner's estimates.
    Estimated,
    /// By an index, whatever it estimates. Tables on the delivery path fill and empty within seconds, but a plan
    /// stays. A plan that was made for an empty table would read it from end to end when it is full of rows, or of
    /// dead ones.
    ///
    /// This is right for statements that name their rows by an index and have one table each. A table that is joined
    /// to an array would be read through its whole index.
    Indexed,
}

impl Plans {
    fn settings(self) -> &'static str {
        match self {
            Self::Estimated => "",
            // A bitmap scan reads dead rows again and again, and an index scan marks them. A table without a fitting
            // index gets such a high cost that PostgreSQL would compile the statement (jit).
            Self::Indexed => "SET enable_seqscan = off; SET enable_bitmapscan = off; SET jit = off; ",
        }
    }
}

/// Columns of a SELECT after which, in a session with [`Plans::Indexed`], the transaction is planned by estimates.
pub(crate) const ESTIMATED: &str =
    "set_config('enable_seqscan', 'on', true), set_config('enable_bitmapscan', 'on', true)";

/// The settings of every session. They override those of the server, the database and the role, which may be made for
/// another application.
fn settings(patience: Duration, plans: Plans) -> String {
    let (patience, idle) = (patience.as_millis(), IDLE_IN_TRANSACTION.as_millis());
    let plans = plans.settings();
    format!(
        "SET statement_timeout = {patience}; SET idle_in_transaction_session_timeout = {idle}; \
         SET lock_timeout = 0; SET idle_session_timeout = 0; \
         SET default_transaction_isolation = 'read committed'; \
         SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 2; \
         SET tcp_user_timeout = 20000; {plans}\
         SELECT set_config('synchronous_commit', 'on', false) \
         WHERE current_setting('synchronous_commit') IN ('off', 'local', 'remote_write')"
    )
}

/// A pool of sessions like that.
pub(super) fn pool(
    address: &Address,
    connections: u32,
    (patience, plans): (Duration, Plans),
    trust: &Trust,
) -> (PgPoolOptions, PgConnectOptions) {
    let set = settings(patience, plans);
    let (at_acquire, at_release) = (trust.clone(), trust.clone());
    let pool = PgPoolOptions::new()
        .max_connections(connections)
        .min_connections(0)
        .acquire_timeout(CONNECTION)
        .idle_timeout(Duration::from_mins(10))
        .test_before_acquire(false)
        .after_connect(move |connection, _| {
            let set = AssertSqlSafe(set.clone());
            Box::pin(async move { raw_sql(set).execute(connection).await.map(drop) })
        })
        .before_acquire(move |connection, meta| {
            let verdict = at_acquire.of(meta.age);
            Box::pin(async move {
                Ok(match verdict {
                    Verdict::Former => false,
                    Verdict::Sound if meta.idle_for < TESTED_IF_IDLE => true,
                    // A server that was restarted has ended all connections, and the work that gets one would fail.
                    Verdict::Sound | Verdict::Silent => answers(connection).await,
                })
            })
        })
        .after_release(move |connection, meta| {
            let verdict = at_release.of(meta.age);
            Box::pin(async move {
                Ok(match verdict {
                    Verdict::Former => false,
                    Verdict::Sound => true,
                    // Otherwise the pool would wait for this connection without a limit.
                    Verdict::Silent => answers(connection).await,
                })
            })
        });
    let session = session(address)
        .application_name("herald")
        .statement_cache_capacity(256);
    (pool, session)
}

/// A session without start parameters that a pooler would refuse unless it is told to let them through.
fn session(address: &Address) -> PgConnectOptions {
    address
        .options
        .clone()
        .extra_float_digits(None)
        .disable_statement_logging()
}

async fn answers(connection: &mut PgConnection) -> bool {
    matches!(tokio::time::timeout(ANSWER, connection.ping()).await, Ok(Ok(())))
}

/// Looks whether that is a database that a ledger can be in, without changing anything.
pub(super) async fn check(address: &Address) -> Result<(), Error> {
    match tokio::time::timeout(PATIENCE, look(&session(address))).await {
        Ok(looked) => looked,
        Err(_elapsed) => Err(Error::Slow(PATIENCE)),
    }
}

async fn look(options: &PgConnectOptions) -> Result<(), Error> {
    let mut one = PgConnection::connect_with(options).await.map_err(of_connection)?;
    let asked = "SELECT current_setting('server_encoding') AS encoding, current_setting('fsync') AS fsync, \
                 current_setting('full_page_writes') AS full_page_writes";
    let row = raw_sql(asked).fetch_one(&mut one).await.map_err(of_query)?;
    let setting = |name: &str| row.try_get::<String, _>(name).map_err(of_query);
    let encoding = setting("encoding")?;
    if encoding != "UTF8" {
        return Err(Error::Unfit(format!(
            "the database's encoding is {encoding}, and must be UTF8, or what others write could not be kept: make \
             another with CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0"
        )));
    }
    let mut other = PgConnection::connect_with(options).await.map_err(of_connection)?;
    // Two sessions that are open at the same time have different server processes, and each keeps its process.
    let mut former = None;
    for _ in 0..4 {
        let (first, second) = (process(&mut one).await?, process(&mut other).await?);
        if first == second || former.is_some_and(|former| former != first) {
            return Err(Error::Unfit(
                "a pooler stands before the database and lends out its sessions for one transaction at a time \
                 (PgBouncer: pool_mode=transaction); Herald needs sessions of its own: connect to PostgreSQL itself, \
                 or use pool_mode=session"
                    .to_owned(),
            ));
        }
        former = Some(first);
    }
    for name in ["fsync", "full_page_writes"] {
        if setting(name)? != "on" {
            tracing::warn!(
                setting = name,
                "the database server is set not to keep what is committed when its machine fails; what was accepted \
                 may be lost then"
            );
        }
    }
    drop(one.close().await);
    drop(other.close().await);
    Ok(())
}

/// Makes a connection and closes it. Returns the reason in words if there is none.
pub(super) async fn try_to_connect(address: &Address) -> Result<(), String> {
    let options = session(address);
    match tokio::time::timeout(TRIAL, PgConnection::connect_with(&options)).await {
        Ok(Ok(connection)) => {
            drop(tokio::time::timeout(TRIAL, connection.close()).await);
            Ok(())
        }
        Ok(Err(sea_orm::SqlxError::Io(error))) => Err(error.to_string()),
        Ok(Err(sea_orm::SqlxError::Database(error))) => Err(error.message().to_owned()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_elapsed) => Err("its server does not answer".to_owned()),
    }
}

/// The server's process that answers this session.
async fn process(connection: &mut PgConnection) -> Result<i32, Error> {
    let row = raw_sql("SELECT pg_backend_pid() AS process").fetch_one(connection);
    row.await.and_then(|row| row.try_get("process")).map_err(of_query)
}

pub(super) fn of_connection(error: sea_orm::SqlxError) -> Error {
    DbErr::Conn(RuntimeErr::SqlxError(Arc::new(error))).into()
}

fn of_query(error: sea_orm::SqlxError) -> Error {
    DbErr::Query(RuntimeErr::SqlxError(Arc::new(error))).into()
}

/// What the users of connections have learned about them; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trust(Arc<Mutex<Doubts>>);

#[derive(Debug, Default, Clone, Copy)]
struct Doubts {
    /// When the server was found to take no writes.
    replaced: Option<Instant>,
    /// When a connection did not answer in time.
    silent: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Sound,
    /// The connection is asked whether it is alive before it is used.
    Silent,
    /// The connection is not used any more.
    Former,
}

impl Trust {
    /// Does `work` within the time limit `patience`, and takes note of what a failure says about the connections.
    pub(crate) async fn watch<T>(
        &self,
        patience: Duration,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let mut work = pin!(work);
        let done = tokio::select! {
            done = &mut work => done,
            () = tokio::time::sleep(patience) => {
                // This comes before the work is dropped, because then its connection goes back to the pool.
                self.silent();
                Err(Error::Slow(patience))
            }
        };
        if done.as_ref().is_err_and(Error::is_read_only) {
            self.replaced();
        }
        done
    }

    fn silent(&self) {
        self.note(|doubts| doubts.silent = Some(Instant::now()));
    }

    /// Takes all present connections out of use, because their server takes no writes. After a failover another server
    /// does, and new connections lead there.
    pub(crate) fn replaced(&self) {
        self.note(|doubts| {
            // If new connections still lead to this server, once a second is enough.
            if doubts.replaced.is_none_or(|at| at.elapsed() >= Duration::from_secs(1)) {
                doubts.replaced = Some(Instant::now());
            }
        });
    }

    /// Whether a connection that was made at that time is out of use.
    pub(crate) fn is_former(&self, connected: Instant) -> bool {
        self.of(connected.elapsed()) == Verdict::Former
    }

    fn of(&self, age: Duration) -> Verdict {
        let doubts = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = |at: Option<Instant>| at.is_some_and(|at| at.elapsed() < age);
        if before(doubts.replaced) {
            Verdict::Former
        } else if before(doubts.silent) {
            Verdict::Silent
        } else {
            Verdict::Sound
        }
    }

    fn note(&self, change: impl FnOnce(&mut Doubts)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// A pool of one connection, for listening to notices.
pub(super) fn listening(address: &Address) -> PgPool {
    let (pool, session) = pool(address, 1, (PATIENCE, Plans::Estimated), &Trust::default());
    pool.idle_timeout(None).max_lifetime(None).connect_lazy_with(session)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_there_before_a_failure_is_doubted_and_what_is_new_is_not() {
        let trust = Trust::default();
        let long_ago = Duration::from_mins(1);
        assert_eq!(trust.of(long_ago), Verdict::Sound);
        trust.silent();
        assert_eq!(trust.of(long_ago), Verdict::Silent);
        assert_eq!(trust.of(Duration::ZERO), Verdict::Sound);
        let refused = trust
            .watch(PATIENCE, std::future::ready(Err::<(), _>(Error::ReadOnly)))
            .await;
        assert!(matches!(refused, Err(Error::ReadOnly)));
        assert_eq!(trust.of(long_ago), Verdict::Former);
        assert_eq!(trust.of(Duration::ZERO), Verdict::Sound);
    }
}
