use crate::world::{COMPANY, KEY, World, fault, subscription};
use serde_json::{Value, json};

#[tokio::test]
async fn create_shows_the_secret_once_and_defaults() {
    let world = World::new().await;
    let user = world.builder().await;
    let answer = world.post(&user.key, "/v1/subscriptions", subscription()).await;
    let location = answer.headers.get("location").unwrap().to_str().unwrap().to_owned();
    let made = answer.expect(201);
    assert_eq!(
        location,
        format!("/v1/subscriptions/{}", made["GUID"].as_str().unwrap())
    );
    assert_eq!(made["FilterObjectType"], 31);
    assert_eq!(made["FilterObjectGUID"], COMPANY);
    assert_eq!(made["TimeoutSeconds"], 15);
    assert_eq!(made["Retry"]["GiveUpAfterSeconds"], 259_200);
    assert_eq!(made["MaxInFlight"], 64);
    assert_eq!(made["Owner"], user.account);
    let secret = made["SecretKey"].as_str().unwrap();
    assert!(secret.starts_with("whsec_"));
    assert_eq!(made["SigningSecret"], secret);
    assert!(standardwebhooks::Webhook::new(secret).is_ok());

    let mut shown = made.clone();
    let fields = shown.as_object_mut().unwrap();
    fields.remove("SecretKey");
    fields.remove("SigningSecret");
    assert_eq!(world.get(&user.key, &location).await.expect(200), shown);
    assert_eq!(
        world
            .get(
                &user.key,
                &location
                    .to_uppercase()
                    .replace("/V1/SUBSCRIPTIONS", "/v1/subscriptions")
            )
            .await
            .expect(200),
        shown
    );
    assert_eq!(
        world.get(&user.key, "/v1/subscriptions").await.expect(200)["Items"],
        json!([shown])
    );
}

#[tokio::test]
async fn a_secret_is_shown_as_given() {
    let world = World::new().await;
    let user = world.builder().await;
    let mut body = subscription();
    body["SecretKey"] = json!("geheim, geheimer");
    let made = world.post(&user.key, "/v1/subscriptions", body).await.expect(201);
    assert_eq!(
        (&made["SecretKey"], &made["SigningSecret"]),
        (&json!("geheim, geheimer"), &json!("whsec_Z2VoZWltLCBnZWhlaW1lcg=="))
    );
}

#[tokio::test]
async fn role_and_permission_are_needed_and_named() {
    let world = World::new().await;
    let producer = world.user(&["Producer"]).await;
    let problem = world
        .post(&producer.key, "/v1/subscriptions", json!("nonsense"))
        .await
        .problem(403);
    assert!(problem["detail"].as_str().unwrap().contains("ProcessBuilder"));

    let user = world.user(&["ProcessBuilder"]).await;
    let problem = world
        .post(&user.key, "/v1/subscriptions", subscription())
        .await
        .problem(403);
    assert!(
        problem["detail"]
            .as_str()
            .unwrap()
            .contains(&format!("Company {COMPANY}")),
        "{problem}"
    );

    let answer = world.post("herald_unknown", "/v1/subscriptions", subscription()).await;
    assert_eq!(answer.headers.get("www-authenticate").unwrap(), "Bearer");
    answer.problem(401);

    world.post(KEY, "/v1/subscriptions", subscription()).await.expect(201);
}

#[tokio::test]
async fn every_fault_is_named() {
    let world = World::new().await;
    let user = world.builder().await;
    let mut body = subscription();
    body["SubscriberUrl"] = json!("https://example.com");
    body["SubscriberURL"] = json!("http://127.0.0.1/");
    body["Retry"] = json!({"Multiplier": 0});
    let faults = world.post(&user.key, "/v1/subscriptions", body).await.faults();
    assert_eq!(
        faults,
        [
            fault("/SubscriberUrl", "known_field"),
            fault("/SubscriberURL", "address_refused"),
            fault("/Retry/Multiplier", "range"),
        ]
    );
}

#[tokio::test]
async fn put_takes_what_get_gave_and_keeps_the_key() {
    let world = World::new().await;
    let user = world.builder().await;
    let mut body = subscription();
    body["SecretKey"] = json!("geheim, geheimer");
    body["Name"] = json!("starters");
    body["TimeoutSeconds"] = json!(0.2501);
    body["CustomHeader"] = json!("X-Route");
    body["CustomHeaderValue"] = json!("a");
    let made = world.post(&user.key, "/v1/subscriptions", body).await.expect(201);
    let path = format!("/v1/subscriptions/{}", made["GUID"].as_str().unwrap());

    let shown = world.get(&user.key, &path).await.expect(200);
    assert_eq!(shown["TimeoutSeconds"], made["TimeoutSeconds"]);
    let replaced = world.put(&user.key, &path, shown.clone()).await.expect(200);
    assert_eq!(without_time(replaced), without_time(shown));
    assert_eq!(signing_key(&world, &path).await, b"geheim, geheimer");

    // Also by an operator, who does not become the owner.
    let mut body = subscription();
    body["SecretKey"] = json!("anders als zuvor");
    let replaced = world.put(KEY, &path, body).await.expect(200);
    assert_eq!(replaced["Owner"], user.account);
    assert_eq!(
        (&replaced["Name"], &replaced["CustomHeader"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(replaced["TimeoutSeconds"], 15);
    assert!(replaced.get("SecretKey").is_none() && replaced.get("SigningSecret").is_none());
    assert_eq!(signing_key(&world, &path).await, b"anders als zuvor");
}

#[tokio::test]
async fn patch_merges_down_into_retry() {
    let world = World::new().await;
    let user = world.builder().await;
    let path = format!("/v1/subscriptions/{}", world.subscription(&user).await);
    world
        .patch(
            &user.key,
            &path,
            json!({"Name": "a", "Retry": {"InitialSeconds": 7, "MaxAttempts": 3}}),
        )
        .await
        .expect(200);
    let changed = world
        .patch(
            &user.key,
            &path,
            json!({"Active": false, "Retry": {"MaxAttempts": null}}),
        )
        .await
        .expect(200);
    assert_eq!((&changed["Name"], &changed["Active"]), (&json!("a"), &json!(false)));
    assert_eq!(
        (&changed["Retry"]["InitialSeconds"], &changed["Retry"]["MaxAttempts"]),
        (&json!(7), &Value::Null)
    );

    let before = world.get(&user.key, &path).await.expect(200);
    let faults = world
        .patch(&user.key, &path, json!({"Actve": true, "MaxInFlight": 0}))
        .await
        .faults();
    assert_eq!(faults, [fault("/Actve", "known_field"), fault("/MaxInFlight", "range")]);
    assert_eq!(
        world.patch(&user.key, &path, json!([1])).await.faults(),
        [fault("", "object")]
    );
    assert_eq!(
        world.get(&user.key, &path).await.expect(200),
        before,
        "a refused change changes nothing"
    );
}

#[tokio::test]
async fn of_two_changes_at_a_time_neither_undoes_the_other() {
    let world = World::new().await;
    let user = world.builder().await;
    let path = format!("/v1/subscriptions/{}", world.subscription(&user).await);
    for n in 1..=20 {
        let (name, most) = tokio::join!(
            world.patch(&user.key, &path, json!({"Name": n.to_string()})),
            world.patch(&user.key, &path, json!({"MaxInFlight": n})),
        );
        name.expect(200);
        most.expect(200);
        let shown = world.get(&user.key, &path).await.expect(200);
        assert_eq!(
            (&shown["Name"], &shown["MaxInFlight"]),
            (&json!(n.to_string()), &json!(n))
        );
    }
}

#[tokio::test]
async fn a_change_needs_the_permission_still() {
    let world = World::new().await;
    let user = world.builder().await;
    let path = format!("/v1/subscriptions/{}", world.subscription(&user).await);
    world
        .patch(&user.key, &path, json!({"FilterObjectType": "Contract"}))
        .await
        .problem(403);
    world
        .patch(KEY, &path, json!({"FilterObjectType": "Contract"}))
        .await
        .problem(403);
    world
        .delete(KEY, &format!("/v1/accounts/{}/grants?ObjectType=31", user.account))
        .await
        .expect(204);
    world.patch(&user.key, &path, json!({"Name": "b"})).await.problem(403);
    world.patch(KEY, &path, json!({"Active": false})).await.expect(200);
}

#[tokio::test]
async fn another_accounts_subscription_is_not_there() {
    let world = World::new().await;
    let (owner, other) = (world.builder().await, world.builder().await);
    let guid = world.subscription(&owner).await;
    let path = format!("/v1/subscriptions/{guid}");
    world.get(&other.key, &path).await.problem(404);
    world.put(&other.key, &path, subscription()).await.problem(404);
    world.patch(&other.key, &path, json!({})).await.problem(404);
    world.delete(&other.key, &path).await.problem(404);
    world
        .post(&other.key, &format!("{path}/rotate-secret"), json!({}))
        .await
        .problem(404);
    assert_eq!(
        world.get(&other.key, "/v1/subscriptions").await.expect(200)["Items"],
        json!([])
    );
    assert_eq!(
        world.get(KEY, "/v1/subscriptions").await.expect(200)["Items"][0]["GUID"],
        guid
    );

    world.delete(&owner.key, &path).await.expect(204);
    world.get(&owner.key, &path).await.problem(404);
    world.delete(&owner.key, &path).await.problem(404);
    world.put(&owner.key, &path, subscription()).await.problem(404);
    world.get(&owner.key, "/v1/subscriptions/nonsense").await.problem(404);
}

#[tokio::test]
async fn rotation_shows_the_new_secret_once() {
    let world = World::new().await;
    let user = world.builder().await;
    let path = format!("/v1/subscriptions/{}", world.subscription(&user).await);
    let rotate = format!("{path}/rotate-secret");
    let given = world
        .post(&user.key, &rotate, json!({"SecretKey": "geheim, geheimer"}))
        .await
        .expect(200);
    assert_eq!(
        (&given["SecretKey"], &given["SigningSecret"]),
        (&json!("geheim, geheimer"), &json!("whsec_Z2VoZWltLCBnZWhlaW1lcg=="))
    );
    let made = world
        .send(&user.key, axum::http::Method::POST, &rotate, None)
        .await
        .expect(200);
    assert!(made["SecretKey"].as_str().unwrap().starts_with("whsec_"));
    assert_ne!(made["SecretKey"], given["SigningSecret"]);
    let again = world.post(&user.key, &rotate, json!({})).await.expect(200);
    assert_ne!(made["SecretKey"], again["SecretKey"]);
    assert!(world.get(&user.key, &path).await.expect(200).get("SecretKey").is_none());
    let overlapping = world
        .post(&user.key, &rotate, json!({"OverlapSeconds": 86400}))
        .await
        .expect(200);
    let guid = made["GUID"].as_str().unwrap().parse().unwrap();
    let kept = world.ledger.subscription(guid).await.unwrap().unwrap();
    let former = kept.former_key.unwrap();
    assert_eq!(former.key.to_signing_secret(), again["SecretKey"]);
    assert_eq!(kept.key.to_signing_secret(), overlapping["SecretKey"]);
    assert!((86395..=86400).contains(&former.until.since(world.ledger.now()).as_secs()));
    for wrong in [json!(-1), json!(604_801), json!("1")] {
        let faults = world
            .post(&user.key, &rotate, json!({"OverlapSeconds": wrong}))
            .await
            .faults();
        assert_eq!(faults, [fault("/OverlapSeconds", "range")]);
    }
    world
        .patch(&user.key, &path, json!({"SecretKey": "geheim, geheimer"}))
        .await
        .expect(200);
    assert_eq!(world.ledger.subscription(guid).await.unwrap().unwrap().former_key, None);
    assert_eq!(
        world.post(&user.key, &rotate, json!({"Secret": "x"})).await.faults(),
        [fault("/Secret", "known_field")]
    );
    assert_eq!(
        world
            .post(&user.key, &rotate, json!({"SecretKey": "whsec_?"}))
            .await
            .faults(),
        [fault("/SecretKey", "secret")]
    );
}

#[tokio::test]
async fn a_public_key_is_made_with_the_asymmetric_signatures_and_changed_by_a_rotation() {
    let world = World::new().await;
    let user = world.builder().await;
    let path = format!("/v1/subscriptions/{}", world.subscription(&user).await);
    let shown = world.get(&user.key, &path).await.expect(200);
    assert_eq!(
        (&shown["Signatures"], &shown["PublicKey"]),
        (&json!(["v1"]), &Value::Null)
    );
    let both = json!({"Signatures": ["v1", "v1a"]});
    let first = world.patch(&user.key, &path, both.clone()).await.expect(200);
    let key = first["PublicKey"].as_str().unwrap();
    assert!(key.starts_with("whpk_"), "{key}");
    assert_eq!(world.get(&user.key, &path).await.expect(200), first);
    // PUT accepts what GET gave, and a new secret is no new key.
    let mut with_secret = first.clone();
    with_secret["SecretKey"] = json!("geheim, geheimer");
    for body in [first.clone(), with_secret] {
        assert_eq!(
            world.put(&user.key, &path, body).await.expect(200)["PublicKey"],
            first["PublicKey"]
        );
    }
    // Switched off and on again it is the same one.
    let off = world
        .patch(&user.key, &path, json!({"Signatures": null}))
        .await
        .expect(200);
    assert_eq!((&off["Signatures"], &off["PublicKey"]), (&json!(["v1"]), &Value::Null));
    let on = world.patch(&user.key, &path, both.clone()).await.expect(200);
    assert_eq!(on["PublicKey"], first["PublicKey"]);
    let rotate = format!("{path}/rotate-secret");
    let rotated = world
        .post(&user.key, &rotate, json!({"OverlapSeconds": 60}))
        .await
        .expect(200);
    assert!(rotated["PublicKey"].as_str().unwrap().starts_with("whpk_"));
    assert_ne!(rotated["PublicKey"], first["PublicKey"]);
    let guid = rotated["GUID"].as_str().unwrap().parse().unwrap();
    let kept = world.ledger.subscription(guid).await.unwrap().unwrap();
    let former = kept.former_key.unwrap().asymmetric.unwrap();
    assert_eq!(former.public_key().to_string(), key);
    // A rotation while it is off leaves none that somebody may have learnt.
    world
        .patch(&user.key, &path, json!({"Signatures": ["v1"]}))
        .await
        .expect(200);
    let off = world.post(&user.key, &rotate, json!({})).await.expect(200);
    assert_eq!(off["PublicKey"], Value::Null);
    let anew = world.patch(&user.key, &path, both.clone()).await.expect(200);
    assert_ne!(anew["PublicKey"], rotated["PublicKey"]);
    let faults = world
        .patch(&user.key, &path, json!({"Signatures": ["v1a"]}))
        .await
        .faults();
    assert_eq!(faults, [fault("/Signatures", "required")]);
    let mut body = subscription();
    body["Signatures"] = both["Signatures"].clone();
    let made = world.post(&user.key, "/v1/subscriptions", body).await.expect(201);
    assert!(made["PublicKey"].as_str().unwrap().starts_with("whpk_"), "of its own");
    assert_ne!(made["PublicKey"], anew["PublicKey"]);
}

#[tokio::test]
async fn lists_are_paged_newest_first() {
    let world = World::new().await;
    let user = world.builder().await;
    let mut made = Vec::new();
    for _ in 0..5 {
        made.insert(0, world.subscription(&user).await);
    }
    let mut seen = Vec::new();
    let mut path = "/v1/subscriptions?Limit=2".to_owned();
    let mut pages = 0;
    loop {
        let page = world.get(&user.key, &path).await.expect(200);
        let guid = |item: &Value| item["GUID"].as_str().unwrap().to_owned();
        seen.extend(page["Items"].as_array().unwrap().iter().map(guid));
        pages += 1;
        let Some(cursor) = page["NextCursor"].as_str() else {
            break;
        };
        path = format!("/v1/subscriptions?Limit=2&Cursor={cursor}");
    }
    assert_eq!((seen, pages), (made, 3));
    for (query, pointer) in [
        ("Limit=0", "/Limit"),
        ("Limit=501", "/Limit"),
        ("Limit=x", "/Limit"),
        ("Cursor=x", "/Cursor"),
        ("limit=1", "/limit"),
        ("Limit=1&Limit=2", "/Limit"),
    ] {
        let faults = world
            .get(&user.key, &format!("/v1/subscriptions?{query}"))
            .await
            .faults();
        assert_eq!(
            faults.iter().map(|fault| fault.0.as_str()).collect::<Vec<_>>(),
            [pointer],
            "{query}"
        );
    }
}

#[tokio::test]
async fn a_list_is_narrowed() {
    let world = World::new().await;
    let (user, other) = (world.builder().await, world.builder().await);
    let (first, of_other) = (world.subscription(&user).await, world.subscription(&other).await);
    let path = format!("/v1/subscriptions/{first}");
    world
        .patch(&user.key, &path, json!({"Active": false}))
        .await
        .expect(200);
    let list = async |key: &str, query: &str| -> Vec<String> {
        let page = world.get(key, &format!("/v1/subscriptions?{query}")).await.expect(200);
        let items = page["Items"].as_array().unwrap().iter();
        items.map(|item| item["GUID"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(list(KEY, "Active=false").await, std::slice::from_ref(&first));
    assert_eq!(list(KEY, "Active=true").await, std::slice::from_ref(&of_other));
    let all = [of_other.clone(), first.clone()];
    assert_eq!(
        list(KEY, "Webhook=PacketCreated&SubscriberURL=HTTPS://Example.com/hooks").await,
        all
    );
    assert_eq!(list(KEY, &format!("FilterObjectGUID={COMPANY}")).await, all);
    assert_eq!(list(KEY, "Webhook=PacketUpdated").await, [""; 0]);
    assert_eq!(list(KEY, &format!("Owner={}", other.account)).await, [of_other]);
    assert_eq!(list(&user.key, &format!("Owner={}", user.account)).await, [first]);
    assert_eq!(list(&user.key, &format!("Owner={}", other.account)).await, [""; 0]);
    let faults = world
        .get(KEY, "/v1/subscriptions?Webhook=x&Active=1&Owner=me")
        .await
        .faults();
    let expected = [
        fault("/Webhook", "one_of"),
        fault("/Active", "boolean"),
        fault("/Owner", "guid"),
    ];
    assert_eq!(faults, expected);
}

fn without_time(mut subscription: Value) -> Value {
    subscription.as_object_mut().unwrap().remove("UpdatedAt");
    subscription
}

async fn signing_key(world: &World, path: &str) -> Vec<u8> {
    let guid = path.rsplit('/').next().unwrap().parse().unwrap();
    world
        .ledger
        .subscription(guid)
        .await
        .unwrap()
        .unwrap()
        .key
        .as_bytes()
        .to_vec()
}

#[tokio::test]
async fn a_url_that_an_earlier_version_kept_as_it_was_given_is_shown_and_found_as_it_is_called() {
    let world = World::new().await;
    let user = world.builder().await;
    let old = world.subscription(&user).await;
    world
        .execute("UPDATE subscriptions SET url = 'HTTPS://Example.com:443/a/../hooks'")
        .await;
    // More than are looked at at a time, before it and after it.
    let columns = "owner, webhook, object_type, active, signing_key, timeout_ms, retry_initial_ms, retry_multiplier, \
                   retry_max_ms, retry_give_up_ms, max_in_flight, created_at, updated_at, open_from, deleted, version";
    let others = format!(
        "INSERT INTO subscriptions (id, url, {columns}) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n \
         WHERE i < 5000) SELECT randomblob(16), 'https://elsewhere.example/', {columns} FROM subscriptions, n"
    );
    world.execute(others.leak()).await;
    let new = world.subscription(&user).await;
    let shown = world
        .get(&user.key, &format!("/v1/subscriptions/{old}"))
        .await
        .expect(200);
    assert_eq!(shown["SubscriberURL"], "https://example.com/hooks");
    for url in ["https://example.com/hooks", "https%3A%2F%2FEXAMPLE.com%3A443%2Fhooks"] {
        let mut found = Vec::new();
        let mut cursor = String::new();
        // One a page.
        for _ in 0..2 {
            let path = format!("/v1/subscriptions?SubscriberURL={url}&Limit=1{cursor}");
            let page = world.get(&user.key, &path).await.expect(200);
            found.push(page["Items"][0]["GUID"].as_str().unwrap().to_owned());
            cursor = format!("&Cursor={}", page["NextCursor"].as_str().unwrap_or_default());
        }
        assert_eq!(cursor, "&Cursor=", "there are no more");
        found.sort();
        assert_eq!(found, [old.clone(), new.clone()], "{url}");
    }
    // A change keeps it as it is called.
    world
        .patch(&user.key, &format!("/v1/subscriptions/{old}"), json!({"Name": "a"}))
        .await
        .expect(200);
}
