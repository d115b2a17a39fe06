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

use herald_domain::lanes::Ticket;
use herald_ledger::dispatching::{CHUNK, Disposition, NewEvent, Recorded, Rejected};
use herald_ledger::handover::HandOver;
use herald_ledger::shards::Ownership;
use herald_ledger::{Error, Ledger};
use herald_queue::{Consumer, Queue, Received, Tag};
use herald_registry::Registry;
use herald_telemetry::health::Health;
use metrics::Metrics;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

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
    owned: Ownership,
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
    /// The shards whose deliveries this process sends itself.
    pub owned: Ownership,
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
        let metrics = Metrics::register(metrics)?;
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
                    let last = batch.last().map(|received| received.tag);
                    if !self.record_until_done(batch, shutdown).await {
                        return;
                    }
                    recorded = last;
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
            // They come again after a restart, and find their keys taken.
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "messages could not be acknowledged"
            );
        }
    }

    /// Records a batch, however often it takes; false when shutdown came first.
    async fn record_until_done(&self, batch: Vec<Received>, shutdown: &CancellationToken) -> bool {
        let events = reading::events(batch);
        let mut failed = false;
        loop {
            match self.record_all(&events).await {
                Ok(()) => {
                    self.health.ok(PART);
                    if failed {
                        self.hand_over.look_everywhere();
                    }
                    return true;
                }
                Err(error) => {
                    failed = true;
                    self.health.failing(PART, "the ledger cannot be written");
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "a batch could not be recorded; it is tried again"
                    );
                }
            }
            tokio::select! {
                () = shutdown.cancelled() => return false,
                () = tokio::time::sleep(RETRY_AFTER) => {}
            }
        }
    }

    async fn record_all(&self, read: &reading::Read) -> Result<(), Error> {
        for rejected in &read.rejected {
            self.reject(rejected.clone()).await?;
        }
        let mut rest = read.events.as_slice();
        while !rest.is_empty() {
            let (matched, version) = self.match_some(rest);
            let taken = matched.len();
            let ticket = self.hand_over.ticket();
            match self.ledger.record(matched.clone(), version, self.owned.clone()).await? {
                Recorded::Stale => self.registry.refresh().await?,
                Recorded::Done(dispositions) => {
                    self.hand_over(&matched, dispositions, ticket);
                    rest = rest.get(taken..).unwrap_or_default();
                }
            }
        }
        Ok(())
    }

    /// Matches events until their deliveries fill a transaction; at least one.
    fn match_some(&self, events: &[NewEvent]) -> (Vec<NewEvent>, i64) {
        let view = self.registry.view();
        let mut deliveries = 0;
        let mut matched = Vec::with_capacity(events.len());
        for event in events {
            if deliveries >= CHUNK {
                break;
            }
            let matches = view.index().matches(event.record.kind, &event.record.objects);
            deliveries += matches.len();
            matched.push(NewEvent {
                matches,
                ..event.clone()
            });
        }
        (matched, view.version())
    }

    fn hand_over(&self, events: &[NewEvent], dispositions: Vec<Disposition>, ticket: Ticket) {
        for (event, disposition) in events.iter().zip(dispositions) {
            match disposition {
                Disposition::New { mine, cursor } => {
                    self.metrics.dispatched(event.record.kind, &event.matches);
                    self.hand_over.offer(&event.record, mine, ticket);
                    if cursor.is_some() {
                        self.incomplete.notify_one();
                    }
                }
                Disposition::Repeated { differs } => self.metrics.repeated(differs),
            }
        }
    }

    async fn reject(&self, rejected: Rejected) -> Result<(), Error> {
        self.ledger.reject(Uuid::now_v7(), rejected).await?;
        self.metrics.rejected();
        Ok(())
    }
}
