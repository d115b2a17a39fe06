//! Writes outcomes to the ledger, as many at a time as come within a moment.
//!
//! While the ledger is away outcomes wait here; the lanes begin no more attempts than it may hold (see
//! `Limits::recording`), so they are bounded.
//!
//! A batch that the ledger refuses or takes too long for is set apart: it is tried again in ever smaller parts, beside
//! the batches that come after it. So an outcome that cannot be recorded, for what is in it or because somebody holds
//! its row, is soon alone. It is tried again after growing pauses, and holds up no other.

mod company;

use crate::metrics::Metrics;
use crate::report::{Recorded, Report};
use company::Company;
use futures_util::stream::{FuturesUnordered, StreamExt};
use herald_domain::delivery::Delivery;
use herald_domain::id::SubscriptionId;
use herald_domain::time::Timestamp;
use herald_ledger::delivering::{self, Finish, Finished, Then};
use herald_ledger::{Cause, Error, Ledger};
use herald_telemetry::health::Health;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

/// The most outcomes in one transaction.
const MAX_BATCH: usize = 512;

/// How long an outcome waits for others to be recorded with it. The lane goes on meanwhile, and a transaction less is
/// one that nobody's event waits behind. A crash in that time repeats the request.
const COMPANY: Duration = Duration::from_millis(20);

/// How long outcomes wait after a failure before they are tried again as they are.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// How long an outcome waits at most that takes too long by itself, again and again.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How often outcomes are tried after an error of which nobody knows whether they are to blame for it.
const DOUBTS: u32 = 10;

/// Into how many parts a batch is cut that cannot be recorded whole.
const PARTS: usize = 8;

/// How many of the batches that are set apart are tried at a time. Each may hang on a connection of its own, of
/// which the ledger has a few for all that write.
const APART_AT_A_TIME: usize = 2;

/// When a delivery whose outcome cannot be recorded is attempted again.
const LEFT: Duration = Duration::from_mins(5);
const PART: &str = "deliver";

/// Records outcomes.
#[derive(Debug)]
pub(crate) struct Recorder {
    pub(crate) ledger: Ledger,
    pub(crate) health: Health,
    pub(crate) metrics: Metrics,
    /// From then on what cannot be recorded is left: the ledger has the deliveries as they were.
    pub(crate) hard: CancellationToken,
}

/// Outcomes that are recorded together.
#[derive(Debug)]
struct Batch {
    outcomes: Vec<Finish>,
    /// It was set apart from those that come after it.
    apart: bool,
    /// How often it was tried as it is.
    failures: u32,
    /// How long it waits before it is tried.
    pause: Duration,
}

impl Batch {
    fn new(outcomes: Vec<Finish>) -> Self {
        Self {
            outcomes,
            apart: false,
            failures: 0,
            pause: Duration::ZERO,
        }
    }

    /// The same in several parts, each set apart.
    fn cut(self) -> Vec<Self> {
        let each = self.outcomes.len().div_ceil(PARTS).max(1);
        let part = |outcomes: &[Finish]| Self {
            apart: true,
            ..Self::new(outcomes.to_vec())
        };
        self.outcomes.chunks(each).map(part).collect()
    }
}

impl Recorder {
    /// Records what comes until the sender is gone. One batch at a time is taken up; those that are set apart are
    /// tried beside it.
    pub(crate) async fn run(self, outcomes: mpsc::UnboundedReceiver<Finish>, reports: mpsc::UnboundedSender<Report>) {
        let turns = Semaphore::new(APART_AT_A_TIME);
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
            is_busy &= batch.apart;
            match came {
                Some(Ok(came)) => {
                    self.health.ok(PART);
                    if reports.send(Report::Recorded(self.recorded(&batch, came))).is_err() {
                        return;
                    }
                }
                Some(Err(error)) if !matches!(error, Error::Closed) => {
                    for batch in self.failed(batch, &error, &reports) {
                        is_busy |= !batch.apart;
                        under_way.push(self.attempt(batch, &turns));
                    }
                }
                // The process ends, or the writer is gone and it ends because of that. What else has come is tried
                // once more only if what failed was set apart from it.
                None | Some(Err(_)) => {
                    left += batch.outcomes.len();
                    is_open &= batch.apart;
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

    /// Tries to record a batch when its turn has come; nothing if the process ends before.
    async fn attempt(&self, batch: Batch, turns: &Semaphore) -> (Batch, Option<Result<delivering::Recorded, Error>>) {
        let is_new = batch.failures == 0 && !batch.apart;
        let (pause, apart) = (batch.pause, batch.apart);
        let turn = async move {
            tokio::time::sleep(pause).await;
            if apart { turns.acquire().await.ok() } else { None }
        };
        let _turn = if is_new {
            None
        } else {
            tokio::select! {
                () = self.hard.cancelled() => return (batch, None),
                turn = turn => turn,
            }
        };
        let came = self.ledger.finish(batch.outcomes.clone()).await;
        (batch, Some(came))
    }

    fn recorded(&self, batch: &Batch, came: delivering::Recorded) -> Vec<Recorded> {
        self.metrics.batch(batch.outcomes.len());
        self.note_deactivated(&came.deactivated);
        let now = self.ledger.now();
        let outcomes = batch.outcomes.iter().zip(came.finished);
        outcomes.map(|(finish, came)| recorded(finish, came, now)).collect()
    }

    /// What is to be tried after that failure.
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
            Verdict::Apart(pause) => vec![Batch {
                failures,
                pause,
                apart: true,
                ..batch
            }],
            Verdict::Cut => batch.cut(),
            Verdict::Hopeless => {
                let left = batch.outcomes.iter().map(|finish| self.leave(finish)).collect();
                // Nobody listens any more only where the process ends.
                drop(reports.send(Report::Recorded(left)));
                Vec::new()
            }
        }
    }

    /// Says what failed. One outcome that only takes too long says nothing of the ledger.
    fn tell(&self, batch: &Batch, error: &Error, verdict: &Verdict) {
        if let ([finish], true, Verdict::Apart(pause)) = (batch.outcomes.as_slice(), batch.apart, verdict) {
            tracing::warn!(
                error = error as &dyn std::error::Error,
                delivery = %finish.delivery.id,
                subscription = %finish.delivery.subscription,
                again_in_seconds = pause.as_secs_f64(),
                "an outcome cannot be recorded, as if somebody held its row in the database; the others are"
            );
            return;
        }
        if !batch.apart {
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

    /// Leaves an outcome that the ledger refuses: its delivery is open as before, and is attempted again.
    fn leave(&self, finish: &Finish) -> Recorded {
        let Delivery { id, subscription, .. } = finish.delivery;
        tracing::error!(
            delivery = %id,
            %subscription,
            outcome = ?finish.attempt.as_ref().map(|attempt| attempt.outcome),
            "the ledger refuses this outcome, so it is not recorded; the delivery is attempted again"
        );
        recorded(finish, Finished::Stale, self.ledger.now().plus(LEFT))
    }
}

/// What to do with outcomes that could not be recorded.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// The same again, before any other: the ledger is away.
    Again,
    /// The same again after that pause, beside those that come after them.
    Apart(Duration),
    /// In parts, beside those that come after them.
    Cut,
    /// Without it, because it is refused however often it is tried.
    Hopeless,
}

/// What to do after that error with so many outcomes, which failed so often as they are.
fn verdict(error: &Error, outcomes: usize, failures: u32) -> Verdict {
    match error.cause() {
        Cause::Away if !matches!(error, Error::Slow(_)) => Verdict::Again,
        Cause::Unknown if failures < DOUBTS => Verdict::Apart(RETRY_AFTER),
        _ if outcomes > 1 => Verdict::Cut,
        Cause::Away => Verdict::Apart(growing(failures)),
        Cause::Data | Cause::Unknown => Verdict::Hopeless,
    }
}

/// The pause after so many failures.
fn growing(failures: u32) -> Duration {
    let doubled = 1_u32 << failures.saturating_sub(1).min(16);
    (RETRY_AFTER * doubled).min(LONGEST_PAUSE)
}

fn recorded(finish: &Finish, finished: Finished, again_at: Timestamp) -> Recorded {
    let (due_at, closed) = match (finish.then, finished) {
        (Then::Retry(due_at), Finished::Done | Finished::Corrected) => (Some(due_at), None),
        (Then::Close { status, .. }, Finished::Done | Finished::Corrected) => (None, Some(status)),
        (_, Finished::Late | Finished::Stale) => (None, None),
    };
    let delivery = finish.delivery;
    Recorded {
        subscription: delivery.subscription,
        id: delivery.id,
        due_at,
        // What was late may be this very outcome, recorded before its answer was lost; a shard that was another's in
        // between may have come back meanwhile.
        look_at: matches!(
            (finish.then, finished),
            (Then::Retry(_), Finished::Late) | (_, Finished::Stale)
        )
        .then_some(again_at),
        closed,
        webhook: delivery.webhook,
    }
}

#[cfg(test)]
mod tests;
