//! What deliver counts.

use crate::recorder::Recorded;
use herald_domain::delivery::{Attempt, AttemptError, Closed, Delivery, Outcome, Status};
use herald_domain::lanes::{LaneState, Load};
use herald_domain::time::Timestamp;
use herald_ledger::dispatching::EventRecord;
use prometheus::{
    Error, Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
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

#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    attempts: IntCounterVec,
    attempt_seconds: Histogram,
    first_attempt_seconds: Histogram,
    delivered_seconds: Histogram,
    closed: IntCounterVec,
    retries: IntCounter,
    past_due_seconds: Gauge,
    lanes: IntGauge,
    lanes_by_state: IntGaugeVec,
    breakers_opened: IntCounter,
    in_flight: IntGauge,
    buffered: IntGauge,
    recording: IntGauge,
    shards_owned: IntGauge,
    shard_handovers: IntCounterVec,
    shard_takeovers: IntCounter,
    dead_letters: IntCounter,
    dead_letters_waiting: IntGauge,
}

/// Which way shards went.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Direction {
    Taken,
    Given,
}

impl Direction {
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
                "result",
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
            delivered_seconds: histogram(
                "herald_end_to_end_latency_seconds",
                "From an event's acceptance to a subscriber's 2xx.",
                &END_TO_END_BUCKETS,
            )?,
            closed: vector(
                "herald_deliveries_closed_total",
                "Deliveries that ended, by how.",
                "status",
            )?,
            retries: counter("herald_retries_total", "Attempts beyond a delivery's first.")?,
            past_due_seconds,
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
            shards_owned: gauge(
                "herald_shards_owned",
                "Shards whose deliveries this process sends, of 256.",
            )?,
            shard_handovers: vector(
                "herald_shard_handovers_total",
                "Shards that this process took or gave back.",
                "direction",
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
        }
        for direction in Direction::ALL {
            metrics.shard_handovers.with_label_values(&[direction.name()]);
        }
        for end in Closed::ALL {
            metrics.closed.with_label_values(&[Status::Closed(end).name()]);
        }
        Ok(metrics)
    }

    pub(crate) fn attempted(&self, attempt: &Attempt, delivery: &Delivery, event: &EventRecord, now: Timestamp) {
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
                .observe(now.since(event.accepted_at).as_secs_f64());
        }
    }

    pub(crate) fn recorded(&self, recorded: &Recorded) {
        if let Some(end) = recorded.closed {
            self.closed.with_label_values(&[Status::Closed(end).name()]).inc();
        }
    }

    pub(crate) fn shards_owned(&self, shards: usize) {
        self.shards_owned.set(i64::try_from(shards).unwrap_or(i64::MAX));
    }

    pub(crate) fn shards_moved(&self, shards: usize, direction: Direction) {
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

    pub(crate) fn breaker_opened(&self) {
        self.breakers_opened.inc();
    }

    pub(crate) fn lanes_by_state(&self, states: impl Iterator<Item = LaneState>) {
        let mut counts = LaneState::ALL.map(|state| (state, 0));
        for state in states {
            if let Some((_, count)) = counts.iter_mut().find(|(counted, _)| *counted == state) {
                *count += 1;
            }
        }
        for (state, count) in counts {
            self.lanes_by_state.with_label_values(&[state.name()]).set(count);
        }
    }

    pub(crate) fn gauges(&self, load: Load, oldest_past_due: Duration) {
        let set = |gauge: &IntGauge, value: usize| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        self.past_due_seconds.set(oldest_past_due.as_secs_f64());
        set(&self.lanes, load.lanes);
        set(&self.in_flight, load.in_flight);
        set(&self.buffered, load.buffered);
        set(&self.recording, load.recording);
    }
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

fn result_of(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Answered { status: 200..=299, .. } => "2xx",
        Outcome::Answered { status: 300..=399, .. } => "3xx",
        Outcome::Answered { status: 400..=499, .. } => "4xx",
        Outcome::Answered { status: 500..=599, .. } => "5xx",
        Outcome::Answered { .. } | Outcome::Failed(AttemptError::Http) => "other",
        Outcome::Failed(error) => error.name(),
    }
}
