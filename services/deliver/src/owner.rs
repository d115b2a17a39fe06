//! The task that owns the lanes: hears what happened, asks them what to do, has it done.

use crate::recorder::{self, Recorded};
use crate::{Deliver, attempt};
use futures_util::FutureExt;
use herald_domain::delivery::{Attempt, Closed, Decision, Delivery, Outcome, Reason, decide};
use herald_domain::id::{DeliveryId, SubscriptionId};
use herald_domain::lanes::{Action, Lanes, Limits, Work};
use herald_domain::subscription::Subscription;
use herald_domain::time::Timestamp;
use herald_ledger::delivering::{Finish, Then};
use herald_ledger::dispatching::EventRecord;
use herald_ledger::shards::Wakeup;
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How often wake-ups are looked for without a hint.
const WAKEUP_INTERVAL: Duration = Duration::from_millis(250);

/// How often gauges are set.
const GAUGE_INTERVAL: Duration = Duration::from_secs(1);

/// How long to wait before a failed read of the ledger is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A subscription that the registry does not know (any more): its deliveries are only closed.
const UNKNOWN_LIMIT: usize = 64;

/// Room beside an event's `Data` for what is kept with it in memory.
const OVERHEAD_BYTES: usize = 512;

type Item = Work<Arc<EventRecord>>;

/// What a task reports to the owner.
#[derive(Debug)]
pub(crate) enum Report {
    /// An attempt is over.
    Attempted(Item, Arc<Subscription>, Attempt),
    /// An attempt broke off without an outcome.
    Abandoned(Item),
    /// Outcomes are in the ledger.
    Recorded(Vec<Recorded>),
    /// A lane's rows were read, or could not be.
    Fetched(SubscriptionId, usize, Option<Vec<(Delivery, Arc<EventRecord>)>>),
    /// Lanes to look at.
    Woken(Vec<Wakeup>),
}

struct Owner {
    deliver: Deliver,
    lanes: Lanes<Arc<EventRecord>>,
    outcomes: mpsc::UnboundedSender<Finish>,
    reports: mpsc::UnboundedSender<Report>,
    tasks: TaskTracker,
    hard: CancellationToken,
    /// Subscriptions whose subscriber answered 410, until the registry knows: nothing more is sent there.
    gone: HashMap<SubscriptionId, Gone>,
}

/// A 410 that is not in the registry yet.
struct Gone {
    /// The delivery that was answered so.
    delivery: DeliveryId,
    /// When the subscription was last changed, as the attempt saw it; the deactivation is a change.
    updated_at: Timestamp,
}

pub(crate) async fn run(deliver: Deliver, shutdown: CancellationToken, hard: CancellationToken) {
    let (reports, mut reported) = mpsc::unbounded_channel();
    let (outcomes, to_record) = mpsc::unbounded_channel();
    let recorder = recorder::Recorder {
        ledger: deliver.ledger.clone(),
        owned: deliver.owned.clone(),
        health: deliver.health.clone(),
        hard: hard.clone(),
    };
    let recorder = recorder.run(to_record, reports.clone());
    let lanes = Lanes::new(Limits::default());
    let mut owner = Owner {
        deliver,
        lanes,
        outcomes,
        reports,
        tasks: TaskTracker::new(),
        hard,
        gone: HashMap::new(),
    };
    let work = async move {
        if owner.find_lanes(&shutdown).await {
            owner.work(&mut reported, &shutdown).await;
            owner.drain(&mut reported).await;
        }
        // With the owner goes the sender of outcomes, and the recorder ends with what it has.
    };
    tokio::join!(recorder, work);
}

impl Owner {
    /// Looks up which lanes have open deliveries, however often it takes; false when shutdown came first.
    async fn find_lanes(&mut self, shutdown: &CancellationToken) -> bool {
        loop {
            match self.deliver.ledger.open_lanes().await {
                Ok(lanes) => {
                    for (subscription, due_at) in lanes {
                        self.lanes.note(subscription, due_at);
                    }
                    self.deliver.health.ok("deliver");
                    return true;
                }
                Err(error) => {
                    self.deliver.health.failing("deliver", "the ledger cannot be read");
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "open deliveries could not be looked up"
                    );
                }
            }
            tokio::select! {
                () = shutdown.cancelled() => return false,
                () = tokio::time::sleep(RETRY_AFTER) => {}
            }
        }
    }

    async fn work(&mut self, reported: &mut mpsc::UnboundedReceiver<Report>, shutdown: &CancellationToken) {
        let mut wakeups = tokio::time::interval(WAKEUP_INTERVAL);
        wakeups.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut gauges = tokio::time::interval(GAUGE_INTERVAL);
        let mut batch = Vec::with_capacity(256);
        let ledger = self.deliver.ledger.clone();
        let hand_over = self.deliver.hand_over.clone();
        loop {
            let wake = self.until_next_wake();
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = reported.recv_many(&mut batch, 256) => batch.drain(..).for_each(|report| self.hear(report)),
                () = hand_over.arrived() => self.take_over(),
                _ = wakeups.tick() => self.look_for_wakeups(),
                () = ledger.signals().wakeup.notified() => self.look_for_wakeups(),
                _ = gauges.tick() => self.set_gauges(),
                () = tokio::time::sleep(wake) => {}
            }
            self.act().await;
        }
    }

    /// Lets attempts in flight end and their outcomes be recorded, until `hard`.
    async fn drain(&mut self, reported: &mut mpsc::UnboundedReceiver<Report>) {
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
                () = hard.cancelled() => {
                    tracing::warn!(in_flight = load.in_flight, "attempts were cut off; their deliveries are open as before");
                    return;
                }
            }
        }
    }

    fn until_next_wake(&self) -> Duration {
        let now = self.deliver.clock.now();
        // Looked at again after a while at most, in case the clock was set.
        self.lanes
            .next_wake()
            .map_or(GAUGE_INTERVAL, |due| due.since(now).min(GAUGE_INTERVAL))
    }

    fn hear(&mut self, report: Report) {
        let now = self.deliver.clock.now();
        match report {
            Report::Attempted(work, subscription, attempt) => self.conclude(&work, &subscription, attempt, now),
            Report::Abandoned(work) => self.lanes.abandoned(&work, now.plus(RETRY_AFTER)),
            Report::Recorded(recorded) => {
                for outcome in recorded {
                    self.deliver.metrics.recorded(&outcome);
                    if outcome.closed.is_none() {
                        // If it was a 410, it did not count.
                        self.gone.retain(|_, gone| gone.delivery != outcome.id);
                    }
                    self.lanes.recorded(outcome.subscription, outcome.id, outcome.due_at);
                }
            }
            Report::Fetched(subscription, limit, Some(rows)) => {
                let rows = rows
                    .into_iter()
                    .map(|(delivery, event)| work(delivery, event))
                    .collect();
                self.lanes.fetched(subscription, rows, limit, now);
                self.deliver.hand_over.set_ticket(self.lanes.ticket());
            }
            Report::Fetched(subscription, _, None) => self.lanes.fetch_failed(subscription, now.plus(RETRY_AFTER)),
            Report::Woken(wakeups) => {
                for Wakeup { subscription, due_at } in wakeups {
                    self.lanes.note(subscription, due_at);
                }
            }
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
            self.look_everywhere();
        }
    }

    fn look_everywhere(&self) {
        let (ledger, hand_over, reports) = (
            self.deliver.ledger.clone(),
            self.deliver.hand_over.clone(),
            self.reports.clone(),
        );
        self.tasks.spawn(async move {
            match ledger.open_lanes().await {
                Ok(lanes) => {
                    let wakeups = lanes
                        .into_iter()
                        .map(|(subscription, due_at)| Wakeup { subscription, due_at });
                    drop(reports.send(Report::Woken(wakeups.collect())));
                }
                Err(error) => {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "open deliveries could not be looked up"
                    );
                    tokio::time::sleep(RETRY_AFTER).await;
                    hand_over.look_everywhere();
                }
            }
        });
    }

    fn look_for_wakeups(&self) {
        let hand_over = self.deliver.hand_over.clone();
        let (ledger, owned, reports) = (
            self.deliver.ledger.clone(),
            self.deliver.owned.clone(),
            self.reports.clone(),
        );
        self.tasks.spawn(async move {
            match ledger.take_wakeups(&owned).await {
                // The owner is gone only at the end, and then the lanes are looked up at the next start.
                Ok(wakeups) if !wakeups.is_empty() => drop(reports.send(Report::Woken(wakeups))),
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "wake-ups could not be read");
                    // They may have been taken all the same.
                    hand_over.look_everywhere();
                }
            }
        });
    }

    /// Does what the lanes want done. Rights must be fresh for that; while they are not, it waits.
    async fn act(&mut self) {
        if !self.deliver.registry.is_fresh()
            && let Err(error) = self.deliver.registry.refresh().await
        {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "no attempts, because rights cannot be checked"
            );
            tokio::time::sleep(WAKEUP_INTERVAL).await;
            return;
        }
        let now = self.deliver.clock.now();
        let registry = Arc::clone(&self.deliver.registry);
        let view = registry.view();
        self.gone.retain(|id, gone| {
            view.subscription(*id)
                .is_some_and(|it| it.updated_at == gone.updated_at)
        });
        let limit_of = |id| {
            view.subscription(id)
                .map_or(UNKNOWN_LIMIT, |it| it.settings.max_in_flight.into())
        };
        for action in self.lanes.poll(now, limit_of) {
            match action {
                Action::Attempt(work) if self.gone.contains_key(&work.delivery.subscription) => {
                    self.close_unsent(&work, Closed::Cancelled, Reason::SubscriptionInactive);
                }
                Action::Attempt(work) => match view.permit(&work.delivery) {
                    Ok(subscription) => self.attempt(work, subscription),
                    Err((status, reason)) => self.close_unsent(&work, status, reason),
                },
                Action::Fetch { subscription, limit } => self.fetch(subscription, limit),
            }
        }
    }

    fn attempt(&self, work: Item, subscription: Arc<Subscription>) {
        let sender = Arc::clone(&self.deliver.sender);
        let clock = Arc::clone(&self.deliver.clock);
        let (reports, hard) = (self.reports.clone(), self.hard.clone());
        self.tasks.spawn(async move {
            let attempt = attempt::make(&sender, &*clock, &subscription, &work.delivery, &work.payload);
            let outcome = tokio::select! {
                outcome = AssertUnwindSafe(attempt).catch_unwind() => outcome,
                // Cut off: the ledger has the delivery as it was, and no attempt is counted.
                () = hard.cancelled() => return,
            };
            drop(match outcome {
                Ok(attempt) => reports.send(Report::Attempted(work, subscription, attempt)),
                // The panic is in the log, by the panic hook; the delivery is not lost by it.
                Err(_panic) => reports.send(Report::Abandoned(work)),
            });
        });
    }

    fn fetch(&self, subscription: SubscriptionId, limit: usize) {
        let (ledger, reports) = (self.deliver.ledger.clone(), self.reports.clone());
        self.tasks.spawn(async move {
            let read = AssertUnwindSafe(ledger.open_deliveries(subscription, limit)).catch_unwind();
            let rows = match read.await {
                Ok(Ok(rows)) => Some(rows),
                Err(_panic) => None,
                Ok(Err(error)) => {
                    tracing::error!(error = &error as &dyn std::error::Error, %subscription, "due deliveries could not be read");
                    None
                }
            };
            drop(reports.send(Report::Fetched(subscription, limit, rows)));
        });
    }

    fn close_unsent(&mut self, work: &Item, status: Closed, reason: Reason) {
        self.lanes.answered(work);
        let then = Then::Close {
            status,
            reason: Some(reason),
            deactivate: None,
        };
        self.record(Finish {
            delivery: work.delivery,
            event: work.payload.uid,
            attempt: None,
            then,
        });
    }

    fn conclude(&mut self, work: &Item, subscription: &Subscription, attempt: Attempt, now: Timestamp) {
        self.lanes.answered(work);
        let delivery = work.delivery;
        self.deliver.metrics.attempted(&attempt, &delivery, &work.payload, now);
        let then = match decide(&delivery, &attempt, &subscription.settings.retry, now, jitter()) {
            Decision::Close(status, reason) => Then::Close {
                status,
                reason,
                deactivate: None,
            },
            Decision::CloseAndDeactivate => {
                let gone = Gone {
                    delivery: delivery.id,
                    updated_at: subscription.updated_at,
                };
                self.gone.insert(delivery.subscription, gone);
                Then::Close {
                    status: Closed::Dead,
                    reason: Some(Reason::Gone),
                    deactivate: Some(subscription.updated_at),
                }
            }
            Decision::Retry(due_at) => Then::Retry(due_at),
        };
        log(&delivery, &attempt, then);
        self.record(Finish {
            delivery,
            event: work.payload.uid,
            attempt: Some(attempt),
            then,
        });
    }

    fn record(&self, finish: Finish) {
        // The recorder lives as long as this sender.
        drop(self.outcomes.send(finish));
    }

    fn set_gauges(&self) {
        let now = self.deliver.clock.now();
        let oldest = self.lanes.oldest_due(now).map(|due| now.since(due));
        self.deliver
            .metrics
            .gauges(self.lanes.load(), oldest.unwrap_or_default());
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

fn log(delivery: &Delivery, attempt: &Attempt, then: Then) {
    let (id, subscription, number) = (delivery.id, delivery.subscription, attempt.number);
    let status = attempt.outcome.status_code();
    let error = attempt.outcome.error().map(herald_domain::delivery::AttemptError::name);
    match (attempt.outcome, then) {
        (Outcome::Answered { status: 200..=299, .. }, _) => {
            tracing::debug!(delivery = %id, %subscription, number, status, "delivered");
        }
        (_, Then::Retry(due_at)) => {
            tracing::info!(delivery = %id, %subscription, number, status, error, %due_at, "an attempt failed; it is tried again");
        }
        (_, Then::Close { reason, .. }) => {
            let reason = reason.map(Reason::name);
            tracing::warn!(delivery = %id, %subscription, number, status, error, reason, "a delivery is dead");
        }
    }
}

/// A random number from 0 to 1, for the schedule.
fn jitter() -> f64 {
    // Without randomness the schedule is still right, only less spread.
    let random = getrandom::u32().unwrap_or(u32::MAX / 2);
    f64::from(random) / f64::from(u32::MAX)
}
