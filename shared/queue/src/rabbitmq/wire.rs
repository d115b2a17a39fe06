//! The form of messages in RabbitMQ: properties and headers, both ways.
//!
//! Headers are trusted only from Herald's own users. RabbitMQ itself ensures that a `user_id`, if there is one, is the
//! name of the user who published.

use crate::{MAX_MESSAGE_BYTES, Origin, Origins, Received, Route, Tag};
use herald_domain::event::MAX_EVENT_BYTES;
use herald_domain::event::cloud_events::Mode;
use herald_domain::id::EventId;
use herald_domain::time::Timestamp;
use herald_ledger::rejected::MAX_REJECTED_BYTES;
use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use std::sync::Arc;

const ACCOUNT: &str = "herald-account";
const ACCEPTED_AT: &str = "herald-accepted-at";
const EVENTS: &str = "herald-events";
/// The header with the origins of a message's events, if it was put together of several requests: a line for each, see
/// [`line`].
const ORIGINS: &str = "herald-origins";
const TRACEPARENT: &str = "traceparent";
/// A header of RabbitMQ: how often a quorum queue has delivered the message before.
const DELIVERY_COUNT: &str = "x-delivery-count";

/// What the headers with attributes of a CloudEvent begin with: as AMQP 1.0 has application properties, which RabbitMQ
/// makes headers of, and as other transports have them.
const ATTRIBUTES: [&str; 3] = ["cloudEvents_", "cloudEvents:", "ce-"];

/// The scope of messages without a `user_id`.
const ANYBODY: &str = "amqp";

const PERSISTENT: u8 = 2;

/// The properties of a message that `user` publishes.
pub(super) fn properties(origin: &Origin, route: &Route, user: &str) -> BasicProperties {
    let mut headers = FieldTable::default();
    let mut header = |name: &str, value| {
        headers.insert(name.into(), value);
    };
    header(ACCOUNT, AMQPValue::LongString((*origin.account).into()));
    header(ACCEPTED_AT, AMQPValue::LongLongInt(origin.accepted_at.as_micros()));
    let events = i64::try_from(origin.events).unwrap_or(i64::MAX);
    header(EVENTS, AMQPValue::LongLongInt(events));
    if let Some(traceparent) = origin.traceparent {
        header(TRACEPARENT, AMQPValue::LongString(traceparent.to_string().into()));
    }
    let properties = plain(user)
        .with_timestamp(u64::try_from(origin.accepted_at.as_unix_seconds()).unwrap_or(0))
        .with_headers(headers);
    match route {
        Route::Event(_, id) => properties.with_message_id(short(&id.to_string())),
        Route::Batch => properties,
    }
}

/// The most bytes that an origin takes in a header, of an account whose name is a UUID.
pub(super) const ORIGIN_BYTES: usize = 160;

/// The properties of a message that `user` publishes and whose events come from several requests. A consumer that does
/// not know this header reads all of them as the first request's.
pub(super) fn properties_of_several(origins: &Origins, user: &str) -> BasicProperties {
    let all = Origin {
        events: origins.events(),
        ..origins.first.clone()
    };
    let properties = properties(&all, &Route::Batch, user);
    let mut headers = properties.headers().clone().unwrap_or_default();
    let lines: String = origins.iter().map(line).collect();
    headers.insert(ORIGINS.into(), AMQPValue::LongString(lines.into()));
    properties.with_headers(headers)
}

/// A line for one origin: the number of events, when they were accepted, their parent span or `-`, and their account.
pub(super) fn line(origin: &Origin) -> String {
    let Origin {
        account,
        accepted_at,
        traceparent,
        events,
    } = origin;
    let accepted_at = accepted_at.as_micros();
    match traceparent {
        Some(traceparent) => format!("{events} {accepted_at} {traceparent} {account}\n"),
        None => format!("{events} {accepted_at} - {account}\n"),
    }
}

fn read_line(line: &str) -> Option<Origin> {
    let mut parts = line.splitn(4, ' ');
    let events = parts.next()?.parse().ok().filter(|events| *events > 0)?;
    let accepted_at = Timestamp::from_micros(parts.next()?.parse().ok()?);
    let traceparent = match parts.next()? {
        "-" => None,
        text => Some(text.parse().ok()?),
    };
    Some(Origin {
        account: parts.next()?.into(),
        accepted_at,
        traceparent,
        events,
    })
}

/// The origins, read from their lines. Returns nothing if any line was not written by [`line`].
fn read_lines(lines: &str) -> Option<Origins> {
    let mut origins = lines.lines().map(read_line);
    Some(Origins {
        first: origins.next()??,
        others: origins.collect::<Option<_>>()?,
    })
}

/// The properties of every message that `user` publishes: persistent, and JSON.
pub(super) fn plain(user: &str) -> BasicProperties {
    BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_content_type(short("application/json"))
        .with_user_id(short(user))
}

/// The properties of one event that a producer publishes itself.
pub(super) fn of_event(id: EventId, user: &str) -> BasicProperties {
    plain(user).with_message_id(short(&id.to_string()))
}

/// A text that is known to be short. If it is too long, this gives an empty text and no panic.
pub(super) fn short(text: &str) -> ShortString {
    ShortString::try_new(text).unwrap_or_default()
}

/// A received message, with its origins and the other properties. Of a body that is too large only as much is read as
/// is kept of rejected messages.
pub(super) fn read(delivery: Delivery, generation: u64, trusted_users: &[String], now: Timestamp) -> Received {
    let properties = &delivery.properties;
    let user = properties.user_id().as_ref().map(ShortString::as_str);
    let trusted = user.is_some_and(|user| trusted_users.iter().any(|trusted| trusted == user));
    let headers = Headers(properties.headers().as_ref());
    let believed = if trusted { headers } else { Headers(None) };
    let account = believed.text(ACCOUNT);
    let account = account.or_else(|| user.map(str::to_owned));
    let accepted_at = believed.number(ACCEPTED_AT).map(Timestamp::from_micros);
    let events = believed.number(EVENTS).and_then(|events| usize::try_from(events).ok());
    let several = believed.text(ORIGINS).and_then(|lines| read_lines(&lines));
    let encoding = properties.content_encoding().as_ref();
    let encoding = encoding.map(ToString::to_string).filter(|name| !name.is_empty());
    let content_type = properties.content_type().as_ref().map(ShortString::as_str);
    // Ingest publishes events alone.
    let cloud_event = accepted_at
        .is_none()
        .then(|| Mode::of(content_type, headers.attributes()))
        .flatten();
    let mut body = delivery.data;
    let most = if trusted { MAX_MESSAGE_BYTES } else { MAX_EVENT_BYTES };
    let cut = (body.trim_ascii().len() > most).then_some(body.len());
    if cut.is_some() {
        body.truncate(MAX_REJECTED_BYTES);
        body.shrink_to_fit();
    }
    Received {
        tag: Tag {
            generation,
            place: i64::try_from(delivery.delivery_tag).unwrap_or(i64::MAX),
        },
        trusted,
        accepted: accepted_at.is_some(),
        message_id: properties.message_id().as_ref().map(ToString::to_string),
        redeliveries: headers
            .number(DELIVERY_COUNT)
            .and_then(|count| u64::try_from(count).ok())
            .unwrap_or(0),
        encoding,
        cloud_event,
        cut,
        origins: several.unwrap_or_else(|| {
            Origins::from(Origin {
                account: account.map_or_else(|| ANYBODY.into(), Arc::from),
                accepted_at: accepted_at.unwrap_or(now),
                // What is none is left out, as the standard says.
                traceparent: headers.text(TRACEPARENT).and_then(|text| text.parse().ok()),
                events: events.unwrap_or(1).max(1),
            })
        }),
        body,
    }
}

#[derive(Clone, Copy)]
struct Headers<'a>(Option<&'a FieldTable>);

impl Headers<'_> {
    /// The attributes of a CloudEvent, read one by one as they are asked for.
    fn attributes(self) -> impl Iterator<Item = (String, String)> {
        let all = self.0.into_iter().flat_map(FieldTable::inner);
        all.filter_map(|(name, value)| {
            let name = ATTRIBUTES
                .iter()
                .find_map(|prefix| name.as_str().strip_prefix(prefix))?;
            Some((name.to_owned(), attribute(value)?))
        })
    }

    fn text(self, name: &str) -> Option<String> {
        match self.0?.inner().get(name)? {
            AMQPValue::LongString(text) => std::str::from_utf8(text.as_bytes()).ok().map(str::to_owned),
            AMQPValue::ShortString(text) => Some(text.to_string()),
            _ => None,
        }
    }

    fn number(self, name: &str) -> Option<i64> {
        Some(match self.0?.inner().get(name)? {
            AMQPValue::ShortShortInt(n) => i64::from(*n),
            AMQPValue::ShortShortUInt(n) => i64::from(*n),
            AMQPValue::ShortInt(n) => i64::from(*n),
            AMQPValue::ShortUInt(n) => i64::from(*n),
            AMQPValue::LongInt(n) => i64::from(*n),
            AMQPValue::LongUInt(n) => i64::from(*n),
            AMQPValue::LongLongInt(n) => *n,
            _ => return None,
        })
    }
}

/// The value of an attribute as text. Publishers may write times, numbers and truths as AMQP's own.
fn attribute(value: &AMQPValue) -> Option<String> {
    Some(match value {
        AMQPValue::LongString(text) => String::from_utf8_lossy(text.as_bytes()).into_owned(),
        AMQPValue::ShortString(text) => text.to_string(),
        AMQPValue::Timestamp(seconds) => {
            let micros = i64::try_from(*seconds).ok()?.checked_mul(1_000_000)?;
            Timestamp::from_micros(micros).to_string()
        }
        AMQPValue::Boolean(truth) => truth.to_string(),
        AMQPValue::LongInt(number) => number.to_string(),
        AMQPValue::LongLongInt(number) => number.to_string(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use herald_domain::catalogue::{EnateEvent, EventType};
    use uuid::Uuid;

    const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    const NOW: Timestamp = Timestamp::from_micros(9);

    fn origin() -> Origin {
        Origin {
            account: "acme".into(),
            accepted_at: Timestamp::from_micros(1_700_000_000_123_456),
            traceparent: Some(TRACE.parse().unwrap()),
            events: 7,
        }
    }

    fn received(properties: BasicProperties) -> Received {
        let mut delivery = Delivery::mock(3, "e".into(), "k".into(), false, b"[]".to_vec());
        delivery.properties = properties;
        read(delivery, 2, &["herald".to_owned()], NOW)
    }

    #[test]
    fn what_herald_publishes_it_reads_back() {
        let id = EventId(Uuid::from_u128(1));
        let one = properties(
            &origin(),
            &Route::Event(EventType::Enate(EnateEvent::PacketCreated), id),
            "herald",
        );
        assert_eq!(*one.delivery_mode(), Some(2));
        assert_eq!(*one.timestamp(), Some(1_700_000_000));
        let read = received(one);
        assert_eq!((read.origins, read.body), (origin().into(), b"[]".to_vec()));
        assert!(read.trusted && read.accepted);
        assert_eq!(read.message_id, Some(id.to_string()));
        assert_eq!((read.tag.generation, read.tag.place, read.redeliveries), (2, 3, 0));
        assert_eq!(
            received(properties(&origin(), &Route::Batch, "herald")).message_id,
            None
        );
    }

    #[test]
    fn of_what_is_too_large_only_what_is_kept_is_read() {
        let read_body = |user: &str, body: Vec<u8>| {
            let mut delivery = Delivery::mock(3, "e".into(), "k".into(), false, body);
            delivery.properties = plain(user);
            let read = read(delivery, 2, &["herald".to_owned()], NOW);
            (read.body.len(), read.cut)
        };
        let padded = |bytes: usize| [vec![b'x'; bytes], vec![b'\n'; 9]].concat();
        let (event, message, kept) = (MAX_EVENT_BYTES, MAX_MESSAGE_BYTES, MAX_REJECTED_BYTES);
        assert_eq!(read_body("mallory", padded(event)), (event + 9, None));
        assert_eq!(read_body("mallory", padded(event + 1)), (event + 10, Some(event + 10)));
        assert_eq!(read_body("mallory", vec![b'['; message]), (kept, Some(message)));
        assert_eq!(read_body("herald", vec![b'['; message]), (message, None));
        assert_eq!(read_body("herald", vec![b'['; message + 1]), (kept, Some(message + 1)));
    }

    #[test]
    fn headers_of_others_are_not_believed() {
        let theirs = received(properties(&origin(), &Route::Batch, "mallory"));
        assert!(!theirs.trusted && !theirs.accepted);
        let first = &theirs.origins.first;
        assert_eq!((&*first.account, first.accepted_at, first.events), ("mallory", NOW, 1));
        assert_eq!(first.traceparent, Some(TRACE.parse().unwrap()));
        let nobodys = received(BasicProperties::default());
        assert_eq!((&*nobodys.origins.first.account, nobodys.trusted), ("amqp", false));
    }

    #[test]
    fn a_cloud_event_is_one_by_its_content_type_or_by_its_attributes() {
        let of = |content_type: &str, headers: &[(&str, AMQPValue)]| {
            let mut table = FieldTable::default();
            for (name, value) in headers {
                table.insert((*name).into(), value.clone());
            }
            let properties = BasicProperties::default();
            let properties = properties.with_content_type(short(content_type)).with_headers(table);
            received(properties).cloud_event
        };
        let text = |text: &str| AMQPValue::LongString(text.into());
        assert_eq!(
            of("application/cloudevents+json; charset=utf-8", &[]),
            Some(Mode::Structured)
        );
        for prefix in ATTRIBUTES {
            let headers = [
                (&*format!("{prefix}id"), text("a")),
                (&*format!("{prefix}time"), AMQPValue::Timestamp(1)),
                (&*format!("{prefix}odd"), AMQPValue::Void),
                ("traceparent", text("b")),
            ];
            let beside = [("id", "a"), ("time", "1970-01-01T00:00:01Z")];
            let beside = beside.map(|(name, value)| (name.to_owned(), value.to_owned()));
            let expected = Mode::of(Some("application/json"), beside);
            assert!(expected.is_some());
            assert_eq!(of("application/json", &headers), expected);
        }
        assert_eq!(of("application/json", &[("ce-subject", text("a"))]), None);
        assert_eq!(
            received(properties(&origin(), &Route::Batch, "herald")).cloud_event,
            None
        );
    }

    #[test]
    fn odd_headers_are_passed_over() {
        let mut headers = FieldTable::default();
        headers.insert(ACCOUNT.into(), AMQPValue::Boolean(true));
        headers.insert(EVENTS.into(), AMQPValue::LongLongInt(-4));
        headers.insert(TRACEPARENT.into(), AMQPValue::LongString("00-xyz".into()));
        headers.insert(DELIVERY_COUNT.into(), AMQPValue::LongInt(21));
        let read = received(plain("herald").with_headers(headers));
        let first = &read.origins.first;
        assert_eq!((&*first.account, first.events), ("herald", 1));
        assert_eq!((first.traceparent, read.redeliveries), (None, 21));
        assert!(read.trusted && !read.accepted, "nothing says that ingest took it");
    }
}
