//! CloudEvents 1.0: structured, in one JSON object, or binary, with the attributes as headers.
//!
//! `data` is the event's `Data` to the byte. What the event concerns is in extension attributes that are named after the
//! object types, so that a CloudEvent that comes back is the same event.
//!
//! <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md>

use super::{Envelope, Outgoing};
use crate::catalogue::{EventType, ObjectRule, attribute_of};
use crate::id::ObjectGuid;
use fluent_uri::UriRef;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;

/// What the headers of CloudEvents begin with.
pub(super) const PREFIX: &str = "ce-";

/// What a header's value has percent-encoded, beside everything beyond ASCII.
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');

/// The longest [`Source`], in bytes.
const MAX_SOURCE_BYTES: usize = 500;

/// The `source` of the CloudEvents that Herald sends: a URI-reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source(Arc<str>);

/// The text is no `source`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be a URI-reference (RFC 3986) of 1 to {MAX_SOURCE_BYTES} characters, such as urn:herald or \
     https://herald.example.com"
)]
pub struct NotASource;

impl Source {
    /// The source of that text.
    pub fn parse(text: &str) -> Result<Self, NotASource> {
        let fits = (1..=MAX_SOURCE_BYTES).contains(&text.len());
        if fits && UriRef::parse(text).is_ok() {
            Ok(Self(text.into()))
        } else {
            Err(NotASource)
        }
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Source {
    fn default() -> Self {
        Self("urn:herald".into())
    }
}

/// The attributes in their order, apart from `specversion` and `datacontenttype`. None has a character that JSON escapes.
fn attributes(envelope: &Envelope<'_>) -> Vec<(Cow<'static, str>, String)> {
    let at = envelope.occurred_at.unwrap_or(envelope.accepted_at);
    let mut all: Vec<(Cow<'static, str>, String)> = vec![
        ("id".into(), envelope.event.to_string()),
        ("source".into(), envelope.source.as_str().to_owned()),
        ("type".into(), envelope.kind.name().to_owned()),
    ];
    if let Some((name, guid)) = subject(envelope) {
        all.push(("subject".into(), format!("{name}/{guid}")));
    }
    all.push(("time".into(), at.to_string()));
    for (name, guid) in envelope.objects.iter() {
        if let Some(attribute) = attribute_of(name)
            // Of two types whose names differ only in case or signs, the first has it.
            && all.iter().all(|(known, _)| *known != attribute)
        {
            all.push((attribute.into(), guid.to_string()));
        }
    }
    all
}

/// The object that comes first: of those that one of Enate's types asks for, or of those that the event names.
fn subject<'a>(envelope: &Envelope<'a>) -> Option<(&'a str, ObjectGuid)> {
    let objects = envelope.objects;
    let asked = match envelope.kind {
        EventType::Enate(event) => match event.objects() {
            ObjectRule::All(names) | ObjectRule::ExactlyOne(names) => names,
        },
        EventType::Registered(_) => &[],
    };
    let mut asked = asked.iter().filter_map(|name| Some((*name, objects.get(name)?)));
    asked.next().or_else(|| objects.iter().next())
}

/// One JSON object with the attributes and the data.
pub(super) fn structured(envelope: &Envelope<'_>) -> Outgoing {
    let mut body = String::with_capacity(envelope.data.len() + 512);
    body.push_str(r#"{"specversion":"1.0""#);
    for (name, value) in attributes(envelope) {
        // Writing to a String cannot fail.
        let _infallible = write!(body, r#","{name}":"{value}""#);
    }
    let data = envelope.data;
    let _infallible = write!(body, r#","datacontenttype":"application/json","data":{data}}}"#);
    Outgoing {
        content_type: "application/cloudevents+json",
        headers: Vec::new(),
        body,
    }
}

/// The data as the body, the attributes as headers.
pub(super) fn binary(envelope: &Envelope<'_>) -> Outgoing {
    let header = |name: &str, value: &str| {
        let value = utf8_percent_encode(value, ENCODED).to_string();
        (Cow::Owned(format!("{PREFIX}{name}")), value)
    };
    let mut headers = vec![header("specversion", "1.0")];
    headers.extend(attributes(envelope).iter().map(|(name, value)| header(name, value)));
    Outgoing {
        headers,
        ..Outgoing::json(envelope.data.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::{Catalogue, EnateEvent, EventTypeDraft, EventTypeSpec, ObjectType, ObjectTypeSpec};
    use crate::event::Objects;
    use crate::event::cloud_events::{CloudEvent, Mode, header_value};
    use crate::id::EventId;
    use crate::message::tests::{envelope, registered};
    use crate::time::Timestamp;
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use uuid::Uuid;

    fn guid(number: u128) -> ObjectGuid {
        ObjectGuid(Uuid::from_u128(number))
    }

    /// A catalogue with the type of [`registered`], and an object type.
    fn catalogue() -> Catalogue {
        let mut catalogue = Catalogue::default();
        catalogue.put_event_type(EventTypeSpec {
            kind: registered(),
            draft: EventTypeDraft {
                description: None,
                objects: Vec::new(),
                schema: None,
                example: None,
                archived: false,
            },
            built_in: false,
            deleted: false,
            created_at: Timestamp::from_micros(0),
            updated_at: Timestamp::from_micros(0),
        });
        catalogue.put_object_type(ObjectTypeSpec {
            kind: ObjectType::numbered(1001).unwrap(),
            name: "Ticket-Note".into(),
            deleted: false,
        });
        catalogue
    }

    /// What a receiver makes of a message.
    fn carried(outgoing: &Outgoing) -> Mode {
        let beside = outgoing.headers.iter().map(|(name, value)| {
            let value = header_value(value.as_bytes()).unwrap();
            (name.strip_prefix(PREFIX).unwrap().to_owned(), value)
        });
        Mode::of(Some(outgoing.content_type), beside).unwrap()
    }

    proptest! {
        #[test]
        fn what_goes_out_as_a_cloud_event_comes_in_as_the_same_event(
            bits in 1u128..1 << 120, named: [bool; 8], text in "\\PC{0,40}", number: f64,
            occurred in proptest::option::of(0i64..1 << 52),
            source in "(urn:[a-z]{2,5}:[a-z%]{0,3}(%2[0-9A-F])?|https://[a-z]{1,9}/[a-z?#]{0,2}|[a-z/]{1,9})",
        ) {
            let Ok(source) = Source::parse(&source) else {
                return Ok(());
            };
            let names = ["Company", "Contract", "Service", "Process", "Packet", "Schedule", "Communication", "Ticket-Note"];
            let named = names.into_iter().zip(named).filter(|(_, named)| *named);
            let objects: Objects = named.zip(0..).map(|((name, _), n)| (name, guid(bits + n))).collect();
            let data = json!({ "Text": text, "Number": number, "Null": null }).to_string().replace(':', " : ");
            let (kind, catalogue) = (registered(), catalogue());
            let envelope = Envelope {
                event: EventId(Uuid::from_u128(bits)),
                source: &source,
                occurred_at: occurred.map(Timestamp::from_micros),
                ..envelope(&kind, &objects, &data)
            };
            for outgoing in [structured(&envelope), binary(&envelope)] {
                let read = CloudEvent::read(&carried(&outgoing), &outgoing.body, &catalogue).unwrap();
                let event = read.parse(&catalogue).unwrap();
                prop_assert_eq!(event.id, Some(envelope.event));
                prop_assert_eq!(&event.kind, &kind);
                let at = envelope.occurred_at.unwrap_or(envelope.accepted_at);
                prop_assert_eq!(event.occurred_at, Some(at));
                prop_assert_eq!(event.objects, objects.clone());
                prop_assert_eq!(event.data, &data);
            }
        }
    }

    #[test]
    fn a_structured_one_has_the_attributes_and_the_data_to_the_byte() {
        let kind = EventType::Enate(EnateEvent::PacketUpdated);
        let objects = Objects::from([("Company", guid(4)), ("Packet", guid(5))]);
        let data = r#"{ "Status": 1,  "A":"\u00e4" }"#;
        let outgoing = structured(&envelope(&kind, &objects, data));
        assert_eq!(outgoing.content_type, "application/cloudevents+json");
        let (company, packet, id) = (guid(4), guid(5), Uuid::from_u128(8));
        assert_eq!(
            outgoing.body,
            format!(
                r#"{{"specversion":"1.0","id":"{id}","source":"urn:herald","type":"PacketUpdated","subject":"Packet/{packet}","time":"1970-01-01T00:00:02Z","company":"{company}","packet":"{packet}","datacontenttype":"application/json","data":{data}}}"#
            )
        );
        let value: Value = serde_json::from_str(&outgoing.body).unwrap();
        assert_eq!(value["data"]["A"], "ä");
    }

    #[test]
    fn a_binary_one_has_its_attributes_encoded_as_headers() {
        let kind = registered();
        let objects = Objects::from([("Source", guid(3)), ("Ticket", guid(4)), ("ticket", guid(5))]);
        let source = Source::parse("https://a.example/b%20c").unwrap();
        let envelope = Envelope {
            source: &source,
            ..envelope(&kind, &objects, "{}")
        };
        let outgoing = binary(&envelope);
        let headers: Vec<_> = outgoing
            .headers
            .iter()
            .map(|(name, value)| (&**name, &**value))
            .collect();
        let (subject, ticket) = (format!("Source/{}", guid(3)), guid(4).to_string());
        let expected = [
            ("ce-specversion", "1.0"),
            ("ce-id", "00000000-0000-0000-0000-000000000008"),
            ("ce-source", "https://a.example/b%2520c"),
            ("ce-type", "InvoicePaid"),
            ("ce-subject", &subject),
            ("ce-time", "1970-01-01T00:00:02Z"),
            // An object that is called like an attribute has none, and two have not the same.
            ("ce-ticket", &ticket),
        ];
        assert_eq!(headers, expected);
        assert_eq!((outgoing.content_type, &*outgoing.body), ("application/json", "{}"));
    }

    #[test]
    fn only_a_uri_reference_is_a_source() {
        for good in ["urn:herald", "/herald", "https://herald.example.com/eu?a=b#c", "herald"] {
            assert_eq!(Source::parse(good).unwrap().as_str(), good);
        }
        let long = "a".repeat(MAX_SOURCE_BYTES + 1);
        for bad in ["", "a b", "https://ä.example", "urn:%zz", "a\"b", &long] {
            assert_eq!(Source::parse(bad), Err(NotASource), "{bad}");
        }
    }
}
