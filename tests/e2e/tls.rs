//! TLS is verified, against the system's authorities and those that the operator added.

use crate::scene::{Scene, attempts, one_attempt};
use herald_tests::samples::{merged, packet_of, packets_of};
use herald_tests::tls::Authority;
use herald_tests::{Herald, Receiver};
use rustls::ServerConfig;
use serde_json::{Value, json};
use std::sync::Arc;

/// Delivers once to a receiver with that certificate, at that host, trusting those authorities.
async fn deliver_once(certificate: Arc<ServerConfig>, host: &str, trusted: Option<&Authority>, status: &str) -> Value {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut builder = Herald::builder();
    if let Some(authority) = trusted {
        builder = builder.arg("--egress-ca").arg(authority.write_pem(folder.path()));
    }
    let scene = Scene::with(builder).await;
    let receiver = Receiver::start_tls(certificate).await;
    let url = format!("https://{host}:{}/", receiver.port());
    let made = scene
        .api
        .subscribe(&merged(packets_of(scene.company, &url), one_attempt()))
        .await;
    scene.publish().await;
    let delivery = scene.api.delivery_with(made.guid(), status).await;
    assert_eq!(
        receiver.requests().len(),
        usize::from(status == "Delivered"),
        "nothing is sent before the peer is known"
    );
    attempts(&delivery)[0].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_private_authority_is_trusted_when_told_to() {
    let authority = Authority::default();
    for host in ["127.0.0.1", "localhost"] {
        let attempt = deliver_once(authority.good(), host, Some(&authority), "Delivered").await;
        assert_eq!(attempt["StatusCode"], 200, "{attempt}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_authority_can_come_from_the_environment() {
    let authority = Authority::default();
    let folder = tempfile::tempdir().unwrap();
    let scene = Scene::with(Herald::builder().env("HERALD_EGRESS_CA", authority.write_pem(folder.path()))).await;
    let receiver = Receiver::start_tls(authority.good()).await;
    scene
        .api
        .subscribe(&packets_of(scene.company, &receiver.url("/")))
        .await;
    scene.publish().await;
    receiver.wait_for("/", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_authority_is_tls() {
    let attempt = deliver_once(Authority::default().good(), "127.0.0.1", None, "Dead").await;
    assert_eq!(attempt["Error"], "tls", "{attempt}");
    assert!(
        attempt["Detail"]
            .as_str()
            .is_some_and(|detail| detail.contains("--egress-ca")),
        "{attempt}"
    );
    let attempt = deliver_once(
        Authority::default().good(),
        "127.0.0.1",
        Some(&Authority::default()),
        "Dead",
    )
    .await;
    assert_eq!(attempt["Error"], "tls", "{attempt}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_authoritys_certificate_is_told_as_one() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (certificate, file) = Authority::self_signed(folder.path());
    let scene = Scene::with(Herald::builder().arg("--egress-ca").arg(file)).await;
    let receiver = Receiver::start_tls(certificate).await;
    let attempt = attempt_at(&scene, &receiver, &packet_of(scene.company)).await;
    assert_eq!(attempt["Error"], "tls", "{attempt}");
    let detail = attempt["Detail"].as_str().unwrap_or_default();
    assert!(detail.contains("basicConstraints=CA:FALSE"), "{attempt}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_wants_a_certificate_is_tls_however_large_the_request() {
    let authority = Authority::default();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let scene = Scene::with(
        Herald::builder()
            .arg("--egress-ca")
            .arg(authority.write_pem(folder.path())),
    )
    .await;
    let receiver = Receiver::start_tls(authority.good_wanting_another()).await;
    for bytes in [1, 200_000] {
        let padded = json!({ "Data": { "Title": "x", "Padding": "x".repeat(bytes) } });
        let attempt = attempt_at(&scene, &receiver, &merged(packet_of(scene.company), padded)).await;
        assert_eq!(attempt["Error"], "tls", "{attempt}");
        let detail = attempt["Detail"].as_str().unwrap_or_default();
        assert!(detail.contains("certificate from Herald"), "{attempt}");
    }
}

/// Subscribes that receiver anew, and gives the only attempt of an event's delivery, which is dead.
async fn attempt_at(scene: &Scene, receiver: &Receiver, event: &Value) -> Value {
    let subscription = merged(packets_of(scene.company, &receiver.url("/")), one_attempt());
    let made = scene.api.subscribe(&subscription).await;
    scene.api.publish(event).await;
    let delivery = scene.api.delivery_with(made.guid(), "Dead").await;
    let _deleted = scene.api.delete(&made.path()).await.expect(204);
    let [attempt] = attempts(&delivery) else {
        panic!("{delivery:#}")
    };
    attempt.clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_certificate_is_tls() {
    let authority = Authority::default();
    let attempt = deliver_once(authority.expired(), "127.0.0.1", Some(&authority), "Dead").await;
    assert_eq!(attempt["Error"], "tls", "{attempt}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_for_another_name_is_tls() {
    let authority = Authority::default();
    for host in ["127.0.0.1", "localhost"] {
        let attempt = deliver_once(authority.wrong_name(), host, Some(&authority), "Dead").await;
        assert_eq!(attempt["Error"], "tls", "{attempt}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn https_to_a_plain_port_is_tls_and_nothing_worse() {
    let scene = Scene::start().await;
    let url = format!("https://127.0.0.1:{}/", scene.receiver.port());
    let made = scene
        .api
        .subscribe(&merged(packets_of(scene.company, &url), one_attempt()))
        .await;
    // The plain receiver waits for an HTTP head in what is a handshake, so this may be a timeout too.
    let _patched = scene
        .api
        .patch(&made.path(), &serde_json::json!({ "TimeoutSeconds": 1 }))
        .await
        .expect(200);
    scene.publish().await;
    let delivery = scene.api.delivery_with(made.guid(), "Dead").await;
    let error = delivery["LastError"].as_str().unwrap_or_default();
    assert!(matches!(error, "tls" | "timeout"), "{delivery:#}");
}
