//! The description that `/openapi.json` is made of.

use crate::world::{KEY, World};
use axum::http::Method;
use herald_manage::describe;
use serde_json::{Value, json};
use std::collections::HashSet;
use utoipa::openapi::{InfoBuilder, OpenApi, Paths};

/// Without what ingest describes, which is not known here.
fn described() -> Value {
    let others = OpenApi::new(InfoBuilder::new().build(), Paths::new());
    describe(others, "1")
}

#[test]
fn the_description_is_this_one() {
    insta::assert_json_snapshot!("openapi", described(), { ".info.version" => "[version]" });
}

#[test]
fn every_operation_has_a_name_of_its_own() {
    let description = described();
    let paths = description["paths"].as_object().unwrap().values();
    let operations: Vec<&Value> = paths.flat_map(|path| path.as_object().unwrap().values()).collect();
    let names: HashSet<_> = operations
        .iter()
        .map(|operation| operation["operationId"].as_str().unwrap())
        .collect();
    assert_eq!(names.len(), operations.len());
}

#[tokio::test]
async fn every_described_route_is_there() {
    let world = World::new().await;
    let description = described();
    for (path, operations) in description["paths"].as_object().unwrap() {
        for method in operations.as_object().unwrap().keys() {
            let method: Method = method.to_uppercase().parse().unwrap();
            let answer = world
                .send("herald_unknown", method.clone(), &path.replace(['{', '}'], ""), None)
                .await;
            assert_eq!(answer.status, 401, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn what_is_answered_has_the_described_fields() {
    let world = World::new().await;
    let made = world
        .post(KEY, "/v1/subscriptions", crate::world::subscription())
        .await
        .expect(201);
    let description = described();
    let names = |schema: &Value| -> Vec<String> { schema["properties"].as_object().unwrap().keys().cloned().collect() };
    let schemas = &description["components"]["schemas"];
    let mut described = names(&schemas["Subscription"]);
    described.extend(["SecretKey".to_owned(), "SigningSecret".to_owned()]);
    described.sort_unstable();
    let mut answered: Vec<String> = made.as_object().unwrap().keys().cloned().collect();
    answered.sort_unstable();
    assert_eq!(answered, described);
}

#[test]
fn what_has_a_name_is_referred_to_and_nothing_is_described_in_vain() {
    let description = described();
    let schemas = description["components"]["schemas"].as_object().unwrap();
    let text = description.to_string();
    for (name, schema) in schemas {
        let reference = format!("\"#/components/schemas/{name}\"");
        assert!(text.contains(&reference), "{name} is not used");
        if let Some(of) = name.strip_prefix("List_") {
            let items = &schema["properties"]["Items"]["items"];
            assert_eq!(items["$ref"], format!("#/components/schemas/{of}"));
        }
    }
    assert!(!text.contains(r##""oneOf":[{"$ref":"#/components/schemas/NewSecret"},{"type":"null"}]"##));
    let rotate = &description["paths"]["/v1/subscriptions/{guid}/rotate-secret"]["post"]["requestBody"];
    assert_eq!(rotate["required"], false);
    assert_eq!(
        rotate["content"]["application/json"]["schema"]["$ref"],
        "#/components/schemas/NewSecret"
    );
}

#[test]
fn names_are_enumerated_and_a_patch_has_one_media_type() {
    let description = described();
    let schemas = &description["components"]["schemas"];
    for (schema, property, of) in [
        ("Subscription", "Webhook", "Webhook"),
        ("Delivery", "Status", "DeliveryStatus"),
        ("Subscription", "Format", "Format"),
    ] {
        assert_eq!(
            schemas[schema]["properties"][property]["$ref"],
            format!("#/components/schemas/{of}")
        );
    }
    assert_eq!(
        schemas["Account"]["properties"]["Roles"]["items"]["$ref"],
        "#/components/schemas/Role"
    );
    let error = schemas["Attempt"]["properties"]["Error"].to_string();
    assert!(error.contains("#/components/schemas/AttemptError"), "{error}");
    assert_eq!(
        schemas["Role"]["enum"],
        json!(["Producer", "ProcessBuilder", "Operator"])
    );
    for path in ["/v1/subscriptions/{guid}", "/v1/accounts/{id}"] {
        let content = &description["paths"][path]["patch"]["requestBody"]["content"];
        let types: Vec<_> = content.as_object().unwrap().keys().collect();
        assert_eq!(types, ["application/merge-patch+json"], "{path}");
    }
}

#[test]
fn each_webhook_is_described_as_it_is_sent() {
    let description = described();
    let webhooks = description["webhooks"].as_object().unwrap();
    assert_eq!(webhooks.len(), 6);
    for (name, webhook) in webhooks {
        let receive = &webhook["post"];
        let content = &receive["requestBody"]["content"]["application/json"];
        let schema = content["schema"]["$ref"].as_str().unwrap();
        let schema = description.pointer(schema.strip_prefix('#').unwrap()).unwrap();
        let example = content["example"].as_object().unwrap();
        for field in schema["required"].as_array().unwrap() {
            assert!(example.contains_key(field.as_str().unwrap()), "{name}: {field}");
        }
        let headers: Vec<_> = receive["parameters"]
            .as_array()
            .unwrap()
            .iter()
            .map(|header| header["name"].as_str().unwrap())
            .collect();
        assert!(headers.contains(&"webhook-signature") && headers.contains(&"Webhook-GUID"));
    }
}
