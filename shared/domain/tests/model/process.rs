//! A worker process, in steps small enough that a crash or a freeze may come between any two at which the real one
//! could be torn apart. What it decides about deliveries is [`Worker`] itself, the code that runs.
//!
//! The tasks of the process go on side by side: dispatch, the keeper of the leases, the task that carries out the
//! worker's effects, and each request, read and write that this task began. The task itself does one thing at a time:
//! it takes in nothing while effects are left.

mod delivering;
mod dispatching;
mod keeping;

use crate::ledger::{Epoch, Job, Ledger, MOST_WAKEUPS, ProcessId};
use crate::outside::{Queue, Subscribers};
use crate::registry::Registry;
pub(crate) use delivering::GoneSubscribers;
use delivering::{PageRead, PendingOutcome, Request, RowsRead, WakeupsRead};
use dispatching::{Dispatch, HandOver};
use herald_domain::delivery::Delivery;
use herald_domain::id::{DeliveryId, Shard};
use herald_domain::lanes::{Limits, Work};
use herald_domain::worker::{Effect, Worker};
use keeping::Keeper;
use std::collections::{HashSet, VecDeque};

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

/// What a process can do next. `Unheard`: the transaction is committed, its reply is lost.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Move {
    Pull,
    Match,
    Record,
    RecordUnheard,
    Acknowledge,
    HandOver,
    Sweep,
    Renew,
    RenewUnheard,
    Renewed,
    TakeOver(Shard),
    TakeOverUnheard(Shard),
    /// Publishes leases without that shard.
    GiveBack(Shard),
    /// Asks the worker what is in flight of the shards that are given back.
    Ask,
    Release,
    ReleaseUnheard,
    /// Compares the registry with the ledger.
    Refresh,
    /// Reads the jobs that cancel; then refreshes the registry; then asks the worker what is in flight.
    Jobs,
    Cancel,
    /// The worker hears of the leases that the keeper has published.
    Follow,
    /// The worker hears of what dispatch handed over.
    TakeOffers,
    WakeupsDue,
    Tick,
    /// The worker begins what may begin.
    Turn,
    /// Carries out the effects that are left.
    CarryOn,
    RightsChecked,
    TakeWakeups,
    Woken,
    WakeupsFailed,
    ReadPage,
    Found,
    SearchFailed,
    Read(usize),
    Rows(usize),
    RowsFailed(usize),
    Answer(usize),
    Abandon(usize),
    Postpone(usize),
    RecordOutcome(usize),
    RecordOutcomeUnheard(usize),
    Recorded(usize),
}

/// The names of all moves.
pub(crate) const MOVES: [&str; 41] = [
    "Pull",
    "Match",
    "Record",
    "RecordUnheard",
    "Acknowledge",
    "HandOver",
    "Sweep",
    "Renew",
    "RenewUnheard",
    "Renewed",
    "TakeOver",
    "TakeOverUnheard",
    "GiveBack",
    "Ask",
    "Release",
    "ReleaseUnheard",
    "Refresh",
    "Jobs",
    "Cancel",
    "Follow",
    "TakeOffers",
    "WakeupsDue",
    "Tick",
    "Turn",
    "CarryOn",
    "RightsChecked",
    "TakeWakeups",
    "Woken",
    "WakeupsFailed",
    "ReadPage",
    "Found",
    "SearchFailed",
    "Read",
    "Rows",
    "RowsFailed",
    "Answer",
    "Abandon",
    "Postpone",
    "RecordOutcome",
    "RecordOutcomeUnheard",
    "Recorded",
];

/// Where the work on jobs that cancel stands.
#[derive(Debug)]
enum Jobs {
    Idle,
    Read(Vec<(Job, Epoch)>),
    Refreshed(Vec<(Job, Epoch)>),
    Asked(Vec<(Job, Epoch)>, HashSet<DeliveryId>),
}

#[derive(Debug)]
pub(crate) struct Process {
    pub id: ProcessId,
    /// Whether anything may fail.
    faults: bool,
    registry: Registry,
    dispatch: Dispatch,
    hand_over: HandOver,
    keeper: Keeper,
    worker: Worker<Epoch>,
    /// Effects that are not carried out yet.
    effects: VecDeque<Effect<Epoch>>,
    jobs: Jobs,
    checking_rights: bool,
    wakeups: Option<WakeupsRead>,
    page: Option<PageRead>,
    reads: Vec<RowsRead>,
    requests: Vec<Request>,
    outcomes: Vec<PendingOutcome>,
}

/// What surrounds a process.
pub(crate) struct Outside<'a> {
    pub ledger: &'a mut Ledger,
    pub queue: &'a mut Queue,
    pub subscribers: &'a mut Subscribers,
    pub gone: &'a mut GoneSubscribers,
}

impl Process {
    pub(crate) fn new(id: ProcessId, ledger: &mut Ledger, faults: bool) -> Self {
        let mut registry = Registry::new();
        ledger.refresh(&mut registry);
        Self {
            id,
            faults,
            registry,
            dispatch: Dispatch::Idle,
            hand_over: HandOver::default(),
            keeper: Keeper::new(id, ledger),
            worker: Worker::new(LIMITS),
            effects: VecDeque::new(),
            jobs: Jobs::Idle,
            checking_rights: false,
            wakeups: None,
            page: None,
            reads: Vec::new(),
            requests: Vec::new(),
            outcomes: Vec::new(),
        }
    }

    /// Takes its first shard.
    pub(crate) fn start_with(&mut self, shard: Shard, ledger: &mut Ledger) {
        self.keeper.make(Move::TakeOver(shard), self.id, ledger);
    }

    /// What it can do next; what a healthy network does not do only with `faults`. Mostly it goes on with what it has
    /// begun.
    pub(crate) fn choose(&self, ledger: &Ledger, queue: &Queue, choice: u16) -> Move {
        let (goes_on, choice) = (!choice.is_multiple_of(4), usize::from(choice / 4));
        let mut moves = if goes_on { self.pending(self.faults) } else { Vec::new() };
        if moves.is_empty() {
            moves = self.beginnings(ledger, queue, self.faults);
        }
        moves[choice % moves.len()]
    }

    /// What it can begin.
    pub(crate) fn beginnings(&self, ledger: &Ledger, queue: &Queue, faults: bool) -> Vec<Move> {
        let mut moves = vec![Move::Refresh];
        if self.effects.is_empty() {
            moves.extend([Move::Turn, Move::WakeupsDue, Move::WakeupsDue, Move::Tick]);
        }
        moves.extend(self.keeper.moves(ledger, faults));
        if matches!(self.jobs, Jobs::Idle) && !ledger.jobs(&self.keeper.epochs).is_empty() {
            moves.push(Move::Jobs);
        }
        if matches!(self.dispatch, Dispatch::Idle) {
            moves.extend(queue.has_waiting().then_some([Move::Pull; 4]).into_iter().flatten());
            moves.extend(ledger.incomplete().map(|_| Move::Sweep));
        }
        moves
    }

    /// What it has begun and not ended.
    pub(crate) fn pending(&self, faults: bool) -> Vec<Move> {
        let mut moves = Vec::new();
        if self.effects.is_empty() {
            self.inputs(&mut moves, faults);
        } else {
            moves.push(Move::CarryOn);
        }
        self.dispatch.pending(&mut moves, faults);
        moves.extend(self.keeper.pending(faults, self.effects.is_empty()));
        match &self.jobs {
            Jobs::Idle => {}
            Jobs::Read(_) => moves.push(Move::Jobs),
            Jobs::Refreshed(_) => moves.extend(self.effects.is_empty().then_some(Move::Jobs)),
            Jobs::Asked(..) => moves.push(Move::Cancel),
        }
        moves.extend(
            self.wakeups
                .as_ref()
                .filter(|read| read.taken.is_none())
                .map(|_| Move::TakeWakeups),
        );
        moves.extend(
            self.page
                .as_ref()
                .filter(|read| read.found.is_none())
                .map(|_| Move::ReadPage),
        );
        let unread = |(_, read): &(usize, &RowsRead)| read.rows.is_none();
        moves.extend(self.reads.iter().enumerate().filter(unread).map(|(i, _)| Move::Read(i)));
        for (i, _) in self.outcomes.iter().enumerate().filter(|(_, it)| it.result.is_none()) {
            moves.push(Move::RecordOutcome(i));
            moves.extend(faults.then_some(Move::RecordOutcomeUnheard(i)));
        }
        moves
    }

    /// What the worker can hear next.
    fn inputs(&self, moves: &mut Vec<Move>, faults: bool) {
        moves.extend(self.keeper.unheard.then_some(Move::Follow));
        moves.extend((!self.hand_over.is_empty()).then_some(Move::TakeOffers));
        moves.extend(self.checking_rights.then_some(Move::RightsChecked));
        if let Some(read) = &self.wakeups {
            moves.extend(read.taken.is_some().then_some([Move::Woken; 4]).into_iter().flatten());
            moves.extend(faults.then_some(Move::WakeupsFailed));
        }
        if let Some(read) = &self.page {
            moves.extend(read.found.is_some().then_some([Move::Found; 4]).into_iter().flatten());
            moves.extend(faults.then_some(Move::SearchFailed));
        }
        for (i, read) in self.reads.iter().enumerate() {
            moves.extend(read.rows.is_some().then_some([Move::Rows(i); 4]).into_iter().flatten());
            moves.extend(faults.then_some(Move::RowsFailed(i)));
        }
        for i in 0..self.requests.len() {
            // Most requests are answered.
            moves.extend([Move::Answer(i); 3]);
            moves.extend([Move::Abandon(i), Move::Postpone(i)].into_iter().filter(|_| faults));
        }
        let recorded = self.outcomes.iter().enumerate().filter(|(_, it)| it.result.is_some());
        moves.extend(recorded.map(|(i, _)| Move::Recorded(i)));
    }

    /// Whether it has nothing in memory.
    pub(crate) fn is_at_rest(&self) -> bool {
        let load = self.worker.load();
        matches!(self.dispatch, Dispatch::Idle)
            && load.lanes + load.in_flight + load.buffered + load.recording == 0
            && self.pending(false).is_empty()
    }

    pub(crate) fn make(&mut self, what: Move, outside: &mut Outside<'_>, dice: u16) -> Result<(), String> {
        match what {
            Move::Pull
            | Move::Match
            | Move::Record
            | Move::RecordUnheard
            | Move::Acknowledge
            | Move::HandOver
            | Move::Sweep => self.dispatch(what, outside.ledger, outside.queue, dice),
            Move::Renew
            | Move::RenewUnheard
            | Move::Renewed
            | Move::TakeOver(_)
            | Move::TakeOverUnheard(_)
            | Move::GiveBack(_)
            | Move::Release
            | Move::ReleaseUnheard => self.keeper.make(what, self.id, outside.ledger),
            Move::Refresh => outside.ledger.refresh(&mut self.registry),
            Move::Ask => {
                let busy = self.busy(&self.keeper.giving.iter().copied().collect(), outside.ledger);
                self.keeper.asked = Some(busy.into_iter().map(|busy| (busy.delivery, busy.until)).collect());
                return self.carry_on(outside, dice);
            }
            Move::Jobs => {
                self.jobs(outside.ledger);
                return self.carry_on(outside, dice);
            }
            Move::Cancel => {
                if let Jobs::Asked(jobs, in_flight) = &mut self.jobs {
                    if let Some((job, epoch)) = jobs.pop() {
                        outside.ledger.cancel_chunk(self.id, epoch, job, in_flight);
                    }
                    if jobs.is_empty() {
                        self.jobs = Jobs::Idle;
                    }
                }
            }
            _ => return self.deliver(what, outside, dice),
        }
        Ok(())
    }

    /// Goes on with the jobs that cancel. After the refresh nothing begins that they cancel.
    fn jobs(&mut self, ledger: &mut Ledger) {
        self.jobs = match std::mem::replace(&mut self.jobs, Jobs::Idle) {
            Jobs::Idle => {
                let epochs = &self.keeper.epochs;
                let jobs = ledger.jobs(epochs).into_iter();
                Jobs::Read(jobs.map(|job| (job, epochs[&Shard::of(job.subscription)])).collect())
            }
            Jobs::Read(jobs) => {
                ledger.refresh(&mut self.registry);
                Jobs::Refreshed(jobs)
            }
            Jobs::Refreshed(jobs) => {
                let shards = jobs.iter().map(|(job, _)| Shard::of(job.subscription)).collect();
                let busy = self.busy(&shards, ledger);
                Jobs::Asked(jobs, busy.into_iter().map(|busy| busy.delivery).collect())
            }
            asked @ Jobs::Asked(..) => asked,
        };
    }

    /// While nothing fails, leases are renewed in time.
    pub(crate) fn keep_leases(&mut self, outside: &mut Outside<'_>) -> Result<(), String> {
        while let Some(what) = self.keeper.pending(false, true).first() {
            self.make(*what, outside, 0)?;
        }
        self.make(Move::Renew, outside, 0)?;
        self.make(Move::Renewed, outside, 0)
    }

    /// The process ends. Nobody will ever read the answers to its requests.
    pub(crate) fn crash(&self, queue: &mut Queue, subscribers: &mut Subscribers) {
        queue.release(self.id);
        for Request { begun, generation, .. } in &self.requests {
            subscribers.forget(begun.work.delivery.id, begun.epoch, *generation);
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
