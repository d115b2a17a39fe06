//! HTTP entrance for producers.
//!
//! `POST /v1/events` authenticates, validates every event against the catalogue, publishes the whole
//! request as one message, and answers 202 only when that message is durable. So a request is accepted
//! whole or not at all, and whoever got no answer publishes again with the same `Id`s.
#![warn(missing_docs)]

mod metrics;
mod openapi;
mod room;
mod spans;

use axum::Json;
use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::{FromRef, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures_util::StreamExt;
use herald_access::Caller;
use herald_access::body::check_encoding;
use herald_access::problem::Problem;
use herald_domain::access::Role;
use herald_domain::catalogue::EventType;
use herald_domain::event::{self, Batch, MAX_EVENT_BYTES};
use herald_domain::id::EventId;
use herald_domain::problem::{Fault, Faults};
use herald_domain::text;
use herald_domain::time::Clock;
use herald_domain::trace::{Step, TraceContext};
use herald_queue::{Message, Origin, Queue, Route};
use herald_registry::Registry;
use herald_telemetry::traces::Traces;
use metrics::{Metrics, Refusal};
pub use openapi::openapi;
use room::{Held, Room};
use serde_json::json;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// The largest request, in bytes.
pub const MAX_REQUEST_BYTES: usize = 8 << 20;

/// From how much on room for the rest of a request is made at once and not piece by piece.
const LARGE_BYTES: usize = 256 * 1024;

/// How long a client may take to send its request.
const MAX_READ_TIME: Duration = Duration::from_secs(30);

/// What ingest needs.
#[derive(Debug, Clone)]
pub struct Ingest {
    queue: Queue,
    registry: Arc<Registry>,
    clock: Arc<dyn Clock>,
    traces: Traces,
    metrics: Metrics,
    /// Room for requests in memory.
    room: Room,
}

/// Ingest, as every request gets it.
#[derive(Debug, Clone)]
struct Shared(Arc<Ingest>);

impl FromRef<Shared> for Arc<Registry> {
    fn from_ref(Shared(ingest): &Shared) -> Self {
        Self::clone(&ingest.registry)
    }
}

impl Ingest {
    /// Ingest over that queue; its spans go to `traces`, its metrics to `metrics`.
    pub fn new(
        queue: Queue,
        registry: Arc<Registry>,
        clock: Arc<dyn Clock>,
        traces: Traces,
        metrics: &prometheus::Registry,
    ) -> Result<Self, prometheus::Error> {
        Ok(Self {
            metrics: Metrics::register(metrics)?,
            queue,
            registry,
            clock,
            traces,
            room: Room::default(),
        })
    }

    /// Its routes.
    pub fn router(self) -> Router {
        Router::new()
            .route("/v1/events", post(publish))
            .with_state(Shared(Arc::new(self)))
    }
}

async fn publish(
    State(Shared(ingest)): State<Shared>,
    caller: Result<Caller, Problem>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let began = ingest.clock.now();
    let given = traceparent(&headers);
    // A stranger decides nothing, and has nothing recorded.
    let step = match &caller {
        Ok(_) => ingest.traces.random_step(given),
        Err(_) => Step::Unrecorded(given),
    };
    let accepted = accept(&ingest, caller, &headers, body, step.context()).await;
    let ended = ingest.clock.now();
    let (response, refusal) = match accepted {
        Ok((accepted, kinds)) => {
            ingest.metrics.accepted(&kinds, ended.since(began));
            ((StatusCode::ACCEPTED, Json(accepted)).into_response(), None)
        }
        Err((refusal, problem)) => {
            ingest.metrics.refused(refusal);
            (problem.into_response(), Some(refusal))
        }
    };
    if let Some(place) = step.recorded() {
        let span = spans::request(place, (began, ended), response.status(), refusal);
        ingest.traces.record(span);
    }
    response
}

type Refused = (Refusal, Problem);

async fn accept(
    ingest: &Ingest,
    caller: Result<Caller, Problem>,
    headers: &HeaderMap,
    body: Body,
    within: Option<TraceContext>,
) -> Result<(serde_json::Value, Vec<EventType>), Refused> {
    let caller = caller.map_err(|problem| match problem.status() {
        // Whether the key is known could not be looked up.
        StatusCode::SERVICE_UNAVAILABLE => (Refusal::Unavailable, problem),
        _ => (Refusal::Unauthorized, problem),
    })?;
    caller
        .require(Role::Producer)
        .map_err(|problem| (Refusal::Forbidden, problem))?;
    let format = Format::of(headers).map_err(|problem| (Refusal::MediaType, problem))?;
    check_encoding(headers).map_err(|problem| (Refusal::MediaType, problem))?;
    // Held until the request is answered.
    let mut held = ingest.room.hold(caller.account());
    let body = read(body, &mut held).await?;
    let text = text::read(&body).map_err(|fault| (Refusal::Invalid, Problem::faults(fault)))?;
    let events = Events::read(text, format)?;
    // The queue may take a while, and needs only what it is given.
    drop(body);
    let route = match (events.single, events.ids.as_slice(), events.kinds.as_slice()) {
        (true, [id], [kind]) => Route::Event(*kind, *id),
        _ => Route::Batch,
    };
    let answer = match (events.single, events.ids.as_slice()) {
        (true, [id]) => json!({ "Id": id }),
        // Whoever sends an array of one may look for either.
        (false, [id]) => json!({ "Id": id, "Ids": [id] }),
        (_, ids) => json!({ "Ids": ids }),
    };
    let message = Message {
        origin: Origin {
            account: caller.account().to_string().into(),
            accepted_at: ingest.clock.now(),
            traceparent: within,
            events: events.ids.len(),
        },
        body: events.body,
    };
    match publish_within(ingest, message, route).await {
        Ok(()) => Ok((answer, events.kinds)),
        Err(error) => Err((Refusal::Unavailable, Problem::unavailable("event queue", &error))),
    }
}

/// Puts the message into the queue as a span below the one that it names.
async fn publish_within(ingest: &Ingest, mut message: Message, route: Route) -> Result<(), herald_queue::Error> {
    let step = ingest.traces.random_step(message.origin.traceparent);
    message.origin.traceparent = step.context();
    let (began, count) = (ingest.clock.now(), message.origin.events);
    let published = ingest.queue.publish(message, route).await;
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

async fn read(body: Body, held: &mut Held) -> Result<Vec<u8>, Refused> {
    match tokio::time::timeout(MAX_READ_TIME, read_whole(body, held)).await {
        Ok(read) => read,
        Err(_elapsed) => {
            let detail = format!("the request was not complete within {} s", MAX_READ_TIME.as_secs());
            Err((Refusal::Invalid, Problem::new(StatusCode::REQUEST_TIMEOUT, detail)))
        }
    }
}

async fn read_whole(body: Body, held: &mut Held) -> Result<Vec<u8>, Refused> {
    let told = body.size_hint().exact().and_then(|bytes| usize::try_from(bytes).ok());
    let told = told.unwrap_or(0);
    if told > MAX_REQUEST_BYTES {
        return Err(too_large());
    }
    let mut whole = Vec::with_capacity(told.min(LARGE_BYTES));
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| {
            let fault = Fault::new("", "body", format!("the body could not be read: {error}"));
            (Refusal::Invalid, Problem::faults(fault))
        })?;
        if whole.len() + chunk.len() > MAX_REQUEST_BYTES {
            return Err(too_large());
        }
        held.take(chunk.len())
            .map_err(|_full| (Refusal::Overloaded, Problem::overloaded()))?;
        if whole.len() + chunk.len() > LARGE_BYTES {
            whole.reserve(told.max(chunk.len()).saturating_sub(whole.len()));
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(whole)
}

fn too_large() -> Refused {
    let detail = format!("a request may have at most {MAX_REQUEST_BYTES} bytes (8 MiB)");
    (Refusal::TooLarge, Problem::too_large(detail))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Json,
    Ndjson,
}

impl Format {
    fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let value = headers
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let essence = value.split(';').next().unwrap_or_default().trim();
        if essence.eq_ignore_ascii_case("application/json") {
            Ok(Self::Json)
        } else if essence.eq_ignore_ascii_case("application/x-ndjson") {
            Ok(Self::Ndjson)
        } else {
            Err(Problem::media_type(
                "Content-Type must be application/json or application/x-ndjson",
            ))
        }
    }
}

/// W3C Trace Context; what is none is left out, as the standard says.
fn traceparent(headers: &HeaderMap) -> Option<TraceContext> {
    headers.get("traceparent")?.to_str().ok()?.parse().ok()
}

/// A request's events, every one well formed and with its `Id`.
struct Events {
    /// One event, not an array of one.
    single: bool,
    ids: Vec<EventId>,
    kinds: Vec<EventType>,
    /// The message: the event, or an array of them.
    body: Vec<u8>,
}

impl Events {
    fn read(text: &str, format: Format) -> Result<Self, Refused> {
        let invalid = |faults: Faults| (Refusal::Invalid, Problem::faults(faults));
        let batch = match format {
            Format::Json => event::split_json(text),
            Format::Ndjson => event::split_ndjson(text).map(Batch::Many),
        };
        let (single, texts) = match batch.map_err(|fault| invalid(fault.into()))? {
            Batch::One(text) => (true, vec![text]),
            Batch::Many(texts) => (false, texts),
        };
        if let Some(position) = texts.iter().position(|text| text.len() > MAX_EVENT_BYTES) {
            let which = if single {
                "the event".to_owned()
            } else {
                format!("event {position}")
            };
            let detail = format!("{which} has more than {MAX_EVENT_BYTES} bytes (256 KiB)");
            return Err((Refusal::TooLarge, Problem::too_large(detail)));
        }
        let mut events = Self {
            single,
            ids: Vec::with_capacity(texts.len()),
            kinds: Vec::with_capacity(texts.len()),
            body: Vec::new(),
        };
        events.body.reserve(text.len() + 64 * texts.len());
        let mut faults = Faults::default();
        for (position, text) in texts.iter().enumerate() {
            match event::parse(text) {
                Ok(event) => events.add(text, &event),
                Err(of_event) if single => faults = of_event,
                Err(of_event) => faults.append_within(&format!("/{position}"), of_event),
            }
        }
        faults.into_result(()).map_err(invalid)?;
        if !single {
            events.body.push(b']');
        }
        Ok(events)
    }

    fn add(&mut self, text: &str, event: &event::Event<'_>) {
        let id = event.id.unwrap_or_else(|| EventId(Uuid::now_v7()));
        let with_id: Cow<'_, str> = event::with_id(text, event, id);
        if !self.single {
            self.body.push(if self.ids.is_empty() { b'[' } else { b',' });
        }
        self.body.extend_from_slice(with_id.as_bytes());
        self.ids.push(id);
        self.kinds.push(event.kind);
    }
}
