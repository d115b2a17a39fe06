//! What Herald itself lacks is no subscriber's failure.

use super::embedded;
use crate::scene::{Scene, one_attempt};
use herald_tests::samples::packet_of;
use herald_tests::wait::wait_for;
use herald_tests::{Answer, Gate, PATIENCE};
use serde_json::json;

/// Each of them has a connection of its own while its answer is awaited.
const SUBSCRIPTIONS: usize = 120;

/// Enough for what the process has open already, and not for all of those.
const DESCRIPTORS: u64 = 100;

const ENOUGH: u64 = 1000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_want_of_descriptors_costs_no_attempt() {
    let scene = Scene::with(embedded()).await;
    let gate = Gate::default();
    let mut subscriptions = Vec::with_capacity(SUBSCRIPTIONS);
    for number in 0..SUBSCRIPTIONS {
        let path = format!("/{number}");
        let behind = gate.clone();
        scene.receiver.script(&path, move |_| Answer::ok().behind(&behind));
        subscriptions.push(scene.subscribe(&path, one_attempt()).await);
    }
    scene.herald.limit_descriptors(DESCRIPTORS);
    scene.publish().await;
    wait_for("attempts to be postponed", PATIENCE, async || {
        scene.herald.stderr().contains("attempts are postponed")
    })
    .await;
    // The API needs some too.
    scene.herald.limit_descriptors(ENOUGH);
    gate.open();
    for made in subscriptions {
        let delivery = scene.api.delivery_with(made.guid(), "Delivered").await;
        assert_eq!(delivery["AttemptCount"], 1, "{delivery:#}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_of_file_sizes_is_a_full_disk_and_no_end() {
    let scene = Scene::with(embedded()).await;
    scene.subscribe("/", json!({})).await;
    scene.herald.limit_file_size(1);
    let reply = scene.api.post("/v1/events", &packet_of(scene.company)).await;
    assert!(!reply.header("retry-after").is_empty(), "{reply:?}");
    let _refused = reply.problem(503);
    scene.herald.limit_file_size(1 << 40);
    wait_for("an event to be accepted", PATIENCE, async || {
        let reply = scene.api.post("/v1/events", &packet_of(scene.company)).await;
        reply.status == 202
    })
    .await;
    scene.receiver.wait_for("/", 1).await;
}
