use super::*;
use herald_domain::catalogue::{EnateEvent, Webhook};
use herald_domain::delivery::{Attempt, Closed, Outcome};
use herald_domain::event::Objects;
use herald_domain::id::{DeliveryId, EventId, EventUid, Shard};
use herald_domain::time::SystemClock;
use herald_ledger::dispatching::{EventRecord, EventResult, NewEvent};
use herald_ledger::shards::ShardLeases;
use sea_orm::{ConnectionTrait, TransactionTrait};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use uuid::Uuid;

/// Longer than a write may take, several times.
const SOON: Duration = Duration::from_secs(40);

/// Shorter than a write that hangs.
const AT_ONCE: Duration = Duration::from_secs(6);

#[test]
fn what_the_ledger_refuses_or_is_slow_with_is_cut_and_isolated() {
    assert_eq!(verdict(&Error::Busy, 512, 100), Verdict::Again);
    let slow = Error::Slow(Duration::from_secs(8));
    assert_eq!(verdict(&slow, 512, 1), Verdict::Cut);
    assert_eq!(verdict(&slow, 1, 1), Verdict::Isolate(RETRY_AFTER));
    let unknown = Error::Corrupt("a row");
    assert_eq!(verdict(&unknown, 2, DOUBTS - 1), Verdict::Isolate(RETRY_AFTER));
    assert_eq!(verdict(&unknown, 2, DOUBTS), Verdict::Cut);
    assert_eq!(verdict(&unknown, 1, DOUBTS), Verdict::Hopeless);
}

#[test]
fn pauses_grow_and_have_a_bound() {
    let pauses: Vec<_> = (1..=40).map(growing).collect();
    assert_eq!(pauses[..3], [1, 2, 4].map(|n| RETRY_AFTER * n));
    assert!(pauses.is_sorted() && pauses.iter().all(|pause| *pause <= LONGEST_PAUSE));
    assert_eq!(pauses.last(), Some(&LONGEST_PAUSE));
    assert_eq!(growing(u32::MAX), LONGEST_PAUSE);
}

/// A ledger, and who owns its shards.
struct Rig {
    ledger: Ledger,
    owned: ShardLeases,
    _folder: tempfile::TempDir,
}

impl Rig {
    async fn embedded() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = herald_ledger::file_in(folder.path());
        let (ledger, writer) = Ledger::open(&file, Arc::new(SystemClock)).await.unwrap();
        tokio::spawn(writer.run());
        Self::over(ledger, folder).await
    }

    /// In a database of its own, which goes with the server; and where that is.
    async fn shared() -> (Self, String) {
        let server = std::env::var("HERALD_TEST_POSTGRES")
            .expect("HERALD_TEST_POSTGRES names no server: run tests/run, or tests/with-services cargo test ...");
        let name = format!("t{}", Uuid::new_v4().simple());
        let connection = Box::pin(sea_orm::Database::connect(&server)).await.unwrap();
        let create = format!("CREATE DATABASE {name}");
        connection.execute_unprepared(&create).await.unwrap();
        let url = format!("{}/{name}", server.rsplit_once('/').unwrap().0);
        Ledger::migrate(&url).await.unwrap();
        let ledger = Ledger::connect(&url).await.unwrap();
        (Self::over(ledger, tempfile::tempdir().unwrap()).await, url)
    }

    async fn over(ledger: Ledger, folder: tempfile::TempDir) -> Self {
        let owned = ledger.take_all_shards(Uuid::now_v7()).await.unwrap();
        Self {
            ledger,
            owned,
            _folder: folder,
        }
    }

    /// The successes of the deliveries of one event to so many subscriptions, not recorded yet.
    async fn successes(&self, subscriptions: u128) -> Vec<OutcomeRecord> {
        let record = EventRecord {
            uid: EventUid(self.ledger.ids().next()),
            id: EventId(Uuid::now_v7()),
            kind: EnateEvent::PacketUpdated.into(),
            occurred_at: None,
            objects: Objects::default(),
            data: "{}".to_owned(),
            accepted_at: self.ledger.now(),
            traceparent: None,
        };
        let ids = (1..=subscriptions).map(|n| SubscriptionId(Uuid::from_u128(n)));
        let event = NewEvent {
            record: Arc::new(record),
            account: "a".into(),
            body_hash: 1,
            matches: ids.map(|id| (id, Webhook::PacketUpdated)).collect(),
        };
        let uid = event.record.uid;
        let version = self.ledger.registry_version().await.unwrap();
        let recorded = self.ledger.record(vec![event], version, self.owned.clone()).await;
        let herald_ledger::dispatching::BatchResult::Done(_, mut results) = recorded.unwrap() else {
            panic!("the registry did not change");
        };
        let EventResult::New { mine, .. } = results.remove(0) else {
            panic!("it is new");
        };
        mine.iter().map(|it| self.delivered(*it, uid)).collect()
    }

    fn delivered(&self, delivery: Delivery, event: EventUid) -> OutcomeRecord {
        let attempt = Attempt {
            number: 1,
            at: delivery.created_at,
            duration: Duration::ZERO,
            outcome: answered(200),
            detail: None,
        };
        OutcomeRecord {
            delivery,
            event,
            epoch: self.owned.epoch(Shard::of(delivery.subscription)).unwrap(),
            attempt: Some(attempt),
            next: NextStep::Close {
                status: Closed::Delivered,
                reason: None,
                deactivate: None,
            },
        }
    }

    /// How many deliveries are delivered, where everything adds up.
    async fn delivered_in_all(&self) -> i64 {
        let account = self.ledger.audit().await.unwrap();
        assert_eq!(account.differences, Vec::<String>::new());
        let mut deliveries = account.deliveries.iter();
        deliveries.find(|(status, _)| status.name() == "Delivered").unwrap().1
    }
}

fn answered(status: u16) -> Outcome {
    Outcome::Answered {
        status,
        retry_after: None,
    }
}

/// A recorder at work.
struct Work {
    outcomes: mpsc::UnboundedSender<OutcomeRecord>,
    reported: mpsc::UnboundedReceiver<Report>,
    hard: CancellationToken,
    running: JoinHandle<()>,
    /// What became of each: how it was closed, or nothing if the ledger refuses its outcome.
    came: HashMap<DeliveryId, Option<Closed>>,
}

impl Work {
    fn start(ledger: &Ledger) -> Self {
        let (outcomes, to_record) = mpsc::unbounded_channel();
        let (reports, reported) = mpsc::unbounded_channel();
        let hard = CancellationToken::new();
        let recorder = Recorder {
            ledger: ledger.clone(),
            health: Health::default(),
            metrics: Metrics::register(&prometheus::Registry::new()).unwrap(),
            hard: hard.clone(),
        };
        Self {
            outcomes,
            reported,
            hard,
            running: tokio::spawn(recorder.run(to_record, reports)),
            came: HashMap::new(),
        }
    }

    fn send(&self, batch: Vec<OutcomeRecord>) {
        for finish in batch {
            self.outcomes.send(finish).unwrap();
        }
    }

    /// Hears reports until there are so many in all.
    async fn hear(&mut self, outcomes: usize, patience: Duration) {
        let hearing = async {
            while self.came.len() < outcomes {
                match self.reported.recv().await {
                    Some(Report::Recorded(recorded)) => {
                        let came = |(delivery, next, result): (Delivery, NextStep, RecordResult)| {
                            (delivery.id, Some(result.closes(next).expect("it is closed")))
                        };
                        self.came.extend(recorded.into_iter().map(came));
                    }
                    Some(Report::Heard(Input::Unrecordable(delivery))) => drop(self.came.insert(delivery.id, None)),
                    other => panic!("{other:?}"),
                }
            }
        };
        let heard = timeout(patience, hearing).await;
        assert!(heard.is_ok(), "{} of {outcomes} were recorded", self.came.len());
    }

    async fn end(self) {
        drop(self.outcomes);
        timeout(SOON, self.running).await.expect("an end").unwrap();
    }
}

#[tokio::test]
async fn an_outcome_that_the_ledger_refuses_delays_no_other() {
    const REFUSED: usize = 3;
    let rig = Rig::embedded().await;
    let mut batch = rig.successes(6).await;
    // A success without a status of success, which the schema rules out.
    batch[REFUSED].attempt.as_mut().unwrap().outcome = answered(500);
    let ids: Vec<_> = batch.iter().map(|finish| finish.delivery.id).collect();
    let mut work = Work::start(&rig.ledger);
    work.send(batch);
    work.hear(6, SOON).await;
    for (n, id) in ids.iter().enumerate() {
        let expected = (n != REFUSED).then_some(Closed::Delivered);
        assert_eq!(work.came[id], expected);
    }
    work.end().await;
    assert_eq!(rig.delivered_in_all().await, 5);
}

#[tokio::test]
async fn an_outcome_whose_row_somebody_has_locked_delays_no_other() {
    const LOCKED: usize = 3;
    let (rig, url) = Rig::shared().await;
    let batch = rig.successes(6).await;
    let locked = batch[LOCKED].delivery.id;
    let connection = Box::pin(sea_orm::Database::connect(&url)).await.unwrap();
    let holder = connection.begin().await.unwrap();
    let lock = format!("SELECT 1 FROM deliveries_open WHERE id = '{locked}' FOR UPDATE");
    holder.execute_unprepared(&lock).await.unwrap();

    let mut work = Work::start(&rig.ledger);
    work.send(batch);
    work.hear(5, SOON).await;
    assert!(!work.came.contains_key(&locked));
    // Those that come later do not wait for it at all.
    for count in 1..=3 {
        work.send(rig.successes(1).await);
        work.hear(5 + count, AT_ONCE).await;
    }
    holder.rollback().await.unwrap();
    work.hear(9, SOON).await;
    assert_eq!(work.came[&locked], Some(Closed::Delivered));
    work.end().await;
    assert_eq!(rig.delivered_in_all().await, 9);
}

#[tokio::test]
async fn what_waits_for_its_next_turn_does_not_keep_the_process_from_its_end() {
    let rig = Rig::embedded().await;
    let batch = rig.successes(2).await;
    let away = rig.ledger.store().write(|txn, _now| {
        let sql = "ALTER TABLE deliveries_closed RENAME TO deliveries_elsewhere";
        Box::pin(async move { herald_ledger::sql::execute(txn, sql, []).await })
    });
    away.await.unwrap();
    let work = Work::start(&rig.ledger);
    work.send(batch);
    work.hard.cancel();
    work.end().await;
}
