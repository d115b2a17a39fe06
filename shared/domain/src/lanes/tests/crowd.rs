//! A thousand slow subscribers and more, beside others, in a process whose time is simulated.

use super::*;
use std::collections::BTreeMap;

const TICK: Duration = Duration::from_millis(10);

/// A subscriber.
#[derive(Clone, Copy)]
struct Subscriber {
    owner: u128,
    answers_after: Duration,
}

/// What a subscription's deliveries waited for from when they were due, in order.
type Waited = BTreeMap<LaneId, Vec<Duration>>;

/// A process with its ledger, whose reads take a tick, and its subscribers.
struct Town {
    lanes: Lanes<()>,
    limits: Limits,
    now: Timestamp,
    subscribers: BTreeMap<LaneId, Subscriber>,
    /// What is open, by lane in the order in which it is due.
    ledger: BTreeMap<LaneId, BTreeMap<(Timestamp, DeliveryId), Work<()>>>,
    /// By when they end.
    requests: BTreeMap<(Timestamp, DeliveryId), Work<()>>,
    reads: Vec<(LaneId, Timestamp, usize, Scope)>,
    recorded: u128,
    waited: Waited,
}

impl Town {
    fn new(limits: Limits) -> Self {
        Self {
            lanes: on_all_shards(limits),
            limits,
            now: at(0),
            subscribers: BTreeMap::new(),
            ledger: BTreeMap::new(),
            requests: BTreeMap::new(),
            reads: Vec::new(),
            recorded: 0,
            waited: Waited::new(),
        }
    }

    fn subscribe(&mut self, owner: u128, answers_after: Duration) -> LaneId {
        let id = LaneId::of(SubscriptionId(Uuid::from_u128(self.subscribers.len() as u128)));
        let subscriber = Subscriber { owner, answers_after };
        self.subscribers.insert(id, subscriber);
        id
    }

    /// Records a delivery, which is handed over.
    fn record(&mut self, lane_id: LaneId, bytes: usize) {
        let mark = self.lanes.mark();
        let work = self.insert(lane_id, bytes);
        self.lanes.offer(work, mark, self.now);
    }

    fn insert(&mut self, lane_id: LaneId, bytes: usize) -> Work<()> {
        self.recorded += 1;
        let work = Work {
            bytes,
            ..work(self.recorded, lane_id, self.now)
        };
        let key = (self.now, work.delivery.id);
        self.ledger.entry(lane_id).or_default().insert(key, work.clone());
        work
    }

    fn read(&mut self, (lane_id, from, limit, scope): (LaneId, Timestamp, usize, Scope)) {
        let (mut rows, mut bytes) = (0, 0);
        let open = self.ledger.get(&lane_id);
        let open = open
            .into_iter()
            .flat_map(|open| open.range((from, DeliveryId(Uuid::nil()))..));
        let row = |(_, work): (_, &Work<()>)| {
            if scope.known.contains(&work.delivery.id) || rows >= scope.rows || bytes >= scope.bytes {
                return Row::Bare(work.delivery);
            }
            (rows, bytes) = (rows + 1, bytes + work.bytes);
            Row::Whole(work.clone())
        };
        let read: Vec<_> = open.take(limit).map(row).collect();
        self.lanes.fetched(lane_id, read, limit, self.now);
    }

    fn tick(&mut self) {
        self.now = self.now.plus(TICK);
        while let Some(end) = self.requests.first_entry().filter(|end| end.key().0 <= self.now) {
            let work = end.remove();
            let (lane_id, Delivery { id, due_at, .. }) = (work.lane(), work.delivery);
            self.lanes.answered(&work, WELL, self.now, 0.5);
            self.ledger.entry(lane_id).or_default().remove(&(due_at, id));
            self.lanes.recorded(lane_id, id, None);
        }
        for read in std::mem::take(&mut self.reads) {
            self.read(read);
        }
        let subscribers = &self.subscribers;
        let terms = |id| Terms {
            owner: AccountId(Uuid::from_u128(subscribers[&LaneId::of(id)].owner)),
            ..examples::most(64)
        };
        for action in self.lanes.poll(self.now, terms) {
            match action {
                Action::Fetch {
                    lane: lane_id,
                    from,
                    limit,
                } => {
                    self.reads.push((lane_id, from, limit, self.lanes.scope(lane_id)));
                }
                Action::Attempt(work) => {
                    let (lane_id, Delivery { id, due_at, .. }) = (work.lane(), work.delivery);
                    self.waited.entry(lane_id).or_default().push(self.now.since(due_at));
                    let end = self.now.plus(self.subscribers[&lane_id].answers_after);
                    self.requests.insert((end, id), work);
                }
                Action::GiveUp(work) => panic!("{work:?}"),
            }
        }
        let (total, coming) = (self.lanes.shares.total(), self.lanes.shares.coming());
        assert!(total.waiting + coming.waiting <= self.limits.buffered);
        assert!(total.bytes + coming.bytes <= self.limits.bytes);
        assert!(total.first <= self.limits.lanes_in_flight && total.more <= self.limits.in_flight);
    }

    fn longest_wait(&self, lane_id: LaneId) -> Duration {
        self.waited[&lane_id].iter().max().copied().unwrap_or_default()
    }
}

const SLOW: Duration = Duration::from_secs(29);
const PROMPT: Duration = Duration::from_millis(50);
const SOON: Duration = Duration::from_millis(500);

/// Slow subscribers of so many accounts, each with an event every 20 s or so; a prompt one of another account, and one
/// of the first that answered before, with ten events a second each. How long these two waited at most.
fn beside_slow_ones(slow: usize, owners: u128, bytes: usize) -> (Town, [Duration; 2]) {
    let mut town = Town::new(Limits::default());
    let prompt = [town.subscribe(1000, PROMPT), town.subscribe(0, PROMPT)];
    for prompt in prompt {
        town.record(prompt, 500);
    }
    for _ in 0..20 {
        town.tick();
    }
    let slow: Vec<_> = (0..slow).map(|n| town.subscribe(n as u128 % owners, SLOW)).collect();
    for second in 0..60 {
        for (n, id) in slow
            .iter()
            .enumerate()
            .filter(|(n, _)| second == 0 || n % 20 == second % 20)
        {
            town.record(*id, bytes + n % 2);
        }
        for _ in 0..10 {
            for prompt in prompt {
                town.record(prompt, 500);
            }
            for _ in 0..10 {
                town.tick();
            }
        }
    }
    let waited = prompt.map(|prompt| town.longest_wait(prompt));
    (town, waited)
}

#[test]
fn beside_over_a_thousand_slow_ones_of_one_account_the_others_go_on_at_once() {
    let (town, waited) = beside_slow_ones(1500, 1, 500);
    assert!(waited.iter().all(|waited| *waited <= SOON), "{waited:?}");
    let slow = town.waited.len() - 2;
    assert!(slow >= 1300, "{slow} of the slow ones had a turn within a minute");
}

#[test]
fn beside_over_a_thousand_slow_ones_of_many_accounts_those_that_answered_fast_go_on_at_once() {
    let (_, waited) = beside_slow_ones(3000, 100, 500);
    assert!(waited.iter().all(|waited| *waited <= SOON), "{waited:?}");
}

#[test]
fn slow_ones_with_large_events_leave_memory_for_the_others() {
    let (town, waited) = beside_slow_ones(1500, 1, 256 << 10);
    assert!(waited.iter().all(|waited| *waited <= SOON), "{waited:?}");
    assert!(town.waited.len() > 180, "and go on within their share");
}

#[test]
fn one_that_has_never_answered_finds_room_beside_slow_ones_of_another_account() {
    let (mut town, _) = beside_slow_ones(1500, 1, 500);
    let new = town.subscribe(2000, PROMPT);
    town.record(new, 500);
    for _ in 0..50 {
        town.tick();
    }
    assert!(town.longest_wait(new) <= SOON);
}

#[test]
fn ten_thousand_lanes_that_are_due_after_a_restart_are_sent_within_the_bounds_and_none_waits_for_ever() {
    let mut town = Town::new(Limits::default());
    for n in 0..10_000 {
        let id = town.subscribe(n % 7, PROMPT);
        let due_at = town.now;
        for _ in 0..2 {
            town.insert(id, 256 << 10);
        }
        town.lanes.note(id, due_at);
    }
    // Four reads a tick, as many as there may be: 2,500 ticks at least.
    let mut ticks = 0;
    while town.ledger.values().any(|open| !open.is_empty()) {
        town.tick();
        ticks += 1;
        assert!(
            ticks < 7_500,
            "{} are left",
            town.ledger.values().map(BTreeMap::len).sum::<usize>()
        );
    }
    assert_eq!(town.waited.values().map(Vec::len).sum::<usize>(), 20_000);
    for _ in 0..100 {
        town.tick();
    }
    assert_eq!(town.lanes.load().lanes, 0);
}
