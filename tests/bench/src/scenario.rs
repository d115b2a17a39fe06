//! What is done to a stack, and what comes out of it.

use crate::cpu;
use crate::event::Template;
use crate::generator::{Generator, Schedule, Sent};
use crate::receiver::Receiver;
use crate::stack::{Kind, Stack, Subscribers};
use anyhow::{Context, ensure};
use herald_tests::services::Servers;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use uuid::Uuid;

/// How long a closed loop runs before it is measured.
const WARM_UP: Duration = Duration::from_secs(3);

/// Events a second in the open loops.
pub(crate) const RATES: [u32; 2] = [50, 300];

/// How long an open loop runs before it is measured, and is measured, in seconds.
const OPEN_LOOP: (u32, u32) = (2, 20);

/// How long nothing may arrive before what is missing is given up.
const STANDSTILL: Duration = Duration::from_secs(30);

/// A closed loop's result.
#[derive(Debug, Clone)]
pub(crate) struct Throughput {
    /// Deliveries a second.
    pub(crate) rate: f64,
    /// Microseconds of processor time a delivery, of each process and store.
    pub(crate) cpu: Vec<(&'static str, f64)>,
    /// The same of generator and receiver.
    pub(crate) load: f64,
    /// Requests that were answered with 429 or 503.
    pub(crate) refused: u64,
    /// Messages that came more than once.
    pub(crate) repeated: u64,
}

impl Throughput {
    /// Microseconds of processor time a delivery, of everything but generator and receiver.
    pub(crate) fn cost(&self) -> f64 {
        self.cpu.iter().map(|(_, cost)| cost).sum()
    }

    /// How many cores were busy with all of it: where there are more, something else was the limit.
    pub(crate) fn cores(&self) -> f64 {
        self.rate * (self.cost() + self.load) / 1e6
    }
}

/// An open loop's result: from when an event was meant to be sent until its message had arrived.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Latency {
    /// Events a second.
    pub(crate) rate: u32,
    /// The median, in milliseconds.
    pub(crate) p50: f64,
    /// Of 99 in a hundred, in milliseconds.
    pub(crate) p99: f64,
    /// The longest, in milliseconds.
    pub(crate) longest: f64,
}

/// How a closed loop is run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Loop {
    /// How many subscriptions get every event.
    pub(crate) subscriptions: u32,
    /// Their `MaxInFlight`, if not the default.
    pub(crate) max_in_flight: Option<u32>,
    /// How many events may be accepted and not yet delivered: enough that nothing waits for the
    /// generator, and few enough that accepting is not measured instead of delivering.
    pub(crate) backlog: usize,
    /// How long it is measured.
    pub(crate) measured: Duration,
}

/// A closed loop.
pub(crate) async fn throughput(kind: Kind, servers: &Servers, closed: Loop) -> anyhow::Result<Throughput> {
    let Loop {
        subscriptions,
        max_in_flight,
        backlog,
        measured,
    } = closed;
    settle();
    let company = Uuid::now_v7();
    let subscribers = Subscribers {
        company,
        count: subscriptions,
        max_in_flight,
    };
    let room = Arc::new(Semaphore::new(backlog));
    let receiver = Receiver::start(subscriptions, Some(Arc::clone(&room))).await?;
    let mut stack = Stack::start(kind, servers, &receiver, &subscribers).await?;
    let mut generator = Generator::start(stack.entrance(), Template::new(company), room, 0).await?;
    let parts = stack.parts(servers);
    tokio::time::sleep(WARM_UP).await;
    let before = Reading::take(&parts, &receiver)?;
    tokio::time::sleep(measured).await;
    let after = Reading::take(&parts, &receiver)?;
    stack.check()?;
    generator.check()?;
    let sent = generator.finish().await?;
    arrival(&mut stack, &receiver, sent.accepted).await?;
    stack.stop().await;
    Ok(after.since(&before, &parts, sent, receiver.tally().repeated))
}

/// An open loop at each of the rates, to one subscription.
pub(crate) async fn latencies(kind: Kind, servers: &Servers) -> anyhow::Result<Vec<Latency>> {
    settle();
    let company = Uuid::now_v7();
    let subscribers = Subscribers {
        company,
        count: 1,
        max_in_flight: None,
    };
    let receiver = Receiver::start(1, None).await?;
    let mut stack = Stack::start(kind, servers, &receiver, &subscribers).await?;
    let (mut latencies, mut first) = (Vec::new(), 0);
    for rate in RATES {
        let (warm_up, measured) = OPEN_LOOP;
        let (skipped, count) = (to_usize(rate * warm_up), to_usize(rate * (warm_up + measured)));
        let permits = Arc::new(Semaphore::new(0));
        let generator = Arc::clone(&permits);
        let generator = Generator::start(stack.entrance(), Template::new(company), generator, first).await?;
        let begins = Instant::now();
        let schedule = Schedule { begins, rate };
        schedule.keep(count, permits);
        all_sent(&mut stack, generator, schedule, count).await?;
        first += count;
        arrival(&mut stack, &receiver, u64::try_from(first)?).await?;
        let mut times = (skipped..count)
            .map(|position| {
                let arrived = receiver
                    .complete_at(first - count + position)
                    .context("it has arrived")?;
                Ok(arrived.duration_since(schedule.at(position)))
            })
            .collect::<anyhow::Result<Vec<_>>>()?;
        times.sort_unstable();
        latencies.push(Latency {
            rate,
            p50: percentile(&times, 50),
            p99: percentile(&times, 99),
            longest: percentile(&times, 100),
        });
    }
    stack.stop().await;
    Ok(latencies)
}

/// Has the disk write what an earlier run left to be written.
fn settle() {
    rustix::fs::sync();
}

/// Waits until the schedule is over and everything of it is accepted.
async fn all_sent(stack: &mut Stack, mut generator: Generator, schedule: Schedule, count: usize) -> anyhow::Result<()> {
    tokio::time::sleep_until(schedule.at(count).into()).await;
    let count = u64::try_from(count)?;
    let given_up = Instant::now() + STANDSTILL;
    while generator.sent().accepted < count {
        stack.check()?;
        generator.check()?;
        ensure!(
            Instant::now() < given_up,
            "only {} of {count} events are accepted",
            generator.sent().accepted
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    generator.finish().await?;
    Ok(())
}

/// Waits until all subscriptions have all events.
async fn arrival(stack: &mut Stack, receiver: &Receiver, accepted: u64) -> anyhow::Result<()> {
    let (mut last, mut moved) = (receiver.tally(), Instant::now());
    while last.complete < accepted {
        stack.check()?;
        tokio::time::sleep(Duration::from_millis(20)).await;
        let tally = receiver.tally();
        if tally.delivered > last.delivered {
            moved = Instant::now();
        }
        last = tally;
        ensure!(
            moved.elapsed() < STANDSTILL,
            "{} of {accepted} accepted events are missing, and nothing has arrived for {} s",
            accepted - last.complete,
            STANDSTILL.as_secs()
        );
    }
    ensure!(
        last.complete == accepted,
        "{} events arrived, and only {accepted} were accepted",
        last.complete
    );
    Ok(())
}

/// All counters at one time.
struct Reading {
    at: Instant,
    delivered: u64,
    parts: Vec<Duration>,
    load: Duration,
}

impl Reading {
    fn take(parts: &[(&'static str, u32)], receiver: &Receiver) -> anyhow::Result<Self> {
        Ok(Self {
            at: Instant::now(),
            delivered: receiver.tally().delivered,
            parts: parts
                .iter()
                .map(|(_, process)| cpu::of_tree(*process))
                .collect::<Result<_, _>>()?,
            load: cpu::of_this_process()?,
        })
    }

    fn since(&self, before: &Self, parts: &[(&'static str, u32)], sent: Sent, repeated: u64) -> Throughput {
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let deliveries = (self.delivered - before.delivered) as f64;
        let each = |after: Duration, before: Duration| after.saturating_sub(before).as_secs_f64() * 1e6 / deliveries;
        let times = self.parts.iter().zip(&before.parts);
        Throughput {
            rate: deliveries / (self.at - before.at).as_secs_f64(),
            cpu: parts
                .iter()
                .zip(times)
                .map(|((name, _), (after, before))| (*name, each(*after, *before)))
                .collect(),
            load: each(self.load, before.load),
            refused: sent.refused,
            repeated,
        }
    }
}

/// In milliseconds, of times in order.
fn percentile(times: &[Duration], percent: usize) -> f64 {
    let rank = (times.len() * percent).div_ceil(100).saturating_sub(1);
    times.get(rank).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
}

fn to_usize(number: u32) -> usize {
    usize::try_from(number).expect("usize has 32 bits at least")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_times_that_were_seen() {
        let times: Vec<_> = (1..=200).map(Duration::from_millis).collect();
        let seen = [50, 99, 100].map(|percent| percentile(&times, percent).round());
        assert!(
            seen.iter()
                .zip([100.0, 198.0, 200.0])
                .all(|(seen, meant)| (seen - meant).abs() < 0.5)
        );
        assert!(percentile(&[], 50).is_nan());
    }
}
