//! The actions of the owner: attempts begin while rights are fresh and the lease holds.

use super::{Owner, RETRY_AFTER};
use crate::attempt;
use crate::report::{Begun, Item, Report};
use futures_util::FutureExt;
use herald_domain::delivery::{Closed, Delivery, Reason};
use herald_domain::id::{DeliveryId, Shard};
use herald_domain::lanes::{Action, Terms};
use herald_domain::rate_limit::Rate;
use herald_domain::subscription::Subscription;
use herald_domain::time::Timestamp;
use herald_registry::View;
use std::num::NonZeroU16;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How soon a delivery that is not permitted is looked at again. Meanwhile the registry is compared with the ledger.
const CERTAIN_AFTER: Duration = Duration::from_millis(20);

impl Owner {
    /// Does what the lanes want done, if rights are fresh and the lease holds. Returns false while it waits for
    /// either.
    pub(super) fn act(&mut self) -> bool {
        if !self.owned.holds(Instant::now()) {
            return false;
        }
        if !self.deliver.registry.is_fresh() {
            self.check_rights();
            return false;
        }
        let now = self.deliver.clock.now();
        let registry = Arc::clone(&self.deliver.registry);
        let view = registry.view();
        self.gone.retain(|id, gone| {
            view.subscription(*id)
                .is_some_and(|it| it.updated_at == gone.updated_at)
        });
        if std::mem::replace(&mut self.followed, view.version()) != view.version() {
            self.lanes.terms_changed();
        }
        let terms_of = |id| view.subscription(id).map_or(Terms::UNKNOWN, |it| terms(it));
        for action in self.lanes.poll(now, terms_of) {
            match action {
                // The lease may end in the middle of a batch.
                Action::Attempt(work) if !self.owned.holds(Instant::now()) => {
                    self.lanes.abandoned(&work, now.plus(RETRY_AFTER), now);
                }
                Action::GiveUp(work) => self.give_up(&work, now),
                Action::Attempt(work) => match self.permit(&view, &work.delivery) {
                    Ok(subscription) => {
                        self.doubted.remove(&work.delivery.id);
                        self.attempt(work, subscription, now);
                    }
                    Err((status, reason)) if self.is_certain(work.delivery.id) => {
                        self.close_unsent(&work, status, reason, now);
                    }
                    Err(_) => {
                        self.lanes.abandoned(&work, now.plus(CERTAIN_AFTER), now);
                        self.check_rights();
                    }
                },
                Action::Fetch {
                    subscription,
                    from,
                    limit,
                } => self.fetch(subscription, from, limit),
            }
        }
        true
    }

    /// Whether the delivery may be attempted, as far as is known here.
    fn permit(&self, view: &View, delivery: &Delivery) -> Result<Arc<Subscription>, (Closed, Reason)> {
        if self.gone.contains_key(&delivery.subscription) {
            return Err((Closed::Cancelled, Reason::SubscriptionInactive));
        }
        view.permit(delivery)
    }

    /// Whether it is certain that a delivery is not permitted: the registry was compared with the ledger since the
    /// question first came up. Before that, another process may have recorded the delivery after a change that this
    /// one has not heard of, such as a new subscription.
    fn is_certain(&mut self, id: DeliveryId) -> bool {
        let doubted = *self.doubted.entry(id).or_insert_with(tokio::time::Instant::now);
        let certain = self.deliver.registry.checked_at() > doubted;
        if certain {
            self.doubted.remove(&id);
        }
        certain
    }

    /// The epoch of the delivery's shard. The lanes give no delivery of a shard that has none.
    pub(super) fn epoch(&self, work: &Item) -> Option<i64> {
        self.owned.epoch(Shard::of(work.delivery.subscription))
    }

    fn attempt(&mut self, work: Item, subscription: Arc<Subscription>, now: Timestamp) {
        let Some(epoch) = self.epoch(&work) else {
            return self.lanes.abandoned(&work, now, now);
        };
        let ends_by = now.plus(subscription.settings.timeout);
        self.under_way.insert(work.delivery.id, ends_by);
        let begun = Begun {
            work,
            subscription,
            epoch,
        };
        let sender = Arc::clone(&self.deliver.sender);
        // The receiver compares this time with its own clock.
        let clock = self.deliver.ledger.time_of_day();
        let traces = self.deliver.traces.clone();
        let (reports, hard) = (self.reports.clone(), self.hard.clone());
        self.tasks.spawn(async move {
            let Begun { work, subscription, .. } = &begun;
            let attempt = attempt::make(&sender, &*clock, &traces, subscription, &work.delivery, &work.payload);
            let outcome = tokio::select! {
                outcome = AssertUnwindSafe(attempt).catch_unwind() => outcome,
                // Cut off: the ledger has the delivery as it was, and no attempt is counted.
                () = hard.cancelled() => return,
            };
            drop(match outcome {
                Ok(Ok(attempt)) => reports.send(Report::Attempted(begun, attempt)),
                Ok(Err(want)) => reports.send(Report::Postponed(begun.work, want)),
                // The panic hook has written the panic to the log; the delivery is not lost.
                Err(_panic) => reports.send(Report::Abandoned(begun.work)),
            });
        });
    }
}

/// What a subscription says about its lane.
fn terms(subscription: &Subscription) -> Terms {
    let settings = &subscription.settings;
    Terms {
        owner: subscription.owner,
        max_in_flight: NonZeroU16::new(settings.max_in_flight).unwrap_or(NonZeroU16::MIN),
        rate: settings.rate_limit_per_second.and_then(Rate::per_second),
        give_up_after: settings.retry.give_up_after,
        changed_at: subscription.updated_at,
    }
}
