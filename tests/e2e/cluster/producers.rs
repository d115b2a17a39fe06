//! Events that others publish over AMQP: taken like those of ingest, or kept with the reason.

use crate::scene::Scene;
use herald_tests::api::text;
use herald_tests::producer::{Outgoing, publish};
use herald_tests::samples::{guid, id_of, merged, packet_of, without};
use herald_tests::wait::wait_for;
use herald_tests::{Herald, PATIENCE, Stack};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_over_amqp_are_delivered_and_malformed_ones_kept_with_the_reason() {
    let scene = Scene::with(Herald::builder().stack(Stack::Cluster)).await;
    scene.subscribe("/", json!({})).await;
    let event = || packet_of(scene.company);
    let by_message_id = guid().to_string();
    let twice = event();
    let users = event();
    let mut wrong_type = event();
    wrong_type["Type"] = json!("PacketLost");
    let well_formed = [
        Outgoing::new(twice.to_string()),
        Outgoing::new(twice.to_string()),
        Outgoing {
            message_id: Some(by_message_id.clone()),
            ..Outgoing::new(without(event(), "/Id").to_string())
        },
        Outgoing {
            user_id: Some("guest".to_owned()),
            ..Outgoing::new(users.to_string())
        },
    ];
    // Each with a piece of the reason that the entry must give.
    let malformed = [
        (Outgoing::new("not JSON"), "json"),
        (Outgoing::new(wrong_type.to_string()), "/Type"),
        (Outgoing::new(json!([event()]).to_string()), "array"),
        (Outgoing::new(without(event(), "/Id").to_string()), "/Id"),
        (Outgoing::new(b"{\"Id\":\"\xff\xfe\"}"), "utf8"),
    ];
    let messages: Vec<_> = well_formed
        .into_iter()
        .chain(malformed.iter().map(|(message, _)| message.clone()))
        .collect();
    let url = scene.herald.ground().vhost.url().to_owned();
    let count = messages.len();
    let answers = tokio::task::spawn_blocking(move || publish(&url, &messages))
        .await
        .unwrap();
    assert_eq!(answers, vec!["confirmed"; count]);

    let arrived: BTreeSet<_> = scene
        .receiver
        .wait_for("/", 3)
        .await
        .iter()
        .map(|request| request.event_id().to_owned())
        .collect();
    assert_eq!(arrived, BTreeSet::from([id_of(&twice), by_message_id, id_of(&users)]));
    wait_for("what is malformed is kept", PATIENCE, async || {
        scene.api.list("/v1/rejected-events").await.len() >= malformed.len()
    })
    .await;
    let audit = scene.herald.settled(PATIENCE).await.exact();
    assert_eq!(
        (audit.count("Events"), audit.count("Rejected")),
        (3, 5),
        "{}",
        audit.output
    );
    let rejected = scene.api.list("/v1/rejected-events").await;
    assert_eq!(rejected.len(), malformed.len(), "each once: {rejected:#?}");
    for (message, reason) in &malformed {
        let entry = rejected.iter().find(|entry| match std::str::from_utf8(&message.body) {
            Ok(body) => entry["Body"] == body,
            Err(_) => entry["BodyBase64"].is_string(),
        });
        let entry = entry.unwrap_or_else(|| panic!("{message:?} is not in {rejected:#?}"));
        assert_eq!(text(&entry["Account"]), "amqp", "{entry}");
        assert!(
            entry["Errors"].to_string().contains(reason),
            "{reason} is not in {entry}"
        );
    }
    assert_eq!(scene.receiver.requests().len(), 3, "each once");
}

/// What only one who writes AMQP himself would think of.
const ODD: [&str; 10] = [
    "app_id",
    "content_type",
    "correlation_id",
    "message_id",
    "reply_to",
    "type",
    "header_name",
    "key",
    "deep",
    "types",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_property_ends_the_connection_or_holds_up_what_comes_behind() {
    let scene = Scene::with(Herald::builder().stack(Stack::Cluster)).await;
    scene.subscribe("/", json!({})).await;
    let mut messages: Vec<_> = ODD
        .iter()
        .map(|odd| Outgoing {
            odd: Some((*odd).to_owned()),
            ..Outgoing::new(packet_of(scene.company).to_string())
        })
        .collect();
    messages.push(Outgoing::new(packet_of(scene.company).to_string()));
    // An id that cannot be read is none.
    messages.push(Outgoing {
        odd: Some("message_id".to_owned()),
        ..Outgoing::new(without(packet_of(scene.company), "/Id").to_string())
    });
    messages.push(Outgoing {
        encoding: Some("gzip".to_owned()),
        ..Outgoing::new(b"\x1f\x8b\x08\0\0\0\0\0\0\xff")
    });
    let url = scene.herald.ground().vhost.url().to_owned();
    let count = messages.len();
    let answers = tokio::task::spawn_blocking(move || publish(&url, &messages))
        .await
        .unwrap();
    assert_eq!(answers, vec!["confirmed"; count]);
    scene.receiver.wait_for("/", ODD.len() + 1).await;
    wait_for("what has no id is kept", PATIENCE, async || {
        scene.api.list("/v1/rejected-events").await.len() == 2
    })
    .await;
    let rejected = scene.api.list("/v1/rejected-events").await;
    for rule in ["message_id", "content_encoding"] {
        let named = rejected.iter().any(|entry| entry["Errors"].to_string().contains(rule));
        assert!(named, "{rule} is not in {rejected:#?}");
    }
    let metrics = scene.herald.metrics().await;
    let lost = metrics.sum(|name| name.starts_with("herald_broker_reconnections_total"));
    assert!(lost.abs() < 0.5, "{lost} connections were made again");
    let audit = scene.herald.settled(PATIENCE).await.exact();
    let counts = (audit.count("Events"), audit.count("Rejected"));
    assert_eq!(counts, (ODD.len() as u64 + 1, 2), "{}", audit.output);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cloud_events_over_amqp_are_events_and_a_malformed_one_is_kept_with_its_attributes() {
    let scene = Scene::with(Herald::builder().stack(Stack::Cluster)).await;
    let what = json!({ "Webhook": "BusinessObjectUpdated", "FilterObjectType": "Company" });
    let to = json!({ "SubscriberURL": scene.receiver.url("/"), "Format": "CloudEvents" });
    scene.api.subscribe(&merged(what, to)).await;
    let attributes = |id: &str, kind: &str| {
        let attributes = [
            ("specversion", "1.0"),
            ("id", id),
            ("source", "https://example.com/companies"),
            ("type", kind),
            ("company", &scene.company.to_string()),
        ];
        attributes.map(|(name, text)| (name.to_owned(), text.to_owned()))
    };
    let kind = "BusinessObjectUpdated";
    let data = r#"{ "Name" : "Globex" }"#;
    let structured = attributes("structured", kind).into_iter();
    let mut structured: Map<String, Value> = structured.map(|(name, text)| (name, text.into())).collect();
    structured.insert("data".to_owned(), json!({ "Name": "Globex" }));
    let mut messages = vec![Outgoing {
        content_type: Some("application/cloudevents+json".to_owned()),
        ..Outgoing::new(Value::from(structured).to_string())
    }];
    let binary = |prefix: &str, kind: &str| Outgoing {
        headers: attributes(prefix, kind)
            .map(|(name, text)| (format!("{prefix}{name}"), text))
            .into(),
        ..Outgoing::new(data)
    };
    messages.extend(["cloudEvents_", "cloudEvents:", "ce-"].map(|prefix| binary(prefix, kind)));
    messages.push(binary("ce-", "CompanyLost"));
    let url = scene.herald.ground().vhost.url().to_owned();
    let count = messages.len();
    let answers = tokio::task::spawn_blocking(move || publish(&url, &messages))
        .await
        .unwrap();
    assert_eq!(answers, vec!["confirmed"; count]);
    for request in scene.receiver.wait_for("/", count - 1).await {
        let arrived = request.json();
        assert_eq!(arrived["id"], request.event_id(), "{arrived}");
        assert_eq!(arrived["subject"], format!("Company/{}", scene.company));
        assert_eq!(arrived["data"], json!({ "Name": "Globex" }));
    }
    wait_for("what is malformed is kept", PATIENCE, async || {
        scene.api.list("/v1/rejected-events").await.len() == 1
    })
    .await;
    let rejected = scene.api.list("/v1/rejected-events").await.swap_remove(0);
    let kept = text(&rejected["Body"]);
    assert!(kept.contains(r#""type":"CompanyLost""#), "{rejected}");
    assert!(kept.contains(&format!(r#""data":{data}"#)), "{rejected}");
    let audit = scene.herald.settled(PATIENCE).await.exact();
    assert_eq!(
        (audit.count("Events"), audit.count("Rejected")),
        (4, 1),
        "{}",
        audit.output
    );
}
