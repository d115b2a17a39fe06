//! SIGTERM and SIGINT: the first asks for an orderly end, the second ends at once.

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

/// Waits for the first signal and names it; from then on the next one ends the process.
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
