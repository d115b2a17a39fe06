//! An OpenTelemetry collector on a loopback address, that keeps what it gets.

use crate::wait::{PATIENCE, wait_until};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1 as wire;
use prost::Message;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// The collector; it ends when dropped.
#[derive(Debug)]
pub struct Collector {
    address: SocketAddr,
    spans: Arc<Mutex<Vec<Span>>>,
    serving: JoinHandle<()>,
}

/// A span as it came.
#[derive(Debug, Clone)]
pub struct Span {
    /// What kind of work it was.
    pub name: String,
    /// Such as `Server`.
    pub kind: wire::span::SpanKind,
    /// In hexadecimal digits, like all ids here.
    pub trace: String,
    pub id: String,
    /// The id of the span that it follows from; empty where the trace begins.
    pub parent: String,
    /// The ids of spans that it names besides.
    pub links: Vec<String>,
    pub failed: bool,
    /// When it began and ended, in nanoseconds.
    pub times: (u64, u64),
    /// What else is known of it, and of its process.
    pub attributes: BTreeMap<String, String>,
}

impl Collector {
    pub async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let spans = Arc::<Mutex<Vec<Span>>>::default();
        let routes = Router::new()
            .route("/v1/traces", post(take))
            .with_state(Arc::clone(&spans));
        let serving = tokio::spawn(async move {
            axum::serve(listener, routes).await.expect("the listener stays");
        });
        Self {
            address,
            spans,
            serving,
        }
    }

    /// What Herald is to be told of it.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every span so far, in the order of their arrival.
    pub fn spans(&self) -> Vec<Span> {
        lock(&self.spans).clone()
    }

    /// Waits for that many spans of a trace, and gives them parents first, and else in the order in which they began.
    pub async fn trace(&self, trace: &str, count: usize) -> Vec<Span> {
        let what = format!("{count} spans of the trace {trace}");
        wait_until(&what, PATIENCE, async || {
            let mut found = self.spans();
            found.retain(|span| span.trace == trace);
            let all = found.clone();
            // Processes need not agree on the time.
            found.sort_by_key(|span| (depth(span, &all), span.times.0));
            Some(found).filter(|found| found.len() >= count)
        })
        .await
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Span {
    /// An attribute as text; empty where it is not there.
    pub fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map(String::as_str).unwrap_or_default()
    }
}

/// How many of those it follows from.
fn depth(span: &Span, all: &[Span]) -> usize {
    let parent = all.iter().find(|other| other.id == span.parent);
    parent.map_or(0, |parent| 1 + depth(parent, all))
}

fn lock(spans: &Mutex<Vec<Span>>) -> MutexGuard<'_, Vec<Span>> {
    spans.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn take(State(spans): State<Arc<Mutex<Vec<Span>>>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    assert_eq!(headers["content-type"], "application/x-protobuf");
    let request = ExportTraceServiceRequest::decode(body).expect("OTLP");
    for of_process in request.resource_spans {
        let resource = of_process.resource.expect("a resource").attributes;
        let sent = of_process.scope_spans.into_iter().flat_map(|scope| scope.spans);
        lock(&spans).extend(sent.map(|span| read(span, &resource)));
    }
    StatusCode::OK
}

fn read(span: wire::Span, resource: &[KeyValue]) -> Span {
    let attributes = resource.iter().chain(&span.attributes).map(|attribute| {
        let value = attribute.value.clone().and_then(|value| value.value);
        (attribute.key.clone(), text(&value.expect("a value")))
    });
    Span {
        kind: span.kind(),
        trace: hexadecimal(&span.trace_id),
        id: hexadecimal(&span.span_id),
        parent: hexadecimal(&span.parent_span_id),
        links: span.links.iter().map(|link| hexadecimal(&link.span_id)).collect(),
        failed: span.status.as_ref().map(wire::Status::code) == Some(wire::status::StatusCode::Error),
        times: (span.start_time_unix_nano, span.end_time_unix_nano),
        attributes: attributes.collect(),
        name: span.name,
    }
}

fn text(value: &any_value::Value) -> String {
    match value {
        any_value::Value::StringValue(text) => text.clone(),
        any_value::Value::IntValue(number) => number.to_string(),
        any_value::Value::BoolValue(truth) => truth.to_string(),
        other => panic!("Herald has no such attributes: {other:?}"),
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        write!(text, "{byte:02x}").expect("a String takes it");
    }
    text
}
