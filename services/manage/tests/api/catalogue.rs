use crate::world::{KEY, World, fault};
use serde_json::json;

#[tokio::test]
async fn the_catalogue_describes_every_webhook() {
    let world = World::new().await;
    let user = world.user(&["Producer"]).await;
    let list = world.get(&user.key, "/v1/webhooks").await.expect(200);
    let names: Vec<_> = list["Items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["Webhook"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "PacketCreated",
            "PacketUpdated",
            "NewCommunication",
            "BusinessObjectCreated",
            "BusinessObjectUpdated",
            "SpecificBusinessObjectUpdated",
        ]
    );
    let specific = world
        .get(&user.key, "/v1/webhooks/SpecificBusinessObjectUpdated")
        .await
        .expect(200);
    assert_eq!(specific["EventType"], "BusinessObjectUpdated");
    assert_eq!(specific["FilterObjectGUID"], "required");
    assert_eq!(
        specific["FilterObjectTypes"],
        json!([{"Number": 31, "Name": "Company"}, {"Number": 260, "Name": "Schedule"}])
    );

    let packet = world.get(&user.key, "/v1/webhooks/PacketCreated").await.expect(200);
    assert_eq!(packet, list["Items"][0]);
    let field = |name: &str| {
        packet["Message"]
            .as_array()
            .unwrap()
            .iter()
            .find(|field| field["Name"] == name)
            .unwrap()
            .clone()
    };
    assert_eq!(
        field("GUID"),
        json!({"Name": "GUID", "Type": "guid", "Required": true, "Values": null, "AddedByHerald": true})
    );
    assert_eq!(
        field("ProcessType"),
        json!({"Name": "ProcessType", "Type": "integer", "Required": true, "Values": {"1": "Case", "2": "Ticket", "3": "Action"}, "AddedByHerald": false})
    );
    assert_eq!(field("DueDate")["Type"], "date-time");
    assert_eq!(packet["Example"]["CustomerName"], "Globex Corporation");
    assert!(
        packet["Headers"]
            .as_array()
            .unwrap()
            .iter()
            .any(|header| header["Name"] == "webhook-id")
    );
}

#[tokio::test]
async fn the_alias_is_read_and_never_written() {
    let world = World::new().await;
    let answer = world.get(KEY, "/v1/webhooks/NewBusinessObject").await;
    assert!(!answer.text.contains("NewBusinessObject"));
    let webhook = answer.expect(200);
    assert_eq!(
        (&webhook["Webhook"], &webhook["FilterObjectGUID"]),
        (&json!("BusinessObjectCreated"), &json!("empty"))
    );
    world.get(KEY, "/v1/webhooks/Nonsense").await.problem(404);
    world.get("", "/v1/webhooks").await.problem(401);
}

/// The names on every page of a list.
async fn names_of(world: &World, list: &str) -> Vec<String> {
    let (mut names, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = world.get(KEY, &format!("{list}?Limit=500{cursor}")).await.expect(200);
        let items = page["Items"].as_array().unwrap();
        assert!(items.len() <= 500);
        names.extend(items.iter().map(|item| item["Name"].as_str().unwrap().to_owned()));
        match page["NextCursor"].as_str() {
            Some(next) => cursor = format!("&Cursor={next}"),
            None => return names,
        }
    }
}

#[tokio::test]
async fn types_of_packs_are_shown_as_built_in_and_cannot_be_changed() {
    let world = World::new().await;
    world.ledger.register_packs().await.unwrap();
    let path = "/v1/event-types/Autotask.Ticket.Update";
    let shown = world.get(KEY, path).await.expect(200);
    assert_eq!(
        (
            &shown["BuiltIn"],
            &shown["Archived"],
            &shown["Objects"],
            &shown["CreatedAt"]
        ),
        (&json!(true), &json!(false), &json!([]), &json!(null))
    );
    assert_eq!(shown["Example"]["Id"], 351_181);
    assert_eq!(shown["Schema"]["required"], json!(["Id"]));
    let refused = world.put(KEY, path, json!({"Objects": ["Company"]})).await.problem(409);
    assert!(
        refused["detail"].as_str().unwrap().contains("came with Herald"),
        "{refused}"
    );
    world
        .put(KEY, &format!("{path}?DryRun=true"), json!({}))
        .await
        .problem(409);
    world.delete(KEY, path).await.problem(409);
    let names = names_of(&world, "/v1/event-types").await;
    assert_eq!(names.len(), 5 + 21);
    assert_eq!(names.last().unwrap(), "PacketCreated");

    // They name no object that must be, so whoever may subscribe at all may subscribe to them.
    let builder = world.user(&["ProcessBuilder"]).await;
    let body = json!({"EventTypes": ["Autotask.Ticket.Update"], "SubscriberURL": "https://example.com/"});
    world.post(&builder.key, "/v1/subscriptions", body).await.expect(201);
    let body = json!({"EventTypes": ["Autotask.*"], "SubscriberURL": "https://example.com/"});
    world.post(&builder.key, "/v1/subscriptions", body).await.problem(403);
}

#[tokio::test]
async fn ten_thousand_types_are_listed_page_by_page_and_no_more_are_taken() {
    let world = World::new().await;
    world
        .put(KEY, "/v1/event-types/Type0", json!({"Schema": {}}))
        .await
        .expect(201);
    world
        .execute(
            "INSERT INTO event_types SELECT code + n, 'Type' || n, description, objects, schema, example, archived, built_in, \
             deleted, created_at, updated_at, version + 1 FROM event_types, (WITH RECURSIVE counted (n) AS \
             (SELECT 1 UNION ALL SELECT n + 1 FROM counted WHERE n < 9998) SELECT n FROM counted) WHERE name = 'Type0'",
        )
        .await;
    world.execute("UPDATE registry_version SET version = version + 1").await;
    world.put(KEY, "/v1/event-types/Last", json!({})).await.expect(201);
    let names = names_of(&world, "/v1/event-types").await;
    assert_eq!(names.len(), 10_000 + 5);
    let newest: Vec<_> = names[..2].iter().map(String::as_str).collect();
    assert_eq!(newest, ["Last", "Type9998"]);
    assert_eq!(
        names.iter().collect::<std::collections::HashSet<_>>().len(),
        names.len()
    );
    let shown = world.get(KEY, "/v1/event-types/Type4711").await.expect(200);
    assert_eq!(shown["Schema"], json!({}));
    let full = world.put(KEY, "/v1/event-types/OneMore", json!({})).await.problem(409);
    let detail = full["detail"].as_str().unwrap();
    assert!(detail.contains("10000") && detail.contains("delete"), "{detail}");
}

#[tokio::test]
async fn a_dry_run_without_a_value_changes_nothing() {
    let world = World::new().await;
    let path = "/v1/event-types/InvoicePaid";
    for value in ["DryRun", "DryRun=", "DryRun=1", "DryRun=True", "DryRun=%20true"] {
        let faults = world.put(KEY, &format!("{path}?{value}"), json!({})).await.faults();
        assert_eq!(faults, [fault("/DryRun", "boolean")], "{value}");
    }
    let tried = world
        .put(KEY, &format!("{path}?DryRun=true"), json!({}))
        .await
        .expect(200);
    assert_eq!(tried, json!({"Checked": 0, "Failing": 0, "Samples": []}));
    world.get(KEY, path).await.problem(404);
    world
        .put(KEY, &format!("{path}?DryRun=false"), json!({}))
        .await
        .expect(201);
}
