//! The description of the whole API, put in order for those who generate clients from it.
//!
//! What the macros cannot say is added here: tags and conditions, and the messages that Herald sends. And
//! what they say in a way that generators stumble over is said once: a schema that has a name is referred
//! to, and a body that may be left out is not `null`.

use super::messages;
use crate::api::schemas::subscriptions;
use serde_json::{Map, Value, json};
use std::collections::HashSet;
use utoipa::openapi::OpenApi;

/// What has a tag, and so is changed on condition: see [`crate::api::etag`].
const TAGGED: [&str; 7] = [
    "/v1/subscriptions/{guid}",
    "/v1/accounts/{id}",
    "/v1/accounts/{id}/keys",
    "/v1/accounts/{id}/keys/{keyId}",
    "/v1/accounts/{id}/grants",
    "/v1/event-types/{name}",
    "/v1/object-types/{name}",
];

/// What `PUT` makes, where it is not there: its conditions are [`crate::api::etag::PutConditions`].
const MADE: [&str; 2] = ["/v1/event-types/{name}", "/v1/object-types/{name}"];

/// What changes something that has a tag, without having one.
const ROTATE: &str = "/v1/subscriptions/{guid}/rotate-secret";

const SCHEMAS: &str = "#/components/schemas/";

/// The description of the whole API: this crate's part, and what `others` describe.
pub fn describe(others: OpenApi, version: &str) -> Value {
    let mut description = super::openapi();
    description.merge(others);
    version.clone_into(&mut description.info.version);
    #[expect(clippy::expect_used, reason = "it is made of maps with texts for keys")]
    let mut api = serde_json::to_value(description).expect("invariant: a description is JSON");
    api["servers"] = json!([{"url": "/", "description": "Where this description comes from."}]);
    let (webhooks, schemas) = messages::webhooks();
    api["webhooks"] = webhooks;
    if let Some(named) = api["components"]["schemas"].as_object_mut() {
        named.extend(schemas);
        named.extend(subscriptions());
    }
    add_conditions(&mut api["paths"]);
    leave_out_null_bodies(&mut api["paths"]);
    refer_to_named_schemas(&mut api);
    drop_unused_schemas(&mut api);
    api
}

fn add_conditions(paths: &mut Value) {
    for path in TAGGED.into_iter().chain([ROTATE]) {
        let Some(operations) = paths[path].as_object_mut() else {
            continue;
        };
        for (method, operation) in operations {
            if method == "get" {
                add_parameter(
                    operation,
                    "If-None-Match",
                    "Tags that the client has already: answered with 304 if nothing was changed.",
                );
                operation["responses"]["304"] = json!({"description": "It has one of the tags of If-None-Match."});
                add_etag(operation, "200");
            } else {
                add_parameter(
                    operation,
                    "If-Match",
                    "The ETag of what was read: what was changed since is not changed.",
                );
                let mut unmet = "It has none of the tags of If-Match: it was changed since.".to_owned();
                if method == "put" && MADE.contains(&path) {
                    let only_new =
                        "With * it is only made, and not changed; with tags it is not changed if it has one.";
                    add_parameter(operation, "If-None-Match", only_new);
                    unmet += " Or it is not there, and If-Match is given; or If-None-Match names what is there.";
                }
                let responses = &mut operation["responses"];
                responses["412"] = problem(&unmet);
                if responses.get("400").is_none() {
                    responses["400"] = problem("If-Match has neither * nor tags.");
                }
                if method != "delete" && path != "/v1/accounts/{id}/keys" && path != "/v1/accounts/{id}/grants" {
                    let tagged = ["200", "201"].into_iter();
                    let tagged = tagged.filter(|status| operation["responses"].get(status).is_some());
                    for status in tagged.collect::<Vec<_>>() {
                        add_etag(operation, status);
                    }
                }
            }
        }
    }
    add_etag(&mut paths["/v1/subscriptions"]["post"], "201");
}

fn add_parameter(operation: &mut Value, name: &str, description: &str) {
    let parameter = json!({
        "name": name, "in": "header", "description": description, "required": false, "schema": {"type": "string"},
    });
    if let Some(parameters) = operation["parameters"].as_array_mut() {
        parameters.push(parameter);
    }
}

fn add_etag(operation: &mut Value, status: &str) {
    let header = json!({"description": "Changes with every change.", "schema": {"type": "string"}});
    operation["responses"][status]["headers"]["ETag"] = header;
}

fn problem(description: &str) -> Value {
    let schema = json!({"$ref": format!("{SCHEMAS}Problem")});
    json!({"description": description, "content": {"application/problem+json": {"schema": schema}}})
}

/// A body that may be left out is described as one that may be `null`, which is refused.
fn leave_out_null_bodies(paths: &mut Value) {
    let operations = paths.as_object_mut().into_iter().flat_map(Map::values_mut);
    for operation in operations.filter_map(Value::as_object_mut).flat_map(Map::values_mut) {
        let Some(contents) = operation
            .pointer_mut("/requestBody/content")
            .and_then(Value::as_object_mut)
        else {
            continue;
        };
        let mut optional = false;
        for content in contents.values_mut() {
            let choices = content["schema"]["oneOf"].as_array().cloned().unwrap_or_default();
            let not_null: Vec<Value> = choices.iter().filter(|one| one["type"] != "null").cloned().collect();
            if let ([only], 2) = (not_null.as_slice(), choices.len()) {
                content["schema"] = only.clone();
                optional = true;
            }
        }
        if optional {
            operation["requestBody"]["required"] = false.into();
        }
    }
}

/// Replaces copies of a schema that has a name by a reference to it.
fn refer_to_named_schemas(api: &mut Value) {
    let named = api["components"]["schemas"].as_object().cloned().unwrap_or_default();
    for part in ["paths", "webhooks"] {
        refer(&mut api[part], &named);
    }
    for schema in api["components"]["schemas"]
        .as_object_mut()
        .into_iter()
        .flat_map(Map::values_mut)
    {
        children(schema).for_each(|child| refer(child, &named));
    }
}

fn refer(value: &mut Value, named: &Map<String, Value>) {
    // A copy in a list has no description of its own where the named one has it as its own, and the same.
    let name = named.iter().find(|(_, schema)| *schema == value);
    match name {
        Some((name, _)) if value.is_object() => *value = json!({"$ref": format!("{SCHEMAS}{name}")}),
        _ => children(value).for_each(|child| refer(child, named)),
    }
}

fn children(value: &mut Value) -> Box<dyn Iterator<Item = &mut Value> + '_> {
    match value {
        Value::Object(fields) => Box::new(fields.values_mut()),
        Value::Array(items) => Box::new(items.iter_mut()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Box::new(std::iter::empty()),
    }
}

fn drop_unused_schemas(api: &mut Value) {
    let mut used = HashSet::new();
    let schemas = api["components"]["schemas"].as_object().cloned().unwrap_or_default();
    let mut open = vec![&api["paths"], &api["webhooks"]];
    while let Some(value) = open.pop() {
        match value {
            Value::Object(fields) => {
                let reference = fields.get("$ref").and_then(Value::as_str);
                if let Some(name) = reference.and_then(|reference| reference.strip_prefix(SCHEMAS))
                    && used.insert(name.to_owned())
                {
                    open.extend(schemas.get(name));
                }
                open.extend(fields.values());
            }
            Value::Array(items) => open.extend(items),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    if let Some(schemas) = api["components"]["schemas"].as_object_mut() {
        schemas.retain(|name, _| used.contains(name));
    }
}
