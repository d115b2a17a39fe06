//! Herald: durable webhook delivery.
//!
//! The binary knows every service and no service knows it: it reads settings, starts roles, and is the
//! command line.

mod audit;
mod config;
mod data;
mod demo;
mod health;
mod held;
mod http;
mod letters;
mod listen;
mod metrics;
mod process;
mod retention;
mod roles;
mod samples;
mod send;
mod server;
mod signals;
mod stores;
mod unread;
mod up;

use clap::{CommandFactory, Parser, Subcommand};
use config::{Config, Flags};
use roles::Role;
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
    let arguments = Arguments::parse();
    let quiet = matches!(arguments.command, Command::Up { demo: true, .. });
    herald_telemetry::logs::init(if quiet { LevelFilter::ERROR } else { LevelFilter::INFO });
    let could_not_run = if matches!(arguments.command, Command::Audit { .. }) {
        2
    } else {
        1
    };
    process::prepare();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.into(), could_not_run),
    };
    // Nothing reads the outcome: a provider that is installed already serves as well.
    drop(rustls::crypto::ring::default_provider().install_default());
    let ended = runtime.block_on(run(arguments.command));
    // A look-up of a name may hang for longer than a process may take to stop; nothing waits for it any more.
    runtime.shutdown_background();
    match ended {
        Ok(code) => code,
        Err(error) => fail(&error, could_not_run),
    }
}

#[expect(clippy::print_stdout, reason = "results go to stdout")]
async fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Up { demo: true, .. } => demo::run().await?,
        Command::Up { flags, demo: false } => {
            if let Some(running) = start(&flags, Role::Up).await? {
                greet(&running, &flags);
                running.until_stopped().await?;
            }
        }
        Command::Ingest { flags } => one_of_several(Role::Ingest, &flags).await?,
        Command::Worker { flags } => one_of_several(Role::Worker, &flags).await?,
        Command::Dispatch { flags } => one_of_several(Role::Dispatch, &flags).await?,
        Command::Deliver { flags } => one_of_several(Role::Deliver, &flags).await?,
        Command::Manage { flags } => one_of_several(Role::Manage, &flags).await?,
        Command::Send(options) => send::run(options).await?,
        Command::Listen(options) => listen::run(options).await?,
        Command::Audit { flags, options } => {
            let report = audit::run(&Config::load(&flags)?, &options).await?;
            println!("{}", report.json);
            return Ok(ExitCode::from(u8::from(!report.exact)));
        }
        Command::Health { flags } => {
            let report = health::ask(&Config::load(&flags)?).await?;
            println!("{}", report.json);
            return Ok(ExitCode::from(u8::from(!report.ready)));
        }
        Command::Migrate { flags } => {
            println!("{}", stores::migrate(&Config::load(&flags)?).await?);
        }
        Command::CheckConfig { flags } => {
            for (setting, value, source) in config::explain(&flags)? {
                println!("{setting:<23}{value:<28}{source}");
            }
            Config::load(&flags)?;
        }
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Arguments::command(), "herald", &mut std::io::stdout());
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Starts a process; nothing if it was asked to stop before what it waits for was there.
async fn start(flags: &Flags, role: Role) -> anyhow::Result<Option<up::Running>> {
    tokio::select! {
        started = up::start(Config::load(flags)?, role) => Ok(Some(started?)),
        signal = signals::next() => {
            tracing::info!(signal = signal?, "stopped while starting");
            Ok(None)
        }
    }
}

/// Runs a process for one role until it is stopped.
#[expect(clippy::print_stdout, reason = "results go to stdout")]
async fn one_of_several(role: Role, flags: &Flags) -> anyhow::Result<()> {
    let Some(running) = start(flags, role).await? else {
        return Ok(());
    };
    println!(
        "Herald {} {} listens on http://{}",
        env!("CARGO_PKG_VERSION"),
        role.name(),
        running.address
    );
    if let Some(key) = running.operator_key.as_ref().filter(|_| running.first_start) {
        println!("The operator's key, shown this once: {key}");
    }
    running.until_stopped().await
}

/// Says where Herald is and what to try, in lines that work as they are printed.
#[expect(clippy::print_stdout, reason = "results go to stdout")]
fn greet(running: &up::Running, flags: &Flags) {
    let herald = std::env::args().next().unwrap_or_else(|| "herald".to_owned());
    let url = format!("http://{}", running.address);
    println!("Herald {} listens on {url}", env!("CARGO_PKG_VERSION"));
    let key = match &running.operator_key {
        Some(key) if running.first_start => {
            println!("The operator's key, shown this once: {key}");
            key.as_str()
        }
        Some(_) | None => "$HERALD_OPERATOR_KEY",
    };
    let given = [
        ("--data", flags.data.as_ref().map(|data| data.display().to_string())),
        (
            "--broker",
            flags.broker.clone().map(|url| shown(url, "$HERALD_BROKER_URL")),
        ),
        (
            "--database",
            flags.database.clone().map(|url| shown(url, "$HERALD_DATABASE_URL")),
        ),
    ];
    let given: String = given
        .into_iter()
        .filter_map(|(flag, value)| value.map(|value| format!(" {flag} {value}")))
        .collect();
    println!("Try next, in another terminal:");
    println!("  curl -s {url}/v1/webhooks -H \"Authorization: Bearer {key}\"");
    println!(
        "  echo '{}' | {herald} send - --url {url} --key \"{key}\"",
        samples::one_line()
    );
    println!("  {herald} audit{given}");
}

/// A URL to be printed; one with a password under the name of a variable.
fn shown(url: String, variable: &str) -> String {
    match url::Url::parse(&url) {
        Ok(parsed) if parsed.password().is_none() => url,
        _ => format!("\"{variable}\""),
    }
}

fn fail(error: &anyhow::Error, code: u8) -> ExitCode {
    #[expect(clippy::print_stderr, reason = "the last line, also where logging is off")]
    {
        eprintln!("herald: {error:#}");
    }
    ExitCode::from(code)
}
