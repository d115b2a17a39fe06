use crate::{Dispatch, Parts, decode};
use herald_domain::catalogue::{EnateEvent, EventType};
use herald_domain::id::EventId;
use herald_domain::time::{SystemClock, Timestamp};
use herald_ledger::Ledger;
use herald_ledger::handover::HandOver;
use herald_ledger::shards::ShardLeases;
use herald_ledger::sql;
use herald_queue::{Embedded, Message, Origin, Queue, Received, Route, Tag};
use herald_registry::Registry;
use herald_telemetry::health::Health;
use herald_telemetry::traces::Traces;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const EVENTS: u128 = 100;

/// Event number `n`; one in the middle is one that the ledger will refuse.
fn event(n: u128) -> String {
    let name = if n == 41 { "poison" } else { "Globex" };
    format!(
        r#"{{"Id":"{}","Type":"BusinessObjectUpdated","Objects":{{"Company":"{}"}},"Data":{{"Name":"{name}"}}}}"#,
        Uuid::from_u128(n),
        Uuid::from_u128(7)
    )
}

fn message(events: &[String]) -> Message {
    Message {
        origin: Origin {
            account: "a".into(),
            accepted_at: Timestamp::from_micros(1),
            traceparent: None,
            events: events.len(),
        },
        body: match events {
            [one] => one.clone().into_bytes(),
            _ => format!("[{}]", events.join(",")).into_bytes(),
        },
    }
}

async fn execute(ledger: &Ledger, sql: &'static str) {
    let write = ledger
        .store()
        .write(move |txn, _now| Box::pin(async move { sql::execute(txn, sql, []).await }));
    write.await.unwrap();
}

/// Dispatch over that ledger, and the queue that it reads.
async fn dispatch(ledger: &Ledger) -> (Queue, Dispatch) {
    let (queue, publisher) = Embedded::open(ledger.store().clone());
    tokio::spawn(publisher);
    let queue = Queue::Embedded(queue);
    let (_ownership, owned) = watch::channel(ShardLeases::none());
    let parts = Parts {
        queue: queue.clone(),
        ledger: ledger.clone(),
        registry: Arc::new(Registry::load(ledger.clone(), None).await.unwrap()),
        owned,
        hand_over: HandOver::default(),
        health: Health::default(),
        traces: Traces::default(),
    };
    let dispatch = Dispatch::new(parts, &prometheus::Registry::new()).unwrap();
    (queue, dispatch)
}

async fn a_ledger(folder: &tempfile::TempDir) -> Ledger {
    let file = herald_ledger::file_in(folder.path());
    let (ledger, writer) = Ledger::open(&file, Arc::new(SystemClock)).await.unwrap();
    tokio::spawn(writer.run());
    ledger
}

/// Messages that were handed out over and over, as those are that many a process died with in hand.
fn handed_out_often(events: &[String]) -> Vec<Received> {
    let one = |event: &String| Received {
        tag: Tag::default(),
        trusted: false,
        accepted: false,
        message_id: None,
        redeliveries: 25,
        encoding: None,
        cloud_event: None,
        cut: None,
        origins: message(&[]).origin.into(),
        body: event.clone().into_bytes(),
    };
    events.iter().map(one).collect()
}

/// What a missing table says, it says of no event; how often an event was handed out says nothing of it either.
#[tokio::test]
async fn a_ledger_that_lacks_a_table_makes_no_event_a_rejected_one() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = a_ledger(&folder).await;
    let (_queue, dispatch) = dispatch(&ledger).await;
    execute(&ledger, "ALTER TABLE events RENAME TO away").await;
    let failures = prometheus::Registry::new();
    ledger.register_metrics(&failures).unwrap();
    let shutdown = CancellationToken::new();
    let recording = Box::pin(dispatch.record_until_done(handed_out_often(&[event(1), event(2)]), &shutdown));
    let mending = async {
        // Tried several times, and each time it was the table.
        while failed_writes(&failures) < 4.0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        execute(&ledger, "ALTER TABLE away RENAME TO events").await;
    };
    let both = async { tokio::join!(recording, mending) };
    let (recorded, ()) = tokio::time::timeout(Duration::from_secs(20), both).await.unwrap();
    assert!(recorded);
    let account = ledger.audit().await.unwrap();
    assert_eq!((account.events, account.rejected), (2, 0));
}

/// The code does not tell that it is the event, and that its like is taken does.
#[tokio::test]
async fn an_event_is_rejected_whose_like_is_recorded_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = a_ledger(&folder).await;
    let (_queue, dispatch) = dispatch(&ledger).await;
    let trap = "CREATE TRIGGER trap BEFORE INSERT ON events WHEN NEW.data LIKE '%poison%' \
                BEGIN SELECT abs(length(NEW.data) * 0 - 9223372036854775807 - 1); END";
    execute(&ledger, trap).await;
    let shutdown = CancellationToken::new();
    let events: Vec<_> = (40..44).map(event).collect();
    assert!(dispatch.record_until_done(handed_out_often(&events), &shutdown).await);
    let account = ledger.audit().await.unwrap();
    assert_eq!((account.events, account.rejected), (3, 1));
}

/// An event, a message that is none, an event that the ledger refuses, and an event.
fn mixed() -> Vec<Received> {
    handed_out_often(&[event(1), "{".to_owned(), event(41), event(2)])
}

/// Records a mixed batch. The trap takes nothing of a table until the ledger holds so many events and rejected messages.
async fn neither_waits_for_the_other(trap: &'static str, meanwhile: (i64, i64)) {
    let folder = tempfile::tempdir().unwrap();
    let ledger = a_ledger(&folder).await;
    let (_queue, dispatch) = dispatch(&ledger).await;
    let refusal = "CREATE TRIGGER refusal BEFORE INSERT ON events WHEN NEW.data LIKE '%poison%' \
                   BEGIN SELECT RAISE(ABORT, 'refused'); END";
    execute(&ledger, refusal).await;
    execute(&ledger, trap).await;
    let shutdown = CancellationToken::new();
    let recording = Box::pin(dispatch.record_until_done(mixed(), &shutdown));
    let counts = || async {
        let sql = "SELECT (SELECT count(*) FROM events) AS events, (SELECT count(*) FROM rejected_events) AS rejected";
        let row = sql::one(ledger.store().queries(), sql, []).await.unwrap().unwrap();
        (sql::get(&row, "events").unwrap(), sql::get(&row, "rejected").unwrap())
    };
    let mending = async {
        while counts().await != meanwhile {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        execute(&ledger, "DROP TRIGGER trap").await;
    };
    let both = async { tokio::join!(recording, mending) };
    let (recorded, ()) = tokio::time::timeout(Duration::from_secs(20), both).await.unwrap();
    assert!(recorded);
    assert_eq!(counts().await, (2, 2));
}

#[tokio::test]
async fn events_are_recorded_while_nothing_can_be_kept_as_rejected() {
    let trap = "CREATE TRIGGER trap BEFORE INSERT ON rejected_events BEGIN SELECT abs(-9223372036854775807 - 1); END";
    neither_waits_for_the_other(trap, (2, 0)).await;
}

#[tokio::test]
async fn messages_are_kept_as_rejected_while_no_event_can_be_recorded() {
    let trap = "CREATE TRIGGER trap BEFORE INSERT ON event_keys BEGIN SELECT abs(-9223372036854775807 - 1); END";
    neither_waits_for_the_other(trap, (0, 1)).await;
}

/// How many writes failed for a reason that the database's code does not tell.
fn failed_writes(registry: &prometheus::Registry) -> f64 {
    let families = registry.gather();
    let family = families
        .iter()
        .find(|family| family.name() == "herald_ledger_write_failures_total");
    let metrics = family.unwrap().get_metric();
    let unknown = metrics
        .iter()
        .find(|metric| metric.get_label().iter().any(|label| label.value() == "unknown"));
    unknown.unwrap().get_counter().get_value()
}

#[tokio::test]
async fn one_event_that_the_ledger_refuses_holds_up_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = a_ledger(&folder).await;
    let trap = "CREATE TRIGGER trap BEFORE INSERT ON events WHEN NEW.data LIKE '%poison%' \
                BEGIN SELECT RAISE(ABORT, 'refused'); END";
    execute(&ledger, trap).await;
    let (queue, dispatch) = dispatch(&ledger).await;
    let events: Vec<_> = (1..=EVENTS).map(event).collect();
    queue.publish(message(&events), Route::Batch).await.unwrap();
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(dispatch.run(shutdown.clone()));
    let taken = async {
        while queue.in_transit().await.unwrap() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), taken).await.unwrap();
    shutdown.cancel();
    running.await.unwrap();
    let account = ledger.audit().await.unwrap();
    assert_eq!((account.events, account.rejected), (99, 1));
}

/// A single event whose publisher waits does not go through the table that an array goes through, and neither
/// is acknowledged with the other.
#[tokio::test]
async fn what_came_by_either_way_is_acknowledged_by_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let file = herald_ledger::file_in(folder.path());
    let (ledger, writer) = Ledger::open(&file, Arc::new(SystemClock)).await.unwrap();
    tokio::spawn(writer.run());
    let (queue, publisher) = Embedded::open(ledger.store().clone());
    tokio::spawn(publisher);
    let queue = Queue::Embedded(queue);
    let mut consumer = queue.consumer();
    for turned in [false, true] {
        let array = message(&[event(1), event(2)]);
        queue.publish(array, Route::Batch).await.unwrap();
        let single = tokio::spawn({
            let queue = queue.clone();
            async move {
                queue
                    .publish(
                        message(&[event(3)]),
                        Route::Event(
                            EventType::Enate(EnateEvent::BusinessObjectUpdated),
                            EventId(Uuid::from_u128(3)),
                        ),
                    )
                    .await
            }
        });
        let mut taken = consumer.next(100, 1 << 20).await.unwrap();
        taken.extend(consumer.next(100, 1 << 20).await.unwrap());
        assert_eq!(taken.len(), 2);
        if turned {
            taken.reverse();
        }
        for group in decode::groups(taken) {
            queue.acknowledge(group.last().unwrap().tag).await.unwrap();
        }
        single.await.unwrap().unwrap();
        assert_eq!(queue.in_transit().await.unwrap(), 0);
    }
}
