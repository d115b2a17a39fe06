//! The span of an attempt, and the context that its request carries.

use crate::metrics::result_of;
use herald_domain::delivery::{Attempt, Delivery, Outcome};
use herald_domain::subscription::Subscription;
use herald_domain::trace::{SpanId, SpanPlace, Step, TraceContext, TraceId};
use herald_ledger::dispatching::EventRecord;
use herald_telemetry::traces::{Kind, Span, Traces};
use url::Url;

/// Where the next attempt of a delivery stands in the trace of its event.
pub(crate) fn step(traces: &Traces, delivery: &Delivery, event: &EventRecord) -> Step {
    let (begin, span) = ids(delivery, event);
    traces.step(event.traceparent, || begin, || span)
}

/// What the request says of its trace. Every one says something, so where there is none it is made of the event's
/// identity, the same for all its attempts, and is not recorded.
pub(crate) fn traceparent(step: Step, delivery: &Delivery, event: &EventRecord) -> TraceContext {
    step.context().unwrap_or_else(|| {
        let (trace, span) = ids(delivery, event);
        TraceContext::unsampled(trace, span)
    })
}

fn ids(delivery: &Delivery, event: &EventRecord) -> (TraceId, SpanId) {
    (
        TraceId::of(event.uid.0),
        SpanId::of_attempt(delivery.id, delivery.attempts + 1),
    )
}

/// An attempt that ended then.
pub(crate) fn attempt(
    place: SpanPlace,
    subscription: &Subscription,
    delivery: &Delivery,
    event: &EventRecord,
    attempt: &Attempt,
) -> Span {
    let outcome = attempt.outcome;
    let mut attributes = vec![
        ("http.request.method", "POST".into()),
        ("herald.event.id", event.id.to_string().into()),
        ("herald.event.type", event.kind.name().to_owned().into()),
        ("herald.delivery.id", delivery.id.to_string().into()),
        ("herald.subscription.id", delivery.subscription.to_string().into()),
        ("herald.attempt.number", attempt.number.into()),
        ("herald.attempt.result", result_of(outcome).into()),
    ];
    // Of the URL no more than where it leads: paths and queries hold tokens.
    if let Ok(url) = Url::parse(&subscription.settings.url) {
        attributes.extend([
            ("url.scheme", url.scheme().to_owned().into()),
            ("server.address", url.host_str().unwrap_or_default().to_owned().into()),
            ("server.port", url.port_or_known_default().unwrap_or_default().into()),
        ]);
    }
    if let Some(status) = outcome.status_code() {
        attributes.push(("http.response.status_code", status.into()));
    }
    if delivery.attempts > 0 {
        attributes.push(("http.request.resend_count", delivery.attempts.into()));
    }
    let error = match outcome {
        Outcome::Answered { .. } if outcome.is_success() => None,
        Outcome::Answered { status, .. } => Some(status.to_string().into()),
        Outcome::Failed(error) => Some(error.name().into()),
    };
    Span {
        name: "POST".into(),
        kind: Kind::Client,
        place,
        link: before(place, delivery),
        began: attempt.at,
        ended: attempt.at.plus(attempt.duration),
        attributes,
        error,
    }
}

/// The attempt before it, which is in the same trace.
fn before(place: SpanPlace, delivery: &Delivery) -> Option<TraceContext> {
    let span_id = SpanId::of_attempt(delivery.id, delivery.attempts);
    (delivery.attempts > 0).then(|| place.context.with_span(span_id))
}
