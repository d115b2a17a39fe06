//! How long recording has been failing.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long recording may fail before messages that are not recorded are given back to the queue. A blip is shorter.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whether recording fails, and since when.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outage(Arc<Mutex<Option<Instant>>>);

impl Outage {
    /// Takes note that recording has failed. Returns whether it has been failing for long.
    pub(crate) fn failed(&self, now: Instant) -> bool {
        let mut since = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        now.saturating_duration_since(*since.get_or_insert(now)) >= PATIENCE
    }

    /// Takes note that something was recorded. Returns whether recording had failed before.
    pub(crate) fn ended(&self) -> bool {
        let mut since = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        since.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_long_from_five_seconds_on_and_begins_anew() {
        let outage = Outage::default();
        let began = Instant::now();
        assert!(!outage.ended());
        assert!(!outage.failed(began));
        assert!(!outage.failed(began + PATIENCE.mul_f32(0.9)));
        assert!(outage.failed(began + PATIENCE));
        assert!(outage.ended() && !outage.ended());
        assert!(!outage.failed(began + PATIENCE));
    }
}
