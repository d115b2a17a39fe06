//! Writes outcomes to the ledger, as many at a time as have come.
//!
//! While the ledger is away outcomes wait here; the lanes begin no more attempts than it may hold (see
//! `Limits::recording`), so they are bounded.

use crate::owner::Report;
use herald_domain::delivery::Closed;
use herald_domain::id::{DeliveryId, SubscriptionId};
use herald_domain::time::Timestamp;
use herald_ledger::Ledger;
use herald_ledger::delivering::{Finish, Finished, Then};
use herald_ledger::shards::Ownership;
use herald_telemetry::health::Health;
use std::time::Duration;
use tokio::sync::mpsc;

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
}

/// Records what comes until the sender is gone.
pub(crate) async fn run(
    ledger: Ledger,
    owned: Ownership,
    health: Health,
    mut outcomes: mpsc::UnboundedReceiver<Finish>,
    reports: mpsc::UnboundedSender<Report>,
) {
    let mut batch = Vec::with_capacity(MAX_BATCH);
    while outcomes.recv_many(&mut batch, MAX_BATCH).await > 0 {
        let batch = std::mem::take(&mut batch);
        let finished = record(&ledger, &owned, &health, &batch).await;
        let recorded = batch
            .iter()
            .zip(finished)
            .map(|(finish, finished)| recorded(finish, finished))
            .collect();
        if reports.send(Report::Recorded(recorded)).is_err() {
            return;
        }
    }
}

async fn record(ledger: &Ledger, owned: &Ownership, health: &Health, batch: &[Finish]) -> Vec<Finished> {
    loop {
        match ledger.finish(batch.to_vec(), owned.clone()).await {
            Ok(finished) => {
                health.ok(PART);
                return finished;
            }
            Err(error) => {
                health.failing(PART, "the ledger cannot be written");
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "outcomes could not be recorded; they are tried again"
                );
                tokio::time::sleep(RETRY_AFTER).await;
            }
        }
    }
}

fn recorded(finish: &Finish, finished: Finished) -> Recorded {
    let (due_at, closed) = match (finish.then, finished) {
        // Late as well: it may be this very outcome, recorded before its answer was lost.
        (Then::Retry(due_at), Finished::Done | Finished::Late) => (Some(due_at), None),
        (Then::Close { status, .. }, Finished::Done) => (None, Some(status)),
        (Then::Close { .. }, Finished::Late) | (_, Finished::Stale) => (None, None),
    };
    let delivery = finish.delivery;
    Recorded {
        subscription: delivery.subscription,
        id: delivery.id,
        due_at,
        closed,
    }
}
