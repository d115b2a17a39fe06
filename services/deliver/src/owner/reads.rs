//! The owner's reads of the ledger. Each is a task of its own that reports back, within a time limit, because a
//! connection that hangs says nothing for long.

use super::{Owner, PART, WAKEUP_INTERVAL};
use crate::report::Report;
use futures_util::FutureExt;
use herald_domain::id::{Shard, SubscriptionId};
use herald_domain::lanes::pause_after;
use herald_domain::time::Timestamp;
use herald_ledger::wakeups::{MOST_WAKEUPS, Wakeup};
use herald_ledger::{Cause, Error};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// The time limit of a read: longer than the ledger gives a statement.
const PATIENCE: Duration = Duration::from_secs(10);

/// The time limit of a look-up of rights. It is short, because rights are asked for again soon.
const RIGHTS_PATIENCE: Duration = Duration::from_secs(2);

async fn limited<T>(patience: Duration, asked: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    match timeout(patience, asked).await {
        Ok(answered) => answered,
        Err(_elapsed) => Err(Error::Slow(patience)),
    }
}

impl Owner {
    /// Looks up which lanes of these shards have open deliveries.
    pub(super) fn find_lanes(&mut self, shards: Vec<Shard>) {
        self.search.ask(shards);
        self.search();
    }

    /// Reads the next page of lanes, if one is wanted and none is being read.
    pub(super) fn search(&mut self) {
        let Some(page) = self.search.next_page() else {
            return;
        };
        let (ledger, health, reports) = (
            self.deliver.ledger.clone(),
            self.deliver.health.clone(),
            self.reports.clone(),
        );
        self.tasks.spawn(async move {
            let read = AssertUnwindSafe(limited(PATIENCE, ledger.open_lanes(&page))).catch_unwind();
            let found = match read.await {
                Ok(Ok(found)) => Some(found),
                failed => {
                    let mut words = "the ledger cannot be read".to_owned();
                    if let Ok(Err(error)) = failed {
                        words = format!("{words}: {}", error.words());
                        tracing::error!(
                            error = &error as &dyn std::error::Error,
                            "open deliveries could not be looked up"
                        );
                    }
                    health.failing(PART, words);
                    sleep(page.pause).await;
                    None
                }
            };
            // The owner is gone only at the end.
            drop(reports.send(Report::Searched(found)));
        });
    }

    /// Takes wake-ups. If a task is taking them already, it is done once more when that has ended.
    pub(super) fn look_for_wakeups(&mut self) {
        if self.owned.shards().next().is_none() {
            return;
        }
        if self.looking {
            self.look_again = true;
            return;
        }
        self.looking = true;
        let pause = pause_after(self.looks_failed);
        let (ledger, owned, reports) = (self.deliver.ledger.clone(), self.owned.clone(), self.reports.clone());
        self.tasks.spawn(async move {
            let look = AssertUnwindSafe(limited(PATIENCE, ledger.take_wakeups(&owned))).catch_unwind();
            let wakeups = match look.await {
                Ok(Ok(wakeups)) => Some(wakeups),
                failed => {
                    if let Ok(Err(error)) = failed {
                        tracing::warn!(error = &error as &dyn std::error::Error, "wake-ups could not be read");
                    }
                    sleep(pause).await;
                    None
                }
            };
            drop(reports.send(Report::Woken(wakeups)));
        });
    }

    pub(super) fn woken(&mut self, wakeups: Option<Vec<Wakeup>>) {
        self.looking = false;
        let mut again = std::mem::take(&mut self.look_again);
        if let Some(wakeups) = wakeups {
            self.looks_failed = 0;
            again |= wakeups.len() >= MOST_WAKEUPS;
            self.note(wakeups);
        } else {
            self.looks_failed = self.looks_failed.saturating_add(1);
            // The wake-ups may have been taken all the same, so all lanes are looked up.
            self.find_lanes(self.owned.shards().collect());
        }
        if again {
            self.look_for_wakeups();
        }
    }

    /// Has the registry compared with the ledger, unless a task does so already.
    pub(super) fn check_rights(&mut self) {
        if self.checking {
            return;
        }
        self.checking = true;
        let (registry, reports) = (Arc::clone(&self.deliver.registry), self.reports.clone());
        self.tasks.spawn(async move {
            let check = AssertUnwindSafe(limited(RIGHTS_PATIENCE, registry.refresh())).catch_unwind();
            if let Ok(Err(error)) = check.await {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "no attempts, because rights cannot be checked"
                );
                sleep(WAKEUP_INTERVAL).await;
            }
            drop(reports.send(Report::RightsChecked));
        });
    }

    pub(super) fn fetch(&self, subscription: SubscriptionId, from: Timestamp, limit: usize) {
        let (ledger, reports) = (self.deliver.ledger.clone(), self.reports.clone());
        let scope = self.lanes.scope(subscription);
        self.tasks.spawn(async move {
            let read = ledger.open_deliveries(subscription, from, limit, &scope);
            let read = AssertUnwindSafe(limited(PATIENCE, read));
            let rows = match read.catch_unwind().await {
                Ok(Ok(rows)) => Some(rows),
                Err(_panic) => None,
                Ok(Err(error)) => {
                    tracing::error!(error = &error as &dyn std::error::Error, %subscription, "due deliveries could not be read");
                    if error.cause() == Cause::Away {
                        drop(reports.send(Report::Away));
                    }
                    None
                }
            };
            drop(reports.send(Report::Fetched(subscription, limit, rows)));
        });
    }
}
