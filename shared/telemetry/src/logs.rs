//! Logs on stderr: readable on a terminal, JSON otherwise. Ids go in, secrets and payloads never.

use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// Libraries that log more than there is to say, unless `RUST_LOG` asks for it. The AMQP client logs as errors
/// what is expected, such as asking for a queue that is not there yet; what matters of it is told by the one
/// who asked.
const QUIET: [(&str, &str); 3] = [("lapin", "off"), ("sqlx", "warn"), ("sea_orm_migration", "warn")];

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
        .with_writer(std::io::stderr);
    let started = if std::io::stderr().is_terminal() {
        builder.with_target(false).try_init()
    } else {
        builder.json().flatten_event(true).try_init()
    };
    if let Err(error) = started {
        tracing::warn!(error, "logging was started already");
    }
}
