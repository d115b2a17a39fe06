//! The schemas of subscriptions, made of what `herald_domain` declares of each field.

use herald_domain::subscription::{Absent, Field, OWNER, READ_ONLY, SECRET_KEY, Settings};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::collections::BTreeMap;
use utoipa::openapi::{Ref, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// A name for a schema of [`subscriptions`], and a reference to it wherever utoipa would write the schema out.
macro_rules! placeholder {
    ($(#[$doc:meta] $type:ident)*) => {$(
        #[$doc]
        #[derive(Debug, Serialize)]
        pub(crate) struct $type;

        impl PartialSchema for $type {
            fn schema() -> RefOr<Schema> {
                Ref::from_schema_name(stringify!($type)).into()
            }
        }

        impl ToSchema for $type {
            fn name() -> Cow<'static, str> {
                stringify!($type).into()
            }
        }
    )*};
}

placeholder! {
    /// What to deliver where.
    SubscriptionRequest
    /// Fields of a subscription to change.
    SubscriptionPatch
    /// A subscription.
    Subscription
    /// An object type: its number or its name.
    ObjectTypeInput
}

/// The schemas of subscriptions, and those that they refer to, by their names.
pub(crate) fn subscriptions() -> Map<String, Value> {
    let fields: Vec<&Field> = Settings::fields().collect();
    let patch: Vec<_> = fields.iter().copied().chain([&SECRET_KEY]).collect();
    let request: Vec<_> = patch.iter().copied().chain([&OWNER]).collect();
    let answer: Vec<_> = fields.iter().copied().chain([&OWNER]).chain(&READ_ONLY).collect();
    let mut schemas: Map<String, Value> = fields
        .iter()
        .filter_map(|field| Some((field.named?.to_owned(), (field.schema)())))
        .collect();
    let mut name = |name: &str, schema| schemas.insert(name.to_owned(), schema);
    let mut described = object("What to deliver where.", &request, given, |field| {
        field.absent == Absent::Refused
    });
    described["example"] = json!({
        "Webhook": "PacketCreated", "FilterObjectType": 31, "FilterObjectGUID": "6a1f0f5e-55a5-4f0c-9c39-0d5e2e0c1a01",
        "SubscriberURL": "https://example.com/hooks", "Name": "Starters of Globex",
        "CustomHeader": "X-Route", "CustomHeaderValue": "starters",
    });
    name("SubscriptionRequest", described);
    let about = "Fields of a subscription to change; any of those of a request.";
    let mut described = object(about, &patch, given, |_| false);
    described["example"] = json!({"Active": false, "Retry": {"MaxAttempts": 10}});
    name("SubscriptionPatch", described);
    name("Subscription", object("A subscription.", &answer, shown, |_| true));
    schemas
}

fn object(about: &str, fields: &[&Field], schema: fn(&Field) -> Value, required: fn(&Field) -> bool) -> Value {
    let names: Vec<_> = fields
        .iter()
        .filter(|field| required(field))
        .map(|field| field.name)
        .collect();
    let properties: BTreeMap<_, _> = fields.iter().map(|field| (field.name, schema(field))).collect();
    let mut object = json!({"type": "object", "description": about});
    if !names.is_empty() {
        object["required"] = names.into();
    }
    object["properties"] = json!(properties);
    object
}

/// What a request may give: null is as good as absent.
fn given(field: &Field) -> Value {
    let schema = described(field, (field.schema)());
    if field.absent == Absent::Refused {
        return schema;
    }
    or_null(schema)
}

fn shown(field: &Field) -> Value {
    let schema = match field.shown {
        Some(shown) => with_description(shown(), field.about),
        None => described(field, (field.schema)()),
    };
    if field.absent == Absent::Null {
        return or_null(schema);
    }
    schema
}

/// The schema of a field, or a reference to it, and what the field means.
fn described(field: &Field, schema: Value) -> Value {
    let schema = match field.named {
        Some(name) => json!({"$ref": format!("#/components/schemas/{name}")}),
        None => schema,
    };
    with_description(schema, field.about)
}

fn with_description(mut schema: Value, about: &str) -> Value {
    schema["description"] = about.into();
    schema
}

fn or_null(mut schema: Value) -> Value {
    match schema.get("type") {
        Some(Value::String(kind)) => {
            schema["type"] = json!([kind, "null"]);
            schema
        }
        _ => json!({"oneOf": [schema, {"type": "null"}]}),
    }
}
