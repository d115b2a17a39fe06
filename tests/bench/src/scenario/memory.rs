//! What `herald up` holds in memory: idle, and at the most under every load.

use super::Measured;
use crate::bad::{BadReceiver, Fault};
use crate::closed;
use crate::event::Template;
use crate::memory::{megabytes, peaks, resident};
use crate::open::Open;
use crate::options::Bench;
use crate::receiver::Receiver;
use crate::report::Report;
use crate::report::Target::{self, AtMost};
use crate::rounds::{Case, Rounds};
use crate::stack::{Kind, Stack};
use herald_tests::samples;
use serde_json::json;
use std::fmt;
use std::time::Duration;
use uuid::Uuid;

/// How long an idle process is left alone before its memory is read.
const SETTLED: Duration = Duration::from_secs(5);

/// Subscriptions of the wide fan-out.
const WIDE: u32 = 1_000;

/// The largest event that is accepted.
const LARGE: usize = 256 * 1024;

/// Endpoints that hang, events a second to each, and for how many seconds.
const HANGING: u32 = 9;
const RATE: u32 = 300;
const WARM_UP: u32 = 2;
const MEASURED: u32 = 30;

/// What Herald does while its memory is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Load {
    /// Nothing, with so many subscriptions.
    Idle(u32),
    /// As much as goes through, to one subscription.
    Saturation,
    /// The same to [`WIDE`] subscriptions.
    FanOut,
    /// The same as saturation, in events as large as they may be.
    LargePayloads,
    /// Most subscribers hang.
    Hanging,
}

const LOADS: [Load; 7] = [
    Load::Idle(1),
    Load::Idle(10),
    Load::Idle(1_000),
    Load::Saturation,
    Load::FanOut,
    Load::LargePayloads,
    Load::Hanging,
];

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Idle(1) => write!(f, "idle, 1 subscription"),
            Self::Idle(subscriptions) => write!(f, "idle, {subscriptions} subscriptions"),
            Self::Saturation => write!(f, "saturation"),
            Self::FanOut => write!(f, "fan-out {WIDE}"),
            Self::LargePayloads => write!(f, "saturation with events of 256 KiB"),
            Self::Hanging => write!(
                f,
                "{RATE} events/s to {HANGING} endpoints that hang and one that does not"
            ),
        }
    }
}

impl Load {
    /// In megabytes.
    fn target(self) -> Target {
        match self {
            Self::Idle(_) => AtMost(30.0),
            _ => AtMost(200.0),
        }
    }
}

/// Resident memory, in megabytes.
struct Resident(f64);

impl fmt::Display for Resident {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0} MB", self.0)
    }
}

pub(super) async fn measure(bench: &Bench) -> Measured {
    let mut kinds = bench.stacks();
    kinds.retain(|kind| *kind != Kind::Roles);
    let cases = Case::all(kinds, &LOADS);
    let rounds = Rounds::run(bench.rounds(), &cases, async |case| run(case, bench).await).await;
    let mut report = Report::new("Memory of herald up, MB", &["stack", "load", "resident"]);
    for case in cases {
        let resident = rounds.of(case, |resident| resident.0);
        let row = [case.kind.to_string(), case.variant.to_string(), resident.to_string()];
        report.judged_row(row, &[(case.variant.target(), &resident)]);
    }
    Measured {
        reports: vec![report],
        failures: rounds.failures().to_vec(),
    }
}

async fn run(Case { kind, variant }: Case<Load>, bench: &Bench) -> anyhow::Result<Resident> {
    let usual = |subscriptions| closed::Load::to(subscriptions, bench);
    let load = match variant {
        Load::Idle(subscriptions) => return idle(kind, subscriptions, bench).await,
        Load::Hanging => return hanging(kind, bench).await,
        Load::Saturation => usual(1),
        // Fewer events, because what they become, or they themselves, are many times as much.
        Load::FanOut => fewer(usual(WIDE), 100),
        Load::LargePayloads => {
            let load = fewer(usual(1), 4);
            let template = Template::padded(load.company, LARGE);
            closed::Load { template, ..load }
        }
    };
    let run = closed::fresh(kind, bench, load).await?;
    Ok(Resident(megabytes(run.peaks.iter().map(|(_, bytes)| bytes).sum())))
}

/// The same load with one event in so many.
fn fewer(load: closed::Load, divisor: usize) -> closed::Load {
    let outstanding = load.outstanding.div_ceil(divisor);
    closed::Load { outstanding, ..load }
}

async fn idle(kind: Kind, subscriptions: u32, bench: &Bench) -> anyhow::Result<Resident> {
    let mut stack = Stack::prepare(kind, &bench.servers, "").await;
    stack.launch().await?;
    let bodies = (0..subscriptions).map(|_| samples::packets_of(Uuid::now_v7(), "http://127.0.0.1:9/"));
    stack.subscribe_all(bodies).await?;
    // As it is on a day after the one on which they were made.
    stack.halt().await?;
    stack.launch().await?;
    tokio::time::sleep(SETTLED).await;
    let processes = stack.processes().into_iter();
    let resident = processes
        .map(|(_, process)| resident(process))
        .sum::<anyhow::Result<u64>>()?;
    stack.stop().await;
    Ok(Resident(megabytes(resident)))
}

async fn hanging(kind: Kind, bench: &Bench) -> anyhow::Result<Resident> {
    let company = Uuid::now_v7();
    let receiver = Receiver::start(1, None).await?;
    let hanging = BadReceiver::start(Fault::Hangs).await?;
    let mut stack = Stack::prepare(kind, &bench.servers, "").await;
    stack.launch().await?;
    let healthy = samples::packets_of(company, &receiver.url(0));
    let bad = samples::packets_of(company, &hanging.url());
    let bad = samples::merged(bad, json!({ "TimeoutSeconds": 30 }));
    let bad = (0..HANGING).map(|_| bad.clone());
    stack.subscribe_all(bad.chain([healthy])).await?;
    let open = Open {
        begins: None,
        rate: RATE,
        warm_up: WARM_UP,
        measured: bench.open(MEASURED),
        first: 0,
    };
    open.run(&mut stack, &receiver, Template::new(company)).await?;
    let resident = peaks(&stack.processes())?;
    stack.stop().await;
    Ok(Resident(megabytes(resident)))
}
