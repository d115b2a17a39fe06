//! The events of a request: one, or several as an array or line by line.

use crate::metrics::RequestRefusal;
use crate::request::RefusedRequest;
use axum::http::{HeaderMap, header};
use herald_access::problem::Problem;
use herald_domain::catalogue::{Catalogue, EventType};
use herald_domain::event::{self, Batch, MAX_EVENT_BYTES};
use herald_domain::id::EventId;
use herald_domain::problem::Faults;
use std::borrow::Cow;
use uuid::Uuid;

/// How a request writes its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    Ndjson,
}

impl Format {
    /// As its `Content-Type` says.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
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

/// Why a request's text is no events.
pub(crate) enum NotRead {
    TooLarge(String),
    Invalid(Faults),
}

impl NotRead {
    pub(crate) fn refused(self) -> RefusedRequest {
        match self {
            Self::TooLarge(detail) => (RequestRefusal::TooLarge, Problem::too_large(detail)),
            Self::Invalid(faults) => (RequestRefusal::Invalid, Problem::faults(faults)),
        }
    }
}

/// A request's events, every one well formed and with its `Id`.
pub(crate) struct Events {
    /// One event, not an array of one.
    pub(crate) single: bool,
    pub(crate) ids: Vec<EventId>,
    pub(crate) kinds: Vec<EventType>,
    /// The message: the event, or an array of them.
    pub(crate) body: Vec<u8>,
}

impl Events {
    pub(crate) fn read(text: &str, format: Format, catalogue: &Catalogue) -> Result<Self, NotRead> {
        let batch = match format {
            Format::Json => event::split_json(text),
            Format::Ndjson => event::split_ndjson(text).map(Batch::Many),
        };
        let (single, texts) = match batch.map_err(|fault| NotRead::Invalid(fault.into()))? {
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
            return Err(NotRead::TooLarge(detail));
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
            match event::parse(text, catalogue) {
                Ok(event) => events.add(text, &event),
                Err(of_event) if single => faults = of_event,
                Err(of_event) => faults.append_within(&format!("/{position}"), of_event),
            }
        }
        faults.into_result(()).map_err(NotRead::Invalid)?;
        if !single {
            events.body.push(b']');
        }
        Ok(events)
    }

    fn add(&mut self, text: &str, event: &event::Event<'_>) {
        let id = event.id.unwrap_or_else(|| EventId(Uuid::now_v7()));
        let with_id: Cow<'_, str> = event::with_id(text, event.id, id);
        if !self.single {
            self.body.push(if self.ids.is_empty() { b'[' } else { b',' });
        }
        self.body.extend_from_slice(with_id.as_bytes());
        self.ids.push(id);
        self.kinds.push(event.kind.clone());
    }
}
