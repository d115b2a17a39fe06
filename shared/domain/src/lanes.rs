//! Which delivery is attempted next.
//!
//! A *lane* is one subscription's way out of this process: a small buffer of deliveries in memory,
//! the number in flight, and the earliest time at which the ledger may hold more that are due. All
//! else stays in the ledger, so a subscriber that is slow, or has a million deliveries waiting, holds
//! one lane and a few deliveries in memory and no more.
//!
//! ```text
//!  offer ───────▶┌────────┐  Attempt   ┌───────────┐ answered  ┌───────────┐ recorded
//!  (dispatch)    │ buffer │───────────▶│ in flight │──────────▶│ recording │─────────▶ forgotten
//!  fetched ─────▶└────────┘            └───────────┘           └───────────┘
//!     ▲ Fetch        ▲ no room: only `due` is noted
//!     └── ledger ────┘
//! ```
//!
//! Guarantees, held by the tests below and by the model in `tests/model`:
//! - a delivery is in at most one of the three places, so one owner never sends it twice at a time;
//! - what is noted as due is fetched: nothing open is forgotten, whatever comes between;
//! - lanes with work take turns, and no lane has more in flight than its own limit;
//! - nothing begins for a shard that is not owned, whoever offers, notes or fetches it.
//!
//! Only the owner of a subscription's shard runs its lane, see the ledger's shards. Shards come and go:
//! [`Lanes::own`] is followed by a look into the ledger, [`Lanes::release`] leaves everything to it. What
//! has begun by then ends here, and is known until its outcome is recorded, so that it is not sent a
//! second time if the shard comes back meanwhile.

use crate::delivery::Delivery;
use crate::id::{DeliveryId, SHARDS, Shard, SubscriptionId};
use crate::time::Timestamp;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

/// A delivery in memory, with what it takes to send it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Work<P> {
    /// The delivery.
    pub delivery: Delivery,
    /// What is sent.
    pub payload: P,
    /// How much memory the payload takes, in bytes.
    pub bytes: usize,
}

/// How much all lanes together may hold.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Attempts at a time.
    pub in_flight: usize,
    /// Deliveries in one lane's buffer.
    pub lane_buffer: usize,
    /// Deliveries in all buffers.
    pub buffered: usize,
    /// Bytes of payload in buffers and in flight.
    pub bytes: usize,
    /// Attempts whose outcome is not in the ledger yet; when there are more, none is begun.
    pub recording: usize,
    /// Reads of the ledger at a time.
    pub fetches: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            in_flight: 1024,
            lane_buffer: 128,
            buffered: 8192,
            bytes: 48 << 20,
            recording: 8192,
            fetches: 4,
        }
    }
}

/// What a lane may always fetch when it has nothing in memory, so that lanes which fill the common
/// buffer and do not empty it cannot starve the others.
const ALWAYS: usize = 4;

/// What is to be done now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action<P> {
    /// Send this; then call [`Lanes::answered`] or [`Lanes::abandoned`].
    Attempt(Work<P>),
    /// Read the subscription's open deliveries from the ledger, in the order of `due_at`, at most
    /// `limit`; then call [`Lanes::fetched`] or [`Lanes::fetch_failed`].
    Fetch {
        /// Whose.
        subscription: SubscriptionId,
        /// The most rows to read.
        limit: usize,
    },
}

/// Whether a lane's rows are being read.
#[derive(Debug, Default)]
enum Fetch {
    #[default]
    None,
    /// With what was forgotten since, which its rows may still show.
    UnderWay(HashSet<DeliveryId>),
    /// The shard was released since: another may have sent what its rows show.
    Void,
}

#[derive(Debug)]
struct Lane<P> {
    buffer: VecDeque<Work<P>>,
    in_flight: usize,
    /// What is in the buffer, in flight or recording.
    known: HashSet<DeliveryId>,
    /// What is recording, and the due time at which a fetch showed it meanwhile, if one did.
    recording: HashMap<DeliveryId, Option<Timestamp>>,
    /// The earliest time at which the ledger may hold a due delivery that is not known here.
    ledger_due: Option<Timestamp>,
    fetch: Fetch,
    ready: bool,
    hungry: bool,
}

impl<P> Lane<P> {
    fn is_fetching(&self) -> bool {
        !matches!(self.fetch, Fetch::None)
    }

    /// Whether there is nothing to remember.
    fn is_idle(&self) -> bool {
        self.known.is_empty() && self.ledger_due.is_none() && !self.is_fetching()
    }
}

impl<P> Default for Lane<P> {
    fn default() -> Self {
        Self {
            buffer: VecDeque::new(),
            in_flight: 0,
            known: HashSet::new(),
            recording: HashMap::new(),
            ledger_due: None,
            fetch: Fetch::None,
            ready: false,
            hungry: false,
        }
    }
}

/// The lanes of one owner.
#[derive(Debug)]
pub struct Lanes<P> {
    limits: Limits,
    by_subscription: HashMap<SubscriptionId, Lane<P>>,
    /// Lanes that may have something to send, in turn.
    ready: VecDeque<SubscriptionId>,
    /// Lanes that may want to fetch, in turn.
    hungry: VecDeque<SubscriptionId>,
    /// Each lane's `ledger_due`, while it lies ahead.
    timers: BTreeSet<(Timestamp, SubscriptionId)>,
    in_flight: usize,
    buffered: usize,
    bytes: usize,
    recording: usize,
    fetches: usize,
    /// How often a fetch has ended or a shard was taken.
    moments: u64,
    /// By shard and not by lane, for lanes come and go; that another lane's fetch is taken for one's own
    /// costs no more than a read.
    shards: Vec<Hold>,
}

/// What is known of a shard.
#[derive(Debug, Clone, Copy, Default)]
struct Hold {
    owned: bool,
    /// The moment at which its last fetch had ended, or it was taken.
    looked_at: u64,
}

/// A moment in the life of [`Lanes`]; see [`Lanes::ticket`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ticket(u64);

/// How full the lanes are, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Lanes with anything in memory or waiting in the ledger.
    pub lanes: usize,
    /// Attempts under way.
    pub in_flight: usize,
    /// Deliveries in buffers.
    pub buffered: usize,
    /// Outcomes not yet in the ledger.
    pub recording: usize,
}

impl<P> Lanes<P> {
    /// No lanes yet, and no shards.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            by_subscription: HashMap::new(),
            ready: VecDeque::new(),
            hungry: VecDeque::new(),
            timers: BTreeSet::new(),
            in_flight: 0,
            buffered: 0,
            bytes: 0,
            recording: 0,
            fetches: 0,
            moments: 0,
            shards: vec![Hold::default(); SHARDS.into()],
        }
    }

    /// These shards are this process's now. What is open on them must be looked up after this, and noted.
    pub fn own(&mut self, shards: impl IntoIterator<Item = Shard>) {
        for shard in shards {
            // What was recorded before is found by that look, and may have been sent by another owner.
            self.looked_at(shard);
            self.hold_mut(shard).owned = true;
        }
    }

    /// These shards are no longer this process's: what waits here for its turn lies in the ledger, and is
    /// forgotten.
    pub fn release(&mut self, shards: impl IntoIterator<Item = Shard>) {
        for shard in shards {
            self.hold_mut(shard).owned = false;
        }
        let hold = &self.shards;
        let owned = |subscription| hold[usize::from(Shard::of(subscription).0)].owned;
        self.ready.retain(|subscription| owned(*subscription));
        self.hungry.retain(|subscription| owned(*subscription));
        self.timers.retain(|(_, subscription)| owned(*subscription));
        for (_, lane) in self.by_subscription.iter_mut().filter(|(id, _)| !owned(**id)) {
            (lane.ready, lane.hungry, lane.ledger_due) = (false, false, None);
            if lane.is_fetching() {
                lane.fetch = Fetch::Void;
            }
            for work in lane.buffer.drain(..) {
                lane.known.remove(&work.delivery.id);
                self.buffered -= 1;
                self.bytes -= work.bytes;
            }
        }
        self.by_subscription.retain(|_, lane| !lane.is_idle());
    }

    /// Whether the shard is this process's.
    pub fn owns(&self, shard: Shard) -> bool {
        self.shards[usize::from(shard.0)].owned
    }

    /// The deliveries of these shards whose attempts have begun and whose outcomes are not known to be in
    /// the ledger: nobody else should send them yet. Each with its shard.
    pub fn busy(&self, shards: &HashSet<Shard>) -> Vec<(Shard, DeliveryId)> {
        let mut busy = Vec::new();
        for (subscription, lane) in &self.by_subscription {
            let shard = Shard::of(*subscription);
            if shards.contains(&shard) {
                let waiting: HashSet<_> = lane.buffer.iter().map(|work| work.delivery.id).collect();
                busy.extend(lane.known.difference(&waiting).map(|id| (shard, *id)));
            }
        }
        busy
    }

    fn hold_mut(&mut self, shard: Shard) -> &mut Hold {
        &mut self.shards[usize::from(shard.0)]
    }

    fn looked_at(&mut self, shard: Shard) {
        self.moments += 1;
        self.hold_mut(shard).looked_at = self.moments;
    }

    /// Must be drawn before the transaction that records a delivery, and shown when it is offered. A
    /// fetch that ended in between may have brought the delivery here already; it may have been sent
    /// and forgotten since, and if the shard was taken in between, by another owner.
    pub fn ticket(&self) -> Ticket {
        Ticket(self.moments)
    }

    /// Takes over a delivery that was just recorded, if its lane has room and nothing older waits in
    /// the ledger; otherwise notes only that the ledger has it. Nothing on a shard that is not owned.
    pub fn offer(&mut self, work: Work<P>, ticket: Ticket, now: Timestamp) {
        let (subscription, due_at) = (work.delivery.subscription, work.delivery.due_at);
        let hold = self.shards[usize::from(Shard::of(subscription).0)];
        if !hold.owned {
            return;
        }
        let room = self.room(subscription);
        let lane = self.by_subscription.entry(subscription).or_default();
        if lane.known.contains(&work.delivery.id) {
            return;
        }
        let behind = lane.is_fetching() || lane.ledger_due.is_some_and(|due| due <= now);
        let maybe_seen = hold.looked_at > ticket.0;
        if behind || maybe_seen || room == 0 || due_at > now {
            self.note(subscription, due_at);
        } else {
            self.buffer(work);
        }
    }

    /// Notes that the ledger may have an open delivery of that subscription, due then. Nothing on a shard
    /// that is not owned.
    pub fn note(&mut self, subscription: SubscriptionId, due_at: Timestamp) {
        if !self.owns(Shard::of(subscription)) {
            return;
        }
        let lane = self.by_subscription.entry(subscription).or_default();
        if lane.ledger_due.is_some_and(|earlier| earlier <= due_at) {
            return;
        }
        if let Some(later) = lane.ledger_due.replace(due_at) {
            self.timers.remove(&(later, subscription));
        }
        self.timers.insert((due_at, subscription));
    }

    /// What is to be done now. `limit_of` gives a subscription's `MaxInFlight`.
    pub fn poll(&mut self, now: Timestamp, limit_of: impl Fn(SubscriptionId) -> usize) -> Vec<Action<P>> {
        while let Some((due, subscription)) = self.timers.first().copied().filter(|(due, _)| *due <= now) {
            self.timers.remove(&(due, subscription));
            self.make_hungry(subscription);
        }
        let mut actions = Vec::new();
        self.poll_attempts(&limit_of, &mut actions);
        self.poll_fetches(now, &mut actions);
        actions
    }

    fn poll_attempts(&mut self, limit_of: &impl Fn(SubscriptionId) -> usize, actions: &mut Vec<Action<P>>) {
        while self.in_flight < self.limits.in_flight && self.recording < self.limits.recording {
            let Some(subscription) = self.ready.pop_front() else {
                return;
            };
            let Some(lane) = self.by_subscription.get_mut(&subscription) else {
                continue;
            };
            lane.ready = false;
            if lane.in_flight >= limit_of(subscription) {
                continue; // ready again when one of its own is answered
            }
            let Some(work) = lane.buffer.pop_front() else {
                continue;
            };
            lane.in_flight += 1;
            self.in_flight += 1;
            self.buffered -= 1;
            actions.push(Action::Attempt(work));
            self.make_ready(subscription);
            self.make_hungry(subscription);
        }
    }

    fn poll_fetches(&mut self, now: Timestamp, actions: &mut Vec<Action<P>>) {
        // Once round at most: who finds no room now stays in the queue.
        for _ in 0..self.hungry.len() {
            if self.fetches >= self.limits.fetches {
                return;
            }
            let Some(subscription) = self.hungry.pop_front() else {
                return;
            };
            let room = self.room(subscription);
            let Some(lane) = self.by_subscription.get_mut(&subscription) else {
                continue;
            };
            lane.hungry = false;
            let due = lane.ledger_due.is_some_and(|due| due <= now);
            // A lane asks again when its buffer is half empty, so that reads stay few.
            if !due || lane.is_fetching() || lane.buffer.len() > self.limits.lane_buffer / 2 {
                self.forget_if_idle(subscription);
                continue;
            }
            if room == 0 {
                self.make_hungry(subscription);
                continue;
            }
            lane.ledger_due = None;
            lane.fetch = Fetch::UnderWay(HashSet::new());
            self.fetches += 1;
            // Rows of what is known come first, for they have been due longest.
            let limit = lane.known.len() + room;
            actions.push(Action::Fetch { subscription, limit });
        }
    }

    /// Takes the rows of a [`Action::Fetch`], ordered by `due_at`.
    pub fn fetched(&mut self, subscription: SubscriptionId, rows: Vec<Work<P>>, limit: usize, now: Timestamp) {
        if let Fetch::UnderWay(forgotten) = self.end_fetch(subscription) {
            self.take_rows(subscription, rows, limit, now, &forgotten);
        }
        self.make_hungry(subscription);
        self.forget_if_idle(subscription);
    }

    fn take_rows(
        &mut self,
        subscription: SubscriptionId,
        rows: Vec<Work<P>>,
        limit: usize,
        now: Timestamp,
        forgotten: &HashSet<DeliveryId>,
    ) {
        let last = rows.last().map(|row| row.delivery.due_at);
        if let Some(last) = last.filter(|_| rows.len() >= limit) {
            self.note(subscription, last);
        }
        let most = self.limits.lane_buffer.max(ALWAYS);
        for work in rows {
            let id = work.delivery.id;
            let lane = self.by_subscription.get(&subscription);
            // More than there was room for can come when what was known left the ledger meanwhile.
            let full = lane.is_some_and(|lane| lane.buffer.len() >= most);
            if full || work.delivery.due_at > now {
                self.note(subscription, work.delivery.due_at);
                break;
            }
            // A row whose outcome is just being told may be that from before, or one opened again
            // since; only another read can say.
            let recording = self
                .by_subscription
                .get_mut(&subscription)
                .and_then(|lane| lane.recording.get_mut(&id));
            if let Some(shown) = recording {
                *shown = Some(work.delivery.due_at);
            } else if forgotten.contains(&id) {
                self.note(subscription, work.delivery.due_at);
            } else if !self
                .by_subscription
                .get(&subscription)
                .is_some_and(|lane| lane.known.contains(&id))
            {
                self.buffer(work);
            }
        }
    }

    /// A [`Action::Fetch`] that failed is tried again at `again_at`.
    pub fn fetch_failed(&mut self, subscription: SubscriptionId, again_at: Timestamp) {
        if !matches!(self.end_fetch(subscription), Fetch::None) {
            // What was noted meanwhile waits too; its timer may have run out during the fetch.
            let noted = self
                .by_subscription
                .get_mut(&subscription)
                .and_then(|lane| lane.ledger_due.take());
            if let Some(noted) = noted {
                self.timers.remove(&(noted, subscription));
            }
            self.note(subscription, again_at);
            self.forget_if_idle(subscription);
        }
    }

    fn end_fetch(&mut self, subscription: SubscriptionId) -> Fetch {
        let lane = self.by_subscription.get_mut(&subscription);
        let fetch = lane.map_or(Fetch::None, |lane| std::mem::take(&mut lane.fetch));
        if !matches!(fetch, Fetch::None) {
            self.fetches -= 1;
            self.looked_at(Shard::of(subscription));
        }
        fetch
    }

    /// An attempt is over; its outcome is now recorded, and the next may begin.
    pub fn answered(&mut self, work: &Work<P>) {
        self.leave_flight(work);
        self.recording += 1;
        if let Some(lane) = self.by_subscription.get_mut(&work.delivery.subscription) {
            lane.recording.insert(work.delivery.id, None);
        }
    }

    /// The outcome is in the ledger; the delivery is closed, or open again and due then.
    pub fn recorded(&mut self, subscription: SubscriptionId, id: DeliveryId, due_at: Option<Timestamp>) {
        self.recording -= 1;
        let lane = self.by_subscription.get_mut(&subscription);
        if let Some(shown) = lane.and_then(|lane| lane.recording.remove(&id)?) {
            self.note(subscription, shown);
        }
        self.forget(subscription, id, due_at);
    }

    /// An attempt was not made, or its outcome could not be told; the delivery is in the ledger as it
    /// was.
    pub fn abandoned(&mut self, work: &Work<P>, again_at: Timestamp) {
        self.leave_flight(work);
        self.forget(work.delivery.subscription, work.delivery.id, Some(again_at));
    }

    /// When [`Lanes::poll`] has something to do next, if nothing else happens before.
    pub fn next_wake(&self) -> Option<Timestamp> {
        self.timers.first().map(|(due, _)| *due)
    }

    /// How full the lanes are.
    pub fn load(&self) -> Load {
        Load {
            lanes: self.by_subscription.len(),
            in_flight: self.in_flight,
            buffered: self.buffered,
            recording: self.recording,
        }
    }

    /// The `due_at` of the delivery that waits longest, of what is in buffers or noted as due.
    pub fn oldest_due(&self, now: Timestamp) -> Option<Timestamp> {
        let lanes = self.by_subscription.values();
        let due = lanes.flat_map(|lane| [lane.ledger_due, lane.buffer.front().map(|work| work.delivery.due_at)]);
        due.flatten().filter(|due| *due <= now).min()
    }

    fn leave_flight(&mut self, work: &Work<P>) {
        let subscription = work.delivery.subscription;
        if let Some(lane) = self.by_subscription.get_mut(&subscription) {
            lane.in_flight -= 1;
        }
        self.in_flight -= 1;
        self.bytes -= work.bytes;
        self.make_ready(subscription);
    }

    fn forget(&mut self, subscription: SubscriptionId, id: DeliveryId, due_at: Option<Timestamp>) {
        if let Some(lane) = self.by_subscription.get_mut(&subscription) {
            lane.known.remove(&id);
            if let Fetch::UnderWay(forgotten) = &mut lane.fetch {
                forgotten.insert(id);
            }
        }
        if let Some(due_at) = due_at {
            self.note(subscription, due_at);
        }
        self.make_hungry(subscription);
        self.forget_if_idle(subscription);
    }

    fn buffer(&mut self, work: Work<P>) {
        let subscription = work.delivery.subscription;
        self.buffered += 1;
        self.bytes += work.bytes;
        let lane = self.by_subscription.entry(subscription).or_default();
        lane.known.insert(work.delivery.id);
        lane.buffer.push_back(work);
        self.make_ready(subscription);
    }

    /// How many more deliveries the lane may buffer.
    fn room(&self, subscription: SubscriptionId) -> usize {
        let lane = self.by_subscription.get(&subscription);
        if lane.is_none_or(|lane| lane.known.is_empty()) {
            return if self.is_full() {
                ALWAYS
            } else {
                self.limits.lane_buffer.max(ALWAYS)
            };
        }
        if self.is_full() {
            return 0;
        }
        let buffered = lane.map_or(0, |lane| lane.buffer.len());
        self.limits.lane_buffer.saturating_sub(buffered)
    }

    fn is_full(&self) -> bool {
        self.buffered >= self.limits.buffered || self.bytes >= self.limits.bytes
    }

    fn make_ready(&mut self, subscription: SubscriptionId) {
        if let Some(lane) = self.by_subscription.get_mut(&subscription)
            && !lane.ready
            && !lane.buffer.is_empty()
        {
            lane.ready = true;
            self.ready.push_back(subscription);
        }
    }

    fn make_hungry(&mut self, subscription: SubscriptionId) {
        if let Some(lane) = self.by_subscription.get_mut(&subscription)
            && !lane.hungry
            && !lane.is_fetching()
            && lane.ledger_due.is_some()
        {
            lane.hungry = true;
            self.hungry.push_back(subscription);
        }
    }

    fn forget_if_idle(&mut self, subscription: SubscriptionId) {
        if self.by_subscription.get(&subscription).is_some_and(Lane::is_idle) {
            self.by_subscription.remove(&subscription);
        }
    }
}

#[cfg(test)]
mod tests;
