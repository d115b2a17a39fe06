//! What is no good request is refused with a problem, never with a framework's own words.

use crate::world::{KEY, World, fault, subscription};
use axum::body::Body;
use axum::http::Request;
use serde_json::json;

async fn create(world: &World, content_type: Option<&str>, body: impl Into<Body>) -> crate::world::Answer {
    let mut request = Request::post("/v1/subscriptions").header("authorization", format!("Bearer {KEY}"));
    if let Some(content_type) = content_type {
        request = request.header("content-type", content_type);
    }
    world.raw(request.body(body.into()).unwrap()).await
}

#[tokio::test]
async fn bodies_must_be_json_of_at_most_a_mebibyte() {
    let world = World::new().await;
    let good = subscription().to_string();
    create(&world, Some("application/json; charset=utf-8"), good.clone())
        .await
        .expect(201);
    for wrong in [None, Some("text/plain"), Some("application/merge-patch+json")] {
        create(&world, wrong, good.clone()).await.problem(415);
    }
    for (malformed, expected) in [
        ("", fault("", "json")),
        ("{", fault("", "json")),
        ("{} {}", fault("", "json")),
        ("\u{feff}{}", fault("", "byte_order_mark")),
        (r#"{"Retry":{},"Name":"\ud800"}"#, fault("/Name", "half_surrogate")),
        (r#"{"\ud800":1}"#, fault("", "half_surrogate")),
    ] {
        let answer = create(&world, Some("application/json"), malformed).await;
        assert_eq!(answer.faults(), [expected], "{malformed}");
    }
    let padding = " ".repeat((1 << 20) - good.len());
    create(&world, Some("application/json"), format!("{good}{padding}"))
        .await
        .expect(201);
    create(&world, Some("application/json"), format!("{good}{padding} "))
        .await
        .problem(413);
}

#[tokio::test]
async fn a_coding_is_not_understood() {
    let world = World::new().await;
    let encoded = |coding: &str| {
        let request = Request::post("/v1/subscriptions").header("authorization", format!("Bearer {KEY}"));
        let request = request
            .header("content-type", "application/json")
            .header("content-encoding", coding);
        request.body(Body::from(subscription().to_string())).unwrap()
    };
    world.raw(encoded("identity")).await.expect(201);
    let answer = world.raw(encoded("gzip")).await;
    assert_eq!(answer.headers.get("accept-encoding").unwrap(), "identity");
    answer.problem(415);
}

#[tokio::test]
async fn a_character_that_one_ledger_could_not_keep_is_refused_by_name() {
    let world = World::new().await;
    let nul = "a\0b";
    let made = world.post(KEY, "/v1/subscriptions", subscription()).await.expect(201);
    let path = format!("/v1/subscriptions/{}", made["GUID"].as_str().unwrap());
    let expected = [fault("/Name", "character")];
    assert_eq!(world.patch(KEY, &path, json!({"Name": nul})).await.faults(), expected);
    assert_eq!(
        world.post(KEY, "/v1/accounts", json!({"Name": nul})).await.faults(),
        expected
    );
    let user = world.user(&["Producer"]).await;
    let keys = format!("/v1/accounts/{}/keys", user.account);
    assert_eq!(world.post(KEY, &keys, json!({"Name": nul})).await.faults(), expected);
}

#[tokio::test]
async fn ten_thousand_faults_are_counted_and_a_hundred_listed() {
    let world = World::new().await;
    let unknown: serde_json::Map<_, _> = (0..10_000).map(|n| (format!("x{n}"), json!(0))).collect();
    for path in ["/v1/subscriptions", "/v1/accounts"] {
        let problem = world.post(KEY, path, json!(unknown)).await.problem(400);
        assert_eq!(problem["errors"].as_array().unwrap().len(), 100);
        let detail = problem["detail"].as_str().unwrap();
        assert!(
            detail.contains("100 are listed") && detail.contains(" more "),
            "{detail}"
        );
    }
}

#[tokio::test]
async fn an_offset_that_the_query_made_a_space_is_read_as_it_was_meant() {
    let world = World::new().await;
    for path in ["/v1/deliveries", "/v1/dead-letters"] {
        for offset in ["+01:00", "%2B01:00", "Z"] {
            let asked = format!("{path}?Since=2026-11-22T05:13:39{offset}&Until=2026-11-23T05:13:39{offset}");
            world.get(KEY, &asked).await.expect(200);
        }
    }
}

#[tokio::test]
async fn merge_patch_has_a_media_type_of_its_own() {
    let world = World::new().await;
    let made = world.post(KEY, "/v1/subscriptions", subscription()).await.expect(201);
    let path = format!("/v1/subscriptions/{}", made["GUID"].as_str().unwrap());
    let patch = |content_type: &str| {
        let request = Request::patch(&path).header("authorization", format!("bearer {KEY}"));
        request
            .header("content-type", content_type)
            .body(Body::from(r#"{"Name":"a"}"#))
            .unwrap()
    };
    world.raw(patch("application/merge-patch+json")).await.expect(200);
    world.raw(patch("application/json")).await.expect(200);
    world.raw(patch("application/json-patch+json")).await.problem(415);
}

#[tokio::test]
async fn unknown_methods_and_bad_queries_are_problems() {
    let world = World::new().await;
    let answer = world.delete(KEY, "/v1/subscriptions").await;
    assert_eq!(answer.headers.get("allow").unwrap(), "GET,HEAD,POST");
    answer.problem(405);
    world.get(KEY, "/v1/subscriptions/%ff").await.problem(404);
    world.get(KEY, "/v1/webhooks/%ff").await.problem(404);
    assert_eq!(
        world.get(KEY, "/v1/deliveries?Limit=-1").await.faults(),
        [fault("/Limit", "range")]
    );
    assert_eq!(
        world.get(KEY, "/v1/deliveries?Li%20mit").await.faults(),
        [fault("/Li mit", "known_parameter")]
    );
    world
        .raw(Request::get("/v1/subscriptions").body(Body::empty()).unwrap())
        .await
        .problem(401);
}
