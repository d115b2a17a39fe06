//! Nine healthy endpoints beside one that is not, against the same with ten healthy ones.
//!
//! An event goes to all ten. Whatever shares one pool of requests among them feels the tenth as soon as
//! that is full: at 300 events/s with answers after 25 s a pool of 1,024 is full after 3.4 s, and one
//! without a bound holds 7,500 in the end. So the loop is measured after 5 s, and for longer than one
//! of those answers takes.

use super::Measured;
use crate::bad::{BadReceiver, Fault};
use crate::event::Template;
use crate::open::Open;
use crate::options::Bench;
use crate::quantiles::Quantiles;
use crate::receiver::Receiver;
use crate::report::Report;
use crate::report::Target::AtMost;
use crate::rounds::{Case, Rounds};
use crate::stack::Stack;
use herald_tests::samples;
use serde_json::json;
use uuid::Uuid;

/// Events a second.
const RATE: u32 = 300;

/// The endpoints that are healthy in every variant.
const HEALTHY: u32 = 9;

/// How long it is run before it is measured, and is measured, in seconds.
const WARM_UP: u32 = 5;
const MEASURED: u32 = 40;

/// `TimeoutSeconds` of the tenth: longer than it hangs, so that it is slow and nothing else.
const TIMEOUT_SECONDS: u32 = 30;

pub(super) async fn measure(bench: &Bench) -> Measured {
    let cases = Case::all(bench.stacks(), &Fault::ALL);
    let rounds = Rounds::run(bench.rounds(), &cases, async |case| run(case, bench).await).await;
    let mut report = Report::new(
        format!("Pressure, {RATE} events/s to 10 endpoints: latency of the {HEALTHY} healthy ones, ms"),
        &[
            "stack",
            "the tenth",
            "p50",
            "to ten healthy",
            "p99",
            "to ten healthy",
            "longest",
        ],
    );
    for case in cases {
        let base = Case {
            variant: Fault::None,
            ..case
        };
        let p50 = rounds.against(case, base, |times| times.p50);
        let p99 = rounds.against(case, base, |times| times.p99);
        let judged = [(AtMost(1.5), &p99)];
        report.judged_row(
            [
                case.kind.to_string(),
                case.variant.to_string(),
                rounds.of(case, |times| times.p50).to_string(),
                p50.to_string(),
                rounds.of(case, |times| times.p99).to_string(),
                p99.to_string(),
                rounds.of(case, |times| times.longest).to_string(),
            ],
            if case == base { &[] } else { &judged },
        );
    }
    Measured {
        reports: vec![report],
        failures: rounds.failures().to_vec(),
    }
}

async fn run(Case { kind, variant }: Case<Fault>, bench: &Bench) -> anyhow::Result<Quantiles> {
    let company = Uuid::now_v7();
    let receiver = Receiver::start(HEALTHY, None).await?;
    let bad = BadReceiver::start(variant).await?;
    let mut stack = Stack::prepare(kind, &bench.servers, &receiver.url(0)).await;
    stack.launch().await?;
    let healthy = (0..HEALTHY).map(|subscription| samples::packets_of(company, &receiver.url(subscription)));
    let tenth = samples::packets_of(company, &bad.url());
    let tenth = samples::merged(tenth, json!({ "TimeoutSeconds": TIMEOUT_SECONDS }));
    stack.subscribe_all(healthy.chain([tenth])).await?;
    crate::arrival::settle();
    let open = Open {
        begins: None,
        rate: RATE,
        warm_up: WARM_UP,
        measured: bench.open(MEASURED),
        first: 0,
    };
    let times = open.run(&mut stack, &receiver, Template::new(company)).await?;
    stack.stop().await;
    Ok(times)
}
