//! A process's copy of the subscriptions, and what it permits.

use herald_domain::delivery::{Closed, Delivery, Reason};
use herald_domain::id::SubscriptionId;
use herald_domain::index::Index;
use herald_domain::subscription::Subscription;
use herald_domain::worker::Rights;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How old a copy may be when an attempt is decided.
pub(crate) const MAX_AGE: Duration = Duration::from_secs(1);

/// The subscriptions as of a version.
#[derive(Debug)]
pub(crate) struct Registry {
    pub version: i64,
    pub index: Index,
    subscriptions: BTreeMap<SubscriptionId, Arc<Subscription>>,
    checked_at: Option<Instant>,
}

/// Whether the delivery may be attempted, by the subscription as it is here.
pub(crate) fn permits(subscription: &Subscription, delivery: &Delivery) -> bool {
    let cancelled = delivery.is_opened_before(subscription.open_from_version, subscription.open_from);
    subscription.settings.active && !cancelled
}

impl Registry {
    pub(crate) fn new() -> Self {
        Self {
            version: 0,
            index: Index::default(),
            subscriptions: BTreeMap::new(),
            checked_at: None,
        }
    }

    pub(crate) fn refresh(
        &mut self,
        version: i64,
        subscriptions: &BTreeMap<SubscriptionId, Arc<Subscription>>,
        now: Instant,
    ) {
        self.checked_at = Some(now);
        if self.version == version {
            return;
        }
        (self.version, self.index) = (version, Index::default());
        self.subscriptions.clone_from(subscriptions);
        for (id, subscription) in subscriptions {
            if subscription.settings.active {
                self.index.add(&subscription.settings.interest, *id);
            }
        }
    }
}

/// The copy, as it is consulted at that moment.
#[derive(Debug)]
pub(crate) struct Consulted<'a>(pub &'a Registry, pub Instant);

impl Rights for Consulted<'_> {
    fn version(&self) -> i64 {
        self.0.version
    }

    fn is_fresh(&self) -> bool {
        let Self(registry, now) = self;
        registry.checked_at.is_some_and(|at| *now - at <= MAX_AGE)
    }

    fn checked_at(&self) -> Instant {
        self.0.checked_at.expect("a copy that is fresh was compared")
    }

    fn subscription(&self, id: SubscriptionId) -> Option<&Subscription> {
        self.0.subscriptions.get(&id).map(|it| &**it)
    }

    fn permit(&self, delivery: &Delivery) -> Result<Arc<Subscription>, (Closed, Reason)> {
        let subscription = self.0.subscriptions.get(&delivery.subscription);
        let permitted = subscription.filter(|it| permits(it, delivery));
        permitted
            .map(Arc::clone)
            .ok_or((Closed::Cancelled, Reason::SubscriptionInactive))
    }
}
