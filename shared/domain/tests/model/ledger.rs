//! The ledger: what the SQL does, with the same gates. Every `&mut self` function is a transaction.

use crate::ensure;
use crate::registry::Registry;
use herald_domain::catalogue::{EventType, Webhook};
use herald_domain::delivery::{Attempt, Closed, Delivery};
use herald_domain::event::Objects;
use herald_domain::id::{AccountId, DeliveryId, EventId, EventUid, Shard, SubscriptionId};
use herald_domain::lanes::{LaneId, Page, Progress, Wakeup};
use herald_domain::subscription::Subscription;
use herald_domain::time::Timestamp;
use herald_domain::worker::{NextStep, Now, RecordResult, Uptime};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Rows in one transaction of a large fan-out or cancellation.
const CHUNK: usize = 2;
pub(crate) const LEASE: Duration = Duration::from_secs(15);
/// The most wake-ups that are taken at a time, and the most rows of a page of the search.
pub(crate) const MOST_WAKEUPS: usize = 2;
const MOST_ROWS: usize = 3;
/// The cursor of an event of which nothing is matched yet; `None` is a complete one.
pub(crate) const START: SubscriptionId = SubscriptionId(Uuid::nil());

/// What a producer calls an event.
pub(crate) type Key = (AccountId, EventId);
pub(crate) type Epoch = i64;

/// A worker process; a restarted one is another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ProcessId(pub u32);

/// The shards that a process has, as it believes, each at its epoch.
pub(crate) type Epochs = BTreeMap<Shard, Epoch>;

#[derive(Debug)]
struct ShardRow {
    worker: Option<ProcessId>,
    epoch: Epoch,
    until: Timestamp,
}

#[derive(Debug)]
pub(crate) struct EventRow {
    pub key: Key,
    pub matched: usize,
    pub cursor: Option<SubscriptionId>,
}

/// An open or closed row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    pub event: EventUid,
    pub delivery: Delivery,
    /// Until then a former worker has it in flight, unless that one says more.
    pub busy_until: Timestamp,
    /// How often it was retried by hand; the model's own.
    pub generation: u32,
}

/// What is to be cancelled: what a subscription had open before then.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Job {
    pub subscription: SubscriptionId,
    pub version: i64,
}

/// What dispatch wants recorded: an event, or the next chunk of one.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub key: Key,
    /// What the ledger had of it when the plan was made, or the uid to give it.
    pub known: Option<(EventUid, Option<SubscriptionId>)>,
    pub new_uid: EventUid,
    pub matches: Vec<(SubscriptionId, Webhook)>,
}

/// What became of a [`Plan`].
pub(crate) struct Recorded {
    /// All that follows from the event is in the ledger.
    pub complete: bool,
    /// New deliveries on shards that the recorder has.
    pub mine: Vec<(Delivery, Epoch)>,
}

#[derive(Debug)]
pub(crate) struct Ledger {
    pub now: Timestamp,
    /// The moment of the first `now` on the processes' clocks.
    began: (Timestamp, Instant),
    keys: BTreeMap<Key, EventUid>,
    pub events: BTreeMap<EventUid, EventRow>,
    pub open: BTreeMap<DeliveryId, Row>,
    pub closed: BTreeMap<DeliveryId, (Row, Closed)>,
    /// Attempts with success, late ones included.
    pub successes: BTreeSet<DeliveryId>,
    shards: BTreeMap<Shard, ShardRow>,
    wakeups: BTreeMap<(Shard, SubscriptionId), Timestamp>,
    pub subscriptions: BTreeMap<SubscriptionId, Arc<Subscription>>,
    /// Those that were never deactivated.
    pub always_active: BTreeSet<SubscriptionId>,
    version: i64,
    /// Whose open deliveries from before that version are to be cancelled.
    pub cancel_jobs: BTreeMap<SubscriptionId, i64>,
    checked: BTreeSet<DeliveryId>,
    delivered: BTreeSet<DeliveryId>,
}

impl Ledger {
    pub(crate) fn new(now: Timestamp, subscriptions: Vec<Subscription>) -> Self {
        let subscriptions: BTreeMap<_, _> = subscriptions.into_iter().map(|it| (it.id, Arc::new(it))).collect();
        let free = || ShardRow {
            worker: None,
            epoch: 0,
            until: now,
        };
        Self {
            now,
            began: (now, Instant::now()),
            keys: BTreeMap::new(),
            events: BTreeMap::new(),
            open: BTreeMap::new(),
            closed: BTreeMap::new(),
            successes: BTreeSet::new(),
            shards: subscriptions.keys().map(|id| (Shard::of(*id), free())).collect(),
            wakeups: BTreeMap::new(),
            always_active: subscriptions.keys().copied().collect(),
            subscriptions,
            version: 1,
            cancel_jobs: BTreeMap::new(),
            checked: BTreeSet::new(),
            delivered: BTreeSet::new(),
        }
    }

    /// The instant of a transaction; no two have the same.
    fn begin(&mut self) -> Timestamp {
        self.now = self.now.plus(Duration::from_micros(1));
        self.now
    }

    /// The time, as a process reads it from its clocks.
    pub(crate) fn clocks(&self) -> Now {
        let (then, instant) = self.began;
        Now {
            time: self.now,
            uptime: Uptime {
                instant: instant + self.now.since(then),
                slept: Duration::ZERO,
            },
        }
    }

    pub(crate) fn epoch(&self, shard: Shard) -> Epoch {
        self.shards[&shard].epoch
    }

    pub(crate) fn owns(&self, by: ProcessId, shard: Shard, epoch: Epoch) -> bool {
        let row = &self.shards[&shard];
        row.worker == Some(by) && row.epoch == epoch
    }

    // Dispatch

    /// Compares a process's registry with the ledger, which takes a moment.
    pub(crate) fn refresh(&mut self, registry: &mut Registry) {
        self.begin();
        registry.refresh(self.version, &self.subscriptions, self.clocks().uptime.instant);
    }

    /// Whether the delivery may be sent, by the subscriptions as they are now.
    pub(crate) fn permits(&self, delivery: &Delivery) -> bool {
        crate::registry::permits(&self.subscriptions[&delivery.subscription], delivery)
    }

    pub(crate) fn look_up(&self, key: Key) -> Option<(EventUid, Option<SubscriptionId>)> {
        let uid = *self.keys.get(&key)?;
        Some((uid, self.events[&uid].cursor))
    }

    pub(crate) fn incomplete(&self) -> Option<Key> {
        let mut events = self.events.values();
        events.find(|event| event.cursor.is_some()).map(|event| event.key)
    }

    /// Records a batch; `None` when it was matched against an old registry.
    pub(crate) fn record(
        &mut self,
        by: ProcessId,
        epochs: &Epochs,
        registry_version: i64,
        plans: &[Plan],
    ) -> Option<Vec<Recorded>> {
        if registry_version != self.version {
            return None;
        }
        let now = self.begin();
        Some(
            plans
                .iter()
                .map(|plan| self.record_one(by, epochs, plan, now))
                .collect(),
        )
    }

    fn record_one(&mut self, by: ProcessId, epochs: &Epochs, plan: &Plan, now: Timestamp) -> Recorded {
        let nothing = |complete| Recorded {
            complete,
            mine: Vec::new(),
        };
        let (uid, cursor) = match plan.known {
            Some((_, None)) => return nothing(true),
            Some((uid, Some(cursor))) => (uid, cursor),
            None if self.keys.contains_key(&plan.key) => return nothing(false),
            None => {
                self.keys.insert(plan.key, plan.new_uid);
                let event = EventRow {
                    key: plan.key,
                    matched: 0,
                    cursor: Some(START),
                };
                self.events.insert(plan.new_uid, event);
                (plan.new_uid, START)
            }
        };
        if self.events[&uid].cursor != Some(cursor) {
            return nothing(false);
        }
        let behind: Vec<_> = plan.matches.iter().filter(|(id, _)| *id > cursor).collect();
        let chunk = &behind[..behind.len().min(CHUNK)];
        let (mut mine, mut inserted) = (Vec::new(), 0);
        for (subscription, webhook) in chunk.iter().copied().copied() {
            let delivery = Delivery {
                id: DeliveryId::derive(uid, subscription, Uuid::nil()),
                subscription,
                webhook,
                attempts: 0,
                due_at: now,
                created_at: now,
                opened_at: now,
                opened_version: self.version,
            };
            if self.open.contains_key(&delivery.id) {
                continue;
            }
            let row = Row {
                event: uid,
                delivery,
                busy_until: Timestamp::from_micros(0),
                generation: 0,
            };
            self.open.insert(delivery.id, row);
            inserted += 1;
            let shard = Shard::of(subscription);
            match epochs.get(&shard) {
                Some(epoch) if self.owns(by, shard, *epoch) => mine.push((delivery, *epoch)),
                _ => self.wake(subscription, now),
            }
        }
        let complete = behind.len() <= CHUNK;
        let last = chunk.last().map(|(id, _)| *id);
        if let Some(event) = self.events.get_mut(&uid) {
            event.matched += inserted;
            event.cursor = last.filter(|_| !complete);
        }
        Recorded { complete, mine }
    }

    // Shards and waking

    pub(crate) fn free_shards(&self) -> impl Iterator<Item = Shard> {
        let free = |row: &ShardRow| row.worker.is_none() || row.until <= self.now;
        self.shards
            .iter()
            .filter(move |(_, row)| free(row))
            .map(|(shard, _)| *shard)
    }

    pub(crate) fn take_over(&mut self, by: ProcessId, shard: Shard) -> Option<Epoch> {
        let now = self.begin();
        let row = self.shards.get_mut(&shard)?;
        if row.worker.is_some() && row.until > now {
            return None;
        }
        row.worker = Some(by);
        row.epoch += 1;
        row.until = now.plus(LEASE);
        Some(row.epoch)
    }

    /// Renews the leases of a process; those that ended too, unless another process has the shard by now.
    pub(crate) fn renew(&mut self, by: ProcessId) -> Epochs {
        let until = self.begin().plus(LEASE);
        let own = self.shards.iter_mut().filter(|(_, row)| row.worker == Some(by));
        own.map(|(shard, row)| {
            row.until = until;
            (*shard, row.epoch)
        })
        .collect()
    }

    /// Gives shards back, with what is in flight of them until when. Not those that another process has by now.
    pub(crate) fn release(&mut self, by: ProcessId, shards: &BTreeSet<Shard>, in_flight: &[(DeliveryId, Timestamp)]) {
        self.begin();
        let own = |row: &ShardRow| row.worker == Some(by);
        for (id, until) in in_flight {
            let row = self.open.get_mut(id);
            if let Some(row) = row.filter(|row| own(&self.shards[&row.delivery.lane().shard()])) {
                row.busy_until = *until;
            }
        }
        for (_, row) in self
            .shards
            .iter_mut()
            .filter(|(shard, row)| shards.contains(shard) && own(row))
        {
            row.worker = None;
            row.epoch += 1;
        }
    }

    /// Whether a former worker may still have the delivery in flight.
    pub(crate) fn is_busy(&self, id: DeliveryId) -> bool {
        self.open.get(&id).is_some_and(|row| row.busy_until > self.now)
    }

    /// A page of the lanes that have open deliveries, each with its earliest due time.
    pub(crate) fn open_lanes(&self, page: &Page) -> (Vec<Wakeup>, Progress) {
        let mut open: BTreeMap<(Shard, LaneId), Timestamp> = BTreeMap::new();
        for Row { delivery, .. } in self.open.values() {
            let lane = delivery.lane();
            let due = open.entry((lane.shard(), lane)).or_insert(delivery.due_at);
            *due = delivery.due_at.min(*due);
        }
        let (mut lanes, mut progress) = (Vec::new(), Progress::default());
        let mut room = page.limit.min(MOST_ROWS);
        for (shard, after) in &page.from {
            let rest = open
                .iter()
                .filter(|((of, lane), _)| of == shard && after.is_none_or(|after| *lane > after));
            for row in rest.map(Some).chain([None]) {
                if room == 0 {
                    return (lanes, progress);
                }
                room -= 1;
                match row {
                    Some(((_, lane), due_at)) => {
                        progress.last.insert(*shard, *lane);
                        lanes.push(Wakeup {
                            lane: *lane,
                            due_at: *due_at,
                        });
                    }
                    None => drop(progress.ended.insert(*shard)),
                }
            }
        }
        (lanes, progress)
    }

    fn wake(&mut self, subscription: SubscriptionId, due_at: Timestamp) {
        let key = (Shard::of(subscription), subscription);
        let due = self.wakeups.entry(key).or_insert(due_at);
        *due = due_at.min(*due);
    }

    /// Takes wake-ups of the shards that are `by`'s.
    pub(crate) fn take_wakeups(&mut self, by: ProcessId) -> Vec<Wakeup> {
        self.begin();
        let own = |shard: &Shard| self.shards[shard].worker == Some(by);
        let taken: Vec<_> = self
            .wakeups
            .keys()
            .filter(|(shard, _)| own(shard))
            .take(MOST_WAKEUPS)
            .copied()
            .collect();
        let wakeup = |key: (Shard, SubscriptionId)| {
            let due_at = self.wakeups.remove(&key)?;
            Some(Wakeup {
                lane: LaneId::of(key.1),
                due_at,
            })
        };
        taken.into_iter().filter_map(wakeup).collect()
    }

    // Deliver

    /// What that lane has open that is due from then on, or was in flight at a former worker.
    pub(crate) fn open_deliveries(&self, lane: LaneId, from: Timestamp, limit: usize) -> Vec<Delivery> {
        let rows = self.open.values();
        let rows = rows.filter(|row| row.delivery.due_at >= from || row.busy_until > Timestamp::from_micros(0));
        let rows = rows.map(|row| Delivery {
            due_at: if row.busy_until > self.now {
                row.delivery.due_at.max(row.busy_until)
            } else {
                row.delivery.due_at
            },
            ..row.delivery
        });
        let mut rows: Vec<_> = rows.filter(|row| row.lane() == lane).collect();
        rows.sort_by_key(|row| (row.due_at, row.id));
        rows.truncate(limit);
        rows
    }

    /// Records the outcome of a delivery as it was seen before its attempt.
    pub(crate) fn record_outcome(
        &mut self,
        by: ProcessId,
        epoch: Epoch,
        seen: &Delivery,
        attempt: Option<&Attempt>,
        next: NextStep,
    ) -> RecordResult {
        let now = self.begin();
        let number = attempt.map_or(seen.attempts, |attempt| attempt.number);
        if attempt.is_some_and(|attempt| attempt.outcome.is_success()) {
            return self.record_success(seen.id, number);
        }
        let current = self.owns(by, Shard::of(seen.subscription), epoch);
        if !current && !self.is_busy(seen.id) {
            return RecordResult::Stale;
        }
        let row = self.open.get_mut(&seen.id);
        // A manual retry since is another opening.
        let as_seen =
            |row: &&mut Row| (row.delivery.attempts, row.delivery.opened_at) == (seen.attempts, seen.opened_at);
        let Some(row) = row.filter(as_seen) else {
            return RecordResult::Late;
        };
        match next {
            NextStep::Retry(due_at) => {
                row.delivery.attempts += 1;
                row.delivery.due_at = due_at;
                row.busy_until = Timestamp::from_micros(0);
                if !current {
                    self.wake(seen.subscription, due_at);
                }
            }
            NextStep::Close { status, deactivate, .. } => {
                self.close(seen.id, status, number);
                let subscription = &self.subscriptions[&seen.subscription];
                if subscription.settings.active && deactivate == Some(subscription.updated_at) {
                    self.mark_inactive(seen.subscription, now);
                }
            }
        }
        RecordResult::Done
    }

    /// A success counts from every process and at any time.
    fn record_success(&mut self, id: DeliveryId, number: u32) -> RecordResult {
        self.successes.insert(id);
        if self.close(id, Closed::Delivered, number) {
            return RecordResult::Done;
        }
        let Some((row, end)) = self.closed.get_mut(&id) else {
            return RecordResult::Late;
        };
        row.delivery.attempts = number.max(row.delivery.attempts);
        match std::mem::replace(end, Closed::Delivered) {
            Closed::Delivered => RecordResult::Late,
            Closed::Dead | Closed::Cancelled | Closed::Refused => RecordResult::Corrected,
        }
    }

    /// Whoever's removal finds the row has decided.
    fn close(&mut self, id: DeliveryId, end: Closed, attempts: u32) -> bool {
        let Some(mut row) = self.open.remove(&id) else {
            return false;
        };
        row.delivery.attempts = attempts;
        self.closed.insert(id, (row, end));
        true
    }

    // The API

    pub(crate) fn deactivate(&mut self, id: SubscriptionId) {
        let now = self.begin();
        self.mark_inactive(id, now);
    }

    fn mark_inactive(&mut self, id: SubscriptionId, now: Timestamp) {
        self.version += 1;
        self.always_active.remove(&id);
        self.cancel_jobs.insert(id, self.version);
        if let Some(subscription) = self.subscriptions.get_mut(&id) {
            let subscription = Arc::make_mut(subscription);
            subscription.settings.active = false;
            (subscription.updated_at, subscription.open_from) = (now, now);
            subscription.open_from_version = self.version;
        }
    }

    pub(crate) fn activate(&mut self, id: SubscriptionId) {
        let now = self.begin();
        self.version += 1;
        if let Some(subscription) = self.subscriptions.get_mut(&id) {
            let subscription = Arc::make_mut(subscription);
            subscription.settings.active = true;
            subscription.updated_at = now;
        }
    }

    /// The jobs that cancel deliveries of these shards.
    pub(crate) fn jobs(&self, epochs: &Epochs) -> Vec<Job> {
        let jobs = self.cancel_jobs.iter().map(|(id, version)| Job {
            subscription: *id,
            version: *version,
        });
        jobs.filter(|job| epochs.contains_key(&Shard::of(job.subscription)))
            .collect()
    }

    /// Cancels a chunk of what a deactivated subscription had open, but nothing that is in flight.
    pub(crate) fn cancel_chunk(&mut self, by: ProcessId, epoch: Epoch, job: Job, in_flight: &HashSet<DeliveryId>) {
        self.begin();
        if !self.owns(by, Shard::of(job.subscription), epoch) {
            return;
        }
        let of_job =
            |row: &&Row| row.delivery.subscription == job.subscription && row.delivery.opened_version < job.version;
        let rows: Vec<_> = self.open.values().filter(of_job).copied().collect();
        let free = |row: &&Row| !in_flight.contains(&row.delivery.id) && row.busy_until <= self.now;
        let chosen: Vec<_> = rows.iter().filter(free).take(CHUNK).collect();
        if chosen.len() == rows.len() && self.cancel_jobs.get(&job.subscription) == Some(&job.version) {
            self.cancel_jobs.remove(&job.subscription);
        }
        for row in chosen {
            self.close(row.delivery.id, Closed::Cancelled, row.delivery.attempts);
        }
    }

    /// A manual retry, refused while the subscription is inactive.
    pub(crate) fn retry(&mut self, id: DeliveryId) {
        let now = self.begin();
        let Some((mut row, end)) = self.closed.get(&id).copied() else {
            return;
        };
        let subscription = row.delivery.subscription;
        if end.can_be_retried() && self.subscriptions[&subscription].settings.active {
            self.closed.remove(&id);
            row.generation += 1;
            (row.delivery.opened_at, row.delivery.due_at) = (now, now);
            row.delivery.opened_version = self.version;
            row.busy_until = Timestamp::from_micros(0);
            self.open.insert(id, row);
            self.wake(subscription, now);
        }
    }

    pub(crate) fn generation(&self, id: DeliveryId) -> u32 {
        let closed = self.closed.get(&id).map(|(row, _)| row);
        self.open.get(&id).or(closed).map_or(0, |row| row.generation)
    }

    /// What holds in every snapshot.
    pub(crate) fn check(&mut self) -> Result<(), String> {
        let mut rows: BTreeMap<EventUid, usize> = BTreeMap::new();
        for row in self.open.values().chain(self.closed.values().map(|(row, _)| row)) {
            *rows.entry(row.event).or_default() += 1;
            let Delivery { id, subscription, .. } = row.delivery;
            if self.checked.insert(id) {
                let derived = DeliveryId::derive(row.event, subscription, Uuid::nil());
                ensure!(derived == id, "promise 4: {id} is not derived");
            }
        }
        for (uid, event) in &self.events {
            let rows = rows.get(uid).copied().unwrap_or(0);
            ensure!(
                rows == event.matched,
                "promise 3: {uid} matched {} and has {rows} rows",
                event.matched
            );
            ensure!(
                self.keys.get(&event.key) == Some(uid),
                "promise 4: {:?} has two uids",
                event.key
            );
        }
        for id in self.closed.keys() {
            ensure!(!self.open.contains_key(id), "promise 3: {id} is open and closed");
        }
        for id in &self.delivered {
            let end = self.closed.get(id).map(|(_, end)| *end);
            ensure!(
                end == Some(Closed::Delivered),
                "promise 4: {id} was Delivered and is {end:?}"
            );
        }
        let delivered = self
            .closed
            .iter()
            .filter(|(_, (_, end))| *end == Closed::Delivered)
            .map(|(id, _)| *id);
        self.delivered.extend(delivered);
        ensure!(
            self.delivered == self.successes,
            "promise 4: Delivered is not what had a success"
        );
        Ok(())
    }
}

/// What an event is about.
#[derive(Debug, Clone)]
pub(crate) struct Content {
    pub kind: EventType,
    pub objects: Objects,
}
