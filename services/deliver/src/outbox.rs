//! Does the outbox's jobs, oldest first, a part at a time.

use herald_ledger::{Error, Ledger};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often to look without a hint.
const INTERVAL: Duration = Duration::from_secs(1);

pub(crate) async fn run(ledger: Ledger, shutdown: CancellationToken) {
    while !shutdown.is_cancelled() {
        match work(&ledger).await {
            Ok(true) => continue,
            Ok(false) => {}
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the outbox could not be worked on; it is tried again"
                );
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = ledger.signals().outbox.notified() => {}
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

/// Does a part of the oldest job; whether there was one.
async fn work(ledger: &Ledger) -> Result<bool, Error> {
    let Some(job) = ledger.next_job().await? else {
        return Ok(false);
    };
    let cancelled = ledger.work_on(job).await?;
    tracing::info!(subscription = %job.subscription, cancelled, "open deliveries were cancelled");
    Ok(true)
}
