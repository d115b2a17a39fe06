//! Changes that meet each other: tags, and what is checked in the transaction.

use crate::world::{COMPANY, KEY, World, fault, subscription};
use axum::body::Body;
use axum::http::{Method, Request};
use serde_json::{Value, json};
use uuid::Uuid;

/// A request with one more header.
async fn with(
    world: &World,
    header: (&str, &str),
    method: Method,
    path: &str,
    body: Option<Value>,
) -> crate::world::Answer {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("authorization", format!("Bearer {KEY}"))
        .header("content-type", "application/json")
        .header(header.0, header.1);
    let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
    world.raw(request.body(body).unwrap()).await
}

async fn tag(world: &World, path: &str) -> String {
    let answer = world.get(KEY, path).await;
    let tag = answer.headers.get("etag").unwrap().to_str().unwrap().to_owned();
    answer.expect(200);
    assert!(tag.starts_with('"') && tag.ends_with('"'), "{tag} is a strong tag");
    tag
}

#[tokio::test]
async fn what_was_changed_since_it_was_read_is_not_changed() {
    let world = World::new().await;
    let user = world.builder().await;
    let subscription = format!("/v1/subscriptions/{}", world.subscription(&user).await);
    let account = format!("/v1/accounts/{}", user.account);
    let (keys, grants) = (format!("{account}/keys"), format!("{account}/grants"));
    let rotate = format!("{subscription}/rotate-secret");
    let key = world.get(KEY, &keys).await.expect(200)["Items"][0]["Id"].clone();
    let key = format!("{keys}/{}", key.as_str().unwrap());
    let whole = world.get(KEY, &subscription).await.expect(200);
    let schedule = json!({"ObjectType": "Schedule"});
    let kind = "/v1/event-types/InvoicePaid".to_owned();
    let made = world.put(KEY, &kind, json!({})).await;
    let header = |name| made.headers.get(name).unwrap().to_str().unwrap();
    assert_eq!(
        (header("location"), header("content-type")),
        (&*kind, "application/json")
    );
    assert_eq!(header("etag"), tag(&world, &kind).await);
    made.expect(201);
    let changes = [
        (&kind, Method::PUT, &kind, Some(json!({"Archived": true}))),
        (&kind, Method::DELETE, &kind, None),
        (&subscription, Method::PATCH, &subscription, Some(json!({"Name": "a"}))),
        (&subscription, Method::PUT, &subscription, Some(whole)),
        (&subscription, Method::POST, &rotate, None),
        (&account, Method::PATCH, &account, Some(json!({"Name": "a"}))),
        (&keys, Method::POST, &keys, None),
        (&grants, Method::POST, &grants, Some(schedule.clone())),
        (&grants, Method::DELETE, &grants, Some(schedule)),
        (&key, Method::DELETE, &key, None),
        (&subscription, Method::DELETE, &subscription, None),
    ];
    for (of, method, path, body) in changes {
        let present = tag(&world, of).await;
        let weak = format!("W/{present}");
        for stale in ["\"b\"", "W/\"b\", \"c\"", &weak] {
            let answer = with(&world, ("if-match", stale), method.clone(), path, body.clone()).await;
            let problem = answer.problem(412);
            assert!(problem["detail"].as_str().unwrap().contains(&present), "{problem}");
        }
        assert_eq!(
            tag(&world, of).await,
            present,
            "{method} {path}: what is refused changes nothing"
        );
        let unquoted = with(&world, ("if-match", "b"), method.clone(), path, body.clone()).await;
        assert_eq!(unquoted.faults(), [fault("", "entity_tag")]);
        let matching = format!("\"b\", {present}");
        let answer = with(&world, ("if-match", &matching), method.clone(), path, body).await;
        assert!(answer.status.is_success(), "{method} {path}: {}", answer.text);
        if let (Some(told), true) = (answer.headers.get("etag"), of == path || path == &rotate) {
            assert_eq!(told.to_str().unwrap(), tag(&world, of).await, "{method} {path}");
        }
        if world.get(KEY, of).await.status == 200 {
            assert_ne!(tag(&world, of).await, present, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn what_is_known_is_not_sent_again() {
    let world = World::new().await;
    let user = world.builder().await;
    let made = world.post(&user.key, "/v1/subscriptions", subscription()).await;
    let told = made.headers.get("etag").unwrap().to_str().unwrap().to_owned();
    let path = format!("/v1/subscriptions/{}", made.expect(201)["GUID"].as_str().unwrap());
    let account = format!("/v1/accounts/{}", user.account);
    assert_eq!(tag(&world, &path).await, told);
    for path in [
        &path,
        &account,
        &format!("{account}/keys"),
        &format!("{account}/grants"),
    ] {
        let tag = tag(&world, path).await;
        for known in [&tag, &format!("W/{tag}"), "*"] {
            let answer = with(&world, ("if-none-match", known), Method::GET, path, None).await;
            assert_eq!((answer.status.as_u16(), answer.text.as_str()), (304, ""));
            assert_eq!(answer.headers.get("etag").unwrap().to_str().unwrap(), tag);
        }
        with(&world, ("if-none-match", "\"b\""), Method::GET, path, None)
            .await
            .expect(200);
    }
}

#[tokio::test]
async fn of_two_changes_of_an_account_neither_undoes_the_other() {
    let world = World::new().await;
    let user = world.builder().await;
    let path = format!("/v1/accounts/{}", user.account);
    for n in 1..=20 {
        let roles = if n % 2 == 0 {
            json!(["Producer"])
        } else {
            json!(["ProcessBuilder"])
        };
        let (name, changed) = tokio::join!(
            world.patch(KEY, &path, json!({"Name": n.to_string()})),
            world.patch(KEY, &path, json!({"Roles": roles})),
        );
        name.expect(200);
        changed.expect(200);
        let shown = world.get(KEY, &path).await.expect(200);
        assert_eq!((&shown["Name"], &shown["Roles"]), (&json!(n.to_string()), &roles));
    }
}

#[tokio::test]
async fn without_the_permission_nothing_of_a_subscription_is_changed() {
    let world = World::new().await;
    let user = world.builder().await;
    let path = format!("/v1/subscriptions/{}", world.subscription(&user).await);
    let rotate = format!("{path}/rotate-secret");
    world
        .delete(KEY, &format!("/v1/accounts/{}/grants?ObjectType=31", user.account))
        .await
        .expect(204);
    let whole = world.get(&user.key, &path).await.expect(200);
    for answer in [
        world.patch(&user.key, &path, json!({"Name": "b"})).await,
        world.put(&user.key, &path, whole.clone()).await,
        world.post(&user.key, &rotate, json!({})).await,
        world.delete(&user.key, &path).await,
    ] {
        let problem = answer.problem(403);
        assert!(
            problem["detail"]
                .as_str()
                .unwrap()
                .contains(&format!("Company {COMPANY}"))
        );
    }
    assert_eq!(world.get(&user.key, &path).await.expect(200), whole);
    world.post(KEY, &rotate, json!({})).await.expect(200);
    world.delete(KEY, &path).await.expect(204);
}

#[tokio::test]
async fn an_operator_subscribes_for_another_account_and_nobody_else_does() {
    let world = World::new().await;
    let (user, other) = (world.builder().await, world.builder().await);
    let of = |owner: &str| {
        let mut body = subscription();
        body["Owner"] = json!(owner);
        body
    };
    let made = world
        .post(KEY, "/v1/subscriptions", of(&user.account))
        .await
        .expect(201);
    assert_eq!(made["Owner"], user.account);
    let path = format!("/v1/subscriptions/{}", made["GUID"].as_str().unwrap());
    world.get(&user.key, &path).await.expect(200);
    world
        .post(&user.key, "/v1/subscriptions", of(&user.account))
        .await
        .expect(201);

    let problem = world
        .post(&user.key, "/v1/subscriptions", of(&other.account))
        .await
        .problem(403);
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("Owner") && detail.contains("Operator"), "{detail}");
    let faults = world
        .post(KEY, "/v1/subscriptions", of(&Uuid::now_v7().to_string()))
        .await
        .faults();
    assert_eq!(faults, [fault("/Owner", "account")]);
    let faults = world.post(KEY, "/v1/subscriptions", of("me")).await.faults();
    assert_eq!(faults, [fault("/Owner", "guid")]);
    let builder = world.user(&["ProcessBuilder"]).await;
    let problem = world
        .post(KEY, "/v1/subscriptions", of(&builder.account))
        .await
        .problem(403);
    assert!(
        problem["detail"].as_str().unwrap().contains(&builder.account),
        "the owner needs the permission"
    );

    let change = json!({"Owner": other.account});
    assert_eq!(
        world.patch(KEY, &path, change).await.faults(),
        [fault("/Owner", "read_only")]
    );
    world
        .patch(&user.key, &path, json!({"Owner": user.account}))
        .await
        .expect(200);
}

#[tokio::test]
async fn whether_a_key_is_known_is_not_known_while_the_ledger_is_away() {
    let world = World::new().await;
    world.get("herald_unknown", "/v1/webhooks").await.problem(401);
    world
        .execute("ALTER TABLE registry_version RENAME TO registry_version_away")
        .await;
    let answer = world.get("herald_unknown", "/v1/webhooks").await;
    assert!(answer.headers.contains_key("retry-after"));
    answer.problem(503);
    world.get(KEY, "/v1/webhooks").await.expect(200);
}

#[tokio::test]
async fn what_an_earlier_version_took_is_no_fault_of_a_change_of_something_else() {
    let world = World::new().await;
    let user = world.builder().await;
    let path = format!("/v1/subscriptions/{}", world.subscription(&user).await);
    world
        .execute(
            "UPDATE subscriptions SET custom_header = 'Via', custom_header_value = 'a ', url = 'http://10.0.0.1/hook', \
             timeout_ms = 60000, name = printf('%.200c', 'n')",
        )
        .await;
    let inactive = world
        .patch(&user.key, &path, json!({"Active": false}))
        .await
        .expect(200);
    assert_eq!(
        (&inactive["Active"], &inactive["CustomHeader"]),
        (&json!(false), &json!("Via"))
    );
    let whole = world.get(&user.key, &path).await.expect(200);
    assert_eq!(whole, inactive);
    // What it changes is judged, and so is what replaces it all.
    let changed = json!({"CustomHeader": "Date", "TimeoutSeconds": 61, "MaxInFlight": 3});
    assert_eq!(
        world.patch(&user.key, &path, changed).await.faults(),
        [fault("/CustomHeader", "reserved"), fault("/TimeoutSeconds", "range")]
    );
    assert_eq!(world.put(&user.key, &path, whole).await.faults().len(), 5);

    let account = format!("/v1/accounts/{}", user.account);
    world
        .execute("UPDATE accounts SET name = printf('%.200c', 'n') WHERE name = 'somebody'")
        .await;
    let inactive = world.patch(KEY, &account, json!({"Active": false})).await.expect(200);
    assert_eq!(inactive["Active"], false);
    let named = world.patch(KEY, &account, json!({"Name": "m".repeat(101)})).await;
    assert_eq!(named.faults(), [fault("/Name", "text")]);
}

#[tokio::test]
async fn a_type_that_is_deleted_while_it_is_subscribed_to_is_answered_as_one_that_was_deleted_before() {
    let world = World::new().await;
    for path in [
        "/v1/object-types/Invoice",
        "/v1/event-types/InvoicePaid",
        "/v1/event-types/InvoiceSent",
    ] {
        world.put(KEY, path, json!({})).await.expect(201);
    }
    let body = |types: &[&str], object: Option<&str>| json!({"EventTypes": types, "FilterObjectType": object, "SubscriberURL": "https://example.com/"});
    let made = world.post(KEY, "/v1/subscriptions", body(&["InvoicePaid"], None)).await;
    let path = format!("/v1/subscriptions/{}", made.expect(201)["GUID"].as_str().unwrap());
    let before = world.get(KEY, &path).await.expect(200);
    let details = async || {
        let mut details = Vec::new();
        let (no_event, no_object) = (
            fault("/EventTypes/1", "event_type"),
            fault("/FilterObjectType", "one_of"),
        );
        let (both, by_object) = (["InvoicePaid", "InvoiceSent"], json!({"FilterObjectType": "Invoice"}));
        for (method, path, body, expected) in [
            (Method::POST, "/v1/subscriptions", body(&both, None), &no_event),
            (
                Method::POST,
                "/v1/subscriptions",
                body(&["InvoicePaid"], Some("Invoice")),
                &no_object,
            ),
            (Method::PUT, &*path, body(&both, None), &no_event),
            (Method::PATCH, &*path, json!({"EventTypes": both}), &no_event),
            (Method::PATCH, &*path, by_object, &no_object),
        ] {
            let problem = world.send(KEY, method.clone(), path, Some(body)).await.problem(400);
            let errors = problem["errors"].as_array().unwrap();
            assert_eq!(errors.len(), 1, "{method} {path}: {problem}");
            assert_eq!(
                (
                    errors[0]["pointer"].as_str().unwrap(),
                    errors[0]["rule"].as_str().unwrap()
                ),
                (&*expected.0, &*expected.1),
                "{method} {path}"
            );
            details.push(problem["detail"].clone());
        }
        details
    };
    // The ledger has it, and no process has heard of it.
    world
        .execute("UPDATE event_types SET deleted = TRUE WHERE name = 'InvoiceSent'")
        .await;
    world.execute("UPDATE object_types SET deleted = TRUE").await;
    let meanwhile = details().await;
    for heard in [
        "UPDATE event_types SET version = (SELECT version + 1 FROM registry_version) WHERE deleted",
        "UPDATE object_types SET version = (SELECT version + 1 FROM registry_version)",
        "UPDATE registry_version SET version = version + 1",
    ] {
        world.execute(heard).await;
    }
    assert_eq!(meanwhile, details().await);
    assert_eq!(world.get(KEY, &path).await.expect(200), before, "nothing was changed");
}

#[tokio::test]
async fn a_tag_is_compared_with_what_the_ledger_has_by_then() {
    let world = World::new().await;
    let path = "/v1/event-types/InvoicePaid";
    world.put(KEY, path, json!({})).await.expect(201);
    let read = tag(&world, path).await;
    // Another process changes it, and this one has not heard of it.
    world
        .execute("UPDATE event_types SET description = 'another', updated_at = updated_at + 1")
        .await;
    for (method, body) in [(Method::PUT, Some(json!({}))), (Method::DELETE, None)] {
        let refused = with(&world, ("if-match", &read), method, path, body).await.problem(412);
        assert!(refused["detail"].as_str().unwrap().contains("changed"), "{refused}");
    }
    world.execute("UPDATE event_types SET deleted = TRUE").await;
    for condition in [&*read, "*"] {
        let put = with(&world, ("if-match", condition), Method::PUT, path, Some(json!({})));
        put.await.problem(412);
        let delete = with(&world, ("if-match", condition), Method::DELETE, path, None);
        delete.await.problem(404);
    }
}

#[tokio::test]
async fn of_two_changes_of_an_event_type_by_one_tag_one_is_made() {
    let world = World::new().await;
    let path = "/v1/event-types/InvoicePaid";
    for _ in 0..10 {
        let made = world.put(KEY, path, json!({})).await;
        assert!(made.status.is_success(), "{}", made.text);
        let read = tag(&world, path).await;
        let put = |description: &str| {
            let body = json!({"Description": description});
            with(&world, ("if-match", &read), Method::PUT, path, Some(body))
        };
        let (one, other) = tokio::join!(put("one"), put("other"));
        let (made, statuses) = match one.status.as_u16() {
            200 => ("one", (200, other.status.as_u16())),
            status => ("other", (other.status.as_u16(), status)),
        };
        assert_eq!(statuses, (200, 412));
        assert_eq!(world.get(KEY, path).await.expect(200)["Description"], made);

        let read = tag(&world, path).await;
        let (changed, deleted) = tokio::join!(
            with(&world, ("if-match", &read), Method::PUT, path, Some(json!({}))),
            with(&world, ("if-match", &read), Method::DELETE, path, None),
        );
        let statuses = (changed.status.as_u16(), deleted.status.as_u16());
        assert!(matches!(statuses, (200, 412) | (412, 204)), "{statuses:?}");
    }
}

#[tokio::test]
async fn a_type_is_only_made_or_only_changed_on_condition() {
    let world = World::new().await;
    for path in ["/v1/event-types/Invoice", "/v1/object-types/Invoice"] {
        let put = |name: &'static str, condition: &str| {
            let condition = condition.to_owned();
            let world = &world;
            async move { with(world, (name, &condition), Method::PUT, path, Some(json!({}))).await }
        };
        put("if-match", "*").await.problem(412);
        put("if-match", "\"b\"").await.problem(412);
        world.get(KEY, path).await.problem(404);

        let made = put("if-none-match", "*").await;
        let told = made.headers.get("etag").unwrap().to_str().unwrap().to_owned();
        made.expect(201);
        assert_eq!(told, tag(&world, path).await);
        for condition in ["*", &told, &format!("W/{told}")] {
            let refused = put("if-none-match", condition).await.problem(412);
            assert!(refused["detail"].as_str().unwrap().contains(&told), "{refused}");
        }
        assert_eq!(tag(&world, path).await, told, "what is refused changes nothing");
        assert_eq!(put("if-none-match", "b").await.faults(), [fault("", "entity_tag")]);
        put("if-none-match", "\"b\"").await.expect(200);
        put("if-match", "*").await.expect(200);

        let present = tag(&world, path).await;
        let known = with(&world, ("if-none-match", &present), Method::GET, path, None).await;
        assert_eq!(known.status, 304);
        let delete = |condition: String| {
            let world = &world;
            async move { with(world, ("if-match", &condition), Method::DELETE, path, None).await }
        };
        delete("\"b\"".to_owned()).await.problem(412);
        delete(present).await.expect(204);
        world.get(KEY, path).await.problem(404);
    }
}
