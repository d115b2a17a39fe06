//! The ways into the lanes: deliveries that dispatch offers, and rows that were fetched from the ledger.

use super::flow_control::Gate;
use super::lane::{DeliveryState, EARLIEST, Fetch, Lane, Source};
use super::shares::{Use, share};
use super::{LaneId, Lanes, READS_APART, ReadMark, Row, Scope, Work};
use crate::delivery::Delivery;
use crate::id::DeliveryId;
use crate::time::Timestamp;
use std::collections::HashSet;

impl<P> Lanes<P> {
    /// Takes over a delivery that was just recorded, if its lane has room and its subscriber is not away.
    /// Otherwise notes only that the ledger has it. Ignores shards that are not owned.
    pub fn offer(&mut self, work: Work<P>, mark: ReadMark, now: Timestamp) {
        let (lane_id, due_at) = (work.lane(), work.delivery.due_at);
        let shard = self.shards[usize::from(lane_id.shard().0)];
        if !shard.owned {
            return;
        }
        let lane = self.lane_mut(lane_id);
        if lane.known.contains_key(&work.delivery.id) {
            return;
        }
        // A fetch that is under way does no harm: its rows do not bring back what is forgotten before it ends.
        let maybe_seen = shard.taken_at > mark || lane.reads.may_have_shown(mark, due_at);
        let admitted = !maybe_seen && due_at <= now && lane.flow.admits(now);
        if !admitted || self.room(lane_id, Some(Source::Fresh)) == 0 || !self.take_in(work, Source::Fresh) {
            self.note(lane_id, due_at);
        }
    }

    /// Notes that the ledger may have an open delivery of that lane, due at `due_at`. Ignores shards
    /// that are not owned.
    pub fn note(&mut self, lane_id: LaneId, due_at: Timestamp) {
        self.note_from(lane_id, due_at, due_at);
    }

    /// Has the ledger read at that time for everything that the lane has open, due at any time.
    pub fn look(&mut self, lane_id: LaneId, at: Timestamp) {
        self.note_from(lane_id, at, EARLIEST);
    }

    /// Has the ledger read at the time `at` for what is due at `from` or later.
    pub(super) fn note_from(&mut self, lane_id: LaneId, at: Timestamp, from: Timestamp) {
        if !self.owns(lane_id.shard()) {
            return;
        }
        let lane = self.lane_mut(lane_id);
        lane.ledger_from = lane.ledger_due.map_or(from, |_noted| from.min(lane.ledger_from));
        lane.ledger_due = Some(lane.ledger_due.map_or(at, |noted| at.min(noted)));
        self.touch(lane_id);
    }

    /// The scope of an [`super::Action::Fetch`] of that lane that has just begun.
    pub fn scope(&self, lane_id: LaneId) -> Scope {
        let lane = self.by_id.get(&lane_id);
        let coming = lane.map_or_else(Use::default, |lane| lane.coming);
        Scope {
            known: lane.map_or_else(HashSet::new, |lane| lane.known.keys().copied().collect()),
            rows: coming.waiting,
            bytes: coming.bytes.max(1),
        }
    }

    /// Takes the rows of an [`super::Action::Fetch`], ordered by `due_at`.
    pub fn fetched<R: Into<Row<P>>>(&mut self, lane_id: LaneId, rows: Vec<R>, limit: usize, now: Timestamp) {
        let rows: Vec<Row<P>> = rows.into_iter().map(Into::into).collect();
        let last = rows.last().map(|row| row.delivery().due_at);
        let up_to = last.filter(|_| rows.len() >= limit);
        self.fetch_not_before = None;
        if let (Fetch::UnderWay { asked_at, forgotten }, coming) = self.end_fetch(lane_id, up_to) {
            if let Some(last) = up_to {
                self.note(lane_id, last);
            }
            self.take_rows(lane_id, rows, coming, asked_at.min(now), now, &forgotten);
        }
    }

    fn take_rows(
        &mut self,
        lane_id: LaneId,
        rows: Vec<Row<P>>,
        mut coming: Use,
        due_by: Timestamp,
        now: Timestamp,
        forgotten: &HashSet<DeliveryId>,
    ) {
        let buffer = self.limits.lane_buffer;
        for row in rows {
            let Delivery { id, due_at, .. } = *row.delivery();
            let Some(lane) = self.by_id.get_mut(&lane_id) else {
                return;
            };
            // The lane's breaker may have opened since the fetch began.
            if lane.flow.is_shut() && lane.flow.gate(now) != Gate::Probe {
                return self.note(lane_id, due_at);
            }
            if due_at > due_by {
                return self.note_from(lane_id, due_at.max(now.plus(READS_APART)), due_at);
            }
            match lane.known.get_mut(&id) {
                Some(DeliveryState::Waiting | DeliveryState::InFlight { .. }) => continue,
                // The outcome is just being recorded: this row may be from before that, or was opened again
                // since. Only another read can tell.
                Some(DeliveryState::Recording { shown }) => {
                    *shown = Some(due_at);
                    continue;
                }
                None => {}
            }
            // More rows than there is room for can come if known deliveries left the ledger meanwhile.
            if lane.appetite(None, buffer) == 0 || coming.waiting == 0 || coming.bytes == 0 {
                return self.note(lane_id, due_at);
            }
            match row {
                Row::Whole(work) if !forgotten.contains(&id) => {
                    let source = if work.is_retry() {
                        Source::Retry
                    } else {
                        Source::Backlog
                    };
                    coming.waiting -= 1;
                    coming.bytes = coming.bytes.saturating_sub(work.bytes);
                    if !self.take_in(work, source) {
                        return self.note(lane_id, due_at);
                    }
                }
                // The row is outside of the scope, or its delivery was forgotten during the read: it is read again.
                Row::Whole(_) | Row::Bare(_) => self.note(lane_id, due_at),
            }
        }
    }

    /// Has an [`super::Action::Fetch`] that failed tried again at `again_at`.
    pub fn fetch_failed(&mut self, lane_id: LaneId, again_at: Timestamp) {
        if !matches!(self.end_fetch(lane_id, None).0, Fetch::None)
            && let Some(lane) = self.by_id.get_mut(&lane_id)
        {
            // What was noted during the read waits too.
            let noted_from = lane.ledger_due.take().map(|_noted| lane.ledger_from);
            let from = noted_from.map_or(lane.reading_from, |noted| noted.min(lane.reading_from));
            self.note_from(lane_id, again_at, from);
        }
    }

    /// Lets no [`super::Action::Fetch`] begin before then, because the ledger is away, unless one succeeds.
    pub fn rest_fetches(&mut self, until: Timestamp) {
        self.fetch_not_before = Some(until);
    }

    /// Ends the lane's fetch. Returns the fetch and the room that was set aside for it.
    fn end_fetch(&mut self, lane_id: LaneId, up_to: Option<Timestamp>) -> (Fetch, Use) {
        let moment = ReadMark(self.moments + 1);
        let Some(lane) = self.by_id.get_mut(&lane_id) else {
            return (Fetch::None, Use::default());
        };
        let (fetch, coming) = (std::mem::take(&mut lane.fetch), std::mem::take(&mut lane.coming));
        if !matches!(fetch, Fetch::None) {
            lane.reads.ended(moment, up_to);
            self.moments = moment.0;
            self.fetches -= 1;
            self.shares.arrived(coming);
        }
        self.touch(lane_id);
        (fetch, coming)
    }

    /// Takes the delivery into memory, if it fits.
    fn take_in(&mut self, work: Work<P>, source: Source) -> bool {
        let lane_id = work.lane();
        let Some(lane) = self.by_id.get_mut(&lane_id) else {
            return false;
        };
        let free = self.shares.free(lane.member.speed);
        if free.waiting == 0 || free.bytes < work.bytes {
            // The lane is not fetched before there is room for it.
            lane.row_bytes = lane.row_bytes.max(work.bytes);
            return false;
        }
        let before = lane.uses();
        lane.push(work, source);
        self.shares.change(lane.member, before, lane.uses());
        self.touch(lane_id);
        true
    }

    /// How many more deliveries from that source the lane may have waiting; fetched ones, if no source is
    /// given. A lane that has nothing may have one whenever it fits.
    fn room(&self, lane_id: LaneId, source: Option<Source>) -> usize {
        self.by_id.get(&lane_id).map_or(0, |lane| self.room_in(lane, source))
    }

    pub(super) fn room_in(&self, lane: &Lane<P>, source: Option<Source>) -> usize {
        let free = self.shares.free_for(lane.member);
        let own = lane.appetite(source, self.limits.lane_buffer);
        let by_share = share(free.waiting).saturating_sub(lane.waits());
        let by_bytes = share(free.bytes).saturating_sub(lane.bytes).checked_div(lane.row_bytes);
        let room = own.min(by_share).min(by_bytes.unwrap_or(own));
        let fits = free.waiting > 0 && free.bytes >= lane.row_bytes.max(1);
        let least = usize::from(lane.known.is_empty() && fits).min(own);
        room.max(least)
    }

    /// The room that is set aside for so many rows of that lane.
    pub(super) fn set_aside(&self, lane: &Lane<P>, room: usize) -> Use {
        let free = self.shares.free_for(lane.member);
        let bytes = share(free.bytes).saturating_sub(lane.bytes).max(lane.row_bytes).max(1);
        Use {
            waiting: room,
            bytes: bytes.min(free.bytes),
            ..Use::default()
        }
    }
}
