//! The bytes of a message: the event's `Data` with the GUIDs spliced in front.

use crate::catalogue::EventType;
use crate::event::Objects;
use crate::id::{DeliveryId, EventUid, SubscriptionId};
use std::fmt::{self, Write as _};

/// The body of the message that tells `subscription` of an event. `data` is the event's `Data` as it
/// was accepted, a JSON object; nothing of it changes.
pub fn body(subscription: SubscriptionId, kind: EventType, objects: &Objects, data: &str) -> String {
    let mut body = String::with_capacity(data.len() + 160);
    let mut add = |name: &str, value: fmt::Arguments<'_>| {
        body.push(if body.is_empty() { '{' } else { ',' });
        // Writing to a String cannot fail.
        let _infallible = write!(body, "\"{name}\":{value}");
    };
    add("GUID", format_args!("\"{subscription}\""));
    match kind {
        EventType::PacketCreated | EventType::PacketUpdated | EventType::NewCommunication => {
            if let Some(packet) = objects.packet {
                add("PacketGUID", format_args!("\"{packet}\""));
            }
            if let (EventType::NewCommunication, Some(communication)) = (kind, objects.communication) {
                add("CommunicationGUID", format_args!("\"{communication}\""));
            }
        }
        EventType::BusinessObjectCreated | EventType::BusinessObjectUpdated => {
            if let Some((object_type, object)) = objects.business_object() {
                add("ObjectGUID", format_args!("\"{object}\""));
                add("ObjectType", format_args!("{}", object_type.number()));
            }
        }
    }
    let rest = data.trim_start().strip_prefix('{').unwrap_or(data);
    if !rest.trim_start().starts_with('}') {
        body.push(',');
    }
    body.push_str(rest);
    body
}

/// The `traceparent` of an attempt (W3C Trace Context): the producer's trace where it gave one, else one
/// made of the event's identity; the attempt is its own span.
pub fn traceparent(producers: Option<&str>, event: EventUid, delivery: DeliveryId, attempt: u32) -> String {
    let (_, span) = delivery.0.as_u64_pair();
    // A span of all zeros would be invalid; the variant bits of the id keep it from that.
    let span = span.wrapping_add(attempt.into());
    let mut fields = producers.unwrap_or_default().splitn(4, '-');
    match (fields.next(), fields.next(), fields.next(), fields.next()) {
        (Some("00"), Some(trace), Some(_), Some(flags)) => format!("00-{trace}-{span:016x}-{flags}"),
        _ => format!("00-{}-{span:016x}-00", event.0.as_simple()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ObjectGuid;
    use proptest::prelude::*;
    use serde_json::{Map, Value};
    use uuid::Uuid;

    #[test]
    fn an_attempt_continues_the_producers_trace() {
        let event = EventUid(Uuid::from_u128(0x0193_f1a0_7c1e_7d1a_b1f0_3a5c_7e9d_1b2f));
        let delivery = DeliveryId::derive(event, SubscriptionId(Uuid::nil()), Uuid::nil());
        let given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let first = traceparent(Some(given), event, delivery, 1);
        assert!(
            first.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-") && first.ends_with("-01"),
            "{first}"
        );
        assert_eq!(first.len(), 55);
        assert_ne!(first, traceparent(Some(given), event, delivery, 2));
        assert!(traceparent(None, event, delivery, 1).starts_with("00-0193f1a07c1e7d1ab1f03a5c7e9d1b2f-"));
    }

    proptest! {
        #[test]
        fn a_message_is_the_data_and_the_guids_and_nothing_else(
            kind in 0usize..5, bits in 1u128..1 << 120, text in "\\PC{0,40}", space in "[ \n\t]{0,3}", extra: Option<i64>
        ) {
            let kind = EventType::ALL[kind];
            let guid = |n| Some(ObjectGuid(Uuid::from_u128(bits + n)));
            let objects = Objects { packet: guid(1), communication: guid(2), schedule: guid(3), ..Objects::default() };
            let mut data = Map::new();
            if let Some(extra) = extra {
                data.insert("Extra".into(), extra.into());
                data.insert("Text".into(), text.into());
            }
            let json = Value::Object(data.clone()).to_string().replacen('{', &format!("{space}{{{space}"), 1);
            let subscription = SubscriptionId(Uuid::from_u128(bits));
            let body = body(subscription, kind, &objects, &json);
            let unchanged = json.trim_start().strip_prefix('{').unwrap();
            prop_assert!(body.ends_with(unchanged));
            let mut message: Map<String, Value> = serde_json::from_str(&body).unwrap();
            prop_assert_eq!(message.remove("GUID").unwrap(), subscription.to_string());
            for name in &kind.added_fields()[1..] {
                prop_assert!(message.remove(*name).is_some(), "{}", name);
            }
            prop_assert_eq!(message, data);
        }
    }
}
