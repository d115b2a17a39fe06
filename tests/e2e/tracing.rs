//! Traces: from the producer's request to each attempt, or nothing at all.

use crate::scene::{Scene, id};
use herald_tests::collector::{Collector, Span};
use herald_tests::samples::{id_of, merged, packet_of, quick_retry};
use herald_tests::wait::wait_for;
use herald_tests::{Answer, Herald, PATIENCE, Reply, Request};
use http::Method;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PRODUCERS: &str = "00f067aa0ba902b7";
const GIVEN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// A Herald that exports to that collector.
async fn traced(endpoint: &str, ratio: &str) -> Scene {
    let builder = Herald::builder()
        .env("HERALD_OTLP_ENDPOINT", endpoint)
        .env("HERALD_TRACE_SAMPLE_RATIO", ratio);
    Scene::with(builder).await
}

/// Publishes with a trace context, as a producer does that has one.
async fn publish_within(scene: &Scene, event: &Value, traceparent: &str) {
    let request = scene
        .api
        .request(Method::POST, "/v1/events")
        .header("content-type", "application/json")
        .header("traceparent", traceparent)
        .body(event.to_string());
    let reply = Reply::of(request).await.expect("ingest answers");
    let _accepted = reply.expect(202);
}

fn traceparents(requests: &[Request]) -> Vec<&str> {
    requests.iter().map(|request| request.header("traceparent")).collect()
}

/// Looks at the spans from the message's publishing on, of an event that took two attempts.
pub(crate) fn check_walk(spans: &[Span], parent: &str, event: &str, delivery: &str, requests: &[Request]) {
    let [dispatch, first, second] = spans else {
        panic!("{spans:#?}")
    };
    assert_eq!(
        (dispatch.name.as_str(), dispatch.kind, dispatch.parent.as_str()),
        ("process herald.events", SpanKind::Consumer, parent)
    );
    assert_eq!(dispatch.attribute("herald.event.id"), event);
    assert_eq!(dispatch.attribute("herald.event.matched_count"), "1");
    for (number, attempt) in [("1", first), ("2", second)] {
        assert_eq!(
            (attempt.name.as_str(), attempt.kind, &attempt.parent),
            ("POST", SpanKind::Client, &dispatch.id)
        );
        assert_eq!(attempt.attribute("herald.attempt.number"), number);
        assert_eq!(attempt.attribute("herald.delivery.id"), delivery);
        assert_eq!(attempt.attribute("server.address"), "127.0.0.1");
    }
    assert!(first.failed && !second.failed, "{first:#?} {second:#?}");
    let result = |attempt: &Span| {
        ["http.response.status_code", "error.type", "herald.attempt.result"]
            .map(|name| attempt.attribute(name).to_owned())
    };
    assert_eq!(result(first), ["500", "500", "5xx"]);
    assert_eq!(result(second), ["200", "", "2xx"]);
    assert_eq!((&first.links, &second.links), (&vec![], &vec![first.id.clone()]));
    for span in spans {
        assert!(span.times.0 <= span.times.1, "{span:#?}");
        assert_eq!(span.attribute("service.name"), "herald");
    }
    // The subscriber's spans hang below the attempts.
    let told: Vec<_> = [first, second]
        .iter()
        .map(|attempt| format!("00-{}-{}-01", attempt.trace, attempt.id))
        .collect();
    assert_eq!(traceparents(requests), told);
}

/// A subscriber that fails once, and its subscription.
pub(crate) async fn fails_once(scene: &Scene) -> herald_tests::Subscription {
    let path = "/?token=QUERY-MARKER";
    scene.receiver.script(path, |request| {
        Answer::status(if request.repeat < 2 { 500 } else { 200 })
    });
    let secret = json!({ "SecretKey": "SECRET-MARKER, SECRET-MARKER", "CustomHeader": "X-Key", "CustomHeaderValue": "HEADER-MARKER" });
    scene.subscribe(path, merged(quick_retry(), secret)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_goes_from_the_producers_request_to_each_attempt() {
    let collector = Collector::start().await;
    let scene = traced(&collector.endpoint(), "1").await;
    let made = fails_once(&scene).await;
    let event = merged(
        packet_of(scene.company),
        json!({ "Data": { "CustomerName": "CUSTOMER-MARKER" } }),
    );
    publish_within(&scene, &event, GIVEN).await;
    let delivery = scene.api.delivery_with(made.guid(), "Delivered").await;
    let spans = collector.trace(TRACE, 5).await;
    let (accepted, rest) = spans.split_first().unwrap();
    let (published, rest) = rest.split_first().unwrap();
    assert_eq!(
        (accepted.name.as_str(), accepted.kind, accepted.parent.as_str()),
        ("POST /v1/events", SpanKind::Server, PRODUCERS)
    );
    assert_eq!(accepted.attribute("http.response.status_code"), "202");
    assert_eq!(
        (published.name.as_str(), published.kind, &published.parent),
        ("publish herald.events", SpanKind::Producer, &accepted.id)
    );
    let event = id_of(&event);
    assert_eq!(published.attribute("messaging.message.id"), event);
    check_walk(rest, &published.id, &event, id(&delivery), &scene.receiver.requests());
    for span in &spans {
        let told = format!("{span:?}");
        assert!(
            !told.contains("MARKER") && !told.contains(scene.herald.operator_key()),
            "{told}"
        );
    }
    check_logs(scene, &event, id(&delivery)).await;
}

/// The line of the failed attempt says what it was an attempt of.
async fn check_logs(mut scene: Scene, event: &str, delivery: &str) {
    assert_eq!(scene.herald.terminate().await, Some(0));
    let log = scene.herald.stderr();
    let line = log.lines().find(|line| line.contains("an attempt failed"));
    let line: Value = serde_json::from_str(line.expect("it is logged")).expect("JSON");
    assert_eq!(
        (&line["delivery"], &line["event"], &line["trace_id"]),
        (&json!(delivery), &json!(event), &json!(TRACE)),
        "{line:#}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_share_of_what_comes_without_a_trace_begins_one() {
    let collector = Collector::start().await;
    for (ratio, begun) in [("1", true), ("0", false)] {
        let scene = traced(&collector.endpoint(), ratio).await;
        let made = scene.subscribe("/", json!({})).await;
        scene.publish().await;
        scene.api.delivery_with(made.guid(), "Delivered").await;
        let request = scene.receiver.wait_for_one("/").await;
        let parts: Vec<_> = request.header("traceparent").split('-').collect();
        assert_eq!(parts[3], if begun { "01" } else { "00" }, "{parts:?}");
        if begun {
            let spans = collector.trace(parts[1], 4).await;
            let kinds = [
                SpanKind::Server,
                SpanKind::Producer,
                SpanKind::Consumer,
                SpanKind::Client,
            ];
            assert_eq!(spans.iter().map(|span| span.kind).collect::<Vec<_>>(), kinds);
            assert_eq!(spans[0].parent, "", "the trace begins there");
            assert_eq!(spans[3].id, parts[2]);
        } else {
            // What its producer wants recorded is, and has come by then.
            publish_within(&scene, &packet_of(scene.company), GIVEN).await;
            collector.trace(TRACE, 4).await;
            assert!(collector.spans().iter().all(|span| span.trace != parts[1]));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_recorded_passes_the_producers_context_on_unchanged() {
    let unsampled = GIVEN.replace("-01", "-00");
    let collector = Collector::start().await;
    let scenes = [
        (Scene::start().await, GIVEN),
        (traced(&collector.endpoint(), "1").await, unsampled.as_str()),
    ];
    for (scene, given) in scenes {
        let made = fails_once(&scene).await;
        publish_within(&scene, &packet_of(scene.company), given).await;
        scene.api.delivery_with(made.guid(), "Delivered").await;
        assert_eq!(traceparents(&scene.receiver.requests()), [given, given]);
        let exported = scene
            .herald
            .metrics()
            .await
            .sum(|name| name == "herald_spans_exported_total");
        assert!(exported < 0.5, "{exported} spans were exported");
    }
    assert!(collector.spans().is_empty(), "{:#?}", collector.spans());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_has_nothing_recorded() {
    let collector = Collector::start().await;
    let scene = traced(&collector.endpoint(), "1").await;
    let nobody = scene.api.with_key("none").request(Method::POST, "/v1/events");
    let request = nobody.header("traceparent", GIVEN).body("{}");
    let _refused = Reply::of(request).await.unwrap().expect(401);
    let known = GIVEN.replace(TRACE, "0123456789abcdef0123456789abcdef");
    publish_within(&scene, &packet_of(scene.company), &known).await;
    // What came before it would have come by then.
    collector.trace("0123456789abcdef0123456789abcdef", 3).await;
    assert!(collector.spans().iter().all(|span| span.trace != TRACE));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deliveries_do_not_wait_for_a_collector_that_is_away() {
    let nobody = format!("http://127.0.0.1:{}", herald_tests::binary::free_port());
    let scene = traced(&nobody, "1").await;
    let made = scene.subscribe("/", json!({})).await;
    scene.publish_many(100).await;
    scene.api.deliveries_with(made.guid(), 100, "Delivered").await;
    let dropped = "herald_spans_dropped_total{reason=\"export_failed\"}";
    wait_for("what was dropped is counted", PATIENCE, async || {
        scene.herald.metrics().await.sum(|name| name == dropped) >= 200.0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_hangs_does_not_hold_up_the_end() {
    // Connections are made by the kernel; nobody takes them.
    let silent = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let mut scene = traced(&endpoint, "1").await;
    let made = scene.subscribe("/", json!({})).await;
    scene.publish().await;
    scene.api.delivery_with(made.guid(), "Delivered").await;
    let began = Instant::now();
    assert_eq!(scene.herald.terminate().await, Some(0));
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}
