//! Writes outcomes to the ledger, as many at a time as have come.
//!
//! While the ledger is away outcomes wait here; the lanes begin no more attempts than it may hold (see
//! `Limits::recording`), so they are bounded.

use crate::metrics::Metrics;
use crate::owner::Report;
use herald_domain::catalogue::Webhook;
use herald_domain::delivery::Closed;
use herald_domain::id::{DeliveryId, SubscriptionId};
use herald_domain::time::Timestamp;
use herald_ledger::Ledger;
use herald_ledger::delivering::{Finish, Finished, Then};
use herald_telemetry::health::Health;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// The most outcomes in one transaction.
const MAX_BATCH: usize = 512;
const RETRY_AFTER: Duration = Duration::from_millis(500);
const PART: &str = "deliver";

/// An outcome that is in the ledger.
#[derive(Debug)]
pub(crate) struct Recorded {
    pub(crate) subscription: SubscriptionId,
    pub(crate) id: DeliveryId,
    /// When the delivery is due again, if it is.
    pub(crate) due_at: Option<Timestamp>,
    /// How it was closed, if this closed it.
    pub(crate) closed: Option<Closed>,
    /// The delivery's.
    pub(crate) webhook: Webhook,
}

/// Records outcomes.
#[derive(Debug)]
pub(crate) struct Recorder {
    pub(crate) ledger: Ledger,
    pub(crate) health: Health,
    pub(crate) metrics: Metrics,
    /// From then on what cannot be recorded is left: the ledger has the deliveries as they were.
    pub(crate) hard: CancellationToken,
}

impl Recorder {
    /// Records what comes until the sender is gone.
    pub(crate) async fn run(
        self,
        mut outcomes: mpsc::UnboundedReceiver<Finish>,
        reports: mpsc::UnboundedSender<Report>,
    ) {
        let mut batch = Vec::with_capacity(MAX_BATCH);
        while outcomes.recv_many(&mut batch, MAX_BATCH).await > 0 {
            let Some(finished) = self.record(&batch).await else {
                tracing::error!(
                    outcomes = batch.len(),
                    "outcomes were not recorded; their deliveries are open as before"
                );
                return;
            };
            let recorded = batch
                .iter()
                .zip(finished)
                .map(|(finish, finished)| recorded(finish, finished, self.ledger.now()))
                .collect();
            batch.clear();
            if reports.send(Report::Recorded(recorded)).is_err() {
                return;
            }
        }
    }

    /// What became of each; nothing if the process ends before it is known.
    async fn record(&self, batch: &[Finish]) -> Option<Vec<Finished>> {
        loop {
            match self.ledger.finish(batch.to_vec()).await {
                Ok(finished) => {
                    self.health.ok(PART);
                    self.metrics.batch(batch.len());
                    return Some(finished);
                }
                // The writer is gone, and the process is ending because of it.
                Err(herald_ledger::Error::Closed) => return None,
                Err(error) => {
                    self.health.failing(PART, "the ledger cannot be written");
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "outcomes could not be recorded; they are tried again"
                    );
                }
            }
            tokio::select! {
                () = self.hard.cancelled() => return None,
                () = tokio::time::sleep(RETRY_AFTER) => {}
            }
        }
    }
}

fn recorded(finish: &Finish, finished: Finished, now: Timestamp) -> Recorded {
    let (due_at, closed) = match (finish.then, finished) {
        // Late as well: it may be this very outcome, recorded before its answer was lost.
        (Then::Retry(due_at), Finished::Done | Finished::Late) => (Some(due_at), None),
        (Then::Close { status, .. }, Finished::Done) => (None, Some(status)),
        (Then::Close { .. }, Finished::Late) => (None, None),
        // The shard was another's in between. If it came back meanwhile, whatever the row is now, the
        // ledger knows.
        (_, Finished::Stale) => (Some(now), None),
    };
    let delivery = finish.delivery;
    Recorded {
        subscription: delivery.subscription,
        id: delivery.id,
        due_at,
        closed,
        webhook: delivery.webhook,
    }
}
