//! As many events as go through, to one subscription, against the floor.

use super::Measured;
use super::throughput::{Targets, measured};
use crate::closed;
use crate::options::Bench;
use crate::report::Target::{AtLeast, AtMost};
use crate::rounds::Rounds;
use crate::stack::Kind;

fn targets(kind: Kind) -> Targets {
    match kind {
        Kind::Floor => Targets::default(),
        Kind::Embedded => Targets {
            rate: Some(AtLeast(1.0)),
            cost: None,
        },
        Kind::Shared => Targets {
            rate: Some(AtLeast(0.8)),
            cost: Some(AtMost(1.3)),
        },
        Kind::Roles => Targets {
            rate: Some(AtLeast(0.7)),
            cost: None,
        },
    }
}

pub(super) async fn measure(bench: &Bench) -> Measured {
    let kinds = [vec![Kind::Floor], bench.stacks()].concat();
    let rounds = Rounds::run(bench.rounds(), &kinds, async |kind| {
        closed::fresh(kind, bench, 1, bench.outstanding()).await
    })
    .await;
    measured("Saturation, 1 subscription", &kinds, &rounds, targets)
}
