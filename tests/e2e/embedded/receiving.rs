//! The receivers' code of `docs/receiving.md` verifies what Herald sends, and nothing else.
//!
//! The first block of each language is run as it is printed; `js` is the one with a public key. Go and C# are not run
//! here: they were compiled and checked with the same cases by hand, with Go 1.19 and Mono 6.8.

use crate::embedded::document;
use crate::scene::Scene;
use serde_json::{Value, json};
use std::io::Write as _;
use std::process::{Command, Stdio};

const PYTHON: &str = "\nimport json, sys\nfor c in json.load(sys.stdin):\n    print(verify(c['secret'], c['headers'], bytes(c['body'])))\n";
const NODE: &str = "\nfor (const c of JSON.parse(require('fs').readFileSync(0)))\n  console.log(verify(c.secret, c.headers, Buffer.from(c.body)));\n";

/// The first block of that language.
fn code(language: &str) -> String {
    let document = document("docs/receiving.md");
    let (_, behind) = document
        .split_once(&format!("```{language}\n"))
        .expect("the document has such a block");
    behind.split_once("```").expect("the block has an end").0.to_owned()
}

/// What the program says of each case.
fn run(program: &str, option: &str, script: &str, cases: &Value) -> Vec<bool> {
    let mut child = Command::new(program)
        .args([option, script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("tests/install installs it");
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin.write_all(cases.to_string().as_bytes()).expect("it reads");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{program}: {output:?}");
    let said = String::from_utf8(output.stdout).expect("it says true or false");
    said.lines().map(|line| line.eq_ignore_ascii_case("true")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_printed_receivers_verify_what_herald_sends_and_nothing_else() {
    let scene = Scene::start().await;
    let made = scene.subscribe("/", json!({})).await;
    scene.publish().await;
    let request = scene.receiver.wait_for_one("/").await;
    let body = request.body.to_vec();
    let case = |secret: &str, id: &str, timestamp: &str, signature: &str, body: &[u8]| {
        json!({"secret": secret, "body": body, "headers": {
            "webhook-id": id, "webhook-timestamp": timestamp, "webhook-signature": signature,
        }})
    };
    let secret = made.signing_secret();
    let header = |name| request.header(name).to_owned();
    let (id, timestamp, signature) = (
        header("webhook-id"),
        header("webhook-timestamp"),
        header("webhook-signature"),
    );
    let signer = standardwebhooks::Webhook::new(secret).expect("a whsec_ secret");
    let signed_at = |seconds: i64| {
        let signature = signer.sign(&id, seconds, &body).expect("it is UTF-8");
        case(secret, &id, &seconds.to_string(), &signature, &body)
    };
    // It was made a moment ago.
    let now: i64 = timestamp.parse().expect("a number of seconds");
    let other = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3";
    let both = format!("v1,AAAA {signature}");
    let cases = [
        (case(secret, &id, &timestamp, &signature, &body), true),
        (case(secret, &id, &timestamp, &both, &body), true),
        (signed_at(now), true),
        (signed_at(now - 400), false),
        (signed_at(now + 400), false),
        (case(secret, &id, &timestamp, &signature, b"{}"), false),
        (case(other, &id, &timestamp, &signature, &body), false),
        (case(secret, "another", &timestamp, &signature, &body), false),
        (case(secret, &id, "soon", &signature, &body), false),
        (case(secret, &id, &timestamp, "v1,AAAA", &body), false),
    ];
    let expected: Vec<bool> = cases.iter().map(|(_, expected)| *expected).collect();
    let cases: Value = cases.into_iter().map(|(case, _)| case).collect();
    assert_eq!(
        run("node", "-e", &format!("{}{NODE}", code("javascript")), &cases),
        expected
    );
    assert_eq!(
        run("python3", "-c", &format!("{}{PYTHON}", code("python")), &cases),
        expected
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_printed_receiver_with_a_public_key_verifies_what_herald_sends_and_nothing_else() {
    let scene = Scene::start().await;
    let made = scene.subscribe("/", json!({"Signatures": ["v1", "v1a"]})).await;
    scene.publish().await;
    let request = scene.receiver.wait_for_one("/").await;
    let case = |key: &Value, id: &str, signature: &str, body: &[u8]| {
        json!({"secret": key, "body": body, "headers": {
            "webhook-id": id, "webhook-timestamp": request.header("webhook-timestamp"), "webhook-signature": signature,
        }})
    };
    let (key, id, signature) = (
        &made.0["PublicKey"],
        request.header("webhook-id"),
        request.header("webhook-signature"),
    );
    let other = json!("whpk_O2onvM62pC1io6jQKm8Nc2UyFXcd4kOmOsBIoYtZ2ik=");
    let (symmetric, _) = signature.split_once(' ').expect("there are two");
    let cases = json!([
        case(key, id, signature, &request.body),
        case(key, id, symmetric, &request.body),
        case(key, id, "v1a,AAAA", &request.body),
        case(key, id, signature, b"{}"),
        case(key, "another", signature, &request.body),
        case(&other, id, signature, &request.body),
    ]);
    let said = run("node", "-e", &format!("{}{NODE}", code("js")), &cases);
    assert_eq!(said, [true, false, false, false, false, false]);
}
