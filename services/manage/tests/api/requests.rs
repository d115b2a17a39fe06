//! What is no good request is refused with a problem, never with a framework's own words.

use crate::world::{KEY, World, fault, subscription};
use axum::body::Body;
use axum::http::Request;

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
    for malformed in ["", "{", "{} {}", "\u{feff}{}"] {
        assert_eq!(
            create(&world, Some("application/json"), malformed).await.faults(),
            [fault("", "json")],
            "{malformed}"
        );
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
