//! SQLite: one writer, several readers.
//!
//! SQLite has one writer at a time, and a commit costs a sync to disk. So all writes go to one task,
//! which runs what has arrived in one transaction, each of several in a savepoint of its own, and answers
//! only after the commit: *group commit*. Under load a sync is shared by many; alone, a write waits for
//! nobody.

use crate::Error;
use crate::metrics::Metrics;
use futures_util::future::BoxFuture;
use herald_domain::time::{Clock, Timestamp};
use sea_orm::sqlx::sqlite::{SqliteJournalMode, SqliteSynchronous};
use sea_orm::{
    ConnectOptions, ConnectionTrait, Database, DatabaseConnection, DatabaseTransaction, DbErr, SqliteTransactionMode,
    TransactionOptions, TransactionTrait,
};
use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// The most writes in one transaction, and waiting for it.
const MAX_GROUP: usize = 64;

/// How long to wait at most for a moment without a write, and how often to look.
const LULL: Duration = Duration::from_secs(1);
const LULL_LOOK: Duration = Duration::from_millis(5);

/// How often the log is written back into the file beside the writer.
const CHECKPOINT_EVERY: Duration = Duration::from_millis(250);

/// How long a connection that failed may take to close.
const CLOSE: Duration = Duration::from_secs(5);

/// The one writer of the file. It runs the writes that the [`Store`]'s handles give it, and ends when all of these are
/// dropped.
#[derive(Debug)]
pub struct Writer {
    file: PathBuf,
    connection: DatabaseConnection,
    queued: mpsc::Receiver<QueuedWrite>,
    /// This clock never goes back, so a later write has a later time.
    clock: Arc<dyn Clock>,
    metrics: Metrics,
}

/// Hands writes to the [`Writer`].
#[derive(Debug, Clone)]
pub(super) struct Handle(mpsc::Sender<QueuedWrite>);

/// A write that waits for its turn.
struct QueuedWrite(Box<dyn Write>);

impl std::fmt::Debug for QueuedWrite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("QueuedWrite")
    }
}

/// Tells the caller the result of its write, when that of the commit is known.
type Settle = Box<dyn FnOnce(Result<(), Error>) + Send>;

trait Write: Send {
    /// Runs in a savepoint. The second value says whether to keep the changes.
    fn run(self: Box<Self>, txn: &DatabaseTransaction, now: Timestamp) -> BoxFuture<'_, (Settle, bool)>;
    /// Answers without having run.
    fn settle(self: Box<Self>, outcome: Result<(), Error>);
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
                // A caller that has gone away does not want the answer. Its write counts all the same.
                drop(answer.send(result.and_then(|value| committed.map(|()| value))));
            };
            (Box::new(settle) as Settle, keep)
        })
    }

    fn settle(self: Box<Self>, outcome: Result<(), Error>) {
        drop(self.answer.send(Err(outcome.err().unwrap_or(Error::Closed))));
    }
}

impl Handle {
    /// A handle whose writer is gone.
    pub(super) fn closed() -> Self {
        let (write, _closed) = mpsc::channel(1);
        Self(write)
    }

    /// Returns when no write waits, at the latest after [`LULL`].
    pub(super) async fn lull(&self) {
        let deadline = Instant::now() + LULL;
        while self.0.capacity() < self.0.max_capacity() && Instant::now() < deadline {
            tokio::time::sleep(LULL_LOOK).await;
        }
    }

    pub(super) async fn write<T, F>(&self, write: F) -> Result<T, Error>
    where
        F: for<'t> FnOnce(&'t DatabaseTransaction, Timestamp) -> BoxFuture<'t, Result<T, Error>> + Send + 'static,
        T: Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let write = QueuedWrite(Box::new(Call { write, answer }));
        self.0.send(write).await.map_err(|_returned| Error::Closed)?;
        answered.await.map_err(|_dropped| Error::Closed)?
    }
}

impl Writer {
    /// A writer of that file, and the handle to it.
    pub(super) async fn open(file: &Path, clock: Arc<dyn Clock>, metrics: Metrics) -> Result<(Handle, Self), Error> {
        let connection = connect(file, 1, false).await?;
        let (write, queued) = mpsc::channel(MAX_GROUP);
        let writer = Self {
            file: file.to_owned(),
            connection,
            queued,
            clock,
            metrics,
        };
        Ok((Handle(write), writer))
    }

    /// Has writes go by that clock.
    pub(crate) fn go_by(&mut self, clock: Arc<dyn Clock>) {
        self.clock = clock;
    }

    /// The writing connection, for migrations, which come before the first write.
    pub(crate) fn connection(&self) -> &DatabaseConnection {
        &self.connection
    }

    /// Runs until every [`Store`] handle is gone, on a thread of its own. A group is many questions to SQLite's thread,
    /// one after the other. Among the process's other tasks this one would wait for its turn after each answer.
    ///
    /// The future is boxed, so that it is compiled here and not where it is spawned.
    pub fn run(self) -> BoxFuture<'static, ()> {
        Box::pin(self.run_on_thread())
    }

    async fn run_on_thread(self) {
        let (ends, ended) = oneshot::channel::<()>();
        let write = move || {
            let _ends = ends;
            match tokio::runtime::Builder::new_current_thread().enable_time().build() {
                Ok(runtime) => runtime.block_on(self.write_all()),
                Err(error) => tracing::error!(%error, "no runtime for the ledger's writer"),
            }
        };
        match std::thread::Builder::new()
            .name("ledger writer".to_owned())
            .spawn(write)
        {
            // Nothing is ever sent: the sender is dropped when the thread ends, also by a panic.
            Ok(_thread) => drop(ended.await),
            Err(error) => tracing::error!(%error, "no thread for the ledger's writer"),
        }
    }

    async fn write_all(mut self) {
        let written = Cell::new(false);
        let beside = connect(&self.file, 1, false).await;
        if let Err(error) = &beside {
            tracing::warn!(%error, "no connection for checkpoints of the ledger's log; the writer makes all of them");
        }
        tokio::select! {
            () = self.write_groups(&written) => {}
            () = checkpoint(beside.as_ref().ok(), &written) => {}
        }
        for connection in beside.into_iter().chain([self.connection]) {
            if let Err(error) = connection.close().await {
                tracing::warn!(%error, "the ledger did not close cleanly; nothing is lost");
            }
        }
    }

    async fn write_groups(&mut self, written: &Cell<bool>) {
        let mut group = Vec::with_capacity(MAX_GROUP);
        while self.queued.recv_many(&mut group, MAX_GROUP).await > 0 {
            self.commit(std::mem::take(&mut group)).await;
            written.set(true);
        }
    }

    /// Commits a group, or refuses it whole.
    async fn commit(&mut self, group: Vec<QueuedWrite>) {
        let mut settles = Vec::with_capacity(group.len());
        let committed = match self.run_group(group, &mut settles).await {
            Ok(()) => Ok(()),
            Err(error) => {
                // After a failure such as a full disk SQLite may have ended the transaction by itself, so the
                // savepoint at which the connection stands is unknown. A new connection has none.
                tracing::error!(%error, "the ledger could not be written");
                self.reconnect().await;
                Err(Error::from(error))
            }
        };
        for settle in settles {
            settle(committed.clone());
        }
    }

    async fn run_group(&mut self, group: Vec<QueuedWrite>, settles: &mut Vec<Settle>) -> Result<(), DbErr> {
        let immediate = TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..TransactionOptions::default()
        };
        let alone = group.len() == 1;
        let mut group = group.into_iter();
        let begun = self.connection.begin_with_options(immediate).await;
        if alone
            && begun.is_ok()
            && let Some(write) = group.next()
        {
            return self.run_alone(begun?, write, settles).await;
        }
        let result = match &begun {
            Ok(txn) => self.run_queued(txn, &mut group, settles).await,
            Err(error) => Err(DbErr::Custom(error.to_string())),
        };
        // Writes that did not get their turn have the same result as those that did.
        settles.extend(group.map(|write| Box::new(|outcome| write.0.settle(outcome)) as Settle));
        match (begun, result) {
            (Ok(txn), Ok(())) => txn.commit().await,
            (Ok(_), Err(error)) | (Err(error), _) => Err(error),
        }
    }

    /// A write that has the transaction to itself needs no savepoint.
    async fn run_alone(
        &mut self,
        txn: DatabaseTransaction,
        write: QueuedWrite,
        settles: &mut Vec<Settle>,
    ) -> Result<(), DbErr> {
        let (settle, keep) = write.0.run(&txn, self.clock.now()).await;
        settles.push(settle);
        if keep { txn.commit().await } else { txn.rollback().await }
    }

    /// Runs writes one after the other. Each has a savepoint, to which it is rolled back if it fails; the commit keeps
    /// the last one. A write needs only one statement more for that, because each is a question to another thread.
    async fn run_queued(
        &mut self,
        txn: &DatabaseTransaction,
        group: &mut (impl Iterator<Item = QueuedWrite> + Send),
        settles: &mut Vec<Settle>,
    ) -> Result<(), DbErr> {
        let mut savepoint = Some("SAVEPOINT write");
        for write in group {
            if let Some(statement) = savepoint
                && let Err(error) = txn.execute_unprepared(statement).await
            {
                settles.push(Box::new(|outcome| write.0.settle(outcome)));
                return Err(error);
            }
            let (settle, keep) = write.0.run(txn, self.clock.now()).await;
            settles.push(settle);
            savepoint = keep.then_some("RELEASE write; SAVEPOINT write");
            if !keep {
                // The savepoint still exists after that, for the next write.
                txn.execute_unprepared("ROLLBACK TO write").await?;
            }
        }
        Ok(())
    }

    async fn reconnect(&mut self) {
        match connect(&self.file, 1, false).await {
            Ok(connection) => {
                self.metrics.reconnections.inc();
                let former = std::mem::replace(&mut self.connection, connection);
                match tokio::time::timeout(CLOSE, former.close()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::warn!(%error, "a connection to the ledger did not close cleanly"),
                    Err(_elapsed) => tracing::warn!("a connection to the ledger did not close"),
                }
            }
            // The next group fails on the old connection, and opening is tried again.
            Err(error) => tracing::error!(%error, "the ledger could not be opened anew"),
        }
    }
}

/// Writes the log back into the file at intervals, beside the writer. So the writer itself has little of that to do and
/// to wait for: see `wal_autocheckpoint` below.
async fn checkpoint(beside: Option<&DatabaseConnection>, written: &Cell<bool>) {
    loop {
        tokio::time::sleep(CHECKPOINT_EVERY).await;
        if let (Some(connection), true) = (beside, written.replace(false))
            && let Err(error) = connection.execute_unprepared("PRAGMA wal_checkpoint(PASSIVE)").await
        {
            // The writer meets the same error, and logs it.
            tracing::debug!(%error, "no checkpoint of the ledger's log");
        }
    }
}

/// Opens a file that nobody writes, in a folder that may be read-only. SQLite then does not look for the log and the
/// index of a file in WAL mode.
pub(super) async fn connect_immutable(file: &Path) -> Result<DatabaseConnection, DbErr> {
    let file = Arc::new(file.to_owned());
    let mut options = ConnectOptions::new("sqlite://");
    options
        .max_connections(1)
        .min_connections(1)
        .sqlx_logging(false)
        .map_sqlx_sqlite_opts(move |sqlite| sqlite.filename(&*file).read_only(true).immutable(true));
    Box::pin(Database::connect(options)).await
}

pub(super) async fn connect(file: &Path, connections: u32, read_only: bool) -> Result<DatabaseConnection, DbErr> {
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
                // A write returns ids. When the buffer is full, SQLite's thread waits until they are read.
                .row_buffer_size(if read_only { 50 } else { 512 })
                .pragma("query_only", if read_only { "on" } else { "off" })
                .pragma("cache_size", if read_only { "-2000" } else { "-16000" })
                // In pages of 4 KiB. So a page that was written several times is written back only once.
                .pragma("wal_autocheckpoint", "4000")
        });
    // Boxed: this future has 17 KB, which would be a part of every future that waits for it.
    Box::pin(Database::connect(options)).await
}
