//! The database: one writer, several readers.
//!
//! SQLite has one writer at a time, and a commit costs a sync to disk. So all writes go to one task,
//! which runs what has arrived in one transaction, each piece in a savepoint of its own, and answers
//! only after the commit: *group commit*. Under load a sync is shared by many; alone, a write waits for
//! nobody.

use crate::Error;
use futures_util::future::BoxFuture;
use herald_domain::time::{Clock, Timestamp};
use sea_orm::sqlx::sqlite::{SqliteJournalMode, SqliteSynchronous};
use sea_orm::{
    ConnectOptions, Database, DatabaseConnection, DatabaseTransaction, DbErr, SqliteTransactionMode,
    TransactionOptions, TransactionTrait,
};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// The most writes in one transaction, and waiting for it.
const MAX_GROUP: usize = 64;

const READERS: u32 = 4;

/// A handle to the database; cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    read: DatabaseConnection,
    write: mpsc::Sender<Job>,
}

/// Writes what the [`Store`]'s handles hand over; ends when they are all dropped.
#[derive(Debug)]
pub struct Writer {
    connection: DatabaseConnection,
    jobs: mpsc::Receiver<Job>,
    clock: Arc<dyn Clock>,
}

struct Job(Box<dyn Write>);

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Job")
    }
}

/// Tells the caller what came of its write, once the commit is known.
type Settle = Box<dyn FnOnce(Result<(), Error>) + Send>;

trait Write: Send {
    /// Runs in a savepoint; the second value says whether to keep what it did.
    fn run(self: Box<Self>, txn: &DatabaseTransaction, now: Timestamp) -> BoxFuture<'_, (Settle, bool)>;
    fn refuse(self: Box<Self>, error: Error);
}

struct Call<F, T> {
    write: F,
    answer: oneshot::Sender<Result<T, Error>>,
}

impl<F, T> Write for Call<F, T>
where
    F: for<'t> FnOnce(&'t DatabaseTransaction, Timestamp) -> BoxFuture<'t, Result<T, Error>> + Send + 'static,
    T: Send + 'static,
{
    fn run(self: Box<Self>, txn: &DatabaseTransaction, now: Timestamp) -> BoxFuture<'_, (Settle, bool)> {
        let Self { write, answer } = *self;
        Box::pin(async move {
            let result = write(txn, now).await;
            let keep = result.is_ok();
            let settle = move |committed: Result<(), Error>| {
                // A caller that has gone away does not want the answer; the write stands all the same.
                drop(answer.send(result.and_then(|value| committed.map(|()| value))));
            };
            (Box::new(settle) as Settle, keep)
        })
    }

    fn refuse(self: Box<Self>, error: Error) {
        drop(self.answer.send(Err(error)));
    }
}

impl Store {
    /// Opens the file, made if need be, for reading and writing. The writer is to be run by the caller.
    pub async fn open(file: &Path, clock: Arc<dyn Clock>) -> Result<(Self, Writer), Error> {
        let connection = connect(file, 1, false).await?;
        let read = connect(file, READERS, true).await?;
        let (write, jobs) = mpsc::channel(MAX_GROUP);
        Ok((
            Self { read, write },
            Writer {
                connection,
                jobs,
                clock,
            },
        ))
    }

    /// Opens an existing file for reading beside whoever writes it.
    pub async fn open_read_only(file: &Path) -> Result<Self, Error> {
        let read = connect(file, 1, true).await?;
        let (write, _closed) = mpsc::channel(1);
        Ok(Self { read, write })
    }

    /// Where to read.
    pub fn read(&self) -> &DatabaseConnection {
        &self.read
    }

    /// Runs a write, whole or not at all, and returns when it is synced to disk. It is handed the time
    /// at which it runs, so that in the ledger what comes later has the later time.
    pub async fn write<T, F>(&self, write: F) -> Result<T, Error>
    where
        F: for<'t> FnOnce(&'t DatabaseTransaction, Timestamp) -> BoxFuture<'t, Result<T, Error>> + Send + 'static,
        T: Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let job = Job(Box::new(Call { write, answer }));
        self.write.send(job).await.map_err(|_returned_job| Error::Closed)?;
        answered.await.map_err(|_dropped| Error::Closed)?
    }
}

impl Writer {
    /// The writing connection, for what comes before the first write: migrations.
    pub(crate) fn connection(&self) -> &DatabaseConnection {
        &self.connection
    }

    /// Runs until every [`Store`] handle is gone.
    pub async fn run(mut self) {
        let mut group = Vec::with_capacity(MAX_GROUP);
        while self.jobs.recv_many(&mut group, MAX_GROUP).await > 0 {
            self.commit(group.drain(..)).await;
        }
        if let Err(error) = self.connection.close().await {
            tracing::warn!(%error, "the ledger did not close cleanly; nothing is lost");
        }
    }

    async fn commit(&self, group: impl Iterator<Item = Job> + Send) {
        let immediate = TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..TransactionOptions::default()
        };
        let txn = match self.connection.begin_with_options(immediate).await {
            Ok(txn) => txn,
            Err(error) => {
                let error = Error::from(error);
                group.for_each(|job| job.0.refuse(error.clone()));
                return;
            }
        };
        let mut settles = Vec::with_capacity(MAX_GROUP);
        for job in group {
            let savepoint = match txn.begin().await {
                Ok(savepoint) => savepoint,
                Err(error) => {
                    job.0.refuse(error.into());
                    continue;
                }
            };
            let (settle, keep) = job.0.run(&savepoint, self.clock.now()).await;
            let ended = if keep {
                savepoint.commit().await
            } else {
                savepoint.rollback().await
            };
            settles.push((settle, ended.map_err(Error::from)));
        }
        let committed = txn.commit().await.map_err(Error::from);
        for (settle, ended) in settles {
            settle(ended.and_then(|()| committed.clone()));
        }
    }
}

async fn connect(file: &Path, connections: u32, read_only: bool) -> Result<DatabaseConnection, DbErr> {
    let file = Arc::new(file.to_owned());
    let mut options = ConnectOptions::new("sqlite://");
    options
        .max_connections(connections)
        .min_connections(1)
        .acquire_timeout(Duration::from_secs(30))
        .test_before_acquire(false)
        .sqlx_logging(false)
        .map_sqlx_sqlite_opts(move |sqlite| {
            sqlite
                .filename(&*file)
                .create_if_missing(!read_only)
                .journal_mode(SqliteJournalMode::Wal)
                // 202 means on disk: FULL syncs the log at every commit, NORMAL only at checkpoints.
                .synchronous(SqliteSynchronous::Full)
                .busy_timeout(Duration::from_secs(10))
                .statement_cache_capacity(256)
                .pragma("query_only", if read_only { "on" } else { "off" })
                .pragma("cache_size", if read_only { "-2000" } else { "-16000" })
        });
    Database::connect(options).await
}
