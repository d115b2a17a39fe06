//! Everything that a subscriber can do wrong has its name, and hurts nobody else.

use crate::scene::{Scene, attempts, one_attempt};
use herald_tests::samples::{merged, packet_of, packets_of};
use herald_tests::{Answer, Request};
use serde_json::{Value, json};
use std::net::TcpListener;

/// Lets the subscriber do that once, and gives the dead delivery.
async fn failing(settings: Value, answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Value {
    let scene = Scene::start().await;
    scene.receiver.script("/", answer);
    let made = scene.subscribe("/", merged(one_attempt(), settings)).await;
    scene.publish().await;
    scene.api.delivery_with(made.guid(), "Dead").await
}

/// Lets the subscriber do that, and expects it to be a success.
async fn succeeding(settings: Value, answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Value {
    let scene = Scene::start().await;
    scene.receiver.script("/", answer);
    let made = scene.subscribe("/", settings).await;
    scene.publish().await;
    let delivery = scene.api.delivery_with(made.guid(), "Delivered").await;
    assert_eq!(scene.receiver.requests().len(), 1);
    delivery
}

fn error_of(delivery: &Value) -> &str {
    let [attempt] = attempts(delivery) else {
        panic!("{delivery:#}")
    };
    assert_eq!(attempt["Error"], delivery["LastError"]);
    attempt["Error"]
        .as_str()
        .unwrap_or_else(|| panic!("no Error in {attempt}"))
}

fn seconds_of(delivery: &Value) -> f64 {
    attempts(delivery)[0]["DurationSeconds"].as_f64().expect("a number")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_hangs_is_a_timeout() {
    let delivery = failing(json!({ "TimeoutSeconds": 0.5 }), |_| Answer::hang()).await;
    assert_eq!(error_of(&delivery), "timeout");
    let seconds = seconds_of(&delivery);
    assert!((0.4..10.0).contains(&seconds), "{seconds} s with a timeout of 0.5 s");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_drips_its_headers_is_a_timeout() {
    // Every byte is progress: only a deadline over the whole attempt ends this.
    let delivery = failing(json!({ "TimeoutSeconds": 0.5 }), |_| Answer::ok().dripping()).await;
    assert_eq!(error_of(&delivery), "timeout");
    assert!(seconds_of(&delivery) < 10.0, "{delivery:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_answers_too_late_is_a_timeout() {
    let late = std::time::Duration::from_secs(5);
    let delivery = failing(json!({ "TimeoutSeconds": 0.3 }), move |_| Answer::ok().after(late)).await;
    assert_eq!(error_of(&delivery), "timeout");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_resets_the_connection_is_a_reset() {
    assert_eq!(error_of(&failing(json!({}), |_| Answer::reset()).await), "reset");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_closes_without_an_answer_is_a_reset() {
    assert_eq!(error_of(&failing(json!({}), |_| Answer::close()).await), "reset");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_connection_is_connect() {
    let scene = Scene::start().await;
    // Bound and not listening would be better, but only a port that nobody has is refused.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}/");
    let made = scene
        .api
        .subscribe(&merged(packets_of(scene.company, &url), one_attempt()))
        .await;
    scene.publish().await;
    assert_eq!(error_of(&scene.api.delivery_with(made.guid(), "Dead").await), "connect");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_does_not_exist_is_dns() {
    let scene = Scene::start().await;
    let patient = merged(one_attempt(), json!({ "TimeoutSeconds": 30 }));
    let made = scene
        .api
        .subscribe(&merged(packets_of(scene.company, "http://name.invalid/"), patient))
        .await;
    scene.publish().await;
    assert_eq!(error_of(&scene.api.delivery_with(made.guid(), "Dead").await), "dns");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_without_end_are_a_failed_attempt_and_nothing_worse() {
    let scene = Scene::start().await;
    scene.receiver.script("/endless", |_| Answer::endless_headers());
    let endless = scene
        .subscribe("/endless", merged(one_attempt(), json!({ "TimeoutSeconds": 5 })))
        .await;
    let healthy = scene.subscribe("/healthy", json!({})).await;
    scene.publish_many(3).await;
    // Whether it is `http`, `reset` or `response_too_large` the contract leaves open.
    for delivery in scene.api.deliveries_with(endless.guid(), 3, "Dead").await {
        error_of(&delivery);
    }
    scene.api.deliveries_with(healthy.guid(), 3, "Delivered").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_http_is_a_failed_attempt() {
    let scene = Scene::start().await;
    // A status that HTTP does not have.
    scene.receiver.script("/", |_| Answer::status(9999));
    let made = scene.subscribe("/", one_attempt()).await;
    scene.publish().await;
    assert!(!error_of(&scene.api.delivery_with(made.guid(), "Dead").await).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_answer_says_about_its_reason_is_kept() {
    let cases = [
        (
            Answer::status(308).header("Location", "https://new.example/hook?token=x"),
            "Location: https://new.example/hook",
        ),
        (
            Answer::status(401).header("WWW-Authenticate", "Bearer realm=\"a\""),
            "WWW-Authenticate: Bearer realm=\"a\"",
        ),
        (
            Answer::status(400).body("Status must be known\n"),
            "400 Bad Request: Status must be known",
        ),
    ];
    for (answer, expected) in cases {
        let delivery = failing(json!({}), move |_| answer.clone()).await;
        let detail = attempts(&delivery)[0]["Detail"].as_str().unwrap_or_default();
        assert!(detail.ends_with(expected), "{detail}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_success_is_a_success_whatever_the_body_does() {
    succeeding(json!({}), |_| Answer::ok().body(vec![b'x'; 10_000_000])).await;
    succeeding(json!({}), |_| Answer::status(204)).await;
    succeeding(json!({}), |_| Answer::ok().body("short").declaring(1_000_000)).await;
    succeeding(json!({}), |_| {
        Answer::ok()
            .body(vec![0xff, 0xfe, 0x00])
            .header("content-encoding", "gzip")
    })
    .await;
    let dripping = |_: &Request| Answer::ok().body(vec![b'x'; 1000]).dripping_body();
    let delivery = succeeding(json!({ "TimeoutSeconds": 1 }), dripping).await;
    assert!(seconds_of(&delivery) < 10.0, "the deadline cuts the body: {delivery:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_with_a_huge_body_is_cut_and_repeated() {
    let scene = Scene::start().await;
    scene.receiver.script("/", |request| match request.repeat {
        1 => Answer::status(500).body(vec![b'x'; 10_000_000]),
        _ => Answer::ok(),
    });
    let made = scene.subscribe("/", herald_tests::samples::quick_retry()).await;
    scene.api.publish(&packet_of(scene.company)).await;
    let delivery = scene.api.delivery_with(made.guid(), "Delivered").await;
    let first = &attempts(&delivery)[0];
    assert_eq!((&first["StatusCode"], &first["Error"]), (&json!(500), &json!("http")));
    let kept = first["Detail"].as_str().map_or(0, str::len);
    assert!(kept <= 32 * 1024, "{kept} bytes of the answer were kept");
}
