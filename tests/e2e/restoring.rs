//! A backup that was made under way becomes a Herald again, as `deploy/README.md` describes it.

use crate::scene::Scene;
use herald_tests::api::text;
use herald_tests::herald::Builder;
use herald_tests::samples::packet_of;
use herald_tests::services::{Database, Ground, Vhost, dump, restore};
use herald_tests::{Answer, Herald, PATIENCE, Receiver, Stack};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use uuid::Uuid;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_restores_what_was_there_and_tells_what_came_after_it() {
    let scene = Scene::start().await;
    scene
        .receiver
        .script("/waiting", |request| match request.header("webhook-attempt") {
            "1" => Answer::status(500),
            _ => Answer::ok(),
        });
    scene.subscribe("/good", json!({})).await;
    let slow = json!({ "Retry": { "InitialSeconds": 5, "Multiplier": 1 } });
    let waiting = scene.subscribe("/waiting", slow).await;
    let before = events(scene.company, 20);
    scene.api.publish_all(&before).await;
    let good = scene.receiver.wait_for("/good", 20).await;
    // Recorded, and open until long after the backup.
    scene.api.deliveries_with(waiting.guid(), 20, "Open").await;

    let folder = tempfile::tempdir().expect("a temporary folder");
    let backup = folder.path().join("backup");
    back_up(&scene.herald, &backup);

    let after = events(scene.company, 10);
    scene.api.publish_all(&after).await;
    scene.receiver.wait_for("/good", 30).await;
    let Scene {
        mut herald, receiver, ..
    } = scene;
    assert_eq!(herald.terminate().await, Some(0));
    let sent_before = webhook_ids(&receiver, "/waiting");
    drop(herald);

    let restored = Restored::from(&backup, folder.path()).await;
    let herald = restored.builder.start().await;
    let audit = herald.audit_ids(before.iter().chain(&after).map(id));
    assert_eq!(audit.exit_code, Some(1), "something is missing: {}", audit.output);
    assert_eq!(audit.account["Differences"], json!([]), "{}", audit.output);
    let expected: BTreeSet<_> = after.iter().map(id).collect();
    let missing = audit.account["Missing"].as_array().expect("it was asked for Ids");
    assert_eq!(
        missing.iter().map(text).collect::<BTreeSet<_>>(),
        expected,
        "{}",
        audit.output
    );

    // What was open is sent again, under the names that its subscriber knows.
    let audit = herald.settled(PATIENCE).await;
    assert_eq!(audit.deliveries("Delivered"), 40, "{}", audit.output);
    let sent: BTreeSet<_> = webhook_ids(&receiver, "/waiting");
    assert_eq!(sent.difference(&sent_before).count(), 0, "no delivery has another name");
    assert_eq!(receiver.requests_to("/good").len(), 30, "what was delivered stays so");

    // A producer that publishes all of it again adds only what was missing.
    herald.api().publish_all(&[before, after].concat()).await;
    let audit = herald.settled(PATIENCE).await;
    assert_eq!(
        (audit.count("Events"), audit.deliveries("Delivered")),
        (30, 60),
        "{}",
        audit.output
    );
    assert_eq!(receiver.requests_to("/good").len(), 40);
    assert_eq!(good.len(), 20);
}

fn events(company: Uuid, count: usize) -> Vec<Value> {
    (0..count).map(|_| packet_of(company)).collect()
}

fn id(event: &Value) -> &str {
    text(&event["Id"])
}

fn webhook_ids(receiver: &Receiver, path: &str) -> BTreeSet<String> {
    let requests = receiver.requests_to(path);
    requests
        .iter()
        .map(|request| request.header("webhook-id").to_owned())
        .collect()
}

/// Copies the ledger while it is in use.
fn back_up(herald: &Herald, to: &Path) {
    match herald.stack() {
        Stack::Embedded => copy_file(&herald.data().join("herald.db"), to),
        Stack::Cluster => dump(&herald.ground().database.url(), to),
    }
}

/// What `sqlite3 FROM ".backup TO"` does; Python has it everywhere.
pub(crate) fn copy_file(from: &Path, to: &Path) {
    let copy = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).backup(sqlite3.connect(sys.argv[2]))";
    let status = Command::new("python3").args(["-c", copy]).arg(from).arg(to).status();
    assert!(
        status.expect("python3 is installed").success(),
        "{} is not copied",
        from.display()
    );
}

/// A place with what was in the backup. The servers' parts go after the Herald that is on them.
struct Restored {
    builder: Builder,
    _ground: Option<Ground>,
}

impl Restored {
    async fn from(backup: &Path, folder: &Path) -> Self {
        match Stack::default() {
            Stack::Embedded => {
                let data: PathBuf = folder.join("data");
                std::fs::create_dir(&data).expect("a writable folder");
                std::fs::copy(backup, data.join("herald.db")).expect("a writable folder");
                Self {
                    builder: Herald::builder().data(data),
                    _ground: None,
                }
            }
            Stack::Cluster => {
                let ground = Ground {
                    vhost: Vhost::create().await,
                    database: Database::create(),
                };
                restore(&ground.database.url(), backup);
                Self {
                    builder: Herald::builder().on(ground.vhost.url(), &ground.database.url()),
                    _ground: Some(ground),
                }
            }
        }
    }
}
