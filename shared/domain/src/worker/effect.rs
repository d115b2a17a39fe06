//! What goes into a worker's decisions, and what comes out of them.

use super::ShardLeases;
use crate::breaker::Turned;
use crate::catalogue::Webhook;
use crate::delivery::{Attempt, Closed, Delivery, Reason};
use crate::id::{DeliveryId, Shard, SubscriptionId};
use crate::lanes::{LaneId, Page, Progress, ReadMark, Row, Scope, Wakeup, Work};
use crate::subscription::Subscription;
use crate::time::Timestamp;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a worker hears.
#[derive(Debug)]
pub enum Input<E> {
    /// The leases of the process as they are now.
    Leases(ShardLeases),
    /// Dispatch has recorded a delivery for a shard of this process. The mark was drawn before.
    Offered(Work<E>, ReadMark),
    /// The ledger has deliveries of that lane.
    Noted(Wakeup),
    /// Deliveries may have been recorded of which nobody tells.
    LookEverywhere,
    /// There may be wake-ups.
    WakeupsDue,
    /// Wake-ups were read, and are in the ledger no more.
    Woken {
        /// The wake-ups.
        wakeups: Vec<Wakeup>,
        /// Whether there may be more in the ledger.
        more: bool,
    },
    /// Wake-ups could not be read. They may have been taken out of the ledger all the same.
    WakeupsFailed,
    /// The rows that [`Effect::ReadRows`] asked for.
    Rows {
        /// The lane.
        lane: LaneId,
        /// The most rows that were asked for.
        limit: usize,
        /// The rows, ordered by `due_at`.
        rows: Vec<Row<E>>,
    },
    /// The rows could not be read.
    RowsFailed {
        /// The lane.
        lane: LaneId,
        /// Whether the ledger is away, so that other reads would fail too.
        is_away: bool,
    },
    /// The page that [`Effect::Search`] asked for: lanes with open deliveries.
    Found(Vec<Wakeup>, Progress),
    /// The page could not be read.
    SearchFailed,
    /// An attempt is over. The number is random, from 0 to 1.
    Attempted(Begun<E>, Attempt, f64),
    /// An attempt did not begin, or broke off without an outcome.
    Abandoned(Work<E>),
    /// An attempt was not made, because the process is short of something.
    Postponed(Work<E>),
    /// The outcome of a delivery went to the ledger, with that result.
    Recorded(Delivery, NextStep, RecordResult),
    /// The ledger refuses the outcome of a delivery for good.
    Unrecordable(Delivery),
    /// The rights that [`Effect::CheckRights`] asked for were looked up, with success or without.
    RightsChecked,
    /// A second has passed, or about that.
    Tick,
    /// The process ends: nothing begins any more.
    Stop,
}

/// What the worker wants done.
#[derive(Debug)]
pub enum Effect<E> {
    /// Send this, if [`super::Worker::may_begin`] still says so; then give [`Input::Attempted`], [`Input::Postponed`]
    /// or [`Input::Abandoned`].
    Attempt(Begun<E>),
    /// Record this in the ledger; then give [`Input::Recorded`] or [`Input::Unrecordable`].
    Record(Outcome<E>),
    /// Read the lane's open deliveries; then give [`Input::Rows`] or [`Input::RowsFailed`].
    ReadRows {
        /// The lane.
        lane: LaneId,
        /// Deliveries due from this time on are read, and all that a former worker had in flight.
        from: Timestamp,
        /// The most rows.
        limit: usize,
        /// Which rows to bring whole.
        scope: Scope,
    },
    /// Take the wake-ups of this process's shards out of the ledger; then give [`Input::Woken`], or
    /// [`Input::WakeupsFailed`] after that pause.
    TakeWakeups(Duration),
    /// Look up which lanes have open deliveries; then give [`Input::Found`] or, after the page's pause,
    /// [`Input::SearchFailed`].
    Search(Page),
    /// Compare the registry with the ledger; then give [`Input::RightsChecked`].
    CheckRights,
    /// Dispatch draws this mark from now on.
    Mark(ReadMark),
    /// For metrics: a delivery was closed.
    Closed(Closed, Webhook),
    /// For metrics and the log: a subscriber's breaker opened or closed.
    BreakerTurned(SubscriptionId, Turned),
}

/// An attempt that begins.
#[derive(Debug)]
pub struct Begun<E> {
    /// The delivery, with what is sent.
    pub work: Work<E>,
    /// The subscription as it is now.
    pub subscription: Arc<Subscription>,
    /// The epoch of the shard.
    pub epoch: i64,
}

/// The outcome of a delivery, for the ledger.
#[derive(Debug)]
pub struct Outcome<E> {
    /// The delivery, as it was before the attempt.
    pub work: Work<E>,
    /// The epoch of its shard when the attempt began.
    pub epoch: i64,
    /// The attempt; none when the delivery is closed without one.
    pub attempt: Option<Attempt>,
    /// What follows.
    pub next: NextStep,
}

/// What follows from an attempt, or from the look before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextStep {
    /// The delivery is closed.
    Close {
        /// How it ended.
        status: Closed,
        /// Why it ended so, unless it was delivered.
        reason: Option<Reason>,
        /// The subscriber wants no more (410): the subscription is deactivated too, if it has not changed
        /// since the attempt began. This is the time of its last change before that.
        deactivate: Option<Timestamp>,
    },
    /// The delivery stays open and is due at this time.
    Retry(Timestamp),
}

/// The result of recording an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordResult {
    /// It was recorded as asked.
    Done,
    /// The delivery had ended without success. The success counts, and it is Delivered now.
    Corrected,
    /// The delivery was closed already; the attempt is kept.
    Late,
    /// The shard has another worker by now; nothing was written.
    Stale,
}

impl RecordResult {
    /// How the delivery was closed by an outcome with this result, if it was.
    pub fn closes(self, next: NextStep) -> Option<Closed> {
        match (next, self) {
            (NextStep::Close { status, .. }, Self::Done | Self::Corrected) => Some(status),
            (NextStep::Close { .. }, Self::Late | Self::Stale) | (NextStep::Retry(_), _) => None,
        }
    }
}

/// A delivery that no other process should send before `until`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy {
    /// Its shard.
    pub shard: Shard,
    /// The delivery.
    pub delivery: DeliveryId,
    /// Until then its attempt, or its outcome, may be on its way.
    pub until: Timestamp,
}

/// What the registry says, at one of its versions.
pub trait Rights {
    /// The version.
    fn version(&self) -> i64;

    /// Whether it was compared with the ledger so lately that attempts may begin.
    fn is_fresh(&self) -> bool;

    /// When the last good comparison with the ledger began: every change before that is known.
    fn checked_at(&self) -> Instant;

    /// The subscription, if it is known.
    fn subscription(&self, id: SubscriptionId) -> Option<&Subscription>;

    /// Whether the delivery may be attempted, and as what; otherwise how it is to be closed.
    fn permit(&self, delivery: &Delivery) -> Result<Arc<Subscription>, (Closed, Reason)>;
}
