//! One process of several dies, hangs or is told to end; the others go on.

use crate::load::{Load, a_while, kills};
use crate::scene::Scene;
use herald_tests::{Answer, Herald, Role, Stack};
use serde_json::json;
use std::time::{Duration, Instant};

/// A worker's claim on its lanes, without news from it.
const LEASE: Duration = Duration::from_secs(15);

const MIXED: [Role; 5] = [Role::Ingest, Role::Dispatch, Role::Deliver, Role::Deliver, Role::Manage];

/// kill -9 of one process after the other, each started again before the next.
async fn kill_in_turns(roles: &[Role], victims: &[(Role, usize)]) {
    let mut scene = Scene::with(Herald::builder().roles(roles)).await;
    let load = Load::start(&scene).await;
    for (role, number) in victims.iter().cycle().take(usize::try_from(kills()).expect("few")) {
        a_while().await;
        scene.herald.kill_role(*role, *number).await;
        drop(scene.herald.audit().exact());
        scene.herald.restart_role(*role, *number).await;
    }
    load.finish(&scene, &format!("kill -9 of {victims:?} in turns, {} kills", kills()))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_of_each_role_loses_nothing_that_was_accepted() {
    let roles = [Role::Ingest, Role::Worker, Role::Worker, Role::Manage];
    let victims = [
        (Role::Worker, 0),
        (Role::Ingest, 0),
        (Role::Worker, 1),
        (Role::Manage, 0),
    ];
    kill_in_turns(&roles, &victims).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_of_dispatch_and_deliver_apart_loses_nothing_that_was_accepted() {
    let victims = [(Role::Dispatch, 0), (Role::Deliver, 0), (Role::Deliver, 1)];
    kill_in_turns(&MIXED, &victims).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_was_frozen_past_its_lease_does_no_harm_when_it_wakes() {
    let mut scene = Scene::with(Herald::builder().stack(Stack::Cluster)).await;
    let load = Load::start(&scene).await;
    a_while().await;
    scene.herald.freeze_role(Role::Worker, 0);
    tokio::time::sleep(LEASE + Duration::from_secs(3)).await;
    // The other has everything by now, and goes on while this one finds out.
    scene.herald.thaw_role(Role::Worker, 0);
    a_while().await;
    load.finish(&scene, "a worker frozen past its lease").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_ends_in_order_hands_its_lanes_over_at_once() {
    const LANES: usize = 24;
    let mut scene = Scene::with(Herald::builder().stack(Stack::Cluster)).await;
    scene.receiver.script("/", |request| {
        Answer::status(if request.repeat == 1 { 500 } else { 200 })
    });
    // Enough that either worker has some: that one has none is as likely as 1 in 2^23.
    for _ in 0..LANES {
        scene
            .subscribe("/", json!({ "Retry": { "InitialSeconds": 2, "Multiplier": 1 } }))
            .await;
    }
    // Retries that come due with the one worker, after the other has ended.
    scene.publish_many(2).await;
    scene.receiver.wait_for("/", 2 * LANES).await;
    let code = scene.herald.terminate_role(Role::Worker, 0).await;
    assert_eq!(code, Some(0), "{}", scene.herald.stderr());
    let ended = Instant::now();
    scene.publish_many(2).await;
    scene.receiver.wait_for("/", 8 * LANES).await;
    let took = ended.elapsed();
    assert!(
        took < LEASE.div_f64(1.5),
        "took {took:?}, as if it had waited for the lease"
    );
    let audit = scene.herald.settled(LEASE).await.exact();
    assert_eq!(audit.deliveries("Delivered"), 4 * LANES as u64, "{}", audit.output);
    assert_eq!(scene.receiver.requests().len(), 8 * LANES, "each exactly twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_in_one_process_works_on_servers_too() {
    let mut scene = Scene::with(Herald::builder().roles(&[Role::Up])).await;
    let load = Load::start(&scene).await;
    a_while().await;
    scene.herald.kill().await;
    scene.herald.restart().await;
    load.finish(&scene, "herald up on servers, 1 kill").await;
}
