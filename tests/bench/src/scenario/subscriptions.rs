//! Ten subscriptions against a million, where each event matches one: the million each with an object of its own, and all
//! with the same one.

use super::Measured;
use crate::closed::{Closed, Load, Throughput};
use crate::memory;
use crate::options::Bench;
use crate::report::Report;
use crate::report::Target::{AtLeast, AtMost};
use crate::rounds::{Case, Rounds};
use crate::seed::Copies;
use crate::stack::Stack;
use herald_tests::samples;
use std::fmt;
use std::time::Duration;

/// How many the few are.
const FEW: u32 = 10;

/// How long a stack is left alone before its memory is read.
const SETTLED: Duration = Duration::from_secs(5);

/// How many there are, and whether all but one have the same object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Subscriptions {
    count: u32,
    of_one_topic: bool,
}

impl Subscriptions {
    fn distinct(count: u32) -> Self {
        Self {
            count,
            of_one_topic: false,
        }
    }

    fn topics(self) -> &'static str {
        if self.of_one_topic { "one" } else { "one each" }
    }
}

impl fmt::Display for Subscriptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} subscriptions, topics: {}", self.count, self.topics())
    }
}

struct Outcome {
    /// From the start of the processes until the slowest was ready.
    ready: Duration,
    /// What each process held then, in bytes.
    resident: Vec<(&'static str, u64)>,
    throughput: Throughput,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ready = self.ready.as_secs_f64();
        write!(f, "ready after {ready:.1} s, {}", self.throughput)
    }
}

impl Outcome {
    /// Megabytes of the process at that place.
    fn memory(&self, place: usize) -> f64 {
        let process = self.resident.get(place);
        process.map_or(f64::NAN, |(_, bytes)| memory::megabytes(*bytes))
    }
}

pub(super) async fn measure(bench: &Bench) -> Measured {
    let many = bench.count();
    let [few, all] = [FEW, many].map(Subscriptions::distinct);
    let crowd = Subscriptions {
        of_one_topic: true,
        ..all
    };
    let cases = Case::all(bench.stacks(), &[few, all, crowd]);
    let rounds = Rounds::run(bench.rounds(), &cases, async |case| run(case, bench).await).await;
    let mut speed = Report::new(
        format!("{FEW} and {many} subscriptions, each event matching one"),
        &[
            "stack",
            "subscriptions",
            "topics",
            "events/s",
            "to the few",
            "ready after, s",
            "to a topic each",
        ],
    );
    let mut memory = Report::new(
        format!("Memory of {many} subscriptions"),
        &["stack", "process", "with the few, MB", "with all, MB", "bytes each"],
    );
    for kind in bench.stacks() {
        let [few, all, crowd] = [few, all, crowd].map(|variant| Case { kind, variant });
        for case in [few, all, crowd] {
            let ratio = rounds.against(case, few, |outcome| outcome.throughput.rate);
            let ready = rounds.of(case, |outcome| outcome.ready.as_secs_f64());
            let to_distinct = rounds.against(case, all, |outcome| outcome.ready.as_secs_f64());
            let judged = [
                (AtLeast(0.9), &ratio),
                (AtMost(15.0), &ready),
                (AtMost(1.1), &to_distinct),
            ];
            let judged = if case == few {
                &judged[..0]
            } else if case == all {
                &judged[..2]
            } else {
                &judged[..]
            };
            speed.judged_row(
                [
                    kind.to_string(),
                    case.variant.count.to_string(),
                    case.variant.topics().to_owned(),
                    rounds.of(case, |outcome| outcome.throughput.rate).to_string(),
                    ratio.to_string(),
                    ready.to_string(),
                    to_distinct.to_string(),
                ],
                judged,
            );
        }
        let names = rounds
            .sample(all)
            .map(|run| run.resident.as_slice())
            .unwrap_or_default();
        for (place, (name, _)) in names.iter().enumerate() {
            let each = rounds.both(all, few, |all, few| {
                (all.memory(place) - few.memory(place)) * 1e6 / f64::from(many - FEW)
            });
            memory.judged_row(
                [
                    kind.to_string(),
                    (*name).to_owned(),
                    rounds.of(few, |run| run.memory(place)).to_string(),
                    rounds.of(all, |run| run.memory(place)).to_string(),
                    each.to_string(),
                ],
                &[(AtMost(500.0), &each)],
            );
        }
    }
    Measured {
        reports: vec![speed, memory],
        failures: rounds.failures().to_vec(),
    }
}

async fn run(Case { kind, variant }: Case<Subscriptions>, bench: &Bench) -> anyhow::Result<Outcome> {
    let closed = Closed::new(Load::to(1, bench), bench.closed()).await?;
    let url = closed.receiver.url(0);
    let mut stack = Stack::prepare(kind, &bench.servers, &url).await;
    stack.launch().await?;
    let subscription = stack.subscribe(&samples::packets_of(closed.company, &url)).await?;
    stack.halt().await?;
    let copies = if variant.of_one_topic {
        Copies::OfOneObject
    } else {
        Copies::OfAnObjectEach
    };
    let ledger = stack.ledger();
    ledger
        .copy_subscription(subscription, variant.count - 1, copies)
        .await?;
    crate::arrival::settle();
    let ready = stack.launch().await?;
    tokio::time::sleep(SETTLED).await;
    let processes = stack.processes().into_iter();
    let resident = processes.map(|(name, process)| Ok((name, memory::resident(process)?)));
    let resident = resident.collect::<anyhow::Result<_>>()?;
    let throughput = closed.run(&mut stack, bench).await?;
    stack.stop().await;
    Ok(Outcome {
        ready,
        resident,
        throughput,
    })
}
