//! How Herald and producers reach the broker: over TLS, and with no more rights than they need.

use super::on;
use crate::scene::Scene;
use herald_tests::producer::{Outgoing, publish};
use herald_tests::samples::{id_of, packet_of};
use herald_tests::services::{Ground, Postgres, RabbitMq, Servers};
use herald_tests::tls::Authority;
use herald_tests::{Herald, PATIENCE, Role};
use serde_json::json;
use uuid::Uuid;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_with_a_private_authority_is_reached_over_tls() {
    let authority = Authority::default();
    let (rabbitmq, postgres) = tokio::join!(RabbitMq::start_tls(&authority), Postgres::start());
    let servers = Servers { rabbitmq, postgres };
    let folder = tempfile::tempdir().unwrap();
    // The plain URL is what migrate and audit are given; the roles get the other.
    let mut builder = on(&servers).env("HERALD_BROKER_CA", authority.write_pem(folder.path()));
    for role in [Role::Ingest, Role::Worker, Role::Manage] {
        builder = builder.broker_of(role, &servers.rabbitmq.tls_url());
    }
    let scene = Scene::with(builder).await;
    scene.subscribe("/", json!({})).await;
    let id = scene.publish().await;
    assert_eq!(scene.receiver.wait_for_one("/").await.event_id(), id);
    scene.herald.settled(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_authority_that_nobody_named_is_not_trusted() {
    let authority = Authority::default();
    let (rabbitmq, postgres) = tokio::join!(RabbitMq::start_tls(&authority), Postgres::start());
    let mut command = herald_tests::binary::command(&herald_tests::binary::binary());
    command
        .args(["audit", "--broker", &rabbitmq.tls_url()])
        .args(["--database", &postgres.url()]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_who_may_only_write_suffices_for_ingest_and_for_a_producer() {
    let ground = Ground::take().await;
    let (vhost, database) = (&ground.vhost, &ground.database);
    let user = format!("writer-{}", Uuid::new_v4().simple());
    // Nothing to configure, nothing to read, one exchange to write to.
    let rights = ["^$", "^herald\\.events$", "^$"];
    vhost.management().make_user(&user, vhost.name(), rights).await;
    let url = vhost.url().replacen("guest:guest@", &format!("{user}:{user}@"), 1);

    let builder = Herald::builder()
        .on(vhost.url(), &database.url())
        // The workers are told that it is Herald's own.
        .env("HERALD_BROKER_USERS", &user);
    let scene = Scene::with(builder.broker_of(Role::Ingest, &url)).await;
    scene.subscribe("/", json!({})).await;
    // One event, several in one message, and one in an account's name: what ingest says is believed.
    let mut ids = vec![scene.publish().await];
    ids.extend(scene.publish_many(3).await);
    let account = scene.api.account("somebody", &["Producer"]).await;
    let own = account.api.publish(&packet_of(scene.company)).await;
    ids.push(own.clone());

    let event = packet_of(scene.company);
    ids.push(id_of(&event));
    let message = Outgoing {
        user_id: Some(user.clone()),
        ..Outgoing::new(event.to_string())
    };
    let answers = tokio::task::spawn_blocking(move || publish(&url, &[message]))
        .await
        .unwrap();
    assert_eq!(answers, ["confirmed"]);

    let mut arrived: Vec<_> = scene
        .receiver
        .wait_for("/", ids.len())
        .await
        .iter()
        .map(|request| request.event_id().to_owned())
        .collect();
    arrived.sort();
    ids.sort();
    assert_eq!(arrived, ids);
    let _seen = account.api.get(&format!("/v1/events/{own}")).await.expect(200);
    scene.herald.settled(PATIENCE).await;
    let management = vhost.management().clone();
    drop(scene);
    management.remove_user(&user).await;
}
