//! The trace of an event that its producer publishes over AMQP.

use crate::scene::{Scene, id};
use crate::tracing::{check_walk, fails_once};
use herald_tests::collector::Collector;
use herald_tests::producer::{Outgoing, publish};
use herald_tests::samples::{id_of, packet_of};
use herald_tests::wait::wait_for;
use herald_tests::{Herald, PATIENCE, Stack};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PRODUCERS: &str = "b7ad6b7169203331";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_goes_from_the_producers_message_to_each_attempt() {
    let collector = Collector::start().await;
    let builder = Herald::builder()
        .stack(Stack::Cluster)
        .env("HERALD_OTLP_ENDPOINT", collector.endpoint());
    let scene = Scene::with(builder).await;
    let made = fails_once(&scene).await;
    let event = packet_of(scene.company);
    let within = |body: String| Outgoing {
        traceparent: Some(format!("00-{TRACE}-{PRODUCERS}-01")),
        ..Outgoing::new(body)
    };
    let messages = [within(event.to_string()), within("no event".to_owned())];
    let url = scene.herald.ground().vhost.url().to_owned();
    let answers = tokio::task::spawn_blocking(move || publish(&url, &messages));
    assert_eq!(answers.await.unwrap(), ["confirmed", "confirmed"]);
    let delivery = scene.api.delivery_with(made.guid(), "Delivered").await;
    let mut spans = collector.trace(TRACE, 4).await;
    let refused = spans
        .iter()
        .position(|span| span.kind == SpanKind::Consumer && span.failed);
    let refused = spans.remove(refused.expect("what is no event has a span too"));
    assert_eq!(
        (refused.parent.as_str(), refused.attribute("error.type")),
        (PRODUCERS, "invalid")
    );
    check_walk(
        &spans,
        PRODUCERS,
        &id_of(&event),
        id(&delivery),
        &scene.receiver.requests(),
    );
    wait_for("the log says which trace it was", PATIENCE, async || {
        let log = scene.herald.stderr();
        log.lines()
            .any(|line| line.contains("a message was rejected") && line.contains(TRACE))
    })
    .await;
}
