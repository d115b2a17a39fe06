//! HTTP/2 to receivers that offer it, many requests on one connection, and what can go wrong with one.

use crate::scene::{Scene, attempts, one_attempt};
use herald_tests::samples::{merged, packets_of, quick_retry};
use herald_tests::tls::Authority;
use herald_tests::wait::wait_for;
use herald_tests::{Answer, Gate, Herald, PATIENCE, Receiver, Subscription};
use http::Version;
use rustls::ServerConfig;
use serde_json::{Value, json};
use std::sync::Arc;
use tempfile::TempDir;

/// A Herald that trusts the authority of a receiver that speaks TLS.
struct Secure {
    scene: Scene,
    receiver: Receiver,
    _folder: TempDir,
}

impl Secure {
    async fn offering(config: impl FnOnce(&Authority) -> Arc<ServerConfig>) -> Self {
        let authority = Authority::default();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let builder = Herald::builder()
            .arg("--egress-ca")
            .arg(authority.write_pem(folder.path()));
        Self {
            receiver: Receiver::start_tls(config(&authority)).await,
            // A shard that moves to another worker moves to another connection.
            scene: Scene::with(builder).await.once_shared_out().await,
            _folder: folder,
        }
    }

    async fn http2() -> Self {
        Self::offering(Authority::good_with_http2).await
    }

    async fn subscribe(&self, path: &str, settings: Value) -> Subscription {
        let subscription = packets_of(self.scene.company, &self.receiver.url(path));
        self.scene.api.subscribe(&merged(subscription, settings)).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_deliveries_in_flight_share_one_connection() {
    const COUNT: usize = 30;
    let secure = Secure::http2().await;
    let made = secure.subscribe("/hook?q=1", json!({})).await;
    // Until a host's first answer nobody knows that its connections can be shared.
    secure.scene.publish().await;
    secure.scene.api.deliveries_with(made.guid(), 1, "Delivered").await;
    let gate = Gate::default();
    let behind = gate.clone();
    secure
        .receiver
        .script("/hook?q=1", move |_| Answer::ok().behind(&behind));
    secure.scene.publish_many(COUNT).await;
    wait_for("all of them in flight", PATIENCE, async || {
        secure.receiver.in_flight("/hook?q=1") == COUNT
    })
    .await;
    gate.open();
    secure
        .scene
        .api
        .deliveries_with(made.guid(), COUNT + 1, "Delivered")
        .await;
    for request in secure.receiver.requests() {
        assert_eq!((request.version, request.connection), (Version::HTTP_2, 1));
        assert_eq!(request.method, "POST");
        assert_eq!(request.header("host"), "", "the authority says it");
        assert!(request.verifies_with(made.signing_secret()), "{request:?}");
    }
    assert_eq!(secure.receiver.connections(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_does_not_offer_it_gets_http_1_1() {
    let secure = Secure::offering(Authority::good).await;
    let made = secure.subscribe("/", json!({})).await;
    secure.scene.publish_many(3).await;
    secure.scene.api.deliveries_with(made.guid(), 3, "Delivered").await;
    let requests = secure.receiver.requests_to("/");
    assert!(
        requests.iter().all(|request| request.version == Version::HTTP_11),
        "{requests:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_reset_takes_no_other_with_it() {
    let secure = Secure::http2().await;
    let gate = Gate::default();
    let behind = gate.clone();
    secure.receiver.script("/reset", |_| Answer::reset());
    secure.receiver.script("/other", move |_| Answer::ok().behind(&behind));
    let reset = secure.subscribe("/reset", one_attempt()).await;
    let other = secure.subscribe("/other", json!({})).await;
    secure.scene.publish().await;
    let delivery = secure.scene.api.delivery_with(reset.guid(), "Dead").await;
    assert_eq!(delivery["LastError"], "reset", "{delivery:#}");
    gate.open();
    let delivery = secure.scene.api.delivery_with(other.guid(), "Delivered").await;
    assert_eq!(attempts(&delivery).len(), 1, "{delivery:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_was_refused_is_sent_again_at_once() {
    let secure = Secure::http2().await;
    secure.receiver.script("/", |request| match request.repeat {
        1 => Answer::refuse(),
        _ => Answer::ok(),
    });
    let made = secure.subscribe("/", one_attempt()).await;
    secure.scene.publish().await;
    let delivery = secure.scene.api.delivery_with(made.guid(), "Delivered").await;
    assert_eq!(attempts(&delivery).len(), 1, "{delivery:#}");
    assert_eq!(secure.receiver.requests_to("/").len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_wants_http_1_1_gets_it_at_once_and_from_then_on() {
    let secure = Secure::http2().await;
    secure.receiver.script("/", |_| Answer::want_http1());
    let made = secure.subscribe("/", one_attempt()).await;
    for count in 1..=2 {
        secure.scene.publish().await;
        let delivered = secure.scene.api.deliveries_with(made.guid(), count, "Delivered").await;
        assert!(
            delivered.iter().all(|delivery| delivery["AttemptCount"] == 1),
            "{delivered:#?}"
        );
    }
    let versions: Vec<_> = secure.receiver.requests_to("/").iter().map(|it| it.version).collect();
    // On the cluster each of several workers learns it for itself.
    let learnt = versions.iter().filter(|version| **version == Version::HTTP_2).count();
    assert!(
        (1..=2).contains(&learnt) && versions.len() == 2 + learnt,
        "{versions:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_requests_than_a_connection_takes_go_over_others() {
    const COUNT: usize = 20;
    let secure = Secure::http2().await;
    secure.receiver.allow_streams(2);
    let gate = Gate::default();
    let behind = gate.clone();
    secure.receiver.script("/", move |_| Answer::ok().behind(&behind));
    let made = secure.subscribe("/", json!({})).await;
    secure.scene.publish_many(COUNT).await;
    wait_for("all of them in flight", PATIENCE, async || {
        secure.receiver.in_flight("/") == COUNT
    })
    .await;
    gate.open();
    let delivered = secure.scene.api.deliveries_with(made.guid(), COUNT, "Delivered").await;
    assert!(
        delivered.iter().all(|delivery| delivery["AttemptCount"] == 1),
        "{delivered:#?}"
    );
    let requests = secure.receiver.requests_to("/");
    assert!(
        requests.iter().all(|request| request.version == Version::HTTP_2),
        "{requests:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_says_goodbye_is_followed_by_another() {
    let secure = Secure::http2().await;
    secure.receiver.script("/", |_| Answer::close());
    let made = secure.subscribe("/", one_attempt()).await;
    for count in 1..=5 {
        secure.scene.publish().await;
        secure.scene.api.deliveries_with(made.guid(), count, "Delivered").await;
    }
    assert_eq!(secure.receiver.requests_to("/").len(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_froze_is_noticed_before_the_timeout_and_left() {
    let secure = Secure::http2().await;
    secure.receiver.script("/", |request| match request.repeat {
        1 => Answer::freeze(),
        _ => Answer::ok(),
    });
    let made = secure
        .subscribe("/", merged(quick_retry(), json!({ "TimeoutSeconds": 30 })))
        .await;
    secure.scene.publish().await;
    let delivery = secure.scene.api.delivery_with(made.guid(), "Delivered").await;
    let first = &attempts(&delivery)[0];
    assert_eq!(first["Error"], "timeout", "{delivery:#}");
    let seconds = first["DurationSeconds"].as_f64().expect("a number");
    assert!(seconds < 25.0, "pings tell: {delivery:#}");
    assert_eq!(secure.receiver.connections(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_hangs_is_a_timeout_and_does_not_delay_the_others() {
    let secure = Secure::http2().await;
    secure.receiver.script("/hanging", |_| Answer::hang());
    let hanging = secure
        .subscribe("/hanging", merged(one_attempt(), json!({ "TimeoutSeconds": 2 })))
        .await;
    let healthy = secure.subscribe("/healthy", json!({})).await;
    secure.scene.publish_many(20).await;
    secure.scene.api.deliveries_with(healthy.guid(), 20, "Delivered").await;
    for delivery in secure.scene.api.deliveries_with(hanging.guid(), 20, "Dead").await {
        assert_eq!(delivery["LastError"], "timeout", "{delivery:#}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_headers_are_too_large_and_a_long_body_is_cut() {
    let secure = Secure::http2().await;
    secure.receiver.script("/headers", |_| Answer::endless_headers());
    secure
        .receiver
        .script("/body", |_| Answer::ok().body(vec![b'x'; 1_000_000]));
    let headers = secure.subscribe("/headers", one_attempt()).await;
    let body = secure.subscribe("/body", json!({})).await;
    secure.scene.publish_many(3).await;
    secure.scene.api.deliveries_with(body.guid(), 3, "Delivered").await;
    for delivery in secure.scene.api.deliveries_with(headers.guid(), 3, "Dead").await {
        assert_eq!(delivery["LastError"], "response_too_large", "{delivery:#}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_hangs_on_a_shared_connection_leaves_it_to_the_others() {
    // More than a connection bears at a time: hyper's receivers allow 200.
    const HANGING: usize = 4;
    const EVENTS: usize = 64;
    let secure = Secure::http2().await;
    let others = secure.subscribe("/other", quick_retry()).await;
    secure.scene.publish().await;
    secure.scene.api.deliveries_with(others.guid(), 1, "Delivered").await;
    for number in 0..HANGING {
        let path = format!("/hanging/{number}");
        secure.receiver.script(&path, |_| Answer::hang());
        secure
            .subscribe(&path, merged(quick_retry(), json!({ "TimeoutSeconds": 1 })))
            .await;
    }
    secure.scene.publish_many(EVENTS).await;
    wait_for("each has connections of its own", PATIENCE, async || {
        (0..HANGING).all(|number| {
            let requests = secure.receiver.requests_to(&format!("/hanging/{number}"));
            requests.iter().any(|request| request.version == Version::HTTP_11)
        })
    })
    .await;
    secure.scene.publish_many(EVENTS).await;
    secure
        .scene
        .api
        .deliveries_with(others.guid(), 1 + 2 * EVENTS, "Delivered")
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_speaks_nothing_else_is_reached_again_after_it_hung() {
    let secure = Secure::offering(Authority::good_with_nothing_but_http2).await;
    secure.receiver.script("/", |request| match request.repeat {
        1 => Answer::hang(),
        _ => Answer::ok(),
    });
    let made = secure
        .subscribe("/", merged(quick_retry(), json!({ "TimeoutSeconds": 1 })))
        .await;
    secure.scene.publish().await;
    let delivery = secure.scene.api.delivery_with(made.guid(), "Delivered").await;
    let [first, second] = attempts(&delivery) else {
        panic!("{delivery:#}")
    };
    assert_eq!(first["Error"], "timeout", "{delivery:#}");
    assert_eq!(second["StatusCode"], 200, "{delivery:#}");
}
