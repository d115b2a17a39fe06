//! Event types and object types that are registered while Herald runs or come with it, and subscriptions to event types.

use crate::scene::Scene;
use herald_tests::PATIENCE;
use herald_tests::producer::{Outgoing, publish};
use herald_tests::samples::{COMPANY, guid, merged, packet_of};
use herald_tests::wait::wait_until;
use http::Method;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// A type of an invoice, which an event names.
fn invoice() -> Value {
    json!({
        "Description": "An invoice was paid in full.", "Objects": ["Company", "Invoice"],
        "Schema": {"type": "object", "required": ["Number"], "properties": {"Number": {"type": "string"}}},
        "Example": {"Number": "2026-0117"},
    })
}

async fn put(scene: &Scene, path: &str, body: &Value) -> herald_tests::api::Reply {
    scene.api.send(Method::PUT, path, body).await
}

/// A name that no other test has, where they share a Herald.
fn name() -> String {
    format!("Invoice{}", guid().simple())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registered_type_is_matched_from_the_answer_on() {
    let scene = Scene::start().await;
    let (kind, company, paid) = (name(), guid(), guid());
    let _made = put(&scene, "/v1/object-types/Invoice", &json!({})).await;
    let made = put(&scene, &format!("/v1/event-types/{kind}"), &invoice())
        .await
        .expect(201);
    assert_eq!(made.json()["BuiltIn"], false);
    let to = |path: &str| json!({"SubscriberURL": scene.receiver.url(path)});
    let exact = json!({"EventTypes": [kind], "FilterObjectType": "Company", "FilterObjectGUID": company});
    let made = scene.api.subscribe(&merged(exact, to("/exact"))).await;
    assert_eq!(
        (&made.0["Webhook"], &made.0["Format"]),
        (&json!("Events"), &json!("StandardWebhooks"))
    );
    assert_eq!(
        (&made.0["EventTypes"], &made.0["FilterObjectType"]),
        (&json!([kind]), &json!(COMPANY))
    );
    let of_invoice = json!({"EventTypes": ["Invoice*"], "FilterObjectType": "Invoice", "FilterObjectGUID": paid});
    scene.api.subscribe(&merged(of_invoice, to("/prefix"))).await;
    let enate =
        json!({"EventTypes": [kind], "FilterObjectType": "Company", "FilterObjectGUID": company, "Format": "Enate"});
    let enate = scene.api.subscribe(&merged(enate, to("/enate"))).await;
    let other = json!({"EventTypes": [kind], "FilterObjectType": "Company", "FilterObjectGUID": guid()});
    scene.api.subscribe(&merged(other, to("/other"))).await;

    let event = json!({
        "Type": kind, "OccurredAt": "2026-11-28T10:00:00Z", "Objects": {"Company": company, "Invoice": paid},
        "Data": {"Number": "7"},
    });
    // The other process hears of the type when it is asked for it.
    let id = scene.api.publish(&event).await;
    let [exact, prefix, enate_message] = ["/exact", "/prefix", "/enate"].map(|path| scene.receiver.wait_for(path, 1));
    let (exact, prefix, enate_message) = (exact.await, prefix.await, enate_message.await);
    let body = format!(r#"{{"type":"{kind}","timestamp":"2026-11-28T10:00:00Z","data":{{"Number":"7"}}}}"#);
    for message in [&exact[0], &prefix[0]] {
        assert_eq!(message.text(), body);
        assert_eq!(message.header("webhook-type"), kind);
        assert_eq!(message.header("content-type"), "application/json");
    }
    assert_eq!(
        enate_message[0].text(),
        format!(r#"{{"GUID":"{}","Number":"7"}}"#, enate.guid())
    );
    let recorded = wait_until("the event is shown", PATIENCE, async || {
        let reply = scene.api.get(&format!("/v1/events/{id}")).await;
        (reply.status == 200 && reply.json()["MatchedCount"] == 3).then(|| reply.json())
    });
    assert_eq!(recorded.await["Type"], kind.as_str());
    assert_eq!(scene.receiver.requests_to("/other").len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_a_registered_type_are_judged_by_its_schema() {
    let scene = Scene::start().await;
    let kind = name();
    let path = format!("/v1/event-types/{kind}");
    let _made = put(&scene, "/v1/object-types/Invoice", &json!({})).await;
    let _made = put(&scene, &path, &invoice()).await.expect(201);
    let event = |data: Value| json!({"Type": kind, "Objects": {"Company": guid(), "Invoice": guid()}, "Data": data});
    scene.api.publish(&event(json!({"Number": "1"}))).await;
    let wrong = scene
        .api
        .post("/v1/events", &event(json!({"Number": 1})))
        .await
        .problem(400);
    let _named = wrong.naming("/Data/Number", "schema");
    let lacking = json!({"Type": kind, "Objects": {"Company": guid()}, "Data": {"Number": "1"}});
    let lacking = scene.api.post("/v1/events", &lacking).await.problem(400);
    let _named = lacking.naming("/Objects/Invoice", "required");

    // What is stored would not fit, and a dry run says so without changing anything.
    let stricter = merged(
        invoice(),
        json!({"Schema": {"required": ["Total"]}, "Example": {"Number": "", "Total": 1}}),
    );
    let found = wait_until("the event is stored", PATIENCE, async || {
        let found = put(&scene, &format!("{path}?DryRun=true"), &stricter)
            .await
            .expect(200)
            .json();
        (found["Checked"] == 1).then_some(found)
    });
    let found = found.await;
    assert_eq!(
        (&found["Failing"], &found["Samples"][0]["errors"][0]["rule"]),
        (&json!(1), &json!("schema"))
    );
    scene.api.publish(&event(json!({"Number": "2"}))).await;
    let _replaced = put(&scene, &path, &stricter).await.expect(200);
    refused_soon(&scene, &event(json!({"Number": "3"})), "/Data").await;
}

/// What is forbidden is refused soon, at other processes too.
async fn refused_soon(scene: &Scene, event: &Value, pointer: &str) {
    let refused = wait_until("the event is refused", PATIENCE, async || {
        let reply = scene.api.post("/v1/events", event).await;
        (reply.status == 400).then_some(reply)
    });
    let problem = refused.await.problem(400);
    let named = problem.faults().iter().any(|(at, _)| *at == pointer);
    assert!(named, "{problem:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_allowed_now_is_taken_from_the_answer_on() {
    let scene = Scene::start().await;
    let kind = name();
    let path = format!("/v1/event-types/{kind}");
    for n in 0..10 {
        let object = format!("{kind}Object{n}");
        let _made = put(&scene, &format!("/v1/object-types/{object}"), &json!({}))
            .await
            .expect(201);
        let schema = json!({"Schema": {"required": [format!("Field{n}")]}, "Objects": [object]});
        let put = put(&scene, &path, &schema).await;
        assert!([200, 201].contains(&put.status), "{}", put.text());
        let (mut objects, mut data) = (json!({}), json!({}));
        objects[&object] = json!(guid());
        data[format!("Field{n}")] = 1.into();
        scene
            .api
            .publish(&json!({"Type": kind, "Objects": objects, "Data": data}))
            .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_type_is_deleted_only_when_nobody_subscribes_to_it() {
    let scene = Scene::start().await;
    let kind = name();
    let path = format!("/v1/event-types/{kind}");
    let _made = put(&scene, &path, &json!({})).await.expect(201);
    let body = json!({"EventTypes": [kind], "SubscriberURL": scene.receiver.url("/")});
    let made = scene.api.subscribe(&body).await;
    scene.api.delete(&path).await.problem(409).saying("subscription");
    let event = json!({"Type": kind, "Objects": {}, "Data": {}});
    scene.api.publish(&event).await;
    scene.receiver.wait_for("/", 1).await;
    let _deleted = scene.api.delete(&made.path()).await.expect(204);
    let _deleted = scene.api.delete(&path).await.expect(204);
    refused_soon(&scene, &event, "/Type").await;
    let gone = scene.api.post("/v1/subscriptions", &body).await.problem(400);
    let _named = gone.naming("/EventTypes/0", "event_type");
    // Archived, it takes events still, and no new subscriptions.
    let _made = put(&scene, &path, &json!({"Archived": true})).await.expect(201);
    scene.api.publish(&event).await;
    let archived = scene.api.post("/v1/subscriptions", &body).await.problem(400);
    let _named = archived.naming("/EventTypes/0", "archived");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn enates_events_come_to_subscriptions_to_event_types_too() {
    let scene = Scene::start().await;
    let body = json!({
        "EventTypes": ["Packet*", "PacketCreated"], "FilterObjectType": 31, "FilterObjectGUID": scene.company,
        "SubscriberURL": scene.receiver.url("/"),
    });
    let made = scene.api.subscribe(&body).await;
    scene.api.publish(&packet_of(scene.company)).await;
    let message = scene.receiver.wait_for("/", 1).await.remove(0);
    assert_eq!(message.header("webhook-type"), "PacketCreated");
    let sent: Value = serde_json::from_str(message.text()).expect("JSON");
    assert_eq!(
        (&sent["type"], &sent["data"]["GUID"]),
        (&json!("PacketCreated"), &json!(made.guid()))
    );
    // What GET gave is taken by PUT.
    let shown = scene.api.get(&made.path()).await.expect(200).json();
    let _same = put(&scene, &made.path(), &shown).await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_filter_every_object_that_the_events_name_needs_permission() {
    let scene = Scene::start().await;
    let builder = scene.api.account("builder", &["ProcessBuilder"]).await;
    let body = |names: Value| json!({"EventTypes": names, "SubscriberURL": scene.receiver.url("/")});
    for names in [json!(["PacketCreated"]), json!(["Packet*"]), json!(["*"])] {
        let _refused = builder.api.post("/v1/subscriptions", &body(names)).await.problem(403);
    }
    scene.api.grant(&builder.id, 81, None).await;
    builder.api.subscribe(&body(json!(["PacketCreated"]))).await;
    let _refused = builder
        .api
        .post("/v1/subscriptions", &body(json!(["Packet*"])))
        .await
        .problem(403);
    let _refused = builder
        .api
        .send(Method::PUT, "/v1/event-types/Mine", &json!({}))
        .await
        .problem(403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn types_of_packs_are_there_from_the_start() {
    let scene = Scene::start().await;
    let to = |path: &str| json!({"SubscriberURL": scene.receiver.url(path)});
    let exact = json!({"EventTypes": ["Autotask.Ticket.Update", "ContractById"]});
    scene.api.subscribe(&merged(exact, to("/exact"))).await;
    scene
        .api
        .subscribe(&merged(json!({"EventTypes": ["Autotask.*"]}), to("/prefix")))
        .await;
    let event = |kind: &str, data: Value| json!({"Id": guid(), "Type": kind, "Objects": {}, "Data": data});
    let ticket =
        json!({"Id": 351_181, "Fields": {"status": 5, "Own": [1]}, "Changed": ["status"], "PersonID": 30_691_780});
    let (ticket, lookup) = (
        event("Autotask.Ticket.Update", ticket),
        event("ContractById", json!({"contractId": "C-1"})),
    );
    scene.api.publish(&ticket).await;
    scene.api.publish(&lookup).await;
    let sent = scene.receiver.wait_for("/exact", 2).await;
    let types: BTreeSet<_> = sent.iter().map(|message| message.header("webhook-type")).collect();
    assert_eq!(types, BTreeSet::from(["Autotask.Ticket.Update", "ContractById"]));
    let message = scene.receiver.wait_for("/prefix", 1).await.remove(0);
    let body: Value = serde_json::from_str(message.text()).expect("JSON");
    assert_eq!(body["data"], ticket["Data"]);

    let wrong = event("Autotask.Ticket.Update", json!({"Id": "351181"}));
    let refused = scene.api.post("/v1/events", &wrong).await.problem(400);
    let _named = refused.naming("/Data/Id", "schema");
    let path = "/v1/event-types/Autotask.Ticket.Update";
    assert_eq!(scene.api.get(path).await.expect(200).json()["BuiltIn"], true);
    put(&scene, path, &json!({}))
        .await
        .problem(409)
        .saying("came with Herald");

    let Some(broker) = scene.herald.broker().map(str::to_owned) else {
        return;
    };
    let note = event("Autotask.TicketNote.Create", json!({"Id": 29_683}));
    let messages = [&note, &wrong].map(|event| Outgoing::new(event.to_string()));
    let published = tokio::task::spawn_blocking(move || publish(&broker, &messages)).await;
    assert_eq!(published.expect("it ends"), ["confirmed"; 2]);
    let message = scene.receiver.wait_for("/prefix", 2).await.remove(1);
    assert_eq!(message.header("webhook-type"), "Autotask.TicketNote.Create");
    let kept = wait_until("the malformed one is kept", PATIENCE, async || {
        scene.api.list("/v1/rejected-events").await.pop()
    });
    assert!(kept.await["Errors"].to_string().contains("/Data/Id"));
}
