//! PostgreSQL goes away or hangs: events are accepted all the same, and wait in RabbitMQ. And what stands before it.

use super::OwnServers;
use crate::load::{Load, a_while, kills};
use herald_tests::PATIENCE;
use herald_tests::samples::{event, id_of, merged};
use herald_tests::services::{Ground, PgBouncer};
use herald_tests::wait::wait_for;
use serde_json::json;
use std::time::Duration;

/// Waits until the producers were told 202 for that many more events.
async fn more(load: &Load, events: usize) {
    let before = load.accepted();
    wait_for("events are accepted", PATIENCE, async || {
        load.accepted() > before + events
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_killed_loses_nothing_and_stops_no_producer() {
    let mut own = OwnServers::start().await;
    let (scene, servers) = (&own.scene, &mut own.servers);
    let load = Load::start(scene).await;
    let restarts = (kills() / 2).clamp(2, 30);
    for _ in 0..restarts {
        a_while().await;
        servers.postgres.kill();
        more(&load, 50).await;
        servers.postgres.restart().await;
        wait_for("/health/ready is 200 again", PATIENCE, async || {
            let reply = scene.api.try_get("/health/ready").await;
            reply.is_ok_and(|reply| reply.status == 200)
        })
        .await;
    }
    load.finish(scene, &format!("PostgreSQL killed {restarts} times")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_hangs_for_a_while_loses_nothing_and_stops_no_producer() {
    let own = OwnServers::start().await;
    let (scene, servers) = (&own.scene, &own.servers);
    let load = Load::start(scene).await;
    a_while().await;
    servers.postgres.freeze();
    let hanging = tokio::time::sleep(Duration::from_secs(8));
    tokio::join!(hanging, more(&load, 50));
    servers.postgres.thaw();
    a_while().await;
    load.finish(scene, "PostgreSQL frozen for 8 s").await;
}

/// What takes sessions apart would mix up statements, settings and locks of all who use it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_that_lends_out_sessions_by_transaction_is_refused_and_one_by_session_serves() {
    let ground = Ground::take().await;
    let herald = |arguments: &[&str], database: &str| {
        let mut command = herald_tests::binary::command(&herald_tests::binary::binary());
        command
            .args(arguments)
            .args(["--broker", ground.vhost.url(), "--database", database]);
        command.output().unwrap()
    };
    for pool_mode in ["transaction", "statement"] {
        let pooler = PgBouncer::start(&ground.database.url(), pool_mode).await;
        for arguments in [&["migrate"][..], &["audit"], &["worker", "--listen", "127.0.0.1:0"]] {
            let output = herald(arguments, pooler.url());
            let words = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!output.status.success(), "{pool_mode}: {arguments:?}");
            assert!(
                words.contains("pool_mode=session"),
                "{pool_mode}: {arguments:?}: {words}"
            );
        }
    }
    let pooler = PgBouncer::start(&ground.database.url(), "session").await;
    for arguments in [["migrate"], ["audit"]] {
        let output = herald(&arguments, pooler.url());
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_database_a_worker_holds_little_and_gives_it_back() {
    const REQUESTS: usize = 24;
    const EVENTS: usize = 28;
    if !super::long() {
        return;
    }
    let mut own = OwnServers::start().await;
    let (scene, servers) = (&own.scene, &mut own.servers);
    let metric = async |meant: &str| scene.herald.metrics().await.sum(|name| name == meant);
    let mut ids = vec![scene.publish().await];
    servers.postgres.kill();
    let large = json!({ "Data": { "Name": "x".repeat(250_000) } });
    let mut most = 0.0_f64;
    for _ in 0..REQUESTS {
        let events: Vec<_> = (0..EVENTS)
            .map(|_| merged(event("BusinessObjectCreated"), large.clone()))
            .collect();
        ids.extend(events.iter().map(id_of));
        let events = json!(events);
        wait_for("they are accepted", PATIENCE, async || {
            scene.api.post("/v1/events", &events).await.status == 202
        })
        .await;
        most = most.max(metric("herald_queue_unacknowledged_bytes").await);
    }
    let limit = f64::from(128 << 20);
    let requests = f64::from(u8::try_from(REQUESTS).expect("a few"));
    assert!(7_000_000.0 * requests > limit, "more is published than may be in hand");
    wait_for("all is given back", PATIENCE, async || {
        let (in_hand, ready) = (
            metric("herald_queue_unacknowledged_bytes").await,
            metric("herald_queue_messages_ready{queue=\"herald.events\"}").await,
        );
        most = most.max(in_hand);
        in_hand < 0.5 && ready > requests - 0.5
    })
    .await;
    assert!(most <= limit, "{most} bytes were in hand");
    servers.postgres.restart().await;
    scene.herald.settled(PATIENCE).await;
    let audit = scene.herald.audit_ids(ids.iter().map(String::as_str)).exact();
    assert_eq!(
        audit.count("Events"),
        (REQUESTS * EVENTS + 1) as u64,
        "{}",
        audit.output
    );
    assert_eq!(audit.account["Missing"], json!([]), "{}", audit.output);
}
