//! Two processes that share a ledger, and a subscriber: shards go from one to the other while a request is
//! in flight.
//!
//! The ledger is the embedded one, whose statements about shards are the same; the two processes share its
//! handle.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use herald_deliver::{Deliver, LeaseKeeper, Parts};
use herald_domain::access::OPERATOR;
use herald_domain::address::EgressPolicy;
use herald_domain::catalogue::{Catalogue, EnateEvent, Webhook};
use herald_domain::event::Objects;
use herald_domain::id::{EventId, EventUid, ObjectGuid, SubscriptionId};
use herald_domain::message::Source;
use herald_domain::signing::SigningKey;
use herald_domain::subscription::{Subscription, parse};
use herald_domain::time::{Clock, SystemClock, Timestamp};
use herald_egress::Client;
use herald_ledger::Ledger;
use herald_ledger::dispatching::{BatchResult, EventRecord, NewEvent};
use herald_ledger::handover::HandOver;
use herald_ledger::history::DeliveryFilter;
use herald_ledger::shards::ShardLeases;
use herald_registry::Registry;
use herald_telemetry::health::Health;
use herald_telemetry::traces::Traces;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const SOON: Duration = Duration::from_secs(20);

struct Shared {
    _folder: tempfile::TempDir,
    ledger: Ledger,
    registry: Arc<Registry>,
    egress: Arc<EgressPolicy>,
    subscription: SubscriptionId,
}

async fn subscribe(ledger: &Ledger, egress: &EgressPolicy, id: SubscriptionId, subscriber: SocketAddr, retry: Value) {
    let body = json!({
        "Webhook": "PacketUpdated", "FilterObjectType": 81, "FilterObjectGUID": Uuid::from_u128(1).to_string(),
        "SubscriberURL": format!("http://{subscriber}/"), "Retry": retry,
    });
    let settings = parse(&body, &Catalogue::default(), egress).unwrap().settings;
    let row = Subscription::new(id, OPERATOR, settings, SigningKey::from_bytes(vec![1]), ledger.now());
    ledger.create_subscription(row, OPERATOR).await.unwrap().unwrap();
}

impl Shared {
    async fn new(subscriber: SocketAddr, clock: Arc<dyn Clock>, retry: Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = herald_ledger::file_in(folder.path());
        let (ledger, writer) = Ledger::open(&file, clock).await.unwrap();
        tokio::spawn(writer.run());
        ledger.ensure_operator(None).await.unwrap();
        let egress = Arc::new(EgressPolicy::new(vec!["127.0.0.0/8".parse().unwrap()]));
        let subscription = SubscriptionId(Uuid::from_u128(7));
        subscribe(&ledger, &egress, subscription, subscriber, retry).await;
        let registry = Arc::new(Registry::load(ledger.clone(), None).await.unwrap());
        let refreshed = Arc::clone(&registry);
        tokio::spawn(async move { refreshed.run(CancellationToken::new(), None).await });
        Self {
            _folder: folder,
            ledger,
            registry,
            egress,
            subscription,
        }
    }

    /// Records an event for the subscription, in a process that sends nothing itself.
    async fn publish(&self) {
        self.publish_for(self.subscription).await;
    }

    async fn publish_for(&self, subscription: SubscriptionId) {
        let record = EventRecord {
            uid: EventUid(self.ledger.ids().next()),
            id: EventId(Uuid::now_v7()),
            kind: EnateEvent::PacketUpdated.into(),
            occurred_at: None,
            objects: Objects::from([("Packet", ObjectGuid(Uuid::from_u128(1)))]),
            data: "{}".to_owned(),
            accepted_at: self.ledger.now(),
            traceparent: None,
        };
        let event = NewEvent {
            record: Arc::new(record),
            account: "a".into(),
            body_hash: 1,
            matches: vec![(subscription, Webhook::PacketUpdated)],
        };
        let version = self.ledger.registry_version().await.unwrap();
        let recorded = self.ledger.record(vec![event], version, ShardLeases::none()).await;
        assert!(matches!(recorded.unwrap(), BatchResult::Done(..)));
    }

    async fn come_to(&self, status: &str, count: i64) {
        let arrive = async {
            while self.closed(status).await < count {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(SOON, arrive)
            .await
            .unwrap_or_else(|_| panic!("never {count} {status}"));
    }

    async fn closed(&self, status: &str) -> i64 {
        let account = self.ledger.audit().await.unwrap();
        let count = account.deliveries.iter().find(|(found, _)| found.name() == status);
        count.unwrap().1
    }
}

struct Process {
    owned: watch::Receiver<ShardLeases>,
    soft: CancellationToken,
    hard: CancellationToken,
    running: JoinHandle<()>,
}

impl Process {
    fn start(shared: &Shared) -> Self {
        Self::start_with(shared, Arc::clone(&shared.registry))
    }

    fn start_with(shared: &Shared, registry: Arc<Registry>) -> Self {
        let (keeper, owned) = LeaseKeeper::new(shared.ledger.clone(), Uuid::now_v7());
        let parts = Parts {
            ledger: shared.ledger.clone(),
            registry,
            leases: owned.clone(),
            keeper: Some(keeper),
            dead_letters: None,
            hand_over: HandOver::default(),
            health: Health::default(),
            traces: Traces::default(),
            client: Arc::new(Client::new(Arc::clone(&shared.egress), &[], &[]).unwrap()),
            source: Source::default(),
        };
        let deliver = Deliver::new(parts, &prometheus::Registry::new()).unwrap();
        let (soft, hard) = (CancellationToken::new(), CancellationToken::new());
        let running = tokio::spawn(deliver.run(soft.clone(), hard.clone()));
        Self {
            owned,
            soft,
            hard,
            running,
        }
    }

    async fn owns(&mut self, shards: usize) {
        let enough = self.owned.wait_for(|owned| owned.shards().count() == shards);
        let found = timeout(SOON, enough).await.map(|found| found.map(drop));
        found.unwrap_or_else(|_| panic!("never {shards}")).unwrap();
    }
}

/// The next request; whoever reads it may answer it.
async fn request(listener: &TcpListener) -> TcpStream {
    request_and_head(listener).await.0
}

async fn request_and_head(listener: &TcpListener) -> (TcpStream, String) {
    let (mut stream, _) = timeout(SOON, listener.accept()).await.expect("a request").unwrap();
    let mut head = [0; 4096];
    let length = stream.read(&mut head).await.unwrap();
    assert!(length > 0);
    (stream, String::from_utf8_lossy(&head[..length]).into_owned())
}

/// A header of a request.
fn header(head: &str, name: &str) -> String {
    let line = head
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    line.unwrap_or_else(|| panic!("no {name}: {head}")).to_owned()
}

async fn answer(stream: &mut TcpStream, status: &str) {
    let text = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    stream.write_all(text.as_bytes()).await.unwrap();
}

async fn setup() -> (TcpListener, Shared) {
    setup_by(Arc::new(SystemClock), json!({})).await
}

async fn setup_by(clock: Arc<dyn Clock>, retry: Value) -> (TcpListener, Shared) {
    // Another test may have done so.
    drop(rustls::crypto::ring::default_provider().install_default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let shared = Shared::new(listener.local_addr().unwrap(), clock, retry).await;
    (listener, shared)
}

#[tokio::test]
async fn shards_are_shared_out_and_handed_over_with_a_request_in_flight() {
    let (listener, shared) = setup().await;
    let mut first = Process::start(&shared);
    first.owns(256).await;
    shared.publish().await;
    let (mut in_flight, at_first) = request_and_head(&listener).await;

    // The first keeps what is in flight, for enough of its shards have nothing.
    let mut second = Process::start(&shared);
    second.owns(128).await;
    first.owns(128).await;

    first.soft.cancel();
    second.owns(256).await;
    assert!(!first.running.is_finished(), "its request is in flight");
    // The second has looked at the lane when it sends what came later.
    shared.publish().await;
    let (mut later, meanwhile) = request_and_head(&listener).await;
    answer(&mut later, "200 OK").await;
    answer(&mut in_flight, "200 OK").await;
    timeout(SOON, first.running).await.expect("an end").unwrap();
    shared.come_to("Delivered", 2).await;

    shared.publish().await;
    let (mut last, at_last) = request_and_head(&listener).await;
    answer(&mut last, "200 OK").await;
    second.soft.cancel();
    timeout(SOON, second.running).await.expect("an end").unwrap();
    assert_eq!(shared.closed("Delivered").await, 3);
    let ids = [at_first, meanwhile, at_last].map(|head| header(&head, "webhook-id"));
    assert_eq!(HashSet::from(ids).len(), 3, "one was sent twice");
    assert_eq!(
        shared
            .ledger
            .look_at_shards(Duration::from_secs(15))
            .await
            .unwrap()
            .free,
        256
    );
}

#[tokio::test]
async fn a_failure_that_was_handed_over_counts_and_the_new_owner_retries() {
    let (listener, shared) = setup().await;
    let mut first = Process::start(&shared);
    first.owns(256).await;
    shared.publish().await;
    let mut in_flight = request(&listener).await;
    let mut second = Process::start(&shared);
    first.soft.cancel();
    second.owns(256).await;
    answer(&mut in_flight, "500 Internal Server Error").await;
    timeout(SOON, first.running).await.expect("an end").unwrap();

    let mut retried = request(&listener).await;
    answer(&mut retried, "200 OK").await;
    second.soft.cancel();
    timeout(SOON, second.running).await.expect("an end").unwrap();
    assert_eq!(shared.closed("Delivered").await, 1);
    let deliveries = shared.ledger.deliveries(&DeliveryFilter::default(), 10).await.unwrap();
    assert_eq!(deliveries[0].attempts, 2, "both attempts count");
    first.hard.cancel();
    second.hard.cancel();
}

#[tokio::test]
async fn a_subscription_that_this_process_has_not_heard_of_yet_is_not_taken_for_deleted() {
    let (listener, shared) = setup().await;
    // Nobody keeps this one up to date, as if its next look were still to come.
    let registry = Arc::new(Registry::load(shared.ledger.clone(), None).await.unwrap());
    let mut process = Process::start_with(&shared, Arc::clone(&registry));
    process.owns(256).await;
    let new = SubscriptionId(Uuid::from_u128(8));
    registry.refresh().await.unwrap();
    subscribe(
        &shared.ledger,
        &shared.egress,
        new,
        listener.local_addr().unwrap(),
        json!({}),
    )
    .await;
    shared.publish_for(new).await;
    answer(&mut request(&listener).await, "200 OK").await;
    process.soft.cancel();
    timeout(SOON, process.running).await.expect("an end").unwrap();
    assert_eq!(shared.closed("Delivered").await, 1);
    assert_eq!(shared.closed("Cancelled").await, 0);
}

#[tokio::test]
async fn what_is_in_flight_when_its_subscription_is_deactivated_is_not_cancelled() {
    let (listener, shared) = setup().await;
    let mut process = Process::start(&shared);
    process.owns(256).await;
    // One waits for its next attempt, and two are in flight.
    shared.publish().await;
    answer(&mut request(&listener).await, "500 Internal Server Error").await;
    shared.publish().await;
    let mut well = request(&listener).await;
    shared.publish().await;
    let mut badly = request(&listener).await;

    let deactivate = |it: &mut Subscription| {
        it.settings.active = false;
        Ok::<(), ()>(())
    };
    let changed = shared
        .ledger
        .update_subscription(shared.subscription, OPERATOR, deactivate);
    changed.await.unwrap().unwrap().unwrap();
    shared.come_to("Cancelled", 1).await;
    assert_eq!((shared.closed("Cancelled").await, shared.closed("Open").await), (1, 2));

    answer(&mut well, "200 OK").await;
    answer(&mut badly, "500 Internal Server Error").await;
    shared.come_to("Delivered", 1).await;
    shared.come_to("Cancelled", 2).await;
    let deliveries = shared.ledger.deliveries(&DeliveryFilter::default(), 10).await.unwrap();
    assert!(
        deliveries.iter().all(|delivery| delivery.attempts == 1),
        "{deliveries:?}"
    );
    process.soft.cancel();
    timeout(SOON, process.running).await.expect("an end").unwrap();
}

/// The machine's clock, set wrong by so many seconds.
#[derive(Debug, Default)]
struct Wrong(AtomicI64);

impl Clock for Wrong {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(SystemClock.now().as_micros() + self.0.load(Ordering::Relaxed) * 1_000_000)
    }
}

#[tokio::test]
async fn a_clock_that_is_set_stops_no_delivery_and_is_what_messages_are_signed_by() {
    let clock = Arc::new(Wrong::default());
    let soon = json!({ "InitialSeconds": 0.2, "MaxSeconds": 0.4 });
    let (listener, shared) = setup_by(Arc::<Wrong>::clone(&clock), soon).await;
    let mut process = Process::start(&shared);
    process.owns(256).await;
    for seconds in [0, -3600, 7200, -86400] {
        clock.0.store(seconds, Ordering::Relaxed);
        shared.publish().await;
        let (mut stream, head) = request_and_head(&listener).await;
        let signed: i64 = header(&head, "webhook-timestamp").parse().unwrap();
        let off = signed - clock.now().as_unix_seconds();
        assert!((-20..=0).contains(&off), "set by {seconds} s: {off}");
        // A failure is retried at the first try's delay, and not when the former time comes again.
        answer(&mut stream, "500 Internal Server Error").await;
        answer(&mut request(&listener).await, "200 OK").await;
    }
    process.soft.cancel();
    timeout(SOON, process.running).await.expect("an end").unwrap();
    assert_eq!(shared.closed("Delivered").await, 4);
}
