//! As many events as go through, each to ten subscriptions, against the floor's events to one.

use super::Measured;
use super::throughput::{CONNECTIONS, Targets, measured};
use crate::closed::{self, Load};
use crate::options::Bench;
use crate::report::Target::{AtLeast, AtMost};
use crate::rounds::Rounds;
use crate::stack::Kind;

pub(super) const SUBSCRIPTIONS: u32 = 10;

fn targets(kind: Kind) -> Targets {
    match kind {
        Kind::Floor => Targets::default(),
        Kind::Embedded | Kind::Shared | Kind::Roles => Targets {
            rate: Some(AtLeast(2.0)),
            cost: None,
            connections: Some(AtMost(CONNECTIONS)),
        },
    }
}

pub(super) async fn measure(bench: &Bench) -> Measured {
    let kinds = [vec![Kind::Floor], bench.stacks()].concat();
    let rounds = Rounds::run(bench.rounds(), &kinds, async |kind| {
        let subscriptions = if kind == Kind::Floor { 1 } else { SUBSCRIPTIONS };
        closed::fresh(kind, bench, Load::to(subscriptions, bench)).await
    })
    .await;
    let title = format!("Fan-out, {SUBSCRIPTIONS} subscriptions (the floor's is its events/s to one)");
    measured(&title, &kinds, &rounds, targets)
}
