//! The catalogue: which webhooks there are and what their messages look like.

use crate::api::paging::List;
use crate::api::path::{Addressed, At};
use crate::api::refusals::{Missing, SharedAnswers};
use crate::api::schemas::{EventTypeName, WebhookName};
use axum::Json;
use herald_access::Caller;
use herald_access::problem::Problem;
use herald_domain::catalogue::{EnateEvent, Field, FieldKind, ObjectRule, ObjectType, Webhook};
use herald_domain::id::{EventId, ObjectGuid, SubscriptionId};
use herald_domain::message::{Envelope, Format, Shown, Source};
use herald_domain::time::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::str::FromStr;
use utoipa::ToSchema;
use uuid::{Uuid, uuid};

/// A kind of subscription.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct WebhookDescription {
    /// The name, as in a subscription's `Webhook`.
    #[schema(value_type = WebhookName)]
    webhook: &'static str,
    /// When it fires.
    pub(crate) description: &'static str,
    /// The `Type` of the events that it fires for.
    #[schema(value_type = EventTypeName)]
    event_type: &'static str,
    /// What `FilterObjectType` may be.
    filter_object_types: Vec<FilterObjectType>,
    /// Whether a subscription's `FilterObjectGUID` is `required` or to be left `empty`.
    #[serde(rename = "FilterObjectGUID")]
    #[schema(example = "required")]
    filter_object_guid: &'static str,
    /// The headers of a message.
    pub(crate) headers: Vec<MessageHeader>,
    /// The fields of a message, in order. A producer may send further ones, which pass through.
    pub(crate) message: Vec<MessageField>,
    /// A message.
    #[schema(value_type = Object)]
    pub(crate) example: Box<RawValue>,
}

/// An object type of a filter.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct FilterObjectType {
    #[schema(example = 31)]
    number: i16,
    #[schema(example = "Company")]
    name: &'static str,
}

/// A header of a message.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct MessageHeader {
    #[schema(example = "webhook-id")]
    pub(crate) name: &'static str,
    pub(crate) description: &'static str,
}

/// A field of a message.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct MessageField {
    #[schema(example = "Status")]
    pub(crate) name: &'static str,
    /// `text`, `integer`, `date-time` (RFC 3339) or `guid`.
    #[schema(example = "integer")]
    pub(crate) r#type: &'static str,
    /// Always there and not null; others may be absent or null.
    pub(crate) required: bool,
    /// Where it is one of some numbers: each with what it means. Null otherwise.
    #[schema(required, value_type = Option<Object>, example = json!({"0": "Draft", "1": "ToDo"}))]
    pub(crate) values: Option<BTreeMap<i64, &'static str>>,
    /// Not part of the event's `Data`; Herald adds it.
    added_by_herald: bool,
}

/// The name of a webhook in a path; the alias that `Webhook` accepts included.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Named(Webhook, EnateEvent);

impl FromStr for Named {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        Webhook::named(name)
            .and_then(|webhook| Some(Self(webhook, webhook.event_type()?)))
            .ok_or(())
    }
}

impl Addressed for Named {
    const PARAMETER: &str = "name";
    const WHAT: &str = "webhook";
}

/// List webhooks
///
/// The kinds of subscription that there are, all on one page.
#[utoipa::path(
    get, path = "/v1/webhooks", operation_id = "list_webhooks", tag = "Webhooks", security(("key" = [])),
    responses((status = 200, description = "Every webhook.", body = List<WebhookDescription>), SharedAnswers),
)]
pub(crate) async fn list(_caller: Caller) -> Result<Json<List<WebhookDescription>>, Problem> {
    let items = all().map(|(webhook, event)| describe(webhook, event));
    let items = items.collect::<Result<_, _>>()?;
    Ok(Json(List::whole(items)))
}

/// Look at a webhook
#[utoipa::path(
    get, path = "/v1/webhooks/{name}", operation_id = "get_webhook", tag = "Webhooks", security(("key" = [])),
    params(("name" = String, Path, description = "The webhook's name.", example = "PacketCreated")),
    responses((status = 200, description = "The webhook.", body = WebhookDescription), SharedAnswers, Missing),
)]
pub(crate) async fn show(
    _caller: Caller,
    At(Named(webhook, event)): At<Named>,
) -> Result<Json<WebhookDescription>, Problem> {
    describe(webhook, event).map(Json)
}

/// Enate's webhooks, each with the events that it fires for.
pub(crate) fn all() -> impl Iterator<Item = (Webhook, EnateEvent)> {
    let with_event = |webhook: Webhook| Some((webhook, webhook.event_type()?));
    Webhook::ENATE.into_iter().filter_map(with_event)
}

pub(crate) fn describe(webhook: Webhook, kind: EnateEvent) -> Result<WebhookDescription, Problem> {
    let types = webhook.filter_types().iter();
    let added = kind.added_fields().iter().map(|(name, _)| added_field(name));
    let example = RawValue::from_string(example(kind));
    Ok(WebhookDescription {
        webhook: webhook.name(),
        description: webhook.description(),
        event_type: kind.name(),
        filter_object_types: types
            .map(|kind| FilterObjectType {
                number: kind.number(),
                name: kind.enate_name().unwrap_or_default(),
            })
            .collect(),
        filter_object_guid: if webhook.filters_by_guid() { "required" } else { "empty" },
        headers: HEADERS.to_vec(),
        message: added.chain(kind.fields().iter().map(field)).collect(),
        example: example.map_err(|error| Problem::unavailable("catalogue", &error))?,
    })
}

fn field(field: &Field) -> MessageField {
    let (r#type, values) = match field.kind {
        FieldKind::Text => ("text", None),
        FieldKind::Code(codes) => ("integer", Some(codes.iter().copied().collect())),
        FieldKind::Count => ("integer", None),
        FieldKind::DateTime => ("date-time", None),
    };
    MessageField {
        name: field.name,
        r#type,
        required: field.required,
        values,
        added_by_herald: false,
    }
}

fn added_field(name: &'static str) -> MessageField {
    let (r#type, values) = if name == "ObjectType" {
        let kinds = ObjectType::ENATE.into_iter();
        let business = kinds.filter(|(kind, _)| [ObjectType::COMPANY, ObjectType::SCHEDULE].contains(kind));
        let values = business.map(|(kind, name)| (i64::from(kind.number()), name));
        ("integer", Some(values.collect()))
    } else {
        ("guid", None)
    };
    MessageField {
        name,
        r#type,
        required: true,
        values,
        added_by_herald: true,
    }
}

/// A message as it would be sent, made by what makes the real ones.
fn example(event: EnateEvent) -> String {
    let known = [
        ("Packet", PACKET),
        ("Communication", COMMUNICATION),
        ("Schedule", SCHEDULE),
    ];
    let named = |name: &str| match event.objects() {
        ObjectRule::All(names) => names.contains(&name),
        ObjectRule::ExactlyOne(_) => name == "Schedule",
    };
    let objects = known.into_iter().filter(|(name, _)| named(name));
    let at = Timestamp::from_micros(0);
    let envelope = Envelope {
        subscription: SubscriptionId(SUBSCRIPTION),
        event: EventId(Uuid::nil()),
        source: &Source::default(),
        kind: &event.into(),
        objects: &objects.map(|(name, guid)| (name, ObjectGuid(guid))).collect(),
        data: event.example(),
        occurred_at: None,
        accepted_at: at,
        sequence: None,
        fields: Shown::All,
    };
    Format::Enate.compose(&envelope).body
}

const SUBSCRIPTION: Uuid = uuid!("0193f1a0-7c1e-7d1a-b1f0-3a5c7e9d1b2f");
const PACKET: Uuid = uuid!("6a1f0f5e-55a5-4f0c-9c39-0d5e2e0c1a05");
const COMMUNICATION: Uuid = uuid!("6a1f0f5e-55a5-4f0c-9c39-0d5e2e0c1a07");
const SCHEDULE: Uuid = uuid!("6a1f0f5e-55a5-4f0c-9c39-0d5e2e0c1a06");

const fn header(name: &'static str, description: &'static str) -> MessageHeader {
    MessageHeader { name, description }
}

pub(crate) const HEADERS: [MessageHeader; 11] = [
    header("content-type", "application/json"),
    header(
        "webhook-id",
        "The delivery's id, the same at every attempt: whoever has seen it has the message already.",
    ),
    header("webhook-timestamp", "When this attempt was made, in Unix seconds."),
    header(
        "webhook-signature",
        "Standard Webhooks: v1, and base64 of HMAC-SHA256 over id.timestamp.body; where Signatures has v1a, behind it \
         v1a, and base64 of Ed25519 over the same.",
    ),
    header("Webhook-GUID", "The subscription's GUID."),
    header("Webhook-Type", "The subscription's Webhook."),
    header("Webhook-Event-Id", "The event's Id."),
    header("Webhook-Attempt", "The attempt's number, from 1."),
    header("traceparent", "W3C Trace Context."),
    header("user-agent", "Herald/<version>"),
    header(
        "(CustomHeader)",
        "The subscription's CustomHeader with its CustomHeaderValue, where it has one.",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use herald_domain::catalogue::Catalogue;
    use herald_domain::event;
    use serde_json::{Value, json};

    #[test]
    fn examples_are_messages_of_valid_events_and_have_every_field() {
        for (webhook, event_type) in all() {
            let described = serde_json::to_value(describe(webhook, event_type).unwrap()).unwrap();
            let names: Vec<&Value> = described["Message"]
                .as_array()
                .unwrap()
                .iter()
                .map(|field| &field["Name"])
                .collect();
            let example = described["Example"].as_object().unwrap();
            assert_eq!(names.len(), example.len(), "{webhook:?}");
            assert!(
                names.iter().all(|name| example.contains_key(name.as_str().unwrap())),
                "{webhook:?}"
            );

            let data: Value = serde_json::from_str(event_type.example()).unwrap();
            let objects = match event_type {
                EnateEvent::BusinessObjectCreated | EnateEvent::BusinessObjectUpdated => {
                    json!({"Schedule": SCHEDULE.to_string()})
                }
                _ => json!({"Packet": PACKET.to_string(), "Communication": COMMUNICATION.to_string()}),
            };
            let event = json!({"Type": event_type.name(), "Objects": objects, "Data": data});
            assert!(
                event::parse(&event.to_string(), &Catalogue::default()).is_ok(),
                "{webhook:?}"
            );
        }
    }
}
