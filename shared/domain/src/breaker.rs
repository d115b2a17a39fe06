//! A subscriber's circuit breaker: it opens when the subscriber is away, and probes find out when it is back.
//!
//! ```text
//!            a lasting fault
//!   Closed ───────────────────▶ Open ── its time has come ──▶ Probing
//!     ▲                          ▲ │                            │ │
//!     │                          │ └── a success after all ─┐   │ └── it failed: twice as long ─┐
//!     │                          └──────────────────────────┼───┼──────────────────────────────┘
//!     └───────────────────── a success ─────────────────────┴───┘
//! ```
//! A fault is lasting once it has shown for [`LASTING`] in at least [`DISTINCT`] deliveries. Meanwhile either
//! nothing succeeded in [`FAILURES`] attempts or more, or nine of ten attempts failed, of [`ATTEMPTS`] or more
//! within [`WINDOW`]. So neither a burst of failures within seconds nor a single delivery that is tried again and
//! again opens the breaker. A failure that was an answer may be about its delivery alone: with any such failure
//! the fault must have shown for [`LASTING_ANSWERS`].
//!
//! While the breaker is open, one delivery at a time is sent as a probe: 1 s after it opened, and after each failed
//! probe twice as late, at most 30 s. Random times of a fifth more or less keep probes from coming all at once.
//! The delivery that has been due longest may be the one that the subscriber fails on, and would keep the breaker
//! open for all others. So every second probe is reserved for a new delivery for half its interval.

use crate::id::DeliveryId;
use crate::retry::JITTER;
use crate::time::Timestamp;
use std::time::Duration;

/// How long a fault must have shown.
pub const LASTING: Duration = Duration::from_secs(10);

/// How long a fault must have shown if any of the failures was an answer.
pub const LASTING_ANSWERS: Duration = Duration::from_mins(1);

/// In how many deliveries a fault must have shown.
pub const DISTINCT: usize = 10;

/// How many attempts in a row must have failed.
pub const FAILURES: u32 = 20;

/// The span within which the share of failures counts.
pub const WINDOW: Duration = Duration::from_mins(2);

/// How many attempts there must be for the share of failures to count.
pub const ATTEMPTS: u32 = 100;

/// How long after the breaker opened the first probe is due.
pub const FIRST_PROBE: Duration = Duration::from_secs(1);

/// The longest time between two probes.
pub const MAX_PROBE_INTERVAL: Duration = Duration::from_secs(30);

/// The breaker of one subscriber; see the module.
#[derive(Debug, Clone, Default)]
pub struct Breaker {
    state: State,
}

#[derive(Debug, Clone)]
enum State {
    Closed(Evidence),
    Open {
        /// When the next probe is due.
        probe_at: Timestamp,
        /// From when on the probe may be a delivery that is not new.
        old_at: Timestamp,
        /// How many probes have failed since the breaker opened.
        failed: u32,
    },
    Probing {
        delivery: DeliveryId,
        failed: u32,
    },
}

impl Default for State {
    fn default() -> Self {
        Self::Closed(Evidence::default())
    }
}

/// What a failure was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The subscriber was not reached or did not answer in time, or a gateway in front of it said so.
    Away,
    /// It answered with an error.
    Answer,
}

/// What a breaker lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passage {
    /// Every delivery may be sent.
    Free,
    /// One delivery, as a probe.
    Probe,
    /// No delivery may be sent before then.
    ShutUntil(Timestamp),
    /// Nothing before the probe is answered.
    Probing,
}

/// What an outcome did to a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turned {
    /// It is open now.
    Opened,
    /// It is closed now.
    Closed,
}

/// The evidence for a fault that lasts.
#[derive(Debug, Clone, Default)]
struct Evidence {
    /// Since the last success.
    row: Tally,
    /// Within a window that began with a failure.
    share: Tally,
}

#[derive(Debug, Clone, Default)]
struct Tally {
    /// When the first failure was.
    since: Option<Timestamp>,
    attempts: u32,
    failures: u32,
    /// Whether any of them was an answer.
    answered: bool,
    /// Deliveries that failed, at most [`DISTINCT`] of them.
    failed: Vec<DeliveryId>,
}

impl Tally {
    fn failed(&mut self, delivery: DeliveryId, failure: Failure, now: Timestamp) {
        self.answered |= failure == Failure::Answer;
        self.since.get_or_insert(now);
        self.attempts = self.attempts.saturating_add(1);
        self.failures = self.failures.saturating_add(1);
        if self.failed.len() < DISTINCT && !self.failed.contains(&delivery) {
            self.failed.push(delivery);
        }
    }

    fn is_lasting(&self, now: Timestamp) -> bool {
        let lasting = if self.answered { LASTING_ANSWERS } else { LASTING };
        self.failed.len() >= DISTINCT && self.since.is_some_and(|since| now.since(since) >= lasting)
    }
}

impl Evidence {
    fn succeeded(&mut self) {
        self.row = Tally::default();
        if self.share.since.is_some() {
            self.share.attempts = self.share.attempts.saturating_add(1);
        }
    }

    /// Takes in a failure. Returns whether the fault is lasting now.
    fn failed(&mut self, delivery: DeliveryId, failure: Failure, now: Timestamp) -> bool {
        if self.share.since.is_some_and(|since| now.since(since) >= WINDOW) {
            self.share = Tally::default();
        }
        self.row.failed(delivery, failure, now);
        self.share.failed(delivery, failure, now);
        let share = &self.share;
        let most_failed = u64::from(share.failures) * 10 >= u64::from(share.attempts) * 9;
        self.row.failures >= FAILURES && self.row.is_lasting(now)
            || share.attempts >= ATTEMPTS && most_failed && share.is_lasting(now)
    }
}

impl Breaker {
    /// Whether the breaker is closed and holds nothing back.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed(_))
    }

    /// What the breaker lets through now.
    pub fn passage(&mut self, now: Timestamp) -> Passage {
        match &mut self.state {
            State::Closed(_) => Passage::Free,
            State::Probing { .. } => Passage::Probing,
            State::Open { probe_at, old_at, .. } => {
                // The clock may have been set back; no probe comes later by that.
                *probe_at = (*probe_at).min(now.plus(MAX_PROBE_INTERVAL));
                *old_at = (*old_at).min(probe_at.plus(MAX_PROBE_INTERVAL / 2));
                if *probe_at <= now {
                    Passage::Probe
                } else {
                    Passage::ShutUntil(*probe_at)
                }
            }
        }
    }

    /// From when on a probe may be a delivery that is not new; `None` if the breaker does not wait for a probe.
    pub fn old_at(&self) -> Option<Timestamp> {
        match self.state {
            State::Open { old_at, .. } => Some(old_at),
            State::Closed(_) | State::Probing { .. } => None,
        }
    }

    /// Until when the breaker must be remembered though no delivery is open that it would hold back; `None` if it
    /// is closed. If the subscriber is still away after that, a new breaker opens soon enough.
    pub fn matters_until(&self) -> Option<Timestamp> {
        match &self.state {
            State::Closed(_) => None,
            State::Open { probe_at, .. } => Some(probe_at.plus(MAX_PROBE_INTERVAL)),
            // The probe is in flight.
            State::Probing { .. } => Some(Timestamp::from_micros(i64::MAX)),
        }
    }

    /// Takes note that an attempt begins. If the breaker is open, the attempt is the probe.
    pub fn begin(&mut self, delivery: DeliveryId) {
        if let State::Open { failed, .. } = self.state {
            self.state = State::Probing { delivery, failed };
        }
    }

    /// Takes in an attempt that succeeded, whenever it began.
    pub fn succeeded(&mut self) -> Option<Turned> {
        if let State::Closed(evidence) = &mut self.state {
            evidence.succeeded();
            return None;
        }
        *self = Self::default();
        Some(Turned::Closed)
    }

    /// Takes in an attempt that failed. `jitter` is a random number from 0 to 1.
    pub fn failed(&mut self, delivery: DeliveryId, failure: Failure, now: Timestamp, jitter: f64) -> Option<Turned> {
        match &mut self.state {
            State::Closed(evidence) => {
                if !evidence.failed(delivery, failure, now) {
                    return None;
                }
                self.open(0, now, jitter);
                Some(Turned::Opened)
            }
            State::Probing {
                delivery: probe,
                failed,
            } if *probe == delivery => {
                let failed = failed.saturating_add(1);
                self.open(failed, now, jitter);
                None
            }
            // The attempt began before the breaker opened, and says nothing new.
            State::Probing { .. } | State::Open { .. } => None,
        }
    }

    /// Takes back an attempt that was not made after all. If it was the probe, another is sent in its place.
    pub fn withdrawn(&mut self, delivery: DeliveryId, now: Timestamp) {
        if let State::Probing {
            delivery: probe,
            failed,
        } = self.state
            && probe == delivery
        {
            let probe_at = now.plus(FIRST_PROBE);
            self.state = State::Open {
                probe_at,
                old_at: probe_at,
                failed,
            };
        }
    }

    fn open(&mut self, failed: u32, now: Timestamp, jitter: f64) {
        let doubled = FIRST_PROBE.saturating_mul(1u32.checked_shl(failed).unwrap_or(u32::MAX));
        let factor = 1.0 - JITTER + 2.0 * JITTER * jitter.clamp(0.0, 1.0);
        let interval = doubled.min(MAX_PROBE_INTERVAL).mul_f64(factor).min(MAX_PROBE_INTERVAL);
        let probe_at = now.plus(interval);
        let old_at = if failed % 2 == 1 {
            probe_at.plus(interval / 2)
        } else {
            probe_at
        };
        self.state = State::Open {
            probe_at,
            old_at,
            failed,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use uuid::Uuid;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_micros(1_763_800_000_000_000).plus(Duration::from_millis(millis))
    }

    fn delivery(n: u64) -> DeliveryId {
        DeliveryId(Uuid::from_u128(n.into()))
    }

    /// A breaker that opened at 10 s.
    fn open() -> Breaker {
        let mut breaker = Breaker::default();
        for n in 0..40 {
            assert_eq!(breaker.failed(delivery(n), Failure::Away, at(n * 250), 0.5), None);
        }
        assert_eq!(
            breaker.failed(delivery(40), Failure::Away, at(10_000), 0.5),
            Some(Turned::Opened)
        );
        breaker
    }

    #[test]
    fn it_opens_when_nothing_succeeded_for_long_enough_in_enough_attempts() {
        let mut breaker = open();
        assert!(!breaker.is_closed());
        assert_eq!(breaker.passage(at(10_000)), Passage::ShutUntil(at(11_000)));
        assert_eq!(breaker.passage(at(11_000)), Passage::Probe);
    }

    #[test]
    fn answers_must_be_errors_for_longer() {
        let mut breaker = Breaker::default();
        for n in 0..59 {
            let failure = if n == 0 { Failure::Answer } else { Failure::Away };
            assert_eq!(breaker.failed(delivery(n), failure, at(n * 1000), 0.5), None);
        }
        let opened = breaker.failed(delivery(60), Failure::Away, at(60_000), 0.5);
        assert_eq!(opened, Some(Turned::Opened));
    }

    #[test]
    fn every_second_probe_is_for_a_while_for_what_is_new() {
        let mut breaker = open();
        assert_eq!(breaker.old_at(), Some(at(11_000)));
        let mut reserved = Vec::new();
        let mut now = at(11_000);
        for n in 100..104 {
            breaker.begin(delivery(n));
            assert_eq!(breaker.old_at(), None);
            breaker.failed(delivery(n), Failure::Away, now, 0.5);
            let Passage::ShutUntil(probe_at) = breaker.passage(now) else {
                panic!("{breaker:?}");
            };
            now = probe_at;
            reserved.push(breaker.old_at().unwrap().since(probe_at).as_secs());
        }
        assert_eq!(reserved, [1, 0, 4, 0]);
    }

    #[test]
    fn a_burst_of_failures_within_seconds_does_not_open_it() {
        let mut breaker = Breaker::default();
        for n in 0..9_999 {
            assert_eq!(breaker.failed(delivery(n), Failure::Away, at(n), 0.5), None);
        }
        assert!(breaker.is_closed());
    }

    #[test]
    fn nine_deliveries_that_are_tried_again_and_again_do_not_open_it() {
        let mut breaker = Breaker::default();
        for n in 0..100_000 {
            assert_eq!(breaker.failed(delivery(n % 9), Failure::Away, at(n * 20), 0.5), None);
        }
    }

    #[test]
    fn a_share_of_nine_tenths_opens_it_and_less_does_not() {
        let opens = |one_in: u64| {
            let mut breaker = Breaker::default();
            (0..1000).any(|n| {
                if n % one_in == 1 {
                    breaker.succeeded();
                    false
                } else {
                    breaker.failed(delivery(n), Failure::Away, at(n * 100), 0.5) == Some(Turned::Opened)
                }
            })
        };
        assert!(opens(11));
        assert!(!opens(8));
    }

    #[test]
    fn probes_come_ever_later_and_a_success_closes_it() {
        let mut breaker = open();
        let mut now = at(10_000);
        let mut intervals = Vec::new();
        for n in 100..109 {
            let Passage::ShutUntil(probe_at) = breaker.passage(now) else {
                panic!("{breaker:?}");
            };
            intervals.push(probe_at.since(now).as_secs());
            now = probe_at;
            breaker.begin(delivery(n));
            assert_eq!(breaker.passage(now), Passage::Probing);
            assert_eq!(
                breaker.failed(delivery(1), Failure::Away, now, 0.5),
                None,
                "from before it opened"
            );
            assert_eq!(breaker.passage(now), Passage::Probing);
            assert_eq!(breaker.failed(delivery(n), Failure::Away, now, 0.5), None);
        }
        assert_eq!(intervals, [1, 2, 4, 8, 16, 30, 30, 30, 30]);
        assert_eq!(breaker.succeeded(), Some(Turned::Closed));
        assert_eq!(breaker.passage(now), Passage::Free);
        assert_eq!(breaker.matters_until(), None);
    }

    #[test]
    fn a_probe_that_was_not_sent_is_no_failure() {
        let mut breaker = open();
        breaker.begin(delivery(100));
        breaker.withdrawn(delivery(100), at(20_000));
        assert_eq!(breaker.passage(at(20_000)), Passage::ShutUntil(at(21_000)));
        breaker.begin(delivery(101));
        breaker.failed(delivery(101), Failure::Away, at(21_000), 0.5);
        assert_eq!(breaker.passage(at(21_000)), Passage::ShutUntil(at(23_000)));
    }

    #[test]
    fn a_clock_that_was_set_back_does_not_keep_it_shut() {
        let mut breaker = open();
        let past = at(0).minus(Duration::from_hours(1));
        let latest = past.plus(MAX_PROBE_INTERVAL);
        assert_eq!(breaker.passage(past), Passage::ShutUntil(latest));
        assert_eq!(breaker.passage(latest), Passage::Probe);
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Wait(u64),
        Try(u64),
        Succeed,
        Fail(u64),
        Withdraw(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            2 => (0u64..3000).prop_map(Step::Wait),
            4 => (0u64..30).prop_map(Step::Try),
            1 => Just(Step::Succeed),
            9 => (0u64..30).prop_map(Step::Fail),
            1 => (0u64..30).prop_map(Step::Withdraw),
        ]
    }

    proptest! {
        #[test]
        fn it_never_opens_within_ten_seconds_of_the_first_failure_and_always_lets_a_probe_through_within_half_a_minute(
            steps in prop::collection::vec(step(), 0..300), jitter in 0.0f64..=1.0,
        ) {
            let (mut breaker, mut now, mut first_failure) = (Breaker::default(), 0, None);
            for step in steps {
                match step {
                    Step::Wait(millis) => now += millis,
                    Step::Try(n) => if matches!(breaker.passage(at(now)), Passage::Probe) {
                        breaker.begin(delivery(n));
                        prop_assert_eq!(breaker.passage(at(now)), Passage::Probing, "one at a time");
                    },
                    Step::Succeed => {
                        breaker.succeeded();
                        prop_assert!(breaker.is_closed());
                    }
                    Step::Fail(n) => {
                        let first = *first_failure.get_or_insert(now);
                        if breaker.failed(delivery(n), Failure::Away, at(now), jitter) == Some(Turned::Opened) {
                            prop_assert!(now - first >= 10_000);
                        }
                    }
                    Step::Withdraw(n) => breaker.withdrawn(delivery(n), at(now)),
                }
                if let Passage::ShutUntil(probe_at) = breaker.passage(at(now)) {
                    prop_assert!(probe_at > at(now) && probe_at.since(at(now)) <= MAX_PROBE_INTERVAL);
                }
            }
        }
    }
}
