//! The ledger: the only truth about events, deliveries and attempts, and the delivery queue itself.
//!
//! Every open delivery has a `due_at`. A crash, a lost hand-over, an overflow and an ordinary retry
//! are one mechanism: the row is there, it is due, and the owner of its shard sends it.
//!
//! | module | what it does |
//! |---|---|
//! | [`dispatching`] | records events with what they matched |
//! | [`delivering`] | reads the deliveries of lanes, and records outcomes |
//! | [`shards`] | leases that say which process sends a subscription's deliveries |
//! | [`wakeups`] | has the owner of a shard look at a lane |
//! | [`consumers`] | tells how many events are in hand and not recorded yet |
//! | [`handover`] | the short cut from dispatch to deliver within a process |
//! | [`ids`] | identifiers that begin with the ledger's time |
//! | [`outbox`] | does what must follow from a change |
//! | [`subscriptions`], [`accounts`] | what the management API changes |
//! | [`registry`] | the changes since a version |
//! | [`history`], [`audit`] | lists of events and deliveries, manual retries; whether everything adds up |
//! | [`rejected`] | keeps messages that are no events |
//! | [`partitions`] | makes room for the days to come |
//! | [`retention`] | removes what has expired |
//! | [`notices`] | what other processes hint at |
//! | [`reconnect`] | how long to wait for a part that is away |
//! | [`store`] | the connection: group commit |
//! | [`sql`], `rows` | statements over many rows; the columns of deliveries and attempts |
//! | `locks`, `version` | advisory locks; the registry's version and the log of changes |
//!
//! Each method is one statement or one transaction.
#![warn(missing_docs)]

pub mod accounts;
pub mod audit;
pub mod catalogue;
mod cause;
pub mod consumers;
pub mod delivering;
pub mod dispatching;
pub mod handover;
pub mod history;
pub mod ids;
mod locks;
mod metrics;
pub mod notices;
pub mod outbox;
pub mod partitions;
pub mod reconnect;
pub mod registry;
pub mod rejected;
pub mod retention;
mod rows;
pub mod shards;
pub mod sql;
pub mod store;
pub mod subscriptions;
mod version;
pub mod wakeups;

pub use cause::Cause;
use herald_domain::id::Shard;
use herald_domain::time::{Clock, Monotone, Timestamp};
use herald_migrations::Migrator;
use sea_orm::DbErr;
use sea_orm_migration::MigratorTrait;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use store::{Store, Writer};
use tokio::sync::Notify;

/// Why the ledger could not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The database refused or failed.
    #[error("the ledger's database failed")]
    Database(#[source] Arc<DbErr>),
    /// A row that the schema should have ruled out.
    #[error("the ledger holds {0}, which cannot be")]
    Corrupt(&'static str),
    /// The database took too long. What was being written may have been written all the same.
    #[error("the ledger's database did not answer within {} s", .0.as_secs())]
    Slow(Duration),
    /// There was no connection to be had, and why.
    #[error("the ledger's database cannot be reached: {0}")]
    Unreachable(Arc<str>),
    /// The schema is another version's.
    #[error("the ledger's schema is not this version's: {0}")]
    Schema(&'static str),
    /// There is no ledger in that place.
    #[error("there is no ledger at {}", .0.display())]
    Missing(PathBuf),
    /// The file has a log that was not written back, and cannot be read where it is.
    #[error(
        "the ledger at {} has its last changes beside it, in {}-wal, and its folder cannot be written, which reading both \
         needs: copy them to a folder that can", .0.display(), .0.display()
    )]
    ReadOnlyFolder(PathBuf),
    /// Another process does what only one may do at a time.
    #[error("another process is at it")]
    Busy,
    /// The database cannot hold a ledger, or cannot be reached with these settings: somebody must change them.
    #[error("{0}")]
    Unfit(String),
    /// The server takes no writes.
    #[error("the ledger's database takes no writes: the connection leads to a standby, or to a server that is set so")]
    ReadOnly,
    /// What was written was a trial, and was undone.
    #[error("a trial was undone")]
    Undone,
    /// The process is ending.
    #[error("the ledger is closed")]
    Closed,
}

impl From<DbErr> for Error {
    fn from(error: DbErr) -> Self {
        Self::Database(Arc::new(error))
    }
}

impl Error {
    /// The error and its causes in words, each once.
    pub fn words(&self) -> String {
        let mut words = self.to_string();
        let mut next = std::error::Error::source(self);
        while let Some(cause) = next {
            let text = cause.to_string();
            if !words.contains(&text) {
                words = format!("{words}: {text}");
            }
            next = cause.source();
        }
        words
    }
}

/// The ledger; cheap to clone.
#[derive(Debug, Clone)]
pub struct Ledger {
    store: Store,
    clock: Arc<dyn Clock>,
    /// The time of day, see [`Ledger::time_of_day`].
    time_of_day: Arc<dyn Clock>,
    signals: Arc<Signals>,
    events: Arc<Mutex<delivering::SharedEvents>>,
}

/// Hints between the parts that share this handle. What they hint at is in the ledger too, and is
/// looked for there at intervals, so a hint may be missed.
#[derive(Debug, Default)]
pub struct Signals {
    /// The registry's version grew.
    pub registry: Notify,
    /// A lane was woken.
    pub wakeup: Notify,
    /// The outbox has work.
    pub outbox: Notify,
    /// How many deliveries are open. If the process has the ledger to itself, they are counted once at its start and
    /// with every change. If several processes share it, they are those in the shards of this process at the last
    /// [`Ledger::count_open`].
    pub open_deliveries: AtomicI64,
    shared: bool,
}

impl Signals {
    pub(crate) fn opened(&self, deliveries: usize) {
        if !self.shared {
            self.open_deliveries
                .fetch_add(i64::try_from(deliveries).unwrap_or(0), Ordering::Relaxed);
        }
    }

    pub(crate) fn closed(&self, deliveries: usize) {
        if !self.shared {
            self.open_deliveries
                .fetch_sub(i64::try_from(deliveries).unwrap_or(0), Ordering::Relaxed);
        }
    }
}

/// The ledger's file in a data folder.
pub fn file_in(data: &Path) -> PathBuf {
    data.join("herald.db")
}

impl Ledger {
    /// Opens the ledger in that file, which is made and migrated if need be. The caller runs the writer. The ledger
    /// goes by `clock`, but never back behind the latest time that the file holds; see [`Monotone`].
    pub async fn open(file: &Path, clock: Arc<dyn Clock>) -> Result<(Self, Writer), Error> {
        let (store, mut writer) = Store::open(file, Arc::clone(&clock)).await?;
        Migrator::up(writer.connection(), None).await?;
        let latest = latest(writer.connection()).await?;
        let time: Arc<dyn Clock> = Arc::new(Monotone::new(Arc::clone(&clock), latest));
        writer.go_by(Arc::clone(&time));
        let ledger = Self::over(store, time, clock);
        ledger.count_open((0..=u8::MAX).map(Shard)).await?;
        Ok((ledger, writer))
    }

    /// Connects to the ledger in a PostgreSQL database, which [`Ledger::migrate`] has brought up to date.
    /// Its clock is the database's.
    pub async fn connect(url: &str) -> Result<Self, Error> {
        let (store, clock) = Store::connect(url).await?;
        partitions::check(&store).await?;
        let clock: Arc<dyn Clock> = clock;
        Ok(Self::over(store, Arc::clone(&clock), clock))
    }

    /// Makes or updates the schema of a PostgreSQL database, and its partitions of the days to come. If several
    /// processes do so at once, one does it and the others wait.
    pub async fn migrate(url: &str) -> Result<(), Error> {
        partitions::migrate(url).await
    }

    /// Checks a URL of a PostgreSQL database without connecting. Returns the names of parameters that are ignored.
    ///
    /// # Errors
    /// If it cannot be used; the words contain nothing secret.
    pub fn read_url(url: &str) -> Result<Vec<String>, Error> {
        Ok(store::postgres::Address::read(url)?.ignored)
    }

    /// The ledger's clock. Every time that is compared with its rows must come from this clock.
    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock)
    }

    /// The clock for times that others compare with their own clocks, such as the time in a signature. On PostgreSQL
    /// it is the ledger's clock: one for all processes, whatever their machines' clocks say. On a file it is the
    /// machine's clock; after that was set back, the ledger's may be ahead of it.
    pub fn time_of_day(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.time_of_day)
    }

    /// Opens an existing ledger to read it, beside whoever writes it.
    pub async fn open_read_only(file: &Path, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        if !file.is_file() {
            return Err(Error::Missing(file.to_owned()));
        }
        Ok(Self::over(
            Store::open_read_only(file).await?,
            Arc::clone(&clock),
            clock,
        ))
    }

    fn over(store: Store, clock: Arc<dyn Clock>, time_of_day: Arc<dyn Clock>) -> Self {
        let signals = Signals {
            shared: store.is_shared(),
            ..Signals::default()
        };
        Self {
            store,
            clock,
            time_of_day,
            signals: Arc::new(signals),
            events: Arc::default(),
        }
    }

    /// Reads what deliveries wait for.
    pub(crate) async fn ask(
        &self,
        sql: &str,
        values: impl IntoIterator<Item = sea_orm::Value>,
    ) -> Result<Vec<sea_orm::QueryResult>, Error> {
        self.store.soon(sql::all(self.store.read(), sql, values)).await
    }

    /// Registers what the ledger counts: writes, failures, connections.
    pub fn register_metrics(&self, registry: &prometheus::Registry) -> Result<(), prometheus::Error> {
        self.store.register(registry)
    }

    /// The database below, which the embedded queue shares.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The hints between the parts of this process.
    pub fn signals(&self) -> &Signals {
        &self.signals
    }

    /// Whether several processes share the ledger.
    pub fn is_shared(&self) -> bool {
        self.store.is_shared()
    }

    /// The present time by the ledger's clock.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

/// The latest time that a file holds, as far as a row of every kind tells.
async fn latest(connection: &sea_orm::DatabaseConnection) -> Result<Timestamp, Error> {
    let sql = "SELECT max(coalesce((SELECT recorded_at FROM events ORDER BY uid DESC LIMIT 1), 0), \
               coalesce((SELECT received_at FROM rejected_events ORDER BY id DESC LIMIT 1), 0), \
               coalesce((SELECT at FROM audit_log ORDER BY id DESC LIMIT 1), 0), \
               coalesce((SELECT max(opened_at) FROM deliveries_open), 0)) AS latest";
    let row = sql::one(connection, sql, []).await?;
    sql::timestamp(&row.ok_or(Error::Corrupt("no time"))?, "latest")
}
