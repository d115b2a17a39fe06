//! Writes outcomes to the ledger, as many at a time as have come.
//!
//! While the ledger is away outcomes wait here; the lanes begin no more attempts than it may hold (see
//! `Limits::recording`), so they are bounded. A batch that the ledger refuses or takes too long for is halved,
//! so that one outcome that cannot be recorded holds up no other.

use crate::metrics::Metrics;
use crate::owner::Report;
use herald_domain::catalogue::Webhook;
use herald_domain::delivery::{Closed, Delivery};
use herald_domain::id::{DeliveryId, SubscriptionId};
use herald_domain::time::Timestamp;
use herald_ledger::delivering::{Finish, Finished, Then};
use herald_ledger::{Cause, Ledger};
use herald_telemetry::health::Health;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// The most outcomes in one transaction.
const MAX_BATCH: usize = 512;
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// How often outcomes are tried after an error of which nobody knows whether they are to blame for it.
const DOUBTS: u32 = 10;

/// When a delivery whose outcome cannot be recorded is attempted again.
const LEFT: Duration = Duration::from_mins(5);
const PART: &str = "deliver";

/// An outcome that is in the ledger.
#[derive(Debug)]
pub(crate) struct Recorded {
    pub(crate) subscription: SubscriptionId,
    pub(crate) id: DeliveryId,
    /// When the delivery is due again, if it is.
    pub(crate) due_at: Option<Timestamp>,
    /// When the ledger is to be asked what has become of it, if only it knows.
    pub(crate) look_at: Option<Timestamp>,
    /// How it was closed, if this closed it.
    pub(crate) closed: Option<Closed>,
    /// The delivery's.
    pub(crate) webhook: Webhook,
}

/// Records outcomes.
#[derive(Debug)]
pub(crate) struct Recorder {
    pub(crate) ledger: Ledger,
    pub(crate) health: Health,
    pub(crate) metrics: Metrics,
    /// From then on what cannot be recorded is left: the ledger has the deliveries as they were.
    pub(crate) hard: CancellationToken,
}

impl Recorder {
    /// Records what comes until the sender is gone.
    pub(crate) async fn run(
        self,
        mut outcomes: mpsc::UnboundedReceiver<Finish>,
        reports: mpsc::UnboundedSender<Report>,
    ) {
        let mut batch = Vec::with_capacity(MAX_BATCH);
        while outcomes.recv_many(&mut batch, MAX_BATCH).await > 0 {
            if !self.record(&batch, &reports).await {
                tracing::error!(
                    outcomes = batch.len(),
                    "not all of these outcomes were recorded; the deliveries of the others are open as before"
                );
                return;
            }
            batch.clear();
        }
    }

    /// Records a batch and reports what became of each; false if the process ends before that is known.
    async fn record(&self, mut batch: &[Finish], reports: &mpsc::UnboundedSender<Report>) -> bool {
        let mut limit = batch.len();
        let mut doubts = 0;
        while !batch.is_empty() {
            let (part, rest) = batch.split_at(limit.min(batch.len()));
            let verdict = match self.ledger.finish(part.to_vec()).await {
                Ok(came) => {
                    self.health.ok(PART);
                    self.metrics.batch(part.len());
                    self.note_deactivated(&came.deactivated);
                    let now = self.ledger.now();
                    let outcomes = part.iter().zip(came.finished);
                    let outcomes = outcomes.map(|(finish, came)| recorded(finish, came, now)).collect();
                    if reports.send(Report::Recorded(outcomes)).is_err() {
                        return false;
                    }
                    (batch, limit, doubts) = (rest, limit.saturating_mul(2), 0);
                    continue;
                }
                // The writer is gone, and the process is ending because of it.
                Err(herald_ledger::Error::Closed) => return false,
                Err(error) => {
                    self.health.failing(PART, "the ledger cannot be written");
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        outcomes = part.len(),
                        "outcomes could not be recorded; they are tried again"
                    );
                    doubts += 1;
                    verdict(&error, part.len(), doubts)
                }
            };
            match verdict {
                Verdict::Halve => (limit, doubts) = (part.len() / 2, 0),
                Verdict::Again => tokio::select! {
                    () = self.hard.cancelled() => return false,
                    () = tokio::time::sleep(RETRY_AFTER) => {}
                },
                Verdict::Hopeless => {
                    let left = part.iter().map(|finish| self.leave(finish)).collect();
                    if reports.send(Report::Recorded(left)).is_err() {
                        return false;
                    }
                    (batch, limit, doubts) = (rest, 1, 0);
                }
            }
        }
        true
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
    /// Half of them at a time.
    Halve,
    /// The same again, after a pause.
    Again,
    /// Without it, because it is refused however often it is tried.
    Hopeless,
}

/// What to do after that error with so many outcomes, which failed so often by themselves.
fn verdict(error: &herald_ledger::Error, outcomes: usize, failures: u32) -> Verdict {
    let refused = match error.cause() {
        Cause::Data => true,
        Cause::Unknown => failures >= DOUBTS,
        Cause::Away => false,
    };
    let is_slow = matches!(error, herald_ledger::Error::Slow(_));
    match outcomes {
        0 | 1 if refused => Verdict::Hopeless,
        0 | 1 => Verdict::Again,
        _ if refused || is_slow => Verdict::Halve,
        _ => Verdict::Again,
    }
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
mod tests {
    use super::*;
    use herald_domain::catalogue::EventType;
    use herald_domain::delivery::{Attempt, Outcome};
    use herald_domain::event::Objects;
    use herald_domain::id::{EventId, EventUid, Shard};
    use herald_domain::time::SystemClock;
    use herald_ledger::Error;
    use herald_ledger::dispatching::{Disposition, EventRecord, NewEvent};
    use std::collections::HashMap;
    use std::sync::Arc;
    use uuid::Uuid;

    #[test]
    fn what_the_ledger_refuses_or_is_slow_with_is_halved_and_the_one_refused_is_left() {
        assert_eq!(verdict(&Error::Busy, 512, 100), Verdict::Again);
        let slow = Error::Slow(Duration::from_secs(8));
        assert_eq!(verdict(&slow, 512, 1), Verdict::Halve);
        assert_eq!(verdict(&slow, 1, 100), Verdict::Again);
        let unknown = Error::Corrupt("a row");
        assert_eq!(verdict(&unknown, 2, DOUBTS - 1), Verdict::Again);
        assert_eq!(verdict(&unknown, 2, DOUBTS), Verdict::Halve);
        assert_eq!(verdict(&unknown, 1, DOUBTS), Verdict::Hopeless);
    }

    fn delivered(delivery: Delivery, event: EventUid, epoch: i64) -> Finish {
        let outcome = Outcome::Answered {
            status: 200,
            retry_after: None,
        };
        Finish {
            delivery,
            event,
            epoch,
            attempt: Some(Attempt {
                number: 1,
                at: delivery.created_at,
                duration: Duration::ZERO,
                outcome,
                detail: None,
            }),
            then: Then::Close {
                status: Closed::Delivered,
                reason: None,
                deactivate: None,
            },
        }
    }

    #[tokio::test]
    async fn an_outcome_that_the_ledger_refuses_holds_up_no_other() {
        const REFUSED: usize = 3;
        let folder = tempfile::tempdir().unwrap();
        let file = herald_ledger::file_in(folder.path());
        let (ledger, writer) = Ledger::open(&file, Arc::new(SystemClock)).await.unwrap();
        tokio::spawn(writer.run());
        let owned = ledger.take_all_shards(Uuid::now_v7()).await.unwrap();
        let subscriptions = (1..=6).map(|n| SubscriptionId(Uuid::from_u128(n)));
        let record = EventRecord {
            uid: EventUid(Uuid::now_v7()),
            id: EventId(Uuid::now_v7()),
            kind: EventType::PacketUpdated,
            objects: Objects::default(),
            data: "{}".to_owned(),
            accepted_at: ledger.now(),
            traceparent: None,
        };
        let event = NewEvent {
            record: Arc::new(record),
            account: "a".into(),
            occurred_at: None,
            body_hash: 1,
            matches: subscriptions.map(|id| (id, Webhook::PacketUpdated)).collect(),
        };
        let uid = event.record.uid;
        let recorded = ledger.record(vec![event], 0, owned.clone()).await.unwrap();
        let herald_ledger::dispatching::Recorded::Done(_, mut dispositions) = recorded else {
            panic!("the registry did not change");
        };
        let Disposition::New { mine, .. } = dispositions.remove(0) else {
            panic!("it is new");
        };
        let epoch = |delivery: &Delivery| owned.epoch(Shard::of(delivery.subscription)).unwrap();
        let mut batch: Vec<_> = mine.iter().map(|it| delivered(*it, uid, epoch(it))).collect();
        // A success without a status of success, which the schema rules out.
        batch[REFUSED].attempt.as_mut().unwrap().outcome = Outcome::Answered {
            status: 500,
            retry_after: None,
        };
        let recorder = Recorder {
            ledger: ledger.clone(),
            health: Health::default(),
            metrics: Metrics::register(&prometheus::Registry::new()).unwrap(),
            hard: CancellationToken::new(),
        };
        let (reports, mut reported) = mpsc::unbounded_channel();
        assert!(recorder.record(&batch, &reports).await);
        drop(reports);
        let mut came = HashMap::new();
        while let Some(Report::Recorded(outcomes)) = reported.recv().await {
            came.extend(
                outcomes
                    .into_iter()
                    .map(|it| (it.id, (it.closed, it.due_at.or(it.look_at)))),
            );
        }
        assert_eq!(came.len(), batch.len());
        for (n, delivery) in mine.iter().enumerate() {
            let (closed, due_at) = came[&delivery.id];
            if n == REFUSED {
                assert!(
                    closed.is_none() && due_at > Some(ledger.now()),
                    "it is attempted again, later"
                );
            } else {
                assert_eq!((closed, due_at), (Some(Closed::Delivered), None));
            }
        }
        let account = ledger.audit().await.unwrap();
        assert_eq!(
            account.deliveries.iter().map(|(_, n)| *n).take(3).collect::<Vec<_>>(),
            [1, 0, 5]
        );
        assert_eq!(account.differences, Vec::<String>::new());
    }
}
