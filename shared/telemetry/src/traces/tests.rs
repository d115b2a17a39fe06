use super::*;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value;
use opentelemetry_proto::tonic::trace::v1 as wire;
use prost::Message;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use tokio_util::sync::CancellationToken;

const GIVEN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn settings(endpoint: &str) -> Settings {
    // The program installs it at its start.
    drop(rustls::crypto::ring::default_provider().install_default());
    Settings {
        endpoint: endpoint.parse().unwrap(),
        ratio: SampleRatio::new(1.0).unwrap(),
        version: "1.2.3",
        role: "worker",
    }
}

fn on(endpoint: &str) -> (Traces, Exporter) {
    let (traces, exporter) = Traces::new(Some(settings(endpoint)), &prometheus::Registry::new()).unwrap();
    (traces, exporter.unwrap())
}

/// A span below the given context.
fn span(traces: &Traces) -> Span {
    let step = traces.random_step(Some(GIVEN.parse().unwrap()));
    Span {
        name: "POST".into(),
        kind: Kind::Client,
        place: step.recorded().unwrap(),
        link: Some(GIVEN.parse().unwrap()),
        began: Timestamp::from_micros(1_000_000),
        ended: Timestamp::from_micros(1_500_000),
        attributes: vec![("herald.attempt.number", 2_u32.into()), ("url.scheme", "https".into())],
        error: Some("timeout".into()),
    }
}

type Answer = (StatusCode, Vec<u8>);

/// A collector that answers what it is told, in turn, and keeps what it got.
#[derive(Clone, Default)]
struct Collector {
    answers: Arc<Mutex<VecDeque<Answer>>>,
    requests: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
}

impl Collector {
    async fn start(answers: impl IntoIterator<Item = Answer>) -> (Self, String) {
        let collector = Self::default();
        collector.answers.lock().unwrap().extend(answers);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}/behind/a/path/", listener.local_addr().unwrap());
        let routes = Router::new()
            .route("/behind/a/path/v1/traces", post(take))
            .with_state(collector.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        (collector, endpoint)
    }

    fn spans(&self) -> Vec<wire::Span> {
        let requests = self.requests.lock().unwrap();
        let of_scopes = requests
            .iter()
            .flat_map(|request| &request.resource_spans)
            .flat_map(|resource| &resource.scope_spans);
        of_scopes.flat_map(|scope| scope.spans.clone()).collect()
    }
}

async fn take(State(collector): State<Collector>, body: Bytes) -> Answer {
    let request = ExportTraceServiceRequest::decode(body).unwrap();
    collector.requests.lock().unwrap().push(request);
    collector.answers.lock().unwrap().pop_front().unwrap_or_default()
}

#[test]
fn off_what_was_given_goes_on_and_nobody_listens() {
    let (traces, exporter) = Traces::new(None, &prometheus::Registry::new()).unwrap();
    assert!(exporter.is_none());
    for given in [None, Some(GIVEN.parse().unwrap())] {
        assert_eq!(traces.random_step(given), Step::Unrecorded(given));
    }
}

#[tokio::test]
async fn what_the_exporter_does_not_take_is_dropped_and_counted() {
    let (traces, _exporter) = on("http://127.0.0.1:9");
    for _ in 0..QUEUE + 3 {
        traces.record(span(&traces));
    }
    let Traces(Some(on)) = traces else { unreachable!() };
    assert_eq!(on.metrics.dropped_so_far(Dropped::QueueFull), 3);
}

#[tokio::test]
async fn a_span_arrives_as_it_was_before_the_process_ends() {
    let (collector, endpoint) = Collector::start([]).await;
    let (traces, exporter) = on(&endpoint);
    let sent = span(&traces);
    let place = sent.place;
    traces.record(sent);
    drop(traces);
    let stop = CancellationToken::new();
    stop.cancel();
    exporter.run(stop).await;
    let spans = collector.spans();
    let [span] = spans.as_slice() else { panic!("{spans:#?}") };
    assert_eq!(span.trace_id, place.context.trace_id.to_bytes());
    assert_eq!(span.span_id, place.context.span_id.to_bytes());
    assert_eq!(span.parent_span_id, place.parent.unwrap().to_bytes());
    assert_eq!(
        (span.name.as_str(), span.kind()),
        ("POST", wire::span::SpanKind::Client)
    );
    assert_eq!(
        (span.start_time_unix_nano, span.end_time_unix_nano),
        (1_000_000_000, 1_500_000_000)
    );
    assert_eq!(
        span.status.as_ref().map(wire::Status::code),
        Some(wire::status::StatusCode::Error)
    );
    assert_eq!(span.links[0].span_id, place.parent.unwrap().to_bytes());
    let attribute = |name: &str| {
        let found = span.attributes.iter().find(|attribute| attribute.key == name);
        found.and_then(|attribute| attribute.value.clone()?.value)
    };
    assert_eq!(attribute("herald.attempt.number"), Some(any_value::Value::IntValue(2)));
    for (name, text) in [("url.scheme", "https"), ("error.type", "timeout")] {
        assert_eq!(
            attribute(name),
            Some(any_value::Value::StringValue(text.to_owned())),
            "{name}"
        );
    }
}

#[tokio::test]
async fn what_the_collector_refuses_for_now_is_sent_again_and_what_it_refuses_for_good_is_not() {
    let partial = ExportTraceServiceResponse {
        partial_success: Some(ExportTracePartialSuccess {
            rejected_spans: 2,
            error_message: "two too many".to_owned(),
        }),
    };
    let answers = [
        (StatusCode::SERVICE_UNAVAILABLE, Vec::new()),
        (StatusCode::OK, partial.encode_to_vec()),
        (StatusCode::BAD_REQUEST, Vec::new()),
    ];
    let (collector, endpoint) = Collector::start(answers).await;
    let (traces, exporter) = on(&endpoint);
    let Traces(Some(to)) = traces.clone() else {
        unreachable!()
    };
    let stop = CancellationToken::new();
    let running = tokio::spawn(exporter.run(stop.clone()));
    // Of three two are refused, and then the one that comes by itself.
    for (spans, dropped) in [(3, 2), (1, 3)] {
        for _ in 0..spans {
            traces.record(span(&traces));
        }
        let settled = async {
            while to.metrics.dropped_so_far(Dropped::ExportFailed) < dropped {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(20), settled)
            .await
            .unwrap();
    }
    assert_eq!(collector.requests.lock().unwrap().len(), 3);
    assert_eq!(to.metrics.dropped_so_far(Dropped::ExportFailed), 3);
    drop((traces, to));
    stop.cancel();
    running.await.unwrap();
}
