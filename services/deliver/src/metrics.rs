//! What deliver counts.

use herald_domain::catalogue::Webhook;
use herald_domain::delivery::{Attempt, AttemptError, Closed, Delivery, Outcome, Status};
use herald_domain::lanes::{LaneState, Load, Survey};
use herald_domain::time::Timestamp;
use herald_ledger::dispatching::EventRecord;
use prometheus::{
    Error, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry,
};
use std::time::Duration;

/// From what a receiver next door takes to the longest timeout.
const ATTEMPT_BUCKETS: [f64; 13] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 30.0,
];

/// From the time of two syncs to disk to the last retry.
const END_TO_END_BUCKETS: [f64; 15] = [
    0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 300.0, 3600.0, 21_600.0, 259_200.0,
];

/// Powers of two up to the most outcomes in one transaction.
const BATCH_BUCKETS: [f64; 10] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    attempts: IntCounterVec,
    attempt_seconds: Histogram,
    first_attempt_seconds: Histogram,
    delivered_seconds: HistogramVec,
    closed: IntCounterVec,
    retries: IntCounter,
    postponed: IntCounter,
    past_due_seconds: Gauge,
    past_due_by_state: GaugeVec,
    lanes: IntGauge,
    lanes_by_state: IntGaugeVec,
    breakers_opened: IntCounter,
    in_flight: IntGauge,
    buffered: IntGauge,
    recording: IntGauge,
    lanes_bytes: IntGauge,
    lanes_bytes_limit: IntGauge,
    recorded_batch: Histogram,
    shards_owned: IntGauge,
    shard_handovers: IntCounterVec,
    shard_takeovers: IntCounter,
    dead_letters: IntCounter,
    dead_letters_waiting: IntGauge,
    outbox_seconds: GaugeVec,
    deactivated: IntCounter,
}

/// Whether a subscriber got what it was sent as soon as this process could send it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum SubscriberState {
    /// It took the first attempt, and nothing of the subscriber's held it back.
    Free,
    /// It had failed before, or its lane was held back at some time since the event's acceptance.
    HeldBack,
}

impl SubscriberState {
    const ALL: [Self; 2] = [Self::Free, Self::HeldBack];

    const fn name(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::HeldBack => "held_back",
        }
    }
}

/// What the outbox does.
#[derive(Debug, Clone, Copy)]
pub(crate) enum OutboxJob {
    CancelDeliveries,
    DeadLetter,
}

impl OutboxJob {
    const ALL: [Self; 2] = [Self::CancelDeliveries, Self::DeadLetter];

    const fn name(self) -> &'static str {
        match self {
            Self::CancelDeliveries => "cancel_deliveries",
            Self::DeadLetter => "dead_letter",
        }
    }
}

/// Which way shards went.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ShardMove {
    Taken,
    Given,
}

impl ShardMove {
    const ALL: [Self; 2] = [Self::Taken, Self::Given];

    const fn name(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Given => "given",
        }
    }
}

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> Result<Self, Error> {
        let vector = |name: &str, help: &str, labels: &[&str]| -> Result<IntCounterVec, Error> {
            let vector = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(vector.clone()))?;
            Ok(vector)
        };
        let histogram = |name: &str, help: &str, buckets: &[f64]| -> Result<Histogram, Error> {
            let histogram = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))?;
            registry.register(Box::new(histogram.clone()))?;
            Ok(histogram)
        };
        let gauge = |name: &str, help: &str| -> Result<IntGauge, Error> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let counter = |name: &str, help: &str| -> Result<IntCounter, Error> {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let past_due_seconds = Gauge::new(
            "herald_deliveries_oldest_past_due_seconds",
            "How long the delivery that waits longest has been due, of those that this process is to send.",
        )?;
        registry.register(Box::new(past_due_seconds.clone()))?;
        let gauges = |name: &str, help: &str, label: &str| -> Result<GaugeVec, Error> {
            let gauges = GaugeVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(gauges.clone()))?;
            Ok(gauges)
        };
        let delivered_seconds = HistogramVec::new(
            HistogramOpts::new(
                "herald_end_to_end_latency_seconds",
                "From an event's acceptance to a subscriber's 2xx, by whether the subscriber held its deliveries back: \
                 failed before, or had them wait by its breaker, its pace or its limits.",
            )
            .buckets(END_TO_END_BUCKETS.to_vec()),
            &["lane"],
        )?;
        registry.register(Box::new(delivered_seconds.clone()))?;
        let lanes_by_state = IntGaugeVec::new(
            Opts::new(
                "herald_lanes_by_state",
                "Subscriptions with deliveries in memory or waiting in the ledger, by what holds them back.",
            ),
            &["state"],
        )?;
        registry.register(Box::new(lanes_by_state.clone()))?;
        let metrics = Self {
            attempts: vector(
                "herald_attempts_total",
                "Requests to subscribers, by what they came to.",
                &["result"],
            )?,
            attempt_seconds: histogram(
                "herald_attempt_duration_seconds",
                "From the start of an attempt to its answer or failure.",
                &ATTEMPT_BUCKETS,
            )?,
            first_attempt_seconds: histogram(
                "herald_first_attempt_latency_seconds",
                "From an event's acceptance to the start of a delivery's first attempt.",
                &END_TO_END_BUCKETS,
            )?,
            delivered_seconds,
            closed: vector(
                "herald_deliveries_closed_total",
                "Deliveries that ended, by how and by webhook; one that ended without success and is delivered by an \
                 attempt that was still under way counts both times.",
                &["status", "webhook"],
            )?,
            retries: counter("herald_retries_total", "Attempts beyond a delivery's first.")?,
            postponed: counter(
                "herald_attempts_postponed_total",
                "Attempts that were not made because this process is short of descriptors, ports or memory.",
            )?,
            past_due_seconds,
            past_due_by_state: gauges(
                "herald_lanes_oldest_past_due_seconds",
                "How long the delivery that waits longest has been due, by what holds its subscription back; free is \
                 what waits for this process alone.",
                "state",
            )?,
            lanes: gauge(
                "herald_lanes",
                "Subscriptions with deliveries in memory or waiting in the ledger.",
            )?,
            lanes_by_state,
            breakers_opened: counter(
                "herald_breaker_openings_total",
                "How often deliveries to a subscriber were suspended because it kept failing.",
            )?,
            in_flight: gauge("herald_attempts_in_flight", "Attempts under way.")?,
            buffered: gauge(
                "herald_deliveries_buffered",
                "Deliveries in memory that wait for their turn.",
            )?,
            recording: gauge("herald_outcomes_unrecorded", "Outcomes on their way to the ledger.")?,
            lanes_bytes: gauge(
                "herald_lanes_bytes",
                "Bytes of payload in memory: of deliveries that wait, are being sent or are being read from the ledger.",
            )?,
            lanes_bytes_limit: gauge(
                "herald_lanes_bytes_limit",
                "How many bytes of payload there may be in memory; beyond it deliveries stay in the ledger.",
            )?,
            recorded_batch: histogram(
                "herald_outcomes_batch_deliveries",
                "Outcomes in one transaction of deliver.",
                &BATCH_BUCKETS,
            )?,
            shards_owned: gauge(
                "herald_shards_owned",
                "Shards whose deliveries this process sends, of 256.",
            )?,
            shard_handovers: vector(
                "herald_shard_handovers_total",
                "Shards that this process took or gave back.",
                &["direction"],
            )?,
            shard_takeovers: counter(
                "herald_shard_takeovers_total",
                "Shards taken from a process whose lease ran out.",
            )?,
            dead_letters: counter(
                "herald_dead_letters_published_total",
                "Copies of dead deliveries that the broker confirmed.",
            )?,
            dead_letters_waiting: gauge(
                "herald_dead_letters_unpublished",
                "Copies of dead deliveries that could not be published at the last try; at most 100 are tried at a time.",
            )?,
            outbox_seconds: gauges(
                "herald_outbox_oldest_age_seconds",
                "How long the oldest job of the outbox that is this process's has waited, by what it does.",
                "kind",
            )?,
            deactivated: counter(
                "herald_subscriptions_deactivated_total",
                "Subscriptions that were deactivated because their subscribers answered 410.",
            )?,
        };
        for result in ["2xx", "3xx", "4xx", "5xx", "other"] {
            metrics.attempts.with_label_values(&[result]);
        }
        for error in AttemptError::ALL {
            if error != AttemptError::Http {
                metrics.attempts.with_label_values(&[error.name()]);
            }
        }
        for state in LaneState::ALL {
            metrics.lanes_by_state.with_label_values(&[state.name()]);
            metrics.past_due_by_state.with_label_values(&[state.name()]);
        }
        for lane in SubscriberState::ALL {
            metrics.delivered_seconds.with_label_values(&[lane.name()]);
        }
        for job in OutboxJob::ALL {
            metrics.outbox_seconds.with_label_values(&[job.name()]);
        }
        for direction in ShardMove::ALL {
            metrics.shard_handovers.with_label_values(&[direction.name()]);
        }
        for end in Closed::ALL {
            for webhook in Webhook::ALL {
                metrics.closed_as(end, webhook, 0);
            }
        }
        Ok(metrics)
    }

    /// An attempt is over; `lane` is how its subscription's was until then.
    pub(crate) fn attempted(
        &self,
        attempt: &Attempt,
        delivery: &Delivery,
        event: &EventRecord,
        lane: SubscriberState,
        now: Timestamp,
    ) {
        self.attempts.with_label_values(&[result_of(attempt.outcome)]).inc();
        self.attempt_seconds.observe(attempt.duration.as_secs_f64());
        if delivery.attempts == 0 {
            self.first_attempt_seconds
                .observe(attempt.at.since(event.accepted_at).as_secs_f64());
        } else {
            self.retries.inc();
        }
        if attempt.outcome.is_success() {
            self.delivered_seconds
                .with_label_values(&[lane.name()])
                .observe(now.since(event.accepted_at).as_secs_f64());
        }
    }

    /// That many deliveries ended so.
    pub(crate) fn closed_as(&self, end: Closed, webhook: Webhook, deliveries: u64) {
        let labels = [Status::Closed(end).name(), webhook.name()];
        self.closed.with_label_values(&labels).inc_by(deliveries);
    }

    /// A batch of that many outcomes was recorded in one transaction.
    #[expect(clippy::cast_precision_loss, reason = "a batch has a few hundred")]
    pub(crate) fn batch(&self, outcomes: usize) {
        self.recorded_batch.observe(outcomes as f64);
    }

    /// The outbox was looked at, and its oldest job of that kind has waited for so long.
    pub(crate) fn outbox(&self, job: OutboxJob, oldest: Duration) {
        self.outbox_seconds
            .with_label_values(&[job.name()])
            .set(oldest.as_secs_f64());
    }

    pub(crate) fn deactivated(&self, subscriptions: usize) {
        self.deactivated.inc_by(count(subscriptions));
    }

    pub(crate) fn shards_owned(&self, shards: usize) {
        self.shards_owned.set(i64::try_from(shards).unwrap_or(i64::MAX));
    }

    pub(crate) fn shards_moved(&self, shards: usize, direction: ShardMove) {
        self.shard_handovers
            .with_label_values(&[direction.name()])
            .inc_by(count(shards));
    }

    pub(crate) fn shards_taken_over(&self, shards: usize) {
        self.shard_takeovers.inc_by(count(shards));
    }

    pub(crate) fn dead_letters(&self, published: usize, waiting: usize) {
        self.dead_letters.inc_by(count(published));
        self.dead_letters_waiting
            .set(i64::try_from(waiting).unwrap_or(i64::MAX));
    }

    pub(crate) fn postponed(&self) {
        self.postponed.inc();
    }

    pub(crate) fn breaker_opened(&self) {
        self.breakers_opened.inc();
    }

    pub(crate) fn lanes_by_state(&self, surveys: &[Survey], now: Timestamp) {
        for survey in surveys {
            let label = [survey.state.name()];
            let lanes = i64::try_from(survey.lanes).unwrap_or(i64::MAX);
            self.lanes_by_state.with_label_values(&label).set(lanes);
            let past_due = survey.oldest_due.map(|due| now.since(due)).unwrap_or_default();
            self.past_due_by_state
                .with_label_values(&label)
                .set(past_due.as_secs_f64());
        }
    }

    pub(crate) fn gauges(&self, load: Load, oldest_past_due: Duration) {
        let set = |gauge: &IntGauge, value: usize| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        self.past_due_seconds.set(oldest_past_due.as_secs_f64());
        set(&self.lanes, load.lanes);
        set(&self.in_flight, load.in_flight);
        set(&self.buffered, load.buffered);
        set(&self.recording, load.recording);
        set(&self.lanes_bytes, load.bytes);
        set(&self.lanes_bytes_limit, load.most_bytes);
    }
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

/// What an attempt came to, in few words.
pub(crate) fn result_of(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Answered { status: 200..=299, .. } => "2xx",
        Outcome::Answered { status: 300..=399, .. } => "3xx",
        Outcome::Answered { status: 400..=499, .. } => "4xx",
        Outcome::Answered { status: 500..=599, .. } => "5xx",
        Outcome::Answered { .. } | Outcome::Failed(AttemptError::Http) => "other",
        Outcome::Failed(error) => error.name(),
    }
}
