//! The message: exact bytes, all headers, a signature that an independent verifier accepts.

use crate::scene::{Scene, id};
use herald_tests::api::text;
use herald_tests::samples::{COMPANY, PACKET, event, guid, merged, quick_retry, subscription};
use herald_tests::{Answer, Api, Reply, Subscription};
use serde_json::{Value, json};

/// Text that every parser would change that writes again what it has read.
const DATA: &str = r#"{ "CustomerName" : "Gl\u00f6bex \/ Ω",
	"SupplierName":"\ud83d\ude00","ContractName":"a\tb",  "ServiceName":"","ServiceLineName":"x","ProcessTypeName":"y",
  "Amount": 1.50e+02, "Huge":123456789012345678901234567890, "Zero" : -0.0,
  "Nested": { "b" : [ 1 ,2 ], "a":null }, "Reference":"202234-C","Status":1,"RAGStatus":-2,"ProcessType":3 }"#;

async fn publish_text(api: &Api, kind: &str, objects: &Value, data: &str) -> String {
    let body = format!(
        r#"{{"Id":"{}","Type":"{kind}", "Objects" : {objects},"Data": {data} }}"#,
        guid()
    );
    let reply = api.publish_raw("application/json", &body).await;
    text(&reply.json()["Id"]).to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_body_is_the_data_byte_for_byte_with_guids_in_front() {
    let scene = Scene::start().await;
    let made = scene.subscribe("/packet", json!({})).await;
    let packet = guid();
    let objects = json!({ "Company": scene.company, "Packet": packet.to_string().to_uppercase() });
    publish_text(&scene.api, "PacketCreated", &objects, DATA).await;
    let request = scene.receiver.wait_for_one("/packet").await;
    let rest = DATA.strip_prefix('{').unwrap();
    assert_eq!(
        request.text(),
        format!(r#"{{"GUID":"{}","PacketGUID":"{packet}",{rest}"#, made.guid())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_family_gets_the_guids_that_it_needs() {
    let Scene {
        herald: _herald,
        api,
        receiver,
        ..
    } = Scene::start().await;
    let (packet, communication, object) = (guid(), guid(), guid());
    let told = api
        .subscribe(&subscription(
            "NewCommunication",
            PACKET,
            Some(packet),
            &receiver.url("/told"),
        ))
        .await;
    let made = api
        .subscribe(&subscription(
            "BusinessObjectCreated",
            COMPANY,
            None,
            &receiver.url("/made"),
        ))
        .await;
    let data = r#"{"Importance":2,"AttachmentCount":0,"CommunicationType":4}"#;
    let objects = json!({ "Packet": packet, "Communication": communication });
    publish_text(&api, "NewCommunication", &objects, data).await;
    publish_text(
        &api,
        "BusinessObjectCreated",
        &json!({ "Company": object }),
        r#"{"Name":"2022 Schedule"}"#,
    )
    .await;
    let request = receiver.wait_for_one("/told").await;
    let front = format!(
        r#"{{"GUID":"{}","PacketGUID":"{packet}","CommunicationGUID":"{communication}","#,
        told.guid()
    );
    assert_eq!(request.text(), front + data.strip_prefix('{').unwrap());
    let request = receiver.wait_for_one("/made").await;
    let front = format!(r#"{{"GUID":"{}","ObjectGUID":"{object}","ObjectType":31,"#, made.guid());
    assert_eq!(request.text(), front + r#""Name":"2022 Schedule"}"#);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_headers_are_those_of_the_contract() {
    let scene = Scene::start().await;
    let custom = json!({ "CustomHeader": "X-Api-Key", "CustomHeaderValue": "let me in" });
    let made = scene.subscribe("/", custom).await;
    let event = scene.publish().await;
    let request = scene.receiver.wait_for_one("/").await;
    let delivery = scene.api.delivery_with(made.guid(), "Delivered").await;
    assert_eq!(request.method, "POST");
    assert_eq!(request.header("content-type"), "application/json");
    assert_eq!(request.header("webhook-id"), id(&delivery));
    assert_eq!(request.header("webhook-guid"), made.guid());
    assert_eq!(request.header("webhook-type"), "PacketCreated");
    assert_eq!(request.event_id(), event);
    assert_eq!(request.attempt(), 1);
    assert_eq!(request.header("x-api-key"), "let me in");
    assert!(
        request.header("user-agent").starts_with("Herald/"),
        "{:?}",
        request.headers
    );
    let sent_at: u64 = request.header("webhook-timestamp").parse().unwrap();
    let age = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs().abs_diff(sent_at);
    assert!(age < 60, "webhook-timestamp is {age} s off");
    let parts: Vec<_> = request.header("traceparent").split('-').collect();
    assert_eq!(
        parts.iter().map(|part| part.len()).collect::<Vec<_>>(),
        [2, 32, 16, 2],
        "{parts:?}"
    );
    assert!(
        parts
            .iter()
            .all(|part| part.bytes().all(|byte| byte.is_ascii_hexdigit())),
        "{parts:?}"
    );
    assert_eq!(
        (&delivery["EventId"], &delivery["SubscriptionGUID"]),
        (&json!(event), &made.0["GUID"])
    );
    assert_eq!(
        (&delivery["AttemptCount"], &delivery["LastStatusCode"]),
        (&json!(1), &json!(200))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_signature_verifies_whatever_the_secret() {
    let scene = Scene::start().await;
    let plain = scene
        .subscribe("/plain", json!({ "SecretKey": "geheim, äußerst" }))
        .await;
    let encoded = scene
        .subscribe(
            "/encoded",
            json!({ "SecretKey": "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3" }),
        )
        .await;
    let made = scene.subscribe("/made", json!({})).await;
    assert_eq!(encoded.signing_secret(), "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3");
    assert!(text(&made.0["SecretKey"]).starts_with("whsec_"));
    assert_eq!(made.0["SecretKey"], made.0["SigningSecret"]);
    scene.publish().await;
    let request = scene.receiver.wait_for_one("/plain").await;
    assert!(request.verifies_with(plain.signing_secret()));
    assert!(request.verifies_with_key("geheim, äußerst".as_bytes()));
    assert!(!request.verifies_with_key(b"another key"), "the verifier verifies");
    assert!(
        scene
            .receiver
            .wait_for_one("/encoded")
            .await
            .verifies_with_key(b"0123456789abcdef01234567")
    );
    assert!(
        scene
            .receiver
            .wait_for_one("/made")
            .await
            .verifies_with(made.signing_secret())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotated_secret_signs_from_then_on() {
    let scene = Scene::start().await;
    let old = scene.subscribe("/", json!({})).await;
    let path = format!("{}/rotate-secret", old.path());
    let rotated = Reply::of(scene.api.request(http::Method::POST, &path))
        .await
        .unwrap()
        .expect(200);
    let new = Subscription(rotated.json());
    assert_ne!(new.signing_secret(), old.signing_secret());
    assert_eq!(new.guid(), old.guid());
    let shown = scene.api.get(&old.path()).await.expect(200).json();
    assert_eq!(
        (shown.get("SecretKey"), shown.get("SigningSecret")),
        (None, None),
        "shown once only"
    );
    scene.publish().await;
    let request = scene.receiver.wait_for_one("/").await;
    assert!(request.verifies_with(new.signing_secret()));
    assert!(!request.verifies_with(old.signing_secret()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_former_secret_signs_beside_the_new_one_while_a_rotation_overlaps() {
    let scene = Scene::start().await;
    let old = scene.subscribe("/", json!({})).await;
    let path = format!("{}/rotate-secret", old.path());
    let rotated = scene
        .api
        .post(&path, &json!({ "OverlapSeconds": 3600 }))
        .await
        .expect(200);
    let new = Subscription(rotated.json());
    scene.publish().await;
    let request = scene.receiver.wait_for_one("/").await;
    assert!(request.verifies_with(new.signing_secret()));
    assert!(request.verifies_with(old.signing_secret()));
    assert!(!request.verifies_with_key(b"another key"), "the verifier verifies");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_asymmetric_signature_verifies_with_the_public_key_beside_the_one_of_the_secret() {
    let scene = Scene::start().await;
    let made = scene.subscribe("/", json!({ "Signatures": ["v1", "v1a"] })).await;
    let plain = scene.subscribe("/plain", json!({})).await;
    let shown = scene.api.get(&made.path()).await.expect(200).json();
    let public = text(&shown["PublicKey"]).to_owned();
    scene.publish().await;
    let request = scene.receiver.wait_for_one("/").await;
    assert!(request.verifies_with(made.signing_secret()));
    assert!(request.verifies_with_public_key(&public));
    let unsigned = scene.receiver.wait_for_one("/plain").await;
    assert!(unsigned.verifies_with(plain.signing_secret()) && !unsigned.verifies_with_public_key(&public));
    // A rotation that overlaps: both keys of either kind sign.
    let path = format!("{}/rotate-secret", made.path());
    let rotated = scene.api.post(&path, &json!({ "OverlapSeconds": 3600 })).await;
    let rotated = Subscription(rotated.expect(200).json());
    let new = text(&rotated.0["PublicKey"]);
    assert_ne!(new, public);
    scene.publish().await;
    scene.receiver.wait_for("/", 2).await;
    let request = scene.receiver.requests_to("/").remove(1);
    for secret in [&made, &rotated] {
        assert!(request.verifies_with(secret.signing_secret()));
    }
    assert!(request.verifies_with_public_key(new) && request.verifies_with_public_key(&public));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attempts_are_counted_and_everything_else_stays_the_same() {
    let scene = Scene::start().await;
    scene.receiver.script("/", |request| {
        Answer::status(if request.repeat < 4 { 500 } else { 200 })
    });
    let made = scene.subscribe("/", quick_retry()).await;
    scene.publish().await;
    let delivery = scene.api.delivery_with(made.guid(), "Delivered").await;
    let requests = scene.receiver.requests_to("/");
    assert_eq!(
        requests.iter().map(herald_tests::Request::attempt).collect::<Vec<_>>(),
        [1, 2, 3, 4]
    );
    for request in &requests {
        assert_eq!(request.header("webhook-id"), id(&delivery));
        assert_eq!(request.body, requests[0].body);
        assert!(
            request.verifies_with(made.signing_secret()),
            "signed anew at each attempt"
        );
    }
    let stamps: Vec<u64> = requests
        .iter()
        .map(|request| request.header("webhook-timestamp").parse().unwrap())
        .collect();
    assert!(stamps.is_sorted(), "{stamps:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_kept_between_messages() {
    let scene = Scene::start().await;
    let made = scene.subscribe("/", json!({ "MaxInFlight": 2 })).await;
    scene.publish_many(200).await;
    scene.receiver.wait_for("/", 200).await;
    scene.api.deliveries_with(made.guid(), 200, "Delivered").await;
    let connections = scene.receiver.connections();
    assert!(
        connections <= 20,
        "{connections} connections for 200 messages, two at a time"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_url_and_header_hold_for_the_next_attempt() {
    let scene = Scene::start().await;
    scene.receiver.script("/old", |_| Answer::status(500));
    let made = scene.subscribe("/old", quick_retry()).await;
    let event = scene.publish().await;
    scene.receiver.wait_for("/old", 1).await;
    let change = json!({
        "SubscriberURL": scene.receiver.url("/new"), "CustomHeader": "X-Route", "CustomHeaderValue": "7"
    });
    let patched = scene.api.patch(&made.path(), &change).await.expect(200).json();
    assert_eq!(patched, merged(patched.clone(), change));
    let request = scene.receiver.wait_for_one("/new").await;
    assert_eq!((request.event_id(), request.header("x-route")), (event.as_str(), "7"));
    assert!(request.verifies_with(made.signing_secret()), "the secret is kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_fields_of_data_pass_through() {
    let Scene {
        herald: _herald,
        api,
        receiver,
        ..
    } = Scene::start().await;
    api.subscribe(&subscription(
        "BusinessObjectCreated",
        COMPANY,
        None,
        &receiver.url("/"),
    ))
    .await;
    let extra = json!({ "Data": { "Colour": "blue", "Parts": [1, { "Deep": true }] } });
    api.publish(&merged(event("BusinessObjectCreated"), extra.clone()))
        .await;
    let message = receiver.wait_for_one("/").await.json();
    assert_eq!(
        (&message["Colour"], &message["Parts"]),
        (&extra["Data"]["Colour"], &extra["Data"]["Parts"])
    );
}
