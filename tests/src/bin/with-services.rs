//! Runs a command beside one RabbitMQ and one PostgreSQL that all tests share.
//!
//! `tests/with-services COMMAND [ARGUMENT…]`
//!
//! The command finds them by `HERALD_TEST_RABBITMQ`, `HERALD_TEST_RABBITMQ_API` and `HERALD_TEST_POSTGRES`.
//! They end with it, and the exit code is the command's.

use herald_tests::services::{POSTGRES, RABBITMQ, RABBITMQ_API, Servers};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let Some(program) = arguments.next() else {
        usage();
        return ExitCode::from(2);
    };
    // Before the servers are there, so that none is left by a signal that comes while they start: a
    // terminal's Ctrl-C goes to the command as well, and this waits for its end.
    let mut interrupt = signal(SignalKind::interrupt()).expect("signals can be listened to");
    let mut terminate = signal(SignalKind::terminate()).expect("signals can be listened to");
    let servers = tokio::select! {
        servers = Servers::start_volatile() => servers,
        _ = interrupt.recv() => return ExitCode::from(130),
        _ = terminate.recv() => return ExitCode::from(143),
    };
    let mut command = Command::new(&program);
    command
        .args(arguments)
        .env(RABBITMQ, servers.rabbitmq.url())
        .env(RABBITMQ_API, servers.rabbitmq.api_url())
        .env(POSTGRES, servers.postgres.url());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            cannot_start(&program, &error);
            return ExitCode::from(127);
        }
    };
    let status = tokio::select! {
        status = end_of(&mut child) => status,
        _ = terminate.recv() => {
            child.kill().expect("a child can be killed");
            child.wait().expect("a child can be waited for")
        }
    };
    // As a shell has it: the code, or 128 and the signal.
    let code = status.code().or_else(|| Some(128 + status.signal()?));
    ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

async fn end_of(child: &mut Child) -> ExitStatus {
    loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            return status;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[expect(clippy::print_stderr, reason = "this is a command of its own")]
fn usage() {
    eprintln!("usage: tests/with-services COMMAND [ARGUMENT...]");
}

#[expect(clippy::print_stderr, reason = "this is a command of its own")]
fn cannot_start(program: &std::ffi::OsStr, error: &std::io::Error) {
    eprintln!("tests/with-services: {}: {error}", program.display());
}
