//! Slow receivers of every kind end within the subscription's timeout, by their right name. Those that
//! hang, and those that drip their headers or their body, are in `failures.rs`.

use crate::scene::{Scene, attempts, one_attempt};
use herald_tests::samples::{merged, packet_of, packets_of};
use herald_tests::{Answer, PATIENCE, Receiver};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};

const TIMEOUT_SECONDS: f64 = 1.0;

/// Delivers once to that URL, and gives the only attempt.
async fn attempt_at(scene: &Scene, url: &str, event: &Value, status: &str) -> Value {
    let settings = merged(one_attempt(), json!({ "TimeoutSeconds": TIMEOUT_SECONDS }));
    let made = scene
        .api
        .subscribe(&merged(packets_of(scene.company, url), settings))
        .await;
    scene.api.publish(event).await;
    let delivery = scene.api.delivery_with(made.guid(), status).await;
    let [attempt] = attempts(&delivery) else {
        panic!("{delivery:#}")
    };
    let seconds = attempt["DurationSeconds"].as_f64().expect("a number");
    assert!(seconds < 10.0, "{attempt}");
    attempt.clone()
}

/// Expects it to be called a timeout, and the detail to say how long was waited.
fn assert_timeout(attempt: &Value) {
    assert_eq!(attempt["Error"], "timeout", "{attempt}");
    assert_eq!(
        attempt["Detail"],
        format!("no answer within {TIMEOUT_SECONDS} s"),
        "{attempt}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_takes_no_connection_is_a_timeout() {
    let scene = Scene::start().await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let _waiting = fill_backlog(address).await;
    let attempt = attempt_at(&scene, &format!("http://{address}/"), &packet_of(scene.company), "Dead").await;
    assert_timeout(&attempt);
}

/// Connects until the kernel takes no more for a listener that accepts none.
async fn fill_backlog(address: SocketAddr) -> Vec<TcpStream> {
    let mut waiting = Vec::new();
    while let Ok(connected) = tokio::time::timeout(Duration::from_millis(500), TcpStream::connect(address)).await {
        waiting.push(connected.expect("a listening port"));
        assert!(waiting.len() < 1000, "a backlog of one does not fill");
    }
    waiting
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_says_nothing_in_the_tls_handshake_is_a_timeout() {
    let scene = Scene::start().await;
    // The kernel accepts for it, and nobody reads.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/", listener.local_addr().unwrap());
    let attempt = attempt_at(&scene, &url, &packet_of(scene.company), "Dead").await;
    assert_timeout(&attempt);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_never_reads_the_request_is_a_timeout() {
    let scene = Scene::start().await;
    let socket = TcpSocket::new_v4().unwrap();
    // So that a large request does not fit between the two.
    socket.set_recv_buffer_size(4096).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(16).unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let large = json!({ "Data": { "Title": "x".repeat(200), "Padding": "x".repeat(200_000) } });
    let event = merged(packet_of(scene.company), large);
    let attempt = attempt_at(&scene, &url, &event, "Dead").await;
    assert_timeout(&attempt);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_answers_with_interim_answers_only_is_a_timeout() {
    let scene = Scene::start().await;
    scene.receiver.script("/", |_| Answer::endless_interim());
    let attempt = attempt_at(&scene, &scene.receiver.url("/"), &packet_of(scene.company), "Dead").await;
    assert_timeout(&attempt);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_that_are_too_many_or_too_long_are_too_large() {
    let scene = Scene::start().await;
    scene.receiver.script("/many", |_| Answer::endless_headers());
    let long = "x".repeat(1_000_000);
    scene
        .receiver
        .script("/long", move |_| Answer::ok().header("x-filling", &long));
    for path in ["/many", "/long"] {
        let company = herald_tests::samples::guid();
        let subscription = merged(packets_of(company, &scene.receiver.url(path)), one_attempt());
        let made = scene.api.subscribe(&subscription).await;
        scene.api.publish(&packet_of(company)).await;
        let delivery = scene.api.delivery_with(made.guid(), "Dead").await;
        assert_eq!(delivery["LastError"], "response_too_large", "{path}: {delivery:#}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_without_end_is_cut_and_its_status_counts() {
    let scene = Scene::start().await;
    scene.receiver.script("/ok", |_| Answer::endless_body(200));
    let attempt = attempt_at(
        &scene,
        &scene.receiver.url("/ok"),
        &packet_of(scene.company),
        "Delivered",
    )
    .await;
    assert_eq!(attempt["StatusCode"], 200, "{attempt}");
    let failing = Receiver::start().await;
    failing.script("/", |_| Answer::endless_body(500));
    let company = herald_tests::samples::guid();
    let subscription = merged(packets_of(company, &failing.url("/")), one_attempt());
    let made = scene.api.subscribe(&subscription).await;
    scene.api.publish(&packet_of(company)).await;
    let delivery = scene.api.delivery_with(made.guid(), "Dead").await;
    assert_eq!(delivery["LastStatusCode"], 500, "{delivery:#}");
    herald_tests::wait::wait_for("the connections to be closed", PATIENCE, async || {
        failing.in_flight("/") == 0 && scene.receiver.in_flight("/ok") == 0
    })
    .await;
}
