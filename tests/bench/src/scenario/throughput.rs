//! The tables of the closed loops that are compared to the floor's.

use super::Measured;
use crate::closed::Throughput;
use crate::report::{Report, Target};
use crate::rounds::Rounds;
use crate::stack::Kind;

/// What a stack's deliveries a second and processor time a delivery should be, as multiples of the
/// floor's.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Targets {
    pub(super) rate: Option<Target>,
    pub(super) cost: Option<Target>,
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
            "refused",
            "repeated",
        ],
    );
    let mut parts = Report::without_targets(
        format!("{title}: by process"),
        &["stack", "process", "CPU a delivery, µs"],
    );
    for kind in kinds.iter().copied() {
        let (rate, cost) = (
            rounds.against(kind, Kind::Floor, |run| run.rate),
            rounds.against(kind, Kind::Floor, Throughput::cost),
        );
        let Targets {
            rate: rate_target,
            cost: cost_target,
        } = targets(kind);
        let judged = [
            rate_target.map(|target| (target, &rate)),
            cost_target.map(|target| (target, &cost)),
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
                rounds.total(kind, |run| run.refused).to_string(),
                rounds.total(kind, |run| run.repeated).to_string(),
            ],
            &judged,
        );
        let names = rounds.sample(kind).map(|run| run.cpu.as_slice()).unwrap_or_default();
        for (place, (name, _)) in names.iter().enumerate() {
            // Every round has the same processes in the same order.
            let cost = |run: &Throughput| run.cpu.get(place).map_or(f64::NAN, |(_, cost)| *cost);
            parts.row([kind.to_string(), (*name).to_owned(), rounds.of(kind, cost).to_string()]);
        }
    }
    Measured {
        reports: vec![totals, parts],
        failures: rounds.failures().to_vec(),
    }
}
