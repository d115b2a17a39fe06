//! The closed loop: as many events as go through, and what they cost.

use crate::arrival::{arrival, settle};
use crate::event::Template;
use crate::generator::{Generator, Sent};
use crate::options::Bench;
use crate::receiver::Receiver;
use crate::stack::{Kind, Stack};
use crate::{cpu, memory};
use herald_tests::samples;
use serde_json::json;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use uuid::Uuid;

/// How long it runs before it is measured.
const WARM_UP: Duration = Duration::from_secs(3);

/// Its result.
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
    /// The most memory that each of the stack's own processes has held since its start, in bytes.
    pub(crate) peaks: Vec<(&'static str, u64)>,
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

impl fmt::Display for Throughput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0} deliveries/s", self.rate)
    }
}

/// A closed loop about to be run.
#[derive(Debug)]
pub(crate) struct Closed {
    /// The subscribers.
    pub(crate) receiver: Receiver,
    template: Template,
    room: Arc<Semaphore>,
    measured: Duration,
}

impl Closed {
    /// With events of that template, to so many subscriptions, of which `outstanding` may be accepted and
    /// not yet delivered.
    pub(crate) async fn new(
        template: Template,
        subscriptions: u32,
        outstanding: usize,
        measured: Duration,
    ) -> anyhow::Result<Self> {
        let room = Arc::new(Semaphore::new(outstanding));
        Ok(Self {
            receiver: Receiver::start(subscriptions, Some(Arc::clone(&room))).await?,
            template,
            room,
            measured,
        })
    }

    /// Runs it on a stack that has its subscriptions, until everything has arrived.
    pub(crate) async fn run(self, stack: &mut Stack, bench: &Bench) -> anyhow::Result<Throughput> {
        settle();
        let receiver = &self.receiver;
        let mut generator = Generator::start(stack.entrance()?, self.template, self.room, 0).await?;
        let parts = stack.parts(&bench.servers);
        tokio::time::sleep(WARM_UP).await;
        let before = Reading::take(&parts, receiver)?;
        tokio::time::sleep(self.measured).await;
        let after = Reading::take(&parts, receiver)?;
        stack.check()?;
        generator.check()?;
        let sent = generator.finish().await?;
        arrival(stack, receiver, sent.accepted).await?;
        let peaks = stack.processes().into_iter();
        let peaks = peaks.map(|(name, process)| Ok((name, memory::peak(process)?)));
        let peaks = peaks.collect::<anyhow::Result<_>>()?;
        Ok(after.since(&before, &parts, sent, receiver.tally().repeated, peaks))
    }
}

/// Starts a stack, makes the subscriptions, and runs a closed loop of so many events outstanding.
pub(crate) async fn fresh(
    kind: Kind,
    bench: &Bench,
    subscriptions: u32,
    outstanding: usize,
) -> anyhow::Result<Throughput> {
    let company = Uuid::now_v7();
    with_events(kind, bench, company, Template::new(company), subscriptions, outstanding).await
}

/// [`fresh`], with events of that template.
pub(crate) async fn with_events(
    kind: Kind,
    bench: &Bench,
    company: Uuid,
    template: Template,
    subscriptions: u32,
    outstanding: usize,
) -> anyhow::Result<Throughput> {
    let closed = Closed::new(template, subscriptions, outstanding, bench.closed()).await?;
    let mut stack = Stack::prepare(kind, &bench.servers, &closed.receiver.url(0)).await;
    stack.launch().await?;
    let limit = bench.max_in_flight().map(|limit| json!({ "MaxInFlight": limit }));
    let limit = limit.unwrap_or_else(|| json!({}));
    let bodies = (0..subscriptions).map(|subscription| {
        let body = samples::packets_of(company, &closed.receiver.url(subscription));
        samples::merged(body, limit.clone())
    });
    stack.subscribe_all(bodies).await?;
    let throughput = closed.run(&mut stack, bench).await?;
    stack.stop().await;
    Ok(throughput)
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

    fn since(
        &self,
        before: &Self,
        parts: &[(&'static str, u32)],
        sent: Sent,
        repeated: u64,
        peaks: Vec<(&'static str, u64)>,
    ) -> Throughput {
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
            peaks,
        }
    }
}
