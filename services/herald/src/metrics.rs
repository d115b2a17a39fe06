//! What the process as a whole counts.

use herald_ledger::Ledger;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntGauge, IntGaugeVec, Opts, Registry};
use std::sync::atomic::Ordering;

/// Registers them.
pub(crate) fn register(registry: &Registry, ledger: &Ledger) -> Result<(), prometheus::Error> {
    let build = IntGaugeVec::new(
        Opts::new("herald_build_info", "Always 1; the version is the label."),
        &["version"],
    )?;
    build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
    registry.register(Box::new(build))?;
    let gauge = IntGauge::new(
        "herald_deliveries_open",
        "Deliveries that are waiting or being attempted.",
    )?;
    registry.register(Box::new(OpenDeliveries {
        gauge,
        ledger: ledger.clone(),
    }))
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
