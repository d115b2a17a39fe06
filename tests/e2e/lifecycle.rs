//! Stopping in order, and finding everything again.

use crate::scene::{Scene, numbers};
use herald_tests::samples::{id_of, merged, packet_of};
use herald_tests::{Answer, Gate, PATIENCE, Stack};
use rustix::process::Signal;
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_lets_an_attempt_in_flight_end_and_keeps_the_rest() {
    let mut scene = Scene::start().await;
    let gate = Gate::default();
    scene.receiver.script("/", {
        let gate = gate.clone();
        move |_| Answer::ok().behind(&gate)
    });
    let made = scene
        .subscribe("/", json!({ "MaxInFlight": 1, "TimeoutSeconds": 30 }))
        .await;
    scene.publish_many(5).await;
    let first = scene.receiver.wait_for_one("/").await;
    scene.herald.signal(Signal::TERM);
    scene.herald.draining().await;
    // Where it is a process of its own, the entrance has nothing to finish, and is gone.
    if scene.herald.stack() == Stack::Embedded {
        let refused = scene.api.post("/v1/events", &packet_of(scene.company)).await;
        assert!(!refused.header("retry-after").is_empty(), "{refused:?}");
        let _refused = refused.problem(503);
    }
    gate.open();
    let status = scene.herald.wait_for_exit(PATIENCE).await;
    assert_eq!(status.code(), Some(0), "{}", scene.herald.stderr());
    let sent = scene.receiver.requests().len();
    let audit = scene.herald.audit().exact();
    assert_eq!(
        audit.deliveries("Delivered"),
        sent as u64,
        "what was sent and answered is recorded"
    );
    scene.herald.restart().await;
    for delivery in scene.api.deliveries_with(made.guid(), 5, "Delivered").await {
        assert_eq!(numbers(&delivery), [1], "no attempt was burnt");
    }
    let requests = scene.receiver.requests();
    assert_eq!(requests.len(), 5, "each exactly once");
    let again = requests
        .iter()
        .filter(|request| request.event_id() == first.event_id())
        .count();
    assert_eq!(again, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_ends_in_time_and_an_attempt_that_hangs_goes_back_unharmed() {
    let mut scene = Scene::start().await;
    scene.receiver.script("/", |_| Answer::hang());
    let made = scene.subscribe("/", json!({ "TimeoutSeconds": 30 })).await;
    scene.publish_many(3).await;
    scene.receiver.wait_for("/", 3).await;
    let asked = Instant::now();
    assert_eq!(scene.herald.terminate().await, Some(0), "{}", scene.herald.stderr());
    assert!(
        asked.elapsed() < Duration::from_secs(20),
        "ended after {:?}",
        asked.elapsed()
    );
    scene.receiver.script("/", |_| Answer::ok());
    scene.herald.restart().await;
    for delivery in scene.api.deliveries_with(made.guid(), 3, "Delivered").await {
        assert_eq!(numbers(&delivery), [1], "an interrupted attempt is not a failed one");
    }
    assert!(scene.receiver.requests().iter().all(|request| request.attempt() == 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_at_once() {
    let mut scene = Scene::start().await;
    scene.receiver.script("/", |_| Answer::hang());
    scene.subscribe("/", json!({ "TimeoutSeconds": 30 })).await;
    scene.publish().await;
    scene.receiver.wait_for("/", 1).await;
    scene.herald.signal(Signal::TERM);
    scene.herald.draining().await;
    scene.herald.signal(Signal::TERM);
    scene.herald.wait_for_exit(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_under_load_loses_nothing() {
    let mut scene = Scene::start().await;
    let settings = json!({ "Retry": { "InitialSeconds": 0.1, "Multiplier": 1 } });
    let made = scene.subscribe("/", settings).await;
    scene.receiver.script("/", |request| match request.repeat {
        1 if request.event_id().ends_with(['0', '1', '2']) => Answer::status(500),
        _ => Answer::ok().after(Duration::from_millis(5)),
    });
    let stop = AtomicBool::new(false);
    let (api, company) = (scene.api.clone(), scene.company);
    let producing = async {
        let mut accepted = BTreeSet::new();
        while !stop.load(Ordering::Relaxed) {
            let events: Vec<_> = (0..20).map(|_| packet_of(company)).collect();
            let reply = api.try_send(http::Method::POST, "/v1/events", &json!(events)).await;
            if reply.is_ok_and(|reply| reply.status == 202) {
                accepted.extend(events.iter().map(id_of));
            }
        }
        accepted
    };
    let stopping = async {
        scene.receiver.wait_for("/", 100).await;
        let code = scene.herald.terminate().await;
        stop.store(true, Ordering::Relaxed);
        code
    };
    let (accepted, code) = tokio::join!(producing, stopping);
    assert_eq!(code, Some(0), "{}", scene.herald.stderr());
    drop(scene.herald.audit().exact());
    scene.herald.restart().await;
    scene.herald.settled(PATIENCE).await;
    let arrived: BTreeSet<_> = scene
        .receiver
        .requests()
        .iter()
        .map(|request| request.event_id().to_owned())
        .collect();
    let missing: Vec<_> = accepted.difference(&arrived).collect();
    assert!(
        missing.is_empty(),
        "{} of {} accepted are missing",
        missing.len(),
        accepted.len()
    );
    let audit = scene.herald.audit_ids(accepted.iter().map(String::as_str)).exact();
    assert_eq!(audit.account["Missing"], json!([]));
    let delivered = scene
        .api
        .list(&format!("/v1/deliveries?Subscription={}&Status=Delivered", made.guid()))
        .await;
    assert!(delivered.len() >= accepted.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_start_finds_everything_again() {
    let mut scene = Scene::start().await;
    scene.receiver.script("/", |request| {
        Answer::status(if request.header("x-round") == "2" { 200 } else { 500 })
    });
    let made = scene
        .subscribe(
            "/",
            merged(json!({ "Name": "kept" }), json!({ "Retry": { "MaxAttempts": 1 } })),
        )
        .await;
    let producer = scene.api.account("producer", &["Producer"]).await;
    let event = packet_of(scene.company);
    let id = producer.api.publish(&event).await;
    let dead = scene.api.delivery_with(made.guid(), "Dead").await;
    for crash in [false, true] {
        if crash {
            scene.herald.kill().await;
        } else {
            assert_eq!(scene.herald.terminate().await, Some(0));
        }
        scene.herald.restart().await;
        assert_eq!(scene.api.get(&made.path()).await.json()["Name"], "kept");
        assert_eq!(scene.api.delivery_with(made.guid(), "Dead").await, dead);
        assert_eq!(producer.api.publish(&event).await, id, "a repeat is still known as one");
        let _seen = producer.api.get(&format!("/v1/events/{id}")).await.expect(200);
    }
    let header = json!({ "CustomHeader": "X-Round", "CustomHeaderValue": "2" });
    let _patched = scene.api.patch(&made.path(), &header).await.expect(200);
    let _retried = scene
        .api
        .post(&format!("/v1/deliveries/{}/retry", crate::scene::id(&dead)), &json!({}))
        .await
        .expect(202);
    scene.api.delivery_with(made.guid(), "Delivered").await;
    assert!(
        scene.receiver.requests()[1].verifies_with(made.signing_secret()),
        "the secret is still the same"
    );
    assert_eq!(scene.herald.settled(PATIENCE).await.count("Events"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_that_came_due_while_down_is_made_after_the_start() {
    let mut scene = Scene::start().await;
    scene.receiver.script("/", |request| {
        Answer::status(if request.repeat == 1 { 500 } else { 200 })
    });
    let made = scene
        .subscribe("/", json!({ "Retry": { "InitialSeconds": 0.5 } }))
        .await;
    scene.publish().await;
    scene.api.deliveries_with(made.guid(), 1, "Open").await;
    scene.receiver.wait_for("/", 1).await;
    scene.herald.kill().await;
    scene.herald.restart().await;
    let delivery = scene.api.delivery_with(made.guid(), "Delivered").await;
    assert!(matches!(numbers(&delivery).as_slice(), [1, 2] | [1]), "{delivery:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_never_ends_its_request_does_not_hold_up_the_end() {
    let scene = Scene::start().await;
    let mut herald = scene.herald;
    let address = ("127.0.0.1", herald.port());
    let mut unfinished = tokio::net::TcpStream::connect(address).await.expect("it listens");
    unfinished
        .write_all(b"GET /health/live HTTP/1.1\r\nHost: ")
        .await
        .expect("it reads");
    let began = Instant::now();
    assert_eq!(herald.terminate().await, Some(0), "{}", herald.stderr());
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    drop(unfinished);
}
