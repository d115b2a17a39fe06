//! Turns deliveries into HTTP requests.
//!
//! One task owns the lanes of this process and only decides; requests, reads of the ledger and writes
//! to it are tasks of their own that report back. See [`herald_domain::lanes`] for what is sent when,
//! and [`herald_domain::delivery::decide`] for what follows.
#![warn(missing_docs)]

mod attempt;
mod egress;
mod metrics;
mod outbox;
mod owner;
mod recorder;

use egress::Sender;
pub use egress::{EgressError, parse_certificates};
use herald_domain::address::EgressPolicy;
use herald_domain::time::Clock;
use herald_ledger::Ledger;
use herald_ledger::handover::HandOver;
use herald_ledger::shards::Ownership;
use herald_registry::Registry;
use herald_telemetry::health::Health;
use metrics::Metrics;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// The parts that deliver works with.
#[derive(Debug)]
pub struct Parts {
    /// Where deliveries are.
    pub ledger: Ledger,
    /// Who may be sent to.
    pub registry: Arc<Registry>,
    /// The shards whose lanes this process runs.
    pub owned: Ownership,
    /// What dispatch hands over.
    pub hand_over: HandOver,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where deliver says how it is.
    pub health: Health,
    /// Which addresses requests may go to.
    pub egress: Arc<EgressPolicy>,
    /// Certificates that are trusted besides the system's, PEM.
    pub trusted: Vec<reqwest::Certificate>,
}

/// Deliver, ready to run.
#[derive(Debug)]
pub struct Deliver {
    ledger: Ledger,
    registry: Arc<Registry>,
    owned: Ownership,
    hand_over: HandOver,
    clock: Arc<dyn Clock>,
    health: Health,
    sender: Arc<Sender>,
    metrics: Metrics,
}

impl Deliver {
    /// Deliver with these parts; its metrics go to `metrics`.
    pub fn new(parts: Parts, metrics: &prometheus::Registry) -> Result<Self, EgressError> {
        let Parts {
            ledger,
            registry,
            owned,
            hand_over,
            clock,
            health,
            egress,
            trusted,
        } = parts;
        let sender = Arc::new(Sender::new(egress, trusted)?);
        let metrics = Metrics::register(metrics)?;
        Ok(Self {
            ledger,
            registry,
            owned,
            hand_over,
            clock,
            health,
            sender,
            metrics,
        })
    }

    /// Runs until shutdown: then no attempt begins any more, and those in flight may end until `hard`
    /// is cancelled. Whatever is left lies in the ledger as it was.
    pub async fn run(self, shutdown: CancellationToken, hard: CancellationToken) {
        let outbox = outbox::run(self.ledger.clone(), shutdown.clone());
        tokio::join!(outbox, owner::run(self, shutdown, hard));
    }
}
