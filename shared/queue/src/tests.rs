//! One suite for every queue.

mod broker;
mod rabbitmq_only;

use super::*;
use broker::Vhost;
use herald_domain::catalogue::EnateEvent;
use herald_domain::time::SystemClock;
use herald_ledger::store::{Store, Writer};
use serde_json::{Value, json};
use std::time::Duration;

/// A request of one to three events, an array of about that many bytes.
fn message(n: usize, bytes: usize) -> Message {
    let mut events = vec![json!(n); 1 + n % 3];
    events[0] = json!("x".repeat(bytes.saturating_sub(12)));
    Message {
        origin: Origin {
            account: "a".into(),
            accepted_at: Timestamp::from_micros(i64::try_from(n).unwrap()),
            traceparent: None,
            events: events.len(),
        },
        body: serde_json::to_vec(&events).unwrap(),
    }
}

/// The requests as they were published, which RabbitMQ may have had as one message.
fn requests(received: &Received) -> Vec<Message> {
    let mut events: std::collections::VecDeque<Value> = serde_json::from_slice(&received.body).unwrap();
    assert_eq!(events.len(), received.origins.events());
    let request = |origin: &Origin| Message {
        origin: origin.clone(),
        body: serde_json::to_vec(&events.drain(..origin.events).collect::<Vec<_>>()).unwrap(),
    };
    received.origins.iter().map(request).collect()
}

fn sent(received: &Received) -> Message {
    let [sent] = requests(received).try_into().expect("one request is one message");
    sent
}

fn accepted_at(received: &Received) -> i64 {
    received.origins.first.accepted_at.as_micros()
}

/// A queue of a test's own.
struct Rig {
    place: Place,
    queue: Queue,
}

enum Place {
    Folder(tempfile::TempDir),
    Vhost(Vhost),
}

impl Rig {
    async fn embedded() -> Self {
        Self::at(Place::Folder(tempfile::tempdir().unwrap())).await
    }

    async fn rabbitmq() -> Self {
        Self::at(Place::Vhost(Vhost::new().await)).await
    }

    async fn at(place: Place) -> Self {
        let queue = open(&place).await;
        Self { place, queue }
    }

    /// What a process sees that comes after this one's crash.
    async fn restarted(self) -> Self {
        drop(self.queue);
        Self::at(self.place).await
    }

    async fn publish(&self, message: Message) {
        self.queue.publish(message, Route::Batch).await.unwrap();
    }

    /// Waits until the consumer has that many which are not acknowledged.
    async fn arrived(&self, count: u64) {
        if let Queue::Rabbit(rabbit) = &self.queue {
            until(async || rabbit.in_hand() == count).await;
        }
    }
}

async fn open(place: &Place) -> Queue {
    match place {
        Place::Folder(folder) => {
            let file = herald_ledger::file_in(folder.path());
            let clock = Arc::new(SystemClock);
            let (ledger, writer): (_, Writer) = herald_ledger::Ledger::open(&file, clock).await.unwrap();
            let store: Store = ledger.store().clone();
            let (queue, publisher) = Embedded::open(store);
            tokio::spawn(writer.run());
            tokio::spawn(publisher);
            Queue::Embedded(queue)
        }
        Place::Vhost(vhost) => Queue::Rabbit(vhost.open().await),
    }
}

async fn until(mut holds: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "it did not come about");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until the metrics of consuming have that line.
async fn until_told(queue: &Queue, line: &str) {
    let registry = prometheus::Registry::new();
    queue.register_metrics(QueueUse::Consume, &registry).unwrap();
    let told = || {
        prometheus::TextEncoder::new()
            .encode_to_string(&registry.gather())
            .unwrap()
    };
    until(async || told().lines().any(|told| told == line)).await;
}

async fn drain(consumer: &mut Consumer, count: usize) -> Vec<Received> {
    let mut all = Vec::new();
    while all
        .iter()
        .map(|received: &Received| received.origins.iter().count())
        .sum::<usize>()
        < count
    {
        let next = consumer.next(100, 1 << 20);
        let next = tokio::time::timeout(Duration::from_secs(30), next).await;
        all.extend(next.expect("messages come").unwrap());
    }
    all
}

async fn what_is_published_at_once_comes_whole_and_in_each_publishers_order(rig: Rig) {
    let publishers: Vec<_> = (0..8)
        .map(|publisher| {
            let queue = rig.queue.clone();
            tokio::spawn(async move {
                for n in 0..50 {
                    let message = message(publisher * 1000 + n, 40);
                    queue.publish(message, Route::Batch).await.unwrap();
                }
            })
        })
        .collect();
    let received = drain(&mut rig.queue.consumer(), 400).await;
    for publisher in publishers {
        publisher.await.unwrap();
    }
    for publisher in 0..8 {
        let ours: Vec<_> = received
            .iter()
            .flat_map(requests)
            .filter(|message| message.origin.accepted_at.as_micros() / 1000 == publisher)
            .collect();
        let sent: Vec<_> = (0..50)
            .map(|n| message(usize::try_from(publisher).unwrap() * 1000 + n, 40))
            .collect();
        assert_eq!(ours, sent);
    }
}

async fn what_is_not_acknowledged_comes_again_after_a_restart(rig: Rig) {
    for n in 0..10 {
        rig.publish(message(n, 10)).await;
    }
    let mut consumer = rig.queue.consumer();
    let received = drain(&mut consumer, 10).await;
    rig.queue.acknowledge(received[3].tag).await.unwrap();
    drop(consumer);
    let rig = rig.restarted().await;
    let mut consumer = rig.queue.consumer();
    let rest = drain(&mut consumer, 6).await;
    let numbers: Vec<_> = rest.iter().map(accepted_at).collect();
    assert_eq!(numbers, [4, 5, 6, 7, 8, 9]);
    rig.queue.acknowledge(rest[5].tag).await.unwrap();
    drop(consumer);
    let rig = rig.restarted().await;
    until(async || rig.queue.in_transit().await.unwrap() == 0).await;
    rig.publish(message(10, 10)).await;
    let received = drain(&mut rig.queue.consumer(), 1).await;
    assert_eq!(sent(&received[0]), message(10, 10));
    assert!(received[0].trusted && received[0].accepted);
}

async fn a_batch_stays_within_its_bounds_but_never_empty(rig: Rig) {
    let mut consumer = rig.queue.consumer();
    for n in 0..4 {
        rig.publish(message(0, 3_000_000 + n)).await;
    }
    rig.arrived(4).await;
    for _ in 0..4 {
        assert_eq!(consumer.next(100, 1000).await.unwrap().len(), 1);
    }
    for n in [2, 2, 2] {
        rig.publish(message(n, 10)).await;
    }
    rig.arrived(7).await;
    assert_eq!(consumer.next(6, 1 << 20).await.unwrap().len(), 2);
}

async fn an_idle_consumer_wakes_when_a_message_arrives(rig: Rig) {
    let mut consumer = rig.queue.consumer();
    let waiting = tokio::spawn(async move { consumer.next(10, 1000).await });
    tokio::task::yield_now().await;
    rig.publish(message(1, 10)).await;
    let received = tokio::time::timeout(Duration::from_secs(10), waiting)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(sent(&received[0]), message(1, 10));
}

macro_rules! conformance {
    ($($queue:ident: $($test:ident),*;)*) => {
        $(mod $queue {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(super::Rig::$queue().await).await;
            })*
        })*
    };
}

conformance! {
    embedded:
        what_is_published_at_once_comes_whole_and_in_each_publishers_order,
        what_is_not_acknowledged_comes_again_after_a_restart,
        a_batch_stays_within_its_bounds_but_never_empty,
        an_idle_consumer_wakes_when_a_message_arrives;
    rabbitmq:
        what_is_published_at_once_comes_whole_and_in_each_publishers_order,
        what_is_not_acknowledged_comes_again_after_a_restart,
        a_batch_stays_within_its_bounds_but_never_empty,
        an_idle_consumer_wakes_when_a_message_arrives;
}

#[tokio::test]
async fn events_in_transit_are_counted_until_acknowledged() {
    let rig = Rig::embedded().await;
    for n in 0..10 {
        rig.publish(message(n, 10)).await;
    }
    let received = drain(&mut rig.queue.consumer(), 10).await;
    assert_eq!(rig.queue.in_transit().await.unwrap(), 19);
    rig.queue.acknowledge(received[9].tag).await.unwrap();
    assert_eq!(rig.queue.in_transit().await.unwrap(), 0);
}

const EVENT: Route = Route::Event(EventType::Enate(EnateEvent::PacketCreated), EventId(uuid::Uuid::nil()));

/// Publishes a single event in a task of its own.
fn publishing(rig: &Rig, n: usize) -> tokio::task::JoinHandle<Result<(), Error>> {
    let queue = rig.queue.clone();
    tokio::spawn(async move { queue.publish(message(n, 10), EVENT).await })
}

#[tokio::test]
async fn a_single_event_goes_straight_to_the_consumer_and_is_answered_for_when_acknowledged() {
    let rig = Rig::embedded().await;
    let mut consumer = rig.queue.consumer();
    let publishers: Vec<_> = (0..3).map(|n| publishing(&rig, n)).collect();
    let received = drain(&mut consumer, 3).await;
    assert_eq!(rig.queue.in_transit().await.unwrap(), 0, "none is in the table");
    assert!(publishers.iter().all(|publisher| !publisher.is_finished()));
    for received in &received {
        rig.queue.acknowledge(received.tag).await.unwrap();
    }
    for publisher in publishers {
        publisher.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn without_a_consumer_a_single_event_waits_in_the_table() {
    let rig = Rig::embedded().await;
    publishing(&rig, 0).await.unwrap().unwrap();
    assert_eq!(rig.queue.in_transit().await.unwrap(), 1);
    // Whatever comes while it is not handed out yet does not keep it from its turn.
    let mut consumer = rig.queue.consumer();
    let straight = publishing(&rig, 3);
    let received = drain(&mut consumer, 2).await;
    for received in &received {
        rig.queue.acknowledge(received.tag).await.unwrap();
    }
    straight.await.unwrap().unwrap();
    assert_eq!(rig.queue.in_transit().await.unwrap(), 0);
}

#[tokio::test]
async fn while_recording_stands_still_single_events_wait_in_the_table() {
    let rig = Rig::embedded().await;
    let mut consumer = rig.queue.consumer();
    let stuck = publishing(&rig, 0);
    drain(&mut consumer, 1).await;
    // It is not acknowledged, and after a while the others are no longer made to wait for that.
    until(async || {
        let next = tokio::time::timeout(Duration::from_millis(100), publishing(&rig, 3)).await;
        next.is_ok_and(|published| published.unwrap().is_ok())
    })
    .await;
    assert!(rig.queue.in_transit().await.unwrap() > 0);
    assert!(stuck.await.unwrap().is_err(), "nobody knows");
}

#[tokio::test]
async fn who_waits_hears_that_the_consumer_is_gone() {
    let rig = Rig::embedded().await;
    let mut consumer = rig.queue.consumer();
    let publisher = publishing(&rig, 0);
    drain(&mut consumer, 1).await;
    drop(consumer);
    assert!(publisher.await.unwrap().is_err());
}

#[test]
fn each_type_of_event_has_its_routing_key() {
    let keys = EnateEvent::ALL.map(EnateEvent::routing_key);
    assert_eq!(
        keys,
        [
            "packet.created",
            "packet.updated",
            "communication.new",
            "business-object.created",
            "business-object.updated"
        ]
    );
    assert_eq!(Route::Batch.key(), "batch");
}

#[tokio::test]
async fn the_embedded_queue_tells_how_many_messages_wait() {
    let rig = Rig::embedded().await;
    for n in 0..3 {
        rig.publish(message(n, 1)).await;
    }
    let mut consumer = rig.queue.consumer();
    let first = drain(&mut consumer, 1).await[0].tag;
    rig.queue.acknowledge(first).await.unwrap();
    let watched = rig.queue.clone();
    let watching = tokio::spawn(async move { watched.watch().await });
    let left = 3 - first.place;
    until_told(
        &rig.queue,
        &format!("herald_queue_messages_ready{{queue=\"herald.events\"}} {left}"),
    )
    .await;
    watching.abort();
}
