//! Flow control of one lane: breaker, pause, rate and limit in flight decide how much is sent, and when.

use super::state::LaneState;
use crate::breaker::{Breaker, Failure, Passage, Turned};
use crate::delivery::{AttemptError, Delivery, Outcome};
use crate::id::{AccountId, DeliveryId};
use crate::in_flight_limit::{InFlightLimit, Turn};
use crate::rate_limit::{Rate, RateLimit};
use crate::retry::RetryPolicy;
use crate::time::Timestamp;
use std::num::NonZeroU16;
use std::time::Duration;

/// The longest that an answer may hold back a whole lane.
pub const MAX_PAUSE: Duration = Duration::from_mins(1);

/// What a subscription says about its lane.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Terms {
    /// The account that the subscription belongs to. The lanes of one account have a share in common.
    pub owner: AccountId,
    /// The most attempts at a time.
    pub max_in_flight: NonZeroU16,
    /// The most attempts a second, if there is a limit.
    pub rate: Option<Rate>,
    /// How long after a delivery was opened it is given up.
    pub give_up_after: Duration,
    /// When the subscription was last changed. After a change its lane starts afresh, whatever the breaker or an
    /// answer said before: a mended URL is tried at once.
    pub changed_at: Timestamp,
}

impl Terms {
    /// The terms of a subscription that is not known, or not any more: its deliveries are only closed.
    pub const UNKNOWN: Self = Self {
        owner: AccountId(uuid::Uuid::nil()),
        max_in_flight: NonZeroU16::new(64).expect("64 is not zero"),
        rate: None,
        give_up_after: Duration::MAX,
        changed_at: Timestamp::from_micros(i64::MIN),
    };
}

/// What an attempt says about its subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// How it went.
    pub verdict: Verdict,
    /// For how long the subscriber wants no more, at most [`MAX_PAUSE`]. A wait that 404, 408, 413 or 425 asks
    /// for concerns only the one delivery and is no pause.
    pub pause: Option<Duration>,
}

/// How an attempt went, as far as it concerns the attempts after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The subscriber is there: it took this delivery, or refused it alone (3xx, 4xx).
    Served,
    /// The subscriber has too much: 429, 408, 504, or no answer in time.
    Overload,
    /// The subscriber says that it cannot serve now: 503. A later success ends the pause that it asked for,
    /// because a subscriber may refuse one request of many so.
    Unavailable,
    /// The subscriber answered with an error that may be about this delivery alone: any other 5xx.
    Error,
    /// The subscriber was not reached: a failed connection, or 502.
    Failure,
    /// Nothing was sent.
    Unsent,
}

impl Answer {
    /// Nothing was sent: the delivery was closed for another reason.
    pub const UNSENT: Self = Self {
        verdict: Verdict::Unsent,
        pause: None,
    };

    /// What an outcome says. No pause is longer than the longest delay of the policy, as with retries.
    pub fn of(outcome: Outcome, policy: &RetryPolicy) -> Self {
        let (verdict, pause) = match outcome {
            Outcome::Answered { status, retry_after } => {
                let verdict = match status {
                    408 | 429 | 504 => Verdict::Overload,
                    503 => Verdict::Unavailable,
                    502 => Verdict::Failure,
                    200..=499 => Verdict::Served,
                    _ => Verdict::Error,
                };
                (
                    verdict,
                    retry_after.filter(|_| !matches!(status, 404 | 408 | 413 | 425)),
                )
            }
            Outcome::Failed(AttemptError::Timeout) => (Verdict::Overload, None),
            Outcome::Failed(AttemptError::AddressRefused) => (Verdict::Unsent, None),
            Outcome::Failed(
                AttemptError::Connect
                | AttemptError::Tls
                | AttemptError::Dns
                | AttemptError::Reset
                | AttemptError::ResponseTooLarge
                | AttemptError::Http,
            ) => (Verdict::Failure, None),
        };
        Self {
            verdict,
            pause: pause.map(|pause| pause.min(policy.max)),
        }
    }
}

/// Whether an attempt may begin. The limits in flight come on top of that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gate {
    /// Yes.
    Free,
    /// One may, to see whether the subscriber is back.
    Probe,
    /// Not before then.
    Until(Timestamp),
    /// Not before the probe is answered.
    Probing,
}

/// The longest wait for which a delivery is kept in memory: beyond it, other lanes need the room.
const LONG: Duration = Duration::from_secs(1);

/// Whether the wait until `then` is so long that what waits is left to the ledger.
pub(super) fn is_long(then: Timestamp, now: Timestamp) -> bool {
    then.since(now) > LONG
}

#[derive(Debug)]
pub(super) struct FlowControl {
    terms: Terms,
    in_flight: InFlightLimit,
    breaker: Breaker,
    rate: RateLimit,
    /// The end of a pause that an answer asked for.
    paused_until: Option<Timestamp>,
    /// The end of a pause that an answer asked for, and that ends sooner if something succeeds.
    away_until: Option<Timestamp>,
}

impl Default for FlowControl {
    fn default() -> Self {
        Self {
            terms: Terms::UNKNOWN,
            in_flight: InFlightLimit::default(),
            breaker: Breaker::default(),
            rate: RateLimit::default(),
            paused_until: None,
            away_until: None,
        }
    }
}

impl FlowControl {
    /// Takes over the terms of the subscription.
    pub(super) fn follow(&mut self, terms: Terms) {
        if terms.changed_at != self.terms.changed_at {
            // What was sent so far still counts against the rate.
            *self = Self {
                rate: self.rate,
                ..Self::default()
            };
        }
        self.terms = terms;
    }

    /// The most attempts at a time, now.
    pub(super) fn limit(&self) -> usize {
        self.in_flight.get(self.terms.max_in_flight)
    }

    /// How many attempts at a time may be retries: three quarters, so that first attempts find room.
    pub(super) fn retry_limit(&self) -> usize {
        let limit = self.limit();
        limit - limit / 4
    }

    /// Whether the breaker is open: only probes are sent, and nothing else is kept in memory.
    pub(super) fn is_shut(&self) -> bool {
        !self.breaker.is_closed()
    }

    /// Whether more may be kept in memory, because it may be sent soon, be it as a probe.
    pub(super) fn admits(&mut self, now: Timestamp) -> bool {
        match self.gate(now) {
            Gate::Free | Gate::Probe => true,
            Gate::Until(then) => !self.is_shut() && !is_long(then, now),
            Gate::Probing => false,
        }
    }

    /// Whether the rate is so low that no two attempts begin within [`LONG`].
    pub(super) fn is_rare(&self) -> bool {
        self.terms.rate.is_some_and(|rate| rate.interval() > LONG)
    }

    /// The time from which the ledger may be read for a probe, if one is awaited.
    pub(super) fn probe_from_ledger_at(&self) -> Option<Timestamp> {
        self.breaker.old_at()
    }

    pub(super) fn has_expired(&self, delivery: &Delivery, now: Timestamp) -> bool {
        delivery.opened_at.plus(self.terms.give_up_after) <= now
    }

    pub(super) fn gate(&mut self, now: Timestamp) -> Gate {
        let gate = match self.breaker.passage(now) {
            Passage::Free => Gate::Free,
            Passage::Probe => Gate::Probe,
            Passage::ShutUntil(then) => return Gate::Until(then),
            Passage::Probing => return Gate::Probing,
        };
        for pause in [&mut self.paused_until, &mut self.away_until] {
            // The clock may have been set back; no pause gets longer by that.
            *pause = pause
                .map(|until| until.min(now.plus(MAX_PAUSE)))
                .filter(|until| *until > now);
        }
        let ready_at = self.terms.rate.and_then(|rate| self.rate.ready_at(rate, now));
        match self.pause().max(ready_at) {
            Some(then) if then > now => Gate::Until(then),
            Some(_) | None => gate,
        }
    }

    fn pause(&self) -> Option<Timestamp> {
        self.paused_until.max(self.away_until)
    }

    /// Counts an attempt that begins.
    pub(super) fn begin(&mut self, delivery: DeliveryId, now: Timestamp) -> Turn {
        self.breaker.begin(delivery);
        if let Some(rate) = self.terms.rate {
            self.rate.take(rate, now);
        }
        self.in_flight.begin()
    }

    /// Hears how an attempt went. `jitter` is a random number from 0 to 1.
    pub(super) fn hear(
        &mut self,
        delivery: DeliveryId,
        turn: Turn,
        answer: Answer,
        now: Timestamp,
        jitter: f64,
    ) -> Option<Turned> {
        match answer.pause {
            Some(pause) if answer.verdict == Verdict::Unavailable => {
                self.away_until = self.away_until.max(Some(now.plus(pause.min(MAX_PAUSE))));
            }
            Some(pause) => self.wait(pause, now),
            None => {}
        }
        let most = self.terms.max_in_flight;
        match answer.verdict {
            Verdict::Served => {
                self.away_until = None;
                self.in_flight.succeeded(most);
                let turned = self.breaker.succeeded();
                if turned == Some(Turned::Closed) {
                    self.in_flight.ramp();
                }
                turned
            }
            Verdict::Overload | Verdict::Unavailable => {
                self.in_flight.overloaded(turn, most);
                self.breaker.failed(delivery, Failure::Away, now, jitter)
            }
            Verdict::Failure => self.breaker.failed(delivery, Failure::Away, now, jitter),
            Verdict::Error => self.breaker.failed(delivery, Failure::Answer, now, jitter),
            // Nobody was asked. The breaker closes, or each delivery that is closed unsent would wait for a probe.
            Verdict::Unsent => {
                let was_shut = self.is_shut();
                if was_shut {
                    self.breaker = Breaker::default();
                }
                was_shut.then_some(Turned::Closed)
            }
        }
    }

    /// Pauses the lane for `pause`, at most [`MAX_PAUSE`].
    pub(super) fn wait(&mut self, pause: Duration, now: Timestamp) {
        self.paused_until = self.paused_until.max(Some(now.plus(pause.min(MAX_PAUSE))));
    }

    /// Takes back an attempt that was not made after all.
    pub(super) fn withdrawn(&mut self, delivery: DeliveryId, now: Timestamp) {
        self.breaker.withdrawn(delivery, now);
    }

    /// Until when this must be remembered though nothing is open; `None` if it may be forgotten.
    pub(super) fn matters_until(&self, now: Timestamp) -> Option<Timestamp> {
        let rate = self.terms.rate.and_then(|_limited| self.rate.matters_until());
        let latest = self.breaker.matters_until().max(self.pause()).max(rate);
        latest.filter(|until| *until > now)
    }

    /// The lane's state, for metrics.
    pub(super) fn state(&self, now: Timestamp) -> LaneState {
        let mut rate = self.rate;
        let ready_at = self.terms.rate.and_then(|limit| rate.ready_at(limit, now));
        if self.is_shut() {
            LaneState::BreakerOpen
        } else if self.pause().is_some_and(|until| until > now) {
            LaneState::Paused
        } else if ready_at.is_some_and(|ready| ready > now) {
            LaneState::RateLimited
        } else if self.in_flight.is_reduced() {
            LaneState::Reduced
        } else {
            LaneState::Free
        }
    }
}
