//! The worker's reads of the ledger: wake-ups, rows of lanes, and the search for lanes.

use super::{Effect, RETRY_AFTER, Worker};
use crate::id::Shard;
use crate::lanes::{LaneId, Progress, Wakeup, pause_after};
use crate::time::Timestamp;
use std::collections::VecDeque;

/// The reads of wake-ups. One is under way at a time.
#[derive(Debug, Default)]
pub(super) struct WakeupReads {
    under_way: bool,
    /// Whether there was a hint since the read under way began.
    again: bool,
    /// How often in succession wake-ups could not be read.
    failures: u32,
}

impl<E> Worker<E> {
    /// Has wake-ups read. If a read is under way, there is one more when it has ended.
    pub(super) fn take_wakeups(&mut self, effects: &mut VecDeque<Effect<E>>) {
        if self.leases.is_empty() || self.stopping {
            return;
        }
        if std::mem::replace(&mut self.wakeups.under_way, true) {
            self.wakeups.again = true;
            return;
        }
        effects.push_back(Effect::TakeWakeups(pause_after(self.wakeups.failures)));
    }

    pub(super) fn woken(&mut self, wakeups: Vec<Wakeup>, more: bool, effects: &mut VecDeque<Effect<E>>) {
        self.wakeups.failures = 0;
        self.note(wakeups);
        self.wakeups_ended(more, effects);
    }

    pub(super) fn wakeups_failed(&mut self, effects: &mut VecDeque<Effect<E>>) {
        self.wakeups.failures = self.wakeups.failures.saturating_add(1);
        // The wake-ups may have been taken all the same, so all lanes are looked up.
        self.look_everywhere(effects);
        self.wakeups_ended(false, effects);
    }

    fn wakeups_ended(&mut self, more: bool, effects: &mut VecDeque<Effect<E>>) {
        self.wakeups.under_way = false;
        if std::mem::take(&mut self.wakeups.again) || more {
            self.take_wakeups(effects);
        }
    }

    pub(super) fn rows_failed(&mut self, lane: LaneId, is_away: bool, now: Timestamp) {
        if is_away {
            self.lanes.rest_fetches(now.plus(pause_after(self.row_reads_failed)));
            self.row_reads_failed = self.row_reads_failed.saturating_add(1);
        }
        self.lanes.fetch_failed(lane, now.plus(RETRY_AFTER));
    }

    /// Has all lanes of all shards looked up.
    pub(super) fn look_everywhere(&mut self, effects: &mut VecDeque<Effect<E>>) {
        self.find_lanes(self.leases.shards().collect(), effects);
    }

    /// Has it looked up which lanes of these shards have open deliveries.
    pub(super) fn find_lanes(&mut self, shards: Vec<Shard>, effects: &mut VecDeque<Effect<E>>) {
        self.search.ask(shards);
        self.read_page(effects);
    }

    pub(super) fn found(&mut self, lanes: Vec<Wakeup>, progress: &Progress, effects: &mut VecDeque<Effect<E>>) {
        self.note(lanes);
        self.search.found(progress);
        self.read_page(effects);
    }

    pub(super) fn search_failed(&mut self, effects: &mut VecDeque<Effect<E>>) {
        self.search.failed();
        self.read_page(effects);
    }

    /// Has the next page of lanes read, if one is wanted and none is being read.
    fn read_page(&mut self, effects: &mut VecDeque<Effect<E>>) {
        if !self.stopping {
            effects.extend(self.search.next_page().map(Effect::Search));
        }
    }

    fn note(&mut self, lanes: Vec<Wakeup>) {
        for Wakeup { lane, due_at } in lanes {
            self.lanes.note(lane, due_at);
        }
    }
}
