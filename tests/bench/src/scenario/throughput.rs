//! The tables of the closed loops that are compared to the floor's.

use super::Measured;
use crate::closed::Throughput;
use crate::report::{Report, Target};
use crate::rounds::Rounds;
use crate::spread::Spread;
use crate::stack::Kind;
use std::fmt::Display;

/// How many connections may be opened a delivery, where many deliveries go to one host.
pub(super) const CONNECTIONS: f64 = 0.01;

/// What a stack's deliveries a second and processor time a delivery should be, as multiples of the
/// floor's, and how many connections it may open a delivery.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Targets {
    pub(super) rate: Option<Target>,
    pub(super) cost: Option<Target>,
    pub(super) connections: Option<Target>,
}

/// The two tables: what went through, and what each process took for it.
pub(super) fn measured(
    title: &str,
    kinds: &[Kind],
    rounds: &Rounds<Kind, Throughput>,
    targets: impl Fn(Kind) -> Targets,
) -> Measured {
    let mut totals = Report::new(
        title,
        &[
            "stack",
            "deliveries/s",
            "to the floor's",
            "CPU a delivery, µs",
            "to the floor's",
            "generator and receiver, µs",
            "cores in use",
            "connections opened a delivery",
            "in all",
            "refused",
            "repeated",
        ],
    );
    for kind in kinds.iter().copied() {
        let (rate, cost) = (
            rounds.against(kind, Kind::Floor, |run| run.rate),
            rounds.against(kind, Kind::Floor, Throughput::cost),
        );
        let connections = rounds.of(kind, |run| run.connections);
        let Targets {
            rate: rate_target,
            cost: cost_target,
            connections: connections_target,
        } = targets(kind);
        let judged = [
            rate_target.map(|target| (target, &rate)),
            cost_target.map(|target| (target, &cost)),
            connections_target.map(|target| (target, &connections)),
        ];
        let judged: Vec<_> = judged.into_iter().flatten().collect();
        totals.judged_row(
            [
                kind.to_string(),
                rounds.of(kind, |run| run.rate).to_string(),
                rate.to_string(),
                rounds.of(kind, Throughput::cost).to_string(),
                cost.to_string(),
                rounds.of(kind, |run| run.load).to_string(),
                rounds.of(kind, Throughput::cores).to_string(),
                connections.to_string(),
                in_all(kind, rounds).to_string(),
                rounds.total(kind, |run| run.refused).to_string(),
                rounds.total(kind, |run| run.repeated).to_string(),
            ],
            &judged,
        );
    }
    Measured {
        reports: vec![totals, by_process(title, kinds, rounds)],
        failures: rounds.failures().to_vec(),
    }
}

/// How many connections a run opened from its start to its end, those before it was measured included.
#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
pub(super) fn in_all<C: Copy + Ord + Display>(case: C, rounds: &Rounds<C, Throughput>) -> Spread {
    rounds.of(case, |run| run.connections_in_all as f64)
}

/// What each process of each case took.
pub(super) fn by_process<C: Copy + Ord + Display>(title: &str, cases: &[C], rounds: &Rounds<C, Throughput>) -> Report {
    let mut parts = Report::without_targets(
        format!("{title}: by process"),
        &["stack", "process", "CPU a delivery, µs"],
    );
    for case in cases.iter().copied() {
        let names = rounds.sample(case).map(|run| run.cpu.as_slice()).unwrap_or_default();
        for (place, (name, _)) in names.iter().enumerate() {
            // Every round has the same processes in the same order.
            let cost = |run: &Throughput| run.cpu.get(place).map_or(f64::NAN, |(_, cost)| *cost);
            parts.row([case.to_string(), (*name).to_owned(), rounds.of(case, cost).to_string()]);
        }
    }
    parts
}
