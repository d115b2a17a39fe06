//! Reports to the ledger every second how many messages this process has in hand, for the audit.

use herald_ledger::Ledger;
use herald_queue::rabbitmq::Rabbit;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const INTERVAL: Duration = Duration::from_secs(1);

/// Reports until shutdown, and then takes the last report back.
pub(crate) async fn report(ledger: Ledger, rabbit: Rabbit, shutdown: CancellationToken) {
    let consumer = Uuid::now_v7();
    while !shutdown.is_cancelled() {
        // The time first: what is handed out after it is reported the next time.
        let at = ledger.now();
        if let Err(error) = ledger.report_in_hand(consumer, rabbit.in_hand(), at).await {
            // An audit meanwhile says that it cannot tell.
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "what is in hand could not be reported"
            );
        }
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
    if let Err(error) = ledger.forget_consumer(consumer).await {
        tracing::debug!(
            error = &error as &dyn std::error::Error,
            "the last report was not taken back"
        );
    }
}
