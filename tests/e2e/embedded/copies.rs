//! `herald audit` on a copy of the ledger that may only be read.

use crate::embedded::embedded;
use crate::restoring::copy_file;
use crate::scene::Scene;
use herald_tests::PATIENCE;
use herald_tests::binary::{binary, command};
use rustix::process::geteuid;
use serde_json::{Value, json};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;

/// Somebody with no rights of their own.
const NOBODY: u32 = 65534;

fn allow(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("it is ours");
}

/// Audits a folder as somebody who may not write there; gives the exit code, and what was said.
fn audit(herald: &Path, data: &Path) -> (Option<i32>, String, String) {
    let mut audit = command(herald);
    audit.args(["audit", "--data"]).arg(data);
    if geteuid().is_root() {
        // For root every folder can be written.
        audit.uid(NOBODY).gid(NOBODY);
    }
    let output = audit.output().expect("it can be started");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_may_only_be_read_is_audited() {
    let scene = Scene::with(embedded()).await;
    scene.subscribe("/", json!({})).await;
    scene.publish_many(3).await;
    scene.herald.settled(PATIENCE).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (data, herald) = (folder.path().join("data"), folder.path().join("herald"));
    fs::create_dir(&data).expect("a folder");
    copy_file(&scene.herald.data().join("herald.db"), &data.join("herald.db"));
    // Where the binary is, others may not look.
    fs::copy(binary(), &herald).expect("room for it");
    allow(folder.path(), 0o755);
    allow(&herald, 0o755);
    allow(&data.join("herald.db"), 0o444);
    allow(&data, 0o555);
    let (code, said, errors) = audit(&herald, &data);
    assert_eq!(code, Some(0), "{said}{errors}");
    let account: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(account["Events"], 3, "{account}");

    // What is in a log beside the file would be missing.
    allow(&data, 0o755);
    fs::write(data.join("herald.db-wal"), [0; 4096]).expect("room for it");
    allow(&data.join("herald.db-wal"), 0o444);
    allow(&data, 0o555);
    let (code, said, errors) = audit(&herald, &data);
    assert_eq!(code, Some(2), "{said}");
    assert!(errors.contains("copy them to a folder that can"), "{errors}");
    allow(&data, 0o755);
}
