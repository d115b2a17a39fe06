//! How fast Herald is, against a pipeline that does as little as one can.
//!
//! `cargo run --release -p herald-bench -- [--scenario …] [--stacks …] [--rounds N] [--quick] …`
//!
//! Generator, stack, stores and receiver share the machine, so an absolute number says little about
//! another one. What counts is the ratio to the floor, or to the undisturbed run, of the same round; the
//! runs of a round come one after the other, and every second round the other way round, so that what
//! else the machine does falls on all of them. README.md says what each scenario measures.
//!
//! | module | what it is |
//! |---|---|
//! | [`scenario`] | what is measured, each with its targets |
//! | [`floor`] | what everything is compared to |
//! | [`stack`] | the floor and Herald's forms, started fresh for each run |
//! | [`seed`] | a million rows at once |
//! | [`closed`], [`open`] | the two loops, and what is read off them |
//! | [`generator`] | the producer |
//! | [`receiver`], [`bad`], [`transport`] | the subscribers, and how messages reach them |
//! | [`event`] | events that are cheap to make |
//! | [`cpu`], [`memory`] | processor time and memory of processes |
//! | [`rounds`], [`spread`], [`quantiles`] | runs, and figures of several |
//! | [`report`], [`machine`] | what is printed |

mod arrival;
mod bad;
mod closed;
mod cpu;
mod event;
mod floor;
mod generator;
mod machine;
mod memory;
mod open;
mod options;
mod quantiles;
mod receiver;
mod report;
mod rounds;
mod scenario;
mod seed;
mod spread;
mod stack;
mod transport;

use clap::{Parser, Subcommand};
use options::{Bench, Options};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures Herald against a pipeline that does as little as one can, and prints tables. The binary
/// under test is the one that `HERALD_BIN` names, else the one beside this one.
#[derive(Debug, Parser)]
#[command(name = "bench", args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(hide = true)]
    Floor(floor::Floor),
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    raise_descriptors()?;
    // As Herald's own is.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match arguments.command {
            Some(Command::Floor(floor)) => floor.run().await,
            None => measure(arguments.options).await,
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

/// Prints the tables of each scenario when it is over; an error at the end if a run failed.
#[expect(clippy::print_stdout, reason = "the result")]
async fn measure(options: Options) -> anyhow::Result<()> {
    say("starting RabbitMQ and PostgreSQL");
    let bench = Bench::start(options).await;
    println!("{}", machine::describe(&bench.servers).await?);
    if bench.is_quick() {
        println!("Everything was small and short: what follows shows that it runs, and no more.\n");
    }
    let mut failed = 0;
    for scenario in bench.scenarios() {
        say(&format!("{scenario}:"));
        let measured = Box::pin(scenario::measure(scenario, &bench)).await;
        for report in measured.reports {
            println!("{report}");
        }
        for failure in &measured.failures {
            println!("- failed: {failure}");
        }
        failed += measured.failures.len();
    }
    anyhow::ensure!(failed == 0, "{failed} runs failed");
    Ok(())
}

#[expect(clippy::print_stderr, reason = "what it is at, beside the result")]
fn say(what: &str) {
    eprintln!("{what}");
}

fn to_usize(number: u32) -> usize {
    usize::try_from(number).expect("usize has 32 bits at least")
}
