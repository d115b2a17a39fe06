//! The spans of ingest: a producer's request, and in it the message that is published.

use crate::metrics::RequestRefusal;
use axum::http::StatusCode;
use herald_domain::time::Timestamp;
use herald_domain::trace::SpanPlace;
use herald_queue::Route;
use herald_telemetry::traces::{Kind, Span};

/// A request to publish, as it was answered.
pub(crate) fn request(
    place: SpanPlace,
    (began, ended): (Timestamp, Timestamp),
    status: StatusCode,
    refusal: Option<RequestRefusal>,
) -> Span {
    let mut attributes = vec![
        ("http.request.method", "POST".into()),
        ("http.route", "/v1/events".into()),
        ("url.path", "/v1/events".into()),
        ("url.scheme", "http".into()),
        ("http.response.status_code", status.as_u16().into()),
    ];
    if let Some(refusal) = refusal {
        attributes.push(("herald.refusal.reason", refusal.label().into()));
    }
    Span {
        name: "POST /v1/events".into(),
        kind: Kind::Server,
        place,
        link: None,
        began,
        ended,
        attributes,
        // A client's own fault is no failure of the server.
        error: status.is_server_error().then(|| status.as_str().to_owned().into()),
    }
}

/// A message of that many events, put into the queue or not.
pub(crate) fn published(
    place: SpanPlace,
    (began, ended): (Timestamp, Timestamp),
    system: &'static str,
    route: Route,
    events: usize,
    confirmed: bool,
) -> Span {
    let mut attributes = vec![
        ("messaging.system", system.into()),
        ("messaging.operation.type", "send".into()),
        ("messaging.operation.name", "publish".into()),
        ("messaging.destination.name", herald_queue::NAME.into()),
    ];
    match route {
        Route::Event(kind, id) => attributes.extend([
            ("messaging.message.id", id.to_string().into()),
            ("herald.event.type", kind.name().to_owned().into()),
        ]),
        Route::Batch => attributes.push(("messaging.batch.message_count", events.into())),
    }
    Span {
        name: "publish herald.events".into(),
        kind: Kind::Producer,
        place,
        link: None,
        began,
        ended,
        attributes,
        error: (!confirmed).then_some(RequestRefusal::Unavailable.label().into()),
    }
}
