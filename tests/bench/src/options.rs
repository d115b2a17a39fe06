//! What is asked for, and at what size.

use crate::stack::Kind;
use clap::{Args, ValueEnum};
use herald_tests::services::Servers;
use std::fmt;
use std::time::Duration;

/// The sizes at which it is only seen that everything runs.
mod quick {
    pub(super) const ROUNDS: u32 = 1;
    pub(super) const SECONDS: u64 = 2;
    pub(super) const OPEN_SECONDS: u32 = 3;
    pub(super) const OUTSTANDING: usize = 400;
    pub(super) const COUNT: u32 = 10_000;
}

/// What is asked for.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How often everything is measured [default: 3]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// How long each closed loop is measured, in seconds [default: 8]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: Option<u64>,
    /// How long each open loop is measured, in seconds [default: what its scenario needs]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    open_seconds: Option<u32>,
    /// How many events may be accepted and not yet delivered in a closed loop [default: 4000]
    #[arg(long)]
    outstanding: Option<usize>,
    /// How many subscriptions, waiting deliveries or events of a backlog the large scenarios have
    /// [default: 1000000]
    #[arg(long, value_parser = clap::value_parser!(u32).range(100..))]
    count: Option<u32>,
    /// `MaxInFlight` of each subscription in saturation and fan-out, instead of Herald's default; the
    /// floor has 500
    #[arg(long)]
    max_in_flight: Option<u32>,
    /// Small sizes, one round, and `shared` left out: to see that all of it runs, not to measure
    #[arg(long)]
    quick: bool,
    /// What is done
    #[arg(long, value_enum, default_value = "all")]
    scenario: Scenario,
    /// The forms of Herald, beside the floor [default: embedded,shared,roles]
    #[arg(long, value_enum, value_delimiter = ',')]
    stacks: Option<Vec<Kind>>,
}

/// One of the scenarios, or all.
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
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value().expect("none is skipped");
        f.write_str(value.get_name())
    }
}

/// What every scenario is given.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) servers: Servers,
    options: Options,
}

impl Bench {
    /// Starts RabbitMQ and PostgreSQL.
    pub(crate) async fn start(options: Options) -> Self {
        Self {
            servers: Servers::start().await,
            options,
        }
    }

    /// How often everything is measured.
    pub(crate) fn rounds(&self) -> u32 {
        self.options.rounds.unwrap_or_else(|| self.usual(3, quick::ROUNDS))
    }

    /// How long a closed loop is measured.
    pub(crate) fn closed(&self) -> Duration {
        Duration::from_secs(self.options.seconds.unwrap_or_else(|| self.usual(8, quick::SECONDS)))
    }

    /// How long an open loop is measured, in seconds, of which the scenario needs so many.
    pub(crate) fn open(&self, needed: u32) -> u32 {
        let usual = self.usual(needed, quick::OPEN_SECONDS);
        self.options.open_seconds.unwrap_or(usual)
    }

    /// How many events may be accepted and not yet delivered in a closed loop: enough that nothing waits
    /// for the generator, and few enough that accepting is not measured instead of delivering.
    pub(crate) fn outstanding(&self) -> usize {
        self.options
            .outstanding
            .unwrap_or_else(|| self.usual(4_000, quick::OUTSTANDING))
    }

    /// The number that a large scenario is about.
    pub(crate) fn count(&self) -> u32 {
        self.options
            .count
            .unwrap_or_else(|| self.usual(1_000_000, quick::COUNT))
    }

    /// `MaxInFlight`, where it is not to be the default.
    pub(crate) fn max_in_flight(&self) -> Option<u32> {
        self.options.max_in_flight
    }

    /// Whether the figures mean nothing.
    pub(crate) fn is_quick(&self) -> bool {
        self.options.quick
    }

    /// The scenarios that are asked for.
    pub(crate) fn scenarios(&self) -> Vec<Scenario> {
        self.options.scenario.each()
    }

    /// The forms of Herald, without the floor.
    pub(crate) fn stacks(&self) -> Vec<Kind> {
        // `shared` is the program of `embedded` on the stores of `roles`.
        let every = [Kind::Embedded, Kind::Shared, Kind::Roles];
        let quick = [Kind::Embedded, Kind::Roles];
        let usual = || self.usual(every.to_vec(), quick.to_vec());
        self.options.stacks.clone().unwrap_or_else(usual)
    }

    fn usual<T>(&self, usual: T, quick: T) -> T {
        if self.options.quick { quick } else { usual }
    }
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
