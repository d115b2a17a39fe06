//! The connections to the database, for reading and for writing.

pub(crate) mod postgres;
mod sqlite;
pub(crate) mod want;

use crate::Error;
use crate::metrics::{Metrics, Pools};
use futures_util::future::BoxFuture;
use herald_domain::time::{Clock, Timestamp};
pub use postgres::DatabaseClock;
use postgres::{Address, Plans, Trust};
use sea_orm::sqlx::PgPool;
use sea_orm::{DatabaseConnection, DatabaseTransaction, QueryResult, Value};
pub use sqlite::Writer;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Connections for reads of the delivery path. On PostgreSQL one more connection listens.
const READERS: u32 = 4;

/// Connections for the registry alone: the check of rights must not wait for slow reads.
const REGISTRY: u32 = 1;

/// Connections for slow reads without hurry: audits, counts, and the removal of expired records.
const QUERIES: u32 = 2;

/// Connections for the API, whose lists may be long: they wait for one another, and deliveries wait for none of them.
/// There are more than one caller may use at a time.
const API: u32 = 6;

/// How long a read for the API may take. The server ends the statement a little later, if no caller waits any more.
const API_PATIENCE: Duration = Duration::from_secs(15);
const API_STATEMENT: Duration = Duration::from_secs(16);

/// A handle to the database; cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    reads: Arc<ReadConnections>,
    write: Write,
    trust: Trust,
    day_missing: Arc<Notify>,
    /// The last known reason why there was no connection.
    found: Arc<want::Found>,
    metrics: Metrics,
}

/// The connections that read, one or several for each purpose.
#[derive(Debug)]
struct ReadConnections {
    read: DatabaseConnection,
    registry: DatabaseConnection,
    queries: DatabaseConnection,
    api: DatabaseConnection,
}

#[derive(Debug, Clone)]
enum Write {
    /// One writer for all, in groups.
    Sqlite(sqlite::Handle),
    /// A transaction for each write; the database groups their commits.
    Postgres(Arc<postgres::Pool>),
}

/// Whether SQLite's log beside the file has anything in it.
fn has_log(file: &Path) -> bool {
    let mut log = file.as_os_str().to_owned();
    log.push("-wal");
    std::fs::metadata(log).is_ok_and(|log| log.len() > 0)
}

impl Store {
    /// Opens the file, made if need be, for reading and writing. The writer is to be run by the caller.
    pub async fn open(file: &Path, clock: Arc<dyn Clock>) -> Result<(Self, Writer), Error> {
        let metrics = Metrics::default();
        let (write, writer) = Writer::open(file, clock, metrics.clone()).await?;
        let read = sqlite::connect(file, READERS, true).await?;
        let reads = ReadConnections {
            read,
            registry: sqlite::connect(file, REGISTRY, true).await?,
            queries: sqlite::connect(file, QUERIES, true).await?,
            api: sqlite::connect(file, API, true).await?,
        };
        let store = Self {
            reads: Arc::new(reads),
            write: Write::Sqlite(write),
            trust: Trust::default(),
            day_missing: Arc::default(),
            found: Arc::default(),
            metrics,
        };
        Ok((store, writer))
    }

    /// Opens an existing file for reading beside whoever writes it; also a copy in a folder that is read-only.
    pub async fn open_read_only(file: &Path) -> Result<Self, Error> {
        let read = match sqlite::connect(file, 1, true).await {
            Ok(read) => read,
            // Writes that were committed and are not in the file itself would be missing.
            Err(error) if has_log(file) => {
                tracing::debug!(%error, "the ledger cannot be opened beside its log");
                return Err(Error::ReadOnlyFolder(file.to_owned()));
            }
            Err(error) => sqlite::connect_immutable(file).await.map_err(|_says_less| error)?,
        };
        let reads = ReadConnections {
            registry: read.clone(),
            queries: read.clone(),
            api: read.clone(),
            read,
        };
        Ok(Self {
            reads: Arc::new(reads),
            write: Write::Sqlite(sqlite::Handle::closed()),
            trust: Trust::default(),
            day_missing: Arc::default(),
            found: Arc::default(),
            metrics: Metrics::default(),
        })
    }

    /// Connects to a PostgreSQL database.
    pub async fn connect(url: &str) -> Result<(Self, Arc<DatabaseClock>), Error> {
        let (address, trust) = (Address::read(url)?, Trust::default());
        let pool = postgres::Pool::connect(address.clone(), &trust).await?;
        let clock = pool.clock();
        let reads = ReadConnections {
            read: pool.reading().clone(),
            registry: postgres::connect(&address, REGISTRY, (postgres::PATIENCE, Plans::Estimated), &trust).await?,
            queries: postgres::connect(&address, QUERIES, (postgres::SLOW, Plans::Estimated), &trust).await?,
            api: postgres::connect(&address, API, (API_STATEMENT, Plans::Estimated), &trust).await?,
        };
        let store = Self {
            reads: Arc::new(reads),
            write: Write::Postgres(Arc::new(pool)),
            trust,
            day_missing: Arc::default(),
            found: Arc::default(),
            metrics: Metrics::default(),
        };
        Ok((store, clock))
    }

    /// The connections for slow reads.
    pub fn queries(&self) -> &DatabaseConnection {
        &self.reads.queries
    }

    /// The connections for the API, used by way of [`Self::ask`].
    pub(crate) fn api(&self) -> &DatabaseConnection {
        &self.reads.api
    }

    /// Reads for the API, within a time limit: a caller waits for the answer, and others wait for the connection.
    pub(crate) async fn ask<T>(&self, read: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        self.explained(self.trust.watch(API_PATIENCE, read).await).await
    }

    /// The connections for reads that deliveries wait for.
    pub fn read(&self) -> &DatabaseConnection {
        &self.reads.read
    }

    /// The connection for reads of rights.
    pub(crate) fn registry(&self) -> &DatabaseConnection {
        &self.reads.registry
    }

    /// Reads, but not for longer than a write may take: the part that waits must learn of a database that hangs.
    pub(crate) async fn soon<T>(&self, read: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        self.explained(self.trust.watch(postgres::PATIENCE, read).await).await
    }

    /// Takes the present connections out of use, because the database takes no writes.
    pub(crate) fn reads_only(&self) -> Error {
        self.trust.replaced();
        Error::ReadOnly
    }

    /// Whether connections that were made at that time are out of use.
    pub(crate) fn is_former(&self, connected: Instant) -> bool {
        self.trust.is_former(connected)
    }

    /// A pool of one connection to listen on, where several processes share the database.
    pub(crate) fn listening(&self) -> Option<PgPool> {
        match &self.write {
            Write::Sqlite(_) => None,
            Write::Postgres(pool) => Some(pool.listening()),
        }
    }

    /// The database's clock, where that is not the machine's.
    pub(crate) fn database_clock(&self) -> Option<Arc<DatabaseClock>> {
        match &self.write {
            Write::Sqlite(_) => None,
            Write::Postgres(pool) => Some(pool.clock()),
        }
    }

    /// Returns when a write was refused for want of a partition.
    pub(crate) async fn day_missing(&self) {
        self.day_missing.notified().await;
    }

    fn written<T>(&self, took: Duration, written: &Result<T, Error>) {
        if written.as_ref().is_err_and(Error::lacks_a_day) {
            self.day_missing.notify_one();
        }
        self.metrics.wrote(took, written);
    }

    /// Runs a write, whole or not at all, and returns when it is durable. The write gets the time at which it runs. On
    /// SQLite writes run one after the other, so a later write has a later time; for PostgreSQL see
    /// [`crate::sql::time`].
    pub async fn write<T, F>(&self, write: F) -> Result<T, Error>
    where
        F: for<'t> FnOnce(&'t DatabaseTransaction, Timestamp) -> BoxFuture<'t, Result<T, Error>> + Send + 'static,
        T: Send + 'static,
    {
        let began = Instant::now();
        let written = match &self.write {
            Write::Sqlite(handle) => handle.write(write).await,
            Write::Postgres(pool) => self.explained(pool.write(write).await).await,
        };
        self.written(began.elapsed(), &written);
        written
    }

    /// Waits until no other write waits, a second at most, for writes without hurry. On PostgreSQL writes do not wait
    /// for one another.
    pub(crate) async fn lull(&self) {
        if let Write::Sqlite(handle) = &self.write {
            handle.lull().await;
        }
    }

    /// Runs one statement that writes, in a transaction of its own. For PostgreSQL, where every further
    /// statement would be a round trip; see [`Self::write`] for what an error means.
    pub(crate) async fn run(&self, sql: &str, values: Vec<Value>) -> Result<Vec<QueryResult>, Error> {
        match &self.write {
            Write::Sqlite(_) => Err(Error::Corrupt("a statement of PostgreSQL's on SQLite")),
            Write::Postgres(pool) => {
                let began = Instant::now();
                let written = self.soon(crate::sql::all(pool.writing(), sql, values)).await;
                self.written(began.elapsed(), &written);
                written
            }
        }
    }

    /// Has the clock take note of the database's own time, where that is not the machine's.
    pub(crate) async fn tell_time(&self, asking: impl Future<Output = Result<Timestamp, Error>>) -> Result<(), Error> {
        match &self.write {
            Write::Sqlite(_) => asking.await.map(drop),
            Write::Postgres(pool) => pool.tell_time(asking).await,
        }
    }

    /// Registers the metrics of writes and of the connection pools.
    pub(crate) fn register(&self, registry: &prometheus::Registry) -> Result<(), prometheus::Error> {
        let mut pools = vec![
            ("read", self.reads.read.clone()),
            ("registry", self.reads.registry.clone()),
            ("queries", self.reads.queries.clone()),
            ("api", self.reads.api.clone()),
        ];
        if let Write::Postgres(pool) = &self.write {
            pools.push(("write", pool.writing().clone()));
        }
        self.metrics.register(registry, Pools::new(pools)?)
    }

    /// Takes note that the connection that is always open was made anew.
    pub(crate) fn reconnected(&self) {
        self.metrics.reconnections.inc();
    }

    /// Whether several processes share the database.
    pub(crate) fn is_shared(&self) -> bool {
        matches!(self.write, Write::Postgres(_))
    }
}
