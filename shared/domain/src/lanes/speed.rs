//! How fast a subscriber answers. Fast ones are served however many others are slow.

use crate::id::SubscriptionId;
use std::collections::HashMap;
use std::time::Duration;

/// The longest time that a fast answer takes. What is reserved for fast lanes is free again as soon.
pub(super) const FAST: Duration = Duration::from_secs(2);

/// The most subscribers whose speed is remembered when they have no lane, at some 40 bytes each. The latest half
/// of them is always remembered.
const REMEMBERED: usize = 65_536;

/// How fast a subscriber answered last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Speed {
    Fast,
    /// It has not been asked, or not of late.
    Unknown,
    Slow,
}

impl Speed {
    pub(super) const ALL: [Self; 3] = [Self::Fast, Self::Unknown, Self::Slow];

    /// The speed of an answer that took so long, or of a wait in vain for one.
    pub(super) fn of(took: Duration) -> Self {
        if took <= FAST { Self::Fast } else { Self::Slow }
    }
}

/// The speeds of the subscribers that were asked of late, also while they have no lane.
#[derive(Debug, Default)]
pub(super) struct Speeds {
    young: HashMap<SubscriptionId, Speed>,
    old: HashMap<SubscriptionId, Speed>,
}

impl Speeds {
    pub(super) fn of(&self, subscription: SubscriptionId) -> Speed {
        let known = self.young.get(&subscription).or_else(|| self.old.get(&subscription));
        known.copied().unwrap_or(Speed::Unknown)
    }

    pub(super) fn heard(&mut self, subscription: SubscriptionId, speed: Speed) {
        if self.young.len() >= REMEMBERED / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(subscription, speed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_so_many_are_remembered_and_the_latest_among_them() {
        let mut speeds = Speeds::default();
        let id = |n: usize| SubscriptionId(uuid::Uuid::from_u128(n as u128));
        for n in 0..3 * REMEMBERED {
            speeds.heard(id(n), Speed::Slow);
            assert!(speeds.young.len() + speeds.old.len() <= REMEMBERED);
            assert_eq!(speeds.of(id(n.saturating_sub(REMEMBERED / 2 - 1))), Speed::Slow);
        }
        assert_eq!(speeds.of(id(0)), Speed::Unknown);
    }
}
