//! The events of a request: one, or several as an array or line by line, or CloudEvents.

use crate::metrics::RequestRefusal;
use crate::request::RefusedRequest;
use axum::http::{HeaderMap, header};
use herald_access::problem::Problem;
use herald_domain::catalogue::{Catalogue, EventType};
use herald_domain::event::cloud_events::{self, CloudEvent, Mode};
use herald_domain::event::{self, Batch, Event, MAX_EVENT_BYTES};
use herald_domain::id::EventId;
use herald_domain::problem::{Fault, Faults, pointer_to};
use herald_queue::MAX_MESSAGE_BYTES;
use std::borrow::Cow;
use uuid::Uuid;

/// How a request writes its events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    Ndjson,
    CloudEvents(Mode),
}

/// What the headers with attributes of a CloudEvent begin with.
const ATTRIBUTE: &str = "ce-";

impl Format {
    /// As its `Content-Type` and its `ce-` headers say.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, RefusedRequest> {
        let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let attributes = attributes(headers).map_err(|fault| (RequestRefusal::Invalid, Problem::faults(fault)))?;
        match Mode::of(value, attributes) {
            Some(Mode::Other(media_type)) => {
                let detail = format!(
                    "CloudEvents as {media_type} cannot be read; send application/cloudevents+json, \
                     application/cloudevents-batch+json, or JSON with ce- headers"
                );
                return Err((RequestRefusal::MediaType, Problem::media_type(detail)));
            }
            Some(mode) => return Ok(Self::CloudEvents(mode)),
            None => {}
        }
        let essence = value.unwrap_or_default().split(';').next().unwrap_or_default().trim();
        if essence.eq_ignore_ascii_case("application/json") {
            Ok(Self::Json)
        } else if essence.eq_ignore_ascii_case("application/x-ndjson") {
            Ok(Self::Ndjson)
        } else {
            let problem = Problem::media_type(
                "Content-Type must be application/json, application/x-ndjson, application/cloudevents+json or \
                 application/cloudevents-batch+json",
            );
            Err((RequestRefusal::MediaType, problem))
        }
    }

    /// The texts of the events, not yet judged.
    fn split<'a>(&self, text: &'a str) -> Result<Batch<'a>, Fault> {
        match self {
            Self::Json => event::split_json(text),
            Self::Ndjson => event::split_ndjson(text).map(Batch::Many),
            Self::CloudEvents(Mode::Batch) => match event::split_json(text)? {
                Batch::Many(texts) => Ok(Batch::Many(texts)),
                Batch::One(_) => Err(Fault::new(
                    "",
                    "array",
                    "application/cloudevents-batch+json is an array; send one CloudEvent as application/cloudevents+json",
                )),
            },
            Self::CloudEvents(Mode::Structured) => match event::split_json(text)? {
                Batch::One(text) => Ok(Batch::One(text)),
                Batch::Many(_) => Err(Fault::new(
                    "",
                    "object",
                    "application/cloudevents+json is one object; send an array as application/cloudevents-batch+json",
                )),
            },
            // The body is data, whatever it looks like.
            Self::CloudEvents(_) => Ok(Batch::One(text)),
        }
    }
}

/// The attributes of a CloudEvent that the headers have.
fn attributes(headers: &HeaderMap) -> Result<Vec<(String, String)>, Fault> {
    let named = headers
        .iter()
        .filter_map(|(name, value)| Some((name.as_str().strip_prefix(ATTRIBUTE)?, value)));
    let read = named.map(|(name, value)| {
        let value = cloud_events::header_value(value.as_bytes()).ok_or_else(|| {
            let detail = format!("the header {ATTRIBUTE}{name} is not UTF-8, percent-encoded");
            Fault::new(pointer_to(name), "utf8", detail)
        })?;
        Ok((name.to_owned(), value))
    });
    read.collect()
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
    pub(crate) fn read(text: &str, format: &Format, catalogue: &Catalogue) -> Result<Self, NotRead> {
        let (single, texts) = match format.split(text).map_err(|fault| NotRead::Invalid(fault.into()))? {
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
            if let Err(of_event) = events.read_one(text, format, catalogue) {
                let parent = if single { String::new() } else { format!("/{position}") };
                faults.append_within(&parent, of_event);
            }
        }
        faults.into_result(()).map_err(NotRead::Invalid)?;
        if !single {
            events.body.push(b']');
        }
        // Object types may have much longer names than the attributes of CloudEvents that name them.
        if events.body.len() > MAX_MESSAGE_BYTES {
            let detail =
                format!("the events have more than {MAX_MESSAGE_BYTES} bytes (16 MiB) when they are written out");
            return Err(NotRead::TooLarge(detail));
        }
        Ok(events)
    }

    fn read_one(&mut self, text: &str, format: &Format, catalogue: &Catalogue) -> Result<(), Faults> {
        match format {
            Format::Json | Format::Ndjson => self.add(text, &event::parse(text, catalogue)?),
            Format::CloudEvents(mode) => {
                let read = CloudEvent::read(mode, text, catalogue)?;
                self.add(read.json(), &read.parse(catalogue)?);
            }
        }
        Ok(())
    }

    fn add(&mut self, text: &str, event: &Event<'_>) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderName, HeaderValue};

    fn format(headers: &[(&'static str, &'static str)]) -> Result<Format, u16> {
        let headers = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        Format::of(&headers.collect()).map_err(|(_, problem)| problem.status().as_u16())
    }

    #[test]
    fn the_headers_say_how_events_are_written() {
        let json = "application/json";
        assert_eq!(
            format(&[("content-type", "Application/JSON; charset=utf-8")]),
            Ok(Format::Json)
        );
        assert_eq!(format(&[("content-type", "application/x-ndjson")]), Ok(Format::Ndjson));
        let structured = Format::CloudEvents(Mode::Structured);
        assert_eq!(
            format(&[("content-type", "application/cloudevents+json"), ("ce-id", "a")]),
            Ok(structured)
        );
        for content_type in [&[("content-type", json)][..], &[]] {
            let headers = [content_type, &[("ce-specversion", "1.0")]].concat();
            assert!(matches!(format(&headers), Ok(Format::CloudEvents(Mode::Binary(_)))));
        }
        for unknown in ["application/cloudevents+xml", "text/plain", ""] {
            assert_eq!(format(&[("content-type", unknown)]), Err(415), "{unknown}");
        }
        assert_eq!(format(&[]), Err(415));
        assert_eq!(format(&[("content-type", json), ("ce-id", "%ff")]), Err(400));
    }

    fn one(id: &str) -> String {
        format!(
            r#"{{"specversion":"1.0","id":"{id}","source":"urn:a","type":"BusinessObjectUpdated","company":"{}","data":{{"Name":"a"}}}}"#,
            Uuid::from_u128(1)
        )
    }

    fn read(mode: Mode, text: &str) -> Result<Events, Vec<(String, &'static str)>> {
        Events::read(text, &Format::CloudEvents(mode), &Catalogue::default()).map_err(|not_read| match not_read {
            NotRead::TooLarge(detail) => vec![(detail, "max_bytes")],
            NotRead::Invalid(faults) => {
                let listed = faults.into_listed().into_iter();
                listed.map(|fault| (fault.pointer, fault.rule)).collect()
            }
        })
    }

    #[test]
    fn cloud_events_go_to_the_queue_as_events() {
        let single = read(Mode::Structured, &format!(" {}\n", one("a"))).unwrap();
        assert!(single.single);
        let event = event::parse(std::str::from_utf8(&single.body).unwrap(), &Catalogue::default()).unwrap();
        assert_eq!((event.id, event.data), (Some(single.ids[0]), r#"{"Name":"a"}"#));
        let several = read(Mode::Batch, &format!("[{},{}]", one("a"), one("b"))).unwrap();
        assert!(!several.single && several.ids[0] == single.ids[0] && several.ids[1] != single.ids[0]);
        let texts = event::split_json(std::str::from_utf8(&several.body).unwrap()).unwrap();
        assert!(matches!(texts, Batch::Many(texts) if texts.len() == 2 && texts[0].as_bytes() == single.body));
    }

    #[test]
    fn what_is_no_cloud_event_is_told_where_it_stands() {
        let fault = |mode, text: &str| read(mode, text).err().unwrap();
        let bad = one("").replace("1.0", "0.3");
        let both = format!("[{},{bad}]", one("a"));
        let faults = [
            ("/1/specversion".to_owned(), "one_of"),
            ("/1/id".to_owned(), "required"),
        ];
        assert_eq!(fault(Mode::Batch, &both), faults);
        assert_eq!(fault(Mode::Batch, &one("a")), [(String::new(), "array")]);
        assert_eq!(fault(Mode::Structured, &both), [(String::new(), "object")]);
        assert_eq!(fault(Mode::Batch, "[]"), [(String::new(), "not_empty")]);
        let large = one(&"a".repeat(MAX_EVENT_BYTES));
        assert_eq!(fault(Mode::Structured, &large)[0].1, "max_bytes");
    }
}
