//! The messages that Herald sends, as the section `webhooks` of `/openapi.json`.

use crate::api::webhooks::{HEADERS, MessageField, MessageHeader, all, describe};
use herald_domain::catalogue::EnateEvent;
use serde_json::{Map, Value, json};

/// What is sent for each webhook, and the schemas of the messages.
pub(crate) fn webhooks() -> (Value, Map<String, Value>) {
    let (mut webhooks, mut schemas) = (Map::new(), Map::new());
    for (webhook, event) in all() {
        // An example is JSON text that this crate has made.
        let Ok(description) = describe(webhook, event) else {
            continue;
        };
        let name = schema_name(event);
        schemas
            .entry(name)
            .or_insert_with(|| schema(name, &description.message));
        let body = json!({"schema": {"$ref": format!("#/components/schemas/{name}")}, "example": description.example});
        let receive = json!({
            "tags": ["Webhooks"],
            "operationId": format!("receive_{}", snake_case(webhook.name())),
            "summary": webhook.name(),
            "description": description.description,
            "security": [],
            "parameters": parameters(),
            "requestBody": {"required": true, "content": {"application/json": body}},
            "responses": {
                "2XX": {"description": "Delivered. The body is not read."},
                "410": {"description": "Not wanted any more: the subscription is deactivated."},
                "429": {"description": "Sent again after Retry-After, and less at a time."},
                "default": {"description": "Sent again later, until the subscription's Retry gives up."},
            },
        });
        webhooks.insert(webhook.name().to_owned(), json!({"post": receive}));
    }
    (Value::Object(webhooks), schemas)
}

const fn schema_name(kind: EnateEvent) -> &'static str {
    match kind {
        EnateEvent::PacketCreated | EnateEvent::PacketUpdated => "PacketMessage",
        EnateEvent::NewCommunication => "CommunicationMessage",
        EnateEvent::BusinessObjectCreated | EnateEvent::BusinessObjectUpdated => "BusinessObjectMessage",
    }
}

fn schema(name: &str, fields: &[MessageField]) -> Value {
    let required: Vec<_> = fields
        .iter()
        .filter(|field| field.required)
        .map(|field| field.name)
        .collect();
    let properties: Map<_, _> = fields
        .iter()
        .map(|field| (field.name.to_owned(), property(field)))
        .collect();
    json!({
        "type": "object",
        "description": format!("What is sent: a {name}. A producer may add further fields."),
        "required": required,
        "properties": properties,
    })
}

fn property(field: &MessageField) -> Value {
    let (kind, format) = match field.r#type {
        "integer" => ("integer", None),
        "guid" => ("string", Some("uuid")),
        "date-time" => ("string", Some("date-time")),
        _ => ("string", None),
    };
    let mut property = json!({"type": kind});
    if let Some(format) = format {
        property["format"] = format.into();
    }
    if let Some(values) = &field.values {
        let named: Vec<_> = values.iter().map(|(code, name)| format!("{code} {name}")).collect();
        property["description"] = named.join(", ").into();
        property["enum"] = values.keys().copied().collect();
    }
    if field.required {
        property
    } else {
        json!({"oneOf": [property, {"type": "null"}]})
    }
}

/// The headers of a message; those that OpenAPI has another place for, or that bear another name, are left
/// out.
fn parameters() -> Vec<Value> {
    let described = |header: &MessageHeader| {
        json!({
            "name": header.name, "in": "header", "required": true, "description": header.description,
            "schema": {"type": "string"},
        })
    };
    let own = |header: &&MessageHeader| header.name != "content-type" && !header.name.starts_with('(');
    HEADERS.iter().filter(own).map(described).collect()
}

fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}
