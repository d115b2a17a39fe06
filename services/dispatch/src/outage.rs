//! Since when nothing can be recorded.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long recording may fail before what is not recorded is given back to the queue; a blip is shorter.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whether recording fails, and since when.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outage(Arc<Mutex<Option<Instant>>>);

impl Outage {
    /// Recording has failed; whether it has for long.
    pub(crate) fn failed(&self, now: Instant) -> bool {
        let mut since = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        now.saturating_duration_since(*since.get_or_insert(now)) >= PATIENCE
    }

    /// Something was recorded; whether that had failed.
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
