//! The ledger: the only truth about events, deliveries and attempts, and the delivery queue itself.
//!
//! Every open delivery has a `due_at`. A crash, a lost hand-over, an overflow and an ordinary retry
//! are one mechanism: the row is there, it is due, and the owner of its shard sends it.
//!
//! | module | what it does |
//! |---|---|
//! | [`dispatching`] | records events with what they matched |
//! | [`delivering`] | gives lanes their rows, and takes outcomes |
//! | [`shards`] | says who owns which subscriptions' deliveries |
//! | [`handover`] | the short cut from dispatch to deliver within a process |
//! | [`outbox`] | does what must follow from a change |
//! | [`subscriptions`], [`accounts`] | what the management API changes |
//! | [`registry`] | the changes since a version |
//! | [`reading`], [`audit`] | what happened, and whether it adds up |
//! | [`store`] | the connection: group commit |
//!
//! Each method is one statement or one transaction.
#![warn(missing_docs)]

pub mod accounts;
pub mod audit;
pub mod delivering;
pub mod dispatching;
pub mod handover;
pub mod outbox;
pub mod reading;
pub mod registry;
pub mod shards;
pub mod sql;
pub mod store;
pub mod subscriptions;

use herald_domain::time::{Clock, Timestamp};
use herald_migrations::Migrator;
use sea_orm::DbErr;
use sea_orm_migration::MigratorTrait;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
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
    /// There is no ledger in that place.
    #[error("there is no ledger at {0}")]
    Missing(PathBuf),
    /// The process is ending.
    #[error("the ledger is closed")]
    Closed,
}

impl From<DbErr> for Error {
    fn from(error: DbErr) -> Self {
        Self::Database(Arc::new(error))
    }
}

/// The ledger; cheap to clone.
#[derive(Debug, Clone)]
pub struct Ledger {
    store: Store,
    clock: Arc<dyn Clock>,
    signals: Arc<Signals>,
}

/// Hints between those who share this handle. What they hint at stands in the ledger too, and is
/// looked for there at intervals, so a hint may be missed.
#[derive(Debug, Default)]
pub struct Signals {
    /// The registry's version grew.
    pub registry: Notify,
    /// A lane was woken.
    pub wakeup: Notify,
    /// The outbox has work.
    pub outbox: Notify,
    /// How many deliveries are open, as far as this process knows: counted once at its start, and at
    /// every change that it makes.
    pub open_deliveries: AtomicI64,
}

impl Signals {
    pub(crate) fn opened(&self, deliveries: usize) {
        self.open_deliveries
            .fetch_add(i64::try_from(deliveries).unwrap_or(0), Ordering::Relaxed);
    }

    pub(crate) fn closed(&self, deliveries: usize) {
        self.open_deliveries
            .fetch_sub(i64::try_from(deliveries).unwrap_or(0), Ordering::Relaxed);
    }
}

/// The ledger's file in a data folder.
pub fn file_in(data: &Path) -> PathBuf {
    data.join("herald.db")
}

impl Ledger {
    /// Opens the ledger in that file, made and migrated if need be. The caller runs the writer.
    pub async fn open(file: &Path, clock: Arc<dyn Clock>) -> Result<(Self, Writer), Error> {
        let (store, writer) = Store::open(file, Arc::clone(&clock)).await?;
        Migrator::up(writer.connection(), None).await?;
        let ledger = Self::over(store, clock);
        ledger
            .signals
            .open_deliveries
            .store(ledger.count_open().await?, Ordering::Relaxed);
        Ok((ledger, writer))
    }

    /// Opens an existing ledger to read it, beside whoever writes it.
    pub async fn open_read_only(file: &Path, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        if !file.is_file() {
            return Err(Error::Missing(file.to_owned()));
        }
        Ok(Self::over(Store::open_read_only(file).await?, clock))
    }

    fn over(store: Store, clock: Arc<dyn Clock>) -> Self {
        Self {
            store,
            clock,
            signals: Arc::default(),
        }
    }

    /// The database below, which the embedded queue shares.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// What was hinted at since.
    pub fn signals(&self) -> &Signals {
        &self.signals
    }

    /// The ledger's time.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }
}
