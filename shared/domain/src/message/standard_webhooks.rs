//! The payload that the Standard Webhooks specification recommends: `type`, `timestamp` and `data`.

use super::{Envelope, enate};
use crate::catalogue::EventType;
use std::borrow::Cow;

/// The body. `data` is what Enate's format sends for one of Enate's types, and `Data` to the byte for others.
pub(super) fn body(envelope: &Envelope<'_>) -> String {
    let data = match envelope.kind {
        EventType::Enate(_) => Cow::Owned(enate::body(envelope)),
        EventType::Registered(_) => Cow::Borrowed(envelope.data),
    };
    // The name of a type is letters, digits, dots, hyphens and underscores, so that it is JSON as it is.
    let name = envelope.kind.name();
    let at = envelope.occurred_at.unwrap_or(envelope.accepted_at);
    format!(r#"{{"type":"{name}","timestamp":"{at}","data":{data}}}"#)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::EnateEvent;
    use crate::event::Objects;
    use crate::id::ObjectGuid;
    use crate::message::tests::{envelope, registered};
    use crate::time::Timestamp;
    use serde_json::{Value, json};
    use uuid::Uuid;

    #[test]
    fn data_of_a_registered_type_is_what_came_to_the_byte() {
        let kind = registered();
        let data = "{ \"Number\": 1e2,\n \"A\": \"\\u00e4\" }";
        let body = body(&envelope(&kind, &Objects::default(), data));
        let prefix = r#"{"type":"InvoicePaid","timestamp":"1970-01-01T00:00:02Z","data":"#;
        assert_eq!(body, format!("{prefix}{data}}}"));
    }

    #[test]
    fn data_of_enates_types_has_the_guids() {
        let kind = EventType::Enate(EnateEvent::BusinessObjectUpdated);
        let objects = Objects::from([("Company", ObjectGuid(Uuid::from_u128(5)))]);
        let occurred_at = Some(Timestamp::from_micros(1_000_000));
        let envelope = Envelope {
            occurred_at,
            ..envelope(&kind, &objects, r#"{"Name":"Globex"}"#)
        };
        let body: Value = serde_json::from_str(&body(&envelope)).unwrap();
        assert_eq!(body["type"], "BusinessObjectUpdated");
        assert_eq!(body["timestamp"], "1970-01-01T00:00:01Z");
        let data = json!({
            "GUID": envelope.subscription.to_string(), "ObjectGUID": Uuid::from_u128(5).to_string(), "ObjectType": 31,
            "Name": "Globex",
        });
        assert_eq!(body["data"], data);
    }
}
