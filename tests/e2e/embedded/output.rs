//! What Herald writes, where nobody reads it or nothing can be written: it ends nothing and holds nothing up.

use crate::embedded::embedded;
use crate::scene::Scene;
use herald_tests::binary::{binary, command};
use herald_tests::herald::Stderr;
use herald_tests::wait::wait_for;
use herald_tests::{Herald, PATIENCE, wait_until};
use serde_json::json;
use std::fs::File;
use std::io::{Write as _, pipe};
use std::process::Stdio;

/// Runs a command with that stdout; gives its exit code and what it said on stderr.
fn run(arguments: &[&str], stdout: Stdio) -> (Option<i32>, String) {
    let mut command = command(&binary());
    let output = command
        .args(arguments)
        .stdout(stdout)
        .stderr(Stdio::piped())
        .output()
        .expect("it can be started");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!said.contains("panicked"), "{arguments:?}: {said}");
    (output.status.code(), said)
}

/// A pipe whose reader is gone already.
fn closed() -> Stdio {
    let (reader, writer) = pipe().expect("a pipe");
    drop(reader);
    writer.into()
}

fn full() -> Stdio {
    File::options().write(true).open("/dev/full").expect("Linux").into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_pipe_ends_a_command_quietly_and_a_full_disk_is_an_error() {
    let herald = embedded().start().await;
    let data = herald.data().display().to_string();
    let address = format!("127.0.0.1:{}", herald.port());
    let missing = herald.scratch().join("ids");
    std::fs::write(&missing, herald_tests::samples::guid().to_string()).expect("a file");
    let missing = missing.display().to_string();
    let cases: [(&[&str], i32, i32); 8] = [
        (&["completions", "bash"], 0, 1),
        (&["check-config"], 0, 1),
        (&["--help"], 0, 1),
        (&["send", "--help"], 0, 1),
        (&["--version"], 0, 1),
        (&["health", "--listen", &address], 0, 1),
        (&["audit", "--data", &data], 0, 2),
        (&["audit", "--data", &data, "--ids", &missing], 1, 2),
    ];
    for (arguments, of_closed, of_full) in cases {
        let (code, said) = run(arguments, closed());
        assert_eq!((code, said.as_str()), (Some(of_closed), ""), "{arguments:?}");
        let (code, said) = run(arguments, full());
        assert_eq!(code, Some(of_full), "{arguments:?}: {said}");
        assert!(said.contains("No space left"), "{arguments:?}: {said}");
    }
}

/// Publishes until lines of the log have been dropped, and then one event more, which must arrive.
async fn delivers_all_the_same(stderr: Stderr, reason: &str) {
    let mut scene = Scene::with(embedded().stderr(stderr).env("RUST_LOG", "trace")).await;
    scene.subscribe("/", json!({})).await;
    let label = format!("herald_log_lines_dropped_total{{reason=\"{reason}\"}}");
    let dropped = async |herald: &Herald| herald.metrics().await.sum(|name| name == label);
    wait_for("lines of the log are dropped", PATIENCE, async || {
        scene.publish_many(1000).await;
        dropped(&scene.herald).await > 0.0
    })
    .await;
    let last = scene.publish().await;
    wait_for("the message of the event published last", PATIENCE, async || {
        scene
            .receiver
            .requests()
            .iter()
            .any(|request| request.event_id() == last)
    })
    .await;
    let _ready = scene.api.get("/health/ready").await.expect(200);
    assert_eq!(scene.herald.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_nobody_reads_holds_nothing_up() {
    delivers_all_the_same(Stderr::Unread, "not_read").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_cannot_be_written_ends_nothing() {
    delivers_all_the_same(Stderr::Full, "failed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_fails_ends_also_where_nobody_reads_why() {
    // As much as a pipe takes.
    let (reader, mut writer) = pipe().expect("a pipe");
    writer.write_all(&vec![b'x'; 64 * 1024]).expect("room for it");
    let mut audit = command(&binary());
    audit.args(["audit", "--data", "/does/not/exist"]).stderr(writer);
    let mut audit = audit.spawn().expect("it can be started");
    let status = wait_until("the audit has ended", PATIENCE, async || {
        audit.try_wait().expect("a child can be waited for")
    });
    assert_eq!(status.await.code(), Some(2));
    drop(reader);
}
