//! Who may do what: roles, permissions, and the walls between accounts. Rights are live.

use crate::scene::{Scene, id};
use herald_tests::api::text;
use herald_tests::samples::{COMPANY, guid, merged, packet_of, packets_of, quick_retry, subscription};
use herald_tests::wait::wait_for;
use herald_tests::{Answer, PATIENCE};
use serde_json::json;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscribing_needs_the_role_and_a_grant() {
    let Scene {
        herald: _herald,
        api,
        receiver,
        company,
    } = Scene::start().await;
    let body = packets_of(company, &receiver.url("/"));
    let producer = api.account("producer", &["Producer"]).await;
    producer
        .api
        .post("/v1/subscriptions", &body)
        .await
        .problem(403)
        .saying("ProcessBuilder");
    let builder = api.account("builder", &["ProcessBuilder"]).await;
    let _refused = builder.api.post("/v1/subscriptions", &body).await.problem(403);
    api.grant(&builder.id, COMPANY, Some(guid())).await;
    let _refused = builder.api.post("/v1/subscriptions", &body).await.problem(403);
    api.grant(&builder.id, COMPANY, Some(company)).await;
    let made = builder.api.subscribe(&body).await;
    let elsewhere = json!({ "FilterObjectGUID": guid() });
    let _refused = builder.api.patch(&made.path(), &elsewhere).await.problem(403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grant_for_a_type_covers_all_its_objects() {
    let Scene {
        herald: _herald,
        api,
        receiver,
        company,
    } = Scene::start().await;
    let builder = api.account("builder", &["ProcessBuilder"]).await;
    api.grant(&builder.id, COMPANY, None).await;
    builder.api.subscribe(&packets_of(company, &receiver.url("/"))).await;
    builder
        .api
        .subscribe(&subscription(
            "BusinessObjectCreated",
            COMPANY,
            None,
            &receiver.url("/"),
        ))
        .await;
    let schedules = subscription("BusinessObjectCreated", 260, None, &receiver.url("/"));
    let _refused = builder.api.post("/v1/subscriptions", &schedules).await.problem(403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grant_that_is_taken_refuses_what_is_open() {
    let Scene {
        herald,
        api,
        receiver,
        company,
    } = Scene::start().await;
    receiver.script("/", |_| Answer::status(500));
    let builder = api.account("builder", &["ProcessBuilder"]).await;
    api.grant(&builder.id, COMPANY, Some(company)).await;
    let made = builder
        .api
        .subscribe(&merged(packets_of(company, &receiver.url("/")), quick_retry()))
        .await;
    api.publish(&packet_of(company)).await;
    receiver.wait_for("/", 2).await;
    let grant = format!(
        "/v1/accounts/{}/grants?ObjectType={COMPANY}&ObjectGUID={company}",
        builder.id
    );
    let _taken = api.delete(&grant).await.expect(204);
    let delivery = api.delivery_with(made.guid(), "Refused").await;
    assert_eq!(delivery["Reason"], "permission_missing");
    let path = format!("/v1/deliveries/{}/retry", id(&delivery));
    builder
        .api
        .post(&path, &json!({}))
        .await
        .problem(409)
        .saying("permission");
    let before = receiver.requests().len();
    api.publish(&packet_of(company)).await;
    herald.settled(PATIENCE).await;
    assert_eq!(receiver.requests().len(), before, "nothing more is sent");
    receiver.script("/", |_| Answer::ok());
    api.grant(&builder.id, COMPANY, Some(company)).await;
    let _retried = builder.api.post(&path, &json!({})).await.expect(202);
    wait_for("what was refused is delivered", PATIENCE, async || {
        api.delivery(id(&delivery)).await["Status"] == "Delivered"
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_is_taken_refuses_what_is_open() {
    let Scene {
        herald: _herald,
        api,
        receiver,
        company,
    } = Scene::start().await;
    receiver.script("/", |_| Answer::status(500));
    let builder = api.account("builder", &["ProcessBuilder"]).await;
    api.grant(&builder.id, COMPANY, Some(company)).await;
    let made = builder
        .api
        .subscribe(&merged(packets_of(company, &receiver.url("/")), quick_retry()))
        .await;
    api.publish(&packet_of(company)).await;
    receiver.wait_for("/", 1).await;
    let _changed = api
        .patch(
            &format!("/v1/accounts/{}", builder.id),
            &json!({ "Roles": ["Producer"] }),
        )
        .await
        .expect(200);
    let delivery = api.delivery_with(made.guid(), "Refused").await;
    assert_eq!(delivery["Reason"], "role_missing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deactivating_and_deleting_cancel_what_is_open() {
    let scene = Scene::start().await;
    // One that is retried at once and one that waits for an hour: both must be cancelled.
    for (path, retry) in [("/soon", 0.05), ("/late", 3600.0)] {
        scene.receiver.script(path, |_| Answer::status(500));
        let settings = json!({ "Retry": { "InitialSeconds": retry, "Multiplier": 1 } });
        let inactive = scene.subscribe(path, settings.clone()).await;
        let deleted = scene.subscribe(path, settings).await;
        scene.publish().await;
        scene.receiver.wait_for(path, 2).await;
        let _patched = scene
            .api
            .patch(&inactive.path(), &json!({ "Active": false }))
            .await
            .expect(200);
        let _deleted = scene.api.delete(&deleted.path()).await.expect(204);
        let _gone = scene.api.get(&deleted.path()).await.problem(404);
        let delivery = scene.api.delivery_with(inactive.guid(), "Cancelled").await;
        assert_eq!(delivery["Reason"], "subscription_inactive", "{path}");
        let delivery = scene.api.delivery_with(deleted.guid(), "Cancelled").await;
        assert_eq!(delivery["Reason"], "subscription_deleted", "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_delivery_can_be_retried_once_the_subscription_is_active() {
    let scene = Scene::start().await;
    scene.receiver.script("/", |request| {
        Answer::status(if request.repeat == 1 { 500 } else { 200 })
    });
    let made = scene.subscribe("/", json!({})).await;
    scene.publish().await;
    scene.receiver.wait_for("/", 1).await;
    let _patched = scene
        .api
        .patch(&made.path(), &json!({ "Active": false }))
        .await
        .expect(200);
    let delivery = scene.api.delivery_with(made.guid(), "Cancelled").await;
    let _patched = scene
        .api
        .patch(&made.path(), &json!({ "Active": true }))
        .await
        .expect(200);
    let _retried = scene
        .api
        .post(&format!("/v1/deliveries/{}/retry", id(&delivery)), &json!({}))
        .await
        .expect(202);
    scene.api.delivery_with(made.guid(), "Delivered").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accounts_do_not_see_one_another() {
    let Scene {
        herald: _herald,
        api,
        receiver,
        company,
    } = Scene::start().await;
    let producer = api.account("producer", &["Producer"]).await;
    let builder = api.account("builder", &["ProcessBuilder"]).await;
    let stranger = api.account("stranger", &["Producer", "ProcessBuilder"]).await;
    api.grant(&builder.id, COMPANY, Some(company)).await;
    let made = builder.api.subscribe(&packets_of(company, &receiver.url("/"))).await;
    let event = producer.api.publish(&packet_of(company)).await;
    let delivery = api.delivery_with(made.guid(), "Delivered").await;
    let delivery = format!("/v1/deliveries/{}", id(&delivery));
    let event = format!("/v1/events/{event}");
    let own = [
        (&builder.api, made.path()),
        (&builder.api, delivery.clone()),
        (&producer.api, event.clone()),
    ];
    for (caller, path) in own {
        let _seen = caller.get(&path).await.expect(200);
        let _operator = api.get(&path).await.expect(200);
    }
    for path in [made.path(), delivery.clone(), event] {
        let _hidden = stranger.api.get(&path).await.problem(404);
    }
    let change = json!({ "Active": false });
    let _hidden = stranger.api.patch(&made.path(), &change).await.problem(404);
    let _hidden = stranger.api.delete(&made.path()).await.problem(404);
    let _hidden = stranger
        .api
        .post(&format!("{}/rotate-secret", made.path()), &json!({}))
        .await
        .problem(404);
    let _hidden = stranger
        .api
        .post(&format!("{delivery}/retry"), &json!({}))
        .await
        .problem(404);
    for list in ["/v1/subscriptions", "/v1/deliveries", "/v1/dead-letters"] {
        assert!(stranger.api.list(list).await.is_empty(), "{list}");
    }
    let own: Vec<_> = builder.api.list("/v1/subscriptions").await;
    assert_eq!(
        own.iter().map(|one| text(&one["GUID"])).collect::<Vec<_>>(),
        [made.guid()]
    );
    assert_eq!(
        api.get(&made.path()).await.json()["Active"],
        true,
        "nothing was changed"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_key_stops_working_within_a_second() {
    let Scene {
        herald: _herald,
        api,
        company,
        ..
    } = Scene::start().await;
    let producer = api.account("producer", &["Producer"]).await;
    producer.api.publish(&packet_of(company)).await;
    let path = format!("/v1/accounts/{}/keys/{}", producer.id, text(&producer.key["Id"]));
    let _revoked = api.delete(&path).await.expect(204);
    let refused = async || producer.api.post("/v1/events", &packet_of(company)).await.status == 401;
    wait_for("the key is refused", Duration::from_secs(1), refused).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_shown_once() {
    let Scene {
        herald: _herald, api, ..
    } = Scene::start().await;
    let account = api.account("somebody", &["Producer"]).await;
    let secret = text(&account.key["Key"]);
    for path in ["/v1/accounts".to_owned(), format!("/v1/accounts/{}/keys", account.id)] {
        let shown = api.get(&path).await.expect(200);
        assert!(!shown.text().contains(secret), "{path}: {}", shown.text());
    }
    let unknown = json!({ "Name": "x", "Roles": ["Wizard"] });
    let _bad = api.post("/v1/accounts", &unknown).await.problem(400);
}
