//! The leases of a worker: which shards it has, and until when.

use crate::id::Shard;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// A moment on a clock that goes on while the machine sleeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uptime {
    /// The moment on the process's monotonic clock, which stands still while the machine sleeps.
    pub instant: Instant,
    /// How long the machine had slept by then.
    pub slept: Duration,
}

impl Uptime {
    /// The moment so much later, if the machine does not sleep in between.
    #[must_use]
    pub fn plus(self, wait: Duration) -> Self {
        Self {
            instant: self.instant + wait,
            ..self
        }
    }

    /// Whether this moment comes before `end`.
    pub fn is_before(self, end: Self) -> bool {
        self.instant + self.slept.saturating_sub(end.slept) < end.instant
    }
}

/// The shards that a process has leased, each at its epoch, as they were at one moment; cheap to clone.
#[derive(Debug, Clone)]
pub struct ShardLeases {
    worker: Uuid,
    epochs: Arc<HashMap<Shard, i64>>,
    /// When the leases end; none for shards that the process has for good.
    until: Option<Uptime>,
}

impl ShardLeases {
    /// The leases of a process that has no shard: others send what it records.
    pub fn none() -> Self {
        Self::for_good(Uuid::nil(), HashMap::new())
    }

    /// The shards of a process that has its ledger to itself. Nobody else takes them.
    pub fn for_good(worker: Uuid, epochs: HashMap<Shard, i64>) -> Self {
        Self {
            worker,
            epochs: Arc::new(epochs),
            until: None,
        }
    }

    /// The leases of these shards, which end at `until` unless they are renewed. `until` must be counted from before
    /// the renewal was sent.
    pub fn until(worker: Uuid, epochs: HashMap<Shard, i64>, until: Uptime) -> Self {
        Self {
            until: Some(until),
            ..Self::for_good(worker, epochs)
        }
    }

    /// The id of the process that has the shards.
    pub fn worker(&self) -> Uuid {
        self.worker
    }

    /// The epoch at which the process has that shard.
    pub fn epoch(&self, shard: Shard) -> Option<i64> {
        self.epochs.get(&shard).copied()
    }

    /// Whether the leases still run, so that attempts may begin.
    pub fn run_at(&self, now: Uptime) -> bool {
        self.until.is_none_or(|until| now.is_before(until))
    }

    /// The shards, in no order.
    pub fn shards(&self) -> impl Iterator<Item = Shard> {
        self.epochs.keys().copied()
    }

    /// Whether there is no shard.
    pub fn is_empty(&self) -> bool {
        self.epochs.is_empty()
    }

    /// The shards that `other` has not, or at another epoch.
    pub(super) fn not_in(&self, other: &Self) -> Vec<Shard> {
        let differs = |shard: &Shard| self.epoch(*shard) != other.epoch(*shard);
        self.shards().filter(differs).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_ends_while_the_machine_sleeps() {
        let now = Uptime {
            instant: Instant::now(),
            slept: Duration::from_secs(100),
        };
        let length = Duration::from_secs(15);
        let leases = ShardLeases::until(Uuid::nil(), HashMap::new(), now.plus(length));
        let after_sleeping = |seconds| Uptime {
            slept: now.slept + Duration::from_secs(seconds),
            ..now
        };
        assert!(leases.run_at(now));
        assert!(leases.run_at(after_sleeping(14)));
        assert!(!leases.run_at(after_sleeping(15)), "it slept for as long");
        assert!(!leases.run_at(now.plus(length)));
    }

    #[test]
    fn shards_that_a_process_has_for_good_stay_its_own() {
        let now = Uptime {
            instant: Instant::now(),
            slept: Duration::ZERO,
        };
        let leases = ShardLeases::for_good(Uuid::nil(), HashMap::from([(Shard(1), 7)]));
        assert!(leases.run_at(now.plus(Duration::from_hours(24))));
        assert_eq!((leases.epoch(Shard(1)), leases.epoch(Shard(2))), (Some(7), None));
    }
}
