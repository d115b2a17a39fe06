//! Events on their way into the queue: a request's as one message, within a span.

use crate::events::Events;
use crate::{Ingest, spans};
use herald_domain::id::AccountId;
use herald_domain::trace::TraceContext;
use herald_queue::{Error, Message, Origin, Route};

/// Publishes the events of an account as one message; they are durable then, all of them.
pub(crate) async fn publish(
    ingest: &Ingest,
    account: AccountId,
    events: &mut Events,
    within: Option<TraceContext>,
) -> Result<(), Error> {
    let route = match (events.single, events.ids.as_slice(), events.kinds.as_slice()) {
        (true, [id], [kind]) => Route::Event(kind.clone(), *id),
        _ => Route::Batch,
    };
    let message = Message {
        origin: Origin {
            account: account.to_string().into(),
            accepted_at: ingest.clock.now(),
            traceparent: within,
            events: events.ids.len(),
        },
        body: std::mem::take(&mut events.body),
    };
    publish_within(ingest, message, route).await
}

/// Puts the message into the queue as a span below the one that it names.
async fn publish_within(ingest: &Ingest, mut message: Message, route: Route) -> Result<(), Error> {
    let step = ingest.traces.random_step(message.origin.traceparent);
    message.origin.traceparent = step.context();
    let (began, count) = (ingest.clock.now(), message.origin.events);
    let published = ingest.queue.publish(message, route.clone()).await;
    let ended = ingest.clock.now();
    if published.is_ok() {
        ingest.metrics.confirmed(ended.since(began));
    }
    if let Some(place) = step.recorded() {
        let (system, confirmed) = (ingest.queue.system(), published.is_ok());
        let span = spans::published(place, (began, ended), system, route, count, confirmed);
        ingest.traces.record(span);
    }
    published
}
