//! Each webhook fires for what it should, and for nothing else.

use crate::scene::Scene;
use herald_tests::samples::{
    COMPANY, CONTRACT, PACKET, PROCESS, SCHEDULE, SERVICE, event, guid, merged, packet_of, packets_of, subscription,
    without,
};
use herald_tests::{Api, PATIENCE, Receiver};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use uuid::Uuid;

/// The objects that everything in the cross product is about, in the order of [`OBJECT_TYPES`].
struct World {
    objects: [Uuid; 6],
}

const OBJECT_TYPES: [(&str, u16); 6] = [
    ("Company", COMPANY),
    ("Contract", CONTRACT),
    ("Service", SERVICE),
    ("Process", PROCESS),
    ("Packet", PACKET),
    ("Schedule", SCHEDULE),
];

/// Every webhook with every filter that it may have; whether it takes a GUID; the events that fire it.
const WEBHOOKS: [(&str, &str, bool, &[&str]); 12] = [
    ("PacketCreated", "Company", true, &["PacketCreated"]),
    ("PacketCreated", "Contract", true, &["PacketCreated"]),
    ("PacketCreated", "Service", true, &["PacketCreated"]),
    ("PacketCreated", "Process", true, &["PacketCreated"]),
    ("PacketUpdated", "Packet", true, &["PacketUpdated"]),
    ("NewCommunication", "Packet", true, &["NewCommunication"]),
    (
        "BusinessObjectCreated",
        "Company",
        false,
        &["BusinessObjectCreated of Company"],
    ),
    (
        "BusinessObjectCreated",
        "Schedule",
        false,
        &["BusinessObjectCreated of Schedule"],
    ),
    (
        "BusinessObjectUpdated",
        "Company",
        false,
        &["BusinessObjectUpdated of Company"],
    ),
    (
        "BusinessObjectUpdated",
        "Schedule",
        false,
        &["BusinessObjectUpdated of Schedule"],
    ),
    (
        "SpecificBusinessObjectUpdated",
        "Company",
        true,
        &["BusinessObjectUpdated of Company"],
    ),
    (
        "SpecificBusinessObjectUpdated",
        "Schedule",
        true,
        &["BusinessObjectUpdated of Schedule"],
    ),
];

impl World {
    fn guid(&self, name: &str) -> Uuid {
        let position = OBJECT_TYPES
            .iter()
            .position(|(known, _)| *known == name)
            .expect("a known object");
        self.objects[position]
    }

    /// An event of every type, about these objects, with the name that [`WEBHOOKS`] has for it.
    fn events(&self) -> Vec<(&'static str, Value)> {
        let packet = json!({ "Objects": {
            "Company": self.guid("Company"), "Contract": self.guid("Contract"), "Service": self.guid("Service"),
            "Process": self.guid("Process"), "Packet": self.guid("Packet"),
        }});
        let company = json!({ "Objects": { "Company": self.guid("Company") } });
        let schedule = json!({ "Objects": { "Company": null, "Schedule": self.guid("Schedule") } });
        vec![
            ("PacketCreated", merged(event("PacketCreated"), packet.clone())),
            ("PacketUpdated", merged(event("PacketUpdated"), packet.clone())),
            ("NewCommunication", merged(event("NewCommunication"), packet)),
            (
                "BusinessObjectCreated of Company",
                merged(event("BusinessObjectCreated"), company.clone()),
            ),
            (
                "BusinessObjectCreated of Schedule",
                merged(event("BusinessObjectCreated"), schedule.clone()),
            ),
            (
                "BusinessObjectUpdated of Company",
                merged(event("BusinessObjectUpdated"), company),
            ),
            (
                "BusinessObjectUpdated of Schedule",
                merged(event("BusinessObjectUpdated"), schedule),
            ),
        ]
    }
}

/// Subscribes `/webhook/type/suffix` for every row, and returns the GUIDs.
async fn subscribe_all(api: &Api, receiver: &Receiver, world: &World, suffix: &str) -> Vec<String> {
    let mut made = Vec::new();
    for (webhook, object, takes_guid, _) in WEBHOOKS {
        let number = OBJECT_TYPES
            .iter()
            .find(|(name, _)| *name == object)
            .expect("a known object")
            .1;
        let guid = takes_guid.then(|| world.guid(object));
        let url = receiver.url(&format!("/{webhook}/{object}/{suffix}"));
        made.push(
            api.subscribe(&subscription(webhook, number, guid, &url))
                .await
                .guid()
                .to_owned(),
        );
    }
    made
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_webhook_fires_for_what_it_should_and_nothing_else() {
    let Scene {
        herald, api, receiver, ..
    } = Scene::start().await;
    let world = World {
        objects: std::array::from_fn(|_| guid()),
    };
    let elsewhere = World {
        objects: std::array::from_fn(|_| guid()),
    };
    subscribe_all(&api, &receiver, &world, "right").await;
    subscribe_all(&api, &receiver, &elsewhere, "wrong").await;
    for guid in subscribe_all(&api, &receiver, &world, "inactive").await {
        let _patched = api
            .patch(&format!("/v1/subscriptions/{guid}"), &json!({ "Active": false }))
            .await
            .expect(200);
    }
    for guid in subscribe_all(&api, &receiver, &world, "deleted").await {
        let _deleted = api.delete(&format!("/v1/subscriptions/{guid}")).await.expect(204);
    }
    let mut expected = BTreeSet::new();
    for (name, event) in world.events() {
        let id = api.publish(&event).await;
        for (webhook, object, takes_guid, fired_by) in WEBHOOKS {
            if fired_by.contains(&name) {
                expected.insert((format!("/{webhook}/{object}/right"), id.clone()));
                if !takes_guid {
                    expected.insert((format!("/{webhook}/{object}/wrong"), id.clone()));
                }
            }
        }
    }
    let audit = herald.settled(PATIENCE).await;
    let requests = receiver.requests();
    let arrived: BTreeSet<_> = requests
        .iter()
        .map(|request| (request.path.clone(), request.event_id().to_owned()))
        .collect();
    assert_eq!(arrived, expected);
    assert_eq!(requests.len(), expected.len(), "each exactly once");
    assert_eq!(
        (audit.count("Events"), audit.count("Matched")),
        (7, expected.len() as u64)
    );
    for request in requests {
        let webhook = request.path.split('/').nth(1).unwrap_or_default();
        assert_eq!(request.header("webhook-type"), webhook);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_alias_is_accepted_and_never_emitted() {
    let Scene {
        herald: _herald,
        api,
        receiver,
        ..
    } = Scene::start().await;
    let made = api
        .subscribe(&subscription("NewBusinessObject", COMPANY, None, &receiver.url("/")))
        .await;
    assert_eq!(made.0["Webhook"], "BusinessObjectCreated");
    assert_eq!(api.get(&made.path()).await.json()["Webhook"], "BusinessObjectCreated");
    api.publish(&event("BusinessObjectCreated")).await;
    let request = receiver.wait_for_one("/").await;
    assert_eq!(request.header("webhook-type"), "BusinessObjectCreated");
    let delivery = api.delivery_with(made.guid(), "Delivered").await;
    assert_eq!(delivery["Webhook"], "BusinessObjectCreated");
    let catalogue = api.get("/v1/webhooks").await.expect(200);
    assert!(catalogue.text().contains("SpecificBusinessObjectUpdated"));
    assert!(
        !catalogue.text().contains("NewBusinessObject\""),
        "{}",
        catalogue.text()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_listens_from_activation_to_deletion() {
    let scene = Scene::start().await;
    let subscription = scene.subscribe("/", json!({ "Active": false })).await;
    let before = scene.publish().await;
    // 202 comes before dispatch, and what counts is what is active at dispatch.
    assert_eq!(scene.herald.settled(PATIENCE).await.count("Events"), 1);
    let _patched = scene
        .api
        .patch(&subscription.path(), &json!({ "Active": true }))
        .await
        .expect(200);
    let during = scene.publish().await;
    scene.receiver.wait_for("/", 1).await;
    let _deleted = scene.api.delete(&subscription.path()).await.expect(204);
    let after = scene.publish().await;
    let audit = scene.herald.settled(PATIENCE).await;
    assert_eq!((audit.count("Events"), audit.count("Matched")), (3, 1));
    let arrived: Vec<_> = scene
        .receiver
        .requests()
        .iter()
        .map(|request| request.event_id().to_owned())
        .collect();
    assert_eq!(arrived, [during], "not {before} and not {after}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscriptions_that_share_a_url_get_a_message_each() {
    let scene = Scene::start().await;
    let mut guids = BTreeSet::new();
    for _ in 0..3 {
        guids.insert(scene.subscribe("/shared", json!({})).await.guid().to_owned());
    }
    scene.publish().await;
    let requests = scene.receiver.wait_for("/shared", 3).await;
    let told: BTreeSet<_> = requests
        .iter()
        .map(|request| request.header("webhook-guid").to_owned())
        .collect();
    assert_eq!(told, guids);
    for request in requests {
        assert_eq!(request.json()["GUID"], request.header("webhook-guid"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn matching_crosses_accounts_and_the_case_of_guids() {
    let Scene {
        herald: _herald,
        api,
        receiver,
        company,
    } = Scene::start().await;
    let producer = api.account("producer", &["Producer"]).await;
    let subscriber = api.account("subscriber", &["ProcessBuilder"]).await;
    api.grant(&subscriber.id, COMPANY, Some(company)).await;
    let upper = company.to_string().to_uppercase();
    let body = merged(
        packets_of(company, &receiver.url("/")),
        json!({ "FilterObjectGUID": upper }),
    );
    let made = subscriber.api.subscribe(&body).await;
    assert_eq!(made.0["FilterObjectGUID"], company.to_string(), "written in lower case");
    let mixed = json!({ "Objects": { "Company": company.to_string().to_uppercase() } });
    let first = producer.api.publish(&packet_of(company)).await;
    let second = producer.api.publish(&merged(packet_of(company), mixed)).await;
    let requests = receiver.wait_for("/", 2).await;
    let arrived: BTreeSet<_> = requests.iter().map(|request| request.event_id().to_owned()).collect();
    assert_eq!(arrived, BTreeSet::from([first, second]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_without_the_filtered_object_does_not_match() {
    let scene = Scene::start().await;
    scene.subscribe("/", json!({})).await;
    let lacking = without(packet_of(scene.company), "/Objects/Company");
    scene.api.publish(&lacking).await;
    let zeros = json!({ "Objects": { "Company": Uuid::nil() } });
    scene.api.publish(&merged(packet_of(scene.company), zeros)).await;
    let audit = scene.herald.settled(PATIENCE).await;
    assert_eq!((audit.count("Events"), audit.count("Matched")), (2, 0));
}
