//! `herald up --demo`: the main job, seen in ten seconds, leaving nothing behind.

use herald_tests::binary::{binary, command};
use std::time::{Duration, Instant};

#[test]
fn the_demo_shows_the_main_job_and_ends() {
    let folder = tempfile::tempdir().unwrap();
    let temporary = tempfile::tempdir().unwrap();
    let mut demo = command(&binary());
    demo.args(["up", "--demo"])
        .current_dir(folder.path())
        .env("TMPDIR", temporary.path());
    // Nobody's settings may reach into the demo.
    demo.env("HTTP_PROXY", "http://127.0.0.1:9").env("NO_COLOR", "1");
    let began = Instant::now();
    let output = demo.output().unwrap();
    let took = began.elapsed();
    let (shown, logged) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert_eq!(output.status.code(), Some(0), "{shown}\n{logged}");
    assert!(took < Duration::from_mins(1), "it took {took:?}");
    for word in [
        "PacketCreated",
        "PacketUpdated",
        "NewCommunication",
        "BusinessObject",
        "InvoicePaid",
        "erified",
    ] {
        assert!(shown.contains(word), "{word} is not in:\n{shown}");
    }
    let lower = shown.to_lowercase();
    for word in ["dead", "500", "audit"] {
        assert!(lower.contains(word), "{word} is not in:\n{shown}");
    }
    assert!(
        !lower.contains("not verified") && !lower.contains("panicked"),
        "{shown}\n{logged}"
    );
    for left in [folder.path(), temporary.path()] {
        let names: Vec<_> = std::fs::read_dir(left)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert!(names.is_empty(), "left behind: {names:?}");
    }
}
