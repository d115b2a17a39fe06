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

use crate::options::Bench;
use crate::report::Report;
use clap::ValueEnum;
use std::fmt;

/// One of them, or all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// As many events as go through, to one subscription
    Saturation,
    /// The same to ten subscriptions
    FanOut,
    /// Both over TLS, with HTTP/1.1 and with HTTP/2
    Tls,
    /// Open loops at 50 and 300 events a second
    Latency,
    /// Nine healthy endpoints beside one that hangs, fails, drips or resets
    Pressure,
    /// Ten subscriptions against a million
    Subscriptions,
    /// An empty ledger against a million open deliveries of one dead subscriber
    Waiting,
    /// A million events in RabbitMQ while no worker runs
    Backlog,
    /// What `herald up` holds in memory, idle and under every load
    Memory,
    /// All of them
    All,
}

impl Scenario {
    /// What it consists of.
    pub(crate) fn each(self) -> Vec<Self> {
        match self {
            Self::All => Self::value_variants()
                .iter()
                .copied()
                .filter(|one| *one != Self::All)
                .collect(),
            one => vec![one],
        }
    }

    /// Measures it.
    pub(crate) async fn measure(self, bench: &Bench) -> Measured {
        match self {
            Self::Saturation => saturation::measure(bench).await,
            Self::FanOut => fan_out::measure(bench).await,
            Self::Tls => tls::measure(bench).await,
            Self::Latency => latency::measure(bench).await,
            Self::Pressure => pressure::measure(bench).await,
            Self::Subscriptions => subscriptions::measure(bench).await,
            Self::Waiting => waiting::measure(bench).await,
            Self::Backlog => backlog::measure(bench).await,
            Self::Memory => memory::measure(bench).await,
            // It consists of the others.
            Self::All => Measured::default(),
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value().expect("none is skipped");
        f.write_str(value.get_name())
    }
}

/// What came out of a scenario.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    /// The tables.
    pub(crate) reports: Vec<Report>,
    /// The runs that failed, and why.
    pub(crate) failures: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_each_of_the_others_once() {
        let all = Scenario::All.each();
        assert_eq!(all.len(), Scenario::value_variants().len() - 1);
        assert!(!all.contains(&Scenario::All));
        assert_eq!(Scenario::Pressure.each(), [Scenario::Pressure]);
    }
}
