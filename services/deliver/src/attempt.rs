//! One attempt: build, sign, send, read, classify.

use crate::egress::{Exchange, SendError, Sender};
use crate::prepared::{Impossible, Prepared};
use crate::{answer, rate_limit, spans};
use bytes::Bytes;
use herald_domain::catalogue::{EventType, Webhook};
use herald_domain::delivery::{Attempt, AttemptError, Delivery, Outcome};
use herald_domain::message::Envelope;
use herald_domain::subscription::Subscription;
use herald_domain::time::{Clock, Timestamp};
use herald_domain::trace::TraceContext;
use herald_ledger::dispatching::EventRecord;
use herald_telemetry::traces::Traces;
use http::{HeaderMap, HeaderName, HeaderValue};
use std::io;
use std::sync::Arc;
use tokio::time::{Instant, timeout_at};

/// How much of an answer's body is read; beyond it nothing is of interest.
const MAX_BODY_BYTES: usize = 16 * 1024;

// What differs from one request of a subscription to the next; as constants, because a name is checked each time that it
// is given as text.
const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
const TYPE: HeaderName = HeaderName::from_static("webhook-type");
const EVENT_ID: HeaderName = HeaderName::from_static("webhook-event-id");
const ATTEMPT: HeaderName = HeaderName::from_static("webhook-attempt");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// No attempt was made, because this process or its machine is short of something. No receiver has failed by it.
#[derive(Debug, thiserror::Error)]
#[error("Herald is short of descriptors, ports or memory for connections: {0}")]
pub(crate) struct Want(io::Error);

/// Makes the next attempt of a delivery, as a span of its event's trace. Takes no longer than the subscription's
/// timeout.
pub(crate) async fn make(
    sender: &Sender,
    clock: &dyn Clock,
    traces: &Traces,
    subscription: &Arc<Subscription>,
    delivery: &Delivery,
    event: &EventRecord,
) -> Result<Attempt, Want> {
    let step = spans::step(traces, delivery, event);
    let traceparent = spans::traceparent(step, delivery, event);
    let attempt = send(sender, clock, subscription, delivery, event, traceparent).await?;
    if let Some(place) = step.recorded() {
        traces.record(spans::attempt(place, subscription, delivery, event, &attempt));
    }
    Ok(attempt)
}

async fn send(
    sender: &Sender,
    clock: &dyn Clock,
    subscription: &Arc<Subscription>,
    delivery: &Delivery,
    event: &EventRecord,
    traceparent: TraceContext,
) -> Result<Attempt, Want> {
    let at = clock.now();
    let began = Instant::now();
    let number = delivery.attempts + 1;
    let deadline = began + subscription.settings.timeout;
    let (outcome, detail) = match request(sender, subscription, delivery, event, traceparent, at) {
        Ok(request) => match timeout_at(
            deadline,
            sender.exchange(&request.prepared, request.headers, request.body),
        )
        .await
        {
            Ok(Ok(exchange)) => answered(exchange, deadline, at).await,
            Ok(Err(SendError::Want(error))) => return Err(Want(error)),
            Ok(Err(error)) => (Outcome::Failed(error.kind()), Some(error.words())),
            Err(_elapsed) => {
                request.prepared.keep_apart(std::time::Instant::now());
                let detail = format!("no answer within {} s", subscription.settings.timeout.as_secs_f64());
                (Outcome::Failed(AttemptError::Timeout), Some(detail))
            }
        },
        // What can never succeed: dead at once, and the detail says why.
        Err(impossible) => (
            Outcome::Failed(AttemptError::AddressRefused),
            Some(impossible.to_string()),
        ),
    };
    Ok(Attempt {
        number,
        at,
        duration: began.elapsed(),
        outcome,
        detail,
    })
}

/// A request that can be sent.
struct Request {
    prepared: Arc<Prepared>,
    headers: HeaderMap,
    body: Bytes,
}

fn request(
    sender: &Sender,
    subscription: &Arc<Subscription>,
    delivery: &Delivery,
    event: &EventRecord,
    traceparent: TraceContext,
    at: Timestamp,
) -> Result<Request, Impossible> {
    let prepared = sender.prepare().get(subscription)?;
    let outgoing = subscription.settings.format.compose(&Envelope {
        subscription: subscription.id,
        kind: &event.kind,
        objects: &event.objects,
        data: &event.data,
        occurred_at: event.occurred_at,
        accepted_at: event.accepted_at,
    });
    let id = delivery.id.to_string();
    let signature = prepared.signers().sign(&id, at, outgoing.body.as_bytes());
    let mut headers = prepared.headers();
    headers.insert(ID, HeaderValue::try_from(id)?);
    headers.insert(TIMESTAMP, at.as_unix_seconds().into());
    headers.insert(SIGNATURE, HeaderValue::try_from(signature)?);
    headers.insert(TYPE, type_of(delivery.webhook, &event.kind)?);
    headers.insert(EVENT_ID, HeaderValue::try_from(event.id.to_string())?);
    headers.insert(ATTEMPT, (delivery.attempts + 1).into());
    headers.insert(TRACEPARENT, HeaderValue::try_from(traceparent.to_string())?);
    Ok(Request {
        prepared,
        headers,
        body: outgoing.body.into(),
    })
}

/// `Webhook-Type`: what the subscription asked for, which is a webhook of Enate's or the event's type.
fn type_of(webhook: Webhook, kind: &EventType) -> Result<HeaderValue, Impossible> {
    match (webhook, kind) {
        (Webhook::Events, EventType::Registered(registered)) => Ok(HeaderValue::from_str(&registered.name)?),
        (Webhook::Events, EventType::Enate(event)) => Ok(HeaderValue::from_static(event.name())),
        (webhook, _) => Ok(HeaderValue::from_static(webhook.name())),
    }
}

async fn answered(exchange: Exchange, deadline: Instant, now: Timestamp) -> (Outcome, Option<String>) {
    let status = exchange.status();
    let outcome = Outcome::Answered {
        status: status.as_u16(),
        retry_after: rate_limit::pause(status, exchange.headers(), now),
    };
    if outcome.is_success() {
        // Reading a short body to its end frees the connection for the next request.
        drop(timeout_at(deadline, exchange.read(&mut Vec::new(), 0, MAX_BODY_BYTES)).await);
        return (outcome, None);
    }
    let headers = exchange.headers().clone();
    let mut body = Vec::new();
    let reading = exchange.read(&mut body, answer::MAX_BODY_BYTES, MAX_BODY_BYTES);
    // As much as came in time.
    let is_whole = timeout_at(deadline, reading).await.unwrap_or(false);
    (outcome, Some(answer::describe(status, &headers, &body, is_whole)))
}
