//! The description that `/openapi.json` is made of.

use crate::world::{KEY, World};
use axum::http::Method;
use herald_manage::openapi;
use serde_json::Value;
use std::collections::HashSet;

#[test]
fn the_description_is_this_one() {
    insta::assert_json_snapshot!("openapi", openapi(), { ".info.version" => "[version]" });
}

#[test]
fn every_operation_has_a_name_of_its_own() {
    let description = serde_json::to_value(openapi()).unwrap();
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
    let description = serde_json::to_value(openapi()).unwrap();
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
    let description = serde_json::to_value(openapi()).unwrap();
    let names = |schema: &Value| -> Vec<String> { schema["properties"].as_object().unwrap().keys().cloned().collect() };
    let schemas = &description["components"]["schemas"];
    let mut described = names(&schemas["Subscription"]);
    described.extend(["SecretKey".to_owned(), "SigningSecret".to_owned()]);
    described.sort_unstable();
    let mut answered: Vec<String> = made.as_object().unwrap().keys().cloned().collect();
    answered.sort_unstable();
    assert_eq!(answered, described);
}
