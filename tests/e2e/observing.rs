//! Metrics, health and logs.

use crate::scene::{Scene, one_attempt};
use herald_tests::api::text;
use herald_tests::samples::{merged, packet_of};
use herald_tests::wait::wait_for;
use herald_tests::{Answer, Herald, PATIENCE};
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_are_prometheus_text_and_move() {
    let scene = Scene::start().await;
    scene.receiver.script("/bad", |_| Answer::status(500));
    let good = scene.subscribe("/good", json!({})).await;
    let bad = scene.subscribe("/bad", one_attempt()).await;
    let before = scene.herald.metrics().await;
    assert!(before.0.values().all(|value| !value.is_nan()));
    scene.publish_many(3).await;
    scene.api.deliveries_with(good.guid(), 3, "Delivered").await;
    scene.api.deliveries_with(bad.guid(), 3, "Dead").await;
    let _refused = scene.api.post("/v1/events", &json!({})).await.problem(400);
    let accepted = |name: &str| name.starts_with("herald_events_accepted_total");
    let delivered = |name: &str| name.starts_with("herald_deliver") && name.to_lowercase().contains("\"delivered\"");
    let dead = |name: &str| name.starts_with("herald_deliver") && name.to_lowercase().contains("\"dead\"");
    let attempts = |name: &str| name.starts_with("herald_attempts") && !name.contains("duration");
    wait_for("the counters have moved by what was done", PATIENCE, async || {
        let after = scene.herald.metrics().await;
        let moved = |of: &dyn Fn(&str) -> bool| after.sum(of) - before.sum(of);
        let by = [moved(&accepted), moved(&delivered), moved(&dead), moved(&attempts)];
        by.iter()
            .zip([3.0, 3.0, 3.0, 6.0])
            .all(|(is, should)| (is - should).abs() < 0.5)
    })
    .await;
    let after = scene.herald.metrics().await;
    for (name, value) in &before.0 {
        if name.contains("_total") {
            assert!(
                after.0.get(name).is_some_and(|after| after >= value),
                "{name} went from {value} to {:?}",
                after.0.get(name)
            );
        }
    }
    assert!(
        after.0.keys().all(|name| !name.contains(good.guid())),
        "no ids in labels"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_deactivation_cancels_is_counted_by_its_webhook() {
    let scene = Scene::start().await;
    scene.receiver.script("/", |_| Answer::status(500));
    let made = scene.subscribe("/", json!({})).await;
    scene.publish_many(3).await;
    scene.receiver.wait_for("/", 3).await;
    let _changed = scene
        .api
        .patch(&made.path(), &json!({ "Active": false }))
        .await
        .expect(200);
    scene.api.deliveries_with(made.guid(), 3, "Cancelled").await;
    let ended = "herald_deliveries_closed_total{status=\"Cancelled\",webhook=\"PacketCreated\"}";
    wait_for("each is counted once", PATIENCE, async || {
        let metrics = scene.herald.metrics().await;
        (metrics.sum(|name| name == ended) - 3.0).abs() < 0.5
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_and_description_need_no_key() {
    let herald = Herald::start().await;
    let stranger = herald.api().without_key();
    let _live = stranger.get("/health/live").await.expect(200);
    let ready = stranger.get("/health/ready").await.expect(200).json();
    assert!(ready.as_object().is_some_and(|parts| !parts.is_empty()), "{ready}");
    let description = stranger.get("/openapi.json").await.expect(200).json();
    assert!(text(&description["openapi"]).starts_with("3."), "{description}");
    for path in [
        "/v1/events",
        "/v1/subscriptions",
        "/v1/subscriptions/{guid}",
        "/v1/deliveries",
        "/v1/dead-letters",
        "/v1/webhooks",
    ] {
        assert!(description["paths"].get(path).is_some(), "{path} is not described");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_tells_whether_a_process_is_ready() {
    let mut herald = Herald::start().await;
    let asked = |herald: &Herald| {
        let address = format!("0.0.0.0:{}", herald.port());
        let output = herald
            .command()
            .args(["health", "--listen", &address])
            .output()
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        (output.status.code(), said)
    };
    let (code, said) = asked(&herald);
    assert!(
        code == Some(0) && said.contains("\"process\":\"ok\""),
        "{code:?} {said}"
    );
    herald.kill().await;
    let (code, said) = asked(&herald);
    assert!(
        code == Some(1) && said.contains("no Herald answers at 127.0.0.1"),
        "{code:?} {said}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_hold_no_secret_and_no_payload() {
    let verbose = "info,herald=trace,herald_ingest=trace,herald_dispatch=trace,herald_deliver=trace,herald_manage=trace,\
                   herald_egress=trace,herald_ledger=trace,herald_queue=trace,herald_registry=trace,herald_access=trace";
    for filter in [None, Some(verbose)] {
        let mut builder = Herald::builder();
        if let Some(filter) = filter {
            builder = builder.env("RUST_LOG", filter);
        }
        check_logs(Scene::with(builder).await).await;
    }
}

/// Does all that makes Herald speak, and looks for what it must not have said.
async fn check_logs(mut scene: Scene) {
    scene
        .receiver
        .script("/bad", |_| Answer::status(500).body("ANSWER-MARKER"));
    scene.receiver.script("/reset", |_| Answer::reset());
    let settings = json!({
        "SecretKey": "SECRET-MARKER, SECRET-MARKER", "CustomHeader": "X-Token", "CustomHeaderValue": "HEADER-MARKER"
    });
    let good = scene.subscribe("/good", settings.clone()).await;
    for path in ["/bad", "/reset"] {
        scene.subscribe(path, merged(settings.clone(), one_attempt())).await;
    }
    let rotated = scene
        .api
        .post(&format!("{}/rotate-secret", good.path()), &json!({}))
        .await
        .expect(200)
        .json();
    let account = scene.api.account("somebody", &["Producer"]).await;
    let marked = json!({ "Data": { "CustomerName": "CUSTOMER-MARKER" } });
    account
        .api
        .publish(&merged(packet_of(scene.company), marked.clone()))
        .await;
    let bad = merged(
        packet_of(scene.company),
        merged(marked, json!({ "Data": { "Status": "STATUS-MARKER" } })),
    );
    let _refused = account.api.post("/v1/events", &bad).await.problem(400);
    let _refused = account
        .api
        .with_key("KEY-MARKER")
        .get("/v1/deliveries")
        .await
        .problem(401);
    scene.herald.settled(PATIENCE).await;
    assert_eq!(scene.herald.terminate().await, Some(0));
    let log = scene.herald.stderr();
    assert!(!log.is_empty(), "it logs");
    for line in log.lines() {
        let parsed = serde_json::from_str::<serde_json::Value>(line);
        assert!(parsed.is_ok(), "off a terminal each line is JSON: {line}");
    }
    let secrets = [
        "SECRET-MARKER",
        "HEADER-MARKER",
        "CUSTOMER-MARKER",
        "STATUS-MARKER",
        "KEY-MARKER",
        "ANSWER-MARKER",
        text(&rotated["SecretKey"]),
        text(&account.key["Key"]),
        scene.herald.operator_key(),
    ];
    for secret in secrets {
        let found = log.lines().find(|line| line.contains(secret));
        assert!(found.is_none(), "{secret} is in the log: {found:?}");
    }
}
