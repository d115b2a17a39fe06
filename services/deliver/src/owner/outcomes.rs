//! The outcomes of deliveries, as the owner tells them to the lanes and the ledger.

use super::{Gone, Owner, RETRY_AFTER};
use crate::metrics::Lane;
use crate::report::{Begun, Item};
use herald_domain::breaker::Turned;
use herald_domain::delivery::{Attempt, AttemptError, Closed, Decision, Delivery, Outcome, Reason, decide};
use herald_domain::id::SubscriptionId;
use herald_domain::lanes::Answer;
use herald_domain::time::Timestamp;
use herald_egress::Want;
use herald_ledger::delivering::{NextStep, OutcomeRecord};
use herald_ledger::dispatching::EventRecord;
use std::time::{Duration, Instant};
use tracing::field::display;

/// How often the log says that this process is short of something.
const SAY_EVERY: Duration = Duration::from_secs(5);

impl Owner {
    pub(super) fn close_unsent(&mut self, work: &Item, status: Closed, reason: Reason, now: Timestamp) {
        let Some(epoch) = self.epoch(work) else {
            return self.lanes.abandoned(work, now, now);
        };
        let turned = self.lanes.answered(work, Answer::UNSENT, now, jitter());
        self.note_breaker(work.delivery.subscription, turned);
        self.record_unsent(work, epoch, status, reason);
    }

    /// Closes a delivery whose give-up time passed behind an open breaker.
    pub(super) fn give_up(&mut self, work: &Item, now: Timestamp) {
        match self.epoch(work) {
            Some(epoch) => self.record_unsent(work, epoch, Closed::Dead, Reason::GaveUp),
            None => self
                .lanes
                .recorded(work.delivery.subscription, work.delivery.id, Some(now)),
        }
    }

    fn record_unsent(&self, work: &Item, epoch: i64, status: Closed, reason: Reason) {
        self.record(OutcomeRecord {
            delivery: work.delivery,
            event: work.payload.uid,
            epoch,
            attempt: None,
            next: NextStep::Close {
                status,
                reason: Some(reason),
                deactivate: None,
            },
        });
    }

    fn note_breaker(&self, subscription: SubscriptionId, turned: Option<Turned>) {
        match turned {
            Some(Turned::Opened) => {
                self.deliver.metrics.breaker_opened();
                tracing::warn!(%subscription, "the breaker opened: the subscriber keeps failing, and is only probed until it answers");
            }
            Some(Turned::Closed) => tracing::info!(%subscription, "the breaker closed: deliveries go on"),
            None => {}
        }
    }

    pub(super) fn conclude(&mut self, begun: &Begun, attempt: Attempt, now: Timestamp) {
        let Begun {
            work,
            subscription,
            epoch,
        } = begun;
        self.under_way.remove(&work.delivery.id);
        let answer = Answer::of(attempt.outcome, &subscription.settings.retry);
        let turned = self.lanes.answered(work, answer, now, jitter());
        let delivery = work.delivery;
        self.note_breaker(delivery.subscription, turned);
        let free = delivery.attempts == 0
            && self
                .lanes
                .was_free_since(delivery.subscription, work.payload.accepted_at);
        let lane = if free { Lane::Free } else { Lane::HeldBack };
        self.deliver
            .metrics
            .attempted(&attempt, &delivery, &work.payload, lane, now);
        let next = match decide(&delivery, &attempt, &subscription.settings.retry, now, jitter()) {
            Decision::Close(status, reason) => NextStep::Close {
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
                NextStep::Close {
                    status: Closed::Dead,
                    reason: Some(Reason::Gone),
                    deactivate: Some(subscription.updated_at),
                }
            }
            Decision::Retry(due_at) => NextStep::Retry(due_at),
        };
        log(&delivery, &work.payload, &attempt, next);
        self.record(OutcomeRecord {
            delivery,
            event: work.payload.uid,
            epoch: *epoch,
            attempt: Some(attempt),
            next,
        });
    }

    /// Takes back an attempt that was not made because this process is short of something: it is not counted, and its
    /// lane waits.
    pub(super) fn postpone(&mut self, work: &Item, want: &Want, now: Timestamp) {
        let Delivery { id, subscription, .. } = work.delivery;
        self.under_way.remove(&id);
        self.lanes.hold_back(subscription, RETRY_AFTER, now);
        self.lanes.abandoned(work, now.plus(RETRY_AFTER), now);
        self.deliver.metrics.postponed();
        let lately = |at: Instant| at.elapsed() < SAY_EVERY;
        if !self.short_said_at.is_some_and(lately) {
            self.short_said_at = Some(Instant::now());
            tracing::error!(
                error = want as &dyn std::error::Error,
                %subscription,
                "attempts are postponed; no receiver has failed. Raise the limit of open files (ulimit -n), or see what \
                 else uses up descriptors, ports or memory here"
            );
        }
    }

    fn record(&self, finish: OutcomeRecord) {
        // The recorder lives as long as this sender.
        drop(self.outcomes.send(finish));
    }
}

fn log(delivery: &Delivery, event: &EventRecord, attempt: &Attempt, next: NextStep) {
    let (id, subscription, number) = (delivery.id, delivery.subscription, attempt.number);
    let trace_id = event.traceparent.map(|context| display(context.trace_id));
    let event = event.id;
    let status = attempt.outcome.status_code();
    let error = attempt.outcome.error().map(AttemptError::name);
    match (attempt.outcome, next) {
        (Outcome::Answered { status: 200..=299, .. }, _) => {
            tracing::debug!(delivery = %id, %event, %subscription, trace_id, number, status, "delivered");
        }
        (_, NextStep::Retry(due_at)) => {
            tracing::info!(delivery = %id, %event, %subscription, trace_id, number, status, error, %due_at, "an attempt failed; it is tried again");
        }
        (_, NextStep::Close { reason, .. }) => {
            // Only for a refused address: there the detail is Herald's own, and names the flag that would allow it.
            let detail = attempt
                .detail
                .as_deref()
                .filter(|_| reason == Some(Reason::AddressRefused));
            let reason = reason.map(Reason::name);
            tracing::warn!(delivery = %id, %event, %subscription, trace_id, number, status, error, reason, detail, "a delivery is dead");
        }
    }
}

/// A random number from 0 to 1, for the schedule.
fn jitter() -> f64 {
    // Without randomness the schedule is still right, only less spread.
    let random = getrandom::u32().unwrap_or(u32::MAX / 2);
    f64::from(random) / f64::from(u32::MAX)
}
