//! The bytes of a message: the event's `Data` with the GUIDs spliced in front.

use crate::catalogue::EventType;
use crate::event::Objects;
use crate::id::SubscriptionId;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ObjectGuid;
    use proptest::prelude::*;
    use serde_json::{Map, Value};
    use uuid::Uuid;

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
