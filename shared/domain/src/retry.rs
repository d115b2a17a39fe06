//! The durable retry schedule, as a pure function: it spans days and restarts, so nothing but the
//! ledger may hold its state.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

/// When a delivery is tried again, and when it is given up. A subscription's `Retry`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryPolicy {
    /// The delay before the first retry.
    pub initial: Duration,
    /// What each further delay is multiplied by; at least 1.
    pub multiplier: f64,
    /// The longest delay; at least the first.
    pub max: Duration,
    /// How long after it was opened a delivery is given up.
    pub give_up_after: Duration,
    /// The most attempts; none for no limit but the time.
    pub max_attempts: Option<u32>,
}

impl RetryPolicy {
    /// The policy, kept once where it is the default: of a million subscriptions few have another.
    pub fn shared(self) -> Arc<Self> {
        static DEFAULT: LazyLock<Arc<RetryPolicy>> = LazyLock::new(Arc::default);
        if self == **DEFAULT {
            return Arc::clone(&DEFAULT);
        }
        Arc::new(self)
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            initial: Duration::from_secs(5),
            multiplier: 3.0,
            max: Duration::from_hours(6),
            give_up_after: Duration::from_hours(3 * 24),
            max_attempts: None,
        }
    }
}

/// How far a delay may be from the schedule's, either way.
pub const JITTER: f64 = 0.2;

/// The delay after the `failed`th failed attempt (from 1). `jitter` is a random number from 0 to 1;
/// with it the delay lies within [`JITTER`] of the schedule's, but never above the maximum.
pub fn delay(failed: u32, policy: &RetryPolicy, jitter: f64) -> Duration {
    let exponent = i32::try_from(failed.saturating_sub(1)).unwrap_or(i32::MAX);
    let max = policy.max.as_secs_f64();
    let base = (policy.initial.as_secs_f64() * policy.multiplier.powi(exponent)).min(max);
    let factor = 1.0 - JITTER + 2.0 * JITTER * jitter.clamp(0.0, 1.0);
    Duration::from_secs_f64((base * factor).min(max))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn delays_grow_within_bounds(
            initial in 0.01f64..3600.0, multiplier in 1.0f64..10.0, over in 0.0f64..100_000.0,
            failed in 1u32..10_000, jitter in 0.0f64..1.0,
        ) {
            let policy = RetryPolicy {
                initial: Duration::from_secs_f64(initial), multiplier, max: Duration::from_secs_f64(initial + over),
                ..RetryPolicy::default()
            };
            let this = delay(failed, &policy, jitter);
            prop_assert!(this <= policy.max);
            prop_assert!(this >= policy.initial.mul_f64(1.0 - JITTER - 1e-9));
            prop_assert!(delay(failed + 1, &policy, jitter) >= this, "never shorter than the one before");
            let middle = delay(failed, &policy, 0.5).as_secs_f64();
            prop_assert!((this.as_secs_f64() - middle).abs() <= middle * 0.4 + 1e-6);
        }
    }

    #[test]
    fn the_default_schedule_is_the_documented_one() {
        let policy = RetryPolicy::default();
        let seconds: Vec<_> = (1..=10).map(|n| delay(n, &policy, 0.5).as_secs()).collect();
        assert_eq!(seconds, [5, 15, 45, 135, 405, 1215, 3645, 10935, 21600, 21600]);
    }

    #[test]
    fn the_documented_table_is_the_schedule() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/receiving.md");
        let document = std::fs::read_to_string(path).unwrap();
        let (_, behind) = document.split_once("| failed attempts |").unwrap();
        let rows = behind.lines().skip(2).take_while(|line| line.starts_with('|'));
        let policy = RetryPolicy::default();
        let mut since_first = 0;
        let mut expected = Vec::new();
        for failed in 1..=10 {
            let seconds = delay(failed, &policy, 0.5).as_secs();
            since_first += seconds;
            expected.push(format!(
                "| {failed} | {} | {} |",
                in_words(seconds),
                in_words(since_first)
            ));
        }
        assert_eq!(rows.collect::<Vec<_>>(), expected);
    }

    fn in_words(seconds: u64) -> String {
        let parts = [(seconds / 3600, "h"), (seconds / 60 % 60, "min"), (seconds % 60, "s")];
        let said = parts.into_iter().filter(|(number, _)| *number > 0);
        said.map(|(number, unit)| format!("{number} {unit}"))
            .collect::<Vec<_>>()
            .join(" ")
    }
}
