//! The commands of README and of `docs/` run as they are printed.
//!
//! The convention: a fenced block (`sh` or `console`) directly below the line `<!-- tested -->` is run,
//! all such blocks of a document in one shell, in order. In a `console` block the commands are the lines that begin
//! with `$ `, with what a backslash continues; the rest is output, shown for the reader and not compared,
//! because GUIDs and times differ. What the blocks may rely on:
//!
//! | in README | in the test |
//! |---|---|
//! | `http://127.0.0.1:8080` | the server's address |
//! | `http://127.0.0.1:9000` | a receiver's address |
//! | `$KEY`, `$HERALD_OPERATOR_KEY` | the operator's key |
//! | `herald` | the binary under test |
//!
//! Every `curl` must succeed, an HTTP error counting as failure: it is run with `--fail-with-body`, which
//! goes with `-s` and not with `-f`. A command with quotes over several lines belongs into an `sh` block. What starts a server or does not end
//! by itself (`herald up`, `herald listen`) stays outside of the blocks. Afterwards at least one message
//! must have arrived at the receiver.

use crate::embedded::{document, embedded};
use herald_tests::binary::binary;
use herald_tests::{PATIENCE, Receiver, wait_until};
use std::process::Command;

/// The commands of the marked blocks.
fn commands(readme: &str) -> String {
    let mut commands = String::new();
    let mut lines = readme.lines();
    while let Some(line) = lines.next() {
        if line.trim() != "<!-- tested -->" {
            continue;
        }
        let fence = lines.next().unwrap_or_default();
        let console = fence == "```console";
        assert!(
            console || fence == "```sh",
            "below <!-- tested --> comes ```sh or ```console, not {fence:?}"
        );
        let mut continued = false;
        for line in lines.by_ref().take_while(|line| !line.starts_with("```")) {
            let command = if console && !continued {
                line.strip_prefix("$ ")
            } else {
                Some(line)
            };
            if let Some(command) = command {
                continued = command.ends_with('\\');
                commands.push_str(command);
                commands.push('\n');
            }
        }
    }
    commands
}

#[test]
fn commands_are_told_from_output() {
    let readme = "a\n```sh\nnot this\n```\n<!-- tested -->\n```console\n$ one \\\n  two\noutput\n$ three\n```\n<!-- tested -->\n```sh\nfour\n```\n";
    assert_eq!(commands(readme), "one \\\n  two\nthree\nfour\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_readme_does_what_it_says() {
    does_what_it_says("README.md").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_on_failed_deliveries_does_what_it_says() {
    does_what_it_says("docs/failed-deliveries.md").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_on_accounts_does_what_it_says() {
    does_what_it_says("docs/accounts.md").await;
}

async fn does_what_it_says(path: &str) {
    let commands = commands(&document(path));
    assert!(!commands.is_empty(), "{path} has no block below <!-- tested -->");
    let herald = embedded().start().await;
    let receiver = Receiver::start().await;
    let address = format!("http://127.0.0.1:{}", herald.port());
    let commands = commands
        .replace("http://127.0.0.1:8080", &address)
        .replace("http://127.0.0.1:9000", receiver.url("").as_str());
    let script = format!("set -euxo pipefail\ncurl() {{ command curl --fail-with-body \"$@\"; }}\n{commands}");
    let folder = binary().parent().expect("a file is in a folder").to_owned();
    let programs = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default());
    // Some wait until something is so.
    let output = Command::new("timeout")
        .args(["60", "bash", "-c", &script])
        .current_dir(herald.scratch())
        .env("PATH", programs)
        .env("KEY", herald.operator_key())
        .env("HERALD_OPERATOR_KEY", herald.operator_key())
        .output()
        .expect("there is a shell");
    let said = format!(
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{said}");
    wait_until("a message at the receiver", PATIENCE, async || {
        receiver.requests().first().cloned()
    })
    .await;
}
