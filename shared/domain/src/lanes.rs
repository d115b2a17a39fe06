//! The lanes of a process, which decide which delivery is attempted next.
//!
//! A *lane* is what a process keeps in memory for one subscription: a few deliveries, the number in flight, what
//! the subscriber's answers say about the next attempt, and the earliest time at which the ledger may hold more
//! due deliveries. All other deliveries stay in the ledger. So a subscriber that is slow, or has a million
//! deliveries waiting, costs one lane and a few deliveries in memory and no more.
//!
//! ```text
//!  offer ───────▶┌─────────┐  Attempt   ┌───────────┐ answered  ┌───────────┐ recorded
//!  (dispatch)    │ waiting │───────────▶│ in flight │──────────▶│ recording │─────────▶ forgotten
//!  fetched ─────▶└─────────┘            └───────────┘           └───────────┘
//!     ▲ Fetch        ▲ no room, or away: only `due` is noted
//!     └── ledger ────┘
//! ```
//!
//! Guarantees, checked by the tests below and by the model in `tests/model`:
//! - a delivery is in at most one of the three places, so one worker never sends it twice at a time;
//! - every due time that was noted leads to a fetch: no open delivery is forgotten, whatever happens in between;
//! - lanes with work take turns, and no lane has more in flight than its own limit;
//! - nothing begins for a shard that this process does not own, be it offered, noted or fetched.
//!
//! # Shares
//! No lane and no account can use up what all lanes share: attempts, buffer and bytes. Each lane may have one
//! attempt in flight before any has a second: [`Limits::lanes_in_flight`] bounds the first ones and
//! [`Limits::in_flight`] those beyond. Lanes that answered fast of late have a part that slow lanes cannot take,
//! and the slow lanes of one account leave room for other accounts: see `shares`. The [`Limits`] are never
//! exceeded: what does not fit stays in the ledger. So does what may not be sent soon, because its lane is
//! paused or its subscriber is slow.
//!
//! First attempts and retries have shares of their own: a quarter of a lane's attempts, and of all attempts, is
//! closed to retries. Three sources take turns: what dispatch offers, what was fetched for its first attempt,
//! and retries. So a new delivery waits for at most one retry, however many are due.
//!
//! # Subscribers that cannot keep up
//! [`Terms`] and the answers decide how much of a lane is sent: its rate, the pause that an answer asked
//! for, the limit in flight ([`crate::in_flight_limit`]) and the [`crate::breaker`]. While the breaker is open
//! the lane keeps nothing in memory. When a probe is due, a delivery that dispatch just offers serves as the
//! probe. If there is none, the longest due rows are read from the ledger. Those whose give-up time has passed
//! are closed without an attempt, read after read as long as there are only such rows. The first of the others
//! is the probe. Rows are read in the order of `due_at` and not of their age. So a delivery that was tried before
//! the breaker opened may wait behind those that were due before it; it is closed at the latest when its
//! give-up time has passed since it was due.
//!
//! # Shards
//! Only the worker that has a subscription's shard runs its lane; see the ledger's shards. A process gains and loses
//! shards while it runs: after [`Lanes::own`] the ledger must be read, [`Lanes::release`] leaves everything to
//! the ledger. An attempt that has begun by then ends here. It stays known until its outcome is recorded, so
//! that it is not sent a second time if the shard comes back meanwhile. The next worker is not told what this one
//! has learnt of a subscriber.

mod flow_control;
mod intake;
mod lane;
mod lane_id;
mod load;
mod read_history;
mod rota;
mod search;
mod shares;
mod speed;
mod state;
mod turns;

use crate::breaker::Turned;
use crate::delivery::Delivery;
use crate::id::{DeliveryId, SHARDS, Shard};
use crate::time::Timestamp;
pub use flow_control::{Answer, MAX_PAUSE, Terms, Verdict};
use lane::{DeliveryState, Fetch, Lane, Queued};
pub use lane_id::LaneId;
pub use load::{Load, Survey};
pub use read_history::ReadMark;
use rota::Rota;
pub use search::{Page, Progress, Search, Wakeup, pause_after};
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
    /// The lane of the delivery.
    pub const fn lane(&self) -> LaneId {
        self.delivery.lane()
    }

    fn is_retry(&self) -> bool {
        self.delivery.attempts > 0
    }
}

/// The least time from a read that brought everything due to the next read, for rows that it showed to be due later.
/// Retries are spread by chance and would otherwise fall due one by one, with a read for each.
const READS_APART: Duration = Duration::from_millis(50);

/// What the caller is to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action<P> {
    /// Send this; then call [`Lanes::answered`] or [`Lanes::abandoned`].
    Attempt(Work<P>),
    /// Close this as given up, without an attempt; then call [`Lanes::recorded`].
    GiveUp(Work<P>),
    /// Read the lane's open deliveries from the ledger, in the order of `due_at`, at most
    /// `limit`, and what it takes to send them as [`Lanes::scope`] says; then call [`Lanes::fetched`] or
    /// [`Lanes::fetch_failed`].
    Fetch {
        /// The lane whose deliveries are read.
        lane: LaneId,
        /// Deliveries due from this time on are read. Those that a former worker had in flight are read whenever
        /// they are due.
        from: Timestamp,
        /// The most rows to read.
        limit: usize,
    },
}

/// A row of an [`Action::Fetch`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Row<P> {
    /// A delivery with what it takes to send it.
    Whole(Work<P>),
    /// A delivery without that: it is outside of the [`Scope`].
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

/// The rows that an [`Action::Fetch`] shall bring whole, with what it takes to send them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// Deliveries that are in memory already: their rows stay bare.
    pub known: HashSet<DeliveryId>,
    /// The most rows to bring whole.
    pub rows: usize,
    /// The number of bytes, at least 1, after which no more rows are brought whole.
    pub bytes: usize,
}

impl Scope {
    /// A scope that brings every row whole.
    pub fn all() -> Self {
        Self {
            known: HashSet::new(),
            rows: usize::MAX,
            bytes: usize::MAX,
        }
    }
}

/// The lanes of one worker.
#[derive(Debug)]
pub struct Lanes<P> {
    limits: Limits,
    by_id: HashMap<LaneId, Lane<P>>,
    /// Lanes to attend to at the next poll, because something happened to them.
    touched: VecDeque<LaneId>,
    /// Lanes that may have something to send and have nothing in flight, in turn, by speed.
    first: [Rota; 3],
    slow_is_next: bool,
    /// Lanes that may have more to send, in turn by number.
    more: VecDeque<(u64, LaneId)>,
    more_is_next: bool,
    /// Lanes that have used up their share; they wait until an attempt ends.
    full: VecDeque<(u64, LaneId)>,
    /// Lanes that have only retries, while retries have used up their share: they wait until a retry ends, in turn
    /// by number.
    full_of_retries: BTreeMap<u64, LaneId>,
    numbered: u64,
    /// Lanes that may want to fetch, in turn, by speed.
    hungry: [Rota; 3],
    hungry_turn: usize,
    fetch_not_before: Option<Timestamp>,
    /// Lanes that are paused until their subscriber may be sent more.
    paused: HashSet<LaneId>,
    /// When each lane is attended to at the latest.
    timers: BTreeSet<(Timestamp, LaneId)>,
    shares: Shares,
    retries: usize,
    /// Whether an attempt ended since the lanes in `full` were looked at.
    freed: bool,
    recording: usize,
    fetches: usize,
    /// How often a fetch has ended or a shard was taken.
    moments: u64,
    shards: Vec<ShardState>,
}

/// What is known of a shard.
#[derive(Debug, Clone, Copy, Default)]
struct ShardState {
    owned: bool,
    /// The moment at which it was taken.
    taken_at: ReadMark,
    /// The moment at which the last fetch ended of any lane of this shard that is forgotten by now. A new lane
    /// takes it for the end of its own last fetch. If it was another lane's, that costs one read.
    last_read: ReadMark,
}

impl<P> Lanes<P> {
    /// No lanes yet, and no shards.
    pub fn new(limits: Limits) -> Self {
        Self {
            shares: Shares::new(&limits),
            limits,
            by_id: HashMap::new(),
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
            paused: HashSet::new(),
            timers: BTreeSet::new(),
            retries: 0,
            freed: false,
            recording: 0,
            fetches: 0,
            moments: 0,
            shards: vec![ShardState::default(); SHARDS.into()],
        }
    }

    /// Makes these shards this process's own. The caller must then look up what is open on them, and note it.
    pub fn own(&mut self, shards: impl IntoIterator<Item = Shard>) {
        for shard in shards {
            // A delivery that was recorded before is found by that look, and another worker may have sent it.
            let taken_at = self.next_moment();
            let state = self.shard_mut(shard);
            (state.owned, state.taken_at) = (true, taken_at);
        }
    }

    /// Gives these shards up. What waits here for its turn is forgotten here and stays in the ledger.
    pub fn release(&mut self, shards: impl IntoIterator<Item = Shard>) {
        for shard in shards {
            self.shard_mut(shard).owned = false;
        }
        let shards = &self.shards;
        let owned = |id: &LaneId| shards[usize::from(id.shard().0)].owned;
        for queue in [&mut self.more, &mut self.full] {
            queue.retain(|(_, id)| owned(id));
        }
        for rota in self.first.iter_mut().chain(&mut self.hungry) {
            rota.retain(owned);
        }
        self.full_of_retries.retain(|_, id| owned(id));
        self.paused.retain(owned);
        self.timers.retain(|(_, id)| owned(id));
        for (_, lane) in self.by_id.iter_mut().filter(|(id, _)| !owned(id)) {
            (lane.queued, lane.hungry) = (Queued::No, false);
            (lane.ledger_due, lane.timer) = (None, None);
            lane.flow = flow_control::FlowControl::default();
            lane.held_back_at = None;
            if lane.is_fetching() {
                lane.fetch = Fetch::Void;
            }
            let before = lane.uses();
            drop(lane.drop_all());
            self.shares.change(lane.member, before, lane.uses());
        }
        let gone = self.by_id.iter();
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

    /// The deliveries of these shards, each with its shard, whose attempts have begun and whose outcomes are not
    /// known to be in the ledger: nobody else should send them yet.
    pub fn busy(&self, shards: &HashSet<Shard>) -> Vec<(Shard, DeliveryId)> {
        let mut busy = Vec::new();
        for (lane_id, lane) in &self.by_id {
            let shard = lane_id.shard();
            if shards.contains(&shard) {
                let begun = lane
                    .known
                    .iter()
                    .filter(|(_, place)| !matches!(place, DeliveryState::Waiting));
                busy.extend(begun.map(|(id, _)| (shard, *id)));
            }
        }
        busy
    }

    /// A mark that is drawn before the transaction that records a delivery, and shown when the delivery is
    /// offered. A fetch that ended in between may have brought the delivery here already, and it may have been sent
    /// and forgotten since. If the shard was taken in between, another worker may have sent it.
    pub fn mark(&self) -> ReadMark {
        ReadMark(self.moments)
    }

    /// When [`Lanes::poll`] has something to do next, if nothing else happens before.
    pub fn next_wake(&self) -> Option<Timestamp> {
        let hungry = self.hungry.iter().any(|rota| !rota.is_empty());
        let fetch = self.fetch_not_before.filter(|_| hungry);
        self.timers.first().map(|(due, _)| *due).into_iter().chain(fetch).min()
    }

    /// Has the paused lanes looked at again, because subscriptions may have changed.
    pub fn terms_changed(&mut self) {
        let paused: Vec<_> = self.paused.iter().copied().collect();
        for id in paused {
            self.touch(id);
        }
    }

    /// Takes the answer to an attempt. Its outcome is now being recorded, and the next attempt may begin. `jitter`
    /// is a random number from 0 to 1. Returns what the answer did to the subscriber's breaker, if anything.
    pub fn answered(&mut self, work: &Work<P>, answer: Answer, now: Timestamp, jitter: f64) -> Option<Turned> {
        let (id, lane_id) = (work.delivery.id, work.lane());
        let begun = self.leave_flight(work);
        self.recording += 1;
        let owned = self.owns(lane_id.shard());
        if let Some((_, began)) = begun.filter(|_| answer.verdict != Verdict::Unsent) {
            self.judge(lane_id, Speed::of(now.since(began)));
        }
        let lane = self.by_id.get_mut(&lane_id)?;
        lane.known.insert(id, DeliveryState::Recording { shown: None });
        let turned = begun
            .filter(|_| owned)
            .and_then(|(turn, _)| lane.flow.hear(id, turn, answer, now, jitter));
        if turned == Some(Turned::Opened) {
            self.let_go(lane_id);
        }
        turned
    }

    /// Takes note that an outcome is in the ledger: the delivery is closed, or open again and due at `due_at`.
    pub fn recorded(&mut self, lane_id: LaneId, id: DeliveryId, due_at: Option<Timestamp>) {
        self.recording -= 1;
        let lane = self.by_id.get_mut(&lane_id);
        if let Some(DeliveryState::Recording { shown: Some(shown) }) = lane.and_then(|lane| lane.known.remove(&id)) {
            self.note(lane_id, shown);
        }
        self.forget(lane_id, id, due_at);
    }

    /// Takes back an attempt that was not made, or whose outcome could not be told. The delivery is in the
    /// ledger as it was.
    pub fn abandoned(&mut self, work: &Work<P>, again_at: Timestamp, now: Timestamp) {
        let (id, lane_id) = (work.delivery.id, work.lane());
        self.leave_flight(work);
        if let Some(lane) = self.by_id.get_mut(&lane_id) {
            lane.flow.withdrawn(id, now);
        }
        self.forget(lane_id, id, None);
        // The ledger has it as it was.
        self.note_from(lane_id, again_at, work.delivery.due_at);
    }

    /// Remembers how fast the subscriber answered. What waits for one that has become slow is left to the ledger.
    fn judge(&mut self, lane_id: LaneId, speed: Speed) {
        let Some(lane) = self.by_id.get_mut(&lane_id) else {
            return;
        };
        if lane.member.speed == speed {
            return;
        }
        self.shares.heard(lane_id.subscription(), speed);
        let (former, has) = (lane.member, lane.uses());
        lane.member.speed = speed;
        self.shares.change(former, has, shares::Use::default());
        self.shares.change(lane.member, shares::Use::default(), has);
        if speed == Speed::Slow && !lane.flow.is_shut() {
            self.let_go(lane_id);
        }
    }

    fn shard_mut(&mut self, shard: Shard) -> &mut ShardState {
        &mut self.shards[usize::from(shard.0)]
    }

    fn next_moment(&mut self) -> ReadMark {
        self.moments += 1;
        ReadMark(self.moments)
    }

    fn lane_mut(&mut self, lane_id: LaneId) -> &mut Lane<P> {
        let last_read = self.shards[usize::from(lane_id.shard().0)].last_read;
        let (lanes, shares) = (&mut self.by_id, &mut self.shares);
        lanes
            .entry(lane_id)
            .or_insert_with(|| Lane::since(last_read, shares.enter(lane_id.subscription())))
    }

    fn leave_flight(&mut self, work: &Work<P>) -> Option<(crate::in_flight_limit::Turn, Timestamp)> {
        let (id, lane_id) = (work.delivery.id, work.lane());
        let retries = usize::from(work.is_retry());
        self.retries -= retries;
        self.freed = true;
        self.touch(lane_id);
        let lane = self.by_id.get_mut(&lane_id)?;
        let before = lane.uses();
        lane.in_flight -= 1;
        lane.retries -= retries;
        lane.bytes -= work.bytes;
        if lane.in_flight == 0 && matches!(lane.queued, Queued::More(_)) {
            // The next attempt is again the lane's first in flight.
            lane.queued = Queued::No;
        }
        self.shares.change(lane.member, before, lane.uses());
        match lane.known.get(&id) {
            Some(DeliveryState::InFlight { turn, began }) => Some((*turn, *began)),
            Some(DeliveryState::Waiting | DeliveryState::Recording { .. }) | None => None,
        }
    }

    fn forget(&mut self, lane_id: LaneId, id: DeliveryId, due_at: Option<Timestamp>) {
        if let Some(lane) = self.by_id.get_mut(&lane_id) {
            lane.known.remove(&id);
            if let Fetch::UnderWay { forgotten, .. } = &mut lane.fetch {
                forgotten.insert(id);
            }
        }
        if let Some(due_at) = due_at {
            self.note(lane_id, due_at);
        }
        self.touch(lane_id);
    }

    fn forget_lane(&mut self, lane_id: LaneId) {
        let Some(lane) = self.by_id.remove(&lane_id) else {
            return;
        };
        if let Some(timer) = lane.timer {
            self.timers.remove(&(timer, lane_id));
        }
        self.paused.remove(&lane_id);
        self.shares.leave(lane.member);
        let shard = self.shard_mut(lane_id.shard());
        shard.last_read = shard.last_read.max(lane.reads.last());
    }

    /// Has the lane attended to at the next poll.
    fn touch(&mut self, lane_id: LaneId) {
        if let Some(lane) = self.by_id.get_mut(&lane_id)
            && !std::mem::replace(&mut lane.touched, true)
        {
            self.touched.push_back(lane_id);
        }
    }

    /// Forgets what waits in the lane: the ledger has it.
    fn let_go(&mut self, lane_id: LaneId) {
        let Some(lane) = self.by_id.get_mut(&lane_id) else {
            return;
        };
        let before = lane.uses();
        let all = lane.drop_all();
        self.shares.change(lane.member, before, lane.uses());
        if let Some(earliest) = all.first() {
            self.note(lane_id, earliest.delivery.due_at);
        }
    }
}

#[cfg(test)]
mod tests;
