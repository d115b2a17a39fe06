//! As many events as go through, each to ten subscriptions, against the floor's events to one.

use super::Measured;
use super::throughput::{Targets, measured};
use crate::closed;
use crate::options::Bench;
use crate::report::Target::AtLeast;
use crate::rounds::Rounds;
use crate::stack::Kind;

const SUBSCRIPTIONS: u32 = 10;

fn targets(kind: Kind) -> Targets {
    Targets {
        rate: (kind != Kind::Floor).then_some(AtLeast(1.6)),
        cost: None,
    }
}

pub(super) async fn measure(bench: &Bench) -> Measured {
    let kinds = [vec![Kind::Floor], bench.stacks()].concat();
    let rounds = Rounds::run(bench.rounds(), &kinds, async |kind| {
        let subscriptions = if kind == Kind::Floor { 1 } else { SUBSCRIPTIONS };
        closed::fresh(kind, bench, subscriptions, bench.outstanding()).await
    })
    .await;
    let title = format!("Fan-out, {SUBSCRIPTIONS} subscriptions (the floor's is its events/s to one)");
    measured(&title, &kinds, &rounds, targets)
}
