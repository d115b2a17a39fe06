//! Copies of dead deliveries, for others to consume.

use futures_util::future::BoxFuture;
use herald_domain::catalogue::EventType;
use herald_domain::event::Objects;
use herald_domain::id::{DeliveryId, EventId, SubscriptionId};
use herald_domain::time::Timestamp;
use herald_ledger::history::{DeliveryView, EventView};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use std::fmt::Debug;

/// Why a copy was not published.
pub type PublishError = Box<dyn std::error::Error + Send + Sync>;

/// Where copies of dead deliveries go. A copy may come twice, always with the same delivery's id.
pub trait DeadLetters: Debug + Send + Sync {
    /// Publishes one, which tells of an event of that type; done when it is confirmed.
    fn publish(&self, delivery: DeliveryId, kind: EventType, body: Vec<u8>) -> BoxFuture<'_, Result<(), PublishError>>;
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DeadLetter<'a> {
    id: DeliveryId,
    event_id: EventId,
    #[serde(rename = "SubscriptionGUID")]
    subscription: SubscriptionId,
    webhook: &'static str,
    reason: Option<&'a str>,
    attempt_count: i64,
    created_at: Timestamp,
    closed_at: Option<Timestamp>,
    last_status_code: Option<i32>,
    last_error: Option<&'a str>,
    event: Event<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Event<'a> {
    id: EventId,
    r#type: &'a str,
    occurred_at: Option<Timestamp>,
    #[serde(serialize_with = "by_name")]
    objects: &'a Objects,
    data: &'a RawValue,
}

fn by_name<S: Serializer>(objects: &Objects, serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(None)?;
    for (name, guid) in objects.iter() {
        map.serialize_entry(name, &guid)?;
    }
    map.end()
}

/// The copy's body: the delivery as it is, and its event with `Data` to the byte.
pub(crate) fn body(delivery: &DeliveryView, event: &EventView) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(&DeadLetter {
        id: delivery.id,
        event_id: delivery.event_id,
        subscription: delivery.subscription,
        webhook: delivery.webhook.name(),
        reason: delivery.reason.as_deref(),
        attempt_count: delivery.attempts,
        created_at: delivery.created_at,
        closed_at: delivery.closed_at,
        last_status_code: delivery.last_status_code,
        last_error: delivery.last_error.as_deref(),
        event: Event {
            id: event.id,
            r#type: event.kind.name(),
            occurred_at: event.occurred_at,
            objects: &event.objects,
            data: serde_json::from_str(&event.data)?,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use herald_domain::catalogue::{EnateEvent, Webhook};
    use herald_domain::delivery::{Closed, Status};
    use herald_domain::id::{EventUid, ObjectGuid};
    use uuid::Uuid;

    fn views(data: &str) -> (DeliveryView, EventView) {
        let (at, uid, id) = (
            Timestamp::from_micros(1_800_000_000_000_000),
            EventUid(Uuid::from_u128(1)),
            EventId(Uuid::from_u128(2)),
        );
        let delivery = DeliveryView {
            id: DeliveryId(Uuid::from_u128(3)),
            event: uid,
            event_id: id,
            subscription: SubscriptionId(Uuid::from_u128(4)),
            webhook: Webhook::PacketUpdated,
            status: Status::Closed(Closed::Dead),
            reason: Some("gave_up".to_owned()),
            attempts: 7,
            due_at: None,
            created_at: at,
            closed_at: Some(at),
            last_status_code: Some(500),
            last_error: Some("http".to_owned()),
            inline: None,
        };
        let event = EventView {
            uid,
            account: "a".to_owned(),
            id,
            kind: EnateEvent::PacketUpdated.into(),
            occurred_at: None,
            accepted_at: at,
            recorded_at: at,
            objects: Objects::from([("Packet", ObjectGuid(Uuid::from_u128(5)))]),
            data: data.to_owned(),
            matched_count: 1,
            complete: true,
        };
        (delivery, event)
    }

    #[test]
    fn a_copy_says_what_became_of_the_delivery_and_has_its_event_to_the_byte() {
        let (delivery, event) = views(r#"{ "Big":12345678901234567890123,  "B":1.0, "B":2 }"#);
        let body = String::from_utf8(body(&delivery, &event).unwrap()).unwrap();
        let expected = concat!(
            r#"{"Id":"00000000-0000-0000-0000-000000000003","EventId":"00000000-0000-0000-0000-000000000002","#,
            r#""SubscriptionGUID":"00000000-0000-0000-0000-000000000004","Webhook":"PacketUpdated","Reason":"gave_up","#,
            r#""AttemptCount":7,"CreatedAt":"2027-01-15T08:00:00Z","ClosedAt":"2027-01-15T08:00:00Z","#,
            r#""LastStatusCode":500,"LastError":"http","Event":{"Id":"00000000-0000-0000-0000-000000000002","#,
            r#""Type":"PacketUpdated","OccurredAt":null,"Objects":{"Packet":"00000000-0000-0000-0000-000000000005"},"#,
            r#""Data":{ "Big":12345678901234567890123,  "B":1.0, "B":2 }}}"#,
        );
        assert_eq!(body, expected);
    }

    #[test]
    fn data_that_is_no_json_is_an_error() {
        let (delivery, event) = views("{");
        assert!(body(&delivery, &event).is_err());
    }
}
