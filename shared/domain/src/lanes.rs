//! Which delivery is attempted next.
//!
//! A *lane* is one subscription's way out of this process: a few deliveries in memory, the number in flight,
//! what its subscriber's answers say about the next attempt, and the earliest time at which the ledger may
//! hold more that are due. All else stays in the ledger, so a subscriber that is slow, or has a million
//! deliveries waiting, holds one lane and a few deliveries in memory and no more.
//!
//! ```text
//!  offer ───────▶┌─────────┐  Attempt   ┌───────────┐ answered  ┌───────────┐ recorded
//!  (dispatch)    │ waiting │───────────▶│ in flight │──────────▶│ recording │─────────▶ forgotten
//!  fetched ─────▶└─────────┘            └───────────┘           └───────────┘
//!     ▲ Fetch        ▲ no room, or away: only `due` is noted
//!     └── ledger ────┘
//! ```
//!
//! Guarantees, held by the tests below and by the model in `tests/model`:
//! - a delivery is in at most one of the three places, so one owner never sends it twice at a time;
//! - what is noted as due is fetched: nothing open is forgotten, whatever comes between;
//! - lanes with work take turns, and no lane has more in flight than its own limit;
//! - nothing begins for a shard that is not owned, whoever offers, notes or fetches it.
//!
//! # Shares
//! No lane and no account fills what all have in common: attempts, buffer and bytes. Each lane may have one
//! attempt in flight before any has a second ([`Limits::lanes_in_flight`] apart from [`Limits::in_flight`]);
//! lanes that answered fast of late have a part that slow ones cannot take, and the slow ones of one account
//! leave room for another's: see `shares`. Nothing is ever above its [`Limits`], for what does not fit is left
//! to the ledger, and what may not be sent soon is not kept in memory: that of a lane that is paused, or whose
//! subscriber is slow.
//!
//! First attempts and retries have shares of their own: a quarter of a lane's attempts, and of all, is not
//! for retries; and what dispatch offers, what was fetched for its first attempt, and retries take turns.
//! So what is new waits for no more than one of those that are due again, however many.
//!
//! # Subscribers that cannot keep up
//! [`Terms`] and the answers decide how much of a lane is sent: its rate, the pause that an answer asked
//! for, the limit in flight ([`crate::in_flight_limit`]) and the [`crate::breaker`]. While that is open
//! nothing of the lane is in memory, and nothing is read but before a probe; what dispatch offers then may be
//! it. Otherwise what was due longest is read: those of it whose give-up time has passed are closed without an attempt, as many reads long as
//! there are only such, and the first of the others is the probe. Rows are read in the order of `due_at` and
//! not of their age, so one that had been tried before the breaker opened may wait for those that were due
//! before it: it is closed at the latest when its give-up time has passed since it was due.
//!
//! # Shards
//! Only the owner of a subscription's shard runs its lane, see the ledger's shards. Shards come and go:
//! [`Lanes::own`] is followed by a look into the ledger, [`Lanes::release`] leaves everything to it. What
//! has begun by then ends here, and is known until its outcome is recorded, so that it is not sent a
//! second time if the shard comes back meanwhile. What was learnt of a subscriber does not go with it.

mod intake;
mod lane;
mod load;
mod looks;
mod pace;
mod rota;
mod search;
mod shares;
mod speed;
mod state;
mod turns;

use crate::breaker::Turned;
use crate::delivery::Delivery;
use crate::id::{DeliveryId, SHARDS, Shard, SubscriptionId};
use crate::time::Timestamp;
use lane::{Fetch, Lane, Place, Queued};
pub use load::{Load, Survey};
pub use looks::Ticket;
pub use pace::{Answer, MAX_PAUSE, Terms, Verdict};
use rota::Rota;
pub use search::{Page, Progress, Search, pause_after};
pub use shares::Limits;
use shares::Shares;
use speed::Speed;
pub use state::LaneState;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::time::Duration;

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

impl<P> Work<P> {
    fn is_retry(&self) -> bool {
        self.delivery.attempts > 0
    }
}

/// How long after a read that brought all that was due the next one is, for what it showed to be due later.
/// Retries, spread by chance as they are, would otherwise fall due one by one, with a read for each.
const READS_APART: Duration = Duration::from_millis(50);

/// What is to be done now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action<P> {
    /// Send this; then call [`Lanes::answered`] or [`Lanes::abandoned`].
    Attempt(Work<P>),
    /// Close this as given up, without an attempt; then call [`Lanes::recorded`].
    GiveUp(Work<P>),
    /// Read the subscription's open deliveries from the ledger, in the order of `due_at`, at most
    /// `limit`, and what it takes to send them as [`Lanes::scope`] says; then call [`Lanes::fetched`] or
    /// [`Lanes::fetch_failed`].
    Fetch {
        /// Whose.
        subscription: SubscriptionId,
        /// Those that are due from then on. Those that a former owner had in flight are wanted whenever they
        /// are due.
        from: Timestamp,
        /// The most rows to read.
        limit: usize,
    },
}

/// A row of an [`Action::Fetch`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Row<P> {
    /// With what it takes to send it.
    Whole(Work<P>),
    /// Without: it is outside of the [`Scope`].
    Bare(Delivery),
}

impl<P> Row<P> {
    fn delivery(&self) -> &Delivery {
        match self {
            Self::Whole(work) => &work.delivery,
            Self::Bare(delivery) => delivery,
        }
    }
}

impl<P> From<Work<P>> for Row<P> {
    fn from(work: Work<P>) -> Self {
        Self::Whole(work)
    }
}

/// Of which rows an [`Action::Fetch`] shall bring what it takes to send them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// Not of these, which are in memory.
    pub known: HashSet<DeliveryId>,
    /// Of no more than that many.
    pub rows: usize,
    /// As long as it has not brought that many bytes; at least 1.
    pub bytes: usize,
}

impl Scope {
    /// Of all.
    pub fn all() -> Self {
        Self {
            known: HashSet::new(),
            rows: usize::MAX,
            bytes: usize::MAX,
        }
    }
}

/// The lanes of one owner.
#[derive(Debug)]
pub struct Lanes<P> {
    limits: Limits,
    by_subscription: HashMap<SubscriptionId, Lane<P>>,
    /// Lanes that something happened to since they were attended to.
    touched: VecDeque<SubscriptionId>,
    /// Lanes that may have something to send and have nothing in flight, in turn, by speed.
    first: [Rota; 3],
    slow_is_next: bool,
    /// Lanes that may have more to send, in turn by number.
    more: VecDeque<(u64, SubscriptionId)>,
    more_is_next: bool,
    /// Lanes that have their share, until an attempt ends.
    full: VecDeque<(u64, SubscriptionId)>,
    /// Lanes that have only retries, which have their share, until one of these ends; in turn by number.
    full_of_retries: BTreeMap<u64, SubscriptionId>,
    numbered: u64,
    /// Lanes that may want to fetch, in turn, by speed.
    hungry: [Rota; 3],
    hungry_turn: usize,
    fetch_not_before: Option<Timestamp>,
    /// Lanes that wait for the time at which their subscriber may be sent more.
    held: HashSet<SubscriptionId>,
    /// When each lane is attended to, whatever happens.
    timers: BTreeSet<(Timestamp, SubscriptionId)>,
    shares: Shares,
    retries: usize,
    /// Whether an attempt ended since the lanes that have their share were looked at.
    freed: bool,
    recording: usize,
    fetches: usize,
    /// How often a fetch has ended or a shard was taken.
    moments: u64,
    shards: Vec<Hold>,
}

/// What is known of a shard.
#[derive(Debug, Clone, Copy, Default)]
struct Hold {
    owned: bool,
    /// The moment at which it was taken.
    taken_at: Ticket,
    /// The moment at which the last fetch had ended of a lane that is forgotten by now. That another lane's
    /// is taken for one's own costs no more than a read.
    looked_at: Ticket,
}

impl<P> Lanes<P> {
    /// No lanes yet, and no shards.
    pub fn new(limits: Limits) -> Self {
        Self {
            shares: Shares::new(&limits),
            limits,
            by_subscription: HashMap::new(),
            touched: VecDeque::new(),
            first: Default::default(),
            slow_is_next: false,
            more: VecDeque::new(),
            more_is_next: false,
            full: VecDeque::new(),
            full_of_retries: BTreeMap::new(),
            numbered: 0,
            hungry: Default::default(),
            hungry_turn: 0,
            fetch_not_before: None,
            held: HashSet::new(),
            timers: BTreeSet::new(),
            retries: 0,
            freed: false,
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
            let taken_at = self.next_moment();
            let hold = self.hold_mut(shard);
            (hold.owned, hold.taken_at) = (true, taken_at);
        }
    }

    /// These shards are no longer this process's: what waits here for its turn lies in the ledger, and is
    /// forgotten.
    pub fn release(&mut self, shards: impl IntoIterator<Item = Shard>) {
        for shard in shards {
            self.hold_mut(shard).owned = false;
        }
        let hold = &self.shards;
        let owned = |id: &SubscriptionId| hold[usize::from(Shard::of(*id).0)].owned;
        for queue in [&mut self.more, &mut self.full] {
            queue.retain(|(_, id)| owned(id));
        }
        for rota in self.first.iter_mut().chain(&mut self.hungry) {
            rota.retain(owned);
        }
        self.full_of_retries.retain(|_, id| owned(id));
        self.held.retain(owned);
        self.timers.retain(|(_, id)| owned(id));
        for (_, lane) in self.by_subscription.iter_mut().filter(|(id, _)| !owned(id)) {
            (lane.queued, lane.hungry) = (Queued::No, false);
            (lane.ledger_due, lane.timer) = (None, None);
            lane.pace = pace::Pace::default();
            lane.held_back_at = None;
            if lane.is_fetching() {
                lane.fetch = Fetch::Void;
            }
            let before = lane.uses();
            drop(lane.drop_all());
            self.shares.change(lane.member, before, lane.uses());
        }
        let gone = self.by_subscription.iter();
        let gone: Vec<_> = gone
            .filter(|(id, lane)| !owned(id) && lane.is_idle())
            .map(|(id, _)| *id)
            .collect();
        for id in gone {
            self.forget_lane(id);
        }
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
                let begun = lane.known.iter().filter(|(_, place)| !matches!(place, Place::Waiting));
                busy.extend(begun.map(|(id, _)| (shard, *id)));
            }
        }
        busy
    }

    /// Must be drawn before the transaction that records a delivery, and shown when it is offered. A
    /// fetch that ended in between may have brought the delivery here already; it may have been sent
    /// and forgotten since, and if the shard was taken in between, by another owner.
    pub fn ticket(&self) -> Ticket {
        Ticket(self.moments)
    }

    /// When [`Lanes::poll`] has something to do next, if nothing else happens before.
    pub fn next_wake(&self) -> Option<Timestamp> {
        let hungry = self.hungry.iter().any(|rota| !rota.is_empty());
        let fetch = self.fetch_not_before.filter(|_| hungry);
        self.timers.first().map(|(due, _)| *due).into_iter().chain(fetch).min()
    }

    /// Subscriptions may have changed: lanes that are held back are looked at again.
    pub fn terms_changed(&mut self) {
        let held: Vec<_> = self.held.iter().copied().collect();
        for id in held {
            self.touch(id);
        }
    }

    /// An attempt is over; its outcome is now recorded, and the next may begin. `jitter` is a random number
    /// from 0 to 1. What that did to the subscriber's breaker, if anything.
    pub fn answered(&mut self, work: &Work<P>, answer: Answer, now: Timestamp, jitter: f64) -> Option<Turned> {
        let Delivery { id, subscription, .. } = work.delivery;
        let begun = self.leave_flight(work);
        self.recording += 1;
        let owned = self.owns(Shard::of(subscription));
        if let Some((_, began)) = begun.filter(|_| answer.verdict != Verdict::Unsent) {
            self.judge(subscription, Speed::of(now.since(began)));
        }
        let lane = self.by_subscription.get_mut(&subscription)?;
        lane.known.insert(id, Place::Recording { shown: None });
        let turned = begun
            .filter(|_| owned)
            .and_then(|(turn, _)| lane.pace.hear(id, turn, answer, now, jitter));
        if turned == Some(Turned::Opened) {
            self.let_go(subscription);
        }
        turned
    }

    /// The outcome is in the ledger; the delivery is closed, or open again and due then.
    pub fn recorded(&mut self, subscription: SubscriptionId, id: DeliveryId, due_at: Option<Timestamp>) {
        self.recording -= 1;
        let lane = self.by_subscription.get_mut(&subscription);
        if let Some(Place::Recording { shown: Some(shown) }) = lane.and_then(|lane| lane.known.remove(&id)) {
            self.note(subscription, shown);
        }
        self.forget(subscription, id, due_at);
    }

    /// An attempt was not made, or its outcome could not be told; the delivery is in the ledger as it
    /// was.
    pub fn abandoned(&mut self, work: &Work<P>, again_at: Timestamp, now: Timestamp) {
        let Delivery { id, subscription, .. } = work.delivery;
        self.leave_flight(work);
        if let Some(lane) = self.by_subscription.get_mut(&subscription) {
            lane.pace.withdrawn(id, now);
        }
        self.forget(subscription, id, None);
        // The ledger has it as it was.
        self.note_from(subscription, again_at, work.delivery.due_at);
    }

    /// Its subscriber answered as fast as that. What waits of one that is slow by now is left to the ledger.
    fn judge(&mut self, subscription: SubscriptionId, speed: Speed) {
        let Some(lane) = self.by_subscription.get_mut(&subscription) else {
            return;
        };
        if lane.member.speed == speed {
            return;
        }
        self.shares.heard(subscription, speed);
        let (former, has) = (lane.member, lane.uses());
        lane.member.speed = speed;
        self.shares.change(former, has, shares::Use::default());
        self.shares.change(lane.member, shares::Use::default(), has);
        if speed == Speed::Slow && !lane.pace.is_shut() {
            self.let_go(subscription);
        }
    }

    fn hold_mut(&mut self, shard: Shard) -> &mut Hold {
        &mut self.shards[usize::from(shard.0)]
    }

    fn next_moment(&mut self) -> Ticket {
        self.moments += 1;
        Ticket(self.moments)
    }

    fn lane_mut(&mut self, subscription: SubscriptionId) -> &mut Lane<P> {
        let looked_at = self.shards[usize::from(Shard::of(subscription).0)].looked_at;
        let (lanes, shares) = (&mut self.by_subscription, &mut self.shares);
        lanes
            .entry(subscription)
            .or_insert_with(|| Lane::since(looked_at, shares.enter(subscription)))
    }

    fn leave_flight(&mut self, work: &Work<P>) -> Option<(crate::in_flight_limit::Turn, Timestamp)> {
        let Delivery { id, subscription, .. } = work.delivery;
        let retries = usize::from(work.is_retry());
        self.retries -= retries;
        self.freed = true;
        self.touch(subscription);
        let lane = self.by_subscription.get_mut(&subscription)?;
        let before = lane.uses();
        lane.in_flight -= 1;
        lane.retries -= retries;
        lane.bytes -= work.bytes;
        if lane.in_flight == 0 && matches!(lane.queued, Queued::More(_)) {
            // Its next is a first one.
            lane.queued = Queued::No;
        }
        self.shares.change(lane.member, before, lane.uses());
        match lane.known.get(&id) {
            Some(Place::InFlight { turn, began }) => Some((*turn, *began)),
            Some(Place::Waiting | Place::Recording { .. }) | None => None,
        }
    }

    fn forget(&mut self, subscription: SubscriptionId, id: DeliveryId, due_at: Option<Timestamp>) {
        if let Some(lane) = self.by_subscription.get_mut(&subscription) {
            lane.known.remove(&id);
            if let Fetch::UnderWay { forgotten, .. } = &mut lane.fetch {
                forgotten.insert(id);
            }
        }
        if let Some(due_at) = due_at {
            self.note(subscription, due_at);
        }
        self.touch(subscription);
    }

    fn forget_lane(&mut self, subscription: SubscriptionId) {
        let Some(lane) = self.by_subscription.remove(&subscription) else {
            return;
        };
        if let Some(timer) = lane.timer {
            self.timers.remove(&(timer, subscription));
        }
        self.held.remove(&subscription);
        self.shares.leave(lane.member);
        let hold = self.hold_mut(Shard::of(subscription));
        hold.looked_at = hold.looked_at.max(lane.looks.last());
    }

    /// Has the lane attended to at the next poll.
    fn touch(&mut self, subscription: SubscriptionId) {
        if let Some(lane) = self.by_subscription.get_mut(&subscription)
            && !std::mem::replace(&mut lane.touched, true)
        {
            self.touched.push_back(subscription);
        }
    }

    /// Leaves what waits to the ledger.
    fn let_go(&mut self, subscription: SubscriptionId) {
        let Some(lane) = self.by_subscription.get_mut(&subscription) else {
            return;
        };
        let before = lane.uses();
        let all = lane.drop_all();
        self.shares.change(lane.member, before, lane.uses());
        if let Some(earliest) = all.first() {
            self.note(subscription, earliest.delivery.due_at);
        }
    }
}

#[cfg(test)]
mod tests;
