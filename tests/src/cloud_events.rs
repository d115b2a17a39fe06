//! CloudEvents as another program makes and reads them: a Python script with the CloudEvents project's own SDK.

use crate::python::Environment;
use crate::receiver::Request;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::{Map, Value, json};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// A Python that has the SDK.
static SDK: Environment = Environment::with(&["cloudevents==1.12.0"]);

/// A message with a CloudEvent.
#[derive(Debug)]
pub struct Message {
    /// All headers.
    pub headers: Map<String, Value>,
    /// The bytes.
    pub body: Vec<u8>,
}

/// What the SDK sends for a CloudEvent in that mode, `structured` or `binary`.
pub fn make(mode: &str, attributes: &Value, data: &Value) -> Message {
    let made = run("make", &json!({ "Mode": mode, "Attributes": attributes, "Data": data }));
    let body = made["Body"].as_str().and_then(|body| BASE64_STANDARD.decode(body).ok());
    Message {
        headers: made["Headers"].as_object().expect("headers").clone(),
        body: body.expect("base64"),
    }
}

/// What the SDK reads in a request: the attributes, and the data.
pub fn read(request: &Request) -> (Value, Value) {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers: Map<_, Value> = request
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), text(value).into()))
        .collect();
    let body = BASE64_STANDARD.encode(&request.body);
    let mut read = run("read", &json!({ "Headers": headers, "Body": body }));
    (read["Attributes"].take(), read["Data"].take())
}

fn run(deed: &str, input: &Value) -> Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("producers/cloud_events.py");
    let mut python = Command::new(SDK.program("python"))
        .arg(script)
        .arg(deed)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("Python can be started");
    let mut stdin = python.stdin.take().expect("a pipe");
    writeln!(stdin, "{input}").expect("the script reads");
    drop(stdin);
    let output = python.wait_with_output().expect("the script ends");
    assert!(output.status.success(), "{deed} {input}");
    serde_json::from_slice(&output.stdout).expect("a line of JSON")
}
