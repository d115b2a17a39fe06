//! Hints between processes that share a PostgreSQL database: LISTEN and NOTIFY.
//!
//! A notice only hints at rows in the ledger, which are also looked for at intervals. So nothing waits for long if a
//! notice is lost. Within one process [`crate::Signals`] do the same.

use crate::Ledger;
use crate::reconnect::Delays;
use crate::sql::execute;
use sea_orm::sqlx::Executor;
use sea_orm::sqlx::postgres::PgListener;
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend};
use std::time::{Duration, Instant};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// How long a connection may be silent before it is asked whether it is alive, and how long it may take to answer.
const SILENCE: Duration = Duration::from_secs(10);
const ANSWER: Duration = Duration::from_secs(8);

/// The part of the ledger at which a notice hints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Notice {
    /// The registry has a new version.
    Registry,
    /// There are new wake-ups.
    Wakeup,
}

impl Notice {
    fn channel(self) -> &'static str {
        match self {
            Self::Registry => "herald_registry",
            Self::Wakeup => "herald_wakeup",
        }
    }
}

/// Notifies the other processes when the transaction is committed.
pub(crate) async fn tell(txn: &DatabaseTransaction, notice: Notice) -> Result<(), crate::Error> {
    if txn.get_database_backend() == DbBackend::Postgres {
        execute(txn, &format!("NOTIFY {}", notice.channel()), []).await?;
    }
    Ok(())
}

impl Ledger {
    /// Passes on the notices of other processes, until shutdown. On SQLite there are none.
    pub async fn listen(&self, shutdown: CancellationToken) {
        if !self.store.is_shared() {
            return shutdown.cancelled().await;
        }
        let mut delays = Delays::default();
        let mut heard_before = false;
        loop {
            let heard = tokio::select! {
                () = shutdown.cancelled() => return,
                heard = self.hear(&mut delays, &mut heard_before) => heard,
            };
            if let Err(error) = heard {
                tracing::debug!(%error, "notices cannot be heard; what they hint at is looked for at intervals");
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(delays.next_delay()) => {}
            }
        }
    }

    async fn hear(&self, delays: &mut Delays, heard_before: &mut bool) -> Result<(), sea_orm::sqlx::Error> {
        let Some(pool) = self.store.listening() else {
            return Ok(());
        };
        let connected = Instant::now();
        let mut listener = PgListener::connect_with(&pool).await?;
        let channels = [Notice::Registry.channel(), Notice::Wakeup.channel()];
        listener.listen_all(channels).await?;
        delays.reset();
        if std::mem::replace(heard_before, true) {
            self.store.reconnected();
        }
        loop {
            let notice = match timeout(SILENCE, listener.try_recv()).await {
                Ok(heard) => heard?,
                // There was no notice, or the connection is dead.
                Err(_elapsed) if self.store.is_former(connected) => return Ok(()),
                Err(_elapsed) => {
                    let Ok(answer) = timeout(ANSWER, listener.execute("SELECT 1")).await else {
                        return Err(sea_orm::sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()));
                    };
                    answer?;
                    continue;
                }
            };
            // None if the connection was lost: notices of that time are not known.
            let Some(notice) = notice else { return Ok(()) };
            if notice.channel() == Notice::Registry.channel() {
                self.signals.registry.notify_waiters();
            } else {
                self.signals.wakeup.notify_one();
            }
        }
    }
}
