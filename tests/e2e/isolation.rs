//! A bad subscriber hurts itself only.

use crate::scene::Scene;
use herald_tests::samples::{merged, packet_of, packets_of, quick_retry};
use herald_tests::wait::wait_for;
use herald_tests::{Answer, Gate, PATIENCE};
use serde_json::json;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Far below the 30 s that a bad subscriber may take, and far above what a busy machine needs.
const UNDELAYED: Duration = Duration::from_secs(20);

/// Fifty events to ten subscribers, one of which answers everything so.
async fn nine_do_not_wait_for_one_that(answers: Answer) {
    let scene = Scene::start().await;
    scene.receiver.script("/bad", move |_| answers.clone());
    let bad = scene.subscribe("/bad", json!({ "TimeoutSeconds": 30 })).await;
    let mut others = Vec::new();
    for number in 0..9 {
        others.push(scene.subscribe(&format!("/{number}"), json!({})).await);
    }
    let published = Instant::now();
    scene.publish_many(50).await;
    for (number, other) in others.iter().enumerate() {
        let requests = scene.receiver.wait_for(&format!("/{number}"), 50).await;
        let last = requests.iter().map(|request| request.at).max();
        let waited = last.map(|last| last.duration_since(published));
        assert!(
            waited.is_some_and(|waited| waited < UNDELAYED),
            "/{number} waited {waited:?}"
        );
        scene.api.deliveries_with(other.guid(), 50, "Delivered").await;
    }
    scene.api.deliveries_with(bad.guid(), 50, "Open").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_drips_does_not_delay_nine_others() {
    // So slowly that its head takes longer than all the rest.
    let padding = "x".repeat(600);
    nine_do_not_wait_for_one_that(Answer::ok().header("padding", &padding).dripping()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_resets_does_not_delay_nine_others() {
    nine_do_not_wait_for_one_that(Answer::reset()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_fails_does_not_delay_nine_others() {
    nine_do_not_wait_for_one_that(Answer::status(500)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_that_hang_leave_room_for_another() {
    let scene = Scene::start().await;
    let paths: Vec<_> = (0..20).map(|number| format!("/hanging/{number}")).collect();
    for path in &paths {
        scene.receiver.script(path, |_| Answer::hang());
        scene.subscribe(path, json!({ "TimeoutSeconds": 30 })).await;
    }
    let company = Uuid::new_v4();
    let url = scene.receiver.url("/healthy");
    let healthy = scene.api.subscribe(&packets_of(company, &url)).await;
    scene.publish_many(70).await;
    wait_for("they fill their shares", PATIENCE, async || {
        let in_flight: usize = paths.iter().map(|path| scene.receiver.in_flight(path)).sum();
        in_flight >= 650
    })
    .await;
    let published = Instant::now();
    let events: Vec<_> = (0..50).map(|_| packet_of(company)).collect();
    scene.api.publish_all(&events).await;
    let requests = scene.receiver.wait_for("/healthy", 50).await;
    let last = requests.iter().map(|request| request.at).max();
    let waited = last.map(|last| last.duration_since(published));
    assert!(waited.is_some_and(|waited| waited < UNDELAYED), "{waited:?}");
    scene.api.deliveries_with(healthy.guid(), 50, "Delivered").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_hangs_does_not_delay_nine_others() {
    let scene = Scene::start().await;
    let gate = Gate::default();
    scene.receiver.script("/hanging", {
        let gate = gate.clone();
        move |_| Answer::ok().behind(&gate)
    });
    let hanging = scene
        .subscribe("/hanging", json!({ "TimeoutSeconds": 30, "MaxInFlight": 4 }))
        .await;
    let mut others = Vec::new();
    for number in 0..9 {
        others.push(scene.subscribe(&format!("/{number}"), json!({})).await);
    }
    scene.publish_many(50).await;
    for (number, other) in others.iter().enumerate() {
        scene.receiver.wait_for(&format!("/{number}"), 50).await;
        scene.api.deliveries_with(other.guid(), 50, "Delivered").await;
    }
    // All that is long over while the hanging one still sits on its first requests.
    assert_eq!(scene.receiver.requests_to("/hanging").len(), 4);
    scene.api.deliveries_with(hanging.guid(), 50, "Open").await;
    gate.open();
    scene.api.deliveries_with(hanging.guid(), 50, "Delivered").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_always_fails_does_not_delay_the_others() {
    let scene = Scene::start().await;
    scene.receiver.script("/failing", |_| Answer::status(500));
    let failing = scene.subscribe("/failing", quick_retry()).await;
    let healthy = scene.subscribe("/healthy", json!({})).await;
    for _ in 0..10 {
        scene.publish_many(20).await;
    }
    scene.api.deliveries_with(healthy.guid(), 200, "Delivered").await;
    assert_eq!(scene.receiver.requests_to("/healthy").len(), 200);
    scene.api.deliveries_with(failing.guid(), 200, "Open").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn max_in_flight_is_used_and_never_exceeded() {
    let scene = Scene::start().await;
    let gate = Gate::default();
    scene.receiver.script("/", {
        let gate = gate.clone();
        move |_| Answer::ok().behind(&gate)
    });
    let made = scene
        .subscribe("/", json!({ "MaxInFlight": 3, "TimeoutSeconds": 30 }))
        .await;
    let marker = scene.subscribe("/marker", json!({})).await;
    scene.publish_many(100).await;
    wait_for("three requests in flight", PATIENCE, async || {
        scene.receiver.in_flight("/") == 3
    })
    .await;
    // A hundred messages to somebody else show that there was time for a fourth.
    scene.api.deliveries_with(marker.guid(), 100, "Delivered").await;
    assert_eq!(scene.receiver.in_flight("/"), 3);
    gate.open();
    scene.api.deliveries_with(made.guid(), 100, "Delivered").await;
    assert_eq!(scene.receiver.most_in_flight("/"), 3);
    assert_eq!(scene.receiver.requests_to("/").len(), 100, "each once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retries_count_against_max_in_flight_too() {
    let scene = Scene::start().await;
    scene.receiver.script("/", |request| match request.repeat {
        1 => Answer::status(500),
        _ => Answer::ok().after(Duration::from_millis(20)),
    });
    let made = scene
        .subscribe("/", merged(quick_retry(), json!({ "MaxInFlight": 2 })))
        .await;
    scene.publish_many(40).await;
    scene.api.deliveries_with(made.guid(), 40, "Delivered").await;
    assert!(
        scene.receiver.most_in_flight("/") <= 2,
        "{} at once",
        scene.receiver.most_in_flight("/")
    );
}
