use crate::world::{COMPANY, KEY, World};
use herald_ledger::rejected::Rejected;
use serde_json::{Value, json};
use uuid::Uuid;

#[tokio::test]
async fn an_event_is_shown_to_its_account_with_its_data_to_the_byte() {
    let world = World::new().await;
    let (producer, owner) = (world.user(&["Producer"]).await, world.builder().await);
    let guid = world.subscription(&owner).await;
    let id = Uuid::now_v7();
    world.publish(&producer.account, id, r#"{ "B":1.50, "A": "ä" }"#).await;
    let path = format!("/v1/events/{}", id.to_string().to_uppercase());

    let answer = world.get(&producer.key, &path).await;
    assert!(
        answer.text.contains(r#""Data":{ "B":1.50, "A": "ä" }"#),
        "{}",
        answer.text
    );
    let event = answer.expect(200);
    assert_eq!(
        (&event["Id"], &event["Account"]),
        (&json!(id.to_string()), &json!(producer.account))
    );
    assert_eq!(
        (&event["Type"], &event["OccurredAt"]),
        (&json!("PacketCreated"), &Value::Null)
    );
    assert_eq!(event["Objects"], json!({"Company": COMPANY, "Packet": COMPANY}));
    assert_eq!(event["MatchedCount"], 1);
    assert!(event.get("Others").is_none());
    // Whose subscription it matched is not the producer's business.
    assert_eq!(event["Deliveries"], json!([]));

    let problem = world.get(&owner.key, &path).await.problem(404);
    assert!(problem["detail"].as_str().unwrap().contains("queue"));
    let event = world.get(KEY, &path).await.expect(200);
    assert_eq!(event["Deliveries"][0]["SubscriptionGUID"], guid);
    assert_eq!(event["Deliveries"][0]["Status"], "Open");
    let listed = world
        .get(&owner.key, &format!("/v1/deliveries?Event={id}"))
        .await
        .expect(200);
    assert_eq!(listed["Items"], event["Deliveries"]);
}

#[tokio::test]
async fn what_an_earlier_version_accepted_is_shown_as_it_came() {
    let world = World::new().await;
    let producer = world.user(&["Producer"]).await;
    let id = Uuid::now_v7();
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    let data = format!(r#"{{"A":"\ud83d","Deep":{deep}}}"#);
    world.publish(&producer.account, id, &data).await;
    let answer = world.get(&producer.key, &format!("/v1/events/{id}")).await;
    assert_eq!(answer.status.as_u16(), 200, "{}", answer.text);
    assert!(answer.text.contains(&format!("\"Data\":{data}")), "{}", answer.text);
}

#[tokio::test]
async fn an_operator_sees_every_account_that_used_the_id() {
    let world = World::new().await;
    let (a, b) = (world.user(&["Producer"]).await, world.user(&["Producer"]).await);
    let id = Uuid::now_v7();
    world.publish(&a.account, id, r#"{"From":"a"}"#).await;
    world.publish(&b.account, id, r#"{"From":"b"}"#).await;
    let path = format!("/v1/events/{id}");
    let event = world.get(KEY, &path).await.expect(200);
    assert_eq!(
        (&event["Data"]["From"], &event["Others"][0]["Data"]["From"]),
        (&json!("b"), &json!("a"))
    );
    assert_eq!(world.get(&a.key, &path).await.expect(200)["Data"]["From"], "a");
    world
        .get(KEY, &format!("/v1/events/{}", Uuid::now_v7()))
        .await
        .problem(404);
    world.get(KEY, "/v1/events/x").await.problem(404);
}

#[tokio::test]
async fn rejected_messages_are_shown_to_their_account() {
    let world = World::new().await;
    let (a, b) = (world.user(&["Producer"]).await, world.user(&["Producer"]).await);
    let reject = async |account: &str, body: Vec<u8>| {
        let faults = r#"[{"pointer":"","rule":"json","detail":"not JSON"}]"#.to_owned();
        world
            .ledger
            .reject(
                Uuid::now_v7(),
                Rejected {
                    account: account.into(),
                    faults,
                    body_bytes: body.len(),
                    body,
                },
            )
            .await
            .unwrap();
    };
    reject(&a.account, b"{\"Id\":".to_vec()).await;
    reject(&a.account, vec![0xff, 0xfe]).await;
    reject("amqp", b"x".to_vec()).await;

    let mine = world.get(&a.key, "/v1/rejected-events").await.expect(200);
    let items = mine["Items"].as_array().unwrap();
    assert_eq!((items.len(), &mine["NextCursor"]), (2, &Value::Null));
    assert_eq!((&items[0]["BodyBase64"], items[0].get("Body")), (&json!("//4="), None));
    assert_eq!(
        (&items[1]["Body"], &items[1]["BodyBytes"]),
        (&json!("{\"Id\":"), &json!(6))
    );
    assert_eq!(
        (&items[1]["Errors"][0]["rule"], &items[1]["Account"]),
        (&json!("json"), &json!(a.account))
    );
    assert_eq!(
        world.get(&b.key, "/v1/rejected-events").await.expect(200)["Items"],
        json!([])
    );

    let all = world.get(KEY, "/v1/rejected-events?Limit=2").await.expect(200);
    assert_eq!(all["Items"][0]["Account"], "amqp");
    let cursor = all["NextCursor"].as_str().unwrap();
    let rest = world
        .get(KEY, &format!("/v1/rejected-events?Limit=2&Cursor={cursor}"))
        .await
        .expect(200);
    assert_eq!(
        (rest["Items"].as_array().unwrap().len(), &rest["NextCursor"]),
        (1, &Value::Null)
    );
}

#[tokio::test]
async fn a_page_of_large_rejected_messages_ends_early_and_goes_on() {
    let world = World::new().await;
    for _ in 0..20 {
        let rejected = Rejected {
            account: "amqp".into(),
            faults: "[]".to_owned(),
            body: vec![b'x'; 1 << 20],
            body_bytes: 1 << 20,
        };
        world.ledger.reject(Uuid::now_v7(), rejected).await.unwrap();
    }
    let (mut pages, mut seen) = (0, 0);
    let mut path = "/v1/rejected-events".to_owned();
    loop {
        let page = world.get(KEY, &path).await.expect(200);
        pages += 1;
        seen += page["Items"].as_array().unwrap().len();
        let Some(cursor) = page["NextCursor"].as_str() else {
            break;
        };
        path = format!("/v1/rejected-events?Cursor={cursor}");
    }
    assert_eq!((pages, seen), (3, 20));
}
