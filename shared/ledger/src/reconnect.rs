//! How long to wait before a part that is away is tried again. The only module that names `backoff`:
//! it is no longer maintained (RUSTSEC-2025-0012), does this one thing well, and is easily replaced here.

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff;
use std::time::Duration;

/// The wait before the second try.
const FIRST: Duration = Duration::from_millis(100);

/// The longest wait: so soon after its return a part is in use again.
const LONGEST: Duration = Duration::from_secs(5);

/// Growing waits with jitter, from 100 ms to 5 s, without an end.
#[derive(Debug)]
pub struct Delays(ExponentialBackoff);

impl Default for Delays {
    fn default() -> Self {
        Self(ExponentialBackoff {
            current_interval: FIRST,
            initial_interval: FIRST,
            randomization_factor: 0.2,
            multiplier: 2.0,
            max_interval: LONGEST,
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        })
    }
}

impl Delays {
    /// How long to wait this time.
    pub fn next_delay(&mut self) -> Duration {
        self.0.next_backoff().unwrap_or(LONGEST)
    }

    /// The part is back: the next wait is short again.
    pub fn reset(&mut self) {
        self.0.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_longest_and_never_end() {
        let mut delays = Delays::default();
        let waits: Vec<_> = (0..100).map(|_| delays.next_delay()).collect();
        assert!(waits[0] <= FIRST.mul_f64(1.21), "{:?}", waits[0]);
        assert!(
            waits[20..]
                .iter()
                .all(|wait| *wait >= LONGEST.mul_f64(0.79) && *wait <= LONGEST.mul_f64(1.21))
        );
        delays.reset();
        assert!(delays.next_delay() <= FIRST.mul_f64(1.21));
    }
}
