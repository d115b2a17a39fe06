//! Attempts, each a task of its own.

use super::Shell;
use crate::attempt;
use crate::report::{Payload, Report};
use futures_util::FutureExt;
use herald_domain::worker::{Begun, Input};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

impl Shell {
    pub(super) fn attempt(&mut self, begun: Begun<Payload>) {
        // The leases may end in the middle of a batch.
        if !self.worker.may_begin(self.now()) {
            return self.hear(Input::Abandoned(begun.work));
        }
        let sender = Arc::clone(&self.deliver.sender);
        // The receiver compares this time with its own clock.
        let clock = self.deliver.ledger.time_of_day();
        let traces = self.deliver.traces.clone();
        let (reports, hard) = (self.reports.clone(), self.hard.clone());
        self.tasks.spawn(async move {
            let Begun { work, subscription, .. } = &begun;
            let attempt = attempt::make(&sender, &*clock, &traces, subscription, &work.delivery, &work.payload);
            let outcome = tokio::select! {
                outcome = AssertUnwindSafe(attempt).catch_unwind() => outcome,
                // Cut off: the ledger has the delivery as it was, and no attempt is counted.
                () = hard.cancelled() => return,
            };
            drop(reports.send(match outcome {
                Ok(Ok(attempt)) => Report::Heard(Input::Attempted(begun, attempt, random())),
                Ok(Err(want)) => Report::Postponed(begun.work, want),
                // The panic hook has written the panic to the log; the delivery is not lost.
                Err(_panic) => Report::Heard(Input::Abandoned(begun.work)),
            }));
        });
    }
}

/// A random number from 0 to 1, for the schedule.
fn random() -> f64 {
    // Without randomness the schedule is still right, only less spread.
    let random = getrandom::u32().unwrap_or(u32::MAX / 2);
    f64::from(random) / f64::from(u32::MAX)
}
