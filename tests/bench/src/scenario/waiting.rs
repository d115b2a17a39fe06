//! An empty ledger against one in which a dead subscriber has a million open deliveries.
//!
//! First they are due in an hour and lie there while as many events as go through are sent to another
//! subscription. Then they all fall due at once, while that other one gets little.

use super::Measured;
use crate::closed::{Closed, Load, Throughput};
use crate::event::Template;
use crate::open::Open;
use crate::options::Bench;
use crate::quantiles::Quantiles;
use crate::receiver::Receiver;
use crate::report::Report;
use crate::report::Target::{AtLeast, AtMost};
use crate::rounds::{Case, Rounds};
use crate::seed::{Due, Waiting};
use crate::stack::Stack;
use anyhow::Context;
use herald_tests::binary::free_port;
use herald_tests::samples;
use std::fmt;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Events a second beside those that fall due.
const RATE: u32 = 50;

/// How long they are sent before the others fall due, and are measured from then on, in seconds.
const WARM_UP: u32 = 2;
const MEASURED: u32 = 30;

/// When those are due that are to lie still.
const HOUR: Duration = Duration::from_hours(1);

/// How long the first attempt of the one delivery may take that all others are copies of.
const FIRST_ATTEMPT: Duration = Duration::from_secs(30);

/// How many wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Count(u32);

const EMPTY: Count = Count(0);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} waiting", self.0)
    }
}

pub(super) async fn measure(bench: &Bench) -> Measured {
    let cases = Case::all(bench.stacks(), &[EMPTY, Count(bench.count())]);
    let still = lying_still(&cases, bench).await;
    let due = falling_due(&cases, bench).await;
    Measured {
        reports: [still.reports, due.reports].concat(),
        failures: [still.failures, due.failures].concat(),
    }
}

async fn lying_still(cases: &[Case<Count>], bench: &Bench) -> Measured {
    let rounds = Rounds::run(bench.rounds(), cases, async |case| saturation(case, bench).await).await;
    let mut report = Report::new(
        "Open deliveries of a dead subscriber, due in an hour: saturation beside them",
        &["stack", "open deliveries", "events/s", "to the empty ledger's"],
    );
    for case in cases.iter().copied() {
        let empty = Case { variant: EMPTY, ..case };
        let ratio = rounds.against(case, empty, |run| run.rate);
        let judged = [(AtLeast(0.9), &ratio)];
        report.judged_row(
            [
                case.kind.to_string(),
                case.variant.0.to_string(),
                rounds.of(case, |run| run.rate).to_string(),
                ratio.to_string(),
            ],
            if case == empty { &[] } else { &judged },
        );
    }
    Measured {
        reports: vec![report],
        failures: rounds.failures().to_vec(),
    }
}

async fn falling_due(cases: &[Case<Count>], bench: &Bench) -> Measured {
    let rounds = Rounds::run(bench.rounds(), cases, async |case| fresh(case, bench).await).await;
    let mut report = Report::new(
        format!("The same, falling due at once: latency of {RATE} events/s beside them, ms"),
        &[
            "stack",
            "open deliveries",
            "p50",
            "to the empty ledger's",
            "p99",
            "to the empty ledger's",
            "longest",
        ],
    );
    for case in cases.iter().copied() {
        let empty = Case { variant: EMPTY, ..case };
        let p50 = rounds.against(case, empty, |times| times.p50);
        let p99 = rounds.against(case, empty, |times| times.p99);
        let judged = [(AtMost(2.0), &p99)];
        report.judged_row(
            [
                case.kind.to_string(),
                case.variant.0.to_string(),
                rounds.of(case, |times| times.p50).to_string(),
                p50.to_string(),
                rounds.of(case, |times| times.p99).to_string(),
                p99.to_string(),
                rounds.of(case, |times| times.longest).to_string(),
            ],
            if case == empty { &[] } else { &judged },
        );
    }
    Measured {
        reports: vec![report],
        failures: rounds.failures().to_vec(),
    }
}

/// As many events as go through; what waits is due in an hour.
async fn saturation(Case { kind, variant }: Case<Count>, bench: &Bench) -> anyhow::Result<Throughput> {
    let closed = Closed::new(Load::to(1, bench), bench.closed()).await?;
    let mut stack = Stack::prepare(kind, &bench.servers, "").await;
    seed(&mut stack, &closed.receiver, closed.company, variant, HOUR).await?;
    stack.launch().await?;
    let throughput = closed.run(&mut stack, bench).await?;
    stack.stop().await;
    Ok(throughput)
}

/// A few events; what waits falls due at once.
async fn fresh(Case { kind, variant }: Case<Count>, bench: &Bench) -> anyhow::Result<Quantiles> {
    let company = Uuid::now_v7();
    let receiver = Receiver::start(1, None).await?;
    let mut stack = Stack::prepare(kind, &bench.servers, "").await;
    // Time for the rows to be written, and for the start.
    let delay = Duration::from_secs(15 + u64::from(variant.0 / 10_000));
    let due = seed(&mut stack, &receiver, company, variant, delay).await?;
    stack.launch().await?;
    let begins = due.at.checked_sub(Duration::from_secs(WARM_UP.into()));
    let begins = begins.context("the machine has just started")?;
    tokio::time::sleep_until(begins.into()).await;
    let open = Open {
        begins: Some(begins),
        rate: RATE,
        warm_up: WARM_UP,
        measured: bench.open(MEASURED),
        first: 0,
    };
    let times = open.run(&mut stack, &receiver, Template::new(company)).await?;
    stack.stop().await;
    Ok(times)
}

/// Makes the subscription of the receiver and the dead one, and what waits for the dead one, and ends the
/// stack.
async fn seed(
    stack: &mut Stack,
    receiver: &Receiver,
    company: Uuid,
    count: Count,
    delay: Duration,
) -> anyhow::Result<Due> {
    stack.launch().await?;
    stack.subscribe(&samples::packets_of(company, &receiver.url(0))).await?;
    let one = one_waiting(stack).await?;
    stack.halt().await?;
    let due = if count == EMPTY {
        Due::after(delay)
    } else {
        stack.ledger().copy_delivery(one, count.0, delay).await?
    };
    crate::arrival::settle();
    Ok(due)
}

/// A delivery to nobody, after its first attempt.
async fn one_waiting(stack: &Stack) -> anyhow::Result<Waiting> {
    let company = Uuid::now_v7();
    // Where nobody listens.
    let dead = format!("http://127.0.0.1:{}/", free_port());
    let subscription = stack.subscribe(&samples::packets_of(company, &dead)).await?;
    let api = stack.api()?;
    let event = api.publish(&samples::packet_of(company)).await;
    let path = format!("/v1/deliveries?Subscription={subscription}");
    let given_up = Instant::now() + FIRST_ATTEMPT;
    loop {
        let deliveries = api.get(&path).await.json();
        let delivery = &deliveries["Items"][0];
        if delivery["AttemptCount"].as_u64() > Some(0) {
            let id = delivery["Id"].as_str().context("deliveries have an Id")?;
            return Ok(Waiting {
                delivery: id.parse()?,
                event: event.parse()?,
            });
        }
        anyhow::ensure!(Instant::now() < given_up, "no attempt was made: {delivery}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
