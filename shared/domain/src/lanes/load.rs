//! Numbers about the lanes, for metrics.

use super::lane::Lane;
use super::state::LaneState;
use super::{LaneId, Lanes};
use crate::id::SubscriptionId;
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
    /// Bytes of payload that wait, are in flight or are being read.
    pub bytes: usize,
    /// How many bytes that may be.
    pub most_bytes: usize,
}

/// The lanes in one state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Survey {
    /// The state.
    pub state: LaneState,
    /// How many there are.
    pub lanes: usize,
    /// When the delivery was due that waits longest, if any is due.
    pub oldest_due: Option<Timestamp>,
}

impl<P> Lanes<P> {
    /// How full the lanes are.
    pub fn load(&self) -> Load {
        let total = self.shares.total();
        Load {
            lanes: self.by_id.len(),
            in_flight: total.first + total.more,
            buffered: total.waiting,
            recording: self.recording,
            bytes: total.bytes + self.shares.coming().bytes,
            most_bytes: self.limits.bytes,
        }
    }

    /// Looks at every lane: how many each state has, and how long their deliveries wait. Lanes that are held back
    /// now are remembered for [`Lanes::was_free_since`], so this must be called about once a second.
    pub fn survey(&mut self, now: Timestamp) -> [Survey; LaneState::ALL.len()] {
        let mut surveys = LaneState::ALL.map(|state| Survey {
            state,
            lanes: 0,
            oldest_due: None,
        });
        for lane in self.by_id.values_mut() {
            let oldest_due = lane.oldest_due(now);
            let state = lane.state(now);
            if state != LaneState::Free {
                lane.held_back_at = Some(now);
            }
            let survey = surveys.iter_mut().find(|survey| survey.state == state);
            let survey = survey.expect("there is one for every state");
            survey.lanes += 1;
            survey.oldest_due = [survey.oldest_due, oldest_due].into_iter().flatten().min();
        }
        surveys
    }

    /// Whether no survey since then found the subscription's lane held back. Surveys of other processes, and of
    /// this one before it was restarted, are not known.
    pub fn was_free_since(&self, subscription: SubscriptionId, then: Timestamp) -> bool {
        let lane = self.by_id.get(&LaneId::of(subscription));
        let held_back_at = lane.and_then(|lane| lane.held_back_at);
        held_back_at.is_none_or(|at| at < then)
    }

    /// The `due_at` of the delivery that waits longest, of what is in buffers or noted as due.
    pub fn oldest_due(&self, now: Timestamp) -> Option<Timestamp> {
        let lanes = self.by_id.values();
        lanes.filter_map(|lane| lane.oldest_due(now)).min()
    }
}

impl<P> Lane<P> {
    fn oldest_due(&self, now: Timestamp) -> Option<Timestamp> {
        let waiting = self.waiting().map(|work| work.delivery.due_at).min();
        let due = [self.ledger_due, waiting].into_iter().flatten();
        due.filter(|due| *due <= now).min()
    }

    fn state(&self, now: Timestamp) -> LaneState {
        let state = self.flow.state(now);
        let more = self.waits() > 0 || self.ledger_due.is_some_and(|due| due <= now);
        if state == LaneState::Free && more && self.in_flight >= self.flow.limit() {
            return LaneState::Full;
        }
        state
    }
}
