//! How fast Herald is, against a pipeline that does as little as one can.
//!
//! `cargo run --release -p herald-bench -- [--rounds N] [--seconds N] [--scenario …] [--stacks …]`
//!
//! Generator, stack, stores and receiver share the machine, so an absolute number says little about
//! another one. What counts is the ratio to the floor of the same round; the stacks of a round run one
//! after the other, and every second round the other way round, so that what else the machine does
//! falls on all of them.
//!
//! | module | what it is |
//! |---|---|
//! | [`floor`] | what everything is compared to |
//! | [`stack`] | the floor and Herald's forms, started fresh for each run |
//! | [`scenario`] | closed and open loops, and what is read off them |
//! | [`generator`] | the producer |
//! | [`receiver`] | the subscribers |
//! | [`event`] | events that are cheap to make |
//! | [`cpu`] | processor time of process trees |
//! | [`table`], [`machine`] | what is printed |

mod cpu;
mod event;
mod floor;
mod generator;
mod machine;
mod receiver;
mod scenario;
mod stack;
mod table;

use clap::{Parser, Subcommand, ValueEnum};
use herald_tests::services::Servers;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use scenario::{Latency, Loop, Throughput};
use stack::Kind;
use std::time::Duration;
use table::Results;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Subscriptions of the fan-out.
const MANY: u32 = 10;

/// Measures Herald against a pipeline that does as little as one can, and prints tables. The binary
/// under test is the one that `HERALD_BIN` names, else the one beside this one.
#[derive(Debug, Parser)]
#[command(name = "bench", args_conflicts_with_subcommands = true)]
struct Arguments {
    /// How often everything is measured
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// How long each closed loop is measured
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// How many events may be accepted and not yet delivered in a closed loop
    #[arg(long, default_value_t = 4_000)]
    backlog: usize,
    /// `MaxInFlight` of each subscription in a closed loop, instead of Herald's default; the floor has 500
    #[arg(long)]
    max_in_flight: Option<u32>,
    /// What is done
    #[arg(long, value_enum, default_value = "all")]
    scenario: Scenario,
    /// The forms of Herald, beside the floor
    #[arg(long, value_enum, value_delimiter = ',', default_value = "embedded,shared,roles")]
    stacks: Vec<Kind>,
    #[command(subcommand)]
    floor: Option<Role>,
}

#[derive(Debug, Subcommand)]
enum Role {
    #[command(hide = true)]
    Floor(floor::Floor),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// As many events as go through, to one subscription
    Saturation,
    /// The same to ten subscriptions
    FanOut,
    /// Open loops at 50 and 300 events a second
    Latency,
    /// All of them
    All,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    raise_descriptors()?;
    // As Herald's own is.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match arguments.floor {
            Some(Role::Floor(floor)) => floor.run().await,
            None => measure(&arguments).await,
        }
    })
}

/// As many as there may be: every message in flight may have a connection, at both ends.
fn raise_descriptors() -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    Ok(setrlimit(Resource::Nofile, raised)?)
}

/// One run of one stack.
#[derive(Debug, Clone, Copy)]
enum Run {
    Saturation,
    FanOut,
    Latency,
}

#[derive(Debug, Default)]
struct Outcome {
    saturation: Results<Throughput>,
    fan_out: Results<Throughput>,
    latency: Results<Vec<Latency>>,
}

#[expect(clippy::print_stdout, reason = "the result")]
async fn measure(arguments: &Arguments) -> anyhow::Result<()> {
    say("starting RabbitMQ and PostgreSQL");
    let servers = Servers::start().await;
    println!("{}", machine::describe(&servers).await?);
    let plan = plan(arguments.scenario, &arguments.stacks);
    let mut outcome = Outcome::default();
    for round in 0..arguments.rounds {
        let mut order = plan.clone();
        if round % 2 == 1 {
            order.reverse();
        }
        for (run, kind) in order {
            let said = outcome.add(run, kind, &servers, arguments).await?;
            say(&format!("round {} of {}, {said}", round + 1, arguments.rounds));
        }
    }
    print!("{}", outcome.tables());
    Ok(())
}

/// The runs of a round. The floor's saturation is also what fan-out is compared to.
fn plan(scenario: Scenario, stacks: &[Kind]) -> Vec<(Run, Kind)> {
    let wanted = |one: Scenario| scenario == one || scenario == Scenario::All;
    let (saturation, fan_out) = (wanted(Scenario::Saturation), wanted(Scenario::FanOut));
    let each = |run: Run| stacks.iter().map(move |kind| (run, *kind));
    let mut plan = Vec::new();
    if saturation || fan_out {
        plan.push((Run::Saturation, Kind::Floor));
    }
    if saturation {
        plan.extend(each(Run::Saturation));
    }
    if fan_out {
        plan.extend(each(Run::FanOut));
    }
    if wanted(Scenario::Latency) {
        plan.push((Run::Latency, Kind::Floor));
        plan.extend(each(Run::Latency));
    }
    plan
}

impl Outcome {
    /// Does a run, and says in a line what came out.
    async fn add(&mut self, run: Run, kind: Kind, servers: &Servers, arguments: &Arguments) -> anyhow::Result<String> {
        let (results, subscriptions) = match run {
            Run::Saturation => (&mut self.saturation, 1),
            Run::FanOut => (&mut self.fan_out, MANY),
            Run::Latency => {
                let latencies = scenario::latencies(kind, servers).await?;
                let said: Vec<_> = latencies
                    .iter()
                    .map(|one| format!("{:.1} ms at {}/s", one.p50, one.rate))
                    .collect();
                self.latency.entry(kind).or_default().push(latencies);
                return Ok(format!("{kind}: {}", said.join(", ")));
            }
        };
        let closed = Loop {
            subscriptions,
            max_in_flight: arguments.max_in_flight,
            backlog: arguments.backlog,
            measured: Duration::from_secs(arguments.seconds),
        };
        let throughput = scenario::throughput(kind, servers, closed).await?;
        let said = format!("{kind}: {:.0} deliveries/s", throughput.rate);
        results.entry(kind).or_default().push(throughput);
        Ok(said)
    }

    fn tables(&self) -> String {
        let floor = self.saturation.get(&Kind::Floor).map(Vec::as_slice).unwrap_or_default();
        let mut tables = Vec::new();
        if !self.saturation.is_empty() {
            tables.push(table::throughput("Saturation, 1 subscription", &self.saturation, floor));
        }
        if !self.fan_out.is_empty() {
            let title = format!("Fan-out, {MANY} subscriptions (the floor's is its events/s to one)");
            tables.push(table::throughput(&title, &self.fan_out, floor));
        }
        if !self.latency.is_empty() {
            tables.push(table::latency(&self.latency));
        }
        tables.join("\n")
    }
}

#[expect(clippy::print_stderr, reason = "what it is at, beside the result")]
fn say(what: &str) {
    eprintln!("{what}");
}
