//! The spans of dispatch: one for each event, from the message that it came in to what it led to.

use crate::metrics::Rejection;
use herald_domain::id::EventId;
use herald_domain::time::Timestamp;
use herald_domain::trace::SpanPlace;
use herald_ledger::dispatching::{EventResult, NewEvent};
use herald_telemetry::traces::{Kind, Span, Value};

/// The span of an event that was recorded, or found to be there.
pub(crate) fn dispatched(
    place: SpanPlace,
    times: (Timestamp, Timestamp),
    system: &'static str,
    event: &NewEvent,
    result: &EventResult,
) -> Span {
    let mut span = processed(place, times, system);
    span.attributes.extend([
        ("herald.event.id", event.record.id.to_string().into()),
        ("herald.event.type", event.record.kind.name().to_owned().into()),
    ]);
    span.attributes.push(match result {
        EventResult::New { .. } => ("herald.event.matched_count", event.matches.len().into()),
        EventResult::Repeated { .. } => ("herald.event.repeated", true.into()),
    });
    span
}

/// The span of a message that was no event, or none that the ledger can hold.
pub(crate) fn rejected(
    place: SpanPlace,
    times: (Timestamp, Timestamp),
    system: &'static str,
    id: Option<EventId>,
    why: Rejection,
) -> Span {
    let mut span = processed(place, times, system);
    let id = id.map(|id| ("herald.event.id", Value::from(id.to_string())));
    span.attributes.extend(id);
    span.error = Some(why.label().into());
    span
}

fn processed(place: SpanPlace, (began, ended): (Timestamp, Timestamp), system: &'static str) -> Span {
    Span {
        name: "process herald.events".into(),
        kind: Kind::Consumer,
        place,
        link: None,
        began,
        ended,
        attributes: vec![
            ("messaging.system", system.into()),
            ("messaging.operation.type", "process".into()),
            ("messaging.operation.name", "process".into()),
            ("messaging.destination.name", herald_queue::NAME.into()),
        ],
        error: None,
    }
}
