//! Turns queued events into deliveries.
//!
//! Takes what has arrived, matches it against the registry, and records events and deliveries in one
//! transaction; then acknowledges, and hands to deliver what this process may send itself. A batch
//! that fails is tried again until it is recorded, so nothing is acknowledged before all that follows
//! from it is in the ledger.
#![warn(missing_docs)]

mod fan_out;
mod metrics;
mod reading;
mod recording;

use herald_ledger::Ledger;
use herald_ledger::handover::HandOver;
use herald_ledger::shards::Ownership;
use herald_queue::{Consumer, Queue, Tag};
use herald_registry::Registry;
use herald_telemetry::health::Health;
use metrics::Metrics;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

/// The most events in one transaction, and the bytes beside which no more are taken.
const MAX_BATCH_EVENTS: usize = 512;
const MAX_BATCH_BYTES: usize = 4 << 20;

/// How long to wait before a failed step is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(500);

const PART: &str = "dispatch";

/// What dispatch needs.
#[derive(Debug, Clone)]
pub struct Dispatch {
    queue: Queue,
    ledger: Ledger,
    registry: Arc<Registry>,
    owned: watch::Receiver<Ownership>,
    hand_over: HandOver,
    health: Health,
    metrics: Metrics,
    /// An event was recorded whose fan-out is not complete.
    incomplete: Arc<Notify>,
}

/// The parts that dispatch works with.
#[derive(Debug)]
pub struct Parts {
    /// Where events come from.
    pub queue: Queue,
    /// Where they are recorded.
    pub ledger: Ledger,
    /// What they are matched against.
    pub registry: Arc<Registry>,
    /// The shards whose deliveries this process sends itself, as they are at any time.
    pub owned: watch::Receiver<Ownership>,
    /// Where it hands those.
    pub hand_over: HandOver,
    /// Where dispatch says how it is.
    pub health: Health,
}

impl Dispatch {
    /// Dispatch with these parts; its metrics go to `metrics`.
    pub fn new(parts: Parts, metrics: &prometheus::Registry) -> Result<Self, prometheus::Error> {
        let Parts {
            queue,
            ledger,
            registry,
            owned,
            hand_over,
            health,
        } = parts;
        let metrics = Metrics::register(metrics, &queue)?;
        Ok(Self {
            queue,
            ledger,
            registry,
            owned,
            hand_over,
            health,
            metrics,
            incomplete: Arc::default(),
        })
    }

    /// Runs until shutdown. What is taken from the queue then is recorded still; what is not
    /// acknowledged comes again.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut consumer = self.queue.consumer();
        self.health.ok(PART);
        tokio::join!(self.take(&mut consumer, &shutdown), self.complete_fan_outs(&shutdown));
    }

    async fn take(&self, consumer: &mut Consumer, shutdown: &CancellationToken) {
        let mut recorded = None;
        loop {
            // The acknowledgement rides along with the next batch: nobody waits for its commit.
            let next = async {
                tokio::select! {
                    () = shutdown.cancelled() => None,
                    next = consumer.next(MAX_BATCH_EVENTS, MAX_BATCH_BYTES) => Some(next),
                }
            };
            let (next, ()) = tokio::join!(next, self.acknowledge(recorded.take()));
            match next {
                None => return,
                Some(Ok(batch)) => {
                    for group in reading::groups(batch) {
                        // Before one that may take the process with it, what is done is put away.
                        self.acknowledge(recorded.take()).await;
                        let last = group.last().map(|received| received.tag);
                        if !self.record_until_done(group, shutdown).await {
                            return;
                        }
                        recorded = last;
                    }
                }
                Some(Err(error)) => {
                    self.health.failing(PART, "the event queue cannot be read");
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "the event queue cannot be read"
                    );
                    tokio::time::sleep(RETRY_AFTER).await;
                    // An empty queue gives no batch to be well with.
                    if self.queue.in_transit().await.is_ok() {
                        self.health.ok(PART);
                    }
                }
            }
        }
    }

    async fn acknowledge(&self, up_to: Option<Tag>) {
        let Some(up_to) = up_to else { return };
        if let Err(error) = self.queue.acknowledge(up_to).await {
            // They come again, and find their keys taken.
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "messages could not be acknowledged"
            );
        }
    }
}
