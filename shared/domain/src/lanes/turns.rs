//! The turns of the lanes: which one begins an attempt or a read next, as shares, limits and time allow.

use super::flow_control::{Gate, is_long};
use super::lane::{DeliveryState, Fetch, Queued};
use super::rota::Rota;
use super::shares::{Member, Shares, Use, share};
use super::speed::Speed;
use super::{Action, LaneId, Lanes, Terms, Work};
use crate::id::SubscriptionId;
use crate::time::Timestamp;
use std::collections::HashSet;
use std::time::Duration;

/// The most lanes that a poll looks at in vain, of those that wait for what others have. A poll must not take
/// longer the more such lanes there are.
const TRIES: usize = 64;

/// Why a lane begins nothing more now.
enum Stop {
    /// It has nothing to send, or may not send it; it is touched when that changes.
    Own,
    /// It has used up its share.
    Full,
    /// Retries have used up their share, and the lane has nothing else.
    FullOfRetries,
    /// It has nothing in flight any more: lanes that have waited longer for their first attempt come before it.
    NotMore,
}

/// Why a lane does not fetch.
enum Sated {
    /// It does not want to.
    Own,
    /// There is no room for what it would bring.
    NoRoom,
}

impl<P> Lanes<P> {
    /// Pauses the lane for `wait`, for a reason that has nothing to do with its subscriber.
    pub fn pause(&mut self, subscription: SubscriptionId, wait: Duration, now: Timestamp) {
        if let Some(lane) = self.by_id.get_mut(&LaneId::of(subscription)) {
            lane.flow.wait(wait, now);
        }
    }

    /// The actions to do now. `terms_of` gives what a subscription says about its lane.
    pub fn poll(&mut self, now: Timestamp, terms_of: impl Fn(SubscriptionId) -> Terms) -> Vec<Action<P>> {
        while let Some((due, lane_id)) = self.timers.first().copied().filter(|(due, _)| *due <= now) {
            self.timers.remove(&(due, lane_id));
            if let Some(lane) = self.by_id.get_mut(&lane_id) {
                lane.timer = None;
            }
            self.touch(lane_id);
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
        while let Some(lane_id) = self.touched.pop_front() {
            self.attend_to(lane_id, now, terms_of(lane_id.subscription()));
        }
    }

    /// Puts the lane into the queues of what it may do now, and sets the time to look at it again.
    fn attend_to(&mut self, lane_id: LaneId, now: Timestamp, terms: Terms) {
        let owned = self.owns(lane_id.shard());
        let Some(lane) = self.by_id.get_mut(&lane_id) else {
            return;
        };
        lane.touched = false;
        if !owned {
            if lane.is_idle() {
                self.forget_lane(lane_id);
            }
            return;
        }
        lane.flow.follow(terms);
        if lane.queued == Queued::No
            && !lane.hungry
            && let Some(member) = self.shares.of_owner(lane.member, terms.owner)
        {
            let (former, has) = (std::mem::replace(&mut lane.member, member), lane.uses());
            self.shares.change(former, has, Use::default());
            self.shares.change(member, Use::default(), has);
            self.shares.leave(former);
            if lane.waits() > 0 && self.shares.is_over(member) {
                // What waits came in while the lane's account was not known. The lane is looked at again.
                return self.let_go(lane_id);
            }
        }
        let gate = lane.flow.gate(now);
        let (passes, paused_until) = match gate {
            Gate::Free | Gate::Probe => (true, None),
            Gate::Until(then) => (false, Some(then)),
            Gate::Probing => (false, None),
        };
        let long = paused_until.filter(|then| is_long(*then, now));
        if long.is_some() && lane.waits() > 0 {
            // The lane is looked at again.
            return self.let_go(lane_id);
        }
        if let Queued::ForRetry(number) = lane.queued
            && lane.waits_for_first()
        {
            self.full_of_retries.remove(&number);
            lane.queued = Queued::No;
        }
        if passes && lane.queued == Queued::No && lane.can_begin() {
            self.numbered += 1;
            if lane.in_flight == 0 {
                lane.queued = Queued::First;
                self.first[lane.member.speed as usize].push(lane.member.group, self.numbered, lane_id);
            } else {
                lane.queued = Queued::More(self.numbered);
                self.more.push_back((self.numbered, lane_id));
            }
        }
        let mut wake = paused_until.filter(|_| lane.waits() > 0);
        if let Some(due) = lane.ledger_due.filter(|_| !lane.is_fetching()) {
            let from = match (lane.flow.is_shut(), paused_until) {
                (true, Some(then)) => Some(due.max(then)),
                (true, None) if gate == Gate::Probing => None,
                (true, None) => lane.flow.probe_from_ledger_at().map(|then| due.max(then)),
                (false, _) => Some(long.map_or(due, |then| due.max(then))),
            };
            if let Some(from) = from.filter(|from| *from > now) {
                wake = Some(wake.map_or(from, |wake| wake.min(from)));
            } else if from.is_some() && !lane.hungry && lane.is_hungry(self.limits.lane_buffer) {
                lane.hungry = true;
                self.hungry[lane.member.speed as usize].push(lane.member.group, 0, lane_id);
            }
        }
        let remembered_until = lane.flow.matters_until(now);
        if lane.is_idle() && lane.queued == Queued::No && !lane.hungry {
            if remembered_until.is_none() {
                return self.forget_lane(lane_id);
            }
            wake = remembered_until;
        }
        if paused_until.is_some() || gate == Gate::Probing {
            self.paused.insert(lane_id);
        } else {
            self.paused.remove(&lane_id);
        }
        self.set_timer(lane_id, wake);
    }

    fn set_timer(&mut self, lane_id: LaneId, wake: Option<Timestamp>) {
        let Some(lane) = self.by_id.get_mut(&lane_id) else {
            return;
        };
        let former = std::mem::replace(&mut lane.timer, wake);
        if former != wake {
            former.map(|former| self.timers.remove(&(former, lane_id)));
            self.timers.extend(wake.map(|wake| (wake, lane_id)));
        }
    }

    fn begin_attempts(&mut self, now: Timestamp, actions: &mut Vec<Action<P>>) {
        for _ in self.retries..self.limits.retries() {
            let Some((_, lane_id)) = self.full_of_retries.pop_first() else {
                break;
            };
            self.numbered += 1;
            self.set_queued(lane_id, Queued::More(self.numbered));
            self.more.push_back((self.numbered, lane_id));
        }
        if self.freed {
            self.first.iter_mut().for_each(Rota::unpark);
        }
        let mut tries = TRIES;
        while self.recording < self.limits.recording {
            let Some((number, lane_id)) = self.next_lane(tries) else {
                self.freed = false;
                return;
            };
            match self.begin(lane_id, number.is_none(), now, actions) {
                Ok(()) => {}
                Err(Stop::Full) => {
                    tries = tries.saturating_sub(1);
                    self.full.extend(number.map(|number| (number, lane_id)));
                }
                Err(Stop::FullOfRetries) => {
                    self.numbered += 1;
                    self.full_of_retries.insert(self.numbered, lane_id);
                    self.set_queued(lane_id, Queued::ForRetry(self.numbered));
                }
                Err(Stop::NotMore) => self.queue_first(lane_id),
                Err(Stop::Own) => {
                    self.set_queued(lane_id, Queued::No);
                    self.touch(lane_id);
                }
            }
        }
    }

    /// The lane that begins an attempt next, with its number if it has something in flight. Lanes with nothing in
    /// flight and the others take turns, so that neither starve while few more outcomes may wait.
    fn next_lane(&mut self, tries: usize) -> Option<(Option<u64>, LaneId)> {
        self.more_is_next = !self.more_is_next;
        let first = |lanes: &mut Self| lanes.next_first().map(|lane_id| (None, lane_id));
        let next = if self.more_is_next {
            self.next_more(|lanes| lanes.more.pop_front()).or_else(|| first(self))
        } else {
            first(self).or_else(|| self.next_more(|lanes| lanes.more.pop_front()))
        };
        let may_be_full = self.freed && tries > 0;
        next.or_else(|| self.next_more(|lanes| lanes.full.pop_front_if(|_| may_be_full)))
    }

    /// The next lane of a queue of those that may have more to send. Entries that are out of date are passed over.
    fn next_more(&mut self, pop: impl Fn(&mut Self) -> Option<(u64, LaneId)>) -> Option<(Option<u64>, LaneId)> {
        loop {
            let (number, lane_id) = pop(self)?;
            let lane = self.by_id.get(&lane_id);
            if lane.is_some_and(|lane| lane.queued == Queued::More(number)) {
                return Some((Some(number), lane_id));
            }
        }
    }

    fn queue_first(&mut self, lane_id: LaneId) {
        if let Some(lane) = self.by_id.get_mut(&lane_id) {
            lane.queued = Queued::First;
            self.numbered += 1;
            self.first[lane.member.speed as usize].push(lane.member.group, self.numbered, lane_id);
        }
    }

    /// The lane that begins its first attempt next. Fast lanes and those of unknown speed take turns with the slow
    /// ones; among the former the lane comes first that has waited longest.
    fn next_first(&mut self) -> Option<LaneId> {
        let Self { first, shares, .. } = self;
        let mut number = |speed: Speed| {
            let may = |group| shares.free_for(Member { group, speed }).first > 0;
            (shares.free(speed).first > 0)
                .then(|| first[speed as usize].next(may))
                .flatten()
        };
        let [fast, unknown, slow] = Speed::ALL.map(&mut number);
        let prompt = match (fast, unknown) {
            (Some(fast), Some(unknown)) if unknown < fast => Some(Speed::Unknown),
            (Some(_), _) => Some(Speed::Fast),
            (None, unknown) => unknown.map(|_| Speed::Unknown),
        };
        let speed = match (prompt, slow) {
            (Some(prompt), Some(_)) => {
                self.slow_is_next = !self.slow_is_next;
                if self.slow_is_next { Speed::Slow } else { prompt }
            }
            (None, Some(_)) => Speed::Slow,
            (prompt, None) => prompt?,
        };
        self.first[speed as usize].pop()
    }

    fn set_queued(&mut self, lane_id: LaneId, queued: Queued) {
        if let Some(lane) = self.by_id.get_mut(&lane_id) {
            lane.queued = queued;
        }
    }

    /// Begins one attempt, if the lane may.
    fn begin(
        &mut self,
        lane_id: LaneId,
        is_first: bool,
        now: Timestamp,
        actions: &mut Vec<Action<P>>,
    ) -> Result<(), Stop> {
        let Some(lane) = self.by_id.get_mut(&lane_id) else {
            return Err(Stop::Own);
        };
        let gate = lane.flow.gate(now);
        if !matches!(gate, Gate::Free | Gate::Probe) || !lane.can_begin() {
            return Err(Stop::Own);
        }
        let free = self.shares.free_for(lane.member);
        match lane.in_flight.checked_sub(1) {
            None if !is_first => return Err(Stop::NotMore),
            Some(own) if own >= share(free.more) => return Err(Stop::Full),
            // Else lanes that always have one in flight would keep the account's others from their first attempt.
            Some(_) if free.first == 0 && self.first.iter().any(|rota| rota.has(lane.member.group)) => {
                return Err(Stop::Full);
            }
            None | Some(_) => {}
        }
        if gate == Gate::Probe {
            self.probe(lane_id, now, actions);
            return Err(Stop::Own);
        }
        let own_share = lane.retries < lane.flow.retry_limit();
        let may_retry = own_share && self.retries < self.limits.retries();
        let Some(work) = lane.pop(may_retry) else {
            return Err(if own_share { Stop::FullOfRetries } else { Stop::Own });
        };
        self.start(work, now, actions);
        Ok(())
    }

    /// Closes the expired ones of the deliveries that were read for a probe, sends the first of the others, and
    /// leaves the rest to the ledger.
    fn probe(&mut self, lane_id: LaneId, now: Timestamp, actions: &mut Vec<Action<P>>) {
        let Some(lane) = self.by_id.get_mut(&lane_id) else {
            return;
        };
        let before = lane.uses();
        let all = lane.pop_all();
        let (expired, rest): (Vec<_>, Vec<_>) = all
            .into_iter()
            .partition(|work| lane.flow.has_expired(&work.delivery, now));
        for work in expired {
            lane.known
                .insert(work.delivery.id, DeliveryState::Recording { shown: None });
            lane.bytes -= work.bytes;
            self.recording += 1;
            actions.push(Action::GiveUp(work));
        }
        let mut rest = rest.into_iter();
        let probe = rest.next();
        let earliest = rest.as_slice().first().map(|work| work.delivery.due_at);
        for work in rest {
            lane.known.remove(&work.delivery.id);
            lane.bytes -= work.bytes;
        }
        // What was taken out is counted out. The probe counts as waiting until it starts, a moment later.
        let mut left = lane.uses();
        left.waiting += usize::from(probe.is_some());
        self.shares.change(lane.member, before, left);
        if let Some(earliest) = earliest {
            self.note(lane_id, earliest);
        }
        if let Some(probe) = probe {
            self.start(probe, now, actions);
        }
    }

    fn start(&mut self, work: Work<P>, now: Timestamp, actions: &mut Vec<Action<P>>) {
        let retries = usize::from(work.is_retry());
        let Some(lane) = self.by_id.get_mut(&work.lane()) else {
            return;
        };
        // The delivery was taken out of what waits a moment ago.
        let mut before = lane.uses();
        before.waiting += 1;
        let turn = lane.flow.begin(work.delivery.id, now);
        lane.known
            .insert(work.delivery.id, DeliveryState::InFlight { turn, began: now });
        lane.in_flight += 1;
        lane.retries += retries;
        self.retries += retries;
        self.shares.change(lane.member, before, lane.uses());
        self.numbered += 1;
        lane.queued = Queued::More(self.numbered);
        self.more.push_back((self.numbered, work.lane()));
        actions.push(Action::Attempt(work));
    }

    fn begin_fetches(&mut self, now: Timestamp, actions: &mut Vec<Action<P>>) {
        if self.fetch_not_before.is_some_and(|then| then > now) {
            return;
        }
        // A time that has passed is no reason to wake up.
        self.fetch_not_before = None;
        if self.fetches >= self.limits.fetches {
            return;
        }
        self.hungry.iter_mut().for_each(Rota::unpark);
        let mut tries = TRIES;
        while tries > 0 && self.fetches < self.limits.fetches {
            let Some(lane_id) = self.next_hungry() else {
                return;
            };
            match self.begin_fetch(lane_id, now) {
                Ok(action) => actions.push(action),
                Err(Sated::NoRoom) => tries -= 1,
                Err(Sated::Own) => self.touch(lane_id),
            }
        }
    }

    /// The next lane that may want to fetch and whose account and speed have room. Fast lanes, slow lanes and those
    /// of unknown speed take turns.
    fn next_hungry(&mut self) -> Option<LaneId> {
        let has_room = |free: Use| free.waiting > 0 && free.bytes > 0;
        for n in 0..Speed::ALL.len() {
            let turn = (self.hungry_turn + n) % Speed::ALL.len();
            let (speed, shares): (_, &Shares) = (Speed::ALL[turn], &self.shares);
            let may = |group| has_room(shares.free_for(Member { group, speed }));
            if has_room(shares.free(speed)) && self.hungry[turn].next(may).is_some() {
                self.hungry_turn = turn + 1;
                return self.hungry[turn].pop();
            }
        }
        None
    }

    fn begin_fetch(&mut self, lane_id: LaneId, now: Timestamp) -> Result<Action<P>, Sated> {
        let lane = self.by_id.get_mut(&lane_id).ok_or(Sated::Own)?;
        let may = lane.flow.admits(now);
        let due = lane.ledger_due.is_some_and(|due| due <= now);
        let wants = may && due && !lane.is_fetching() && lane.is_hungry(self.limits.lane_buffer);
        let lane = &self.by_id[&lane_id];
        let room = self.room_in(lane, None);
        let coming = self.set_aside(lane, room);
        let lane = self.by_id.get_mut(&lane_id).ok_or(Sated::Own)?;
        if wants && room == 0 {
            self.hungry[lane.member.speed as usize].push(lane.member.group, 0, lane_id);
            return Err(Sated::NoRoom);
        }
        lane.hungry = false;
        if !wants {
            return Err(Sated::Own);
        }
        lane.ledger_due = None;
        (lane.reading_from, lane.coming) = (lane.ledger_from, coming);
        lane.fetch = Fetch::UnderWay {
            asked_at: now,
            forgotten: HashSet::new(),
        };
        self.shares.reserve(coming);
        self.fetches += 1;
        Ok(Action::Fetch {
            lane: lane_id,
            from: lane.reading_from,
            // Rows of known deliveries come first, for they have been due longest.
            limit: lane.known.len() + room,
        })
    }
}
