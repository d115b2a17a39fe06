//! Ten subscriptions against a million, where each event matches one.

use super::Measured;
use crate::closed::{Closed, Load, Throughput};
use crate::memory;
use crate::options::Bench;
use crate::report::Report;
use crate::report::Target::{AtLeast, AtMost};
use crate::rounds::{Case, Rounds};
use crate::stack::Stack;
use herald_tests::samples;
use std::fmt;
use std::time::Duration;

/// How many the few are.
const FEW: u32 = 10;

/// How long a stack is left alone before its memory is read.
const SETTLED: Duration = Duration::from_secs(5);

/// How many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Subscriptions(u32);

impl fmt::Display for Subscriptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} subscriptions", self.0)
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
    let cases = Case::all(bench.stacks(), &[Subscriptions(FEW), Subscriptions(many)]);
    let rounds = Rounds::run(bench.rounds(), &cases, async |case| run(case, bench).await).await;
    let mut speed = Report::new(
        format!("{FEW} and {many} subscriptions, each event matching one"),
        &["stack", "subscriptions", "events/s", "to the few", "ready after, s"],
    );
    let mut memory = Report::new(
        format!("Memory of {many} subscriptions"),
        &["stack", "process", "with the few, MB", "with all, MB", "bytes each"],
    );
    for kind in bench.stacks() {
        let [few, all] = [FEW, many].map(|count| Case {
            kind,
            variant: Subscriptions(count),
        });
        for case in [few, all] {
            let ratio = rounds.against(case, few, |outcome| outcome.throughput.rate);
            let ready = rounds.of(case, |outcome| outcome.ready.as_secs_f64());
            let judged = [(AtLeast(0.9), &ratio), (AtMost(15.0), &ready)];
            speed.judged_row(
                [
                    kind.to_string(),
                    case.variant.0.to_string(),
                    rounds.of(case, |outcome| outcome.throughput.rate).to_string(),
                    ratio.to_string(),
                    ready.to_string(),
                ],
                if case == few { &[] } else { &judged },
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
    stack.ledger().copy_subscription(subscription, variant.0 - 1).await?;
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
