use crate::world::{KEY, World};
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
