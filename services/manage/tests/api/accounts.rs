use crate::world::{KEY, World, fault, subscription};
use herald_domain::access::OPERATOR;
use serde_json::{Value, json};
use uuid::Uuid;

#[tokio::test]
async fn accounts_are_made_changed_and_listed_by_operators_only() {
    let world = World::new().await;
    let answer = world.post(KEY, "/v1/accounts", json!({"Name": "HR"})).await;
    let location = answer.headers.get("location").unwrap().to_str().unwrap().to_owned();
    let made = answer.expect(201);
    assert_eq!(made["Roles"], json!(["Producer", "ProcessBuilder"]));
    assert_eq!(made["Active"], true);
    let shown = world.get(KEY, &location).await.expect(200);
    assert_eq!(
        (&shown["Keys"], &shown["Grants"], &shown["Name"]),
        (&json!([]), &json!([]), &json!("HR"))
    );
    let changed = world
        .patch(KEY, &location, json!({"Roles": ["Producer"]}))
        .await
        .expect(200);
    assert_eq!(
        (&changed["Roles"], &changed["Name"]),
        (&json!(["Producer"]), &json!("HR"))
    );
    assert_eq!(world.get(KEY, &location).await.expect(200), changed);

    let page = world.get(KEY, "/v1/accounts?Limit=1").await.expect(200);
    assert_eq!(page["Items"][0]["Id"], OPERATOR.to_string());
    let next = world
        .get(
            KEY,
            &format!("/v1/accounts?Cursor={}", page["NextCursor"].as_str().unwrap()),
        )
        .await
        .expect(200);
    assert_eq!(
        (&next["Items"][0]["Id"], &next["NextCursor"]),
        (&made["Id"], &Value::Null)
    );

    let user = world.user(&["Producer", "ProcessBuilder"]).await;
    let problem = world.get(&user.key, "/v1/accounts").await.problem(403);
    assert!(problem["detail"].as_str().unwrap().contains("Operator"));
    world.patch(&user.key, &location, json!({})).await.problem(403);
    world
        .post(&user.key, &format!("{location}/keys"), json!({}))
        .await
        .problem(403);
    world
        .post(&user.key, &format!("{location}/grants"), json!({}))
        .await
        .problem(403);
    world
        .get(KEY, &format!("/v1/accounts/{}", Uuid::now_v7()))
        .await
        .problem(404);
    world
        .patch(KEY, &format!("/v1/accounts/{}", Uuid::now_v7()), json!({}))
        .await
        .problem(404);
    assert_eq!(
        world
            .post(
                KEY,
                "/v1/accounts",
                json!({"Role": [], "Roles": ["operator"], "Active": 1})
            )
            .await
            .faults(),
        [
            fault("/Role", "known_field"),
            fault("/Name", "required"),
            fault("/Roles", "one_of"),
            fault("/Active", "boolean")
        ]
    );
}

#[tokio::test]
async fn null_in_a_patch_gives_no_role_and_no_activity() {
    let world = World::new().await;
    let body = json!({"Name": "HR", "Roles": ["Producer"], "Active": false});
    let made = world.post(KEY, "/v1/accounts", body).await.expect(201);
    let path = format!("/v1/accounts/{}", made["Id"].as_str().unwrap());
    let before = world.get(KEY, &path).await.expect(200);
    let nulls = json!({"Name": null, "Roles": null, "Active": null});
    assert_eq!(
        world.patch(KEY, &path, nulls).await.faults(),
        [
            fault("/Name", "required"),
            fault("/Roles", "required"),
            fault("/Active", "required")
        ]
    );
    assert_eq!(world.get(KEY, &path).await.expect(200), before);
}

#[tokio::test]
async fn a_key_works_at_once_within_its_roles_and_no_longer_once_deleted() {
    let world = World::new().await;
    let account = world.post(KEY, "/v1/accounts", json!({"Name": "HR"})).await.expect(201);
    let account = account["Id"].as_str().unwrap();
    let keys = format!("/v1/accounts/{account}/keys");
    let made = world
        .post(KEY, &keys, json!({"Name": "tickets", "Roles": ["Producer"]}))
        .await
        .expect(201);
    let key = made["Key"].as_str().unwrap();
    assert!(key.starts_with("herald_") && key.len() == 50, "{key}");
    world.get(key, "/v1/webhooks").await.expect(200);
    world.get(key, "/v1/subscriptions").await.problem(403);

    let listed = world.get(KEY, &keys).await.expect(200);
    assert_eq!(
        listed["Items"][0],
        json!({"Id": made["Id"], "Name": "tickets", "Roles": ["Producer"], "CreatedAt": made["CreatedAt"]})
    );
    let path = format!("{keys}/{}", made["Id"].as_str().unwrap());
    let elsewhere = format!("/v1/accounts/{}/keys/{}", Uuid::now_v7(), made["Id"].as_str().unwrap());
    world.delete(KEY, &elsewhere).await.problem(404);
    world.delete(KEY, &path).await.expect(204);
    world.get(key, "/v1/webhooks").await.problem(401);
    world.delete(KEY, &path).await.problem(404);
    world.delete(KEY, &format!("{keys}/x")).await.problem(404);
    world
        .post(KEY, &format!("/v1/accounts/{}/keys", Uuid::now_v7()), json!({}))
        .await
        .problem(404);
    assert_eq!(
        world.post(KEY, &keys, json!({"Key": "mine"})).await.faults(),
        [fault("/Key", "known_field")]
    );

    let other = world.post(KEY, &keys, json!({})).await.expect(201);
    let key = other["Key"].as_str().unwrap();
    world.get(key, "/v1/subscriptions").await.expect(200);
    world
        .patch(KEY, &format!("/v1/accounts/{account}"), json!({"Active": false}))
        .await
        .expect(200);
    world.get(key, "/v1/subscriptions").await.problem(401);
}

#[tokio::test]
async fn grants_are_given_and_taken() {
    let world = World::new().await;
    let user = world.user(&["ProcessBuilder"]).await;
    let grants = format!("/v1/accounts/{}/grants", user.account);
    let object = subscription()["FilterObjectGUID"].clone();
    let one = json!({"ObjectType": 31, "ObjectGUID": object.as_str().unwrap().to_lowercase()});
    let given = world
        .post(KEY, &grants, json!({"ObjectType": "Company", "ObjectGUID": object}))
        .await
        .expect(201);
    assert_eq!(given, one);
    world.post(KEY, &grants, one.clone()).await.expect(201);
    assert_eq!(world.get(KEY, &grants).await.expect(200)["Items"], json!([one]));
    world
        .post(&user.key, "/v1/subscriptions", subscription())
        .await
        .expect(201);

    world
        .send(KEY, axum::http::Method::DELETE, &grants, Some(one.clone()))
        .await
        .expect(204);
    world
        .post(&user.key, "/v1/subscriptions", subscription())
        .await
        .problem(403);
    world
        .send(KEY, axum::http::Method::DELETE, &grants, Some(one))
        .await
        .problem(404);

    for every in [json!(null), json!(""), json!(Uuid::nil().to_string())] {
        let given = world
            .post(KEY, &grants, json!({"ObjectType": 260, "ObjectGUID": every}))
            .await
            .expect(201);
        assert_eq!(given, json!({"ObjectType": 260, "ObjectGUID": null}));
        world
            .delete(KEY, &format!("{grants}?ObjectType=Schedule&ObjectGUID={}", Uuid::nil()))
            .await
            .expect(204);
    }
    assert_eq!(
        world
            .post(KEY, &grants, json!({"ObjectType": 7, "ObjectGUID": "x", "Type": 1}))
            .await
            .faults(),
        [
            fault("/Type", "known_field"),
            fault("/ObjectType", "one_of"),
            fault("/ObjectGUID", "guid")
        ]
    );
    assert_eq!(
        world.delete(KEY, &grants).await.faults(),
        [fault("/ObjectType", "required")]
    );
    assert_eq!(
        world.delete(KEY, &format!("{grants}?ObjectTyp=31")).await.faults(),
        [fault("/ObjectTyp", "known_parameter")]
    );
    world
        .post(
            KEY,
            &format!("/v1/accounts/{}/grants", Uuid::now_v7()),
            json!({"ObjectType": 31}),
        )
        .await
        .problem(404);
}

#[tokio::test]
async fn a_grant_on_a_deleted_object_type_is_shown_and_taken() {
    let world = World::new().await;
    let user = world.user(&["ProcessBuilder"]).await;
    let grants = format!("/v1/accounts/{}/grants", user.account);
    let given = world.get(KEY, &grants).await.expect(200)["Items"].clone();
    let object_type = "/v1/object-types/Invoice";
    let made = world.put(KEY, object_type, json!({})).await.expect(201);
    let number = made["Number"].as_i64().unwrap();
    for named in ["Invoice".to_owned(), number.to_string()] {
        world
            .post(KEY, &grants, json!({"ObjectType": "Invoice"}))
            .await
            .expect(201);
        world.delete(KEY, object_type).await.expect(204);
        let listed = world.get(KEY, &grants).await.expect(200)["Items"].clone();
        assert!(
            listed
                .as_array()
                .unwrap()
                .contains(&json!({"ObjectType": number, "ObjectGUID": null})),
            "{listed}"
        );
        world
            .post(KEY, &grants, json!({"ObjectType": "Invoice"}))
            .await
            .problem(400);
        let of_type = format!("{grants}?ObjectType={named}");
        world.delete(KEY, &of_type).await.expect(204);
        world.delete(KEY, &of_type).await.problem(404);
        assert_eq!(world.get(KEY, &grants).await.expect(200)["Items"], given);
        // The number is the name's for good, so that no other type gets these permissions.
        let other = format!("/v1/object-types/Other{named}");
        let other = world.put(KEY, &other, json!({})).await.expect(201);
        assert_ne!(other["Number"], number);
        let again = world.put(KEY, object_type, json!({})).await.expect(201);
        assert_eq!(again["Number"], number);
    }
}

#[tokio::test]
async fn the_operator_cannot_lock_itself_out() {
    let world = World::new().await;
    let path = format!("/v1/accounts/{OPERATOR}");
    world.patch(KEY, &path, json!({"Active": false})).await.problem(409);
    world
        .patch(KEY, &path, json!({"Roles": ["Producer"]}))
        .await
        .problem(409);
    assert_eq!(
        world.patch(KEY, &path, json!({"Name": "ops"})).await.expect(200)["Roles"],
        json!(["Operator"])
    );
}
