//! Logs on stderr: readable on a terminal, JSON otherwise. Ids go in, secrets and payloads never.
//!
//! Logging never waits for stderr and never fails: a line goes into a bounded [`buffer`], and a thread of its own
//! writes it. What is not read in time, or cannot be written, is dropped and counted.

mod buffer;

use buffer::Buffer;
use prometheus::Registry;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal};
use std::panic::PanicHookInfo;
use std::sync::LazyLock;
use std::time::Duration;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// Libraries that log more than there is to say, unless `RUST_LOG` asks for it. The AMQP client logs as errors
/// what is expected, such as asking for a queue that is not there yet; what matters of it is told by the one
/// who asked.
const QUIET: [(&str, &str); 3] = [("lapin", "off"), ("sqlx", "warn"), ("sea_orm_migration", "warn")];

/// How long the last lines may take at the end of the process, where nobody reads them.
const FLUSH: Duration = Duration::from_secs(1);

/// The lines for stderr.
static LINES: LazyLock<Buffer> = LazyLock::new(|| Buffer::written_to(io::stderr));

/// Starts logging. `RUST_LOG` sets what is logged; `default` what is where it is unset.
pub fn init(default: LevelFilter) {
    let mut filter = EnvFilter::builder()
        .with_default_directive(default.into())
        .from_env_lossy();
    let asked_for = std::env::var("RUST_LOG").unwrap_or_default();
    for (library, level) in QUIET {
        if let (false, Ok(quieter)) = (asked_for.contains(library), format!("{library}={level}").parse()) {
            filter = filter.add_directive(quieter);
        }
    }
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // What the library would say of its own failures goes to stderr directly, and panics where it cannot.
        .log_internal_errors(false)
        .with_writer(|| LINES.clone());
    let started = if io::stderr().is_terminal() {
        builder.with_target(false).try_init()
    } else {
        builder.json().flatten_event(true).try_init()
    };
    match started {
        Ok(()) => std::panic::set_hook(Box::new(log_panic)),
        Err(error) => tracing::warn!(error, "logging was started already"),
    }
}

/// Writes a line to stderr as it is, in order with the log's. It waits for nobody.
pub fn say(line: &str) {
    LINES.push(format!("{line}\n").as_bytes());
}

/// Waits until everything is written, for at most a second. To be called before the process ends.
pub fn flush() {
    LINES.flush(FLUSH);
}

/// Registers the counter of lines that were dropped.
pub fn register_metrics(registry: &Registry) -> Result<(), prometheus::Error> {
    registry.register(Box::new(buffer::DroppedLines::new(&LINES)?))
}

/// The standard hook writes to stderr directly, and would wait for whoever reads it.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let message = panic.payload_as_str().unwrap_or("a payload that is no text");
    let location = panic.location().map(ToString::to_string).unwrap_or_default();
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    tracing::error!(location, backtrace, "panicked: {message}");
    // The process may end with the main thread; with another it does not.
    if std::thread::current().name() == Some("main") {
        flush();
    }
}
