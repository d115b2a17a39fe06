//! As many events as go through, to one subscription, against the floor.

use super::Measured;
use super::throughput::{CONNECTIONS, Targets, measured};
use crate::closed::{self, Load};
use crate::options::Bench;
use crate::report::Target::{AtLeast, AtMost};
use crate::rounds::Rounds;
use crate::stack::Kind;

fn targets(kind: Kind) -> Targets {
    let (rate, cost) = match kind {
        Kind::Floor => return Targets::default(),
        Kind::Embedded => (1.3, Some(AtMost(0.9))),
        Kind::Shared => (1.0, Some(AtMost(1.2))),
        Kind::Roles => (0.9, None),
    };
    Targets {
        rate: Some(AtLeast(rate)),
        cost,
        connections: Some(AtMost(CONNECTIONS)),
    }
}

pub(super) async fn measure(bench: &Bench) -> Measured {
    let kinds = [vec![Kind::Floor], bench.stacks()].concat();
    let rounds = Rounds::run(bench.rounds(), &kinds, async |kind| {
        closed::fresh(kind, bench, Load::to(1, bench)).await
    })
    .await;
    measured("Saturation, 1 subscription", &kinds, &rounds, targets)
}
