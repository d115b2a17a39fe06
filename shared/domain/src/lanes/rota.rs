//! A queue in which groups take turns, and within a group its lanes.

use super::LaneId;
use std::collections::VecDeque;

/// Lanes in turn.
#[derive(Debug, Default)]
pub(super) struct Rota {
    /// By group; each lane with its number in the order of all that were queued.
    lanes: Vec<VecDeque<(u64, LaneId)>>,
    /// The groups that have lanes here and may have a turn.
    turns: VecDeque<usize>,
    /// Those that may not, as they were last found.
    parked: Vec<usize>,
}

impl Rota {
    pub(super) fn push(&mut self, group: usize, number: u64, lane_id: LaneId) {
        if self.lanes.len() <= group {
            self.lanes.resize_with(group + 1, VecDeque::new);
        }
        let lanes = &mut self.lanes[group];
        if lanes.is_empty() {
            self.turns.push_back(group);
        }
        lanes.push_back((number, lane_id));
    }

    /// The number of the lane whose turn is next, of the groups that may have one. The others are parked.
    pub(super) fn next(&mut self, may: impl Fn(usize) -> bool) -> Option<u64> {
        while let Some(group) = self.turns.front().copied() {
            if may(group) {
                return self.lanes[group].front().map(|(number, _)| *number);
            }
            self.turns.pop_front();
            self.parked.push(group);
        }
        None
    }

    /// Takes the lane that [`Rota::next`] found.
    pub(super) fn pop(&mut self) -> Option<LaneId> {
        let group = self.turns.pop_front()?;
        let (_, lane_id) = self.lanes[group].pop_front()?;
        if !self.lanes[group].is_empty() {
            self.turns.push_back(group);
        }
        Some(lane_id)
    }

    /// Whether the group has a lane here.
    pub(super) fn has(&self, group: usize) -> bool {
        self.lanes.get(group).is_some_and(|lanes| !lanes.is_empty())
    }

    /// Parked groups may have a turn again.
    pub(super) fn unpark(&mut self) {
        self.turns.extend(self.parked.drain(..));
    }

    pub(super) fn retain(&mut self, keep: impl Fn(&LaneId) -> bool) {
        for lanes in &mut self.lanes {
            lanes.retain(|(_, lane_id)| keep(lane_id));
        }
        self.turns.retain(|group| !self.lanes[*group].is_empty());
        self.parked.retain(|group| !self.lanes[*group].is_empty());
    }

    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = &LaneId> {
        self.lanes.iter().flatten().map(|(_, lane_id)| lane_id)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.turns.is_empty() && self.parked.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_take_turns_and_those_that_may_not_are_passed_over() {
        let mut rota = Rota::default();
        let id = |n: u128| LaneId::of(crate::id::SubscriptionId(uuid::Uuid::from_u128(n)));
        for (number, group) in [1, 1, 1, 2, 3, 3].into_iter().enumerate() {
            rota.push(group, number as u64, id(number as u128));
        }
        let mut order = Vec::new();
        while rota.next(|group| group != 2).is_some() {
            order.extend(rota.pop());
        }
        assert_eq!(order, [0, 4, 1, 5, 2].map(id));
        assert!(!rota.is_empty());
        rota.unpark();
        assert_eq!(rota.next(|_| true), Some(3));
        assert_eq!(rota.pop(), Some(id(3)));
        assert!(rota.is_empty());
    }
}
