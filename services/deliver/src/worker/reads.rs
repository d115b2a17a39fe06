//! Reads of the ledger. Each is a task of its own that reports back, within a time limit, because a connection that
//! hangs says nothing for long.

use super::{PART, Shell};
use crate::report::Report;
use futures_util::FutureExt;
use herald_domain::delivery::{Closed, Delivery, Reason};
use herald_domain::id::SubscriptionId;
use herald_domain::lanes::{LaneId, Page, Row, Scope};
use herald_domain::subscription::Subscription;
use herald_domain::time::Timestamp;
use herald_domain::worker::{self, Input, WAKEUP_INTERVAL};
use herald_ledger::wakeups::MOST_WAKEUPS;
use herald_ledger::{Cause, Error};
use herald_registry::{Registry, View};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, RwLockReadGuard};
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};

/// The time limit of a read: longer than the ledger gives a statement.
const PATIENCE: Duration = Duration::from_secs(10);

/// The time limit of a look-up of rights. It is short, because rights are asked for again soon.
const RIGHTS_PATIENCE: Duration = Duration::from_secs(2);

/// The registry, as it is while this is held.
pub(super) struct Rights<'a> {
    is_fresh: bool,
    checked_at: Instant,
    view: RwLockReadGuard<'a, View>,
}

impl<'a> Rights<'a> {
    pub(super) fn of(registry: &'a Registry) -> Self {
        // What was checked by then is in the view that is taken after it.
        let (is_fresh, checked_at) = (registry.is_fresh(), registry.checked_at().into_std());
        Self {
            is_fresh,
            checked_at,
            view: registry.view(),
        }
    }
}

impl worker::Rights for Rights<'_> {
    fn version(&self) -> i64 {
        self.view.version()
    }

    fn is_fresh(&self) -> bool {
        self.is_fresh
    }

    fn checked_at(&self) -> Instant {
        self.checked_at
    }

    fn subscription(&self, id: SubscriptionId) -> Option<&Subscription> {
        self.view.subscription(id).map(|it| &**it)
    }

    fn permit(&self, delivery: &Delivery) -> Result<Arc<Subscription>, (Closed, Reason)> {
        self.view.permit(delivery)
    }
}

async fn limited<T>(patience: Duration, asked: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    match timeout(patience, asked).await {
        Ok(answered) => answered,
        Err(_elapsed) => Err(Error::Slow(patience)),
    }
}

impl Shell {
    /// Reads a page of the lanes that have open deliveries.
    pub(super) fn search(&self, page: Page) {
        let (ledger, health, reports) = (
            self.deliver.ledger.clone(),
            self.deliver.health.clone(),
            self.reports.clone(),
        );
        self.tasks.spawn(async move {
            let read = AssertUnwindSafe(limited(PATIENCE, ledger.open_lanes(&page))).catch_unwind();
            let input = match read.await {
                Ok(Ok((lanes, progress))) => {
                    health.ok(PART);
                    Input::Found(lanes, progress)
                }
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
                    Input::SearchFailed
                }
            };
            // The shell is gone only at the end.
            drop(reports.send(Report::Heard(input)));
        });
    }

    /// Takes wake-ups out of the ledger. A failure is reported after the pause.
    pub(super) fn take_wakeups(&self, pause: Duration) {
        let (ledger, reports) = (self.deliver.ledger.clone(), self.reports.clone());
        let leases = self.deliver.leases.borrow().clone();
        self.tasks.spawn(async move {
            let taking = AssertUnwindSafe(limited(PATIENCE, ledger.take_wakeups(&leases))).catch_unwind();
            let input = match taking.await {
                Ok(Ok(wakeups)) => Input::Woken {
                    more: wakeups.len() >= MOST_WAKEUPS,
                    wakeups,
                },
                failed => {
                    if let Ok(Err(error)) = failed {
                        tracing::warn!(error = &error as &dyn std::error::Error, "wake-ups could not be read");
                    }
                    sleep(pause).await;
                    Input::WakeupsFailed
                }
            };
            drop(reports.send(Report::Heard(input)));
        });
    }

    /// Compares the registry with the ledger.
    pub(super) fn check_rights(&self) {
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
            drop(reports.send(Report::Heard(Input::RightsChecked)));
        });
    }

    /// Reads the rows of a lane.
    pub(super) fn read_rows(&self, lane: LaneId, from: Timestamp, limit: usize, scope: Scope) {
        let (ledger, reports) = (self.deliver.ledger.clone(), self.reports.clone());
        self.tasks.spawn(async move {
            let read = ledger.open_deliveries(lane, from, limit, &scope);
            let read = AssertUnwindSafe(limited(PATIENCE, read));
            let input = match read.catch_unwind().await {
                Ok(Ok(rows)) => {
                    let row = |(delivery, event)| match event {
                        Some(event) => Row::Whole(super::work(delivery, event)),
                        None => Row::Bare(delivery),
                    };
                    let rows = rows.into_iter().map(row).collect();
                    Input::Rows { lane, limit, rows }
                }
                Err(_panic) => Input::RowsFailed { lane, is_away: false },
                Ok(Err(error)) => {
                    let subscription = lane.subscription();
                    tracing::error!(error = &error as &dyn std::error::Error, %subscription, "due deliveries could not be read");
                    let is_away = error.cause() == Cause::Away;
                    Input::RowsFailed { lane, is_away }
                }
            };
            drop(reports.send(Report::Heard(input)));
        });
    }
}
