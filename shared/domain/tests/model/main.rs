//! The model of Herald's heart: a simulation in one thread, without a clock, in which generated
//! schedules drive the decisions that run in production (`Worker` with its `Lanes`, `decide`, `Index`)
//! against a ledger and a queue in memory. It looks for orders of events that break a promise. What
//! surrounds the worker is played; the services and the SQL must make the same steps with the same gates.
//!
//! | module | plays | its steps |
//! |---|---|---|
//! | [`outside`] | producers and the queue | publish, now and then the same Id again; deliver at least once, in any order |
//! | [`outside`] | subscribers | answer well, badly, or never |
//! | [`process`] | dispatch in 3 processes | pull; match; record; acknowledge; hand over in process. Also: sweep what is incomplete |
//! | [`process`] | the keeper of leases | renew (sent, then heard); take over a shard; publish leases without it, ask the worker what is in flight, release |
//! | [`process`] | the shell of [`Worker`] | tells what happened; carries out effects one by one: attempt, read and answer, record and report, take wake-ups, search, compare the registry. Also: cancel (read the jobs, refresh, ask what is in flight, a chunk each) |
//! | [`registry`] | the copy of the subscriptions | refresh; permit |
//! | [`ledger`] | the SQL | one transaction per function, and the API: deactivate, activate, retry by hand |
//!
//! Between any two steps, and between any two effects, time may pass, a process may crash and be
//! replaced, or lose its connection to the queue. A process that no step chooses while time passes is a
//! frozen one: it comes back with a lease that is over, and with answers to its requests. Of every
//! transaction the reply may be lost.
//!
//! # What holds after every step ([`Ledger::check`])
//! - An event's `matched_count` is its rows, open and closed (promise 3); none is open and closed.
//! - A key has one event, a delivery's id is the derived one, `Delivered` stays (promise 4).
//!
//! # What holds whenever a request is decided or begins ([`process`])
//! - Its sender has the shard, in the ledger too; the delivery is due, its copy of the row is not
//!   stale, and it is not in flight twice at one epoch; without crash, freeze and loss not twice at all,
//!   however often its shard was handed over in between (promise 4).
//! - Its subscription is active and wants it, or was deactivated a moment ago. The sender has heard no
//!   410 of its subscriber since the subscription was last changed.
//!
//! # What holds whenever an outcome is recorded
//! - A success counts at any epoch and at any time, so what had one is Delivered; a failure of an old one changes nothing, unless its shard was handed
//!   over with the delivery in flight, and then until the time that was said; and no attempt is counted
//!   twice (promise 4).
//!
//! # What holds in the end ([`World::settle`], within a bounded number of rounds)
//! - Every published event is in the ledger, and has a delivery for each matching subscription that
//!   was active throughout; every message is acknowledged (promise 2).
//! - Every delivery is closed, every success is kept, and no worker has anything in memory (promise 3).
//! - One owner at one epoch never has a second success for a delivery, but after a manual retry. So a
//!   repetition takes a takeover; without crash, freeze and loss there is none at all, also if what was
//!   cancelled is retried by hand: nothing in flight is cancelled (promise 4).

mod ledger;
mod outside;
mod process;
mod registry;

use herald_domain::delivery::Closed;
use herald_domain::id::{DeliveryId, SubscriptionId};
use herald_domain::time::Timestamp;
use ledger::{Ledger, ProcessId};
use outside::{Mood, Queue, Subscribers, content_of, key, subscriptions};
use process::{GoneSubscribers, Move, Outside, Process};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use uuid::Uuid;

/// Ends the function with that text, unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($text:tt)*) => {
        if !$condition {
            return Err(format!($($text)*));
        }
    };
}
use ensure;

const WORKERS: u8 = 3;
const EVENTS: u8 = 10;

/// A step of a schedule. The numbers pick among what is there, so that each step does something.
#[derive(Debug, Clone, Copy)]
enum Step {
    Publish(u8),
    Work {
        worker: u8,
        choice: u16,
        dice: u16,
    },
    /// Milliseconds pass.
    Wait(u16),
    Crash(u8),
    /// The queue delivers again what the worker holds, though it lives.
    Disconnect(u8),
    Deactivate(u8),
    Activate(u8),
    Retry(u8),
}

fn step(faults: u32) -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => (0..EVENTS).prop_map(Step::Publish),
        120 => (0..WORKERS, any::<u16>(), any::<u16>()).prop_map(|(worker, choice, dice)| Step::Work { worker, choice, dice }),
        8 => (1..2000u16).prop_map(Step::Wait),
        1 => any::<u8>().prop_map(Step::Deactivate),
        2 => any::<u8>().prop_map(Step::Activate),
        2 => any::<u8>().prop_map(Step::Retry),
        3 * faults => (4000..16_000u16).prop_map(Step::Wait),
        2 * faults => (0..WORKERS).prop_map(Step::Crash),
        faults => (0..WORKERS).prop_map(Step::Disconnect),
    ]
}

struct World {
    ledger: Ledger,
    queue: Queue,
    subscribers: Subscribers,
    gone: GoneSubscribers,
    workers: Vec<Process>,
    started: u32,
    /// Whether anything may fail; if not, leases are renewed as time passes.
    faults: bool,
    /// What was done, to be read when it went wrong.
    story: Vec<(usize, Move)>,
}

impl World {
    fn new(faults: bool) -> Self {
        let started = u32::from(WORKERS);
        let now = Timestamp::from_micros(1_763_800_000_000_000);
        let mut ledger = Ledger::new(now, subscriptions(now));
        let shards: Vec<_> = ledger.free_shards().collect();
        let mut process = |n: u32| {
            let mut process = Process::new(ProcessId(n), &mut ledger, faults);
            process.start_with(shards[n as usize], &mut ledger);
            process
        };
        Self {
            workers: (0..started).map(&mut process).collect(),
            ledger,
            queue: Queue::default(),
            subscribers: Subscribers::new(),
            gone: GoneSubscribers::new(),
            started,
            faults,
            story: Vec::new(),
        }
    }

    fn make(&mut self, worker: usize, what: Move, dice: u16) -> Result<(), String> {
        self.story.push((worker, what));
        let (workers, mut outside) = self.parts();
        workers[worker].make(what, &mut outside, dice)?;
        self.ledger.check()
    }

    fn parts(&mut self) -> (&mut [Process], Outside<'_>) {
        let outside = Outside {
            ledger: &mut self.ledger,
            queue: &mut self.queue,
            subscribers: &mut self.subscribers,
            gone: &mut self.gone,
        };
        (&mut self.workers, outside)
    }

    fn pass(&mut self, time: Duration) {
        self.ledger.now = self.ledger.now.plus(time);
    }

    fn subscription(&self, n: u8) -> SubscriptionId {
        let ids: Vec<_> = self.ledger.subscriptions.keys().copied().collect();
        ids[usize::from(n) % ids.len()]
    }

    fn step(&mut self, step: Step) -> Result<(), String> {
        match step {
            Step::Publish(n) => self.queue.publish(key(n)),
            Step::Work { worker, choice, dice } => {
                let worker = usize::from(worker);
                let what = self.workers[worker].choose(&self.ledger, &self.queue, choice);
                self.make(worker, what, dice)?;
            }
            Step::Wait(millis) => {
                let time = Duration::from_millis(millis.into());
                if !self.faults {
                    self.finish_overdue(time)?;
                }
                self.pass(time);
                if !self.faults {
                    self.renew()?;
                }
            }
            Step::Crash(n) => {
                let worker = &mut self.workers[usize::from(n)];
                worker.crash(&mut self.queue, &mut self.subscribers);
                *worker = Process::new(ProcessId(self.started), &mut self.ledger, self.faults);
                self.started += 1;
            }
            Step::Disconnect(n) => self.queue.release(self.workers[usize::from(n)].id),
            Step::Deactivate(n) => self.ledger.deactivate(self.subscription(n)),
            Step::Activate(n) => self.ledger.activate(self.subscription(n)),
            // Of those that may not be retried too: the ledger refuses.
            Step::Retry(n) => {
                let closed: Vec<_> = self.ledger.closed.keys().copied().collect();
                if !closed.is_empty() {
                    self.ledger.retry(closed[usize::from(n) % closed.len()]);
                }
            }
        }
        self.ledger.check()
    }

    /// While nothing fails, no request takes longer than its timeout, and no outcome long to be recorded.
    fn finish_overdue(&mut self, time: Duration) -> Result<(), String> {
        for worker in 0..self.workers.len() {
            while let Some(what) = self.workers[worker].overdue(self.ledger.now.plus(time)) {
                self.make(worker, what, 0)?;
            }
        }
        Ok(())
    }

    fn renew(&mut self) -> Result<(), String> {
        let (workers, mut outside) = self.parts();
        workers
            .iter_mut()
            .try_for_each(|worker| worker.keep_leases(&mut outside))
    }

    fn is_at_rest(&self) -> bool {
        let ledger = &self.ledger;
        self.queue.is_empty()
            && ledger.open.is_empty()
            && ledger.incomplete().is_none()
            && ledger.cancel_jobs.is_empty()
            && self.workers.iter().all(Process::is_at_rest)
    }

    /// No more faults: second by second every worker does all that it can, until nothing is left.
    /// No lease runs out meanwhile, so that no takeover finds what should not have been forgotten.
    fn settle(&mut self, mood: Mood) -> Result<(), String> {
        self.subscribers.mood = mood;
        for _ in 0..200 {
            if self.is_at_rest() {
                return self.check_end();
            }
            for worker in 0..self.workers.len() {
                self.finish_pending(worker)?;
            }
            self.renew()?;
            for worker in 0..self.workers.len() {
                self.make(worker, Move::Refresh, 1)?;
                for what in self.workers[worker].beginnings(&self.ledger, &self.queue, false) {
                    // What was listed may be gone once another was made; what lasts is made here.
                    if matches!(
                        what,
                        Move::Pull | Move::Sweep | Move::TakeOver(_) | Move::WakeupsDue | Move::Jobs | Move::Tick
                    ) {
                        self.finish_pending(worker)?;
                        self.make(worker, what, 1)?;
                    }
                }
                self.finish_pending(worker)?;
                self.make(worker, Move::Turn, 1)?;
                self.finish_pending(worker)?;
            }
            self.pass(Duration::from_secs(1));
        }
        let open: Vec<_> = self.ledger.open.keys().collect();
        let busy = self.workers.iter().filter(|worker| !worker.is_at_rest());
        Err(format!(
            "never at rest; open: {open:?}, busy: {:?}",
            busy.map(|worker| worker.id).collect::<Vec<_>>()
        ))
    }

    fn finish_pending(&mut self, worker: usize) -> Result<(), String> {
        for _ in 0..1000 {
            let Some(what) = self.workers[worker].pending(false).first().copied() else {
                return Ok(());
            };
            self.make(worker, what, 1)?;
        }
        Err(format!("worker {worker} goes round in circles"))
    }

    fn check_end(&self) -> Result<(), String> {
        let (ledger, subscribers) = (&self.ledger, &self.subscribers);
        let recorded: BTreeSet<_> = ledger.events.values().map(|event| event.key).collect();
        ensure!(
            recorded == self.queue.published,
            "promise 2: published {:?}, recorded {recorded:?}",
            self.queue.published
        );
        for (uid, event) in &ledger.events {
            let content = content_of(event.key);
            let mut index = herald_domain::index::Index::default();
            for (id, subscription) in ledger
                .subscriptions
                .iter()
                .filter(|(id, _)| ledger.always_active.contains(id))
            {
                index.add(&subscription.settings.interest, *id);
            }
            for (subscription, _) in index.matches(&content.kind, &content.objects) {
                let id = DeliveryId::derive(*uid, subscription, Uuid::nil());
                ensure!(
                    ledger.closed.contains_key(&id),
                    "promise 2: {uid} was not delivered to {subscription}"
                );
            }
        }
        ensure!(
            subscribers.recorded.is_subset(&ledger.successes),
            "promise 3: a success is not kept"
        );
        let mut successes: BTreeMap<DeliveryId, u32> = BTreeMap::new();
        for ((id, epoch, generation), times) in &subscribers.succeeded {
            ensure!(
                *times == 1,
                "promise 4: {id} was sent {times} times at epoch {epoch}, retry {generation}"
            );
            *successes.entry(*id).or_default() += 1;
        }
        for (id, times) in &successes {
            ensure!(
                ledger.closed.contains_key(id),
                "promise 4: {id} was sent and is not in the ledger"
            );
            ensure!(
                self.faults || *times == 1,
                "promise 4: {id} was sent {times} times without a fault"
            );
        }
        for (id, _) in ledger.closed.iter().filter(|(_, (_, end))| *end == Closed::Delivered) {
            ensure!(
                successes.contains_key(id),
                "promise 3: {id} is Delivered, and nobody got it"
            );
        }
        Ok(())
    }
}

fn run(faults: bool, steps: &[Step], settle: Mood) -> Result<(), TestCaseError> {
    let mut world = World::new(faults);
    let result = steps
        .iter()
        .try_for_each(|step| world.step(*step))
        .and_then(|()| world.settle(settle));
    result.map_err(|what| {
        let story: Vec<_> = world
            .story
            .iter()
            .map(|(worker, what)| format!("{worker} {what:?}"))
            .collect();
        TestCaseError::fail(format!("{what}\nThe workers' moves: {}", story.join(", ")))
    })
}

fn mood() -> impl Strategy<Value = Mood> {
    prop_oneof![3 => Just(Mood::Well), 1 => Just(Mood::Never)]
}

/// At least so many schedules; `PROPTEST_CASES` raises it.
fn cases(least: u32) -> ProptestConfig {
    let config = ProptestConfig::default();
    ProptestConfig {
        cases: config.cases.max(least),
        max_shrink_iters: 20_000,
        ..config
    }
}

proptest! {
    #![proptest_config(cases(4000))]

    #[test]
    fn the_promises_hold_whatever_crashes_freezes_or_is_lost(steps in prop::collection::vec(step(1), 100..600), mood in mood()) {
        run(true, &steps, mood)?;
    }

    #[test]
    fn without_faults_every_success_is_sent_once(steps in prop::collection::vec(step(0), 100..600), mood in mood()) {
        run(false, &steps, mood)?;
    }
}

/// Random steps get everywhere: not only when everything settles is something sent, answered, lost.
#[test]
fn random_steps_make_every_move() {
    let mut runner = TestRunner::deterministic();
    let schedules = prop::collection::vec(step(1), 100..600);
    let mut made: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..400 {
        let steps = schedules.new_tree(&mut runner).expect("a schedule").current();
        let mut world = World::new(true);
        for step in steps {
            world.step(step).expect("the promises hold");
        }
        for (_, what) in world.story {
            let name = format!("{what:?}");
            let name = name.split('(').next().unwrap_or_default();
            *made.entry(name.to_owned()).or_default() += 1;
        }
    }
    let rare: Vec<_> = process::MOVES
        .iter()
        .filter(|name| made.get(**name).is_none_or(|n| *n < 20))
        .collect();
    assert!(rare.is_empty(), "{rare:?} of {made:?}");
}
