//! The task that owns the lanes. It tells them what happened, asks them what to do, and has it done.
//!
//! The task follows the process's [`Ownership`]: the lanes own a shard while the [`Ownership`] seen last has that
//! shard, at the same epoch. An attempt begins only while the lease holds. The epoch goes with each attempt to its
//! outcome, however late that comes.

mod acting;
mod outcomes;
mod reads;

use crate::keeper::{Busy, Question};
use crate::report::{Item, Report};
use crate::{Deliver, recorder};
use herald_domain::delivery::Delivery;
use herald_domain::id::{DeliveryId, Shard, SubscriptionId};
use herald_domain::lanes::{Lanes, Limits, Row, Search, Work, pause_after};
use herald_domain::time::Timestamp;
use herald_ledger::delivering::OutcomeRecord;
use herald_ledger::dispatching::EventRecord;
use herald_ledger::shards::Ownership;
use herald_ledger::wakeups::Wakeup;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How often wake-ups are looked for without a hint.
const WAKEUP_INTERVAL: Duration = Duration::from_millis(250);

/// How often gauges are set.
const GAUGE_INTERVAL: Duration = Duration::from_secs(1);

/// How long to wait before a failed read of the ledger is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How long to remember that a delivery was not permitted. After that time it is closed, or gone.
const DOUBT: Duration = Duration::from_mins(1);

/// The time that an outcome may take to the ledger, with one write that hangs. The next owner leaves a delivery
/// that was in flight alone for so long after its attempt must have ended. It waits in vain only if this process
/// dies.
const GRACE: Duration = Duration::from_secs(10);

/// The memory that a delivery takes beside its event's `Data`.
const OVERHEAD_BYTES: usize = 512;

const PART: &str = "deliver";

struct Owner {
    deliver: Deliver,
    /// The shards that the lanes own.
    owned: Ownership,
    lanes: Lanes<Arc<EventRecord>>,
    /// When each attempt under way must have ended.
    under_way: HashMap<DeliveryId, Timestamp>,
    outcomes: mpsc::UnboundedSender<OutcomeRecord>,
    reports: mpsc::UnboundedSender<Report>,
    tasks: TaskTracker,
    hard: CancellationToken,
    /// Subscriptions whose subscriber answered 410, until the registry knows it. Nothing more is sent to them.
    gone: HashMap<SubscriptionId, Gone>,
    /// Deliveries that the registry does not permit, and when it was first asked about each.
    doubted: HashMap<DeliveryId, tokio::time::Instant>,
    /// The registry's version that the lanes follow.
    followed: i64,
    /// Whether rights are being looked up.
    checking: bool,
    /// When the log last said that this process is short of something.
    short_said_at: Option<Instant>,
    /// Whether wake-ups are being looked for, and whether there was a hint since.
    looking: bool,
    look_again: bool,
    /// How often in succession wake-ups could not be read.
    looks_failed: u32,
    /// How often in succession the ledger was away when a lane's rows were read.
    fetches_failed: u32,
    /// The search for lanes with open deliveries.
    search: Search,
}

/// A 410 that is not in the registry yet.
struct Gone {
    /// The delivery that was answered so.
    delivery: DeliveryId,
    /// When the subscription was last changed, as the attempt saw it; the deactivation is a change.
    updated_at: Timestamp,
}

pub(crate) async fn run(
    deliver: Deliver,
    mut questions: mpsc::Receiver<Question>,
    shutdown: CancellationToken,
    hard: CancellationToken,
) {
    let (reports, mut reported) = mpsc::unbounded_channel();
    let (outcomes, to_record) = mpsc::unbounded_channel();
    let recorder = recorder::Recorder {
        ledger: deliver.ledger.clone(),
        health: deliver.health.clone(),
        metrics: deliver.metrics.clone(),
        hard: hard.clone(),
    };
    let recorder = recorder.run(to_record, reports.clone());
    let mut owner = Owner {
        deliver,
        owned: Ownership::none(),
        lanes: Lanes::new(Limits::default()),
        under_way: HashMap::new(),
        outcomes,
        reports,
        tasks: TaskTracker::new(),
        hard,
        gone: HashMap::new(),
        doubted: HashMap::new(),
        followed: -1,
        checking: false,
        short_said_at: None,
        looking: false,
        look_again: false,
        looks_failed: 0,
        fetches_failed: 0,
        search: Search::default(),
    };
    let work = async move {
        let mut owned = owner.deliver.owned.clone();
        owner.follow(&mut owned);
        if owner.owned.shards().next().is_none() {
            // There is nothing to look up.
            owner.deliver.health.ok(PART);
        }
        owner.work(&mut reported, &mut owned, &mut questions, &shutdown).await;
        owner.drain(&mut reported, &mut owned, &mut questions).await;
        // The sender of outcomes is dropped with the owner, and the recorder ends with what it has.
    };
    tokio::join!(recorder, work);
}

impl Owner {
    async fn work(
        &mut self,
        reported: &mut mpsc::UnboundedReceiver<Report>,
        owned: &mut watch::Receiver<Ownership>,
        questions: &mut mpsc::Receiver<Question>,
        shutdown: &CancellationToken,
    ) {
        let mut wakeups = tokio::time::interval(WAKEUP_INTERVAL);
        wakeups.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut gauges = tokio::time::interval(GAUGE_INTERVAL);
        let mut batch = Vec::with_capacity(256);
        let ledger = self.deliver.ledger.clone();
        let hand_over = self.deliver.hand_over.clone();
        let mut may_act = true;
        loop {
            let wake = if may_act {
                self.until_next_wake()
            } else {
                WAKEUP_INTERVAL
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = reported.recv_many(&mut batch, 256) => batch.drain(..).for_each(|report| self.hear(report)),
                // Never, where this process owns its shards for good.
                Ok(()) = owned.changed() => self.follow(owned),
                Some(question) = questions.recv() => self.answer(question, owned),
                () = hand_over.arrived() => self.take_over(),
                _ = wakeups.tick() => self.look_for_wakeups(),
                () = ledger.signals().wakeup.notified() => self.look_for_wakeups(),
                _ = gauges.tick() => self.set_gauges(),
                () = tokio::time::sleep(wake) => {}
            }
            may_act = self.act();
        }
    }

    /// Lets attempts in flight end and their outcomes be recorded, until `hard`.
    async fn drain(
        &mut self,
        reported: &mut mpsc::UnboundedReceiver<Report>,
        owned: &mut watch::Receiver<Ownership>,
        questions: &mut mpsc::Receiver<Question>,
    ) {
        let hard = self.hard.clone();
        loop {
            let load = self.lanes.load();
            if load.in_flight == 0 && load.recording == 0 {
                return;
            }
            tokio::select! {
                report = reported.recv() => match report {
                    Some(report) => self.hear(report),
                    None => return,
                },
                Some(question) = questions.recv() => self.answer(question, owned),
                () = hard.cancelled() => {
                    tracing::warn!(in_flight = load.in_flight, "attempts were cut off; their deliveries are open as before");
                    return;
                }
            }
        }
    }

    /// Makes the lanes own what this process owns now. A shard at another epoch had another owner in between.
    fn follow(&mut self, owned: &mut watch::Receiver<Ownership>) {
        let now = owned.borrow_and_update().clone();
        let differ = |one: &Ownership, other: &Ownership| -> Vec<Shard> {
            let differs = |shard: &Shard| one.epoch(*shard) != other.epoch(*shard);
            one.shards().filter(differs).collect()
        };
        let (lost, new) = (differ(&self.owned, &now), differ(&now, &self.owned));
        self.owned = now;
        if !lost.is_empty() {
            // The new owner asks the registry anew.
            self.doubted.clear();
            self.search.release(lost.iter().copied());
            self.lanes.release(lost);
        }
        if !new.is_empty() {
            self.lanes.own(new.iter().copied());
            self.deliver.hand_over.set_ticket(self.lanes.ticket());
            self.find_lanes(new);
        }
    }

    /// Answers which deliveries of shards that are given back are in flight or not known to be recorded.
    fn answer(&mut self, question: Question, owned: &mut watch::Receiver<Ownership>) {
        // The keeper has published an ownership without these shards before it asks.
        self.follow(owned);
        let now = self.deliver.clock.now();
        let busy = self
            .lanes
            .busy(&question.shards)
            .into_iter()
            .map(|(shard, delivery)| Busy {
                shard,
                delivery,
                until: self
                    .under_way
                    .get(&delivery)
                    .map_or(now, |end| now.max(*end))
                    .plus(GRACE),
            });
        // If the keeper does not listen any more, nothing is given back.
        drop(question.answer.send(busy.collect()));
    }

    fn until_next_wake(&self) -> Duration {
        let now = self.deliver.clock.now();
        // Not longer than this, because the clock may be set.
        self.lanes
            .next_wake()
            .map_or(GAUGE_INTERVAL, |due| due.since(now).min(GAUGE_INTERVAL))
    }

    fn hear(&mut self, report: Report) {
        let now = self.deliver.clock.now();
        match report {
            Report::Attempted(begun, attempt) => self.conclude(&begun, attempt, now),
            Report::Abandoned(work) => {
                self.under_way.remove(&work.delivery.id);
                self.lanes.abandoned(&work, now.plus(RETRY_AFTER), now);
            }
            Report::Postponed(work, want) => self.postpone(&work, &want, now),
            Report::Recorded(recorded) => {
                for outcome in recorded {
                    match outcome.closed {
                        Some(end) => self.deliver.metrics.closed_as(end, outcome.webhook, 1),
                        // The delivery is not closed: if the answer was a 410, it did not count.
                        None => self.gone.retain(|_, gone| gone.delivery != outcome.id),
                    }
                    self.lanes.recorded(outcome.subscription, outcome.id, outcome.due_at);
                    if let Some(look_at) = outcome.look_at {
                        self.lanes.look(outcome.subscription, look_at);
                    }
                }
            }
            Report::Fetched(subscription, limit, Some(rows)) => {
                let row = |(delivery, event)| match event {
                    Some(event) => Row::Whole(work(delivery, event)),
                    None => Row::Bare(delivery),
                };
                let rows: Vec<Row<_>> = rows.into_iter().map(row).collect();
                self.fetches_failed = 0;
                self.lanes.fetched(subscription, rows, limit, now);
                self.deliver.hand_over.set_ticket(self.lanes.ticket());
            }
            Report::Fetched(subscription, _, None) => self.lanes.fetch_failed(subscription, now.plus(RETRY_AFTER)),
            Report::Away => {
                self.lanes.rest_fetches(now.plus(pause_after(self.fetches_failed)));
                self.fetches_failed = self.fetches_failed.saturating_add(1);
            }
            Report::Woken(wakeups) => self.woken(wakeups),
            Report::Searched(Some((lanes, progress))) => {
                self.deliver.health.ok(PART);
                self.note(lanes);
                self.search.found(&progress);
                self.search();
            }
            Report::Searched(None) => {
                self.search.failed();
                self.search();
            }
            Report::RightsChecked => self.checking = false,
        }
    }

    fn take_over(&mut self) {
        let now = self.deliver.clock.now();
        let waiting = self.deliver.hand_over.take();
        for (delivery, event, ticket) in waiting.fresh {
            self.lanes.offer(work(delivery, event), ticket, now);
        }
        for (subscription, due_at) in waiting.behind {
            self.lanes.note(subscription, due_at);
        }
        if waiting.look_everywhere {
            self.find_lanes(self.owned.shards().collect());
        }
    }

    fn note(&mut self, lanes: Vec<Wakeup>) {
        for Wakeup { subscription, due_at } in lanes {
            self.lanes.note(subscription, due_at);
        }
    }

    fn set_gauges(&mut self) {
        self.doubted.retain(|_, since| since.elapsed() < DOUBT);
        let now = self.deliver.clock.now();
        let surveys = self.lanes.survey(now);
        let oldest = surveys.iter().filter_map(|survey| survey.oldest_due).min();
        let past_due = oldest.map(|due| now.since(due)).unwrap_or_default();
        self.deliver.metrics.gauges(self.lanes.load(), past_due);
        self.deliver.metrics.lanes_by_state(&surveys, now);
    }
}

fn work(delivery: Delivery, event: Arc<EventRecord>) -> Item {
    let bytes = event.data.len() + OVERHEAD_BYTES;
    Work {
        delivery,
        payload: event,
        bytes,
    }
}
