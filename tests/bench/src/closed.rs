//! The closed loop: as many events as go through, and what they cost.

use crate::arrival::{arrival, settle};
use crate::event::Template;
use crate::generator::{Generator, Sent};
use crate::options::Bench;
use crate::receiver::{Receiver, Tally};
use crate::stack::{Kind, Stack};
use crate::transport::Transport;
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

/// The result of a closed loop.
#[derive(Debug, Clone)]
pub(crate) struct Throughput {
    /// Deliveries a second.
    pub(crate) rate: f64,
    /// Microseconds of processor time a delivery, of each process and store.
    pub(crate) cpu: Vec<(&'static str, f64)>,
    /// The same of generator and receiver.
    pub(crate) load: f64,
    /// Connections that the receiver accepted, a delivery.
    pub(crate) connections: f64,
    /// All that it accepted, from the start to the last arrival.
    pub(crate) connections_in_all: u64,
    /// How much of the deliveries came over HTTP/2, from 0 to 1.
    pub(crate) over_http2: f64,
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

/// What a closed loop sends, and to whom.
#[derive(Debug)]
pub(crate) struct Load {
    /// Whose packets they are.
    pub(crate) company: Uuid,
    pub(crate) template: Template,
    /// How many subscriptions each event goes to.
    pub(crate) subscriptions: u32,
    /// How many events may be accepted and not yet delivered.
    pub(crate) outstanding: usize,
    /// How messages reach the subscribers.
    pub(crate) transport: Transport,
}

impl Load {
    /// Usual events of a new company, to so many subscriptions, in clear.
    pub(crate) fn to(subscriptions: u32, bench: &Bench) -> Self {
        let company = Uuid::now_v7();
        Self {
            company,
            template: Template::new(company),
            subscriptions,
            outstanding: bench.outstanding(),
            transport: Transport::Http,
        }
    }
}

/// A closed loop about to be run.
#[derive(Debug)]
pub(crate) struct Closed {
    pub(crate) receiver: Receiver,
    /// Whose packets it sends.
    pub(crate) company: Uuid,
    template: Template,
    room: Arc<Semaphore>,
    measured: Duration,
}

impl Closed {
    /// With that load, measured for so long.
    pub(crate) async fn new(load: Load, measured: Duration) -> anyhow::Result<Self> {
        let room = Arc::new(Semaphore::new(load.outstanding));
        Ok(Self {
            receiver: Receiver::start_over(load.transport, load.subscriptions, Some(Arc::clone(&room))).await?,
            company: load.company,
            template: load.template,
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
        Ok(after.since(&before, &parts, sent, receiver.tally(), peaks))
    }
}

/// Starts a stack, makes the subscriptions, and runs a closed loop of that load.
pub(crate) async fn fresh(kind: Kind, bench: &Bench, load: Load) -> anyhow::Result<Throughput> {
    let subscriptions = load.subscriptions;
    let closed = Closed::new(load, bench.closed()).await?;
    let mut stack = Stack::prepare(kind, &bench.servers, &closed.receiver.url(0)).await;
    if let Some(authority) = closed.receiver.authority() {
        stack.trust(authority);
    }
    stack.launch().await?;
    let limit = bench.max_in_flight().map(|limit| json!({ "MaxInFlight": limit }));
    let limit = limit.unwrap_or_else(|| json!({}));
    let bodies = (0..subscriptions).map(|subscription| {
        let body = samples::packets_of(closed.company, &closed.receiver.url(subscription));
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
    tally: Tally,
    parts: Vec<Duration>,
    load: Duration,
}

impl Reading {
    fn take(parts: &[(&'static str, u32)], receiver: &Receiver) -> anyhow::Result<Self> {
        Ok(Self {
            at: Instant::now(),
            tally: receiver.tally(),
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
        whole: Tally,
        peaks: Vec<(&'static str, u64)>,
    ) -> Throughput {
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let counted = |count: fn(&Tally) -> u64| (count(&self.tally) - count(&before.tally)) as f64;
        let deliveries = counted(|tally| tally.delivered);
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
            connections: counted(|tally| tally.connections) / deliveries,
            connections_in_all: whole.connections,
            over_http2: counted(|tally| tally.over_http2) / deliveries,
            refused: sent.refused,
            repeated: whole.repeated,
            peaks,
        }
    }
}
