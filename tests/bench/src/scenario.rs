//! What is measured: one file for each scenario of the table, with its targets.

mod backlog;
mod fan_out;
mod latency;
mod memory;
mod pressure;
mod saturation;
mod subscriptions;
mod throughput;
mod tls;
mod waiting;

use crate::options::{Bench, Scenario};
use crate::report::Report;

pub(crate) async fn measure(scenario: Scenario, bench: &Bench) -> Measured {
    match scenario {
        Scenario::Saturation => saturation::measure(bench).await,
        Scenario::FanOut => fan_out::measure(bench).await,
        Scenario::Tls => tls::measure(bench).await,
        Scenario::Latency => latency::measure(bench).await,
        Scenario::Pressure => pressure::measure(bench).await,
        Scenario::Subscriptions => subscriptions::measure(bench).await,
        Scenario::Waiting => waiting::measure(bench).await,
        Scenario::Backlog => backlog::measure(bench).await,
        Scenario::Memory => memory::measure(bench).await,
        // It consists of the others.
        Scenario::All => Measured::default(),
    }
}

/// What came out of a scenario.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    pub(crate) reports: Vec<Report>,
    /// The runs that failed, and why.
    pub(crate) failures: Vec<String>,
}
