//! A ledger of its own for each test, with a clock that the test sets.

use herald_domain::access::OPERATOR;
use herald_domain::address::EgressPolicy;
use herald_domain::catalogue::{EventType, ObjectType, Webhook};
use herald_domain::delivery::{Attempt, AttemptError, Closed, Delivery, Outcome, Reason};
use herald_domain::event::Objects;
use herald_domain::id::{EventId, EventUid, ObjectGuid, SubscriptionId};
use herald_domain::index::Topic;
use herald_domain::signing::SigningKey;
use herald_domain::subscription::{Subscription, parse};
use herald_domain::time::{Clock, Timestamp};
use herald_ledger::Ledger;
use herald_ledger::delivering::{Finish, Finished, Then};
use herald_ledger::dispatching::{Disposition, EventRecord, NewEvent, Recorded};
use herald_ledger::shards::Ownership;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use uuid::Uuid;

#[derive(Debug)]
pub(crate) struct TestClock(AtomicI64);

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        // Every look is a microsecond later, so that nothing happens at the same time.
        Timestamp::from_micros(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

pub(crate) struct Rig {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) clock: Arc<TestClock>,
    pub(crate) ledger: Ledger,
    pub(crate) owned: Ownership,
}

impl Rig {
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(TestClock(AtomicI64::new(1_800_000_000_000_000)));
        let (ledger, owned) = open(&folder, &clock).await;
        Self {
            folder,
            clock,
            ledger,
            owned,
        }
    }

    /// Another process over the same file, after this one died.
    pub(crate) async fn restart(&mut self) {
        (self.ledger, self.owned) = open(&self.folder, &self.clock).await;
    }

    pub(crate) fn pass(&self, time: Duration) {
        let micros = i64::try_from(time.as_micros()).unwrap();
        self.clock.0.fetch_add(micros, Ordering::Relaxed);
    }

    pub(crate) async fn subscribe(&self, n: u128) -> SubscriptionId {
        let body = serde_json::json!({
            "Webhook": "PacketUpdated", "FilterObjectType": 81, "FilterObjectGUID": guid(1).to_string(), "SubscriberURL": "https://example.com",
        });
        let now = self.ledger.now();
        let subscription = Subscription {
            id: SubscriptionId(Uuid::from_u128(n)),
            owner: OPERATOR,
            settings: parse(&body, &EgressPolicy::default()).unwrap().settings,
            key: SigningKey::from_bytes(vec![1]),
            created_at: now,
            updated_at: now,
            open_from: now,
            deleted: false,
        };
        let id = subscription.id;
        self.ledger.create_subscription(subscription).await.unwrap();
        id
    }

    pub(crate) async fn version(&self) -> i64 {
        self.ledger.registry_version().await.unwrap()
    }

    pub(crate) async fn record(&self, events: Vec<NewEvent>) -> Vec<Disposition> {
        match self
            .ledger
            .record(events, self.version().await, self.owned.clone())
            .await
            .unwrap()
        {
            Recorded::Done(dispositions) => dispositions,
            Recorded::Stale => panic!("the registry did not change"),
        }
    }

    /// Records an event that matches these and gives its deliveries.
    pub(crate) async fn deliveries(&self, subscriptions: &[SubscriptionId]) -> (EventUid, Vec<Delivery>) {
        let event = event(Uuid::now_v7(), "a", subscriptions);
        let uid = event.record.uid;
        match self.record(vec![event]).await.remove(0) {
            Disposition::New { mine, .. } => (uid, mine),
            Disposition::Repeated { .. } => panic!("it is new"),
        }
    }

    pub(crate) async fn finish(&self, finish: Finish) -> Finished {
        self.ledger.finish(vec![finish], self.owned.clone()).await.unwrap()[0]
    }

    /// The account must be exact at every moment.
    pub(crate) async fn assert_exact(&self) {
        let account = self.ledger.audit().await.unwrap();
        assert_eq!(account.differences, Vec::<String>::new());
        assert_eq!(account.matched, account.deliveries.iter().map(|(_, n)| n).sum::<i64>());
    }

    pub(crate) async fn count(&self, status: &str) -> i64 {
        let account = self.ledger.audit().await.unwrap();
        account.deliveries.iter().find(|(s, _)| s.name() == status).unwrap().1
    }
}

async fn open(folder: &tempfile::TempDir, clock: &Arc<TestClock>) -> (Ledger, Ownership) {
    let file = herald_ledger::file_in(folder.path());
    let clock: Arc<dyn Clock> = Arc::<TestClock>::clone(clock);
    let (ledger, writer) = Ledger::open(&file, clock).await.unwrap();
    tokio::spawn(writer.run());
    let owned = ledger.take_all_shards(Uuid::now_v7()).await.unwrap();
    (ledger, owned)
}

pub(crate) fn guid(n: u128) -> ObjectGuid {
    ObjectGuid(Uuid::from_u128(n))
}

pub(crate) fn topic() -> Topic {
    Topic {
        webhook: Webhook::PacketUpdated,
        object_type: ObjectType::Packet,
        object: Some(guid(1)),
    }
}

pub(crate) fn event(id: Uuid, account: &str, subscriptions: &[SubscriptionId]) -> NewEvent {
    let record = EventRecord {
        uid: EventUid(Uuid::now_v7()),
        id: EventId(id),
        kind: EventType::PacketUpdated,
        objects: Objects {
            packet: Some(guid(1)),
            ..Objects::default()
        },
        data: r#"{ "Reference":"202234-C" }"#.to_owned(),
        accepted_at: Timestamp::from_micros(1),
        traceparent: None,
    };
    NewEvent {
        record: Arc::new(record),
        account: account.into(),
        occurred_at: None,
        body_hash: 1,
        matches: subscriptions.iter().map(|id| (*id, Webhook::PacketUpdated)).collect(),
    }
}

pub(crate) fn attempt(number: u32, status: Option<u16>) -> Attempt {
    let outcome = match status {
        Some(status) => Outcome::Answered {
            status,
            retry_after: None,
        },
        None => Outcome::Failed(AttemptError::Timeout),
    };
    let at = Timestamp::from_micros(1_800_000_000_000_000 + i64::from(number));
    Attempt {
        number,
        at,
        duration: Duration::from_millis(7),
        outcome,
        detail: None,
    }
}

pub(crate) fn delivered(delivery: Delivery, event: EventUid) -> Finish {
    let then = Then::Close {
        status: Closed::Delivered,
        reason: None,
        deactivate: None,
    };
    Finish {
        delivery,
        event,
        attempt: Some(attempt(delivery.attempts + 1, Some(200))),
        then,
    }
}

pub(crate) fn dead(delivery: Delivery, event: EventUid) -> Finish {
    let then = Then::Close {
        status: Closed::Dead,
        reason: Some(Reason::GaveUp),
        deactivate: None,
    };
    Finish {
        delivery,
        event,
        attempt: Some(attempt(delivery.attempts + 1, Some(500))),
        then,
    }
}

pub(crate) fn retried(delivery: Delivery, event: EventUid, due_at: Timestamp) -> Finish {
    Finish {
        delivery,
        event,
        attempt: Some(attempt(delivery.attempts + 1, None)),
        then: Then::Retry(due_at),
    }
}
