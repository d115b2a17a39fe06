//! What dispatch counts.

use herald_domain::catalogue::{EventType, Webhook};
use herald_domain::id::SubscriptionId;
use herald_ledger::dispatching::CHUNK;
use herald_queue::{Direction, Queue};
use prometheus::{Error, IntCounter, IntCounterVec, Opts, Registry};

#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    dispatched: IntCounterVec,
    matched: IntCounterVec,
    unmatched: IntCounter,
    repeated: IntCounter,
    differing: IntCounter,
    rejected: IntCounter,
}

impl Metrics {
    /// What is counted here, and, where there is one, the connection that `queue` is read over.
    pub(crate) fn register(registry: &Registry, queue: &Queue) -> Result<Self, Error> {
        if let Some(reconnections) = queue.reconnections(Direction::Consume) {
            registry.register(Box::new(reconnections))?;
        }
        let dispatched = IntCounterVec::new(
            Opts::new(
                "herald_events_dispatched_total",
                "Events recorded in the ledger, by type.",
            ),
            &["type"],
        )?;
        let matched = IntCounterVec::new(
            Opts::new(
                "herald_deliveries_matched_total",
                "Deliveries that followed from events, by webhook.",
            ),
            &["webhook"],
        )?;
        let counter = |name: &str, help: &str| -> Result<IntCounter, Error> {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        for kind in EventType::ALL {
            dispatched.with_label_values(&[kind.name()]);
        }
        for webhook in Webhook::ALL {
            matched.with_label_values(&[webhook.name()]);
        }
        registry.register(Box::new(dispatched.clone()))?;
        registry.register(Box::new(matched.clone()))?;
        Ok(Self {
            dispatched,
            matched,
            unmatched: counter(
                "herald_events_unmatched_total",
                "Events recorded that matched no subscription.",
            )?,
            repeated: counter(
                "herald_events_repeated_total",
                "Events whose Id was there already; they were discarded.",
            )?,
            differing: counter(
                "herald_events_differing_total",
                "Of the repeated events, those whose body was not the first one's.",
            )?,
            rejected: counter(
                "herald_events_rejected_total",
                "Messages from the queue that were no events; they are kept.",
            )?,
        })
    }

    /// An event was recorded, with at most the first [`CHUNK`] of its matches.
    pub(crate) fn dispatched(&self, kind: EventType, matches: &[(SubscriptionId, Webhook)]) {
        self.dispatched.with_label_values(&[kind.name()]).inc();
        if matches.is_empty() {
            self.unmatched.inc();
        }
        self.matched(matches.iter().take(CHUNK));
    }

    pub(crate) fn matched<'a>(&self, matches: impl Iterator<Item = &'a (SubscriptionId, Webhook)>) {
        for (_, webhook) in matches {
            self.matched.with_label_values(&[webhook.name()]).inc();
        }
    }

    pub(crate) fn repeated(&self, differs: bool) {
        self.repeated.inc();
        if differs {
            self.differing.inc();
        }
    }

    pub(crate) fn rejected(&self) {
        self.rejected.inc();
    }
}
