//! Producers that never give up and subscribers with moods, and the proof at the end that nothing is
//! missing.
//!
//! Producers publish with `Id`s of their own and repeat what they got no answer to, over HTTP and, where there is a
//! broker, over AMQP as well; subscribers fail, reset, hang and dawdle now and then. At the end every `Id` that was answered with 202 has arrived or
//! is accounted for, and what arrived twice came with the same `webhook-id` and the same bytes.

use crate::scene::Scene;
use herald_tests::api::text;
use herald_tests::producer::{self, Outgoing};
use herald_tests::samples::{id_of, merged, packet_of};
use herald_tests::{Answer, Api, Request};
use http::Method;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinHandle;
use uuid::Uuid;

const PRODUCERS: usize = 4;
const SETTLING: Duration = Duration::from_mins(3);

/// A random number below `limit`.
pub(crate) fn random(limit: u64) -> u64 {
    Uuid::new_v4().as_u64_pair().1 % limit
}

/// A random moment; nothing is expected to have happened by then.
pub(crate) async fn a_while() {
    tokio::time::sleep(Duration::from_millis(200 + random(1500))).await;
}

/// How often to kill: `HERALD_KILLS`, 6 if unset, more in `tests/run --long`.
pub(crate) fn kills() -> u64 {
    std::env::var("HERALD_KILLS").map_or(6, |kills| kills.parse().expect("a number in HERALD_KILLS"))
}

/// What a producer waits between its requests. A busy machine can deliver at that pace, and the longer kills go on, the
/// slower it is: they need load, and no ledger that takes longer to audit each time.
fn pause() -> Duration {
    Duration::from_millis(60.max(4 * kills()))
}

/// Says a result past the capture of test output, because the numbers are one.
pub(crate) fn say(result: &str) {
    writeln!(std::io::stdout(), "{result}").expect("stdout is open");
}

/// Requests that were answered with success, by path and `webhook-id`.
#[derive(Clone, Default)]
struct Successes(Arc<Mutex<HashMap<(String, String), usize>>>);

impl Successes {
    fn count(&self, request: &Request) {
        let key = (request.path.clone(), request.header("webhook-id").to_owned());
        *self.all().entry(key).or_default() += 1;
    }

    fn all(&self) -> std::sync::MutexGuard<'_, HashMap<(String, String), usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn repeated(&self) -> usize {
        self.all().values().map(|count| count - 1).sum()
    }
}

/// What a subscriber does that has good and bad moments.
fn moody(request: &Request, successes: &Successes) -> Answer {
    match random(100) {
        0..12 => Answer::status(500),
        12..15 => Answer::reset(),
        15..17 => Answer::hang(),
        17..20 => Answer::status(503).header("Retry-After", "1"),
        mood => {
            successes.count(request);
            let answer = Answer::ok();
            if mood < 40 {
                answer.after(Duration::from_millis(random(40)))
            } else {
                answer
            }
        }
    }
}

/// What the producers share.
#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    accepted: AtomicUsize,
    refused: AtomicUsize,
}

/// Publishes until told to stop, and returns the `Id`s that were answered with 202.
async fn produce(api: Api, company: Uuid, shared: Arc<Shared>) -> Vec<String> {
    let mut accepted = Vec::new();
    while !shared.stop.load(Ordering::Relaxed) {
        let events: Vec<_> = (0..=random(10)).map(|_| packet_of(company)).collect();
        let body: Value = if events.len() == 1 {
            events[0].clone()
        } else {
            json!(events)
        };
        // No answer, or 503, means unknown: the same again until it is known.
        loop {
            match api.try_send(Method::POST, "/v1/events", &body).await {
                Ok(reply) if reply.status == 202 => break,
                Ok(reply) => assert_eq!(reply.status, 503, "{}", reply.text()),
                Err(_away) => {}
            }
            shared.refused.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        shared.accepted.fetch_add(events.len(), Ordering::Relaxed);
        accepted.extend(events.iter().map(id_of));
        tokio::time::sleep(pause()).await;
    }
    accepted
}

/// Publishes over AMQP until told to stop, and returns the `Id`s that were confirmed. What was not is published again.
fn produce_amqp(broker: &str, company: Uuid, shared: &Shared) -> Vec<String> {
    let mut accepted = Vec::new();
    while !shared.stop.load(Ordering::Relaxed) {
        let mut waiting: Vec<_> = (0..=random(20)).map(|_| packet_of(company)).collect();
        while !waiting.is_empty() {
            let messages: Vec<_> = waiting.iter().map(|event| Outgoing::new(event.to_string())).collect();
            let answers = producer::try_publish(broker, &messages).unwrap_or_default();
            let mut answers = answers.iter();
            waiting.retain(|event| {
                let confirmed = answers.next().is_some_and(|answer| answer == "confirmed");
                if confirmed {
                    accepted.push(id_of(event));
                    shared.accepted.fetch_add(1, Ordering::Relaxed);
                }
                !confirmed
            });
        }
        // Each time is a process of Python's, which costs more than what it publishes.
        std::thread::sleep(pause().max(Duration::from_secs(3)));
    }
    accepted
}

/// The load on one scene.
pub(crate) struct Load {
    subscriptions: BTreeMap<&'static str, String>,
    successes: Successes,
    shared: Arc<Shared>,
    producers: Vec<JoinHandle<Vec<String>>>,
    beside: u64,
}

impl Load {
    /// Subscribes, and begins to publish.
    pub(crate) async fn start(scene: &Scene) -> Self {
        let successes = Successes::default();
        let quick = json!({
            "TimeoutSeconds": 1, "Retry": { "InitialSeconds": 0.1, "Multiplier": 1.5, "MaxSeconds": 1 }
        });
        let doomed = merged(quick.clone(), json!({ "Retry": { "MaxAttempts": 2 } }));
        let mut subscriptions = BTreeMap::new();
        for (path, settings) in [
            ("/steady", quick.clone()),
            ("/moody", quick.clone()),
            ("/moodier", quick),
            ("/doomed", doomed),
        ] {
            let successes = successes.clone();
            scene.receiver.script(path, move |request| match request.path.as_str() {
                "/doomed" => Answer::status(422),
                "/steady" => {
                    successes.count(request);
                    Answer::ok()
                }
                _ => moody(request, &successes),
            });
            subscriptions.insert(path, scene.subscribe(path, settings).await.guid().to_owned());
        }
        let shared = Arc::new(Shared::default());
        let mut producers: Vec<_> = (0..PRODUCERS)
            .map(|_| tokio::spawn(produce(scene.api.clone(), scene.company, Arc::clone(&shared))))
            .collect();
        if let Some(broker) = scene.herald.broker().map(str::to_owned) {
            let (company, shared) = (scene.company, Arc::clone(&shared));
            producers.push(tokio::task::spawn_blocking(move || {
                produce_amqp(&broker, company, &shared)
            }));
        }
        Self {
            subscriptions,
            successes,
            shared,
            producers,
            beside: 0,
        }
    }

    /// That many events, which nobody subscribed to, were accepted beside these.
    pub(crate) fn beside(self, events: u64) -> Self {
        Self { beside: events, ..self }
    }

    /// How many events have been accepted so far.
    pub(crate) fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::Relaxed)
    }

    /// How many requests were not answered with 202 so far.
    pub(crate) fn refused(&self) -> usize {
        self.shared.refused.load(Ordering::Relaxed)
    }

    /// Ends the producers, waits for all that they were told, and proves that it is all there. Prints the
    /// numbers after `what`.
    pub(crate) async fn finish(self, scene: &Scene, what: &str) {
        self.shared.stop.store(true, Ordering::Relaxed);
        let refused = self.refused();
        let mut accepted = BTreeSet::new();
        for producer in self.producers {
            accepted.extend(producer.await.expect("a producer does not panic"));
        }
        let audit = scene.herald.settled(SETTLING).await;
        let checked = scene.herald.audit_ids(accepted.iter().map(String::as_str)).exact();
        assert_eq!(checked.account["Missing"], json!([]));
        assert_eq!(checked.count("InTransit"), 0, "{}", checked.output);
        let events = accepted.len() as u64;
        assert_eq!(audit.count("Events"), events + self.beside, "{}", audit.output);
        assert_eq!(audit.count("Matched"), 4 * events, "{}", audit.output);

        let requests = scene.receiver.requests();
        check_identity(&requests);
        let mut delivered = 0;
        for (path, subscription) in &self.subscriptions {
            let deliveries = scene.api.deliveries_of(subscription).await;
            delivered += check_deliveries(path, &deliveries, &accepted, &self.successes);
        }
        let (accepted, sent, duplicates) = (accepted.len(), requests.len(), self.successes.repeated());
        say(&format!(
            "{what}: {accepted} events accepted, {refused} requests without 202, {delivered} deliveries delivered, \
             {sent} requests, {duplicates} duplicates"
        ));
    }
}

/// Each accepted event has a delivery that ended as it may; gives how many were delivered.
fn check_deliveries(path: &str, deliveries: &[Value], accepted: &BTreeSet<String>, successes: &Successes) -> usize {
    let told: BTreeSet<_> = deliveries
        .iter()
        .map(|delivery| text(&delivery["EventId"]).to_owned())
        .collect();
    assert_eq!(&told, accepted, "{path}: what was accepted and what has a delivery");
    let successes = successes.all();
    for delivery in deliveries {
        let key = (path.to_owned(), text(&delivery["Id"]).to_owned());
        match text(&delivery["Status"]) {
            "Delivered" => assert!(
                successes.contains_key(&key),
                "{path} never answered {delivery} with success"
            ),
            "Dead" if path == "/doomed" => {}
            other => panic!("{path}: {other}: {delivery}"),
        }
    }
    let delivered = deliveries.iter().filter(|delivery| delivery["Status"] == "Delivered");
    delivered.count()
}

/// Whatever is said twice is said in the same words under the same `webhook-id`.
pub(crate) fn check_identity(requests: &[Request]) {
    let mut ids = HashMap::new();
    let mut bodies = HashMap::new();
    for request in requests {
        let about = (request.path.clone(), request.event_id().to_owned());
        let id = ids
            .entry(about)
            .or_insert_with(|| request.header("webhook-id").to_owned());
        assert_eq!(
            id,
            request.header("webhook-id"),
            "one event has one webhook-id at one subscriber"
        );
        let body = bodies.entry(id.clone()).or_insert_with(|| request.body.clone());
        assert_eq!(*body, request.body, "a repeat has the same bytes");
    }
}
