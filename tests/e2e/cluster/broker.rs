//! RabbitMQ goes away, forgets, or refuses: ingest says 503 and recovers by itself, the ledger goes on.

use super::{OwnServers, long};
use crate::load::{Load, a_while, kills};
use crate::scene::Scene;
use herald_tests::samples::packet_of;
use herald_tests::services::{Postgres, RabbitMq};
use herald_tests::wait::{wait_for, wait_until};
use herald_tests::{Answer, Api, Gate, Herald, PATIENCE};
use http::Method;
use serde_json::{Value, json};
use std::time::Duration;
use uuid::Uuid;

/// Each costs some ten seconds.
fn restarts() -> u64 {
    (kills() / 3).clamp(2, 20)
}

/// Waits until ingest refuses an event, which it must do with 503 and Retry-After. The event is one that is
/// known already, so that it changes nothing whether this or that repeat of it is taken.
async fn refused(api: &Api, known: &Value) {
    wait_for("ingest answers 503", PATIENCE, async || {
        let reply = api.post("/v1/events", known).await;
        if reply.status == 202 {
            return false;
        }
        assert!(!reply.header("retry-after").is_empty(), "{reply:?}");
        let _refused = reply.problem(503);
        true
    })
    .await;
}

/// Waits until ingest accepts again.
async fn accepted(api: &Api, event: &Value) {
    wait_until("ingest answers 202 again", PATIENCE, async || {
        let reply = api.try_send(Method::POST, "/v1/events", event).await.ok()?;
        (reply.status == 202).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_killed_loses_nothing_that_was_accepted() {
    let mut own = OwnServers::start().await;
    let (scene, servers) = (&own.scene, &mut own.servers);
    let load = Load::start(scene).await;
    for _ in 0..restarts() {
        a_while().await;
        let before = load.refused();
        servers.rabbitmq.kill();
        wait_for("producers notice", PATIENCE, async || load.refused() > before).await;
        servers.rabbitmq.restart().await;
        let before = load.accepted();
        wait_for("events are accepted again", PATIENCE, async || {
            load.accepted() > before + 20
        })
        .await;
    }
    load.finish(scene, &format!("RabbitMQ killed {} times", restarts()))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_the_ledger_outlives_a_broker_that_lost_everything() {
    const EVENTS: usize = 200;
    let mut own = OwnServers::start().await;
    let (scene, servers) = (&own.scene, &mut own.servers);
    let gate = Gate::default();
    scene.receiver.script("/", {
        let gate = gate.clone();
        move |_| Answer::ok().behind(&gate)
    });
    scene
        .subscribe("/", json!({ "MaxInFlight": 4, "TimeoutSeconds": 30 }))
        .await;
    let known = packet_of(scene.company);
    let mut ids = vec![scene.api.publish(&known).await];
    ids.extend(scene.publish_many(EVENTS - 1).await);
    wait_for("all is dispatched", PATIENCE, async || {
        let audit = scene.herald.audit();
        audit.count("Events") == EVENTS as u64 && audit.count("InTransit") == 0
    })
    .await;
    servers.rabbitmq.kill();
    refused(&scene.api, &known).await;
    gate.open();
    scene.receiver.wait_for("/", EVENTS).await;
    servers.rabbitmq.wipe().await;
    let event = packet_of(scene.company);
    accepted(&scene.api, &event).await;
    ids.push(herald_tests::samples::id_of(&event));
    scene.receiver.wait_for("/", EVENTS + 1).await;
    scene.herald.settled(PATIENCE).await;
    let audit = scene.herald.audit_ids(ids.iter().map(String::as_str)).exact();
    assert_eq!(audit.account["Missing"], json!([]), "{}", audit.output);
    crate::load::check_identity(&scene.receiver.requests());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_memory_alarm_stops_ingest_and_nothing_else() {
    let own = OwnServers::start().await;
    let (scene, servers) = (&own.scene, &own.servers);
    let known = packet_of(Uuid::new_v4());
    scene.api.publish(&known).await;
    let load = Load::start(scene).await;
    a_while().await;
    servers.rabbitmq.raise_memory_alarm().await;
    refused(&scene.api, &known).await;
    // Acknowledgements and deliveries go on: with nothing new coming, all that was there is finished.
    let before = load.accepted();
    scene.herald.settled(PATIENCE).await;
    assert_eq!(load.accepted(), before, "nothing is accepted in the meantime");
    servers.rabbitmq.clear_memory_alarm().await;
    wait_for("events are accepted again", PATIENCE, async || {
        load.accepted() > before + 20
    })
    .await;
    load.beside(1).finish(scene, "memory alarm").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_three_may_die() {
    if !long() {
        return;
    }
    let (mut nodes, postgres) = tokio::join!(RabbitMq::start_cluster(), Postgres::start());
    let scene = Scene::with(Herald::builder().on(&nodes[0].url(), &postgres.url())).await;
    let load = Load::start(&scene).await;
    for round in 0..restarts() {
        tokio::time::sleep(Duration::from_secs(5)).await;
        // Herald is connected to the first; the others are members of its queues, and one may lead them.
        let victim = &mut nodes[if round % 2 == 0 { 1 } else { 2 }];
        victim.kill();
        let before = load.accepted();
        wait_for("events are accepted by the other two", PATIENCE, async || {
            load.accepted() > before + 100
        })
        .await;
        victim.restart().await;
    }
    load.finish(&scene, &format!("a node of three killed {} times", restarts()))
        .await;
}
