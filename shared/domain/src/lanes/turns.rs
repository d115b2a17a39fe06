//! Whose turn it is: attempts and reads, as shares, limits and time allow.

use super::lane::{Fetch, Place, Queued};
use super::pace::Gate;
use super::{Action, Lanes, Terms, Work, share};
use crate::id::{Shard, SubscriptionId};
use crate::time::Timestamp;
use std::collections::HashSet;
use std::time::Duration;

/// Why a lane begins nothing more now.
enum Stop {
    /// It has nothing to send, or must not; it is touched when that changes.
    Own,
    /// It has its share of what is free.
    Full,
    /// Retries have their share, and it has nothing else.
    FullOfRetries,
    /// It has nothing in flight any more: it is the turn of those that have waited longer for their first.
    NotMore,
}

impl<P> Lanes<P> {
    /// Nothing of the lane begins for a while, for a reason that is none of its subscriber's.
    pub fn hold_back(&mut self, subscription: SubscriptionId, wait: Duration, now: Timestamp) {
        if let Some(lane) = self.by_subscription.get_mut(&subscription) {
            lane.pace.wait(wait, now);
        }
    }

    /// What is to be done now. `terms_of` gives what a subscription says about its lane.
    pub fn poll(&mut self, now: Timestamp, terms_of: impl Fn(SubscriptionId) -> Terms) -> Vec<Action<P>> {
        while let Some((due, subscription)) = self.timers.first().copied().filter(|(due, _)| *due <= now) {
            self.timers.remove(&(due, subscription));
            if let Some(lane) = self.by_subscription.get_mut(&subscription) {
                lane.timer = None;
            }
            self.touch(subscription);
        }
        let mut actions = Vec::new();
        self.attend(now, &terms_of);
        self.begin_attempts(now, &mut actions);
        self.attend(now, &terms_of);
        self.begin_fetches(now, &mut actions);
        self.attend(now, &terms_of);
        actions
    }

    fn attend(&mut self, now: Timestamp, terms_of: &impl Fn(SubscriptionId) -> Terms) {
        while let Some(subscription) = self.touched.pop_front() {
            self.attend_to(subscription, now, terms_of(subscription));
        }
    }

    /// Sees what the lane may do now, and when to look again.
    fn attend_to(&mut self, subscription: SubscriptionId, now: Timestamp, terms: Terms) {
        let owned = self.owns(Shard::of(subscription));
        let most_waiting = self.limits.lane_buffer / 2;
        let Some(lane) = self.by_subscription.get_mut(&subscription) else {
            return;
        };
        lane.touched = false;
        if !owned {
            if lane.is_idle() {
                self.forget_lane(subscription);
            }
            return;
        }
        lane.pace.follow(terms);
        let gate = lane.pace.gate(now);
        let (passes, held_until) = match gate {
            Gate::Free | Gate::Probe => (true, None),
            Gate::Until(then) => (false, Some(then)),
            Gate::Probing => (false, None),
        };
        if let Queued::ForRetry(number) = lane.queued
            && lane.waits_for_first()
        {
            self.full_of_retries.remove(&number);
            lane.queued = Queued::No;
        }
        if passes && lane.queued == Queued::No && lane.can_begin() {
            lane.queued = Queued::Yes;
            let queue = if lane.in_flight == 0 {
                &mut self.first
            } else {
                &mut self.more
            };
            queue.push_back(subscription);
        }
        let mut wake = held_until.filter(|_| lane.waits() > 0);
        if let Some(due) = lane.ledger_due.filter(|_| !lane.is_fetching()) {
            let from = match (lane.pace.is_shut(), held_until) {
                (true, Some(then)) => Some(due.max(then)),
                (true, None) if gate == Gate::Probing => None,
                (true, None) => lane.pace.probe_from_ledger_at().map(|then| due.max(then)),
                (false, _) => Some(due),
            };
            if let Some(from) = from.filter(|from| *from > now) {
                wake = Some(wake.map_or(from, |wake| wake.min(from)));
            // A lane asks again when its buffer is half empty, so that reads stay few.
            } else if from.is_some() && !lane.hungry && lane.fetched() <= most_waiting {
                lane.hungry = true;
                self.hungry.push_back(subscription);
            }
        }
        let remembered_until = lane.pace.matters_until(now);
        if lane.is_idle() && lane.queued == Queued::No && !lane.hungry {
            if remembered_until.is_none() {
                return self.forget_lane(subscription);
            }
            wake = remembered_until;
        }
        if held_until.is_some() || gate == Gate::Probing {
            self.held.insert(subscription);
        } else {
            self.held.remove(&subscription);
        }
        self.set_timer(subscription, wake);
    }

    fn set_timer(&mut self, subscription: SubscriptionId, wake: Option<Timestamp>) {
        let Some(lane) = self.by_subscription.get_mut(&subscription) else {
            return;
        };
        let former = std::mem::replace(&mut lane.timer, wake);
        if former != wake {
            former.map(|former| self.timers.remove(&(former, subscription)));
            self.timers.extend(wake.map(|wake| (wake, subscription)));
        }
    }

    fn begin_attempts(&mut self, now: Timestamp, actions: &mut Vec<Action<P>>) {
        for _ in self.retries..self.limits.retries() {
            let Some((_, subscription)) = self.full_of_retries.pop_first() else {
                break;
            };
            self.set_queued(subscription, Queued::Yes);
            self.more.push_back(subscription);
        }
        if std::mem::take(&mut self.freed) {
            self.full.append(&mut self.more);
            std::mem::swap(&mut self.full, &mut self.more);
        }
        while self.recording < self.limits.recording {
            let Some((subscription, is_first)) = self.next_lane() else {
                return;
            };
            match self.begin(subscription, is_first, now, actions) {
                Ok(()) => self.more.push_back(subscription),
                Err(Stop::Full) => self.full.push_back(subscription),
                Err(Stop::FullOfRetries) => {
                    self.numbered += 1;
                    self.full_of_retries.insert(self.numbered, subscription);
                    self.set_queued(subscription, Queued::ForRetry(self.numbered));
                }
                Err(Stop::NotMore) => self.first.push_back(subscription),
                Err(Stop::Own) => {
                    self.set_queued(subscription, Queued::No);
                    self.touch(subscription);
                }
            }
        }
    }

    /// The two queues take turns: neither starves where no more outcomes may wait. Whether it is from that of
    /// lanes with nothing in flight.
    fn next_lane(&mut self) -> Option<(SubscriptionId, bool)> {
        let room = self.active < self.limits.lanes_in_flight;
        self.more_is_next = !self.more_is_next;
        let first = room && (!self.more_is_next || self.more.is_empty());
        if first && let Some(subscription) = self.first.pop_front() {
            return Some((subscription, true));
        }
        self.more.pop_front().map(|subscription| (subscription, false))
    }

    fn set_queued(&mut self, subscription: SubscriptionId, queued: Queued) {
        if let Some(lane) = self.by_subscription.get_mut(&subscription) {
            lane.queued = queued;
        }
    }

    /// Begins one attempt, if the lane may.
    fn begin(
        &mut self,
        subscription: SubscriptionId,
        is_first: bool,
        now: Timestamp,
        actions: &mut Vec<Action<P>>,
    ) -> Result<(), Stop> {
        let Some(lane) = self.by_subscription.get_mut(&subscription) else {
            return Err(Stop::Own);
        };
        let gate = lane.pace.gate(now);
        if !matches!(gate, Gate::Free | Gate::Probe) || !lane.can_begin() {
            return Err(Stop::Own);
        }
        let extra = self.in_flight - self.active;
        match lane.in_flight.checked_sub(1) {
            None if !is_first => return Err(Stop::NotMore),
            Some(own) if own >= share(self.limits.in_flight.saturating_sub(extra)) => return Err(Stop::Full),
            None | Some(_) => {}
        }
        if gate == Gate::Probe {
            self.probe(subscription, now, actions);
            return Err(Stop::Own);
        }
        let own_share = lane.retries < lane.pace.retry_limit();
        let may_retry = own_share && self.retries < self.limits.retries();
        let Some(work) = lane.pop(may_retry) else {
            return Err(if own_share { Stop::FullOfRetries } else { Stop::Own });
        };
        self.start(work, now, actions);
        Ok(())
    }

    /// Closes what has expired of what was read for a probe, sends the first of the rest, and lets go of
    /// what is left.
    fn probe(&mut self, subscription: SubscriptionId, now: Timestamp, actions: &mut Vec<Action<P>>) {
        let Some(lane) = self.by_subscription.get_mut(&subscription) else {
            return;
        };
        let all = lane.pop_all();
        let (expired, rest): (Vec<_>, Vec<_>) = all
            .into_iter()
            .partition(|work| lane.pace.has_expired(&work.delivery, now));
        for work in expired {
            lane.known.insert(work.delivery.id, Place::Recording { shown: None });
            lane.bytes -= work.bytes;
            self.bytes -= work.bytes;
            self.buffered -= 1;
            self.recording += 1;
            actions.push(Action::GiveUp(work));
        }
        let mut rest = rest.into_iter();
        let probe = rest.next();
        let earliest = rest.as_slice().first().map(|work| work.delivery.due_at);
        for work in rest {
            lane.known.remove(&work.delivery.id);
            lane.bytes -= work.bytes;
            self.bytes -= work.bytes;
            self.buffered -= 1;
        }
        if let Some(earliest) = earliest {
            self.note(subscription, earliest);
        }
        if let Some(probe) = probe {
            self.start(probe, now, actions);
        }
    }

    fn start(&mut self, work: Work<P>, now: Timestamp, actions: &mut Vec<Action<P>>) {
        let retries = usize::from(work.is_retry());
        let Some(lane) = self.by_subscription.get_mut(&work.delivery.subscription) else {
            return;
        };
        let turn = lane.pace.begin(work.delivery.id, now);
        lane.known.insert(work.delivery.id, Place::InFlight(turn));
        if lane.in_flight == 0 {
            self.active += 1;
        }
        lane.in_flight += 1;
        lane.retries += retries;
        self.in_flight += 1;
        self.retries += retries;
        self.buffered -= 1;
        actions.push(Action::Attempt(work));
    }

    fn begin_fetches(&mut self, now: Timestamp, actions: &mut Vec<Action<P>>) {
        // Once round at most: who finds no room now stays in the queue.
        for _ in 0..self.hungry.len() {
            if self.fetches >= self.limits.fetches {
                return;
            }
            let Some(subscription) = self.hungry.pop_front() else {
                return;
            };
            let room = self.room(subscription, None);
            let most_waiting = self.limits.lane_buffer / 2;
            let Some(lane) = self.by_subscription.get_mut(&subscription) else {
                continue;
            };
            let shut = lane.pace.is_shut() && lane.pace.gate(now) != Gate::Probe;
            let due = lane.ledger_due.is_some_and(|due| due <= now);
            if shut || !due || lane.is_fetching() || lane.fetched() > most_waiting {
                lane.hungry = false;
                self.touch(subscription);
                continue;
            }
            if room == 0 {
                self.hungry.push_back(subscription);
                continue;
            }
            lane.hungry = false;
            lane.ledger_due = None;
            lane.fetch = Fetch::UnderWay {
                asked_at: now,
                forgotten: HashSet::new(),
            };
            self.fetches += 1;
            // Rows of what is known come first, for they have been due longest.
            let limit = lane.known.len() + room;
            actions.push(Action::Fetch { subscription, limit });
        }
    }
}
