//! The recorder writes outcomes to the ledger, in batches of those that come within a moment.
//!
//! While the ledger is away outcomes wait here. Their number is bounded by `Limits::recording`: at that number the
//! lanes begin no more attempts.
//!
//! A batch that the ledger refuses or takes too long for is isolated: it is tried again in ever smaller parts, beside
//! the batches that come after it. An outcome may be impossible to record because of its content, or because another
//! transaction has locked its row. It is soon alone in its batch, is tried again after growing pauses, and delays no
//! other.

mod company;

use crate::metrics::Metrics;
use crate::report::Report;
use company::Company;
use futures_util::stream::{FuturesUnordered, StreamExt};
use herald_domain::delivery::Delivery;
use herald_domain::id::SubscriptionId;
use herald_domain::worker::{Input, NextStep, RecordResult};
use herald_ledger::delivering::{OutcomeRecord, RecordedOutcomes};
use herald_ledger::{Cause, Error, Ledger};
use herald_telemetry::health::Health;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

/// The most outcomes in one transaction.
const MAX_BATCH: usize = 512;

/// How long an outcome waits for others to be recorded with it. The lane goes on meanwhile, and fewer transactions
/// delay fewer events. A crash in that time repeats the request.
const COMPANY: Duration = Duration::from_millis(10);

/// How long outcomes wait after a failure before the same batch is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// The longest pause before an outcome is tried again that takes too long each time, though it is alone.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How often a batch is tried after an error that may or may not be due to its outcomes.
const DOUBTS: u32 = 10;

/// The number of parts into which a batch is cut that cannot be recorded whole.
const PARTS: usize = 8;

/// How many isolated batches are tried at a time. Each may hang on a connection of its own, and the ledger has only
/// a few connections for all writers.
const ISOLATED_AT_A_TIME: usize = 2;

const PART: &str = "deliver";

/// Records outcomes.
#[derive(Debug)]
pub(crate) struct Recorder {
    pub(crate) ledger: Ledger,
    pub(crate) health: Health,
    pub(crate) metrics: Metrics,
    /// Cancelled when what cannot be recorded is to be left: the ledger has the deliveries as they were.
    pub(crate) hard: CancellationToken,
}

/// Outcomes that are recorded together.
#[derive(Debug)]
struct Batch {
    outcomes: Vec<OutcomeRecord>,
    /// Whether the batch is isolated from those that come after it.
    isolated: bool,
    /// How often this same batch has failed.
    failures: u32,
    /// How long to wait before the batch is tried.
    pause: Duration,
}

impl Batch {
    fn new(outcomes: Vec<OutcomeRecord>) -> Self {
        Self {
            outcomes,
            isolated: false,
            failures: 0,
            pause: Duration::ZERO,
        }
    }

    /// The same outcomes in several batches, each isolated.
    fn cut(self) -> Vec<Self> {
        let each = self.outcomes.len().div_ceil(PARTS).max(1);
        let part = |outcomes: &[OutcomeRecord]| Self {
            isolated: true,
            ..Self::new(outcomes.to_vec())
        };
        self.outcomes.chunks(each).map(part).collect()
    }
}

impl Recorder {
    /// Records what comes until the sender is gone. One new batch at a time is taken up; isolated batches are tried
    /// beside it.
    pub(crate) async fn run(
        self,
        outcomes: mpsc::UnboundedReceiver<OutcomeRecord>,
        reports: mpsc::UnboundedSender<Report>,
    ) {
        let turns = Semaphore::new(ISOLATED_AT_A_TIME);
        let mut under_way = FuturesUnordered::new();
        let mut coming = Company::new(outcomes, COMPANY);
        let (mut is_open, mut is_busy, mut left) = (true, false, 0);
        while is_open || !under_way.is_empty() {
            let (batch, came) = tokio::select! {
                new = coming.next(), if is_open && !is_busy => {
                    (is_open, is_busy) = (!new.is_empty(), !new.is_empty());
                    if !new.is_empty() {
                        under_way.push(self.attempt(Batch::new(new), &turns));
                    }
                    continue;
                }
                Some(tried) = under_way.next() => tried,
            };
            is_busy &= batch.isolated;
            match came {
                Some(Ok(came)) => {
                    self.health.ok(PART);
                    if reports.send(Report::Recorded(self.recorded(&batch, came))).is_err() {
                        return;
                    }
                }
                Some(Err(error)) if !matches!(error, Error::Closed) => {
                    for batch in self.failed(batch, &error, &reports) {
                        is_busy |= !batch.isolated;
                        under_way.push(self.attempt(batch, &turns));
                    }
                }
                // The process ends, perhaps because the ledger's writer is gone. Outcomes that have come meanwhile are
                // tried once only if this batch was an isolated one.
                None | Some(Err(_)) => {
                    left += batch.outcomes.len();
                    is_open &= batch.isolated;
                }
            }
        }
        if left > 0 {
            tracing::error!(
                outcomes = left,
                "not all outcomes were recorded; the deliveries of these are open as before"
            );
        }
    }

    /// Tries to record a batch when its turn has come. Returns no result if the process ends before that.
    async fn attempt(&self, batch: Batch, turns: &Semaphore) -> (Batch, Option<Result<RecordedOutcomes, Error>>) {
        let is_new = batch.failures == 0 && !batch.isolated;
        let (pause, isolated) = (batch.pause, batch.isolated);
        let turn = async move {
            tokio::time::sleep(pause).await;
            if isolated { turns.acquire().await.ok() } else { None }
        };
        let _turn = if is_new {
            None
        } else {
            tokio::select! {
                () = self.hard.cancelled() => return (batch, None),
                turn = turn => turn,
            }
        };
        let came = self.ledger.record_outcomes(batch.outcomes.clone()).await;
        (batch, Some(came))
    }

    fn recorded(&self, batch: &Batch, came: RecordedOutcomes) -> Vec<(Delivery, NextStep, RecordResult)> {
        self.metrics.batch(batch.outcomes.len());
        self.note_deactivated(&came.deactivated);
        let outcomes = batch.outcomes.iter().zip(came.results);
        outcomes
            .map(|(outcome, result)| (outcome.delivery, outcome.next, result))
            .collect()
    }

    /// The batches to try after that failure.
    fn failed(&self, batch: Batch, error: &Error, reports: &mpsc::UnboundedSender<Report>) -> Vec<Batch> {
        let failures = batch.failures + 1;
        let verdict = verdict(error, batch.outcomes.len(), failures);
        self.tell(&batch, error, &verdict);
        match verdict {
            Verdict::Again => vec![Batch {
                failures,
                pause: RETRY_AFTER,
                ..batch
            }],
            Verdict::Isolate(pause) => vec![Batch {
                failures,
                pause,
                isolated: true,
                ..batch
            }],
            Verdict::Cut => batch.cut(),
            Verdict::Hopeless => {
                for outcome in &batch.outcomes {
                    leave(outcome);
                    // The receiver is gone only when the process ends.
                    drop(reports.send(Report::Heard(Input::Unrecordable(outcome.delivery))));
                }
                Vec::new()
            }
        }
    }

    /// Reports what failed, in the log and in the health. A single outcome that takes too long says nothing about the
    /// health of the ledger.
    fn tell(&self, batch: &Batch, error: &Error, verdict: &Verdict) {
        if let ([outcome], true, Verdict::Isolate(pause)) = (batch.outcomes.as_slice(), batch.isolated, verdict) {
            tracing::warn!(
                error = error as &dyn std::error::Error,
                delivery = %outcome.delivery.id,
                subscription = %outcome.delivery.subscription,
                again_in_seconds = pause.as_secs_f64(),
                "an outcome cannot be recorded, as if somebody held its row in the database; the others are"
            );
            return;
        }
        if !batch.isolated {
            let why = error.words();
            self.health
                .failing(PART, format!("the ledger cannot be written: {why}"));
        }
        tracing::error!(
            error = error as &dyn std::error::Error,
            outcomes = batch.outcomes.len(),
            "outcomes could not be recorded; they are tried again"
        );
    }

    fn note_deactivated(&self, subscriptions: &[SubscriptionId]) {
        self.metrics.deactivated(subscriptions.len());
        for subscription in subscriptions {
            tracing::warn!(%subscription, "a subscription was deactivated, because its subscriber answered 410");
        }
    }
}

/// Reports an outcome that the ledger refuses: its delivery is open as before, and is attempted again.
fn leave(outcome: &OutcomeRecord) {
    let Delivery { id, subscription, .. } = outcome.delivery;
    tracing::error!(
        delivery = %id,
        %subscription,
        outcome = ?outcome.attempt.as_ref().map(|attempt| attempt.outcome),
        "the ledger refuses this outcome, so it is not recorded; the delivery is attempted again"
    );
}

/// What to do with outcomes that could not be recorded.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Try the same batch again before any other: the ledger is away.
    Again,
    /// Isolate the batch, and try it again after that pause.
    Isolate(Duration),
    /// Isolate the batch in parts.
    Cut,
    /// Leave the outcome, because the ledger refuses it however often it is tried.
    Hopeless,
}

/// What to do after that error with a batch of so many outcomes, which has failed so often.
fn verdict(error: &Error, outcomes: usize, failures: u32) -> Verdict {
    match error.cause() {
        Cause::Away if !matches!(error, Error::Slow(_)) => Verdict::Again,
        Cause::Unknown if failures < DOUBTS => Verdict::Isolate(RETRY_AFTER),
        _ if outcomes > 1 => Verdict::Cut,
        Cause::Away => Verdict::Isolate(growing(failures)),
        Cause::Data | Cause::Unknown => Verdict::Hopeless,
    }
}

/// The pause after so many failures.
fn growing(failures: u32) -> Duration {
    let doubled = 1_u32 << failures.saturating_sub(1).min(16);
    (RETRY_AFTER * doubled).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests;
