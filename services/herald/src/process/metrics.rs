//! What the process as a whole counts.

use crate::process::config::Config;
use crate::process::roles::Role;
use herald_ledger::Ledger;
use herald_ledger::shards::ShardLeases;
use herald_registry::Registry as Live;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Gauge, IntGauge, IntGaugeVec, Opts, Registry};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often open deliveries are counted at most.
const COUNT_INTERVAL: Duration = Duration::from_secs(2);

/// Registers what is known from the start: what this process is, and what the kernel says of it.
pub(crate) fn register(registry: &Registry, role: Role) -> Result<(), prometheus::Error> {
    let build = IntGaugeVec::new(
        Opts::new(
            "herald_build_info",
            "Always 1; the version and the process's role are the labels.",
        ),
        &["version", "role"],
    )?;
    build
        .with_label_values(&[env!("CARGO_PKG_VERSION"), role.name()])
        .set(1);
    registry.register(Box::new(build))?;
    herald_telemetry::logs::register_metrics(registry)?;
    #[cfg(target_os = "linux")]
    registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
    Ok(())
}

/// Registers when the first of the certificates expires that each configured file of authorities has.
pub(crate) fn register_certificates(registry: &Registry, config: &Config) -> Result<(), prometheus::Error> {
    let expiry = IntGaugeVec::new(
        Opts::new(
            "herald_trusted_certificate_expiry_timestamp_seconds",
            "When the first certificate of a file of trusted authorities expires, as Unix time, by the setting that \
             names the file.",
        ),
        &["setting"],
    )?;
    let files = [("broker_ca", &config.broker_ca), ("egress_ca", &config.egress_ca)];
    for (setting, file) in files {
        let Some(file) = file else { continue };
        match first_expiry(file) {
            Ok(Some(expires)) => expiry.with_label_values(&[setting]).set(expires),
            Ok(None) => {}
            // Whoever uses the file says what is wrong with it, and ends the start if it must.
            Err(error) => tracing::warn!(setting, error, "when its certificates expire cannot be told"),
        }
    }
    registry.register(Box::new(expiry))
}

fn first_expiry(file: &Path) -> Result<Option<i64>, String> {
    let pem = crate::text::read_settings(file).map_err(|error| format!("{error:#}"))?;
    let certificates = x509_cert::Certificate::load_pem_chain(pem.as_bytes()).map_err(|error| error.to_string())?;
    let expiries = certificates.iter().map(|certificate| {
        let seconds = certificate
            .tbs_certificate
            .validity
            .not_after
            .to_unix_duration()
            .as_secs();
        i64::try_from(seconds).unwrap_or(i64::MAX)
    });
    Ok(expiries.min())
}

/// Registers how the live view of subscriptions and accounts is.
pub(crate) fn register_live(registry: &Registry, live: &Arc<Live>) -> Result<(), prometheus::Error> {
    registry.register(Box::new(LiveView {
        subscriptions: IntGauge::new(
            "herald_registry_subscriptions",
            "Subscriptions that this process knows, inactive ones among them.",
        )?,
        version: IntGauge::new(
            "herald_registry_version",
            "The version of subscriptions and accounts that this process works with; every change is one more.",
        )?,
        age: Gauge::new(
            "herald_registry_age_seconds",
            "How long ago the version was last found to be the ledger's; attempts wait while it is over 1 s.",
        )?,
        live: Arc::downgrade(live),
    }))
}

/// Asked when somebody looks.
struct LiveView {
    subscriptions: IntGauge,
    version: IntGauge,
    age: Gauge,
    /// Whoever looks keeps nothing alive: the ledger is closed with its last handle.
    live: Weak<Live>,
}

impl Collector for LiveView {
    fn desc(&self) -> Vec<&Desc> {
        [self.subscriptions.desc(), self.version.desc(), self.age.desc()].concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Some(live) = self.live.upgrade() else {
            return Vec::new();
        };
        let view = live.view();
        self.subscriptions.set(i64::try_from(view.len()).unwrap_or(i64::MAX));
        self.version.set(view.version());
        drop(view);
        self.age.set(live.checked_at().elapsed().as_secs_f64());
        [self.subscriptions.collect(), self.version.collect(), self.age.collect()].concat()
    }
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
pub(crate) async fn count_open(ledger: Ledger, owned: watch::Receiver<ShardLeases>, shutdown: CancellationToken) {
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
