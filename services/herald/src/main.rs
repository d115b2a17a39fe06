//! Herald: durable webhook delivery.
//!
//! The binary knows every service and no service knows it: it reads settings, starts roles, and is the
//! command line.

mod audit;
mod causes;
mod clocks;
mod config;
mod data;
mod demo;
mod greeting;
mod health;
mod held;
mod help;
mod http;
mod letters;
mod listen;
mod listener;
mod metrics;
mod process;
mod retention;
mod roles;
mod samples;
mod send;
mod server;
mod signals;
mod stores;
mod tasks;
mod text;
mod unread;
mod up;

use clap::{FromArgMatches as _, Parser, Subcommand};
use config::{Config, Flags};
use herald_telemetry::logs;
use listen::print_line;
use roles::Role;
use std::pin::pin;
use std::process::ExitCode;
use tracing_subscriber::filter::LevelFilter;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Herald takes events from producers and delivers them to subscribers over HTTP: signed, retried, and
/// accounted for.
#[derive(Debug, Parser)]
#[command(name = "herald", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run every role in one process
    Up {
        #[command(flatten)]
        flags: Flags,
        /// Show the whole of it in ten seconds, in a temporary folder, and end
        #[arg(long)]
        demo: bool,
    },
    /// Publish events from a file or standard input
    Send(send::Send),
    /// Publish a sample event of a type
    Trigger(send::Trigger),
    /// Receive, verify and print messages on this machine
    Listen(listen::Listen),
    /// Prove that nothing is lost: exit 0 exact, 1 differs, 2 could not run
    Audit {
        #[command(flatten)]
        flags: Flags,
        #[command(flatten)]
        options: audit::Audit,
    },
    /// Ask the process at --listen whether it is ready: exit 0 it is, 1 it is not or does not answer
    Health {
        #[command(flatten)]
        flags: Flags,
    },
    /// Make or update the ledger's schema, and end
    Migrate {
        #[command(flatten)]
        flags: Flags,
    },
    /// Explain every setting: its value, and where it came from
    CheckConfig {
        #[command(flatten)]
        flags: Flags,
    },
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Run the HTTP entrance for producers alone (needs --broker and --database)
    Ingest {
        #[command(flatten)]
        flags: Flags,
    },
    /// Run dispatch and deliver alone (needs --broker and --database)
    Worker {
        #[command(flatten)]
        flags: Flags,
    },
    /// Run dispatch alone (needs --broker and --database)
    Dispatch {
        #[command(flatten)]
        flags: Flags,
    },
    /// Run deliver alone (needs --broker and --database)
    Deliver {
        #[command(flatten)]
        flags: Flags,
    },
    /// Run the management API alone (needs --broker and --database)
    Manage {
        #[command(flatten)]
        flags: Flags,
    },
}

fn main() -> ExitCode {
    let ended = match arguments() {
        Ok(arguments) => start_and_run(arguments.command),
        Err(shown) => show(&shown),
    };
    logs::flush();
    ended
}

/// The command line, or what is to be shown instead of running anything.
fn arguments() -> Result<Arguments, clap::Error> {
    let mut matches = help::command().try_get_matches()?;
    Arguments::from_arg_matches_mut(&mut matches)
}

/// Help or a version go to stdout, which may be closed or full; what is wrong goes to stderr.
fn show(shown: &clap::Error) -> ExitCode {
    let usage = u8::try_from(shown.exit_code()).unwrap_or(2);
    if shown.use_stderr() {
        drop(shown.print());
        return ExitCode::from(usage);
    }
    match shown.print() {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            fail(&anyhow::Error::new(error).context("cannot write to stdout"), 1)
        }
        _ => ExitCode::from(usage),
    }
}

fn start_and_run(command: Command) -> ExitCode {
    let quiet = matches!(command, Command::Up { demo: true, .. });
    logs::init(if quiet { LevelFilter::ERROR } else { LevelFilter::INFO });
    let could_not_run = if matches!(command, Command::Audit { .. }) { 2 } else { 1 };
    process::prepare();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.into(), could_not_run),
    };
    // Nothing reads the outcome: a provider that is installed already serves as well.
    drop(rustls::crypto::ring::default_provider().install_default());
    let ended = runtime.block_on(run(command));
    // A look-up of a name may hang for longer than a process may take to stop; nothing waits for it any more.
    runtime.shutdown_background();
    match ended {
        Ok(code) => code,
        Err(error) => fail(&error, could_not_run),
    }
}

async fn run(command: Command) -> anyhow::Result<ExitCode> {
    signals::outlive_file_limits();
    match command {
        Command::Up { demo: true, .. } => demo::run().await?,
        Command::Up { flags, demo: false } => serve(Role::Up, &flags).await?,
        Command::Ingest { flags } => serve(Role::Ingest, &flags).await?,
        Command::Worker { flags } => serve(Role::Worker, &flags).await?,
        Command::Dispatch { flags } => serve(Role::Dispatch, &flags).await?,
        Command::Deliver { flags } => serve(Role::Deliver, &flags).await?,
        Command::Manage { flags } => serve(Role::Manage, &flags).await?,
        Command::Send(options) => send::run(options).await?,
        Command::Trigger(options) => send::trigger(options).await?,
        Command::Listen(options) => listen::run(options).await?,
        Command::Audit { flags, options } => {
            let report = audit::run(&Config::load(&flags)?, &options).await?;
            print_line(report.json)?;
            return Ok(ExitCode::from(u8::from(!report.exact)));
        }
        Command::Health { flags } => {
            let report = health::ask(&Config::load(&flags)?).await?;
            print_line(report.json)?;
            return Ok(ExitCode::from(u8::from(!report.ready)));
        }
        Command::Migrate { flags } => {
            print_line(stores::migrate(&Config::load(&flags)?).await?)?;
        }
        Command::CheckConfig { flags } => check_config(&flags)?,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut help::command(), "herald", &mut script);
            print_line(String::from_utf8(script)?.trim_end())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn check_config(flags: &Flags) -> anyhow::Result<()> {
    for (setting, value, source) in config::explain(flags)? {
        print_line(format!("{setting:<23}{value:<28}{source}"))?;
    }
    for remark in config::remarks(&Config::load(flags)?) {
        print_line(format!("\n{remark}"))?;
    }
    Ok(())
}

/// Runs a process for that role until it is stopped; also when that is before what it waits for is there.
async fn serve(role: Role, flags: &Flags) -> anyhow::Result<()> {
    let config = Config::load(flags)?;
    for remark in config::remarks(&config) {
        tracing::warn!("{remark}");
    }
    let mut ending = pin!(signals::next());
    let running = tokio::select! {
        started = up::start(config.clone(), role) => started?,
        signal = &mut ending => {
            tracing::info!(signal = signal?, "stopped while starting");
            return Ok(());
        }
    };
    greeting::greet(&running, role, &config, flags);
    running.until_stopped(ending).await
}

fn fail(error: &anyhow::Error, code: u8) -> ExitCode {
    // Also where logging is off.
    logs::say(&format!("herald: {}", causes::of(error)));
    ExitCode::from(code)
}
