//! How many connections there may be, and how many there are.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounter, IntGauge};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The most connections beyond those that are served, for health checks and refusals.
pub(super) const MAX_WHEN_FULL: usize = 32;

/// The places of a listener's connections; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    most: usize,
    free: Arc<Semaphore>,
    /// Those beyond the most.
    extra: Arc<Semaphore>,
    refused: IntCounter,
}

impl Places {
    /// That many are served at a time.
    pub(crate) fn new(most: usize) -> Result<Self, prometheus::Error> {
        Ok(Self {
            most,
            free: Arc::new(Semaphore::new(most)),
            extra: Arc::new(Semaphore::new(MAX_WHEN_FULL)),
            refused: IntCounter::new(
                "herald_http_connections_refused_total",
                "HTTP connections beyond the most that may be open, which were served no more than health and metrics.",
            )?,
        })
    }

    /// Registers how many are open, of those that may be.
    pub(crate) fn register(&self, registry: &prometheus::Registry) -> Result<(), prometheus::Error> {
        registry.register(Box::new(self.refused.clone()))?;
        registry.register(Box::new(Connections {
            open: IntGauge::new("herald_http_connections", "Open HTTP connections to this process.")?,
            limit: IntGauge::new(
                "herald_http_connections_limit",
                "How many HTTP connections to this process may be open; further ones are refused.",
            )?,
            places: self.clone(),
        }))
    }

    /// How many are served at a time.
    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// How many more may be served now.
    pub(super) fn free(&self) -> usize {
        self.free.available_permits()
    }

    /// A place among those that are served, if there is one.
    pub(super) fn take(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.free).try_acquire_owned().ok()
    }

    /// A place beyond the most.
    pub(super) async fn extra(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.extra).acquire_owned().await.ok()
    }

    /// Counts a connection that is refused.
    pub(super) fn refuse(&self) {
        self.refused.inc();
    }
}

/// Asked when somebody looks.
struct Connections {
    open: IntGauge,
    limit: IntGauge,
    places: Places,
}

impl Collector for Connections {
    fn desc(&self) -> Vec<&Desc> {
        [self.open.desc(), self.limit.desc()].concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.open
            .set(number(self.places.most.saturating_sub(self.places.free())));
        self.limit.set(number(self.places.most));
        [self.open.collect(), self.limit.collect()].concat()
    }
}
