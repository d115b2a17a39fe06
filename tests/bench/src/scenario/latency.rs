//! How long a message takes while there is room, against the floor.

use super::Measured;
use crate::event::Template;
use crate::open::Open;
use crate::options::Bench;
use crate::quantiles::Quantiles;
use crate::receiver::Receiver;
use crate::report::Report;
use crate::report::Target::AtMost;
use crate::rounds::Rounds;
use crate::stack::{Kind, Stack};
use herald_tests::samples;
use std::fmt;
use uuid::Uuid;

/// Events a second; the targets are for the first.
const RATES: [u32; 2] = [50, 300];

/// How long each is run before it is measured, and is measured, in seconds.
const WARM_UP: u32 = 2;
const MEASURED: u32 = 20;

/// At each of the [`RATES`].
struct Latencies([Quantiles; RATES.len()]);

impl fmt::Display for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, second] = &self.0;
        write!(f, "{first} at {}/s, {second} at {}/s", RATES[0], RATES[1])
    }
}

pub(super) async fn measure(bench: &Bench) -> Measured {
    let kinds = [vec![Kind::Floor], bench.stacks()].concat();
    let rounds = Rounds::run(bench.rounds(), &kinds, async |kind| run(kind, bench).await).await;
    let mut report = Report::new(
        "Latency, from when an event was meant to be sent until its message had arrived, ms",
        &[
            "events/s",
            "stack",
            "p50",
            "to the floor's",
            "p99",
            "to the floor's",
            "longest",
        ],
    );
    for (place, rate) in RATES.into_iter().enumerate() {
        for kind in kinds.iter().copied() {
            let at = |figure: fn(&Quantiles) -> f64| move |run: &Latencies| run.0.get(place).map_or(f64::NAN, figure);
            let p50 = rounds.against(kind, Kind::Floor, at(|times| times.p50));
            let p99 = rounds.against(kind, Kind::Floor, at(|times| times.p99));
            let judged = [(AtMost(1.5), &p50), (AtMost(1.5), &p99)];
            let has_targets = place == 0 && kind != Kind::Floor;
            report.judged_row(
                [
                    rate.to_string(),
                    kind.to_string(),
                    rounds.of(kind, at(|times| times.p50)).to_string(),
                    p50.to_string(),
                    rounds.of(kind, at(|times| times.p99)).to_string(),
                    p99.to_string(),
                    rounds.of(kind, at(|times| times.longest)).to_string(),
                ],
                if has_targets { &judged } else { &[] },
            );
        }
    }
    Measured {
        reports: vec![report],
        failures: rounds.failures().to_vec(),
    }
}

async fn run(kind: Kind, bench: &Bench) -> anyhow::Result<Latencies> {
    let company = Uuid::now_v7();
    let receiver = Receiver::start(1, None).await?;
    let mut stack = Stack::prepare(kind, &bench.servers, &receiver.url(0)).await;
    stack.launch().await?;
    stack.subscribe(&samples::packets_of(company, &receiver.url(0))).await?;
    crate::arrival::settle();
    let at = |rate, first| Open {
        begins: None,
        rate,
        warm_up: WARM_UP,
        measured: bench.open(MEASURED),
        first,
    };
    let [one, other] = RATES;
    let low = at(one, 0);
    let high = at(other, low.count());
    let latencies = [
        low.run(&mut stack, &receiver, Template::new(company)).await?,
        high.run(&mut stack, &receiver, Template::new(company)).await?,
    ];
    stack.stop().await;
    Ok(Latencies(latencies))
}
