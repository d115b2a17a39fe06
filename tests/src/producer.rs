//! A producer that is not Herald's: a Python script with pika, the AMQP library that most would take.

use crate::python::Environment;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::{Map, Value, json};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// A Python that has pika.
static PIKA: Environment = Environment::with(&["pika"]);

/// A message as a producer publishes it.
#[derive(Debug, Clone)]
pub struct Outgoing {
    pub body: Vec<u8>,
    /// The property `message_id`.
    pub message_id: Option<String>,
    /// The property `user_id`, which the broker checks.
    pub user_id: Option<String>,
    /// The property `content_type`; `application/json` where there is none.
    pub content_type: Option<String>,
    /// The header `traceparent`.
    pub traceparent: Option<String>,
    /// Further headers, each a text.
    pub headers: Vec<(String, String)>,
    /// The property `content_encoding`.
    pub encoding: Option<String>,
    /// What is odd about its properties, by the script's names.
    pub odd: Option<String>,
}

impl Outgoing {
    /// A message without properties.
    pub fn new(body: impl Into<Vec<u8>>) -> Self {
        Self {
            body: body.into(),
            message_id: None,
            user_id: None,
            content_type: None,
            traceparent: None,
            headers: Vec::new(),
            encoding: None,
            odd: None,
        }
    }

    fn line(&self) -> Value {
        let body = BASE64_STANDARD.encode(&self.body);
        let headers = self.headers.iter().cloned();
        let headers: Map<String, Value> = headers.map(|(name, text)| (name, text.into())).collect();
        let mut line = json!({ "Key": "packet.created", "Body": body, "Headers": headers });
        let properties = [
            ("MessageId", &self.message_id),
            ("UserId", &self.user_id),
            ("ContentType", &self.content_type),
            ("Traceparent", &self.traceparent),
            ("Encoding", &self.encoding),
            ("Odd", &self.odd),
        ];
        for (name, value) in properties {
            if let Some(value) = value {
                line[name] = json!(value);
            }
        }
        line
    }
}

/// Publishes to `herald.events`, and gives for each message `confirmed` or why it was not.
pub fn publish(broker: &str, messages: &[Outgoing]) -> Vec<String> {
    try_publish(broker, messages).expect("the broker is there until the end")
}

/// As [`publish`]; none where the connection to the broker could not be made or broke.
pub fn try_publish(broker: &str, messages: &[Outgoing]) -> Option<Vec<String>> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("producers/producer.py");
    let mut producer = Command::new(PIKA.program("python"))
        .arg(script)
        .arg(broker)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("Python can be started");
    let mut input = producer.stdin.take().expect("a pipe");
    for message in messages {
        // A script without a connection does not read, and how it ended says so.
        if writeln!(input, "{}", message.line()).is_err() {
            break;
        }
    }
    drop(input);
    let output = producer.wait_with_output().expect("the script ends");
    let said = String::from_utf8(output.stdout).expect("lines of text");
    output
        .status
        .success()
        .then(|| said.lines().map(str::to_owned).collect())
}
