//! A ledger of its own for each test, with a clock that the test sets.

use herald_domain::access::OPERATOR;
use herald_domain::address::EgressPolicy;
use herald_domain::catalogue::{Catalogue, EnateEvent, ObjectType, Webhook};
use herald_domain::delivery::{Attempt, AttemptError, Closed, Delivery, Outcome, Reason};
use herald_domain::event::Objects;
use herald_domain::id::{EventId, EventUid, ObjectGuid, Shard, SubscriptionId};
use herald_domain::index::Topic;
use herald_domain::lanes::{Page, Scope, Search};
use herald_domain::signing::SigningKey;
use herald_domain::subscription::{Subscription, parse};
use herald_domain::time::{Clock, Timestamp};
use herald_ledger::delivering::{NextStep, OutcomeRecord, RecordResult};
use herald_ledger::dispatching::{BatchResult, EventRecord, EventResult, NewEvent};
use herald_ledger::shards::ShardLeases;
use herald_ledger::{Error, Ledger};
use herald_migrations::Migrator;
use sea_orm::ConnectionTrait;
use sea_orm_migration::MigratorTrait;
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

/// Which database a test is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Database {
    Sqlite,
    Postgres,
}

/// Where a test's ledger is.
enum Place {
    File {
        folder: tempfile::TempDir,
        clock: Arc<TestClock>,
    },
    /// A database of its own, on the server that `HERALD_TEST_POSTGRES` names.
    Database { url: String },
}

pub(crate) struct Rig {
    place: Place,
    pub(crate) ledger: Ledger,
    pub(crate) owned: ShardLeases,
}

impl Rig {
    pub(crate) async fn new(database: Database) -> Self {
        Self::at(match database {
            Database::Sqlite => Place::file(),
            Database::Postgres => Place::Database {
                url: own_database().await,
            },
        })
        .await
    }

    /// Over a file that an earlier version made, with so many migrations, and in which it wrote that.
    pub(crate) async fn after(migrations: u32, written: &str) -> Self {
        let place = Place::file();
        if let Place::File { folder, .. } = &place {
            let file = herald_ledger::file_in(folder.path());
            let url = format!("sqlite://{}?mode=rwc", file.display());
            let earlier = Box::pin(sea_orm::Database::connect(url)).await.unwrap();
            Migrator::up(&earlier, Some(migrations)).await.unwrap();
            earlier.execute_unprepared(written).await.unwrap();
            earlier.close().await.unwrap();
        }
        Self::at(place).await
    }

    async fn at(place: Place) -> Self {
        let ledger = place.open().await;
        let owned = ledger.take_all_shards(Uuid::now_v7()).await.unwrap();
        Self { place, ledger, owned }
    }

    pub(crate) fn database(&self) -> Database {
        match self.place {
            Place::File { .. } => Database::Sqlite,
            Place::Database { .. } => Database::Postgres,
        }
    }

    /// Another process over the same ledger.
    pub(crate) async fn another(&self) -> Ledger {
        self.place.open().await
    }

    /// Another process over the same ledger, after this one died.
    pub(crate) async fn restart(&mut self) {
        self.ledger = self.another().await;
        self.owned = self.ledger.take_all_shards(Uuid::now_v7()).await.unwrap();
    }

    /// Lets time pass. A database's own clock cannot be set, so what counts against it is made older.
    pub(crate) async fn pass(&self, time: Duration) {
        let micros = i64::try_from(time.as_micros()).unwrap();
        if let Place::File { clock, .. } = &self.place {
            clock.0.fetch_add(micros, Ordering::Relaxed);
            return;
        }
        let older = |sql: &str| format!("{sql} - {micros}");
        let statements = [
            older("UPDATE event_keys SET recorded_at = recorded_at"),
            older("UPDATE shards SET lease_until = lease_until"),
            older("UPDATE workers SET lease_until = lease_until"),
            older("UPDATE deliveries_open SET busy_until = busy_until"),
        ];
        for sql in statements {
            self.execute(sql).await.unwrap();
        }
    }

    /// Where the test's PostgreSQL database is.
    pub(crate) fn url(&self) -> &str {
        match &self.place {
            Place::Database { url } => url,
            Place::File { .. } => panic!("SQLite has one writer"),
        }
    }

    /// A connection of its own to the test's PostgreSQL database.
    pub(crate) async fn connection(&self) -> sea_orm::DatabaseConnection {
        Box::pin(sea_orm::Database::connect(self.url())).await.unwrap()
    }

    pub(crate) async fn execute(&self, sql: String) -> Result<u64, Error> {
        let write = self
            .ledger
            .store()
            .write(move |txn, _now| Box::pin(async move { herald_ledger::sql::execute(txn, &sql, []).await }));
        write.await
    }

    pub(crate) async fn subscribe(&self, n: u128) -> SubscriptionId {
        let body = serde_json::json!({
            "Webhook": "PacketUpdated", "FilterObjectType": 81, "FilterObjectGUID": guid(1).to_string(), "SubscriberURL": "https://example.com",
        });
        let settings = parse(&body, &Catalogue::default(), &EgressPolicy::default())
            .unwrap()
            .settings;
        let (id, key) = (SubscriptionId(Uuid::from_u128(n)), SigningKey::from_bytes(vec![1]));
        let subscription = Subscription::new(id, OPERATOR, settings, key, self.ledger.now());
        let created = self.ledger.create_subscription(subscription, OPERATOR).await;
        created.unwrap().unwrap();
        id
    }

    /// Deletes a subscription; whether there was one.
    pub(crate) async fn delete(&self, id: SubscriptionId) -> bool {
        let agree = |_: &Subscription| Ok::<(), std::convert::Infallible>(());
        let deleted = self.ledger.delete_subscription(id, OPERATOR, agree).await;
        deleted.unwrap().is_some()
    }

    pub(crate) async fn version(&self) -> i64 {
        self.ledger.registry_version().await.unwrap()
    }

    pub(crate) async fn record(&self, events: Vec<NewEvent>) -> Vec<EventResult> {
        match self
            .ledger
            .record(events, self.version().await, self.owned.clone())
            .await
            .unwrap()
        {
            BatchResult::Done(_, results) => results,
            BatchResult::Stale => panic!("the registry did not change"),
        }
    }

    /// Records an event that matches these and gives its deliveries.
    pub(crate) async fn deliveries(&self, subscriptions: &[SubscriptionId]) -> (EventUid, Vec<Delivery>) {
        let event = event(Uuid::now_v7(), "a", subscriptions);
        let uid = event.record.uid;
        match self.record(vec![event]).await.remove(0) {
            EventResult::New { mine, .. } => (uid, mine),
            EventResult::Repeated { .. } => panic!("it is new"),
        }
    }

    /// What is open of that subscription, with its events.
    pub(crate) async fn open(&self, subscription: SubscriptionId, limit: usize) -> Vec<(Delivery, Arc<EventRecord>)> {
        let open = self
            .ledger
            .open_deliveries(subscription.into(), EARLIEST, limit, &Scope::all())
            .await;
        let whole = |(delivery, event): (Delivery, Option<_>)| (delivery, event.unwrap());
        open.unwrap().into_iter().map(whole).collect()
    }

    pub(crate) async fn finish(&self, finish: OutcomeRecord) -> RecordResult {
        self.finish_all(vec![finish]).await[0]
    }

    pub(crate) async fn finish_all(&self, batch: Vec<OutcomeRecord>) -> Vec<RecordResult> {
        let batch = batch.into_iter().map(|finish| under(&self.owned, finish)).collect();
        self.ledger.record_outcomes(batch).await.unwrap().results
    }

    /// Does a part of the oldest job that cancels, while these are in flight; how many deliveries it cancelled.
    pub(crate) async fn cancel(&self, in_flight: &[Delivery]) -> usize {
        let job = self.ledger.cancel_jobs(&self.owned, 1).await.unwrap().remove(0);
        let in_flight = in_flight.iter().map(|delivery| delivery.id).collect();
        let cancelled = self.ledger.work_on(job, &self.owned, &in_flight).await.unwrap();
        cancelled.webhooks.len()
    }

    /// Makes a subscription active or not.
    pub(crate) async fn set_active(&self, subscription: SubscriptionId, active: bool) {
        let change = move |it: &mut Subscription| {
            it.settings.active = active;
            Ok::<(), ()>(())
        };
        let changed = self.ledger.update_subscription(subscription, OPERATOR, change).await;
        changed.unwrap().unwrap().unwrap();
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

impl Place {
    fn file() -> Self {
        Self::File {
            folder: tempfile::tempdir().unwrap(),
            clock: Arc::new(TestClock(AtomicI64::new(1_800_000_000_000_000))),
        }
    }

    async fn open(&self) -> Ledger {
        match self {
            Self::File { folder, clock } => {
                let file = herald_ledger::file_in(folder.path());
                let clock: Arc<dyn Clock> = Arc::<TestClock>::clone(clock);
                let (ledger, writer) = Ledger::open(&file, clock).await.unwrap();
                tokio::spawn(writer.run());
                ledger
            }
            Self::Database { url } => Ledger::connect(url).await.unwrap(),
        }
    }
}

/// The server's URL, as its superuser.
pub(crate) fn server() -> String {
    std::env::var("HERALD_TEST_POSTGRES")
        .expect("HERALD_TEST_POSTGRES names no server: run tests/run, or tests/with-services cargo test ...")
}

/// Makes a database with a ledger in it; they all go with the server.
pub(crate) async fn own_database() -> String {
    let server = server();
    let name = format!("t{}", Uuid::new_v4().simple());
    let (base, _database) = server.rsplit_once('/').unwrap();
    let connection = Box::pin(sea_orm::Database::connect(&server)).await.unwrap();
    connection
        .execute_unprepared(&format!("CREATE DATABASE {name}"))
        .await
        .unwrap();
    connection.close().await.unwrap();
    let url = format!("{base}/{name}");
    Ledger::migrate(&url).await.unwrap();
    url
}

/// An outcome of whoever owns these.
pub(crate) fn under(owned: &ShardLeases, finish: OutcomeRecord) -> OutcomeRecord {
    let epoch = owned.epoch(Shard::of(finish.delivery.subscription)).unwrap();
    OutcomeRecord { epoch, ..finish }
}

pub(crate) fn guid(n: u128) -> ObjectGuid {
    ObjectGuid(Uuid::from_u128(n))
}

pub(crate) fn topic() -> Topic {
    Topic {
        webhook: Webhook::PacketUpdated,
        object_type: ObjectType::PACKET,
        object: Some(guid(1)),
    }
}

pub(crate) fn event(id: Uuid, account: &str, subscriptions: &[SubscriptionId]) -> NewEvent {
    let record = EventRecord {
        uid: EventUid(Uuid::now_v7()),
        id: EventId(id),
        kind: EnateEvent::PacketUpdated.into(),
        occurred_at: None,
        objects: Objects::from([("Packet", guid(1))]),
        data: r#"{ "Reference":"202234-C" }"#.to_owned(),
        accepted_at: Timestamp::from_micros(1),
        traceparent: None,
    };
    NewEvent {
        record: Arc::new(record),
        account: account.into(),
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

pub(crate) fn delivered(delivery: Delivery, event: EventUid) -> OutcomeRecord {
    let next = NextStep::Close {
        status: Closed::Delivered,
        reason: None,
        deactivate: None,
    };
    OutcomeRecord {
        delivery,
        event,
        epoch: 0,
        attempt: Some(attempt(delivery.attempts + 1, Some(200))),
        next,
    }
}

pub(crate) fn dead(delivery: Delivery, event: EventUid) -> OutcomeRecord {
    let next = NextStep::Close {
        status: Closed::Dead,
        reason: Some(Reason::GaveUp),
        deactivate: None,
    };
    OutcomeRecord {
        delivery,
        event,
        epoch: 0,
        attempt: Some(attempt(delivery.attempts + 1, Some(500))),
        next,
    }
}

pub(crate) fn retried(delivery: Delivery, event: EventUid, due_at: Timestamp) -> OutcomeRecord {
    OutcomeRecord {
        delivery,
        event,
        epoch: 0,
        attempt: Some(attempt(delivery.attempts + 1, None)),
        next: NextStep::Retry(due_at),
    }
}

/// Before everything that is due.
pub(crate) const EARLIEST: Timestamp = Timestamp::from_micros(i64::MIN);

/// The lanes that have open deliveries, found in pages of that many rows.
pub(crate) async fn open_lanes(
    ledger: &Ledger,
    shards: impl IntoIterator<Item = Shard>,
    limit: usize,
) -> Vec<(SubscriptionId, Timestamp)> {
    let (mut search, mut found) = (Search::default(), Vec::new());
    search.ask(shards);
    while let Some(page) = search.next_page() {
        let (lanes, progress) = ledger.open_lanes(&Page { limit, ..page }).await.unwrap();
        found.extend(lanes.iter().map(|lane| (lane.lane.subscription(), lane.due_at)));
        search.found(&progress);
    }
    found
}
