//! What only RabbitMQ can do to a queue.

use super::broker::{Vhost, open, settings};
use super::{accepted_at, drain, message, requests, sent, until, until_told};
use crate::rabbitmq::{Client, Outgoing, Settings, declare, depth};
use crate::{Error, Queue, QueueUse, Route};
use herald_domain::id::EventId;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Confirmation, Connection};
use serde_json::json;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use uuid::Uuid;

async fn publish_as_another(url: &str, properties: BasicProperties, body: &[u8]) {
    let connection = settings(url).connect("another").await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    let options = BasicPublishOptions::default();
    let sent = channel.basic_publish("herald.events".into(), "any.key".into(), options, body, properties);
    let confirmed = sent.await.unwrap().await.unwrap();
    assert_eq!(confirmed, Confirmation::Ack(None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_lost_under_way_come_back_and_nothing_is_lost() {
    const MESSAGES: usize = 600;
    let vhost = Vhost::new().await;
    let rabbit = vhost.open().await;
    let queue = Queue::Rabbit(rabbit.clone());
    let mut consumer = queue.consumer();
    until(async || rabbit.status().consumer_connected).await;
    let publishing = {
        let queue = queue.clone();
        tokio::spawn(async move {
            let mut failures = 0;
            for n in 0..MESSAGES {
                // Unknown is published again, as a producer would.
                while queue.publish(message(n, 10), Route::Batch).await.is_err() {
                    failures += 1;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            failures
        })
    };
    let done = Arc::new(AtomicBool::new(false));
    let killing = {
        let done = Arc::clone(&done);
        tokio::spawn(async move {
            let mut closed = 0;
            while closed < 4 && !done.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_millis(300)).await;
                closed += vhost.close_connections().await;
            }
            (vhost, closed)
        })
    };
    let (mut seen, mut former) = (HashSet::new(), None);
    while seen.len() < MESSAGES {
        let batch = drain(&mut consumer, 1).await;
        seen.extend(
            batch
                .iter()
                .flat_map(requests)
                .map(|request| request.origin.accepted_at),
        );
        let last = batch.last().map(|received| received.tag);
        // A batch late, so that some are of a connection that is gone; those must do no harm.
        if let Some(tag) = std::mem::replace(&mut former, last) {
            queue.acknowledge(tag).await.unwrap();
        }
    }
    done.store(true, Ordering::Relaxed);
    let (vhost, closed) = killing.await.unwrap();
    publishing.await.unwrap();
    assert!(closed >= 2, "only {closed} connections were closed");
    let status = rabbit.status();
    assert!(
        status.publisher_reconnections + status.consumer_reconnections >= 2,
        "{status:?}"
    );
    until(async || {
        let settled = rabbit.status();
        settled.publisher_connected && settled.consumer_connected
    })
    .await;
    queue.publish(message(1, 1), Route::Batch).await.unwrap();
    drop(vhost);
}

#[tokio::test]
async fn new_queues_settle_once_before_they_are_used() {
    let vhost = Vhost::new().await;
    let mut settings = vhost.settings();
    settings.settle = Duration::from_secs(1);
    let began = Instant::now();
    declare(&settings).await.unwrap();
    assert!(began.elapsed() >= settings.settle);
    settings.settle = Duration::from_hours(1);
    let again = tokio::time::timeout(Duration::from_secs(10), declare(&settings));
    again.await.expect("the broker knows that they have").unwrap();
}

#[tokio::test]
async fn what_is_wrong_with_the_settings_is_said_without_the_password() {
    let vhost = Vhost::new().await;
    let (theirs, user) = vhost.another_user(["^$", "^$", "^$"]).await;
    let wrong = Settings::new(&theirs.replace(":p@", ":s3cret@")).unwrap();
    let error = declare(&wrong).await.unwrap_err();
    assert!(matches!(error, Error::Setup(_)), "{error:?}");
    let error = error.to_string();
    assert!(
        error.contains("wrong name or password") && !error.contains("s3cret"),
        "{error}"
    );
    let nowhere = Settings::new(&format!("{}-not", vhost.url())).unwrap();
    let error = declare(&nowhere).await.unwrap_err().to_string();
    assert!(error.contains("no vhost"), "{error}");
    let nobody = Settings::new("amqp://u:s3cret@127.0.0.1:1").unwrap();
    let error = declare(&nobody).await.unwrap_err();
    assert!(matches!(error, Error::Away(_)), "{error:?}");
    assert!(!error.to_string().contains("s3cret"), "{error}");
    vhost.delete_user(&user).await;
}

#[tokio::test]
async fn a_user_who_may_only_write_waits_until_the_queues_are_declared() {
    let vhost = Vhost::new().await;
    let (url, user) = vhost.another_user(["^$", r"^herald\.events$", "^$"]).await;
    let error = declare(&settings(&url)).await.unwrap_err().to_string();
    assert!(error.contains("herald migrate"), "{error}");
    let rabbit = open(settings(&url));
    let queue = Queue::Rabbit(rabbit.clone());
    let refused = queue.publish(message(1, 1), Route::Batch).await.unwrap_err();
    assert!(matches!(refused, Error::Away(_)), "{refused:?}");
    declare(&vhost.settings()).await.unwrap();
    until(async || rabbit.status().publisher_connected).await;
    queue.publish(message(1, 1), Route::Batch).await.unwrap();
    let found = depth(&vhost.settings()).await.unwrap();
    assert_eq!((found.ready, found.consumers), (1, 0));
    vhost.delete_user(&user).await;
}

#[tokio::test]
async fn what_others_publish_is_in_their_scope() {
    let vhost = Vhost::new().await;
    let (url, user) = vhost.another_user(["^$", r"^herald\.events$", "^$"]).await;
    let queue = Queue::Rabbit(vhost.open().await);
    publish_as_another(&url, BasicProperties::default(), b"1").await;
    let named = BasicProperties::default()
        .with_user_id(user.as_str().into())
        .with_message_id("m".into());
    publish_as_another(&url, named, b"2").await;
    let mut client = Client::connect(&settings(&url)).await.unwrap();
    let id = EventId(Uuid::from_u128(5));
    let key = "packet.created".into();
    client.publish(&[Outgoing { id, key, text: "3" }]).await.unwrap();
    let received = drain(&mut queue.consumer(), 3).await;
    assert!(
        received
            .iter()
            .all(|received| !received.trusted && received.origins.events() == 1)
    );
    let whose: Vec<_> = received
        .iter()
        .map(|received| &*received.origins.first.account)
        .collect();
    assert_eq!(whose, ["amqp", &user, &user]);
    let ids: Vec<_> = received.iter().map(|received| received.message_id.clone()).collect();
    assert_eq!(ids, [None, Some("m".to_owned()), Some(id.to_string())]);
    vhost.delete_user(&user).await;
}

#[tokio::test]
async fn a_queue_declared_otherwise_is_named_with_the_cure() {
    let vhost = Vhost::new().await;
    let connection: Connection = vhost.settings().connect("test").await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let classic = channel.queue_declare(
        "herald.events".into(),
        QueueDeclareOptions::durable(),
        FieldTable::default(),
    );
    classic.await.unwrap();
    let error = declare(&vhost.settings()).await.unwrap_err();
    assert!(matches!(error, Error::Setup(_)), "{error:?}");
    let error = error.to_string();
    assert!(
        error.starts_with("herald.events ") && error.contains("delete it"),
        "{error}"
    );
}

#[tokio::test]
async fn queues_that_were_deleted_are_declared_again_and_settle_again() {
    let vhost = Vhost::new().await;
    let rabbit = vhost.open().await;
    let queue = Queue::Rabbit(rabbit.clone());
    let mut consumer = queue.consumer();
    until(async || rabbit.status().consumer_connected).await;
    let connection = vhost.settings().connect("test").await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let deleted = channel.queue_delete("herald.events".into(), lapin::options::QueueDeleteOptions::default());
    deleted.await.unwrap();
    until(async || rabbit.status().consumer_reconnections == 1).await;
    queue.publish(message(1, 1), Route::Batch).await.unwrap();
    assert_eq!(sent(&drain(&mut consumer, 1).await[0]), message(1, 1));
}

#[tokio::test]
async fn dead_letters_and_what_nobody_bound_have_queues_of_their_own() {
    let vhost = Vhost::new().await;
    let rabbit = vhost.open().await;
    rabbit
        .publish_dead_letter("packet.created", Uuid::from_u128(1), b"{}".to_vec())
        .await
        .unwrap();
    assert_eq!(vhost.messages("herald.dead-letters").await, Some(1));
    let connection = vhost.settings().connect("test").await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let unbound = channel.queue_unbind(
        "herald.events".into(),
        "herald.events".into(),
        "#".into(),
        FieldTable::default(),
    );
    unbound.await.unwrap();
    let queue = Queue::Rabbit(rabbit);
    queue.publish(message(1, 1), Route::Batch).await.unwrap();
    assert_eq!(vhost.messages("herald.unrouted").await, Some(1));
    let _consumer = queue.consumer();
    for line in [
        "herald_queue_messages_ready{queue=\"herald.dead-letters\"} 1",
        "herald_queue_messages_ready{queue=\"herald.unrouted\"} 1",
        "herald_queue_consumers{queue=\"herald.events\"} 1",
        "herald_broker_connected{connection=\"consume\"} 1",
    ] {
        until_told(&queue, line).await;
    }
}

/// Waits until that many messages are in the queue and none is handed out to a consumer.
async fn until_ready(vhost: &Vhost, messages: u64) {
    until(async || vhost.messages("herald.events").await == Some(messages)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_is_paused_gives_back_what_is_not_acknowledged() {
    let vhost = Vhost::new().await;
    let rabbit = vhost.open().await;
    let queue = Queue::Rabbit(rabbit.clone());
    for n in 0..10 {
        queue.publish(message(n, 10), Route::Batch).await.unwrap();
    }
    let mut consumer = queue.consumer();
    let received = drain(&mut consumer, 10).await;
    queue.acknowledge(received[3].tag).await.unwrap();
    queue.pause();
    until_ready(&vhost, 6).await;
    assert_eq!((rabbit.in_hand(), rabbit.status().in_hand_bytes), (0, 0));
    queue.publish(message(10, 10), Route::Batch).await.unwrap();
    until_ready(&vhost, 7).await;
    // It is of a channel that is gone.
    queue.acknowledge(received[9].tag).await.unwrap();
    queue.resume();
    let again = drain(&mut consumer, 7).await;
    let numbers: Vec<_> = again
        .iter()
        .map(|received| (accepted_at(received), received.redeliveries))
        .collect();
    assert_eq!(numbers, [(4, 1), (5, 1), (6, 1), (7, 1), (8, 1), (9, 1), (10, 0)]);
    queue.acknowledge(again[6].tag).await.unwrap();
    let status = rabbit.status();
    assert!(
        status.consumer_connected && status.consumer_reconnections == 0,
        "{status:?}"
    );
    // A connection that is lost meanwhile is made again.
    queue.pause();
    until(async || {
        vhost.close_connections().await;
        rabbit.status().consumer_reconnections > 0
    })
    .await;
    queue.resume();
    until(async || rabbit.status().publisher_connected).await;
    queue.publish(message(11, 10), Route::Batch).await.unwrap();
    assert_eq!(sent(&drain(&mut consumer, 1).await[0]), message(11, 10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_received_ahead_is_bounded_in_bytes() {
    const LARGE: usize = 64 << 10;
    const BUDGET: u64 = 8 << 16;
    const SMALL_ONES: usize = 1000;
    const LARGE_ONES: usize = 300;
    let vhost = Vhost::new().await;
    let mut settings = vhost.settings();
    settings.budget = 8 * LARGE;
    let rabbit = open(settings);
    until(async || rabbit.status().publisher_connected).await;
    let queue = Queue::Rabbit(rabbit.clone());
    for n in 0..SMALL_ONES + LARGE_ONES {
        let size = if n < SMALL_ONES { 10 } else { LARGE };
        queue.publish(message(n, size), Route::Batch).await.unwrap();
    }
    let mut consumer = queue.consumer();
    let (mut seen, mut most) = (HashSet::new(), 0);
    while seen.len() < SMALL_ONES + LARGE_ONES {
        let batch = drain(&mut consumer, 1).await;
        most = most.max(rabbit.status().in_hand_bytes);
        seen.extend(batch.iter().map(accepted_at));
        queue.acknowledge(batch.last().unwrap().tag).await.unwrap();
    }
    assert!(most <= 2 * BUDGET + (1 << 16), "{most}");
    until(async || rabbit.in_hand() == 0).await;
    // Nothing is acknowledged: no more than fits is taken.
    for n in 0..100 {
        queue.publish(message(n, LARGE), Route::Batch).await.unwrap();
    }
    until(async || {
        let status = rabbit.status();
        status.in_hand_bytes >= BUDGET && vhost.messages("herald.events").await == Some(100 - status.in_hand)
    })
    .await;
    assert!(rabbit.status().in_hand_bytes <= 2 * BUDGET, "{:?}", rabbit.status());
}

/// What RabbitMQ's metrics of publishing say.
fn published(queue: &Queue) -> (u64, u64) {
    let registry = prometheus::Registry::new();
    queue.register_metrics(QueueUse::Publish, &registry).unwrap();
    let families = registry.gather();
    let value = |name: &str| {
        let family = families.iter().find(|family| family.name() == name).unwrap();
        let value = family.get_metric()[0].get_counter().get_value();
        value.to_string().parse().unwrap()
    };
    (
        value("herald_queue_messages_published_total"),
        value("herald_queue_events_published_total"),
    )
}

/// Publishes that many at once, each of an account of its own, and waits until all are confirmed.
async fn publish_at_once(queue: &Queue, count: usize) -> Vec<Result<(), Error>> {
    let publishing = (0..count).map(|n| {
        let mut message = message(n, 100);
        message.origin.account = format!("account {n}").into();
        queue.publish(message, Route::Batch)
    });
    futures_util::future::join_all(publishing).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_arrives_together_goes_together_whosever_it_is() {
    const REQUESTS: usize = 1000;
    let vhost = Vhost::new().await;
    let queue = Queue::Rabbit(vhost.open().await);
    // One alone is not held back for company.
    queue.publish(message(0, 100), Route::Batch).await.unwrap();
    assert_eq!(published(&queue), (1, 1));
    let answers = publish_at_once(&queue, REQUESTS).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    let (messages, events) = published(&queue);
    assert_eq!(events, 1 + (0..REQUESTS).map(|n| 1 + n as u64 % 3).sum::<u64>());
    assert!(messages <= 50, "{REQUESTS} requests went in {messages} messages");
    let received = drain(&mut queue.consumer(), 1 + REQUESTS).await;
    assert_eq!(received.len() as u64, messages);
    let mut seen: Vec<_> = received.iter().flat_map(requests).skip(1).collect();
    seen.sort_by_key(|request| request.origin.accepted_at);
    for (n, request) in seen.iter().enumerate() {
        let account: Arc<str> = format!("account {n}").into();
        assert_eq!(request.origin.account, account);
        assert_eq!(request.body, message(n, 100).body);
    }
    assert_eq!(seen.len(), REQUESTS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_is_told_to_everybody_whose_events_were_in_it_and_to_nobody_else() {
    let vhost = Vhost::new().await;
    vhost
        .policy(json!({"max-length": 1, "overflow": "reject-publish"}))
        .await;
    let queue = Queue::Rabbit(vhost.open().await);
    // A quorum queue takes somewhat more than its limit before it refuses.
    let mut accepted = 0;
    until(async || {
        let answers = publish_at_once(&queue, 100).await;
        accepted += answers.iter().filter(|answer| answer.is_ok()).count();
        answers.iter().any(Result::is_err)
    })
    .await;
    let messages = vhost.messages("herald.events").await.unwrap();
    let mut consumer = queue.consumer();
    let mut received = Vec::new();
    while (received.len() as u64) < messages {
        received.extend(consumer.next(100, 1 << 20).await.unwrap());
    }
    let stored: usize = received.iter().map(|received| requests(received).len()).sum();
    assert_eq!(stored, accepted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_requests_hold_up_no_small_ones() {
    const LARGE: usize = 8 << 20;
    let vhost = Vhost::new().await;
    let queue = Queue::Rabbit(vhost.open().await);
    let large = (0..4).map(|producer| {
        let queue = queue.clone();
        async move {
            for n in 0..6 {
                // How many of these are confirmed in time is the disk's affair.
                drop(queue.publish(message(producer * 100 + n, LARGE), Route::Batch).await);
            }
        }
    });
    let small = async {
        for n in 0..50 {
            queue.publish(message(n, 100), Route::Batch).await.unwrap();
        }
    };
    tokio::join!(futures_util::future::join_all(large), small);
}
