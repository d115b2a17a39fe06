//! What the process as a whole counts.

use herald_ledger::Ledger;
use herald_ledger::shards::Ownership;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntGauge, IntGaugeVec, Opts, Registry};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often open deliveries are counted at most.
const COUNT_INTERVAL: Duration = Duration::from_secs(2);

/// Registers them.
pub(crate) fn register(registry: &Registry) -> Result<(), prometheus::Error> {
    let build = IntGaugeVec::new(
        Opts::new("herald_build_info", "Always 1; the version is the label."),
        &["version"],
    )?;
    build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
    registry.register(Box::new(build))
}

/// Registers the number of open deliveries.
pub(crate) fn register_open(registry: &Registry, ledger: &Ledger) -> Result<(), prometheus::Error> {
    let gauge = IntGauge::new(
        "herald_deliveries_open",
        "Deliveries that are waiting or being attempted.",
    )?;
    registry.register(Box::new(OpenDeliveries {
        gauge,
        ledger: ledger.clone(),
    }))
}

/// Of a ledger that several processes share, counts now and then what is open in the shards that this
/// one owns, and spends no more than a hundredth of the time on it.
pub(crate) async fn count_open(ledger: Ledger, owned: watch::Receiver<Ownership>, shutdown: CancellationToken) {
    while !shutdown.is_cancelled() {
        let began = Instant::now();
        let shards: Vec<_> = owned.borrow().shards().collect();
        let counted = tokio::select! {
            () = shutdown.cancelled() => return,
            counted = ledger.count_open(shards) => counted,
        };
        if let Err(error) = counted {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "open deliveries could not be counted"
            );
        }
        let pause = (began.elapsed() * 100).max(COUNT_INTERVAL);
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// The ledger counts; the gauge is set when somebody asks.
struct OpenDeliveries {
    gauge: IntGauge,
    ledger: Ledger,
}

impl Collector for OpenDeliveries {
    fn desc(&self) -> Vec<&Desc> {
        self.gauge.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.gauge
            .set(self.ledger.signals().open_deliveries.load(Ordering::Relaxed));
        self.gauge.collect()
    }
}
