//! Ingest, the HTTP entrance for producers.
//!
//! `POST /v1/events` takes events and CloudEvents. It authenticates the caller, validates every event against the catalogue,
//! publishes the whole request as one message, and answers 202 only when that message is durable. So a request is accepted
//! whole or not at all. A producer that got no answer publishes again with the same `Id`s.
#![warn(missing_docs)]

mod events;
mod metrics;
mod openapi;
mod publish;
mod request;
mod room;
mod spans;

use axum::body::Body;
use axum::extract::{FromRef, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use events::{Events, Format, NotRead};
use herald_access::Caller;
use herald_access::body::check_encoding;
use herald_access::problem::Problem;
use herald_domain::catalogue::EventType;
use herald_domain::text;
use herald_domain::time::Clock;
use herald_domain::trace::{Step, TraceContext};
use herald_queue::Queue;
use herald_registry::Registry;
use herald_telemetry::traces::Traces;
use metrics::{Metrics, RequestRefusal};
pub use openapi::openapi;
pub use request::MAX_REQUEST_BYTES;
use request::RefusedRequest;
use room::Room;
use serde_json::json;
use std::sync::Arc;

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

    /// The routes of ingest.
    pub fn router(self) -> Router {
        Router::new()
            .route("/v1/events", post(receive))
            .with_state(Shared(Arc::new(self)))
    }

    /// The events of a request. A type that this process does not know may have been registered at another process a
    /// moment ago, so the ledger is asked before the type is refused.
    async fn events(&self, text: &str, format: &Format) -> Result<Events, RefusedRequest> {
        let catalogue = || Arc::clone(self.registry.view().catalogue());
        match Events::read(text, format, &catalogue()) {
            Err(NotRead::Invalid(faults)) if faults.may_be_outdated() => {}
            read => return read.map_err(NotRead::refused),
        }
        self.registry.refresh_soon().await.map_err(|error| {
            let problem = Problem::unavailable("ledger", &error);
            (RequestRefusal::Unavailable, problem)
        })?;
        Events::read(text, format, &catalogue()).map_err(NotRead::refused)
    }
}

/// Answers a request to publish, counts it, and records its span.
async fn receive(
    State(Shared(ingest)): State<Shared>,
    caller: Result<Caller, Problem>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let began = ingest.clock.now();
    let given = request::traceparent(&headers);
    // A caller that is not known does not decide about traces, and has no span recorded.
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

/// Accepts a request whole or not at all. Returns the answer, and the types of its events.
async fn accept(
    ingest: &Ingest,
    caller: Result<Caller, Problem>,
    headers: &HeaderMap,
    body: Body,
    within: Option<TraceContext>,
) -> Result<(serde_json::Value, Vec<EventType>), RefusedRequest> {
    let caller = request::producer(caller)?;
    let format = Format::of(headers)?;
    check_encoding(headers).map_err(|problem| (RequestRefusal::MediaType, problem))?;
    // The memory is taken until the request is answered.
    let mut reserved = ingest.room.reserve(caller.account());
    let body = request::read(body, &mut reserved).await?;
    let text = text::read(&body).map_err(|fault| (RequestRefusal::Invalid, Problem::faults(fault)))?;
    let mut events = ingest.events(text, &format).await?;
    // The queue may take a while, and needs only what it is given.
    drop(body);
    publish::publish(ingest, caller.account(), &mut events, within)
        .await
        .map_err(|error| (RequestRefusal::Unavailable, Problem::unavailable("event queue", &error)))?;
    let answer = match (events.single, events.ids.as_slice()) {
        (true, [id]) => json!({ "Id": id }),
        // A client that sends an array of one event may look for either field.
        (false, [id]) => json!({ "Id": id, "Ids": [id] }),
        (_, ids) => json!({ "Ids": ids }),
    };
    Ok((answer, events.kinds))
}
