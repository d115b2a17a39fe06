//! CloudEvents over HTTP, in and out, against the CloudEvents project's own SDK.

use crate::scene::Scene;
use herald_tests::api::{Reply, text};
use herald_tests::cloud_events::{make, read};
use herald_tests::samples::{guid, merged};
use herald_tests::{PATIENCE, wait_until};
use http::Method;
use serde_json::{Value, json};

async fn publish(scene: &Scene, mode: &'static str, attributes: &Value, data: &Value) -> Reply {
    let (attributes, data) = (attributes.clone(), data.clone());
    let made = tokio::task::spawn_blocking(move || make(mode, &attributes, &data))
        .await
        .expect("the SDK's event");
    // The same source and id are the same event, so it may be sent again after a 503.
    wait_until("the CloudEvent is answered", PATIENCE, async || {
        let mut request = scene.api.request(Method::POST, "/v1/events");
        for (name, value) in &made.headers {
            request = request.header(name, text(value));
        }
        let reply = Reply::of(request.body(made.body.clone())).await.expect("an answer");
        (reply.status != 503).then_some(reply)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_sdk_sends_is_accepted_and_what_is_sent_the_sdk_reads() {
    let scene = Scene::start().await;
    let (kind, company) = (format!("Invoice{}", guid().simple()), guid());
    let path = format!("/v1/event-types/{kind}");
    let _made = scene
        .api
        .send(Method::PUT, &path, &json!({ "Objects": ["Company"] }))
        .await
        .expect(201);
    let mut subscriptions = Vec::new();
    for (path, format) in [("/structured", "CloudEvents"), ("/binary", "CloudEventsBinary")] {
        let to = json!({ "SubscriberURL": scene.receiver.url(path), "Format": format });
        let what = json!({ "EventTypes": [kind], "FilterObjectType": "Company", "FilterObjectGUID": company });
        subscriptions.push((path, scene.api.subscribe(&merged(what, to)).await));
    }

    let data = json!({ "Number": "7", "Text": "R&D \u{e4}\u{1f600}" });
    let attributes = |id: &str, company: &Value| {
        json!({
            "type": kind, "source": "https://example.com/invoices", "id": id, "time": "2026-11-28T10:00:00Z",
            "company": company, "subject": "paid in full",
        })
    };
    let mut ids = Vec::new();
    for mode in ["structured", "binary"] {
        let reply = publish(&scene, mode, &attributes(mode, &json!(company)), &data)
            .await
            .expect(202);
        ids.push(text(&reply.json()["Id"]).to_owned());
    }
    // The same source and id are the same event.
    let again = publish(&scene, "binary", &attributes("structured", &json!(company)), &data)
        .await
        .expect(202);
    assert_eq!(text(&again.json()["Id"]), ids[0]);
    for mode in ["structured", "binary"] {
        let refused = publish(&scene, mode, &attributes("c", &json!("Globex")), &data).await;
        let _refused = refused.problem(400).naming("/company", "guid");
    }

    for (path, subscription) in &subscriptions {
        let requests = scene.receiver.wait_for(path, 2).await;
        let mut arrived = Vec::new();
        for request in requests {
            assert!(request.verifies_with(subscription.signing_secret()));
            let id = request.event_id().to_owned();
            let (attributes, read) = tokio::task::spawn_blocking(move || read(&request)).await.unwrap();
            assert_eq!(read, data);
            let expected = json!({
                "specversion": "1.0", "id": id, "source": "urn:herald", "type": kind, "time": "2026-11-28T10:00:00Z",
                "subject": format!("Company/{company}"), "company": company,
            });
            let mut attributes = attributes;
            let content_type = attributes.as_object_mut().unwrap().remove("datacontenttype");
            assert!(content_type.is_none_or(|given| given == "application/json"));
            assert_eq!(attributes, expected, "{path}");
            arrived.push(id);
        }
        arrived.sort_unstable();
        let mut published = ids.clone();
        published.sort_unstable();
        assert_eq!(arrived, published);
    }

    let one = json!({ "specversion": "1.0", "id": "d", "source": "a", "type": kind, "company": company, "data": {} });
    let both =
        json!([one, { "specversion": "0.3", "id": "e", "source": "a", "type": kind, "company": company, "data": {} }]);
    let batch = "application/cloudevents-batch+json";
    let refused = scene.api.post_raw("/v1/events", batch, both.to_string()).await;
    let _refused = refused.problem(400).naming("/1/specversion", "one_of");
    let accepted = scene.api.publish_raw(batch, &json!([one]).to_string()).await;
    assert_eq!(accepted.json()["Ids"].as_array().map(Vec::len), Some(1));
    let _refused = scene
        .api
        .post_raw("/v1/events", "application/cloudevents+avro", "x")
        .await
        .problem(415);
}
