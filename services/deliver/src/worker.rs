//! The task around the [`Worker`]. It tells the worker what happens, and carries out what the worker decides.
//!
//! Requests, reads of the ledger and writes to it are tasks of their own, which report back.

mod attempts;
mod outcomes;
mod reads;

use crate::lease_keeper::Question;
use crate::report::{Item, Payload, Report};
use crate::{Deliver, recorder};
use herald_domain::delivery::Delivery;
use herald_domain::lanes::{Limits, Wakeup, Work};
use herald_domain::worker::{Effect, Input, Now, WAKEUP_INTERVAL, Worker};
use herald_ledger::delivering::OutcomeRecord;
use herald_ledger::shards::{ShardLeases, uptime};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How often the worker hears that time has passed, and gauges are set.
const TICK: Duration = Duration::from_secs(1);

/// The memory that a delivery takes beside its event's `Data`.
const OVERHEAD_BYTES: usize = 512;

const PART: &str = "deliver";

struct Shell {
    deliver: Deliver,
    worker: Worker<Payload>,
    /// What is to be carried out, in order.
    effects: VecDeque<Effect<Payload>>,
    outcomes: mpsc::UnboundedSender<OutcomeRecord>,
    reports: mpsc::UnboundedSender<Report>,
    tasks: TaskTracker,
    hard: CancellationToken,
    /// When the log last said that this process is short of something.
    short_said_at: Option<Instant>,
}

/// Where the shell hears from.
struct Sources {
    reported: mpsc::UnboundedReceiver<Report>,
    leases: watch::Receiver<ShardLeases>,
    questions: mpsc::Receiver<Question>,
}

pub(crate) async fn run(
    deliver: Deliver,
    questions: mpsc::Receiver<Question>,
    shutdown: CancellationToken,
    hard: CancellationToken,
) {
    let (reports, reported) = mpsc::unbounded_channel();
    let (outcomes, to_record) = mpsc::unbounded_channel();
    let recorder = recorder::Recorder {
        ledger: deliver.ledger.clone(),
        health: deliver.health.clone(),
        metrics: deliver.metrics.clone(),
        hard: hard.clone(),
    };
    let recorder = recorder.run(to_record, reports.clone());
    let mut sources = Sources {
        reported,
        leases: deliver.leases.clone(),
        questions,
    };
    let mut shell = Shell {
        deliver,
        worker: Worker::new(Limits::default()),
        effects: VecDeque::new(),
        outcomes,
        reports,
        tasks: TaskTracker::new(),
        hard,
        short_said_at: None,
    };
    let work = async move {
        if sources.leases.borrow().is_empty() {
            // There is nothing to look up.
            shell.deliver.health.ok(PART);
        }
        shell.follow(&mut sources.leases);
        shell.work(&mut sources, &shutdown).await;
        shell.hear(Input::Stop);
        shell.drain(&mut sources).await;
        // The sender of outcomes is dropped with the shell, and the recorder ends with what it has.
    };
    tokio::join!(recorder, work);
}

impl Shell {
    async fn work(&mut self, sources: &mut Sources, shutdown: &CancellationToken) {
        let mut wakeups = tokio::time::interval(WAKEUP_INTERVAL);
        wakeups.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut ticks = tokio::time::interval(TICK);
        let mut batch = Vec::with_capacity(256);
        let ledger = self.deliver.ledger.clone();
        let hand_over = self.deliver.hand_over.clone();
        loop {
            let sleep = self.worker.sleep(self.deliver.clock.now());
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = sources.reported.recv_many(&mut batch, 256) => batch.drain(..).for_each(|report| self.take(report)),
                // Never, where this process has its shards for good.
                Ok(()) = sources.leases.changed() => self.follow(&mut sources.leases),
                Some(question) = sources.questions.recv() => self.answer(question, &mut sources.leases),
                () = hand_over.arrived() => self.take_offers(),
                _ = wakeups.tick() => self.hear(Input::WakeupsDue),
                () = ledger.signals().wakeup.notified() => self.hear(Input::WakeupsDue),
                _ = ticks.tick() => self.tick(),
                () = tokio::time::sleep(sleep) => {}
            }
            self.turn();
        }
    }

    /// Lets attempts in flight end and their outcomes be recorded, until `hard`.
    async fn drain(&mut self, sources: &mut Sources) {
        let hard = self.hard.clone();
        while !self.worker.is_drained() {
            tokio::select! {
                report = sources.reported.recv() => match report {
                    Some(report) => self.take(report),
                    None => return,
                },
                Some(question) = sources.questions.recv() => self.answer(question, &mut sources.leases),
                () = hard.cancelled() => {
                    let in_flight = self.worker.load().in_flight;
                    tracing::warn!(in_flight, "attempts were cut off; their deliveries are open as before");
                    return;
                }
            }
        }
    }

    fn now(&self) -> Now {
        Now {
            time: self.deliver.clock.now(),
            uptime: uptime(),
        }
    }

    fn hear(&mut self, input: Input<Payload>) {
        self.worker.on(input, self.now(), &mut self.effects);
        self.carry_out();
    }

    fn turn(&mut self) {
        let (now, registry) = (self.now(), Arc::clone(&self.deliver.registry));
        self.worker.turn(&reads::Rights::of(&registry), now, &mut self.effects);
        self.carry_out();
    }

    fn carry_out(&mut self) {
        while let Some(effect) = self.effects.pop_front() {
            match effect {
                Effect::Attempt(begun) => self.attempt(begun),
                Effect::Record(outcome) => self.record(outcome),
                Effect::ReadRows {
                    lane,
                    from,
                    limit,
                    scope,
                } => self.read_rows(lane, from, limit, scope),
                Effect::TakeWakeups(pause) => self.take_wakeups(pause),
                Effect::Search(page) => self.search(page),
                Effect::CheckRights => self.check_rights(),
                Effect::Mark(mark) => self.deliver.hand_over.set_mark(mark),
                Effect::Closed(end, webhook) => self.deliver.metrics.closed_as(end, webhook, 1),
                Effect::BreakerTurned(subscription, turned) => self.note_breaker(subscription, turned),
            }
        }
    }

    fn take(&mut self, report: Report) {
        match report {
            Report::Heard(input) => self.hear(input),
            Report::Recorded(results) => {
                for (delivery, next, result) in results {
                    self.hear(Input::Recorded(delivery, next, result));
                }
            }
            Report::Postponed(work, want) => self.postpone(work, &want),
        }
    }

    fn follow(&mut self, leases: &mut watch::Receiver<ShardLeases>) {
        let leases = leases.borrow_and_update().clone();
        self.hear(Input::Leases(leases));
    }

    /// Answers which deliveries of shards that are given back are in flight or not known to be recorded.
    fn answer(&mut self, question: Question, leases: &mut watch::Receiver<ShardLeases>) {
        // The keeper has published leases without these shards before it asks.
        self.follow(leases);
        let busy = self.worker.busy(&question.shards, self.deliver.clock.now());
        // If the keeper does not listen any more, nothing is given back.
        drop(question.answer.send(busy));
    }

    fn take_offers(&mut self) {
        let waiting = self.deliver.hand_over.take();
        for (delivery, event, mark) in waiting.fresh {
            self.hear(Input::Offered(work(delivery, event), mark));
        }
        for (lane, due_at) in waiting.behind {
            self.hear(Input::Noted(Wakeup { lane, due_at }));
        }
        if waiting.look_everywhere {
            self.hear(Input::LookEverywhere);
        }
    }

    fn tick(&mut self) {
        self.hear(Input::Tick);
        let now = self.deliver.clock.now();
        let surveys = self.worker.survey(now);
        let oldest = surveys.iter().filter_map(|survey| survey.oldest_due).min();
        let past_due = oldest.map(|due| now.since(due)).unwrap_or_default();
        self.deliver.metrics.gauges(self.worker.load(), past_due);
        self.deliver.metrics.lanes_by_state(&surveys, now);
    }
}

fn work(delivery: Delivery, event: Payload) -> Item {
    let bytes = event.data.len() + OVERHEAD_BYTES;
    Work {
        delivery,
        payload: event,
        bytes,
    }
}
