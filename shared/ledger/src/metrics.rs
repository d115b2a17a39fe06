//! What the ledger counts.

use crate::{Cause, Error};
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry};
use sea_orm::{DatabaseConnection, DbBackend};
use std::time::Duration;

/// From a commit that shares its sync to disk to the longest that a write may take, 8 s.
const WRITE_BUCKETS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// Counted from the start, and shown once they are registered.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    write_seconds: Histogram,
    failures: IntCounterVec,
    pub(crate) reconnections: IntCounter,
}

impl Default for Metrics {
    fn default() -> Self {
        let failures = IntCounterVec::new(
            Opts::new(
                "herald_ledger_write_failures_total",
                "Writes to the ledger that failed, by what the failure is due to; they are tried again.",
            ),
            &["cause"],
        )
        .expect("the metric's name and label are well formed");
        for cause in Cause::ALL {
            failures.with_label_values(&[cause.name()]);
        }
        Self {
            write_seconds: Histogram::with_opts(
                HistogramOpts::new(
                    "herald_ledger_write_duration_seconds",
                    "From the wish to write to the ledger until it is durable, waiting for a connection included.",
                )
                .buckets(WRITE_BUCKETS.to_vec()),
            )
            .expect("the metric's name and buckets are well formed"),
            failures,
            reconnections: IntCounter::new(
                "herald_ledger_reconnections_total",
                "How often the connection that is always open was made anew: for notices on PostgreSQL, the writer's \
                 on SQLite.",
            )
            .expect("the metric's name is well formed"),
        }
    }
}

impl Metrics {
    pub(crate) fn wrote<T>(&self, took: Duration, result: &Result<T, Error>) {
        self.write_seconds.observe(took.as_secs_f64());
        if let Err(error) = result
            && !matches!(error, Error::Undone)
        {
            self.failures.with_label_values(&[error.cause().name()]).inc();
        }
    }

    pub(crate) fn register(&self, registry: &Registry, pools: Pools) -> Result<(), prometheus::Error> {
        registry.register(Box::new(self.write_seconds.clone()))?;
        registry.register(Box::new(self.failures.clone()))?;
        registry.register(Box::new(self.reconnections.clone()))?;
        registry.register(Box::new(pools))
    }
}

/// The pools of connections, asked how they are when somebody looks.
pub(crate) struct Pools {
    connections: IntGaugeVec,
    limits: IntGaugeVec,
    by_name: Vec<(&'static str, DatabaseConnection)>,
}

impl Pools {
    pub(crate) fn new(by_name: Vec<(&'static str, DatabaseConnection)>) -> Result<Self, prometheus::Error> {
        let connections = Opts::new(
            "herald_ledger_connections",
            "Connections to the ledger's database, by what they are for and whether they are in use.",
        );
        let limits = Opts::new(
            "herald_ledger_connections_limit",
            "How many connections to the ledger's database there may be, by what they are for.",
        );
        Ok(Self {
            connections: IntGaugeVec::new(connections, &["pool", "state"])?,
            limits: IntGaugeVec::new(limits, &["pool"])?,
            by_name,
        })
    }
}

impl Collector for Pools {
    fn desc(&self) -> Vec<&Desc> {
        let mut descriptions = self.connections.desc();
        descriptions.extend(self.limits.desc());
        descriptions
    }

    fn collect(&self) -> Vec<MetricFamily> {
        for (name, connection) in &self.by_name {
            let (open, idle, limit) = usage(connection);
            // Asked one after the other, so there may seem to be more idle than there are.
            let used = i64::from(open).saturating_sub(idle).max(0);
            self.connections.with_label_values(&[*name, "used"]).set(used);
            self.connections.with_label_values(&[*name, "idle"]).set(idle);
            self.limits.with_label_values(&[*name]).set(i64::from(limit));
        }
        let mut families = self.connections.collect();
        families.extend(self.limits.collect());
        families
    }
}

/// How many connections are open, how many of them idle, and how many there may be.
fn usage(connection: &DatabaseConnection) -> (u32, i64, u32) {
    let (open, idle, limit) = if connection.get_database_backend() == DbBackend::Postgres {
        let pool = connection.get_postgres_connection_pool();
        (pool.size(), pool.num_idle(), pool.options().get_max_connections())
    } else {
        let pool = connection.get_sqlite_connection_pool();
        (pool.size(), pool.num_idle(), pool.options().get_max_connections())
    };
    (open, i64::try_from(idle).unwrap_or(i64::MAX), limit)
}
