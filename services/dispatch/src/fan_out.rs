//! Completing large fan-outs: events that match more subscriptions than one transaction takes.
//!
//! The work is the same whether the event was recorded a moment ago or before a crash: the ledger tells which events
//! are not complete. Events take turns, a chunk each, so one that matches a million subscriptions does not delay the
//! next.

use crate::{Dispatch, RETRY_AFTER};
use herald_ledger::Error;
use herald_ledger::dispatching::{Extended, Incomplete};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often to look without a notice: another process may have left incomplete events behind.
const INTERVAL: Duration = Duration::from_secs(30);

/// How many events take turns.
const AT_A_TIME: u64 = 16;

impl Dispatch {
    /// Completes fan-outs until shutdown.
    pub(crate) async fn complete_fan_outs(&self, shutdown: &CancellationToken) {
        while !shutdown.is_cancelled() {
            let wait = match self.extend_each_once().await {
                Ok(0) => INTERVAL,
                Ok(_) => continue,
                Err(error) => {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "a large fan-out could not go on; it is tried again"
                    );
                    self.hand_over.look_everywhere();
                    RETRY_AFTER
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.incomplete.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    async fn extend_each_once(&self) -> Result<usize, Error> {
        let incomplete = self.ledger.incomplete(AT_A_TIME).await?;
        for event in &incomplete {
            self.extend(event).await?;
        }
        Ok(incomplete.len())
    }

    async fn extend(&self, event: &Incomplete) -> Result<(), Error> {
        let Incomplete { record, cursor } = event;
        let (matches, version) = {
            let view = self.registry.view();
            (view.index().matches(&record.kind, &record.objects), view.version())
        };
        let mark = self.hand_over.mark();
        let owned = self.owned.borrow().clone();
        let extended = self
            .ledger
            .extend(record.clone(), *cursor, matches, version, owned)
            .await?;
        match extended {
            // The event is still incomplete, and is read again at once.
            Extended::Stale => self.registry.refresh().await?,
            Extended::Overtaken => {}
            Extended::Done { recorded, mine, .. } => {
                self.metrics.matched(recorded.iter());
                self.hand_over.offer(record, mine, mark);
            }
        }
        Ok(())
    }
}
