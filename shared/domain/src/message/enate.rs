//! Enate's messages: the event's `Data` with the GUIDs spliced in front. Of a registered type that is the
//! subscription's GUID alone.

use super::Envelope;
use crate::catalogue::{Added, EventType};
use std::fmt::{self, Write as _};

/// The body. Nothing of `Data`, a JSON object, changes.
pub(super) fn body(envelope: &Envelope<'_>) -> String {
    let data = envelope.data;
    let mut body = String::with_capacity(data.len() + 160);
    let mut add = |name: &str, value: fmt::Arguments<'_>| {
        body.push(if body.is_empty() { '{' } else { ',' });
        // Writing to a String cannot fail.
        let _infallible = write!(body, "\"{name}\":{value}");
    };
    let objects = envelope.objects;
    let added = match envelope.kind {
        EventType::Enate(event) => event.added_fields(),
        EventType::Registered(_) => &[("GUID", Added::Subscription)],
    };
    for (name, added) in added {
        match added {
            Added::Subscription => add(name, format_args!("\"{}\"", envelope.subscription)),
            Added::Object(of) => {
                if let Some(guid) = objects.get(of) {
                    add(name, format_args!("\"{guid}\""));
                }
            }
            Added::BusinessObject => {
                if let Some((_, guid)) = objects.business_object() {
                    add(name, format_args!("\"{guid}\""));
                }
            }
            Added::BusinessObjectType => {
                if let Some((kind, _)) = objects.business_object() {
                    add(name, format_args!("{}", kind.number()));
                }
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
    use crate::catalogue::EnateEvent;
    use crate::event::Objects;
    use crate::id::{ObjectGuid, SubscriptionId};
    use crate::message::tests::{envelope, registered};
    use proptest::prelude::*;
    use serde_json::{Map, Value};
    use uuid::Uuid;

    proptest! {
        #[test]
        fn a_message_is_the_data_and_the_guids_and_nothing_else(
            kind in 0usize..6, bits in 1u128..1 << 120, text in "\\PC{0,40}", space in "[ \n\t]{0,3}", extra: Option<i64>
        ) {
            let enate = EnateEvent::ALL.get(kind).copied();
            let kind = enate.map_or_else(registered, EventType::Enate);
            let guid = |n| ObjectGuid(Uuid::from_u128(bits + n));
            let objects = Objects::from([("Packet", guid(1)), ("Communication", guid(2)), ("Schedule", guid(3))]);
            let mut data = Map::new();
            if let Some(extra) = extra {
                data.insert("Extra".into(), extra.into());
                data.insert("Text".into(), text.into());
            }
            let json = Value::Object(data.clone()).to_string().replacen('{', &format!("{space}{{{space}"), 1);
            let subscription = SubscriptionId(Uuid::from_u128(bits));
            let body = body(&Envelope { subscription, ..envelope(&kind, &objects, &json) });
            let unchanged = json.trim_start().strip_prefix('{').unwrap();
            prop_assert!(body.ends_with(unchanged));
            let mut message: Map<String, Value> = serde_json::from_str(&body).unwrap();
            prop_assert_eq!(message.remove("GUID").unwrap(), subscription.to_string());
            for (name, _) in enate.into_iter().flat_map(|event| &event.added_fields()[1..]) {
                prop_assert!(message.remove(*name).is_some(), "{}", name);
            }
            prop_assert_eq!(message, data);
        }
    }
}
