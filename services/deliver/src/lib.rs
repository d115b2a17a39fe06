//! Deliver turns deliveries into HTTP requests.
//!
//! One task carries out what [`herald_domain::worker`] decides, and tells it what happens. Requests, reads of the
//! ledger and writes to it are tasks of their own that report back. Where several processes share a ledger, the
//! [`LeaseKeeper`] keeps this process's share of its shards.
#![warn(missing_docs)]

mod attempt;
mod dead_letters;
mod fair_share;
mod lease_keeper;
mod metrics;
mod outbox;
mod rate_limit;
mod recorder;
mod report;
mod request_template;
mod spans;
mod worker;

use attempt::Sender;
pub use dead_letters::{DeadLetters, PublishError};
use futures_util::future::BoxFuture;
use herald_domain::message::Source;
use herald_domain::time::Clock;
use herald_egress::Client;
use herald_ledger::Ledger;
use herald_ledger::handover::HandOver;
use herald_ledger::shards::ShardLeases;
use herald_registry::Registry;
use herald_telemetry::health::Health;
use herald_telemetry::traces::Traces;
pub use lease_keeper::LeaseKeeper;
use metrics::Metrics;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// The most descriptors that a process with this part may come to need: 4,096 idle connections to subscribers,
/// 2,048 of attempts under way, 512 of look-ups of names, 2,048 connections of callers, and the rest.
pub const MAX_DESCRIPTORS: u64 = 9000;

/// The parts that deliver works with.
#[derive(Debug)]
pub struct Parts {
    /// The ledger, which has the deliveries.
    pub ledger: Ledger,
    /// The registry, which says to whom messages may be sent.
    pub registry: Arc<Registry>,
    /// The leases of the shards whose lanes this process runs: those of the keeper, or all shards for good where the
    /// process has its ledger to itself.
    pub leases: watch::Receiver<ShardLeases>,
    /// The keeper of these leases, where several processes share the ledger.
    pub keeper: Option<LeaseKeeper>,
    /// Where copies of dead deliveries go, if there is a broker to take them.
    pub dead_letters: Option<Arc<dyn DeadLetters>>,
    /// What dispatch hands over.
    pub hand_over: HandOver,
    /// The health to which deliver reports.
    pub health: Health,
    /// The traces to which its spans go.
    pub traces: Traces,
    /// The client that sends the requests.
    pub client: Arc<Client>,
    /// The `source` of the CloudEvents that are sent.
    pub source: Source,
}

/// Deliver, ready to run.
#[derive(Debug)]
pub struct Deliver {
    ledger: Ledger,
    registry: Arc<Registry>,
    leases: watch::Receiver<ShardLeases>,
    keeper: Option<LeaseKeeper>,
    dead_letters: Option<Arc<dyn DeadLetters>>,
    hand_over: HandOver,
    /// The ledger's clock, by which deliveries are due and busy.
    clock: Arc<dyn Clock>,
    health: Health,
    traces: Traces,
    sender: Arc<Sender>,
    metrics: Metrics,
}

impl Deliver {
    /// Deliver with these parts; its metrics go to `metrics`.
    pub fn new(parts: Parts, metrics: &prometheus::Registry) -> Result<Self, prometheus::Error> {
        let Parts {
            ledger,
            registry,
            leases,
            keeper,
            dead_letters,
            hand_over,
            health,
            traces,
            client,
            source,
        } = parts;
        let sender = Arc::new(Sender::new(client, source));
        let metrics = Metrics::register(metrics)?;
        let clock = ledger.clock();
        Ok(Self {
            ledger,
            registry,
            leases,
            keeper,
            dead_letters,
            hand_over,
            clock,
            health,
            traces,
            sender,
            metrics,
        })
    }

    /// Runs until shutdown. Then no attempt begins any more, the keeper gives its shards back at once, and attempts
    /// in flight may end until `hard` is cancelled. What is left after that stays in the ledger as it was.
    ///
    /// The future is boxed, so that it is compiled here and not where it is spawned.
    pub fn run(self, shutdown: CancellationToken, hard: CancellationToken) -> BoxFuture<'static, ()> {
        Box::pin(self.run_all(shutdown, hard))
    }

    async fn run_all(mut self, shutdown: CancellationToken, hard: CancellationToken) {
        let (questions, asked) = mpsc::channel(1);
        let outbox = outbox::Outbox {
            ledger: self.ledger.clone(),
            registry: Arc::clone(&self.registry),
            leases: self.leases.clone(),
            questions: questions.clone(),
            metrics: self.metrics.clone(),
        };
        let dead_letters = self.dead_letters.take();
        let keeper = self.keeper.take();
        let (health, metrics) = (self.health.clone(), self.metrics.clone());
        if keeper.is_none() {
            // These shards are had for good. Where there is a keeper, it sets the gauge as shards come and go.
            metrics.shards_owned(self.leases.borrow().shards().count());
        }
        let keep = async {
            if let Some(keeper) = keeper {
                keeper.run(questions, &health, &metrics, &shutdown, &hard).await;
            }
        };
        tokio::join!(
            outbox.cancel_deliveries(&shutdown),
            outbox.publish_dead_letters(dead_letters, &shutdown),
            keep,
            worker::run(self, asked, shutdown.clone(), hard.clone()),
        );
    }
}
