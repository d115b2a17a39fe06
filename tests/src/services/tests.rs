//! The servers start, die, freeze, lose everything and come back, as the scenarios rely on.

use super::{Postgres, RabbitMq, query, try_query};
use crate::sandbox::Sandbox;
use crate::tls::Authority;
use crate::wait::{PATIENCE, wait_for};
use http::Method;
use serde_json::json;
use std::process::Command;
use std::time::Duration;
use tokio::net::TcpStream;

#[tokio::test]
async fn postgres_keeps_what_was_committed_through_a_kill_and_a_stop() {
    let mut postgres = Postgres::start().await;
    let url = postgres.url();
    query(&url, "CREATE TABLE kept (number int)");
    query(&url, "INSERT INTO kept VALUES (7)");
    postgres.kill();
    assert!(try_query(&url, "SELECT 1").is_err());
    postgres.restart().await;
    assert_eq!(query(&url, "SELECT number FROM kept"), "7");
    postgres.stop().await;
    postgres.restart().await;
    assert_eq!(query(&url, "SELECT number FROM kept"), "7");
    assert_eq!(query(&url, "SHOW fsync"), "on");
}

#[tokio::test]
async fn a_frozen_postgres_answers_nobody_until_it_is_thawed() {
    let postgres = Postgres::start().await;
    postgres.freeze();
    let url = postgres.url();
    let answer = tokio::task::spawn_blocking(move || query(&url, "SELECT 1"));
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!answer.is_finished());
    postgres.thaw();
    assert_eq!(answer.await.unwrap(), "1");
}

#[tokio::test]
async fn rabbitmq_dies_freezes_blocks_and_forgets() {
    let mut rabbitmq = RabbitMq::start_tls(&Authority::default()).await;
    let management = rabbitmq.management();
    let queue = "/queues/%2f/kept";
    let durable = json!({ "durable": true, "arguments": { "x-queue-type": "quorum" } });
    management.call(Method::PUT, queue, Some(durable)).await;
    // A younger quorum queue may not survive the kill.
    tokio::time::sleep(Duration::from_secs(5)).await;

    rabbitmq.kill();
    assert!(management.try_get("/overview").await.is_none());
    rabbitmq.restart().await;
    assert!(management.try_get(queue).await.is_some(), "kept through a kill");

    rabbitmq.raise_memory_alarm().await;
    rabbitmq.clear_memory_alarm().await;

    rabbitmq.freeze();
    let answer = tokio::time::timeout(Duration::from_millis(500), management.try_get("/overview"));
    assert!(answer.await.is_err(), "a frozen broker does not answer");
    rabbitmq.thaw();
    assert!(management.try_get("/overview").await.is_some());

    rabbitmq.stop().await;
    rabbitmq.restart().await;
    assert!(management.try_get(queue).await.is_some(), "kept through a stop");

    rabbitmq.wipe().await;
    assert!(management.try_get(queue).await.is_none(), "lost with the disk");
    let port = rabbitmq.tls_url();
    let port = port.rsplit_once(':').and_then(|(_, rest)| rest.split('/').next());
    let port: u16 = port.and_then(|port| port.parse().ok()).expect("a port in the URL");
    TcpStream::connect(("127.0.0.1", port))
        .await
        .expect("it listens for TLS");
}

#[tokio::test]
async fn a_sandbox_ends_what_works_in_it_and_is_gone() {
    let sandbox = Sandbox::new("sandbox-test-");
    let path = sandbox.path().to_owned();
    // A grandchild that nobody knows, in a folder below.
    let inner = sandbox.folder("inner");
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "sleep 600 >/dev/null 2>&1 & echo $!"])
        .current_dir(inner);
    let line = String::from_utf8(shell.output().unwrap().stdout).unwrap();
    let process = format!("/proc/{}/cwd", line.trim());
    assert!(std::fs::read_link(&process).is_ok(), "it runs");
    drop(sandbox);
    wait_for("the grandchild has ended", PATIENCE, async || {
        std::fs::read_link(&process).is_err()
    })
    .await;
    assert!(!path.exists());
}
