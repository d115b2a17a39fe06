//! Outcomes on their way to the ledger, and what metrics and the log say of them.

use super::Shell;
use crate::metrics::SubscriberState;
use crate::report::{Item, Payload};
use herald_domain::breaker::Turned;
use herald_domain::delivery::{Attempt, AttemptError, Delivery, Outcome as Came, Reason};
use herald_domain::id::SubscriptionId;
use herald_domain::worker::{Input, NextStep, Outcome};
use herald_egress::Want;
use herald_ledger::delivering::OutcomeRecord;
use herald_ledger::dispatching::EventRecord;
use std::time::{Duration, Instant};
use tracing::field::display;

/// How often the log says that this process is short of something.
const SAY_EVERY: Duration = Duration::from_secs(5);

impl Shell {
    pub(super) fn record(&self, outcome: Outcome<Payload>) {
        let Outcome {
            work,
            epoch,
            attempt,
            next,
        } = outcome;
        let (delivery, event) = (work.delivery, work.payload);
        if let Some(attempt) = &attempt {
            let free = delivery.attempts == 0 && self.worker.was_free_since(delivery.subscription, event.accepted_at);
            let state = if free {
                SubscriberState::Free
            } else {
                SubscriberState::HeldBack
            };
            let now = self.deliver.clock.now();
            self.deliver.metrics.attempted(attempt, &delivery, &event, state, now);
            log(&delivery, &event, attempt, next);
        }
        // The recorder lives as long as this sender.
        drop(self.outcomes.send(OutcomeRecord {
            delivery,
            event: event.uid,
            epoch,
            attempt,
            next,
        }));
    }

    pub(super) fn note_breaker(&self, subscription: SubscriptionId, turned: Turned) {
        match turned {
            Turned::Opened => {
                self.deliver.metrics.breaker_opened();
                tracing::warn!(%subscription, "the breaker opened: the subscriber keeps failing, and is only probed until it answers");
            }
            Turned::Closed => tracing::info!(%subscription, "the breaker closed: deliveries go on"),
        }
    }

    /// Takes back an attempt that was not made because this process is short of something.
    pub(super) fn postpone(&mut self, work: Item, want: &Want) {
        let subscription = work.delivery.subscription;
        self.hear(Input::Postponed(work));
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
}

fn log(delivery: &Delivery, event: &EventRecord, attempt: &Attempt, next: NextStep) {
    let (id, subscription, number) = (delivery.id, delivery.subscription, attempt.number);
    let trace_id = event.traceparent.map(|context| display(context.trace_id));
    let event = event.id;
    let status = attempt.outcome.status_code();
    let error = attempt.outcome.error().map(AttemptError::name);
    match (attempt.outcome, next) {
        (Came::Answered { status: 200..=299, .. }, _) => {
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
