//! The limit `RateLimitPerSecond`, by the generic cell rate algorithm.
//!
//! Each attempt moves the time at which the next is due on by one interval. An attempt may begin up to [`TOLERANCE`]
//! before that time, so that no attempts are lost if this process wakes some milliseconds late. In any span of time
//! there are at most `rate * span + 1` attempts and what the tolerance adds: in any second `rate + 1 + rate / 20`.
//!
//! The `governor` crate is not used: it reads a clock of its own, and keeps its state in an atomic to share it among
//! threads. Here one owner decides, and time is a parameter.

use crate::time::Timestamp;
use std::time::Duration;

/// How far ahead of its time an attempt may be.
pub const TOLERANCE: Duration = Duration::from_millis(50);

/// A rate above zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    interval: Duration,
}

impl Rate {
    /// A rate of so many attempts a second; `None` if that is no number above zero. Fractions are allowed: 0.5 is one
    /// every two seconds. The slowest rate is one a year, the fastest one every nanosecond.
    pub fn per_second(rate: f64) -> Option<Self> {
        (rate > 0.0).then(|| Self {
            interval: Duration::from_secs_f64(rate.recip().clamp(1e-9, 365.0 * 86_400.0)),
        })
    }

    /// The time from one attempt to the next.
    pub fn interval(self) -> Duration {
        self.interval
    }
}

/// The use of a rate so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct RateLimit {
    /// When the next attempt is due, and nanoseconds beyond that; `None` before the first.
    next: Option<(Timestamp, Duration)>,
}

impl RateLimit {
    /// The time from which the next attempt may begin; `None` if that is long past.
    ///
    /// Even if the rate or the clock was changed, it is no later than an interval from `now`.
    pub fn ready_at(&mut self, rate: Rate, now: Timestamp) -> Option<Timestamp> {
        let latest = now.plus(TOLERANCE).plus(rate.interval);
        let next = self.next.as_mut()?;
        if next.0 > latest {
            *next = (latest, Duration::ZERO);
        }
        // Rounded up, because the interval may end within a microsecond.
        let up = i64::from(!next.1.is_zero());
        let ready = Timestamp::from_micros(next.0.as_micros().saturating_add(up)).minus(TOLERANCE);
        Some(ready)
    }

    /// Counts an attempt that begins now. [`RateLimit::ready_at`] says when one may.
    pub fn take(&mut self, rate: Rate, now: Timestamp) {
        let (from, rest) = self.next.filter(|next| next.0 >= now).unwrap_or((now, Duration::ZERO));
        let next = rest.saturating_add(rate.interval);
        let nanos = u64::from(next.subsec_nanos() % 1000);
        self.next = Some((from.plus(next), Duration::from_nanos(nanos)));
    }

    /// Until when the use must be remembered.
    pub fn matters_until(&self) -> Option<Timestamp> {
        self.next.map(|next| next.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(micros: u64) -> Timestamp {
        Timestamp::from_micros(1_763_800_000_000_000).plus(Duration::from_micros(micros))
    }

    /// When attempts begin, of one who always wants to and wakes that much late.
    fn begun(rate: Rate, late: &[u64], until: Timestamp) -> Vec<Timestamp> {
        let mut limit = RateLimit::default();
        let mut begun = Vec::new();
        let mut now = at(0);
        for late in late.iter().cycle() {
            now = limit
                .ready_at(rate, now)
                .map_or(now, |ready| now.max(ready.plus(Duration::from_micros(*late))));
            if now >= until {
                break;
            }
            while limit.ready_at(rate, now).is_none_or(|ready| ready <= now) {
                limit.take(rate, now);
                begun.push(now);
            }
        }
        begun
    }

    proptest! {
        #[test]
        fn no_second_has_more_than_the_rate_and_one_and_the_tolerance_and_the_rate_is_reached(
            rate in prop_oneof![0.1f64..5.0, 1.0f64..2000.0], late in prop::collection::vec(0u64..50_000, 1..20),
        ) {
            let limit = Rate::per_second(rate).unwrap();
            let seconds = 10.0f64.max(10.0 / rate);
            let begun = begun(limit, &late, at(0).plus(Duration::from_secs_f64(seconds)));
            let most = rate + 1.0 + rate * TOLERANCE.as_secs_f64() + 1e-3;
            let mut from = 0;
            for (i, now) in begun.iter().enumerate() {
                while now.since(begun[from]) >= Duration::from_secs(1) {
                    from += 1;
                }
                let within = f64::from(u32::try_from(i + 1 - from).unwrap());
                prop_assert!(within <= most, "{} within a second at {} a second", within, rate);
            }
            let reached = f64::from(u32::try_from(begun.len()).unwrap());
            // Nothing is lost by being up to 50 ms late, but what is late at the end.
            prop_assert!(reached >= rate * (seconds - 0.05) - 1.0, "{} in {} s at {} a second", reached, seconds, rate);
        }
    }

    #[test]
    fn a_fraction_is_one_in_so_many_seconds() {
        let half = Rate::per_second(0.5).unwrap();
        let mut limit = RateLimit::default();
        assert_eq!(limit.ready_at(half, at(0)), None);
        limit.take(half, at(0));
        assert_eq!(limit.ready_at(half, at(0)), Some(at(1_950_000)));
        limit.take(half, at(1_960_000));
        assert_eq!(
            limit.ready_at(half, at(1_960_000)),
            Some(at(3_950_000)),
            "not a bit later for that"
        );
    }

    #[test]
    fn a_faster_rate_or_a_clock_that_was_set_back_counts_at_once() {
        let mut limit = RateLimit::default();
        limit.take(Rate::per_second(0.001).unwrap(), at(0));
        let fast = Rate::per_second(10.0).unwrap();
        assert_eq!(limit.ready_at(fast, at(0)), Some(at(100_000)));
        assert_eq!(limit.ready_at(fast, at(90_000)), Some(at(100_000)), "and stays");
    }

    #[test]
    fn only_numbers_above_zero_are_rates() {
        for none in [0.0, -0.0, -1.0, f64::NAN, f64::NEG_INFINITY] {
            assert_eq!(Rate::per_second(none), None, "{none}");
        }
        for some in [f64::MIN_POSITIVE, 0.5, 1e6, f64::INFINITY] {
            assert!(
                Rate::per_second(some).is_some_and(|rate| !rate.interval.is_zero()),
                "{some}"
            );
        }
    }
}
