//! The command line: what a start needs, what it refuses and how it says so.

use crate::embedded::embedded;
use crate::scene::Scene;
use herald_tests::binary::{binary, command, free_port};
use herald_tests::wait::wait_for;
use herald_tests::{Api, Herald, PATIENCE, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use std::io::Read as _;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Runs a command that must end by itself, and soon.
fn run(command: &mut Command) -> (Option<i32>, String) {
    let began = Instant::now();
    let Output { status, stdout, stderr } = command.output().expect("the binary can be started");
    assert!(
        began.elapsed() < Duration::from_secs(30),
        "{command:?} took {:?}",
        began.elapsed()
    );
    (
        status.code(),
        format!(
            "{}{}",
            String::from_utf8_lossy(&stdout),
            String::from_utf8_lossy(&stderr)
        ),
    )
}

/// `herald up` in a folder of its own, on a free port, in words that should be refused.
fn refused(change: impl FnOnce(&mut Command)) -> String {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut command = command(&binary());
    command.current_dir(folder.path()).arg("up");
    change(&mut command);
    let (code, output) = run(&mut command);
    assert!(
        code.is_some_and(|code| code != 0),
        "{command:?} ended with {code:?}:\n{output}"
    );
    assert!(!output.contains("panicked"), "{output}");
    output
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_folder_belongs_to_one_process() {
    let scene = Scene::with(embedded()).await;
    let second = refused(|command| {
        command
            .arg("--data")
            .arg(scene.herald.data())
            .args(["--listen", &format!("127.0.0.1:{}", free_port())]);
    });
    assert!(second.contains("in use"), "{second}");
    assert!(
        second.contains(&scene.herald.data().display().to_string()),
        "it names the folder: {second}"
    );
    scene.subscribe("/", json!({})).await;
    scene.publish().await;
    scene.receiver.wait_for("/", 1).await;
}

/// A process that does not outlive the test.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        // It has mostly ended by itself.
        drop(self.0.kill());
    }
}

#[tokio::test]
async fn a_signal_ends_it_that_comes_with_the_greeting() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for _ in 0..40 {
        let child = command(&binary())
            .current_dir(folder.path())
            .args(["up", "--listen", &format!("127.0.0.1:{}", free_port())])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let mut herald = Started(child.expect("the binary can be started"));
        let greeting = herald.0.stdout.as_mut().expect("it is piped");
        greeting.read_exact(&mut [0]).expect("a greeting");
        kill_process(Pid::from_child(&herald.0), Signal::TERM).expect("it runs");
        let ended = wait_until("it ends", PATIENCE, async || herald.0.try_wait().expect("a child"));
        let status = ended.await;
        assert!(status.success(), "{status}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_is_taken_is_said() {
    let scene = Scene::with(embedded()).await;
    let address = format!("127.0.0.1:{}", scene.herald.port());
    let output = refused(|command| {
        command.args(["--listen", &address]);
    });
    assert!(output.contains(&address), "{output}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_files_in_the_data_folder_are_left_alone() {
    let mut herald = embedded().start().await;
    let foreign = [
        ("notes.txt", "mine"),
        ("backup/herald.db.old", "mine too"),
        (".hidden", ""),
    ];
    std::fs::create_dir_all(herald.data().join("backup")).unwrap();
    for (name, content) in foreign {
        std::fs::write(herald.data().join(name), content).unwrap();
    }
    assert_eq!(herald.terminate().await, Some(0));
    herald.restart().await;
    for (name, content) in foreign {
        assert_eq!(
            std::fs::read_to_string(herald.data().join(name)).unwrap(),
            content,
            "{name}"
        );
    }
}

#[test]
fn broker_and_database_go_together() {
    let output = refused(|command| {
        command.args(["--broker", "amqp://127.0.0.1"]);
    });
    assert!(output.contains("--database"), "{output}");
    let output = refused(|command| {
        command.env("HERALD_DATABASE_URL", "postgres://127.0.0.1/herald");
    });
    assert!(output.contains("--broker"), "{output}");
}

#[test]
fn a_bad_setting_is_named_with_where_it_came_from() {
    for (variable, value) in [
        ("HERALD_LISTEN", "8080"),
        ("HERALD_EGRESS_ALLOW", "home"),
        ("HERALD_EGRESS_ALLOW", "127.0.0.0/40"),
        ("HERALD_EGRESS_CA", "/does/not/exist.pem"),
        ("HERALD_EGRESS_DNS", "ns.example"),
        ("HERALD_OTLP_ENDPOINT", "collector:4318"),
        ("HERALD_TRACE_SAMPLE_RATIO", "2"),
    ] {
        let output = refused(|command| {
            command
                .env("HERALD_LISTEN", format!("127.0.0.1:{}", free_port()))
                .env(variable, value);
        });
        assert!(
            output.contains(variable)
                || output.contains(&variable.replace("HERALD_", "--").replace('_', "-").to_lowercase()),
            "{variable}={value}: {output}"
        );
    }
    let output = refused(|command| {
        command.args(["--listen", "nowhere"]);
    });
    assert!(output.contains("listen"), "{output}");
    let output = refused(|command| {
        command.args(["--lisen", "127.0.0.1:0"]);
    });
    assert!(output.contains("--lisen"), "{output}");
    let output = refused(|command| {
        command.args(["--config", "/does/not/exist.toml"]);
    });
    assert!(output.contains("/does/not/exist.toml"), "{output}");
}

#[test]
fn settings_come_from_the_file_then_the_environment_then_flags() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("herald.toml");
    std::fs::write(&file, "listen = \"127.0.0.1:1111\"\ndata = \"from-the-file\"\n").unwrap();
    let check = |change: &dyn Fn(&mut Command)| {
        let mut command = command(&binary());
        command.arg("check-config").arg("--config").arg(&file);
        change(&mut command);
        let (code, output) = run(&mut command);
        assert_eq!(code, Some(0), "{output}");
        output
    };
    let output = check(&|_| {});
    assert!(
        output.contains("127.0.0.1:1111") && output.contains("from-the-file"),
        "{output}"
    );
    let output = check(&|command| {
        command
            .env("HERALD_LISTEN", "127.0.0.1:2222")
            .env("HERALD_OPERATOR_KEY", "not-to-be-shown");
    });
    assert!(
        output.contains("127.0.0.1:2222") && !output.contains("not-to-be-shown"),
        "{output}"
    );
    let output = check(&|command| {
        command
            .env("HERALD_LISTEN", "127.0.0.1:2222")
            .args(["--listen", "127.0.0.1:3333"]);
    });
    assert!(output.contains("127.0.0.1:3333"), "{output}");
}

#[test]
fn help_and_completions_are_there() {
    let of = |arguments: &[&str]| {
        let (code, output) = run(command(&binary()).args(arguments));
        assert_eq!(code, Some(0), "{arguments:?}: {output}");
        output
    };
    let help = of(&["--help"]);
    for word in [
        "up",
        "send",
        "listen",
        "audit",
        "migrate",
        "check-config",
        "completions",
    ] {
        assert!(help.contains(word), "{word} is not in:\n{help}");
    }
    let help = of(&["up", "--help"]);
    for word in ["--listen", "--data", "--egress-allow", "HERALD_LISTEN", "--demo"] {
        assert!(help.contains(word), "{word} is not in:\n{help}");
    }
    assert!(of(&["completions", "bash"]).contains("herald"));
    assert!(of(&["--version"]).starts_with("herald "));
}

#[test]
fn an_audit_that_cannot_run_says_so_with_2() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = folder.path().join("nowhere");
    let (code, output) = run(command(&binary()).arg("audit").arg("--data").arg(&nowhere));
    assert_eq!(code, Some(2), "{output}");
    assert!(!nowhere.exists(), "an audit makes nothing");
}

#[test]
fn what_is_hardly_meant_is_named_by_check_config() {
    let mut command = command(&binary());
    command
        .arg("check-config")
        .env("HERALD_EGRES_ALLOW", "127.0.0.0/8")
        .env("HERALD_OPERATOR_KEY", "abc");
    let (code, output) = run(&mut command);
    assert_eq!(code, Some(0), "{output}");
    assert!(output.contains("did you mean HERALD_EGRESS_ALLOW?"), "{output}");
    assert!(
        output.contains("the operator's key has fewer than 16 characters"),
        "{output}"
    );
}

#[test]
fn a_file_that_is_no_toml_is_told_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("herald.toml");
    std::fs::write(&file, "listen = \"127.0.0.1:1\"\noops\n").unwrap();
    let (code, output) = run(command(&binary()).arg("check-config").arg("--config").arg(&file));
    assert_eq!(code, Some(1), "{output}");
    assert!(
        output.starts_with("herald: --config ") && output.contains("line 2"),
        "{output}"
    );
}

#[test]
fn what_cannot_be_listened_on_is_told_with_what_can() {
    let output = refused(|command| {
        command.args(["--listen", "18700"]);
    });
    assert!(output.contains("127.0.0.1:18700"), "{output}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_url_with_https_where_http_is_spoken_is_told_at_once() {
    let herald = embedded().start().await;
    let began = Instant::now();
    let url = format!("https://127.0.0.1:{}", herald.port());
    let (code, output) = run(command(&binary()).args(["trigger", "PacketCreated", "--key", "k", "--url", &url]));
    assert_eq!(code, Some(1), "{output}");
    assert!(
        output.contains("does not speak TLS") && output.contains("http://"),
        "{output}"
    );
    assert!(began.elapsed() < Duration::from_secs(10), "it is tried once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_address_is_one_setting_and_is_asked_at_loopback() {
    let address = format!("[::]:{}", free_port());
    let folder = tempfile::tempdir().unwrap();
    let mut up = command(&binary());
    up.args(["up", "--listen", &address, "--data"]).arg(folder.path());
    let mut up = up.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut health = command(&binary());
    health.args(["health", "--listen", &address]);
    wait_for("it is ready", PATIENCE, async || run(&mut health).0 == Some(0)).await;
    for host in ["127.0.0.1", "[::1]"] {
        let port = address.rsplit(':').next().unwrap();
        let api = Api::new(&format!("http://{host}:{port}"), "").without_key();
        let _there = api.get("/health/live").await.expect(200);
    }
    up.kill().unwrap();
    up.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_waits_for_its_database_and_says_so() {
    let address = format!("127.0.0.1:{}", free_port());
    let mut ingest = command(&binary());
    // Nothing listens on port 1.
    ingest.args([
        "ingest",
        "--broker",
        "amqp://127.0.0.1:1",
        "--database",
        "postgres://127.0.0.1:1/herald",
    ]);
    ingest
        .args(["--listen", &address])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut ingest = ingest.spawn().unwrap();
    let api = Api::new(&format!("http://{address}"), "").without_key();
    wait_for("it listens", PATIENCE, async || {
        api.try_get("/health/live").await.is_ok_and(|reply| reply.status == 200)
    })
    .await;
    wait_for("it says what it waits for", PATIENCE, async || {
        let ready = api.get("/health/ready").await.expect(503);
        ready.text().contains("the ledger cannot be reached")
    })
    .await;
    kill_process(Pid::from_child(&ingest), Signal::TERM).unwrap();
    let ended = wait_until("it has ended", PATIENCE, async || ingest.try_wait().unwrap());
    assert_eq!(ended.await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_root_says_what_is_there() {
    let herald = embedded().start().await;
    let root = herald.api().without_key().get("/").await.expect(200).json();
    assert_eq!(root["Name"], "Herald");
    let paths = root["Paths"].as_array().expect("a list");
    for path in ["/openapi.json", "/health/ready", "/metrics"] {
        assert!(paths.contains(&json!(path)), "{root}");
        let _there = herald.api().get(path).await.expect(200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_start_shows_a_key_once_and_lines_that_end_in_a_message() {
    let mut herald = embedded().making_its_key().start().await;
    let printed = async |herald: &Herald, times: usize| {
        let all = async || herald.stdout().matches("herald audit").count() == times;
        wait_for("the greeting", PATIENCE, all).await;
        herald.stdout()
    };
    let first = printed(&herald, 1).await;
    let lines: Vec<_> = first.lines().filter_map(|line| line.strip_prefix("  ")).collect();
    let key = lines
        .first()
        .and_then(|line| line.strip_prefix("export HERALD_KEY=")?.split_whitespace().next())
        .expect("a key in the greeting")
        .to_owned();
    assert_eq!(first.matches(&key).count(), 1, "{first}");
    // As one would type them, on another port than that of everybody's receiver.
    let port = free_port().to_string();
    let message = herald.scratch().join("message");
    let script = lines.join("\n").replace("9000", &port);
    let script = script.replace(" &\n", &format!(" >{} 2>&1 & receiver=$!\n", message.display()));
    let arrived = format!("until grep -q PacketCreated {}; do sleep 0.1; done", message.display());
    let script = format!("trap 'kill $receiver' EXIT\n{script}\ntimeout 20 bash -c '{arrived}'");
    let mut shell = Command::new("bash");
    shell.args(["-euc", &script]).current_dir(herald.scratch());
    let (code, output) = run(&mut shell);
    assert_eq!(code, Some(0), "{script}\n{output}");
    assert!(!output.contains("\"status\":4"), "{script}\n{output}");
    let _works = herald.api().with_key(&key).get("/v1/accounts").await.expect(200);
    assert_eq!(herald.terminate().await, Some(0));
    herald.restart().await;
    let again = printed(&herald, 2).await;
    assert_eq!(again.matches(&key).count(), 1, "shown at the first start only: {again}");
    let _works = herald.api().with_key(&key).get("/v1/accounts").await.expect(200);
    assert!(!herald.stderr().contains(&key), "the log never shows it");
}
