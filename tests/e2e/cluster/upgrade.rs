//! From another build to the one under test, one process after the other, under load.

use crate::load::{a_while, check_identity, say};
use crate::scene::Scene;
use herald_tests::binary::binary;
use herald_tests::samples::{id_of, packet_of};
use herald_tests::services::{Database, Ground, Vhost, migrate};
use herald_tests::{Answer, Api, Herald, PATIENCE, Role};
use http::Method;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Names the binary of an earlier version, which `tests/run --long` builds.
const PREVIOUS: &str = "HERALD_PREVIOUS_BIN";

/// What a hand-over takes that is not in order: the lease of whoever is gone has to run out.
const LEASE: Duration = Duration::from_secs(15);

/// In the order of `deploy/README.md`: the schema first, which the former version goes on to work with.
const ROLES: [Role; 4] = [Role::Ingest, Role::Worker, Role::Worker, Role::Manage];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_of_one_process_after_the_other_loses_nothing_and_delays_nothing() {
    let Some(previous) = std::env::var_os(PREVIOUS).map(PathBuf::from) else {
        return say("left out: HERALD_PREVIOUS_BIN names no earlier version; tests/run --long builds one");
    };
    let ground = Ground {
        vhost: Vhost::create().await,
        database: Database::create(),
    };
    let (broker, database) = (ground.vhost.url().to_owned(), ground.database.url());
    let builder = Herald::builder().on(&broker, &database).binary(previous).roles(&ROLES);
    let mut scene = Scene::with(builder).await;
    scene.receiver.script("/flaky", |request| {
        Answer::status(if request.repeat == 1 { 503 } else { 200 })
    });
    scene.subscribe("/", json!({})).await;
    let quick = json!({ "Retry": { "InitialSeconds": 0.2, "Multiplier": 1 } });
    scene.subscribe("/flaky", quick).await;
    let stop = Arc::new(AtomicBool::new(false));
    let producer = tokio::spawn(produce(scene.api.clone(), scene.company, Arc::clone(&stop)));

    a_while().await;
    let schema = database.clone();
    let migrated = tokio::task::spawn_blocking(move || migrate(&binary(), &broker, &schema));
    migrated.await.expect("the new version migrates beside the old one");
    scene.herald.replace_binary(binary());
    for (role, number) in [
        (Role::Manage, 0),
        (Role::Worker, 0),
        (Role::Worker, 1),
        (Role::Ingest, 0),
    ] {
        a_while().await;
        drop(scene.herald.audit().exact());
        assert_eq!(scene.herald.terminate_role(role, number).await, Some(0));
        scene.herald.restart_role(role, number).await;
    }
    a_while().await;
    stop.store(true, Ordering::Relaxed);
    let accepted = producer.await.expect("a producer does not panic");
    let audit = scene.herald.settled(PATIENCE).await;
    assert_eq!(audit.count("Events"), accepted.len() as u64, "{}", audit.output);
    assert_eq!(
        audit.deliveries("Delivered"),
        2 * accepted.len() as u64,
        "{}",
        audit.output
    );
    check_identity(&scene.receiver.requests());
    let mut arrived = BTreeMap::new();
    for request in scene.receiver.requests_to("/") {
        arrived.entry(request.event_id().to_owned()).or_insert(request.at);
    }
    let delays = accepted
        .iter()
        .map(|(id, at)| arrived[id].saturating_duration_since(*at));
    let longest = delays.max().unwrap_or_default();
    say(&format!(
        "an upgrade under load: {} events, the longest way {longest:?}",
        accepted.len()
    ));
    assert!(longest < LEASE, "an event was on its way for {longest:?}");
}

/// Publishes until told to stop; the `Id`s that were answered with 202, and when.
async fn produce(api: Api, company: Uuid, stop: Arc<AtomicBool>) -> BTreeMap<String, Instant> {
    let mut accepted = BTreeMap::new();
    while !stop.load(Ordering::Relaxed) {
        let event = packet_of(company);
        // No answer means unknown: the same again until it is known.
        while !api
            .try_send(Method::POST, "/v1/events", &event)
            .await
            .is_ok_and(|reply| reply.status == 202)
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        accepted.insert(id_of(&event), Instant::now());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    accepted
}
