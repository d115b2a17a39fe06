//! One suite for every queue.

use super::*;
use herald_domain::time::SystemClock;
use herald_ledger::store::{Store, Writer};
use std::time::Duration;

fn message(n: usize, bytes: usize) -> Message {
    Message {
        account: "a".into(),
        accepted_at: Timestamp::from_micros(i64::try_from(n).unwrap()),
        traceparent: None,
        events: 1 + n % 3,
        body: n.to_string().into_bytes().into_iter().cycle().take(bytes).collect(),
    }
}

struct Rig {
    folder: tempfile::TempDir,
    queue: Queue,
}

impl Rig {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let queue = Self::open(&folder).await;
        Self { folder, queue }
    }

    async fn open(folder: &tempfile::TempDir) -> Queue {
        let file = herald_ledger::file_in(folder.path());
        let clock = Arc::new(SystemClock);
        let (ledger, writer): (_, Writer) = herald_ledger::Ledger::open(&file, clock).await.unwrap();
        let store: Store = ledger.store().clone();
        let (queue, publisher) = Embedded::open(store);
        tokio::spawn(writer.run());
        tokio::spawn(publisher);
        Queue::Embedded(queue)
    }

    /// What a consumer sees after a crash.
    async fn restarted(&self) -> Consumer {
        Self::open(&self.folder).await.consumer()
    }
}

async fn drain(consumer: &mut Consumer, count: usize) -> Vec<Received> {
    let mut all = Vec::new();
    while all.len() < count {
        all.extend(consumer.next(100, 1 << 20).await.unwrap());
    }
    all
}

#[tokio::test]
async fn what_is_published_at_once_comes_whole_and_in_each_publishers_order() {
    let rig = Rig::new().await;
    let publishers: Vec<_> = (0..8)
        .map(|publisher| {
            let queue = rig.queue.clone();
            tokio::spawn(async move {
                for n in 0..50 {
                    queue.publish(message(publisher * 1000 + n, 40)).await.unwrap();
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
            .map(|received| received.message.clone())
            .filter(|message| message.accepted_at.as_micros() / 1000 == publisher)
            .collect();
        let sent: Vec<_> = (0..50)
            .map(|n| message(usize::try_from(publisher).unwrap() * 1000 + n, 40))
            .collect();
        assert_eq!(ours, sent);
    }
}

#[tokio::test]
async fn what_is_not_acknowledged_comes_again_after_a_restart() {
    let rig = Rig::new().await;
    for n in 0..10 {
        rig.queue.publish(message(n, 10)).await.unwrap();
    }
    let mut consumer = rig.queue.consumer();
    let received = drain(&mut consumer, 10).await;
    assert_eq!(rig.queue.in_transit().await.unwrap(), 19);
    rig.queue.acknowledge(received[3].tag).await.unwrap();
    let mut again = rig.restarted().await;
    let rest = drain(&mut again, 6).await;
    let numbers: Vec<_> = rest
        .iter()
        .map(|received| received.message.accepted_at.as_micros())
        .collect();
    assert_eq!(numbers, [4, 5, 6, 7, 8, 9]);
    rig.queue.acknowledge(rest[5].tag).await.unwrap();
    assert_eq!(rig.queue.in_transit().await.unwrap(), 0);
    rig.queue.publish(message(10, 10)).await.unwrap();
    let mut third = rig.restarted().await;
    assert_eq!(drain(&mut third, 1).await[0].message, message(10, 10));
}

#[tokio::test]
async fn a_batch_stays_within_its_bounds_but_never_empty() {
    let rig = Rig::new().await;
    for n in 0..4 {
        rig.queue.publish(message(0, 3_000_000 + n)).await.unwrap();
    }
    let mut consumer = rig.queue.consumer();
    for _ in 0..4 {
        assert_eq!(consumer.next(100, 1000).await.unwrap().len(), 1);
    }
    for n in [2, 2, 2] {
        rig.queue.publish(message(n, 10)).await.unwrap();
    }
    assert_eq!(consumer.next(6, 1 << 20).await.unwrap().len(), 2);
}

#[tokio::test]
async fn an_idle_consumer_wakes_when_a_message_arrives() {
    let rig = Rig::new().await;
    let mut consumer = rig.queue.consumer();
    let waiting = tokio::spawn(async move { consumer.next(10, 1000).await });
    tokio::task::yield_now().await;
    rig.queue.publish(message(1, 10)).await.unwrap();
    let received = tokio::time::timeout(Duration::from_secs(10), waiting)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(received[0].message, message(1, 10));
}
