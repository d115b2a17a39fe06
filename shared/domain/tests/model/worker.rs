//! A worker process: dispatch and deliver, in steps small enough that a crash or a pause may come
//! between any two that the real one could be torn apart at.

use crate::ensure;
use crate::ledger::{
    CancelJob, Epoch, GRACE, Key, LEASE, Lease, Leases, Ledger, Owner, Plan, RecordResult, Registry, TIMEOUT,
};
use crate::outside::{Message, Queue, Subscribers, Tag};
use herald_domain::delivery::{Attempt, Decision, Delivery, decide};
use herald_domain::id::{DeliveryId, EventUid, Shard, SubscriptionId};
use herald_domain::lanes::{Action, Answer, Lanes, Limits, Terms, Ticket, Work};
use herald_domain::rate_limit::Rate;
use herald_domain::retry::RetryPolicy;
use herald_domain::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::num::NonZeroU16;
use std::time::Duration;

const BATCH: usize = 3;

/// Small, so that every limit is reached.
const LIMITS: Limits = Limits {
    in_flight: 1,
    lanes_in_flight: 2,
    lane_buffer: 3,
    buffered: 4,
    bytes: 4,
    recording: 2,
    fetches: 2,
};

/// So short that give-up and maximum are reached; every other subscription has `MaxAttempts`.
fn policy_of(subscription: SubscriptionId) -> RetryPolicy {
    RetryPolicy {
        initial: Duration::from_secs(2),
        multiplier: 2.0,
        max: Duration::from_secs(8),
        give_up_after: Duration::from_secs(30),
        max_attempts: (!is_even(subscription)).then_some(4),
    }
}

/// One attempt at a time, or two, but no more than two a second.
fn terms_of(subscription: SubscriptionId) -> Terms {
    let (max_in_flight, rate) = if is_even(subscription) {
        (NonZeroU16::MIN, None)
    } else {
        (NonZeroU16::MIN.saturating_add(1), Rate::per_second(2.0))
    };
    Terms {
        owner: herald_domain::access::OPERATOR,
        max_in_flight,
        rate,
        give_up_after: policy_of(subscription).give_up_after,
        changed_at: Timestamp::from_micros(0),
    }
}

fn is_even(subscription: SubscriptionId) -> bool {
    subscription.0.as_u128().is_multiple_of(2)
}

/// Where a batch stands.
#[derive(Debug)]
enum Dispatch {
    Idle,
    Pulled(Vec<Message>),
    /// With the version of the registry that was matched against, which is not always the newest here.
    Matched(Vec<Message>, Vec<Plan>, u64, Ticket),
    Recorded(Batch),
    Acknowledged(Batch),
}

#[derive(Debug)]
struct Batch {
    complete: Vec<Tag>,
    again: Vec<Message>,
    offers: Vec<(Delivery, Epoch)>,
    ticket: Ticket,
}

/// A read of the ledger under way; the rows are those of the moment at which it was answered.
#[derive(Debug)]
struct Read {
    subscription: SubscriptionId,
    from: Timestamp,
    limit: usize,
    rows: Option<Vec<Work<Epoch>>>,
}

/// An answered request whose outcome is on its way into the ledger.
#[derive(Debug)]
struct PendingOutcome {
    work: Work<Epoch>,
    attempt: Attempt,
    decision: Decision,
    answered: Timestamp,
    result: Option<RecordResult>,
}

/// What a worker can do next. `Unheard`: the transaction is committed, its reply is lost.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Move {
    Pull,
    Match,
    Record,
    RecordUnheard,
    Acknowledge,
    HandOver,
    Sweep,
    TakeOver(Shard),
    Scan,
    /// Begins nothing more of that shard, and notes what is in flight of it.
    GiveBack(Shard),
    Release,
    ReleaseUnheard,
    Renew,
    Renewed,
    TakeWakeups,
    NoteWakeups,
    /// Looks at what is to be cancelled and what of it is in flight.
    LookAtJobs,
    Cancel,
    Poll,
    Read(usize),
    ReadFailed(usize),
    Fetched(usize),
    Answer(usize),
    RecordOutcome(usize),
    RecordOutcomeUnheard(usize),
    Report(usize),
}

#[derive(Debug)]
pub(crate) struct Worker {
    pub owner: Owner,
    /// Whether anything may fail.
    faults: bool,
    registry: Registry,
    dispatch: Dispatch,
    lanes: Lanes<Epoch>,
    leases: Leases,
    /// Leases as they will be when the reply to their renewal comes.
    renewing: Option<Leases>,
    unscanned: BTreeSet<Shard>,
    /// Shards that are to be released, with what was in flight of them until when.
    giving: BTreeMap<Shard, Vec<(DeliveryId, Timestamp)>>,
    woken: Vec<(SubscriptionId, Timestamp)>,
    /// What is to be cancelled, with what was in flight of its shard.
    jobs: Vec<(CancelJob, Epoch, BTreeSet<DeliveryId>)>,
    reads: Vec<Read>,
    requests: Vec<(Work<Epoch>, Timestamp, u32)>,
    outcomes: Vec<PendingOutcome>,
}

impl Worker {
    pub(crate) fn new(owner: Owner, faults: bool) -> Self {
        Self {
            owner,
            faults,
            registry: Registry::default(),
            dispatch: Dispatch::Idle,
            lanes: Lanes::new(LIMITS),
            leases: Leases::new(),
            renewing: None,
            unscanned: BTreeSet::new(),
            giving: BTreeMap::new(),
            woken: Vec::new(),
            jobs: Vec::new(),
            reads: Vec::new(),
            requests: Vec::new(),
            outcomes: Vec::new(),
        }
    }

    /// What it can do; what a healthy network does not do only with `faults`.
    pub(crate) fn moves(&self, ledger: &Ledger, queue: &Queue, faults: bool) -> Vec<Move> {
        let mut moves = self.pending(faults);
        moves.extend([Move::Poll, Move::TakeWakeups]);
        moves.extend((!self.leases.is_empty() && self.renewing.is_none()).then_some(Move::Renew));
        moves.extend(ledger.free_shards().map(Move::TakeOver));
        moves.extend(self.leases.keys().copied().map(Move::GiveBack));
        let idle = self.jobs.is_empty() && !ledger.jobs(&self.leases).is_empty();
        moves.extend(idle.then_some(Move::LookAtJobs));
        if matches!(self.dispatch, Dispatch::Idle) {
            moves.extend(queue.has_waiting().then_some(Move::Pull));
            moves.extend(ledger.incomplete().map(|_| Move::Sweep));
        }
        moves
    }

    /// What it has begun and not ended.
    pub(crate) fn pending(&self, faults: bool) -> Vec<Move> {
        let mut moves = Vec::new();
        match &self.dispatch {
            Dispatch::Idle => {}
            Dispatch::Pulled(_) => moves.push(Move::Match),
            Dispatch::Matched(..) => {
                moves.push(Move::Record);
                moves.extend(faults.then_some(Move::RecordUnheard));
            }
            Dispatch::Recorded(_) => moves.push(Move::Acknowledge),
            Dispatch::Acknowledged(_) => moves.push(Move::HandOver),
        }
        moves.extend((!self.unscanned.is_empty()).then_some(Move::Scan));
        moves.extend((!self.giving.is_empty()).then_some(Move::Release));
        moves.extend((faults && !self.giving.is_empty()).then_some(Move::ReleaseUnheard));
        moves.extend(self.renewing.is_some().then_some(Move::Renewed));
        moves.extend((!self.woken.is_empty()).then_some(Move::NoteWakeups));
        moves.extend((!self.jobs.is_empty()).then_some(Move::Cancel));
        for (i, read) in self.reads.iter().enumerate() {
            moves.push(if read.rows.is_some() {
                Move::Fetched(i)
            } else {
                Move::Read(i)
            });
            moves.extend(faults.then_some(Move::ReadFailed(i)));
        }
        moves.extend((0..self.requests.len()).map(Move::Answer));
        for (i, outcome) in self.outcomes.iter().enumerate() {
            moves.push(if outcome.result.is_some() {
                Move::Report(i)
            } else {
                Move::RecordOutcome(i)
            });
            moves.extend((faults && outcome.result.is_none()).then_some(Move::RecordOutcomeUnheard(i)));
        }
        moves
    }

    /// Whether it has nothing in memory.
    pub(crate) fn is_at_rest(&self) -> bool {
        let load = self.lanes.load();
        matches!(self.dispatch, Dispatch::Idle)
            && load.lanes + load.in_flight + load.buffered + load.recording == 0
            && self.pending(false).is_empty()
    }

    /// The epoch at which it may act on that subscription now, by its own clock.
    fn holds(&self, subscription: SubscriptionId, now: Timestamp) -> Option<Epoch> {
        let lease = self.leases.get(&Shard::of(subscription))?;
        (now < lease.until).then_some(lease.epoch)
    }

    pub(crate) fn make(
        &mut self,
        what: Move,
        ledger: &mut Ledger,
        queue: &mut Queue,
        subscribers: &mut Subscribers,
        dice: u16,
    ) -> Result<(), String> {
        let now = ledger.now;
        let soon = now.plus(Duration::from_secs(1));
        match what {
            Move::Poll => return self.poll(ledger, subscribers),
            Move::Renew => self.renew(ledger),
            Move::Renewed => {
                let renewed = self.renewing.take().unwrap_or_default();
                let lost = self.leases.keys().filter(|shard| !renewed.contains_key(shard));
                self.lanes.release(lost.copied());
                self.leases = renewed;
            }
            Move::TakeOver(shard) => {
                if let Some(epoch) = ledger.take_over(self.owner, shard) {
                    let until = now.plus(LEASE);
                    // It may have been its own before, and another's since.
                    self.lanes.release([shard]);
                    self.lanes.own([shard]);
                    self.leases.insert(shard, Lease { epoch, until });
                    // A reply that is still to come knows nothing of this, nor of what was to be released.
                    self.renewing = None;
                    self.giving.remove(&shard);
                    self.unscanned.insert(shard);
                }
            }
            Move::GiveBack(shard) => {
                self.leases.remove(&shard);
                self.renewing = None;
                self.lanes.release([shard]);
                let busy = self.lanes.busy(&HashSet::from([shard]));
                let busy = busy.into_iter().map(|(_, id)| (id, self.busy_until(id, now)));
                self.giving.insert(shard, busy.collect());
            }
            Move::Release | Move::ReleaseUnheard => {
                if let Some((shard, busy)) = self.giving.first_key_value() {
                    let shard = *shard;
                    ledger.release(self.owner, shard, busy);
                    if matches!(what, Move::Release) {
                        self.giving.remove(&shard);
                    }
                }
            }
            Move::Scan => {
                if let Some(shard) = self.unscanned.pop_first() {
                    for (subscription, due) in ledger.scan(shard) {
                        self.lanes.note(subscription, due);
                    }
                }
            }
            Move::TakeWakeups => {
                self.registry = ledger.registry();
                self.woken.extend(ledger.take_wakeups(self.owner, &self.leases));
            }
            Move::NoteWakeups => {
                for (subscription, due) in self.woken.drain(..) {
                    self.lanes.note(subscription, due);
                }
            }
            Move::LookAtJobs => {
                let jobs = ledger.jobs(&self.leases);
                self.registry = ledger.registry();
                for job in jobs {
                    let shard = Shard::of(job.subscription);
                    let busy = self.lanes.busy(&HashSet::from([shard]));
                    let busy = busy.into_iter().map(|(_, id)| id).collect();
                    self.jobs.push((job, self.leases[&shard].epoch, busy));
                }
            }
            Move::Cancel => {
                if let Some((job, epoch, in_flight)) = self.jobs.pop() {
                    ledger.cancel_chunk(self.owner, epoch, job, &in_flight);
                }
            }
            Move::Read(i) => {
                let Read {
                    subscription,
                    from,
                    limit,
                    ..
                } = self.reads[i];
                let rows = match (self.holds(subscription, now), self.leases.get(&Shard::of(subscription))) {
                    (Some(epoch), _) => ledger
                        .due(subscription, from, limit)
                        .into_iter()
                        .map(|row| work(row, epoch))
                        .collect(),
                    (None, None) => Vec::new(), // lost; its lane ends here
                    (None, Some(_)) => {
                        self.reads.remove(i);
                        self.lanes.fetch_failed(subscription, soon);
                        return Ok(());
                    }
                };
                self.reads[i].rows = Some(rows);
            }
            Move::ReadFailed(i) => self.lanes.fetch_failed(self.reads.remove(i).subscription, soon),
            Move::Fetched(i) => {
                let Read {
                    subscription,
                    limit,
                    rows,
                    ..
                } = self.reads.remove(i);
                self.lanes.fetched(subscription, rows.unwrap_or_default(), limit, now);
            }
            Move::Answer(i) => {
                let (work, began, generation) = self.requests.remove(i);
                let delivery = &work.delivery;
                let outcome = subscribers.answer(delivery.id, work.payload, generation, dice);
                let attempt = Attempt {
                    number: delivery.attempts + 1,
                    at: began,
                    duration: now.since(began),
                    outcome,
                    detail: None,
                };
                let jitter = f64::from(dice % 8) / 8.0;
                let decision = decide(delivery, &attempt, &policy_of(delivery.subscription), now, jitter);
                let answer = Answer::of(outcome, &policy_of(delivery.subscription));
                self.lanes.answered(&work, answer, now, jitter);
                self.outcomes.push(PendingOutcome {
                    work,
                    attempt,
                    decision,
                    answered: now,
                    result: None,
                });
            }
            Move::RecordOutcome(i) | Move::RecordOutcomeUnheard(i) => {
                let PendingOutcome {
                    work,
                    attempt,
                    decision,
                    ..
                } = &self.outcomes[i];
                let busy = ledger.is_busy(work.delivery.id);
                let result = ledger.record_outcome(self.owner, work.payload, &work.delivery, attempt, *decision);
                let shard = Shard::of(work.delivery.subscription);
                ensure!(
                    attempt.outcome.is_success()
                        || busy
                        || ledger.owns(self.owner, shard, work.payload)
                        || matches!(result, RecordResult::Stale),
                    "promise 4: a failure of an old epoch counted for {}",
                    work.delivery.id
                );
                ensure!(
                    self.faults || !busy || !matches!(result, RecordResult::Stale),
                    "promise 4: an attempt at {} that was handed over does not count",
                    work.delivery.id
                );
                let id = work.delivery.id;
                ensure!(
                    ledger
                        .open
                        .get(&id)
                        .is_none_or(|row| row.delivery.attempts <= subscribers.begun(id)),
                    "promise 4: an attempt at {id} was counted twice"
                );
                ensure!(
                    !attempt.outcome.is_success() || !ledger.open.contains_key(&id),
                    "promise 4: a success did not count for {id}"
                );
                if attempt.outcome.is_success() {
                    subscribers.recorded.insert(work.delivery.id);
                }
                if matches!(what, Move::RecordOutcome(_)) {
                    self.outcomes[i].result = Some(result);
                }
            }
            Move::Report(i) => {
                let PendingOutcome { work, result, .. } = self.outcomes.remove(i);
                let Delivery { id, subscription, .. } = work.delivery;
                match result {
                    Some(RecordResult::Open(due_at)) => self.lanes.recorded(subscription, id, Some(due_at)),
                    Some(RecordResult::Closed | RecordResult::Late) => self.lanes.recorded(subscription, id, None),
                    // Whatever the row is now, the ledger knows.
                    Some(RecordResult::Stale) | None => {
                        self.lanes.recorded(subscription, id, None);
                        self.lanes.look(subscription, now);
                    }
                }
            }
            Move::Pull
            | Move::Match
            | Move::Record
            | Move::RecordUnheard
            | Move::Acknowledge
            | Move::HandOver
            | Move::Sweep => {
                let state = std::mem::replace(&mut self.dispatch, Dispatch::Idle);
                self.dispatch = self.dispatch(what, state, ledger, queue, dice);
            }
        }
        Ok(())
    }

    fn dispatch(&mut self, what: Move, state: Dispatch, ledger: &mut Ledger, queue: &mut Queue, dice: u16) -> Dispatch {
        match state {
            Dispatch::Idle if matches!(what, Move::Sweep) => {
                let key = ledger.incomplete();
                Dispatch::Pulled(key.map(|key| Message { tag: None, key }).into_iter().collect())
            }
            Dispatch::Idle => Dispatch::Pulled(queue.pull(self.owner, BATCH, dice.into())),
            Dispatch::Pulled(messages) => {
                let ticket = self.lanes.ticket();
                let plans = messages
                    .iter()
                    .enumerate()
                    .map(|(i, message)| self.plan(message.key, ledger, i))
                    .collect();
                Dispatch::Matched(messages, plans, self.registry.version, ticket)
            }
            Dispatch::Matched(messages, plans, version, ticket) => {
                let Some(recorded) = ledger.record(self.owner, &self.leases, version, &plans) else {
                    self.registry = ledger.registry();
                    return Dispatch::Pulled(messages);
                };
                if matches!(what, Move::RecordUnheard) {
                    // Nobody will hand over what was recorded for the shards of this process, and the
                    // repetition inserts nothing: only reading them again finds it.
                    self.unscanned.extend(self.leases.keys());
                    return Dispatch::Pulled(messages);
                }
                let mut batch = Batch {
                    complete: Vec::new(),
                    again: Vec::new(),
                    offers: Vec::new(),
                    ticket,
                };
                for (message, recorded) in messages.into_iter().zip(recorded) {
                    batch.offers.extend(recorded.mine);
                    if recorded.complete {
                        batch.complete.extend(message.tag);
                    } else {
                        batch.again.push(message);
                    }
                }
                Dispatch::Recorded(batch)
            }
            Dispatch::Recorded(batch) => {
                for tag in &batch.complete {
                    queue.acknowledge(self.owner, *tag);
                }
                Dispatch::Acknowledged(batch)
            }
            Dispatch::Acknowledged(batch) => {
                for (delivery, epoch) in batch.offers {
                    self.lanes.offer(work(delivery, epoch), batch.ticket, ledger.now);
                }
                if batch.again.is_empty() {
                    Dispatch::Idle
                } else {
                    Dispatch::Pulled(batch.again)
                }
            }
        }
    }

    fn plan(&self, key: Key, ledger: &Ledger, nth: usize) -> Plan {
        let content = crate::outside::content_of(key);
        let unique = (u128::from(self.owner.0) << 64)
            | u128::from(ledger.now.as_micros().unsigned_abs().wrapping_mul(4) + nth as u64);
        let mut random = [0; 10];
        random.copy_from_slice(&unique.to_be_bytes()[6..]);
        let uid = uuid::Builder::from_unix_timestamp_millis(ledger.now.as_unix_millis(), &random).into_uuid();
        Plan {
            key,
            known: ledger.look_up(key),
            new_uid: EventUid(uid),
            matches: self.registry.index.matches(&content.kind, &content.objects),
        }
    }

    /// Sends the renewals. A lease is counted from before that, for the reply may come late.
    fn renew(&mut self, ledger: &mut Ledger) {
        let until = ledger.now.plus(LEASE);
        let mut renewed = self.leases.clone();
        renewed.retain(|shard, lease| ledger.renew(self.owner, *shard, lease.epoch));
        for lease in renewed.values_mut() {
            lease.until = until;
        }
        self.renewing = Some(renewed);
    }

    /// Until when the request of that delivery, or its outcome, is on its way.
    fn busy_until(&self, id: DeliveryId, now: Timestamp) -> Timestamp {
        let request = self.requests.iter().find(|(work, ..)| work.delivery.id == id);
        request.map_or(now, |(_, began, _)| began.plus(TIMEOUT)).plus(GRACE)
    }

    /// What a healthy process must have done by then: requests time out, and outcomes are recorded.
    pub(crate) fn overdue(&self, by: Timestamp) -> Option<Move> {
        let request = self.requests.iter().position(|(_, began, _)| began.plus(TIMEOUT) <= by);
        let unrecorded = |outcome: &PendingOutcome| outcome.result.is_none() && outcome.answered.plus(GRACE) <= by;
        let outcome = self.outcomes.iter().position(unrecorded);
        request.map(Move::Answer).or_else(|| outcome.map(Move::RecordOutcome))
    }

    fn poll(&mut self, ledger: &Ledger, subscribers: &mut Subscribers) -> Result<(), String> {
        let now = ledger.now;
        for action in self.lanes.poll(now, terms_of) {
            let work = match action {
                Action::Fetch {
                    subscription,
                    from,
                    limit,
                } => {
                    self.reads.push(Read {
                        subscription,
                        from,
                        limit,
                        rows: None,
                    });
                    continue;
                }
                Action::Attempt(work) => work,
                Action::GiveUp(work) => {
                    let id = work.delivery.id;
                    return Err(format!("{id}: no breaker opens with so few deliveries"));
                }
            };
            let Delivery {
                id,
                subscription,
                attempts,
                ..
            } = work.delivery;
            match self.holds(subscription, now) {
                Some(epoch) if self.registry.permits(&work.delivery) => {
                    ensure!(epoch == work.payload, "{id} was read at another epoch");
                    ensure!(
                        ledger.owns(self.owner, Shard::of(subscription), epoch),
                        "{id} is sent by one who owns it no more"
                    );
                    if let Some(row) = ledger.open.get(&id) {
                        ensure!(row.delivery.due_at <= now, "{id} is not due");
                        ensure!(
                            row.delivery.attempts == attempts,
                            "{id} was attempted by somebody else at this epoch"
                        );
                    }
                    let generation = ledger.generation(id);
                    subscribers.begin(id, epoch, generation, self.faults)?;
                    self.requests.push((work, now, generation));
                }
                _ => self.lanes.abandoned(&work, now.plus(Duration::from_secs(1)), now),
            }
        }
        Ok(())
    }

    /// The process ends; nobody will ever read the answers to its requests.
    pub(crate) fn crash(&self, queue: &mut Queue, subscribers: &mut Subscribers) {
        queue.release(self.owner);
        for (work, _, generation) in &self.requests {
            subscribers.forget(work.delivery.id, work.payload, *generation);
        }
    }
}

fn work(delivery: Delivery, epoch: Epoch) -> Work<Epoch> {
    Work {
        delivery,
        payload: epoch,
        bytes: 1,
    }
}
