//! kill -9 of the whole process at random moments under load, in a loop.
//!
//! Producers publish with `Id`s of their own and repeat what they got no answer to; subscribers fail,
//! reset, hang and dawdle now and then. At the end every `Id` that was answered with 202 has arrived or
//! is accounted for, and what arrived twice came with the same `webhook-id` and the same bytes.
//! `HERALD_KILLS` sets how often (6 if unset; `tests/run --long` sets more).

use crate::scene::Scene;
use herald_tests::api::text;
use herald_tests::samples::{id_of, merged, packet_of};
use herald_tests::{Answer, Api, Request};
use http::Method;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use uuid::Uuid;

const PRODUCERS: usize = 4;
const SETTLING: Duration = Duration::from_mins(3);

/// A random number below `limit`.
fn random(limit: u64) -> u64 {
    Uuid::new_v4().as_u64_pair().1 % limit
}

/// Requests that were answered with success, by path and `webhook-id`.
type Successes = Arc<Mutex<HashMap<(String, String), usize>>>;

/// What a subscriber does that has good and bad moments.
fn moody(request: &Request, successes: &Successes) -> Answer {
    match random(100) {
        0..12 => Answer::status(500),
        12..15 => Answer::reset(),
        15..17 => Answer::hang(),
        17..20 => Answer::status(503).header("Retry-After", "1"),
        mood => {
            *successes
                .lock()
                .expect("nobody panics here")
                .entry(key_of(request))
                .or_default() += 1;
            let answer = Answer::ok();
            if mood < 40 {
                answer.after(Duration::from_millis(random(40)))
            } else {
                answer
            }
        }
    }
}

fn key_of(request: &Request) -> (String, String) {
    (request.path.clone(), request.header("webhook-id").to_owned())
}

/// Publishes until told to stop, and returns the `Id`s that were answered with 202.
async fn produce(api: Api, company: Uuid, stop: Arc<AtomicBool>) -> Vec<String> {
    let mut accepted = Vec::new();
    while !stop.load(Ordering::Relaxed) {
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
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        accepted.extend(events.iter().map(id_of));
        // A pace that a busy machine can deliver at; the kills need load, not a backlog of minutes.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    accepted
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_under_load_loses_nothing_that_was_accepted() {
    let kills = std::env::var("HERALD_KILLS").map_or(6, |kills| kills.parse().expect("a number in HERALD_KILLS"));
    let mut scene = Scene::start().await;
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
        let successes = Arc::clone(&successes);
        scene.receiver.script(path, move |request| match request.path.as_str() {
            "/doomed" => Answer::status(500),
            "/steady" => {
                *successes
                    .lock()
                    .expect("nobody panics here")
                    .entry(key_of(request))
                    .or_default() += 1;
                Answer::ok()
            }
            _ => moody(request, &successes),
        });
        subscriptions.insert(path, scene.subscribe(path, settings).await.guid().to_owned());
    }
    let stop = Arc::new(AtomicBool::new(false));
    let producers: Vec<_> = (0..PRODUCERS)
        .map(|_| tokio::spawn(produce(scene.api.clone(), scene.company, Arc::clone(&stop))))
        .collect();
    for _ in 0..kills {
        // The random moment itself; nothing is expected to have happened by then.
        tokio::time::sleep(Duration::from_millis(200 + random(1500))).await;
        scene.herald.kill().await;
        drop(scene.herald.audit().exact());
        scene.herald.restart().await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut accepted = BTreeSet::new();
    for producer in producers {
        accepted.extend(producer.await.expect("a producer does not panic"));
    }
    let audit = scene.herald.settled(SETTLING).await;
    let checked = scene.herald.audit_ids(accepted.iter().map(String::as_str)).exact();
    assert_eq!(checked.account["Missing"], json!([]));
    assert_eq!(audit.count("Events"), accepted.len() as u64, "{}", audit.output);
    assert_eq!(audit.count("Matched"), 4 * accepted.len() as u64, "{}", audit.output);

    let requests = scene.receiver.requests();
    check_identity(&requests);
    let mut delivered = 0;
    for (path, subscription) in &subscriptions {
        let deliveries = scene.api.deliveries_of(subscription).await;
        let told: BTreeSet<_> = deliveries
            .iter()
            .map(|delivery| text(&delivery["EventId"]).to_owned())
            .collect();
        assert_eq!(told, accepted, "{path}: what was accepted and what has a delivery");
        for delivery in deliveries {
            let key = ((*path).to_owned(), text(&delivery["Id"]).to_owned());
            let arrived = successes.lock().expect("nobody panics here").contains_key(&key);
            match text(&delivery["Status"]) {
                "Delivered" => assert!(arrived, "{path} never answered {delivery} with success"),
                "Dead" if *path == "/doomed" => {}
                other => panic!("{path}: {other}: {delivery}"),
            }
            delivered += usize::from(delivery["Status"] == "Delivered");
        }
    }
    let duplicates: usize = successes
        .lock()
        .expect("nobody panics here")
        .values()
        .map(|count| count - 1)
        .sum();
    // Past the capture of test output, because the numbers are a result.
    let (accepted, sent) = (accepted.len(), requests.len());
    let mut stdout = std::io::stdout();
    writeln!(stdout, "kill -9: {kills} kills, {accepted} events accepted, {delivered} deliveries delivered, {sent} requests, {duplicates} duplicates")
        .expect("stdout is open");
}

/// Whatever is said twice is said in the same words under the same `webhook-id`.
fn check_identity(requests: &[Request]) {
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
