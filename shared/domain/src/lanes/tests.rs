use super::*;
use crate::catalogue::Webhook;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use uuid::Uuid;

fn at(millis: u64) -> Timestamp {
    Timestamp::from_micros(0).plus(Duration::from_millis(millis))
}

fn lane(n: u8) -> SubscriptionId {
    SubscriptionId(Uuid::from_u128(n.into()))
}

fn work(n: u128, subscription: SubscriptionId, due_at: Timestamp) -> Work<()> {
    let id = DeliveryId(Uuid::from_u128(n));
    let webhook = Webhook::PacketCreated;
    let (attempts, created_at, opened_at) = (0, due_at, due_at);
    let delivery = Delivery {
        id,
        subscription,
        webhook,
        attempts,
        due_at,
        created_at,
        opened_at,
    };
    Work {
        delivery,
        payload: (),
        bytes: 1 + usize::try_from(n % MAX_BYTES).unwrap(),
    }
}

const MAX_BYTES: u128 = 30;
const LANES: u8 = 4;

fn limit_of(subscription: SubscriptionId) -> usize {
    1 + subscription.0.as_bytes()[15] as usize % 3
}

/// What is done next. A `u8` picks one of what there is, so that every sequence makes sense.
#[derive(Debug, Clone)]
enum Step {
    /// A delivery is recorded, due so much later; it is handed over or woken for at some later step.
    Insert(u8, u16),
    HandOver(u8),
    Poll,
    /// The moment that a fetch shows; without it, the moment at which it ends.
    Snapshot(u8),
    Fetched(u8),
    FetchFailed(u8, u16),
    Answer(u8),
    /// The outcome is in the ledger, but the lanes do not know yet.
    Commit(u8, Option<u16>),
    Recorded(u8),
    Abandon(u8, u16),
    /// Somebody else closes an open delivery.
    Cancel(u8),
    /// Somebody else opens a closed one again.
    Reopen(u8),
    /// The shard of that lane is taken, or lost to another owner.
    Own(u8),
    Release(u8),
    /// What is open on a shard that was taken is looked up.
    Scan(u8),
    /// Another owner's attempt fails.
    Elsewhere(u8, u16),
    Wait(u16),
}

fn step() -> impl Strategy<Value = Step> {
    let later = || prop_oneof![Just(0u16), 1..2000u16];
    prop_oneof![
        6 => (0..LANES, later()).prop_map(|(n, later)| Step::Insert(n, later)),
        5 => any::<u8>().prop_map(Step::HandOver),
        6 => Just(Step::Poll),
        2 => any::<u8>().prop_map(Step::Snapshot),
        3 => any::<u8>().prop_map(Step::Fetched),
        1 => (any::<u8>(), later()).prop_map(|(i, later)| Step::FetchFailed(i, later)),
        4 => any::<u8>().prop_map(Step::Answer),
        4 => (any::<u8>(), prop::option::of(later())).prop_map(|(i, due)| Step::Commit(i, due)),
        4 => any::<u8>().prop_map(Step::Recorded),
        1 => (any::<u8>(), later()).prop_map(|(i, later)| Step::Abandon(i, later)),
        1 => any::<u8>().prop_map(Step::Cancel),
        3 => any::<u8>().prop_map(Step::Reopen),
        2 => (0..LANES).prop_map(Step::Own),
        2 => (0..LANES).prop_map(Step::Release),
        2 => any::<u8>().prop_map(Step::Scan),
        2 => (any::<u8>(), later()).prop_map(|(i, later)| Step::Elsewhere(i, later)),
        2 => (0..1500u16).prop_map(Step::Wait),
    ]
}

prop_compose! {
    fn small_limits()(
        in_flight in 1usize..6, lane_buffer in 0usize..7, buffered in 1usize..9,
        bytes in 10usize..120, recording in 1usize..4, fetches in 1usize..3,
    ) -> Limits {
        Limits { in_flight, lane_buffer, buffered, bytes, recording, fetches }
    }
}

struct Fetch {
    subscription: SubscriptionId,
    limit: usize,
    rows: Option<Vec<Work<()>>>,
}

/// An outcome in the ledger: closed, or due again.
struct Committed {
    due_at: Option<Timestamp>,
}

/// The lanes, with all that surrounds them.
struct World {
    lanes: Lanes<()>,
    limits: Limits,
    now: Timestamp,
    /// The ledger.
    open: BTreeMap<DeliveryId, Work<()>>,
    closed: BTreeMap<DeliveryId, Work<()>>,
    inserted: u128,
    unoffered: Vec<(Work<()>, Ticket)>,
    fetches: Vec<Fetch>,
    /// Each with the epoch at which it began.
    in_flight: Vec<(Work<()>, u32)>,
    recording: Vec<(Work<()>, u32, Option<Committed>)>,
    /// Of each shard: how often its owner changed.
    epochs: BTreeMap<Shard, u32>,
    unscanned: Vec<Shard>,
    /// Who was served since a lane could have been.
    overtaken_by: BTreeMap<SubscriptionId, Vec<SubscriptionId>>,
}

/// Lanes that own every shard.
fn owner(limits: Limits) -> Lanes<()> {
    let mut lanes = Lanes::new(limits);
    lanes.own(Shard::all());
    lanes
}

fn pick<T>(from: &[T], n: u8) -> Option<usize> {
    (!from.is_empty()).then(|| n as usize % from.len())
}

impl World {
    fn new(limits: Limits) -> Self {
        Self {
            lanes: owner(limits),
            limits,
            now: at(0),
            open: BTreeMap::new(),
            closed: BTreeMap::new(),
            inserted: 0,
            unoffered: Vec::new(),
            fetches: Vec::new(),
            in_flight: Vec::new(),
            recording: Vec::new(),
            epochs: BTreeMap::new(),
            unscanned: Vec::new(),
            overtaken_by: BTreeMap::new(),
        }
    }

    fn later(&self, millis: u16) -> Timestamp {
        self.now.plus(Duration::from_millis(millis.into()))
    }

    fn rows(&self, subscription: SubscriptionId, limit: usize) -> Vec<Work<()>> {
        let open = self.open.values();
        let mut rows: Vec<_> = open
            .filter(|row| row.delivery.subscription == subscription)
            .cloned()
            .collect();
        rows.sort_by_key(|row| (row.delivery.due_at, row.delivery.id));
        rows.truncate(limit);
        rows
    }

    fn do_step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match *step {
            Step::Insert(n, later) => {
                self.inserted += 1;
                let work = work(self.inserted, lane(n), self.later(later));
                self.unoffered.push((work.clone(), self.lanes.ticket()));
                self.open.insert(work.delivery.id, work);
            }
            Step::HandOver(i) => {
                if let Some(i) = pick(&self.unoffered, i) {
                    let (work, ticket) = self.unoffered.remove(i);
                    self.lanes.offer(work, ticket, self.now);
                }
            }
            Step::Poll => drop(self.poll()?),
            Step::Snapshot(i) => {
                if let Some(i) = pick(&self.fetches, i) {
                    let rows = self.rows(self.fetches[i].subscription, self.fetches[i].limit);
                    self.fetches[i].rows.get_or_insert(rows);
                }
            }
            Step::Fetched(i) => {
                if let Some(i) = pick(&self.fetches, i) {
                    let fetch = self.fetches.remove(i);
                    let rows = fetch.rows.unwrap_or_else(|| self.rows(fetch.subscription, fetch.limit));
                    self.lanes.fetched(fetch.subscription, rows, fetch.limit, self.now);
                }
            }
            Step::FetchFailed(i, later) => {
                if let Some(i) = pick(&self.fetches, i) {
                    let again_at = self.later(later);
                    self.lanes.fetch_failed(self.fetches.remove(i).subscription, again_at);
                }
            }
            Step::Answer(i) => {
                if let Some(i) = pick(&self.in_flight, i) {
                    let (work, epoch) = self.in_flight.remove(i);
                    self.lanes.answered(&work);
                    self.recording.push((work, epoch, None));
                }
            }
            Step::Commit(i, retry) => {
                if let Some(i) = pick(&self.recording, i)
                    && self.recording[i].2.is_none()
                {
                    let due_at = retry.map(|later| self.later(later));
                    let Delivery { id, subscription, .. } = self.recording[i].0.delivery;
                    let stale = self.epoch(Shard::of(subscription)) != self.recording[i].1;
                    self.recording[i].2 = Some(Committed { due_at });
                    match due_at {
                        // Nothing is written, and whatever the row is now, the ledger knows.
                        Some(_) if stale => self.recording[i].2 = Some(Committed { due_at: Some(self.now) }),
                        None => self.closed.extend(self.open.remove(&id).map(|row| (id, row))),
                        Some(due_at) => {
                            if let Some(row) = self.open.get_mut(&id) {
                                row.delivery.due_at = due_at;
                                row.delivery.attempts += 1;
                            }
                        }
                    }
                }
            }
            Step::Recorded(i) => {
                let done: Vec<_> = (0..self.recording.len())
                    .filter(|i| self.recording[*i].2.is_some())
                    .collect();
                if let Some(i) = pick(&done, i) {
                    let (work, _, committed) = self.recording.remove(done[i]);
                    let due_at = committed.and_then(|committed| committed.due_at);
                    let Delivery { subscription, id, .. } = work.delivery;
                    self.lanes.recorded(subscription, id, due_at);
                }
            }
            Step::Abandon(i, later) => {
                if let Some(i) = pick(&self.in_flight, i) {
                    let (work, _) = self.in_flight.remove(i);
                    self.lanes.abandoned(&work, self.later(later));
                }
            }
            Step::Cancel(i) => {
                let ids: Vec<_> = self.open.keys().copied().collect();
                let id = pick(&ids, i).map(|i| ids[i]);
                if let Some(id) = id {
                    self.open.remove(&id);
                }
            }
            Step::Reopen(i) => {
                let ids: Vec<_> = self.closed.keys().copied().collect();
                let id = pick(&ids, i).map(|i| ids[i]);
                if let Some(mut work) = id.and_then(|id| self.closed.remove(&id)) {
                    work.delivery.due_at = self.now;
                    self.lanes.note(work.delivery.subscription, self.now);
                    self.open.insert(work.delivery.id, work);
                }
            }
            Step::Own(n) => {
                let shard = Shard::of(lane(n));
                if !self.lanes.owns(shard) {
                    *self.epochs.entry(shard).or_default() += 1;
                    self.lanes.own([shard]);
                    self.unscanned.push(shard);
                }
            }
            Step::Release(n) => {
                let shard = Shard::of(lane(n));
                if self.lanes.owns(shard) {
                    *self.epochs.entry(shard).or_default() += 1;
                    self.lanes.release([shard]);
                }
            }
            Step::Scan(i) => {
                if let Some(i) = pick(&self.unscanned, i) {
                    let shard = self.unscanned.remove(i);
                    for row in self.open.values().map(|row| row.delivery) {
                        if Shard::of(row.subscription) == shard {
                            self.lanes.note(row.subscription, row.due_at);
                        }
                    }
                }
            }
            Step::Elsewhere(i, later) => {
                let due_at = self.later(later);
                let lanes = &self.lanes;
                let mut others: Vec<_> = self
                    .open
                    .values_mut()
                    .map(|row| &mut row.delivery)
                    .filter(|row| !lanes.owns(Shard::of(row.subscription)))
                    .collect();
                if let Some(i) = pick(&others, i) {
                    others[i].attempts += 1;
                    others[i].due_at = due_at;
                }
            }
            Step::Wait(millis) => self.now = self.later(millis),
        }
        self.check()
    }

    fn epoch(&self, shard: Shard) -> u32 {
        self.epochs.get(&shard).copied().unwrap_or(0)
    }

    /// Polls; what it tells to attempt must be due, open as far as these lanes know, and in turn.
    fn poll(&mut self) -> Result<bool, TestCaseError> {
        let mut lanes: BTreeMap<_, _> = self
            .lanes
            .by_subscription
            .iter()
            .map(|(id, lane)| (*id, (lane.buffer.len(), lane.in_flight)))
            .collect();
        let actions = self.lanes.poll(self.now, limit_of);
        let busy = !actions.is_empty();
        for action in actions {
            let work = match action {
                Action::Fetch { subscription, limit } => {
                    let fetching = self.fetches.iter().any(|fetch| fetch.subscription == subscription);
                    prop_assert!(!fetching, "one fetch at a time for a lane");
                    self.fetches.push(Fetch {
                        subscription,
                        limit,
                        rows: None,
                    });
                    continue;
                }
                Action::Attempt(work) => work,
            };
            let Delivery { id, subscription, .. } = work.delivery;
            prop_assert!(self.lanes.owns(Shard::of(subscription)), "{id} is another owner's");
            prop_assert!(
                self.unsettled().all(|other| other.delivery.id != id),
                "{id} twice at a time"
            );
            prop_assert!(!self.closed.contains_key(&id), "{id} was recorded as closed");
            if let Some(row) = self.open.get(&id) {
                prop_assert!(row.delivery.due_at <= self.now, "{id} is not due");
                prop_assert_eq!(row.delivery.attempts, work.delivery.attempts, "a stale copy");
            }
            prop_assert!(self.recording.len() < self.limits.recording, "outcomes wait already");
            for (waiting, _) in lanes
                .iter()
                .filter(|(id, (buffered, busy))| *buffered > 0 && *busy < limit_of(**id))
            {
                let overtakers = self.overtaken_by.entry(*waiting).or_default();
                prop_assert!(
                    *waiting == subscription || !overtakers.contains(&subscription),
                    "{waiting} had no turn between two of {subscription}"
                );
                overtakers.push(subscription);
            }
            self.overtaken_by.remove(&subscription);
            lanes.entry(subscription).and_modify(|(buffered, busy)| {
                *buffered -= 1;
                *busy += 1;
            });
            let epoch = self.epoch(Shard::of(subscription));
            self.in_flight.push((work, epoch));
        }
        Ok(busy)
    }

    /// What is in flight or recording.
    fn unsettled(&self) -> impl Iterator<Item = &Work<()>> {
        let recording = self.recording.iter().map(|(work, ..)| work);
        self.in_flight.iter().map(|(work, _)| work).chain(recording)
    }

    fn check(&mut self) -> Result<(), TestCaseError> {
        let (Limits { lane_buffer, .. }, lanes) = (self.limits, &self.lanes);
        let most = lane_buffer.max(ALWAYS);
        for (id, lane) in &lanes.by_subscription {
            let in_flight = self
                .in_flight
                .iter()
                .filter(|(work, _)| work.delivery.subscription == *id)
                .count();
            prop_assert_eq!(lane.in_flight, in_flight);
            prop_assert!(!lane.is_idle(), "{id} has nothing to remember");
            prop_assert_eq!(lane.ready, lanes.ready.contains(id));
            prop_assert_eq!(lane.hungry, lanes.hungry.contains(id));
            prop_assert!(
                lanes.owns(Shard::of(*id)) || (lane.buffer.is_empty() && lane.ledger_due.is_none()),
                "{id} is another owner's"
            );
            prop_assert!(in_flight <= limit_of(*id), "{in_flight} in flight in {id}");
            prop_assert!(
                lane.buffer.len() <= most,
                "{} in the buffer of {}",
                lane.buffer.len(),
                id
            );
            if lane.buffer.is_empty() || in_flight >= limit_of(*id) {
                self.overtaken_by.remove(id);
            }
        }
        self.overtaken_by.retain(|id, _| lanes.by_subscription.contains_key(id));
        let queued: HashSet<_> = lanes.ready.iter().chain(&lanes.hungry).collect();
        prop_assert!(queued.iter().all(|id| lanes.by_subscription.contains_key(id)));
        let noted = |(due, id): &(Timestamp, SubscriptionId)| lanes.by_subscription[id].ledger_due == Some(*due);
        prop_assert!(lanes.timers.iter().all(noted), "a timer without its lane");
        let busy: BTreeSet<_> = lanes.busy(&Shard::all().collect()).into_iter().collect();
        let unsettled = self.unsettled().map(|work| work.delivery);
        prop_assert_eq!(busy, unsettled.map(|it| (Shard::of(it.subscription), it.id)).collect());
        prop_assert_eq!(lanes.in_flight, self.in_flight.len());
        prop_assert_eq!(lanes.recording, self.recording.len());
        prop_assert_eq!(lanes.fetches, self.fetches.len());
        let buffered = || lanes.by_subscription.values().flat_map(|lane| &lane.buffer);
        prop_assert_eq!(lanes.buffered, buffered().count());
        prop_assert_eq!(
            lanes.bytes,
            buffered()
                .chain(self.in_flight.iter().map(|(work, _)| work))
                .map(|work| work.bytes)
                .sum::<usize>()
        );
        prop_assert!(lanes.in_flight <= self.limits.in_flight);
        prop_assert!(lanes.fetches <= self.limits.fetches);
        prop_assert!(lanes.recording < self.limits.recording + self.limits.in_flight);
        // Reads that were begun while there was room may all come back full, and a lane with nothing
        // in memory always gets its few.
        let over = self.limits.fetches * most + usize::from(LANES) * ALWAYS;
        prop_assert!(lanes.buffered < self.limits.buffered + over);
        let largest = usize::try_from(MAX_BYTES).unwrap();
        prop_assert!(lanes.bytes < self.limits.bytes + over * largest);
        Ok(())
    }

    /// Lets everything that has begun end well, with every shard owned; time goes only as far as the lanes
    /// asked for.
    fn drain(&mut self) -> Result<(), TestCaseError> {
        for n in 0..LANES {
            self.do_step(&Step::Own(n))?;
        }
        for _ in 0..10_000 {
            let steps = [
                Step::HandOver(0),
                Step::Fetched(0),
                Step::Answer(0),
                Step::Commit(0, None),
                Step::Recorded(0),
                Step::Scan(0),
            ];
            for step in &steps {
                self.do_step(step)?;
            }
            let waiting = self.unoffered.len() + self.fetches.len() + self.unsettled().count();
            if self.poll()? || waiting + self.unscanned.len() > 0 {
                continue;
            }
            let Some(wake) = self.lanes.next_wake() else {
                return Ok(());
            };
            self.now = self.now.max(wake);
        }
        Err(TestCaseError::fail("never at rest"))
    }
}

proptest! {
    #[test]
    fn nothing_is_sent_twice_at_a_time_beyond_a_limit_or_out_of_turn_and_nothing_is_forgotten(
        limits in small_limits(), steps in prop::collection::vec(step(), 0..200),
    ) {
        let mut world = World::new(limits);
        for step in &steps {
            world.do_step(step)?;
        }
        world.drain()?;
        prop_assert!(world.open.is_empty(), "forgotten: {:?}", world.open.keys());
        let rest = Load { lanes: 0, in_flight: 0, buffered: 0, recording: 0 };
        prop_assert_eq!(world.lanes.load(), rest);
        prop_assert_eq!(world.lanes.bytes + world.lanes.fetches + world.lanes.timers.len(), 0);
        prop_assert_eq!(world.lanes.oldest_due(world.now), None);
    }

    #[test]
    fn busy_lanes_take_turns(busy in 1u8..12, at_a_time in 1usize..5, rounds in 1usize..8) {
        let mut lanes = owner(Limits { in_flight: at_a_time, ..Limits::default() });
        for n in 0..u128::from(busy) * rounds as u128 {
            let ticket = lanes.ticket();
            let turn = u8::try_from(n / rounds as u128).unwrap();
            lanes.offer(work(n, lane(turn), at(0)), ticket, at(0));
        }
        let mut served = Vec::new();
        while served.len() < usize::from(busy) * rounds {
            for attempt in attempts(lanes.poll(at(0), |_| usize::MAX)) {
                lanes.answered(&attempt);
                lanes.recorded(attempt.delivery.subscription, attempt.delivery.id, None);
                served.push(attempt.delivery.subscription);
            }
        }
        let turns: Vec<_> = (0..rounds).flat_map(|_| (0..busy).map(lane)).collect();
        prop_assert_eq!(served, turns);
    }
}

fn attempts(actions: Vec<Action<()>>) -> Vec<Work<()>> {
    let attempt = |action| match action {
        Action::Attempt(work) => Some(work),
        Action::Fetch { .. } => None,
    };
    actions.into_iter().filter_map(attempt).collect()
}

fn fetch(lane: u8, limit: usize) -> Action<()> {
    Action::Fetch {
        subscription: self::lane(lane),
        limit,
    }
}

fn small(lane_buffer: usize, buffered: usize) -> Lanes<()> {
    owner(Limits {
        lane_buffer,
        buffered,
        ..Limits::default()
    })
}

fn offer(lanes: &mut Lanes<()>, n: u128, to: u8) {
    let ticket = lanes.ticket();
    lanes.offer(work(n, lane(to), at(0)), ticket, at(0));
}

#[test]
fn a_lane_at_its_limit_does_not_hold_up_the_others() {
    let mut lanes = small(8, 100);
    for n in 0..4 {
        offer(&mut lanes, n, 1);
    }
    offer(&mut lanes, 9, 2);
    let begun = attempts(lanes.poll(at(0), |_| 1));
    let whose: Vec<_> = begun.iter().map(|work| work.delivery.subscription).collect();
    assert_eq!(whose, [lane(1), lane(2)]);
    lanes.answered(&begun[1]);
    assert_eq!(lanes.poll(at(0), |_| 1), [], "lane 1 is still at its limit");
    lanes.answered(&begun[0]);
    assert_eq!(attempts(lanes.poll(at(0), |_| 1)).len(), 1);
}

#[test]
fn a_full_common_buffer_does_not_starve_a_new_lane() {
    let mut lanes = small(8, 8);
    for n in 0..9 {
        offer(&mut lanes, n, 1);
    }
    assert_eq!(lanes.load().buffered, 8, "the ninth stays in the ledger");
    lanes.note(lane(2), at(0));
    assert_eq!(lanes.poll(at(0), |_| 0), [fetch(2, ALWAYS)]);
    let rows = (20..24).map(|n| work(n, lane(2), at(0))).collect();
    lanes.fetched(lane(2), rows, ALWAYS, at(0));
    assert_eq!(lanes.load().buffered, 8 + ALWAYS);
    assert_eq!(lanes.poll(at(0), |_| 0), [], "but no more than that");
}

#[test]
fn what_was_closed_during_a_fetch_is_not_sent_again_by_its_rows() {
    let mut lanes = small(8, 100);
    let closing = work(1, lane(1), at(0));
    offer(&mut lanes, 1, 1);
    assert_eq!(attempts(lanes.poll(at(0), |_| 1)), std::slice::from_ref(&closing));
    lanes.note(lane(1), at(0));
    assert_eq!(lanes.poll(at(0), |_| 1), [fetch(1, 9)]);
    let snapshot = vec![closing.clone()];
    lanes.answered(&closing);
    lanes.recorded(lane(1), closing.delivery.id, None);
    lanes.fetched(lane(1), snapshot, 9, at(0));
    assert_eq!(lanes.poll(at(0), |_| 1), [fetch(1, 8)], "the ledger is asked");
    lanes.fetched(lane(1), Vec::new(), 8, at(0));
    assert_eq!(lanes.poll(at(0), |_| 1), []);
    assert_eq!(lanes.load().lanes, 0);
}

#[test]
fn what_is_opened_again_before_its_end_is_known_here_is_not_forgotten() {
    for recorded_first in [true, false] {
        let mut lanes = small(8, 100);
        let reopened = work(1, lane(1), at(0));
        offer(&mut lanes, 1, 1);
        assert_eq!(attempts(lanes.poll(at(0), |_| 1)).len(), 1);
        lanes.answered(&reopened);
        // Now its end is committed, and it is retried by hand.
        lanes.note(lane(1), at(0));
        assert_eq!(lanes.poll(at(0), |_| 1), [fetch(1, 9)]);
        if recorded_first {
            lanes.recorded(lane(1), reopened.delivery.id, None);
            lanes.fetched(lane(1), vec![reopened.clone()], 9, at(0));
        } else {
            lanes.fetched(lane(1), vec![reopened.clone()], 9, at(0));
            lanes.recorded(lane(1), reopened.delivery.id, None);
        }
        assert_eq!(lanes.poll(at(0), |_| 1), [fetch(1, 8)]);
    }
}

#[test]
fn a_retry_is_fetched_when_it_is_due_and_not_before() {
    let mut lanes = small(8, 100);
    offer(&mut lanes, 1, 1);
    let mut retried = attempts(lanes.poll(at(0), |_| 1)).remove(0);
    lanes.answered(&retried);
    lanes.recorded(lane(1), retried.delivery.id, Some(at(5000)));
    assert_eq!(lanes.poll(at(4999), |_| 1), []);
    assert_eq!(lanes.next_wake(), Some(at(5000)));
    assert_eq!(lanes.poll(at(5000), |_| 1), [fetch(1, 8)]);
    retried.delivery.due_at = at(6000); // brought back by hand, say
    lanes.fetched(lane(1), vec![retried.clone()], 8, at(5000));
    assert_eq!(lanes.poll(at(5999), |_| 1), []);
    assert_eq!(lanes.poll(at(6000), |_| 1), [fetch(1, 8)]);
    lanes.fetched(lane(1), vec![retried.clone()], 8, at(6000));
    assert_eq!(attempts(lanes.poll(at(6000), |_| 1)), [retried]);
}

#[test]
fn what_is_noted_during_a_fetch_that_fails_is_fetched_by_the_next() {
    let mut lanes = small(8, 100);
    lanes.note(lane(1), at(0));
    assert_eq!(lanes.poll(at(0), |_| 1), [fetch(1, 8)]);
    lanes.note(lane(1), at(0));
    assert_eq!(lanes.poll(at(0), |_| 1), []);
    lanes.fetch_failed(lane(1), at(1000));
    assert_eq!(lanes.poll(at(999), |_| 1), [], "the ledger is left in peace");
    assert_eq!(lanes.next_wake(), Some(at(1000)));
    assert_eq!(lanes.poll(at(1000), |_| 1), [fetch(1, 8)]);
}

#[test]
fn a_fetch_that_finds_nothing_leaves_no_lane() {
    let mut lanes = small(8, 100);
    lanes.note(lane(1), at(0));
    assert_eq!(lanes.poll(at(0), |_| 1), [fetch(1, 8)]);
    lanes.fetched(lane(1), Vec::new(), 8, at(0));
    assert_eq!(lanes.load().lanes, 0);
}

#[test]
fn a_hand_over_that_comes_after_a_fetch_has_shown_it_is_not_sent_again() {
    let mut lanes = small(8, 100);
    let late = work(1, lane(1), at(0));
    let before_recording = lanes.ticket();
    lanes.note(lane(1), at(0));
    assert_eq!(lanes.poll(at(0), |_| 1), [fetch(1, 8)]);
    lanes.fetched(lane(1), vec![late.clone()], 8, at(0));
    assert_eq!(attempts(lanes.poll(at(0), |_| 1)), std::slice::from_ref(&late));
    lanes.answered(&late);
    lanes.recorded(lane(1), late.delivery.id, None);
    lanes.offer(late, before_recording, at(0));
    assert_eq!(lanes.poll(at(0), |_| 1), [fetch(1, 8)], "the ledger is asked");
}

#[test]
fn a_buffer_takes_no_more_than_its_size_even_when_all_that_was_known_has_gone() {
    let mut lanes = small(4, 100);
    for n in 0..4 {
        offer(&mut lanes, n, 1);
    }
    let begun = attempts(lanes.poll(at(0), |_| 4));
    lanes.note(lane(1), at(0));
    assert_eq!(lanes.poll(at(0), |_| 4), [fetch(1, 8)]);
    for work in &begun {
        lanes.answered(work);
        lanes.recorded(lane(1), work.delivery.id, None);
    }
    let rows = (10..18).map(|n| work(n, lane(1), at(0))).collect();
    lanes.fetched(lane(1), rows, 8, at(0));
    assert_eq!(lanes.load().buffered, 4);
    assert_eq!(lanes.oldest_due(at(0)), Some(at(0)), "the rest is noted as due");
}

#[test]
fn nothing_of_a_shard_that_is_not_owned_is_taken() {
    let mut lanes: Lanes<()> = Lanes::new(Limits::default());
    offer(&mut lanes, 1, 1);
    lanes.note(lane(1), at(0));
    assert_eq!(lanes.poll(at(0), |_| 1), []);
    assert_eq!(lanes.next_wake(), None);
    assert_eq!(lanes.load().lanes, 0);
}

#[test]
fn what_is_in_flight_when_its_shard_is_released_is_known_until_it_is_recorded() {
    let mut lanes = small(8, 100);
    for n in 1..4 {
        offer(&mut lanes, n, 1);
    }
    let shard = Shard::of(lane(1));
    let begun = attempts(lanes.poll(at(0), |_| 1)).remove(0);
    lanes.release([shard]);
    assert_eq!(lanes.load().buffered, 0, "they lie in the ledger");
    assert_eq!(lanes.busy(&HashSet::from([shard])), [(shard, begun.delivery.id)]);

    lanes.own([shard]);
    lanes.note(lane(1), at(0));
    assert_eq!(lanes.poll(at(0), |_| 2), [fetch(1, 9)]);
    let rows = (1..4).map(|n| work(n, lane(1), at(0))).collect();
    lanes.fetched(lane(1), rows, 9, at(0));
    let next = attempts(lanes.poll(at(0), |_| 2)).remove(0);
    assert_ne!(next.delivery.id, begun.delivery.id, "it is in flight still");
    lanes.answered(&begun);
    lanes.recorded(lane(1), begun.delivery.id, None);
    assert_eq!(lanes.busy(&HashSet::from([shard])), [(shard, next.delivery.id)]);
}

#[test]
fn a_fetch_from_before_a_release_brings_nothing_in() {
    let mut lanes = small(8, 100);
    let shard = Shard::of(lane(1));
    lanes.note(lane(1), at(0));
    assert_eq!(lanes.poll(at(0), |_| 1), [fetch(1, 8)]);
    lanes.release([shard]);
    lanes.own([shard]);
    lanes.note(lane(1), at(0));
    assert_eq!(lanes.poll(at(0), |_| 1), [], "one fetch at a time");
    lanes.fetched(lane(1), vec![work(1, lane(1), at(0))], 8, at(0));
    assert_eq!(lanes.poll(at(0), |_| 1), [fetch(1, 8)], "the ledger is asked again");
}

#[test]
fn a_hand_over_from_before_a_release_is_looked_up() {
    let mut lanes = small(8, 100);
    let shard = Shard::of(lane(1));
    let ticket = lanes.ticket();
    lanes.release([shard]);
    lanes.own([shard]);
    lanes.offer(work(1, lane(1), at(0)), ticket, at(0));
    assert_eq!(lanes.poll(at(0), |_| 1), [fetch(1, 8)], "another may have sent it");
}
