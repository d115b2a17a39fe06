//! Saturation and fan-out over TLS, against the floor over TLS and against fan-out in clear.

use super::Measured;
use super::fan_out::SUBSCRIPTIONS;
use super::throughput::{CONNECTIONS, by_process, in_all};
use crate::closed::{self, Load, Throughput};
use crate::options::Bench;
use crate::report::Report;
use crate::report::Target::{AtLeast, AtMost};
use crate::rounds::{Case, Rounds};
use crate::stack::Kind;
use crate::transport::Transport;
use std::fmt;

/// To how many subscriptions, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Way {
    subscriptions: u32,
    transport: Transport,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} over {}", self.subscriptions, self.transport)
    }
}

impl Way {
    const fn new(subscriptions: u32, transport: Transport) -> Self {
        Self {
            subscriptions,
            transport,
        }
    }
}

/// What the floor does.
const FLOOR: [Way; 2] = [Way::new(1, Transport::Tls), Way::new(1, Transport::TlsHttp2)];

/// The ways in which Herald sends.
const HERALD: [Way; 5] = [
    FLOOR[0],
    FLOOR[1],
    Way::new(SUBSCRIPTIONS, Transport::Http),
    Way::new(SUBSCRIPTIONS, Transport::Tls),
    Way::new(SUBSCRIPTIONS, Transport::TlsHttp2),
];

/// The floor's case that a case is compared to: over the same transport, to one subscription.
fn floor(case: Case<Way>) -> Case<Way> {
    Case {
        kind: Kind::Floor,
        variant: Way::new(1, case.variant.transport),
    }
}

/// The case that differs in its transport alone, which is HTTP in clear.
fn in_clear(case: Case<Way>) -> Case<Way> {
    Case {
        variant: Way::new(case.variant.subscriptions, Transport::Http),
        ..case
    }
}

pub(super) async fn measure(bench: &Bench) -> Measured {
    let cases = [Case::all([Kind::Floor], &FLOOR), Case::all(bench.stacks(), &HERALD)].concat();
    let rounds = Rounds::run(bench.rounds(), &cases, async |Case { kind, variant }| {
        let load = Load {
            transport: variant.transport,
            ..Load::to(variant.subscriptions, bench)
        };
        closed::fresh(kind, bench, load).await
    })
    .await;
    let title = format!("TLS, 1 and {SUBSCRIPTIONS} subscriptions (the floor's is its events/s to one)");
    Measured {
        reports: vec![totals(&title, &cases, &rounds), by_process(&title, &cases, &rounds)],
        failures: rounds.failures().to_vec(),
    }
}

fn totals(title: &str, cases: &[Case<Way>], rounds: &Rounds<Case<Way>, Throughput>) -> Report {
    let mut totals = Report::new(
        title,
        &[
            "stack",
            "subscriptions",
            "transport",
            "deliveries/s",
            "to the floor's over the same",
            "to HTTP's",
            "CPU a delivery, µs",
            "to the floor's over the same",
            "generator and receiver, µs",
            "over HTTP/2",
            "connections opened a delivery",
            "in all",
            "repeated",
        ],
    );
    for case in cases.iter().copied() {
        let Way {
            subscriptions,
            transport,
        } = case.variant;
        let to_http = rounds.against(case, in_clear(case), |run| run.rate);
        let connections = rounds.of(case, |run| run.connections);
        let speed = (subscriptions > 1 && transport != Transport::Http).then_some((AtLeast(0.75), &to_http));
        let reuse = (case.kind != Kind::Floor).then_some((AtMost(CONNECTIONS), &connections));
        let judged: Vec<_> = speed.into_iter().chain(reuse).collect();
        totals.judged_row(
            [
                case.kind.to_string(),
                subscriptions.to_string(),
                transport.to_string(),
                rounds.of(case, |run| run.rate).to_string(),
                rounds.against(case, floor(case), |run| run.rate).to_string(),
                to_http.to_string(),
                rounds.of(case, Throughput::cost).to_string(),
                rounds.against(case, floor(case), Throughput::cost).to_string(),
                rounds.of(case, |run| run.load).to_string(),
                rounds.of(case, |run| run.over_http2).to_string(),
                connections.to_string(),
                in_all(case, rounds).to_string(),
                rounds.total(case, |run| run.repeated).to_string(),
            ],
            &judged,
        );
    }
    totals
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_over_tls_has_a_floor_and_each_fan_out_one_in_clear() {
        for kind in [Kind::Embedded, Kind::Shared, Kind::Roles] {
            let all = Case::all([kind], &HERALD);
            for case in all.iter().copied() {
                let variant = case.variant;
                let over_tls = variant.transport != Transport::Http;
                assert_eq!(FLOOR.contains(&floor(case).variant), over_tls, "{case}");
                assert_eq!(all.contains(&in_clear(case)), variant.subscriptions > 1, "{case}");
            }
        }
    }
}
