//! Whatever is asked of the API, it answers what `/openapi.json` says that it may, and no 5xx: schemathesis makes requests
//! of every described operation, good ones and bad ones, and compares.

use crate::embedded::embedded;
use herald_tests::dns::NameServer;
use herald_tests::python::Environment;
use herald_tests::wait_until;
use std::fs::File;
use std::process::Command;
use std::time::Duration;

/// Pinned, with what the requests depend on, so that every run makes the same ones.
static SCHEMATHESIS: Environment = Environment::with(&[
    "schemathesis==4.32.5",
    "hypothesis==6.170.17",
    "jsonschema_rs==0.60.3",
    "requests==2.34.2",
]);

/// How long it may take. Where nothing else runs it takes half a minute.
const WITHIN: Duration = Duration::from_mins(2);

/// Checks that are left out, of all that there are. Herald refuses what no schema can say: a cursor that no page gave, a
/// tag that is no longer the present one, an object type that is not registered. And it takes an empty parameter of a query
/// for an absent one, so that forms work, whatever the parameter's type.
const LEFT_OUT: &str = "positive_data_acceptance,negative_data_rejection";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_is_a_described_one() {
    // The names that it makes up are asked for here and nowhere else.
    let names = NameServer::start().await;
    let herald = embedded()
        .arg("--egress-dns")
        .arg(names.address().to_string())
        .start()
        .await;
    let said = herald.scratch().join("said");
    let output = File::create(&said).expect("a file");
    let program = tokio::task::spawn_blocking(|| SCHEMATHESIS.program("schemathesis"));
    let mut running = Command::new(program.await.expect("it is installed"))
        .args(["run", "--no-color", "--checks", "all", "--exclude-checks", LEFT_OUT])
        .args(["--generation-deterministic", "--max-examples", "5", "--workers", "1"])
        .args(["--request-timeout", "20", "--warnings", "off"])
        .arg("--header")
        .arg(format!("Authorization: Bearer {}", herald.operator_key()))
        .arg(format!("http://127.0.0.1:{}/openapi.json", herald.port()))
        .current_dir(herald.scratch())
        .stderr(output.try_clone().expect("a file"))
        .stdout(output)
        .spawn()
        .expect("it can be started");
    let ended = wait_until("every operation is tried", WITHIN, async || {
        running.try_wait().expect("it can be waited for")
    });
    assert!(
        ended.await.success(),
        "{}",
        std::fs::read_to_string(said).expect("its words")
    );
}
