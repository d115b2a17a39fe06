//! SIGTERM and SIGINT: the first asks for an orderly end, the second ends at once.

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

/// SIGXFSZ, by its number on Linux: a file would grow beyond `ulimit -f`.
const FILE_TOO_LARGE: i32 = 25;

/// Has a write that would go beyond the limit of file sizes fail, as one on a full disk does, instead of ending the
/// process.
pub(crate) fn outlive_file_limits() {
    // A handler stays for good once it is there.
    if let Err(error) = signal(SignalKind::from_raw(FILE_TOO_LARGE)) {
        tracing::debug!(%error, "cannot listen for SIGXFSZ");
    }
}

/// Waits for the first signal and names it; from then on the next one ends the process. Whoever waits in several
/// phases keeps this one future for all of them: a signal between two of them would be heard by nobody.
pub(crate) async fn next() -> anyhow::Result<&'static str> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let first = tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    };
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::warn!("a second signal: ending at once; nothing accepted is lost");
        herald_telemetry::logs::flush();
        #[expect(clippy::exit, reason = "whoever asks twice does not want to wait")]
        std::process::exit(130);
    });
    Ok(first)
}
