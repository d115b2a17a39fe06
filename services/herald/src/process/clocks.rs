//! Compares the ledger's clock with this machine's: one of them is wrong when they differ, and what is signed by a
//! wrong one is refused by every receiver that looks at the time.

use herald_domain::time::{Clock, SystemClock, Timestamp};
use herald_ledger::Ledger;
use prometheus::{Gauge, Registry};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often they are compared.
const INTERVAL: Duration = Duration::from_secs(10);

/// From what difference on it is said: receivers mostly bear five minutes.
const MUCH: f64 = 60.0;

/// How often it is said again, as a number of comparisons.
const AGAIN: u32 = 360;

/// The difference, shown and told.
#[derive(Debug)]
pub(crate) struct Clocks(Gauge);

impl Clocks {
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = Gauge::new(
            "herald_ledger_clock_difference_seconds",
            "By how much the ledger's clock is ahead of this machine's; below 0 it is behind.",
        )?;
        registry.register(Box::new(gauge.clone()))?;
        Ok(Self(gauge))
    }

    /// Compares them until shutdown.
    pub(crate) async fn watch(self, ledger: Ledger, shutdown: CancellationToken) {
        let mut silent_for = AGAIN;
        loop {
            let ahead = seconds(ledger.now(), SystemClock.now());
            self.0.set(ahead);
            if ahead.abs() < MUCH {
                if silent_for < AGAIN {
                    tracing::info!("the ledger's clock and this machine's are together again");
                }
                silent_for = AGAIN;
            } else if silent_for >= AGAIN {
                silent_for = 0;
                tracing::warn!(
                    seconds = ahead.round(),
                    "the ledger's clock is ahead of this machine's by so many seconds, or behind if below 0: one of \
                     them is wrong, and receivers refuse messages that are signed by a wrong one"
                );
            } else {
                silent_for += 1;
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(INTERVAL) => {}
            }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "microseconds are more exact than clocks")]
fn seconds(ledger: Timestamp, machine: Timestamp) -> f64 {
    (ledger.as_micros() - machine.as_micros()) as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_that_is_ahead_is_above_zero() {
        let at = |seconds: i64| Timestamp::from_micros(seconds * 1_000_000);
        assert!((seconds(at(400), at(40)) - 360.0).abs() < 1e-9);
        assert!((seconds(at(40), at(400)) + 360.0).abs() < 1e-9);
    }
}
