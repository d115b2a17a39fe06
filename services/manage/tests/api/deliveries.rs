use crate::world::{KEY, World, fault};
use axum::http::Method;
use serde_json::{Value, json};
use uuid::Uuid;

#[tokio::test]
async fn a_dead_delivery_is_explained_and_retried_by_its_owner() {
    let world = World::new().await;
    let (owner, other) = (world.builder().await, world.builder().await);
    let guid = world.subscription(&owner).await;
    let id = Uuid::now_v7();
    let (event, deliveries) = world.publish(&other.account, id, "{}").await;
    let delivery = deliveries[0];
    let path = format!("/v1/deliveries/{}", delivery.id);

    let open = world.get(&owner.key, &path).await.expect(200);
    assert_eq!(
        (&open["Status"], &open["Attempts"], &open["ClosedAt"]),
        (&json!("Open"), &json!([]), &Value::Null)
    );
    world
        .send(&owner.key, Method::POST, &format!("{path}/retry"), None)
        .await
        .problem(409);

    world.kill(event, delivery).await;
    let dead = world.get(&owner.key, &path).await.expect(200);
    assert_eq!(dead["EventId"], id.to_string());
    assert_eq!(dead["SubscriptionGUID"], guid);
    assert_eq!(
        (&dead["Status"], &dead["Reason"], &dead["DueAt"]),
        (&json!("Dead"), &json!("gave_up"), &Value::Null)
    );
    assert_eq!(
        (&dead["AttemptCount"], &dead["LastStatusCode"], &dead["LastError"]),
        (&json!(1), &json!(503), &json!("http"))
    );
    let attempt = &dead["Attempts"][0];
    assert_eq!(
        (&attempt["Number"], &attempt["DurationSeconds"], &attempt["Error"]),
        (&json!(1), &json!(1.5), &json!("http"))
    );
    assert_eq!(attempt["NextDueAt"], Value::Null);
    let dead_letters = world.get(&owner.key, "/v1/dead-letters").await.expect(200);
    assert_eq!(dead_letters["Items"][0]["Id"], delivery.id.to_string());
    assert_eq!(dead_letters["Items"][0]["LastAttempt"], *attempt);

    world.get(&other.key, &path).await.problem(404);
    world
        .send(&other.key, Method::POST, &format!("{path}/retry"), None)
        .await
        .problem(404);
    assert_eq!(
        world.get(&other.key, "/v1/dead-letters").await.expect(200)["Items"],
        json!([])
    );

    let retried = world
        .send(&owner.key, Method::POST, &format!("{path}/retry"), None)
        .await
        .expect(202);
    assert_eq!(
        (&retried["Status"], &retried["AttemptCount"]),
        (&json!("Open"), &json!(1))
    );
    assert_eq!(
        world.get(&owner.key, "/v1/dead-letters").await.expect(200)["Items"],
        json!([])
    );
}

#[tokio::test]
async fn what_would_be_cancelled_is_not_retried() {
    let world = World::new().await;
    let owner = world.builder().await;
    let guid = world.subscription(&owner).await;
    let (event, deliveries) = world.publish(&owner.account, Uuid::now_v7(), "{}").await;
    world.kill(event, deliveries[0]).await;
    let path = format!("/v1/deliveries/{}", deliveries[0].id);
    world
        .delete(&owner.key, &format!("/v1/subscriptions/{guid}"))
        .await
        .expect(204);
    let problem = world
        .send(&owner.key, Method::POST, &format!("{path}/retry"), None)
        .await
        .problem(409);
    assert!(problem["detail"].as_str().unwrap().contains("inactive or deleted"));
    world.get(&owner.key, &path).await.expect(200);
}

#[tokio::test]
async fn lists_filter() {
    let world = World::new().await;
    let owner = world.builder().await;
    let (first, second) = (world.subscription(&owner).await, world.subscription(&owner).await);
    let ids = [Uuid::now_v7(), Uuid::now_v7()];
    let (event, deliveries) = world.publish(&owner.account, ids[0], "{}").await;
    world.publish(&owner.account, ids[1], "{}").await;
    let dead = *deliveries
        .iter()
        .find(|delivery| delivery.subscription.to_string() == first)
        .unwrap();
    world.kill(event, dead).await;
    let count = async |query: &str| {
        let page = world
            .get(&owner.key, &format!("/v1/deliveries?{query}"))
            .await
            .expect(200);
        page["Items"].as_array().unwrap().len()
    };
    assert_eq!(count("").await, 4);
    assert_eq!(count("Status=Dead").await, 1);
    assert_eq!(count("Status=Open&Limit=").await, 3);
    assert_eq!(count("Status=Held").await, 0);
    assert_eq!(count(&format!("Subscription={second}")).await, 2);
    assert_eq!(count(&format!("Event={}", ids[1])).await, 2);
    assert_eq!(count(&format!("Event={}", Uuid::now_v7())).await, 0);
    assert_eq!(count("Since=2026-01-01T00:00:00Z").await, 4);
    assert_eq!(count("Until=2026-01-01T00:00:00Z").await, 0);

    let page = world.get(KEY, "/v1/deliveries?Limit=3").await.expect(200);
    let cursor = page["NextCursor"].as_str().unwrap();
    assert_eq!(cursor, page["Items"][2]["Id"]);
    let rest = world
        .get(KEY, &format!("/v1/deliveries?Limit=3&Cursor={cursor}"))
        .await
        .expect(200);
    assert_eq!(
        (rest["Items"].as_array().unwrap().len(), &rest["NextCursor"]),
        (1, &Value::Null)
    );

    let faults = world
        .get(&owner.key, "/v1/deliveries?Status=dead&Event=x&Since=now&Stat=Dead")
        .await
        .faults();
    assert_eq!(
        faults,
        [
            fault("/Stat", "known_parameter"),
            fault("/Status", "one_of"),
            fault("/Event", "guid"),
            fault("/Since", "date_time"),
        ]
    );
    assert_eq!(
        world.get(KEY, "/v1/dead-letters?Status=Dead").await.faults(),
        [fault("/Status", "known_parameter")]
    );
}

#[tokio::test]
async fn what_ended_without_success_is_retried_for_a_subscription_at_once() {
    let world = World::new().await;
    let owner = world.builder().await;
    let subscription = world.subscription(&owner).await;
    for _ in 0..2 {
        let (event, deliveries) = world.publish(&owner.account, Uuid::now_v7(), "{}").await;
        world.kill(event, deliveries[0]).await;
    }
    let path = format!("/v1/subscriptions/{subscription}/retry");
    let retry = async |body: Value| world.post(&owner.key, &path, body).await;
    let later = json!({"Status": "Dead", "Since": "2999-01-01T00:00:00Z"});
    assert_eq!(retry(later).await.expect(202), json!({"Retried": 0, "More": false}));
    let dead = json!({"Status": "Dead"});
    assert_eq!(
        retry(dead.clone()).await.expect(202),
        json!({"Retried": 2, "More": false})
    );
    assert_eq!(
        retry(dead.clone()).await.expect(202),
        json!({"Retried": 0, "More": false})
    );
    let open = world.get(&owner.key, "/v1/deliveries?Status=Open").await.expect(200);
    assert_eq!(open["Items"].as_array().unwrap().len(), 2);

    let faults = retry(json!({"Status": "Delivered", "Since": 7, "Until": null}))
        .await
        .faults();
    let expected = [
        ("/Until", "known_field"),
        ("/Status", "one_of"),
        ("/Since", "date_time"),
    ];
    assert_eq!(faults, expected.map(|(pointer, rule)| fault(pointer, rule)));
    let stranger = world.builder().await;
    world.post(&stranger.key, &path, dead.clone()).await.problem(404);
    let settings = format!("/v1/subscriptions/{subscription}");
    world
        .patch(&owner.key, &settings, json!({"Active": false}))
        .await
        .expect(200);
    retry(dead).await.problem(409);
}

#[tokio::test]
async fn a_producer_has_no_deliveries() {
    let world = World::new().await;
    let producer = world.user(&["Producer"]).await;
    world.get(&producer.key, "/v1/deliveries").await.problem(403);
    world.get(&producer.key, "/v1/dead-letters").await.problem(403);
    world
        .get(KEY, &format!("/v1/deliveries/{}", Uuid::now_v7()))
        .await
        .problem(404);
    world
        .send(
            KEY,
            Method::POST,
            &format!("/v1/deliveries/{}/retry", Uuid::now_v7()),
            None,
        )
        .await
        .problem(404);
}
