//! How long what is over is kept.
//!
//! Time is counted in days of UTC, because a day is what PostgreSQL's ledger drops at once. An event stays
//! as long as any of its deliveries is open or kept; an event without deliveries counts from its own time, a
//! delivery from when it ended.

use crate::delivery::Closed;
use crate::time::Timestamp;
use std::time::Duration;

const DAY: Duration = Duration::from_hours(24);

/// A number of days that something may be kept: [`Days::MIN`] to [`Days::MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Days(u32);

impl Days {
    /// A repeated `Id` is recognised for 7 days, so the event it repeats is there for as long.
    pub const MIN: u32 = 7;
    /// The longest retention: ten years.
    pub const MAX: u32 = 3650;

    /// That many days, if that is not too few or too many.
    pub const fn new(days: u32) -> Option<Self> {
        if days < Self::MIN || days > Self::MAX {
            None
        } else {
            Some(Self(days))
        }
    }

    /// The number of days.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The start of the day so long before `now`: what is from before it, is older than that many days.
    fn before(self, now: Timestamp) -> Timestamp {
        let today = now.as_micros() - now.as_micros().rem_euclid(micros(DAY));
        Timestamp::from_micros(today).minus(DAY * self.0)
    }
}

/// How long to keep what. `None`: for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Events, deliveries that ended, and rejected messages. For ever means dead deliveries too.
    pub events: Option<Days>,
    /// Dead deliveries; never shorter than the others.
    pub dead: Option<Days>,
    /// The log of who changed what.
    pub audit_log: Option<Days>,
}

impl Retention {
    /// What [`Self::limits`] go by: dead deliveries are kept for at least as long as the others.
    #[must_use]
    pub fn effective(self) -> Self {
        let dead = self.events.zip(self.dead).map(|(events, dead)| dead.max(events));
        Self { dead, ..self }
    }

    /// What of events and deliveries has expired; `None` if they are kept for ever.
    pub fn limits(&self, now: Timestamp) -> Option<Limits> {
        let ended = self.events?.before(now);
        let dead = self.effective().dead;
        let dead = dead.map_or(Timestamp::from_micros(0), |days| days.before(now));
        Some(Limits { ended, dead })
    }

    /// From when on the audit log is kept; `None` if it is kept for ever.
    pub fn audit_log_since(&self, now: Timestamp) -> Option<Timestamp> {
        self.audit_log.map(|days| days.before(now))
    }
}

/// What has expired at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The start of the first day whose events and deliveries are kept.
    pub ended: Timestamp,
    /// The same for dead deliveries: not later than `ended`.
    pub dead: Timestamp,
}

impl Limits {
    /// Whether a delivery that ended so at that time is kept.
    pub fn keeps(&self, end: Closed, closed_at: Timestamp) -> bool {
        match end {
            Closed::Dead => closed_at >= self.dead,
            Closed::Delivered | Closed::Cancelled | Closed::Refused => closed_at >= self.ended,
        }
    }
}

const fn micros(duration: Duration) -> i64 {
    // A day fits many times over.
    #[expect(clippy::cast_possible_truncation, reason = "only ever a day")]
    {
        duration.as_micros() as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn days() -> impl Strategy<Value = Option<Days>> {
        prop_oneof![Just(None), (Days::MIN..=Days::MAX).prop_map(Days::new)]
    }

    #[test]
    fn days_have_a_range_that_covers_the_idempotency_window() {
        let accepted: Vec<_> = [0, 6, 7, 3650, 3651].map(|n| Days::new(n).is_some()).to_vec();
        assert_eq!(accepted, [false, false, true, true, false]);
    }

    proptest! {
        #[test]
        fn a_limit_is_a_midnight_and_at_least_that_many_days_ago(n in Days::MIN..=Days::MAX, now in 1i64 << 50..1 << 51) {
            let now = Timestamp::from_micros(now);
            let limit = Days::new(n).unwrap().before(now);
            prop_assert_eq!(limit.as_micros() % micros(DAY), 0);
            let age = now.since(limit);
            prop_assert!(age >= DAY * n && age < DAY * (n + 1));
        }

        #[test]
        fn what_expired_stays_expired_and_the_dead_outlive_the_others(
            events in days(), dead in days(), now in 1i64 << 50..1 << 51, later in 0i64..1 << 50, closed_at in 0i64..1 << 51
        ) {
            let retention = Retention { events, dead, audit_log: None };
            let (Some(first), Some(then)) = (
                retention.limits(Timestamp::from_micros(now)),
                retention.limits(Timestamp::from_micros(now + later)),
            ) else {
                prop_assert_eq!(events, None);
                return Ok(());
            };
            let closed_at = Timestamp::from_micros(closed_at);
            for end in Closed::ALL {
                prop_assert!(!then.keeps(end, closed_at) || first.keeps(end, closed_at), "it does not come back");
                prop_assert!(!first.keeps(end, closed_at) || first.keeps(Closed::Dead, closed_at));
            }
            prop_assert!(dead.is_some() || then.keeps(Closed::Dead, closed_at), "for ever is for ever");
        }
    }
}
