//! The ledger: what the SQL does, with the same gates. Every `&mut self` function is a transaction.

use crate::ensure;
use herald_domain::catalogue::{EventType, Webhook};
use herald_domain::delivery::{Attempt, Closed, Decision, Delivery};
use herald_domain::event::Objects;
use herald_domain::id::{AccountId, DeliveryId, EventId, EventUid, Shard, SubscriptionId};
use herald_domain::index::{Index, Interest};
use herald_domain::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use uuid::Uuid;

/// Rows in one transaction of a large fan-out or cancellation.
const CHUNK: usize = 2;
pub(crate) const LEASE: Duration = Duration::from_secs(15);
/// The longest that a healthy process's request takes.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);
/// And then its outcome's way to the ledger.
pub(crate) const GRACE: Duration = Duration::from_secs(5);
/// The cursor of an event of which nothing is matched yet; `None` is a complete one.
pub(crate) const START: SubscriptionId = SubscriptionId(Uuid::nil());

/// What a producer calls an event.
pub(crate) type Key = (AccountId, EventId);
pub(crate) type Epoch = u64;

/// A worker process; a restarted one is another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Owner(pub u32);

/// A worker's hold on a shard, as it believes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lease {
    pub epoch: Epoch,
    pub until: Timestamp,
}

pub(crate) type Leases = BTreeMap<Shard, Lease>;

#[derive(Debug)]
struct ShardRow {
    owner: Option<Owner>,
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
    /// Until then a former owner has it in flight, unless that one says more.
    pub busy_until: Timestamp,
    /// How often it was retried by hand; the model's own.
    pub generation: u32,
}

#[derive(Debug)]
pub(crate) struct Subscription {
    pub interest: Interest,
    pub active: bool,
    pub always_active: bool,
    /// Deliveries opened before this are cancelled.
    pub open_from: Timestamp,
}

/// A view of the subscriptions, as of a version.
#[derive(Debug, Clone, Default)]
pub(crate) struct Registry {
    pub version: u64,
    pub index: Index,
    pub inactive: BTreeSet<SubscriptionId>,
    open_from: BTreeMap<SubscriptionId, Timestamp>,
}

impl Registry {
    /// Whether the delivery may be attempted.
    pub(crate) fn permits(&self, delivery: &Delivery) -> bool {
        let open_from = self.open_from.get(&delivery.subscription);
        !self.inactive.contains(&delivery.subscription) && open_from.is_none_or(|from| *from <= delivery.opened_at)
    }
}

/// What is to be cancelled: what a subscription had open before then.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CancelJob {
    pub subscription: SubscriptionId,
    pub opened_before: Timestamp,
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

/// The result of recording a [`Plan`].
pub(crate) struct RecordedPlan {
    /// All that follows from the event is in the ledger.
    pub complete: bool,
    /// New deliveries on shards that the recorder owns.
    pub mine: Vec<(Delivery, Epoch)>,
}

/// The result of recording an outcome.
#[derive(Debug, Clone, Copy)]
pub(crate) enum RecordResult {
    Closed,
    Open(Timestamp),
    /// Somebody else has closed it; the success is kept as an attempt.
    Late,
    /// Not the owner's, or not of the row as it is now.
    Stale,
}

#[derive(Debug)]
pub(crate) struct Ledger {
    pub now: Timestamp,
    keys: BTreeMap<Key, EventUid>,
    pub events: BTreeMap<EventUid, EventRow>,
    pub open: BTreeMap<DeliveryId, Row>,
    pub closed: BTreeMap<DeliveryId, (Row, Closed)>,
    /// Attempts with success, late ones included.
    pub successes: BTreeSet<DeliveryId>,
    shards: BTreeMap<Shard, ShardRow>,
    wakeups: BTreeMap<(Shard, SubscriptionId), Timestamp>,
    pub subscriptions: BTreeMap<SubscriptionId, Subscription>,
    version: u64,
    /// Whose open deliveries from before then are to be cancelled.
    pub cancel_jobs: BTreeMap<SubscriptionId, Timestamp>,
    checked: BTreeSet<DeliveryId>,
    delivered: BTreeSet<DeliveryId>,
}

impl Ledger {
    pub(crate) fn new(interests: impl IntoIterator<Item = (SubscriptionId, Interest)>) -> Self {
        let now = Timestamp::from_micros(1_763_800_000_000_000);
        let subscription = |interest| Subscription {
            interest,
            active: true,
            always_active: true,
            open_from: now,
        };
        let subscriptions: BTreeMap<_, _> = interests
            .into_iter()
            .map(|(id, interest)| (id, subscription(interest)))
            .collect();
        let free = || ShardRow {
            owner: None,
            epoch: 0,
            until: now,
        };
        Self {
            now,
            keys: BTreeMap::new(),
            events: BTreeMap::new(),
            open: BTreeMap::new(),
            closed: BTreeMap::new(),
            successes: BTreeSet::new(),
            shards: subscriptions.keys().map(|id| (Shard::of(*id), free())).collect(),
            wakeups: BTreeMap::new(),
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

    pub(crate) fn owns(&self, by: Owner, shard: Shard, epoch: Epoch) -> bool {
        let row = &self.shards[&shard];
        row.owner == Some(by) && row.epoch == epoch
    }

    // Dispatch

    pub(crate) fn registry(&self) -> Registry {
        let mut registry = Registry {
            version: self.version,
            ..Registry::default()
        };
        for (id, subscription) in &self.subscriptions {
            if subscription.active {
                registry.index.add(&subscription.interest, *id);
            } else {
                registry.inactive.insert(*id);
            }
            registry.open_from.insert(*id, subscription.open_from);
        }
        registry
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
        by: Owner,
        leases: &Leases,
        registry_version: u64,
        plans: &[Plan],
    ) -> Option<Vec<RecordedPlan>> {
        if registry_version != self.version {
            return None;
        }
        let now = self.begin();
        Some(
            plans
                .iter()
                .map(|plan| self.record_one(by, leases, plan, now))
                .collect(),
        )
    }

    fn record_one(&mut self, by: Owner, leases: &Leases, plan: &Plan, now: Timestamp) -> RecordedPlan {
        let nothing = |complete| RecordedPlan {
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
                opened_version: 0,
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
            match leases.get(&shard) {
                Some(lease) if self.owns(by, shard, lease.epoch) => {
                    mine.push((delivery, lease.epoch));
                }
                _ => self.wake(subscription, now),
            }
        }
        let complete = behind.len() <= CHUNK;
        let last = chunk.last().map(|(id, _)| *id);
        if let Some(event) = self.events.get_mut(&uid) {
            event.matched += inserted;
            event.cursor = last.filter(|_| !complete);
        }
        RecordedPlan { complete, mine }
    }

    // Shards and waking

    pub(crate) fn free_shards(&self) -> impl Iterator<Item = Shard> {
        let free = |row: &ShardRow| row.owner.is_none() || row.until <= self.now;
        self.shards
            .iter()
            .filter(move |(_, row)| free(row))
            .map(|(shard, _)| *shard)
    }

    pub(crate) fn take_over(&mut self, by: Owner, shard: Shard) -> Option<Epoch> {
        let now = self.begin();
        let row = self.shards.get_mut(&shard)?;
        if row.owner.is_some() && row.until > now {
            return None;
        }
        row.owner = Some(by);
        row.epoch += 1;
        row.until = now.plus(LEASE);
        Some(row.epoch)
    }

    /// Whether the shard is still the owner's.
    pub(crate) fn renew(&mut self, by: Owner, shard: Shard, epoch: Epoch) -> bool {
        let until = self.begin().plus(LEASE);
        let owns = self.owns(by, shard, epoch);
        if let Some(row) = self.shards.get_mut(&shard).filter(|_| owns) {
            row.until = until;
        }
        owns
    }

    /// Gives a shard back, with what is in flight of it until when. Not if another has it by now.
    pub(crate) fn release(&mut self, by: Owner, shard: Shard, in_flight: &[(DeliveryId, Timestamp)]) {
        self.begin();
        let Some(row) = self.shards.get_mut(&shard).filter(|row| row.owner == Some(by)) else {
            return;
        };
        row.owner = None;
        row.epoch += 1;
        for (id, until) in in_flight {
            if let Some(row) = self.open.get_mut(id) {
                row.busy_until = *until;
            }
        }
    }

    /// Whether a former owner may still have the delivery in flight.
    pub(crate) fn is_busy(&self, id: DeliveryId) -> bool {
        self.open.get(&id).is_some_and(|row| row.busy_until > self.now)
    }

    /// When each of the shard's subscriptions has its first open delivery due.
    pub(crate) fn scan(&self, shard: Shard) -> BTreeMap<SubscriptionId, Timestamp> {
        let mut earliest = BTreeMap::new();
        for Row { delivery, .. } in self.open.values() {
            if Shard::of(delivery.subscription) == shard {
                let due = earliest.entry(delivery.subscription).or_insert(delivery.due_at);
                *due = delivery.due_at.min(*due);
            }
        }
        earliest
    }

    fn wake(&mut self, subscription: SubscriptionId, due_at: Timestamp) {
        let key = (Shard::of(subscription), subscription);
        let due = self.wakeups.entry(key).or_insert(due_at);
        *due = due_at.min(*due);
    }

    /// Takes the wakeups of the shards that are `by`'s at these epochs. Without the epoch, an owner
    /// that was frozen would take them from its successor.
    pub(crate) fn take_wakeups(&mut self, by: Owner, leases: &Leases) -> Vec<(SubscriptionId, Timestamp)> {
        self.begin();
        let owned: BTreeSet<_> = leases
            .iter()
            .filter(|(shard, lease)| self.owns(by, **shard, lease.epoch))
            .map(|(shard, _)| *shard)
            .collect();
        let (taken, left): (BTreeMap<_, _>, _) = std::mem::take(&mut self.wakeups)
            .into_iter()
            .partition(|((shard, _), _)| owned.contains(shard));
        self.wakeups = left;
        taken
            .into_iter()
            .map(|((_, subscription), due)| (subscription, due))
            .collect()
    }

    // Deliver

    /// What that subscription has open that is due from then on, or was in flight at a former owner.
    pub(crate) fn due(&self, subscription: SubscriptionId, from: Timestamp, limit: usize) -> Vec<Delivery> {
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
        let mut rows: Vec<_> = rows.filter(|row| row.subscription == subscription).collect();
        rows.sort_by_key(|row| (row.due_at, row.id));
        rows.truncate(limit);
        rows
    }

    pub(crate) fn record_outcome(
        &mut self,
        by: Owner,
        epoch: Epoch,
        seen: &Delivery,
        attempt: &Attempt,
        decision: Decision,
    ) -> RecordResult {
        let now = self.begin();
        if attempt.outcome.is_success() {
            self.successes.insert(seen.id);
            if self.close(seen.id, Closed::Delivered, attempt.number) {
                return RecordResult::Closed;
            }
            if let Some((row, end)) = self.closed.get_mut(&seen.id) {
                row.delivery.attempts = attempt.number.max(row.delivery.attempts);
                *end = Closed::Delivered;
            }
            return RecordResult::Late;
        }
        let current = self.owns(by, Shard::of(seen.subscription), epoch);
        let counts = current || self.is_busy(seen.id);
        let Some(row) = self
            .open
            .get_mut(&seen.id)
            .filter(|row| counts && row.delivery.attempts == seen.attempts)
        else {
            return RecordResult::Stale;
        };
        match decision {
            Decision::Retry(due_at) => {
                row.delivery.attempts += 1;
                row.delivery.due_at = due_at;
                row.busy_until = Timestamp::from_micros(0);
                if !current {
                    self.wake(seen.subscription, due_at);
                }
                return RecordResult::Open(due_at);
            }
            Decision::Close(end, _) => self.close(seen.id, end, attempt.number),
            Decision::CloseAndDeactivate => {
                self.mark_inactive(seen.subscription, now);
                self.close(seen.id, Closed::Dead, attempt.number)
            }
        };
        RecordResult::Closed
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
        if let Some(subscription) = self.subscriptions.get_mut(&id) {
            subscription.active = false;
            subscription.always_active = false;
            subscription.open_from = now;
            self.version += 1;
            self.cancel_jobs.insert(id, now);
        }
    }

    pub(crate) fn activate(&mut self, id: SubscriptionId) {
        self.begin();
        if let Some(subscription) = self.subscriptions.get_mut(&id) {
            subscription.active = true;
            self.version += 1;
        }
    }

    /// The jobs that cancel deliveries of these shards.
    pub(crate) fn jobs(&self, leases: &Leases) -> Vec<CancelJob> {
        let jobs = self.cancel_jobs.iter().map(|(id, time)| CancelJob {
            subscription: *id,
            opened_before: *time,
        });
        jobs.filter(|job| leases.contains_key(&Shard::of(job.subscription)))
            .collect()
    }

    /// Cancels a chunk of what a deactivated subscription had open, but nothing that is in flight.
    pub(crate) fn cancel_chunk(&mut self, by: Owner, epoch: Epoch, job: CancelJob, in_flight: &BTreeSet<DeliveryId>) {
        self.begin();
        if !self.owns(by, Shard::of(job.subscription), epoch) {
            return;
        }
        let of_job =
            |row: &&Row| row.delivery.subscription == job.subscription && row.delivery.opened_at < job.opened_before;
        let rows: Vec<_> = self.open.values().filter(of_job).copied().collect();
        let free = |row: &&Row| !in_flight.contains(&row.delivery.id) && row.busy_until <= self.now;
        let chosen: Vec<_> = rows.iter().filter(free).take(CHUNK).collect();
        if chosen.len() == rows.len() && self.cancel_jobs.get(&job.subscription) == Some(&job.opened_before) {
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
        if end.can_be_retried() && self.subscriptions[&subscription].active {
            self.closed.remove(&id);
            row.generation += 1;
            (row.delivery.opened_at, row.delivery.due_at) = (now, now);
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
