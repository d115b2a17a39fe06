use crate::{Dispatch, Parts};
use herald_domain::time::{SystemClock, Timestamp};
use herald_ledger::Ledger;
use herald_ledger::handover::HandOver;
use herald_ledger::shards::Ownership;
use herald_ledger::sql;
use herald_queue::{Embedded, Message, Queue, Route};
use herald_registry::Registry;
use herald_telemetry::health::Health;
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

#[tokio::test]
async fn one_event_that_the_ledger_refuses_holds_up_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let file = herald_ledger::file_in(folder.path());
    let (ledger, writer) = Ledger::open(&file, Arc::new(SystemClock)).await.unwrap();
    tokio::spawn(writer.run());
    let trap = "CREATE TRIGGER trap BEFORE INSERT ON events WHEN NEW.data LIKE '%poison%' \
                BEGIN SELECT RAISE(ABORT, 'refused'); END";
    let set = ledger
        .store()
        .write(move |txn, _now| Box::pin(async move { sql::execute(txn, trap, []).await }));
    set.await.unwrap();
    let (queue, publisher) = Embedded::open(ledger.store().clone());
    tokio::spawn(publisher);
    let queue = Queue::Embedded(queue);
    let (_ownership, owned) = watch::channel(Ownership::none());
    let parts = Parts {
        queue: queue.clone(),
        ledger: ledger.clone(),
        registry: Arc::new(Registry::load(ledger.clone(), None).await.unwrap()),
        owned,
        hand_over: HandOver::default(),
        health: Health::default(),
    };
    let dispatch = Dispatch::new(parts, &prometheus::Registry::new()).unwrap();
    let events: Vec<_> = (1..=EVENTS).map(event).collect();
    let message = Message {
        account: "a".into(),
        accepted_at: Timestamp::from_micros(1),
        traceparent: None,
        events: events.len(),
        body: format!("[{}]", events.join(",")).into_bytes(),
    };
    queue.publish(message, Route::Batch).await.unwrap();
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
