//! The metrics of dispatch.

use herald_domain::catalogue::{EventType, Webhook};
use herald_domain::id::SubscriptionId;
use herald_domain::time::Timestamp;
use herald_ledger::dispatching::{CHUNK, NewEvent};
use herald_queue::{Queue, QueueUse, Received};
use prometheus::{Error, Histogram, HistogramOpts, IntCounter, IntCounterVec, Opts, Registry};

/// Buckets from the time that the embedded queue takes up to an hour, as after an outage of the ledger.
const LATENCY_BUCKETS: [f64; 13] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 300.0, 3600.0,
];

/// Powers of two up to the most events in one transaction.
const BATCH_BUCKETS: [f64; 10] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

/// Why a message was rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rejection {
    /// It is not UTF-8.
    Utf8,
    /// It is neither a JSON object nor an array.
    Json,
    /// It is an array, and its publisher may not send one.
    Array,
    /// The event is too large.
    TooLarge,
    /// The event breaks a rule of the catalogue.
    Invalid,
    /// It has no `Id`, or a malformed one.
    Id,
    /// The ledger refused the event.
    Unrecordable,
}

impl Rejection {
    const ALL: [Self; 7] = [
        Self::Utf8,
        Self::Json,
        Self::Array,
        Self::TooLarge,
        Self::Invalid,
        Self::Id,
        Self::Unrecordable,
    ];

    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Utf8 => "utf8",
            Self::Json => "json",
            Self::Array => "array",
            Self::TooLarge => "too_large",
            Self::Invalid => "invalid",
            Self::Id => "id",
            Self::Unrecordable => "unrecordable",
        }
    }
}

/// The way in which a message came into the queue: by Herald's own ingest, or by another publisher.
const ENTRANCES: [&str; 2] = ["http", "amqp"];

#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    received: IntCounterVec,
    dispatched: IntCounterVec,
    matched: IntCounterVec,
    unmatched: IntCounter,
    repeated: IntCounter,
    differing: IntCounter,
    rejected: IntCounterVec,
    batch_events: Histogram,
    latency: Histogram,
}

impl Metrics {
    /// The metrics of dispatch, and those of `queue`: what it holds, and the connection over which it is read.
    pub(crate) fn register(registry: &Registry, queue: &Queue) -> Result<Self, Error> {
        queue.register_metrics(QueueUse::Consume, registry)?;
        let vector = |name: &str, help: &str, label: &str| -> Result<IntCounterVec, Error> {
            let vector = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(vector.clone()))?;
            Ok(vector)
        };
        let histogram = |name: &str, help: &str, buckets: &[f64]| -> Result<Histogram, Error> {
            let histogram = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))?;
            registry.register(Box::new(histogram.clone()))?;
            Ok(histogram)
        };
        let received = vector(
            "herald_events_received_total",
            "Events that came out of the queue, by the entrance through which they had got in; what is handed out \
             again is counted again.",
            "entrance",
        )?;
        let dispatched = vector(
            "herald_events_dispatched_total",
            "Events recorded in the ledger, by type.",
            "type",
        )?;
        let matched = vector(
            "herald_deliveries_matched_total",
            "Deliveries that followed from events, by webhook.",
            "webhook",
        )?;
        let rejected = vector(
            "herald_events_rejected_total",
            "Messages from the queue that were no events, by reason; they are kept.",
            "reason",
        )?;
        let counter = |name: &str, help: &str| -> Result<IntCounter, Error> {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        for kind in EventType::labels() {
            dispatched.with_label_values(&[kind]);
        }
        for webhook in Webhook::ALL {
            matched.with_label_values(&[webhook.name()]);
        }
        for entrance in ENTRANCES {
            received.with_label_values(&[entrance]);
        }
        for rejection in Rejection::ALL {
            rejected.with_label_values(&[rejection.label()]);
        }
        Ok(Self {
            received,
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
            rejected,
            batch_events: histogram(
                "herald_dispatch_batch_events",
                "Events in one transaction of dispatch.",
                &BATCH_BUCKETS,
            )?,
            latency: histogram(
                "herald_dispatch_latency_seconds",
                "From an event's acceptance to its record in the ledger: how far dispatch is behind.",
                &LATENCY_BUCKETS,
            )?,
        })
    }

    /// Counts a message that came out of the queue.
    pub(crate) fn received(&self, received: &Received) {
        let [http, amqp] = ENTRANCES;
        let entrance = if received.trusted { http } else { amqp };
        let events = u64::try_from(received.origins.events()).unwrap_or(u64::MAX);
        self.received.with_label_values(&[entrance]).inc_by(events);
    }

    /// Counts a batch of so many events that was recorded in one transaction.
    #[expect(clippy::cast_precision_loss, reason = "a batch has a few hundred")]
    pub(crate) fn batch(&self, events: usize) {
        self.batch_events.observe(events as f64);
    }

    /// Counts an event that was recorded now, with at most the first [`CHUNK`] of its matches.
    pub(crate) fn dispatched(&self, event: &NewEvent, now: Timestamp) {
        let matches = &event.matches;
        self.dispatched.with_label_values(&[event.record.kind.label()]).inc();
        let latency = now.since(event.record.accepted_at);
        self.latency.observe(latency.as_secs_f64());
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

    pub(crate) fn rejected(&self, why: Rejection) {
        self.rejected.with_label_values(&[why.label()]).inc();
    }
}
