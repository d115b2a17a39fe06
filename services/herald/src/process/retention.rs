//! Removing what has expired, now and then, in the processes that manage: of several, one at a time.

use herald_domain::retention::Retention;
use herald_ledger::retention::Removed;
use herald_ledger::{Cause, Ledger};
use prometheus::{Gauge, IntCounterVec, Opts, Registry};
use std::error::Error;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// When the first pass begins: a process that starts has other things to do.
const FIRST: Duration = Duration::from_mins(5);

/// How long after a pass the next one begins. Days end but once a day; what could not be removed just then is
/// tried again.
const INTERVAL: Duration = Duration::from_mins(10);

/// What is removed, when and how much.
#[derive(Debug)]
pub(crate) struct Removal {
    retention: Retention,
    removed: IntCounterVec,
    last_pass: Gauge,
}

impl Removal {
    pub(crate) fn new(retention: Retention, registry: &Registry) -> Result<Self, prometheus::Error> {
        let removed = IntCounterVec::new(
            Opts::new(
                "herald_expired_removed_total",
                "What was kept for as long as the settings say, and removed from the ledger.",
            ),
            &["what"],
        )?;
        registry.register(Box::new(removed.clone()))?;
        let last_pass = Gauge::new(
            "herald_expired_last_removal_timestamp_seconds",
            "When this process last found nothing more to remove from the ledger, in Unix time; 0 if it has not yet.",
        )?;
        registry.register(Box::new(last_pass.clone()))?;
        let removal = Self {
            retention,
            removed,
            last_pass,
        };
        removal.count(&Removed::default());
        Ok(removal)
    }

    /// Removes until shutdown. A pass that is cut off goes on where it was.
    pub(crate) async fn run(self, ledger: Ledger, shutdown: CancellationToken) {
        let mut pause = FIRST;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.pass(&ledger) => {}
            }
            pause = INTERVAL;
        }
    }

    async fn pass(&self, ledger: &Ledger) {
        let mut removed = Removed::default();
        let ended = ledger.remove_expired(&self.retention, ledger.now(), &mut removed).await;
        self.count(&removed);
        if removed != Removed::default() {
            let Removed {
                events,
                deliveries,
                keys,
                rejected,
                audit_log,
                subscriptions,
            } = removed;
            tracing::info!(
                events,
                deliveries,
                keys,
                rejected,
                audit_log,
                subscriptions,
                "what has expired was removed"
            );
        }
        match ended {
            Ok(()) => {
                let now = ledger.now().as_unix_seconds();
                #[expect(clippy::cast_precision_loss, reason = "seconds are exact for millions of years")]
                self.last_pass.set(now as f64);
            }
            // Somebody reads for long, or another process is at it, or the ledger is away, which others say.
            Err(error) if error.cause() == Cause::Away => {
                tracing::info!(error = &error as &dyn Error, "removing what has expired is put off");
            }
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn Error,
                    "what has expired could not be removed; it is tried again"
                );
            }
        }
    }

    fn count(&self, removed: &Removed) {
        let counts = [
            ("event", removed.events),
            ("delivery", removed.deliveries),
            ("key", removed.keys),
            ("rejected", removed.rejected),
            ("audit_log", removed.audit_log),
            ("subscription", removed.subscriptions),
        ];
        for (what, count) in counts {
            self.removed.with_label_values(&[what]).inc_by(count);
        }
    }
}
