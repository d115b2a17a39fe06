//! Herald: durable webhook delivery.
//!
//! The binary knows every service and no service knows it: it reads settings, starts roles, and is the
//! command line.

mod causes;
mod commands;
mod process;
mod text;

use commands::Command;
use herald_telemetry::logs;
use process::limits;
use std::process::ExitCode;
use tracing_subscriber::filter::LevelFilter;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let ended = match commands::arguments() {
        Ok(arguments) => start_and_run(arguments.command),
        Err(shown) => show(&shown),
    };
    logs::flush();
    ended
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
    limits::prepare();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.into(), could_not_run),
    };
    // Nothing reads the outcome: a provider that is installed already serves as well.
    drop(rustls::crypto::ring::default_provider().install_default());
    let ended = runtime.block_on(commands::run(command));
    // A look-up of a name may hang for longer than a process may take to stop; nothing waits for it any more.
    runtime.shutdown_background();
    match ended {
        Ok(code) => code,
        Err(error) => fail(&error, could_not_run),
    }
}

fn fail(error: &anyhow::Error, code: u8) -> ExitCode {
    // Also where logging is off.
    logs::say(&format!("herald: {}", causes::of(error)));
    ExitCode::from(code)
}
