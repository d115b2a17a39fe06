//! One attempt: build, sign, send, read, classify.

use crate::request_template::{Impossible, RequestTemplate, RequestTemplates};
use crate::{rate_limit, spans};
use bytes::Bytes;
use herald_domain::catalogue::{EventType, Webhook};
use herald_domain::delivery::{Attempt, AttemptError, Delivery, Outcome};
use herald_domain::message::{Envelope, HOOK_SIGNATURE, Scheme, Shown, Source};
use herald_domain::subscription::Subscription;
use herald_domain::time::{Clock, Timestamp};
use herald_domain::trace::TraceContext;
use herald_egress::{Answer, BodyLimits, Client, ExchangeOutcome, Request, Want};
use herald_ledger::dispatching::EventRecord;
use herald_telemetry::traces::Traces;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue};
use std::sync::Arc;
use tokio::time::Instant;

// What differs from one request of a subscription to the next; as constants, because a name is checked each time that it
// is given as text.
const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
const HOOK: HeaderName = HeaderName::from_static(HOOK_SIGNATURE);
const TYPE: HeaderName = HeaderName::from_static("webhook-type");
const EVENT_ID: HeaderName = HeaderName::from_static("webhook-event-id");
const ATTEMPT: HeaderName = HeaderName::from_static("webhook-attempt");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Sends the requests of subscriptions.
#[derive(Debug)]
pub(crate) struct Sender {
    client: Arc<Client>,
    templates: RequestTemplates,
    /// The `source` of CloudEvents.
    source: Source,
}

impl Sender {
    pub(crate) fn new(client: Arc<Client>, source: Source) -> Self {
        Self {
            templates: RequestTemplates::new(Arc::clone(&client)),
            client,
            source,
        }
    }
}

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
    let (template, headers, body) = match request(sender, subscription, delivery, event, traceparent, at) {
        Ok(request) => request,
        // What can never succeed: dead at once, and the detail says why.
        Err(impossible) => {
            return Ok(Attempt {
                number,
                at,
                duration: began.elapsed(),
                outcome: Outcome::Failed(AttemptError::AddressRefused),
                detail: Some(impossible.to_string()),
            });
        }
    };
    let request = Request {
        target: template.target(),
        headers,
        body,
        limits: BodyLimits::default(),
    };
    let exchange = sender.client.exchange(request, deadline).await?;
    let (outcome, detail) = match exchange.outcome {
        ExchangeOutcome::Answered(answer) => answered(&answer, at),
        ExchangeOutcome::Failed(failure) => (Outcome::Failed(failure.kind), Some(failure.detail)),
        ExchangeOutcome::TimedOut => {
            let detail = format!("no answer within {} s", subscription.settings.timeout.as_secs_f64());
            (Outcome::Failed(AttemptError::Timeout), Some(detail))
        }
    };
    Ok(Attempt {
        number,
        at,
        duration: exchange.timing.total,
        outcome,
        detail,
    })
}

/// The template of a request, and what is its own: headers and body.
fn request(
    sender: &Sender,
    subscription: &Arc<Subscription>,
    delivery: &Delivery,
    event: &EventRecord,
    traceparent: TraceContext,
    at: Timestamp,
) -> Result<(Arc<RequestTemplate>, HeaderMap, Bytes), Impossible> {
    let template = sender.templates.get(subscription)?;
    let outgoing = subscription.settings.format.compose(&Envelope {
        subscription: subscription.id,
        event: event.id,
        source: &sender.source,
        kind: &event.kind,
        objects: &event.objects,
        data: &event.data,
        occurred_at: event.occurred_at,
        accepted_at: event.accepted_at,
        sequence: None,
        fields: Shown::All,
    });
    let id = delivery.id.to_string();
    let mut headers = template.headers();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(outgoing.content_type));
    for (name, value) in outgoing.headers {
        headers.insert(HeaderName::try_from(&*name)?, HeaderValue::try_from(value)?);
    }
    match subscription.settings.format.scheme() {
        Scheme::StandardWebhooks => {
            let signature = template.signers().sign(&id, at, outgoing.body.as_bytes());
            headers.insert(TIMESTAMP, at.as_unix_seconds().into());
            headers.insert(SIGNATURE, HeaderValue::try_from(signature)?);
        }
        Scheme::Hook => {
            let signature = subscription.key.hook_signature(outgoing.body.as_bytes());
            headers.insert(HOOK, HeaderValue::try_from(signature)?);
        }
    }
    headers.insert(ID, HeaderValue::try_from(id)?);
    headers.insert(TYPE, type_of(delivery.webhook, &event.kind)?);
    headers.insert(EVENT_ID, HeaderValue::try_from(event.id.to_string())?);
    headers.insert(ATTEMPT, (delivery.attempts + 1).into());
    headers.insert(TRACEPARENT, HeaderValue::try_from(traceparent.to_string())?);
    Ok((template, headers, outgoing.body.into()))
}

/// `Webhook-Type`: what the subscription asked for, which is a webhook of Enate's or the event's type.
fn type_of(webhook: Webhook, kind: &EventType) -> Result<HeaderValue, Impossible> {
    match (webhook, kind) {
        (Webhook::Events, EventType::Registered(registered)) => Ok(HeaderValue::from_str(&registered.name)?),
        (Webhook::Events, EventType::Enate(event)) => Ok(HeaderValue::from_static(event.name())),
        (webhook, _) => Ok(HeaderValue::from_static(webhook.name())),
    }
}

fn answered(answer: &Answer, now: Timestamp) -> (Outcome, Option<String>) {
    let outcome = Outcome::Answered {
        status: answer.status.as_u16(),
        retry_after: rate_limit::pause(answer.status, &answer.headers, now),
    };
    let detail = (!outcome.is_success()).then(|| answer.describe());
    (outcome, detail)
}
