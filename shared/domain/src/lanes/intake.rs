//! What comes into the lanes: from dispatch, and from the ledger.

use super::lane::{Fetch, Place, Source};
use super::pace::Gate;
use super::{ALWAYS, Lanes, READS_APART, Row, Scope, Ticket, Work, share};
use crate::delivery::Delivery;
use crate::id::{DeliveryId, Shard, SubscriptionId};
use crate::time::Timestamp;
use std::collections::HashSet;

impl<P> Lanes<P> {
    /// Takes over a delivery that was just recorded, if its lane has room and its subscriber is not away;
    /// otherwise notes only that the ledger has it. Nothing on a shard that is not owned.
    pub fn offer(&mut self, work: Work<P>, ticket: Ticket, now: Timestamp) {
        let (subscription, due_at) = (work.delivery.subscription, work.delivery.due_at);
        let hold = self.shards[usize::from(Shard::of(subscription).0)];
        if !hold.owned {
            return;
        }
        let room = self.room(subscription, Some(Source::Fresh));
        let lane = self.lane_mut(subscription);
        if lane.known.contains_key(&work.delivery.id) {
            return;
        }
        // A fetch that is under way does no harm: what is forgotten before it ends, its rows do not bring
        // back.
        let maybe_seen = hold.taken_at > ticket || lane.looks.may_have_shown(ticket, due_at);
        if maybe_seen || room == 0 || due_at > now || !lane.pace.admits_new(now) {
            self.note(subscription, due_at);
        } else {
            self.take_in(work, Source::Fresh);
        }
    }

    /// Notes that the ledger may have an open delivery of that subscription, due then. Nothing on a shard
    /// that is not owned.
    pub fn note(&mut self, subscription: SubscriptionId, due_at: Timestamp) {
        if !self.owns(Shard::of(subscription)) {
            return;
        }
        let lane = self.lane_mut(subscription);
        if lane.ledger_due.is_none_or(|earlier| earlier > due_at) {
            lane.ledger_due = Some(due_at);
        }
        self.touch(subscription);
    }

    /// What an [`super::Action::Fetch`] of that lane that begins now shall bring.
    pub fn scope(&self, subscription: SubscriptionId) -> Scope {
        let lane = self.by_subscription.get(&subscription);
        let free = self.limits.bytes.saturating_sub(self.bytes);
        Scope {
            known: lane.map_or_else(HashSet::new, |lane| lane.known.keys().copied().collect()),
            // Whoever may fetch at all gets something, however full it is.
            bytes: share(free).saturating_sub(lane.map_or(0, |lane| lane.bytes)).max(1),
        }
    }

    /// Takes the rows of an [`super::Action::Fetch`], ordered by `due_at`.
    pub fn fetched<R: Into<Row<P>>>(
        &mut self,
        subscription: SubscriptionId,
        rows: Vec<R>,
        limit: usize,
        now: Timestamp,
    ) {
        let rows: Vec<Row<P>> = rows.into_iter().map(Into::into).collect();
        let last = rows.last().map(|row| row.delivery().due_at);
        let up_to = last.filter(|_| rows.len() >= limit);
        if let Fetch::UnderWay { asked_at, forgotten } = self.end_fetch(subscription, up_to) {
            if let Some(last) = up_to {
                self.note(subscription, last);
            }
            self.take_rows(subscription, rows, asked_at.min(now), now, &forgotten);
        }
    }

    fn take_rows(
        &mut self,
        subscription: SubscriptionId,
        rows: Vec<Row<P>>,
        due_by: Timestamp,
        now: Timestamp,
        forgotten: &HashSet<DeliveryId>,
    ) {
        let most = self.limits.lane_buffer.max(ALWAYS);
        for row in rows {
            let Delivery { id, due_at, .. } = *row.delivery();
            let bytes_share = share(self.limits.bytes.saturating_sub(self.bytes));
            let Some(lane) = self.by_subscription.get_mut(&subscription) else {
                return;
            };
            // More than there was room for can come when what was known left the ledger meanwhile.
            let full = lane.fetched() >= most || lane.known.len() >= ALWAYS && lane.bytes >= bytes_share;
            // Its breaker may have opened since.
            let shut = lane.pace.is_shut() && lane.pace.gate(now) != Gate::Probe;
            if full || shut {
                return self.note(subscription, due_at);
            }
            if due_at > due_by {
                return self.note(subscription, due_at.max(now.plus(READS_APART)));
            }
            match lane.known.get_mut(&id) {
                Some(Place::Waiting | Place::InFlight(_)) => {}
                // A row whose outcome is just being told may be that from before, or one opened again
                // since; only another read can say.
                Some(Place::Recording { shown }) => *shown = Some(due_at),
                None if forgotten.contains(&id) => self.note(subscription, due_at),
                None => match row {
                    Row::Whole(work) if work.is_retry() => self.take_in(work, Source::Retry),
                    Row::Whole(work) => self.take_in(work, Source::Backlog),
                    // It is read when there is room, or was known when it was read, and is not any more.
                    Row::Bare(_) => self.note(subscription, due_at),
                },
            }
        }
    }

    /// An [`super::Action::Fetch`] that failed is tried again at `again_at`.
    pub fn fetch_failed(&mut self, subscription: SubscriptionId, again_at: Timestamp) {
        if !matches!(self.end_fetch(subscription, None), Fetch::None) {
            // What was noted meanwhile waits too.
            if let Some(lane) = self.by_subscription.get_mut(&subscription) {
                lane.ledger_due = None;
            }
            self.note(subscription, again_at);
        }
    }

    fn end_fetch(&mut self, subscription: SubscriptionId, up_to: Option<Timestamp>) -> Fetch {
        let moment = Ticket(self.moments + 1);
        let Some(lane) = self.by_subscription.get_mut(&subscription) else {
            return Fetch::None;
        };
        let fetch = std::mem::take(&mut lane.fetch);
        if !matches!(fetch, Fetch::None) {
            lane.looks.ended(moment, up_to);
            self.moments = moment.0;
            self.fetches -= 1;
        }
        self.touch(subscription);
        fetch
    }

    fn take_in(&mut self, work: Work<P>, source: Source) {
        let subscription = work.delivery.subscription;
        self.buffered += 1;
        self.bytes += work.bytes;
        self.lane_mut(subscription).push(work, source);
        self.touch(subscription);
    }

    /// How many more deliveries the lane may have waiting that come in this way; fetched ones, if no source
    /// is given.
    pub(super) fn room(&self, subscription: SubscriptionId, source: Option<Source>) -> usize {
        let free = self.limits.buffered.saturating_sub(self.buffered);
        let free_bytes = self.limits.bytes.saturating_sub(self.bytes);
        let Some(lane) = self.by_subscription.get(&subscription) else {
            return self.limits.lane_buffer.min(share(free)).max(ALWAYS);
        };
        let least = if lane.known.is_empty() { ALWAYS } else { 0 };
        let there = source.map_or_else(|| lane.fetched(), |source| lane.waits_from(source));
        let by_share = share(free).saturating_sub(lane.waits());
        let own = self.limits.lane_buffer.saturating_sub(there);
        let by_bytes = share(free_bytes).saturating_sub(lane.bytes).checked_div(lane.row_bytes);
        own.min(by_share).min(by_bytes.unwrap_or(own)).max(least)
    }
}
