//! Turns queued events into deliveries.
//!
//! Takes what has arrived, matches it against the registry, and records events and deliveries in one
//! transaction; then acknowledges, and hands to deliver what this process may send itself. A batch
//! that fails is tried again until it is recorded, so nothing is acknowledged before all that follows
//! from it is in the ledger. While nothing can be recorded nothing more is taken, and what is not recorded is
//! given back to the queue, except for the batches under way.
#![warn(missing_docs)]

mod batching;
mod fan_out;
mod metrics;
mod outage;
mod reading;
mod recording;
mod spans;

use batching::{COMPANY, Size, Turn};
use futures_util::future::{Fuse, FusedFuture, FutureExt};
use futures_util::stream::{FuturesOrdered, StreamExt};
use herald_ledger::Ledger;
use herald_ledger::handover::HandOver;
use herald_ledger::shards::Ownership;
use herald_queue::{Consumer, Queue, Received, Tag};
use herald_registry::Registry;
use herald_telemetry::health::Health;
use herald_telemetry::traces::Traces;
use metrics::Metrics;
use outage::Outage;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
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
    traces: Traces,
    metrics: Metrics,
    /// An event was recorded whose fan-out is not complete.
    incomplete: Arc<Notify>,
    outage: Outage,
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
    /// Where its spans go.
    pub traces: Traces,
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
            traces,
        } = parts;
        let metrics = Metrics::register(metrics, &queue)?;
        Ok(Self {
            queue,
            ledger,
            registry,
            owned,
            hand_over,
            health,
            traces,
            metrics,
            incomplete: Arc::default(),
            outage: Outage::default(),
        })
    }

    /// Runs until shutdown. What is taken from the queue then is recorded still; what is not
    /// acknowledged comes again.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut consumer = self.queue.consumer();
        self.health.ok(PART);
        let work = async { tokio::join!(self.take(&mut consumer, &shutdown), self.complete_fan_outs(&shutdown)) };
        tokio::select! {
            _done = work => {}
            () = self.queue.watch() => {}
        }
    }

    /// Records what comes, in batches: see [`batching`]. They are acknowledged in their order.
    async fn take(&self, consumer: &mut Consumer, shutdown: &CancellationToken) {
        let mut taken: Vec<Received> = Vec::new();
        let mut recording = FuturesOrdered::new();
        let mut recorded = Vec::new();
        let mut acknowledging = pin!(Fuse::terminated());
        // How large the batch before was, and since when the first of the next one is here.
        let (mut former, mut since) = (Size::default(), Instant::now());
        loop {
            let next = Size::of(&taken);
            let turn = batching::turn(next, former, recording.len(), since.elapsed());
            if turn == Turn::Begin {
                former = next;
                for group in reading::groups(std::mem::take(&mut taken)) {
                    if group.iter().any(reading::is_doubtful) {
                        // It may take the process with it, so what is done is put away first.
                        while let Some(tag) = recording.next().await {
                            let Some(tag) = tag else { return };
                            recorded.push(tag);
                        }
                        self.acknowledge(std::mem::take(&mut recorded)).await;
                    }
                    recording.push_back(self.record_group(group, shutdown));
                }
            }
            if acknowledging.is_terminated() && !recorded.is_empty() {
                // It rides along with what is recorded next: nobody waits for its commit.
                acknowledging.set(self.acknowledge(std::mem::take(&mut recorded)).fuse());
            }
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = &mut acknowledging => {}
                Some(tag) = recording.next() => match tag {
                    Some(tag) => recorded.push(tag),
                    None => return,
                },
                () = tokio::time::sleep_until((since + COMPANY).into()), if turn == Turn::Wait => {}
                next = consumer.next(MAX_BATCH_EVENTS, MAX_BATCH_BYTES), if !Size::of(&taken).is_large() => match next {
                    Ok(batch) => {
                        if taken.is_empty() {
                            since = Instant::now();
                        }
                        taken.extend(batch);
                    }
                    Err(error) => self.cannot_read(&error).await,
                },
            }
        }
        // What is being recorded is recorded still; an acknowledgement is one of all before it, too.
        while let Some(Some(tag)) = recording.next().await {
            recorded.push(tag);
        }
        if !acknowledging.is_terminated() {
            acknowledging.await;
        }
        self.acknowledge(recorded).await;
    }

    /// Records messages; the last one's tag, unless shutdown came first.
    async fn record_group(&self, group: Vec<Received>, shutdown: &CancellationToken) -> Option<Tag> {
        let last = group.last().map(|received| received.tag);
        if self.record_until_done(group, shutdown).await {
            last
        } else {
            None
        }
    }

    async fn cannot_read(&self, error: &herald_queue::Error) {
        self.health.failing(PART, "the event queue cannot be read");
        tracing::error!(
            error = error as &dyn std::error::Error,
            "the event queue cannot be read"
        );
        tokio::time::sleep(RETRY_AFTER).await;
        // An empty queue gives no batch to be well with.
        if self.queue.in_transit().await.is_ok() {
            self.health.ok(PART);
        }
    }

    async fn acknowledge(&self, tags: Vec<Tag>) {
        for up_to in tags {
            if let Err(error) = self.queue.acknowledge(up_to).await {
                // They come again, and find their keys taken.
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "messages could not be acknowledged"
                );
            }
        }
    }
}
