//! A million events in RabbitMQ while no worker runs; then the workers start.
//!
//! It is compared to saturation of the same round, on a stack of its own.

use super::Measured;
use crate::arrival::{arrival_seen, settle};
use crate::closed::{self, Load, Throughput};
use crate::event::Template;
use crate::generator::Generator;
use crate::memory::{Watch, megabytes, peak};
use crate::options::Bench;
use crate::receiver::Receiver;
use crate::report::Report;
use crate::report::Target::{AtLeast, AtMost};
use crate::rounds::Rounds;
use crate::stack::{FRONT, Kind, Stack, WORKERS};
use crate::to_usize;
use anyhow::{Context, ensure};
use herald_tests::samples;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use uuid::Uuid;

struct Outcome {
    /// What the same stack does with the generator at work.
    saturation: Throughput,
    drain: Drain,
}

struct Drain {
    /// Deliveries a second.
    rate: f64,
    /// From the start of the workers until all had arrived.
    whole: Duration,
    repeated: u64,
    processes: Vec<ProcessMemory>,
}

/// The memory of a process while it drains.
struct ProcessMemory {
    name: &'static str,
    /// The most, in megabytes.
    most: f64,
    /// The most of the second half as a multiple of the first's.
    growth: f64,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, drain {:.0} /s", self.saturation, self.drain.rate)
    }
}

impl Outcome {
    /// A figure of a process, wherever it stands in the order.
    fn of(&self, name: &str, figure: fn(&ProcessMemory) -> f64) -> f64 {
        let mut processes = self.drain.processes.iter();
        processes.find(|process| process.name == name).map_or(f64::NAN, figure)
    }

    fn most_at_saturation(&self, name: &str) -> f64 {
        let mut peaks = self.saturation.peaks.iter();
        let found = peaks.find(|(process, _)| *process == name);
        found.map_or(f64::NAN, |(_, bytes)| megabytes(*bytes))
    }
}

pub(super) async fn measure(bench: &Bench) -> Measured {
    // Only those with a broker can have a backlog in it.
    let mut kinds = bench.stacks();
    kinds.retain(|kind| *kind != Kind::Embedded);
    let rounds = Rounds::run(bench.rounds(), &kinds, async |kind| run(kind, bench).await).await;
    let mut speed = Report::new(
        format!("A backlog of {} events in RabbitMQ", bench.count()),
        &[
            "stack",
            "saturation, /s",
            "drain, /s",
            "to saturation's",
            "whole drain, s",
            "repeated",
        ],
    );
    let mut memory = Report::new(
        "Memory while it drains",
        &[
            "stack",
            "process",
            "most at saturation, MB",
            "most, MB",
            "second half to first",
        ],
    );
    for kind in kinds {
        let ratio = rounds.of(kind, |run| run.drain.rate / run.saturation.rate);
        // Of all rounds: one repetition in one of them is one too many.
        let repeated = rounds.total(kind, |run| run.drain.repeated);
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let repeated_figure = std::iter::once(repeated as f64).collect();
        speed.judged_row(
            [
                kind.to_string(),
                rounds.of(kind, |run| run.saturation.rate).to_string(),
                rounds.of(kind, |run| run.drain.rate).to_string(),
                ratio.to_string(),
                rounds.of(kind, |run| run.drain.whole.as_secs_f64()).to_string(),
                repeated.to_string(),
            ],
            &[(AtLeast(1.0), &ratio), (AtMost(0.0), &repeated_figure)],
        );
        let processes = rounds.sample(kind).map(|run| run.drain.processes.as_slice());
        for ProcessMemory { name, .. } in processes.unwrap_or_default() {
            let growth = rounds.of(kind, |run| run.of(name, |process| process.growth));
            memory.judged_row(
                [
                    kind.to_string(),
                    (*name).to_owned(),
                    rounds.of(kind, |run| run.most_at_saturation(name)).to_string(),
                    rounds.of(kind, |run| run.of(name, |process| process.most)).to_string(),
                    growth.to_string(),
                ],
                // What the issue calls flat.
                &[(AtMost(1.1), &growth)],
            );
        }
    }
    Measured {
        reports: vec![speed, memory],
        failures: rounds.failures().to_vec(),
    }
}

async fn run(kind: Kind, bench: &Bench) -> anyhow::Result<Outcome> {
    Ok(Outcome {
        saturation: closed::fresh(kind, bench, Load::to(1, bench)).await?,
        drain: drain(kind, bench).await?,
    })
}

async fn drain(kind: Kind, bench: &Bench) -> anyhow::Result<Drain> {
    let company = Uuid::now_v7();
    let receiver = Receiver::start(1, None).await?;
    let mut stack = Stack::prepare(kind, &bench.servers, "").await;
    stack.launch_only(&FRONT).await?;
    stack.subscribe(&samples::packets_of(company, &receiver.url(0))).await?;
    fill(&mut stack, Template::new(company), bench.count()).await?;
    ensure!(receiver.tally().delivered == 0, "something delivers without a worker");
    settle();
    let began = Instant::now();
    if kind == Kind::Roles {
        stack.launch_only(&WORKERS).await?;
    } else {
        stack.halt().await?;
        stack.launch().await?;
    }
    let processes = stack.processes();
    let watches: Vec<_> = processes.iter().map(|(_, process)| Watch::start(*process)).collect();
    let count = u64::from(bench.count());
    let mut progress = Progress::new(count);
    arrival_seen(&mut stack, &receiver, count, |complete| {
        progress.see(complete, Instant::now());
    })
    .await?;
    let whole = began.elapsed();
    let memory = watches.into_iter().zip(processes).map(|(watch, (name, process))| {
        Ok(ProcessMemory {
            name,
            most: megabytes(peak(process)?),
            growth: watch.end().growth(),
        })
    });
    let processes = memory.collect::<anyhow::Result<_>>()?;
    stack.stop().await;
    Ok(Drain {
        rate: progress.rate().context("it was over at once")?,
        whole,
        repeated: receiver.tally().repeated,
        processes,
    })
}

/// Publishes so many events.
async fn fill(stack: &mut Stack, template: Template, count: u32) -> anyhow::Result<()> {
    let permits = Arc::new(Semaphore::new(to_usize(count)));
    let mut generator = Generator::start(stack.entrance()?, template, permits, 0).await?;
    while generator.sent().accepted < u64::from(count) {
        stack.check()?;
        generator.check()?;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    generator.finish().await?;
    Ok(())
}

/// When a twentieth had arrived and when all but a twentieth had: between them the start and the end do
/// not count.
#[derive(Debug)]
struct Progress {
    count: u64,
    from: Option<(u64, Instant)>,
    until: Option<(u64, Instant)>,
}

impl Progress {
    fn new(count: u64) -> Self {
        Self {
            count,
            from: None,
            until: None,
        }
    }

    fn see(&mut self, complete: u64, at: Instant) {
        let margin = self.count / 20;
        if self.from.is_none() && complete >= margin {
            self.from = Some((complete, at));
        }
        if self.until.is_none() && complete >= self.count - margin {
            self.until = Some((complete, at));
        }
    }

    /// Events a second.
    fn rate(&self) -> Option<f64> {
        let ((first, from), (last, until)) = (self.from?, self.until?);
        let seconds = until.checked_duration_since(from)?.as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let events = (last - first) as f64;
        (seconds > 0.0).then_some(events / seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_middle() {
        let (began, mut progress) = (Instant::now(), Progress::new(1_000));
        for (second, complete) in [(0, 0), (5, 40), (6, 60), (10, 500), (14, 940), (15, 960), (60, 1_000)] {
            progress.see(complete, began + Duration::from_secs(second));
        }
        assert_eq!(progress.rate(), Some(100.0));
        let mut at_once = Progress::new(1_000);
        at_once.see(1_000, began);
        assert_eq!(at_once.rate(), None);
    }
}
