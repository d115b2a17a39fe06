//! One attempt: build, sign, send, read, classify.

use crate::egress::{ResolveError, Sender};
use crate::prepared::{Impossible, Prepared};
use crate::{rate_limit, spans};
use herald_domain::delivery::{Attempt, AttemptError, Delivery, Outcome};
use herald_domain::message;
use herald_domain::subscription::Subscription;
use herald_domain::time::{Clock, Timestamp};
use herald_domain::trace::TraceContext;
use herald_ledger::dispatching::EventRecord;
use herald_telemetry::traces::Traces;
use http::HeaderValue;
use reqwest::Response;
use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// How much of a response's body is read; beyond it nothing is of interest.
const MAX_BODY_BYTES: usize = 16 * 1024;

/// How much of a failure's description is kept.
const MAX_DETAIL_CHARS: usize = 500;

/// Makes the next attempt of a delivery, as a span of its event's trace. Takes no longer than the subscription's
/// timeout.
pub(crate) async fn make(
    sender: &Sender,
    clock: &dyn Clock,
    traces: &Traces,
    subscription: &Arc<Subscription>,
    delivery: &Delivery,
    event: &EventRecord,
) -> Attempt {
    let step = spans::step(traces, delivery, event);
    let traceparent = spans::traceparent(step, delivery, event);
    let attempt = send(sender, clock, subscription, delivery, event, traceparent).await;
    if let Some(place) = step.recorded() {
        traces.record(spans::attempt(place, subscription, delivery, event, &attempt));
    }
    attempt
}

async fn send(
    sender: &Sender,
    clock: &dyn Clock,
    subscription: &Arc<Subscription>,
    delivery: &Delivery,
    event: &EventRecord,
    traceparent: TraceContext,
) -> Attempt {
    let at = clock.now();
    let began = Instant::now();
    let number = delivery.attempts + 1;
    let deadline = began + subscription.settings.timeout;
    let prepared = sender.prepare().get(subscription);
    let request = prepared.and_then(|prepared| {
        let request = request(&prepared, subscription, delivery, event, traceparent, at)?;
        Ok((prepared, request))
    });
    let (outcome, detail) = match request {
        Ok((prepared, request)) => {
            let way = sender.way(&prepared);
            match timeout_at(deadline, way.send(request)).await {
                Ok(Ok(response)) => answered(response, deadline, at).await,
                Ok(Err(error)) => failed(&error),
                Err(_elapsed) => {
                    prepared.keep_apart();
                    let detail = format!("no answer within {} s", subscription.settings.timeout.as_secs_f64());
                    (Outcome::Failed(AttemptError::Timeout), Some(detail))
                }
            }
        }
        // What can never succeed: dead at once, and the detail says why.
        Err(impossible) => (
            Outcome::Failed(AttemptError::AddressRefused),
            Some(impossible.to_string()),
        ),
    };
    Attempt {
        number,
        at,
        duration: began.elapsed(),
        outcome,
        detail,
    }
}

fn request(
    prepared: &Prepared,
    subscription: &Subscription,
    delivery: &Delivery,
    event: &EventRecord,
    traceparent: TraceContext,
    at: Timestamp,
) -> Result<reqwest::Request, Impossible> {
    let body = message::body(subscription.id, event.kind, &event.objects, &event.data);
    let id = delivery.id.to_string();
    let signature = prepared.signer().sign(&id, at, body.as_bytes());
    let mut request = prepared.request();
    let headers = request.headers_mut();
    headers.insert("webhook-id", HeaderValue::try_from(id)?);
    headers.insert("webhook-timestamp", at.as_unix_seconds().into());
    headers.insert("webhook-signature", HeaderValue::try_from(signature)?);
    headers.insert("webhook-type", HeaderValue::from_static(delivery.webhook.name()));
    headers.insert("webhook-event-id", HeaderValue::try_from(event.id.to_string())?);
    headers.insert("webhook-attempt", (delivery.attempts + 1).into());
    headers.insert("traceparent", HeaderValue::try_from(traceparent.to_string())?);
    *request.body_mut() = Some(body.into());
    Ok(request)
}

async fn answered(response: Response, deadline: Instant, now: Timestamp) -> (Outcome, Option<String>) {
    let status = response.status();
    let retry_after = rate_limit::pause(status, response.headers(), now);
    // The body is of no interest, but reading a short one to its end frees the connection for the next
    // request. What goes wrong with it changes nothing: the status is the answer.
    drop(timeout_at(deadline, read_body(response)).await);
    let outcome = Outcome::Answered {
        status: status.as_u16(),
        retry_after,
    };
    let detail = (!outcome.is_success()).then(|| match status.canonical_reason() {
        Some(reason) => format!("the subscriber answered {} {reason}", status.as_u16()),
        None => format!("the subscriber answered {}", status.as_u16()),
    });
    (outcome, detail)
}

async fn read_body(mut response: Response) -> reqwest::Result<()> {
    let mut read = 0;
    while let Some(chunk) = response.chunk().await? {
        read += chunk.len();
        if read > MAX_BODY_BYTES {
            break;
        }
    }
    Ok(())
}

fn failed(error: &reqwest::Error) -> (Outcome, Option<String>) {
    let kind = classify(error);
    (Outcome::Failed(kind), Some(describe(error)))
}

/// The last causes say most, and none of them carries anything of the payload; the first names the
/// URL, which the reader knows.
fn describe(error: &reqwest::Error) -> String {
    let mut causes = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if causes.last() != Some(&text) {
            causes.push(text);
        }
        next = cause.source();
    }
    let mut described = if causes.is_empty() {
        error.to_string()
    } else {
        causes.join(": ")
    };
    // What the other side says when it closes a connection over HTTP/2 is among it, up to 16 KiB.
    if let Some((end, _)) = described.char_indices().nth(MAX_DETAIL_CHARS) {
        described.truncate(end);
        described.push('\u{2026}');
    }
    described
}

fn classify(error: &reqwest::Error) -> AttemptError {
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    let mut found = None;
    while let Some(cause) = next {
        if let Some(kind) = kind_of(cause) {
            found = Some(kind);
        }
        next = within(cause);
    }
    match found {
        // Before the connection stands there is nothing to reset.
        Some(AttemptError::Reset) | None if error.is_connect() => AttemptError::Connect,
        Some(kind) => kind,
        None if error.is_timeout() => AttemptError::Timeout,
        None => AttemptError::Reset,
    }
}

/// The error that one wraps. An `io::Error` hides it, its source is that one's source; and an `h2::Error`
/// has no source at all.
fn within<'a>(cause: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    if let Some(wrapped) = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        return Some(wrapped);
    }
    if let Some(io) = cause.downcast_ref::<h2::Error>().and_then(h2::Error::get_io) {
        return Some(io);
    }
    cause.source()
}

/// What one error in the chain says of itself; the innermost that says something counts.
fn kind_of(cause: &(dyn Error + 'static)) -> Option<AttemptError> {
    if let Some(error) = cause.downcast_ref::<ResolveError>() {
        return Some(match error {
            ResolveError::Lookup(_) => AttemptError::Dns,
            ResolveError::Refused { .. } => AttemptError::AddressRefused,
        });
    }
    if cause.is::<rustls::Error>() {
        return Some(AttemptError::Tls);
    }
    if let Some(error) = cause.downcast_ref::<hyper::Error>() {
        if error.is_parse_too_large() {
            return Some(AttemptError::ResponseTooLarge);
        }
        // A ping over HTTP/2 that was not answered.
        if error.is_timeout() {
            return Some(AttemptError::Timeout);
        }
        return error.is_parse().then_some(AttemptError::Http);
    }
    if let Some(error) = cause.downcast_ref::<h2::Error>() {
        return kind_of_h2(error);
    }
    let error = cause.downcast_ref::<io::Error>()?;
    match error.kind() {
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof => Some(AttemptError::Reset),
        io::ErrorKind::TimedOut => Some(AttemptError::Timeout),
        _ => None,
    }
}

/// What the other side ended, it reset; what this side objected to is no HTTP.
fn kind_of_h2(error: &h2::Error) -> Option<AttemptError> {
    if error.is_io() {
        return None;
    }
    if !error.is_library() {
        return Some(AttemptError::Reset);
    }
    // For nothing but a head beyond the limit does this side refuse a stream, and if it comes in ever more
    // parts the connection.
    let too_large = [h2::Reason::REFUSED_STREAM, h2::Reason::ENHANCE_YOUR_CALM].map(Some);
    Some(if too_large.contains(&error.reason()) {
        AttemptError::ResponseTooLarge
    } else {
        AttemptError::Http
    })
}
