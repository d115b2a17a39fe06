//! Dispatch turns queued events into deliveries.
//!
//! It takes the events that have arrived, matches them against the registry, and records events and deliveries in
//! one transaction. Then it acknowledges the events, and hands to deliver the deliveries that this process may send
//! itself. A batch that fails is tried again until it is recorded, so nothing is acknowledged before all that
//! follows from it is in the ledger. While the ledger takes nothing, no more events are taken, and those that are not
//! recorded are given back to the queue, except for the batches under way.
#![warn(missing_docs)]

mod batching;
mod decode;
mod fan_out;
mod metrics;
mod outage;
mod recording;
mod spans;

use batching::{COMPANY, Size, Turn};
use futures_util::future::{BoxFuture, Fuse, FusedFuture, FutureExt};
use futures_util::stream::{FuturesOrdered, StreamExt};
use herald_ledger::Ledger;
use herald_ledger::handover::HandOver;
use herald_ledger::shards::ShardLeases;
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

/// The most events in one transaction, and the number of bytes at which no more are taken.
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
    owned: watch::Receiver<ShardLeases>,
    hand_over: HandOver,
    health: Health,
    traces: Traces,
    metrics: Metrics,
    /// Notified when an event was recorded whose fan-out is not complete.
    incomplete: Arc<Notify>,
    outage: Outage,
}

/// The parts that dispatch works with.
#[derive(Debug)]
pub struct Parts {
    /// The queue that events come from.
    pub queue: Queue,
    /// The ledger in which they are recorded.
    pub ledger: Ledger,
    /// The registry against which they are matched.
    pub registry: Arc<Registry>,
    /// The shards whose deliveries this process sends itself, at any time.
    pub owned: watch::Receiver<ShardLeases>,
    /// The hand-over of these deliveries to deliver.
    pub hand_over: HandOver,
    /// The health to which dispatch reports.
    pub health: Health,
    /// The traces to which its spans go.
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

    /// Runs until shutdown. Batches that are being recorded then are finished; events that are not acknowledged
    /// come again.
    ///
    /// The future is boxed, so that it is compiled here and not where it is spawned.
    pub fn run(self, shutdown: CancellationToken) -> BoxFuture<'static, ()> {
        Box::pin(self.run_all(shutdown))
    }

    async fn run_all(self, shutdown: CancellationToken) {
        let mut consumer = self.queue.consumer();
        self.health.ok(PART);
        let work = async { tokio::join!(self.take(&mut consumer, &shutdown), self.complete_fan_outs(&shutdown)) };
        tokio::select! {
            _done = work => {}
            () = self.queue.watch() => {}
        }
    }

    /// Records what comes, in batches: see [`batching`]. Batches are acknowledged in their order.
    async fn take(&self, consumer: &mut Consumer, shutdown: &CancellationToken) {
        let mut taken: Vec<Received> = Vec::new();
        let mut recording = FuturesOrdered::new();
        let mut recorded = Vec::new();
        let mut acknowledging = pin!(Fuse::terminated());
        // The size of the batch before, and when the first message of the next one came.
        let (mut former, mut since) = (Size::default(), Instant::now());
        loop {
            let next = Size::of(&taken);
            let turn = batching::turn(next, former, recording.len(), since.elapsed());
            if turn == Turn::Begin {
                former = next;
                for group in decode::groups(std::mem::take(&mut taken)) {
                    if group.iter().any(decode::is_doubtful) {
                        // It may end the process, so everything recorded so far is acknowledged first.
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
                // Acknowledged in the background. On SQLite the delete joins the next group commit.
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
        // Batches under way are finished. An acknowledgement counts for all messages before it too.
        while let Some(Some(tag)) = recording.next().await {
            recorded.push(tag);
        }
        if !acknowledging.is_terminated() {
            acknowledging.await;
        }
        self.acknowledge(recorded).await;
    }

    /// Records messages. Returns the last one's tag, or nothing if shutdown came first.
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
        // With an empty queue no batch would ever report that all is well.
        if self.queue.in_transit().await.is_ok() {
            self.health.ok(PART);
        }
    }

    async fn acknowledge(&self, tags: Vec<Tag>) {
        for up_to in tags {
            if let Err(error) = self.queue.acknowledge(up_to).await {
                // The messages come again, and their events are recognised as repeated.
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "messages could not be acknowledged"
                );
            }
        }
    }
}
