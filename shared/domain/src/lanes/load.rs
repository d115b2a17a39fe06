//! How the lanes are, for metrics.

use super::Lanes;
use crate::time::Timestamp;

/// How full the lanes are, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Lanes with anything in memory, waiting in the ledger, or to be remembered.
    pub lanes: usize,
    /// Attempts under way.
    pub in_flight: usize,
    /// Deliveries that wait in memory.
    pub buffered: usize,
    /// Outcomes not yet in the ledger.
    pub recording: usize,
}

/// What holds a lane back, for metrics; the first that does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LaneState {
    /// Its breaker is open.
    BreakerOpen,
    /// An answer asked for a pause.
    Paused,
    /// Its rate.
    RateLimited,
    /// Its limit in flight is below `MaxInFlight`.
    Reduced,
    /// Nothing.
    Free,
}

impl LaneState {
    /// Every state.
    pub const ALL: [Self; 5] = [
        Self::BreakerOpen,
        Self::Paused,
        Self::RateLimited,
        Self::Reduced,
        Self::Free,
    ];

    /// The name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BreakerOpen => "breaker_open",
            Self::Paused => "paused",
            Self::RateLimited => "rate_limited",
            Self::Reduced => "reduced",
            Self::Free => "free",
        }
    }
}

impl<P> Lanes<P> {
    /// How full the lanes are.
    pub fn load(&self) -> Load {
        Load {
            lanes: self.by_subscription.len(),
            in_flight: self.in_flight,
            buffered: self.buffered,
            recording: self.recording,
        }
    }

    /// What holds each lane back.
    pub fn states(&self, now: Timestamp) -> impl Iterator<Item = LaneState> {
        self.by_subscription.values().map(move |lane| lane.pace.state(now))
    }

    /// The `due_at` of the delivery that waits longest, of what is in buffers or noted as due.
    pub fn oldest_due(&self, now: Timestamp) -> Option<Timestamp> {
        let lanes = self.by_subscription.values();
        let due = lanes.flat_map(|lane| {
            let waiting = lane.waiting().map(|work| work.delivery.due_at).min();
            [lane.ledger_due, waiting]
        });
        due.flatten().filter(|due| *due <= now).min()
    }
}
