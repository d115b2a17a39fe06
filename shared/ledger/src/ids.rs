//! Identifiers by the ledger's time: a row's day follows from its id, so a process whose own clock is off must not
//! say which.

use crate::Ledger;
use herald_domain::time::Clock;
use std::sync::Arc;
use uuid::{ContextV7, Timestamp, Uuid};

/// Makes `UUIDv7`s that follow one another, also within a millisecond, unless the clock is set back.
#[derive(Debug)]
pub struct Ids {
    clock: Arc<dyn Clock>,
    counter: ContextV7,
}

impl Ids {
    /// Ids by that clock.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            counter: ContextV7::new(),
        }
    }

    /// The next id, which is greater than all that this has made before.
    pub fn next(&self) -> Uuid {
        let millis = self.clock.now().as_unix_millis();
        let nanos = u32::try_from(millis % 1000).unwrap_or_default() * 1_000_000;
        Uuid::new_v7(Timestamp::from_unix(&self.counter, millis / 1000, nanos))
    }
}

impl Ledger {
    /// Ids by the ledger's time. For a batch: the counter holds on to the latest time that it has seen, which is not
    /// to outlive a clock that is set right.
    pub fn ids(&self) -> Ids {
        Ids::new(self.clock())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[derive(Debug)]
    struct At(herald_domain::time::Timestamp);

    impl Clock for At {
        fn now(&self) -> herald_domain::time::Timestamp {
            self.0
        }
    }

    #[test]
    fn ids_begin_with_the_ledgers_time_and_follow_one_another() {
        let time = herald_domain::time::Timestamp::from_micros(1_900_000_000_123_456);
        let ids = Ids::new(Arc::new(At(time)));
        let made: Vec<_> = (0..100).map(|_| ids.next()).collect();
        assert!(made.is_sorted());
        for id in &made {
            assert_eq!(id.as_u128() >> 80, 1_900_000_000_123);
            assert_eq!(id.get_version_num(), 7);
        }
        let later = Ids::new(Arc::new(At(time.plus(Duration::from_millis(1)))));
        assert!(later.next() > made[99]);
    }
}
