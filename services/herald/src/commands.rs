//! The command line: what the binary can be asked to do, one module for each command.

mod audit;
mod check_config;
mod demo;
mod greeting;
mod health;
mod help;
mod listen;
mod samples;
mod send;
mod serve;

use crate::process::config::{Config, Flags};
use crate::process::roles::Role;
use crate::process::{signals, stores};
use clap::{FromArgMatches as _, Parser, Subcommand};
use listen::print_line;
use std::process::ExitCode;

/// Herald takes events from producers and delivers them to subscribers over HTTP: signed, retried, and
/// accounted for.
#[derive(Debug, Parser)]
#[command(name = "herald", version, arg_required_else_help = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
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

/// The command line, or what is to be shown instead of running anything.
pub(crate) fn arguments() -> Result<Arguments, clap::Error> {
    let mut matches = help::command().try_get_matches()?;
    Arguments::from_arg_matches_mut(&mut matches)
}

pub(crate) async fn run(command: Command) -> anyhow::Result<ExitCode> {
    signals::outlive_file_limits();
    match command {
        Command::Up { demo: true, .. } => demo::run().await?,
        Command::Up { flags, demo: false } => serve::run(Role::Up, &flags).await?,
        Command::Ingest { flags } => serve::run(Role::Ingest, &flags).await?,
        Command::Worker { flags } => serve::run(Role::Worker, &flags).await?,
        Command::Dispatch { flags } => serve::run(Role::Dispatch, &flags).await?,
        Command::Deliver { flags } => serve::run(Role::Deliver, &flags).await?,
        Command::Manage { flags } => serve::run(Role::Manage, &flags).await?,
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
        Command::CheckConfig { flags } => check_config::run(&flags)?,
        Command::Completions { shell } => help::complete(shell)?,
    }
    Ok(ExitCode::SUCCESS)
}
