//! Subscriptions as resources: defaults, rules, changes, pages.

use crate::scene::Scene;
use herald_tests::api::text;
use herald_tests::samples::{COMPANY, PACKET, SCHEDULE, guid, merged, packets_of, subscription, without};
use herald_tests::{Api, Herald};
use http::Method;
use serde_json::{Value, json};

const URL: &str = "https://subscriber.example/hook";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_subscription_has_the_defaults_and_a_location() {
    let herald = Herald::start().await;
    let api = herald.api();
    let company = guid();
    let reply = api
        .post("/v1/subscriptions", &packets_of(company, URL))
        .await
        .expect(201);
    let made = reply.json();
    let path = format!("/v1/subscriptions/{}", text(&made["GUID"]));
    assert!(reply.header("location").ends_with(&path), "{:?}", reply.headers);
    let expected = json!({
        "Webhook": "PacketCreated", "FilterObjectType": 31, "FilterObjectGUID": company, "SubscriberURL": URL,
        "CustomHeader": null, "CustomHeaderValue": null, "Name": null, "Active": true, "TimeoutSeconds": 15,
        "Retry": {
            "InitialSeconds": 5, "Multiplier": 3, "MaxSeconds": 21600, "GiveUpAfterSeconds": 259_200, "MaxAttempts": null
        },
        "MaxInFlight": 64, "RateLimitPerSecond": null, "Signatures": ["v1"], "PublicKey": null,
    });
    let shown = api.get(&path).await.expect(200).json();
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&made[name], value, "{name} as created");
        assert_eq!(&shown[name], value, "{name} as read");
    }
    assert!(made["CreatedAt"].is_string() && made["UpdatedAt"].is_string());
    assert_eq!((shown.get("SecretKey"), shown.get("SigningSecret")), (None, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_fault_of_a_subscription_is_named() {
    let herald = Herald::start().await;
    let api = herald.api();
    let good = packets_of(guid(), URL);
    let with = |change: Value| merged(good.clone(), change);
    let object = subscription("BusinessObjectCreated", COMPANY, None, URL);
    let long = "x".repeat(5000);
    let cases = [
        (without(good.clone(), "/Webhook"), "/Webhook", "required"),
        (with(json!({ "Webhook": "PacketDeleted" })), "/Webhook", "one_of"),
        (
            without(good.clone(), "/FilterObjectType"),
            "/FilterObjectType",
            "required",
        ),
        (with(json!({ "FilterObjectType": 32 })), "/FilterObjectType", "one_of"),
        (
            with(json!({ "FilterObjectType": PACKET })),
            "/FilterObjectType",
            "one_of",
        ),
        (
            with(json!({ "FilterObjectType": "Schedule" })),
            "/FilterObjectType",
            "one_of",
        ),
        (
            without(good.clone(), "/FilterObjectGUID"),
            "/FilterObjectGUID",
            "required",
        ),
        (with(json!({ "FilterObjectGUID": "" })), "/FilterObjectGUID", "required"),
        (
            with(json!({ "FilterObjectGUID": uuid::Uuid::nil() })),
            "/FilterObjectGUID",
            "required",
        ),
        (
            with(json!({ "FilterObjectGUID": "Globex" })),
            "/FilterObjectGUID",
            "guid",
        ),
        (
            merged(object, json!({ "FilterObjectGUID": guid() })),
            "/FilterObjectGUID",
            "empty",
        ),
        (without(good.clone(), "/SubscriberURL"), "/SubscriberURL", "required"),
        (
            with(json!({ "SubscriberURL": "subscriber.example" })),
            "/SubscriberURL",
            "url",
        ),
        (
            with(json!({ "SubscriberURL": "ftp://subscriber.example" })),
            "/SubscriberURL",
            "url_scheme",
        ),
        (
            with(json!({ "SubscriberURL": "https://a:b@subscriber.example" })),
            "/SubscriberURL",
            "url_credentials",
        ),
        (
            with(json!({ "SubscriberURL": "https://subscriber.example#x" })),
            "/SubscriberURL",
            "url_fragment",
        ),
        (
            with(json!({ "SubscriberURL": format!("{URL}/{long}") })),
            "/SubscriberURL",
            "max_length",
        ),
        (with(json!({ "CustomHeader": "X-A" })), "/CustomHeaderValue", "required"),
        (with(json!({ "CustomHeaderValue": "a" })), "/CustomHeader", "required"),
        (
            with(json!({ "CustomHeader": "X A", "CustomHeaderValue": "a" })),
            "/CustomHeader",
            "header_name",
        ),
        (
            with(json!({ "CustomHeader": "webhook-id", "CustomHeaderValue": "a" })),
            "/CustomHeader",
            "reserved",
        ),
        (
            with(json!({ "CustomHeader": "Host", "CustomHeaderValue": "a" })),
            "/CustomHeader",
            "reserved",
        ),
        (
            with(json!({ "CustomHeader": "X-A", "CustomHeaderValue": "a\r\nX-B: c" })),
            "/CustomHeaderValue",
            "header_value",
        ),
        (with(json!({ "Name": 7 })), "/Name", "text"),
        (with(json!({ "Name": long })), "/Name", "max_length"),
        (with(json!({ "Active": "yes" })), "/Active", "boolean"),
        (with(json!({ "SecretKey": "" })), "/SecretKey", "secret"),
        (with(json!({ "SecretKey": "whsec_?" })), "/SecretKey", "secret"),
        (with(json!({ "TimeoutSeconds": 0.05 })), "/TimeoutSeconds", "range"),
        (with(json!({ "TimeoutSeconds": 31 })), "/TimeoutSeconds", "range"),
        (with(json!({ "Retry": 5 })), "/Retry", "object"),
        (
            with(json!({ "Retry": { "InitialSeconds": -1 } })),
            "/Retry/InitialSeconds",
            "range",
        ),
        (
            with(json!({ "Retry": { "Multiplier": 0.5 } })),
            "/Retry/Multiplier",
            "range",
        ),
        (
            with(json!({ "Retry": { "MaxAttempts": 0 } })),
            "/Retry/MaxAttempts",
            "range",
        ),
        (
            with(json!({ "Retry": { "Attempts": 3 } })),
            "/Retry/Attempts",
            "known_field",
        ),
        (with(json!({ "MaxInFlight": 0 })), "/MaxInFlight", "range"),
        (with(json!({ "RateLimitPerSecond": 0 })), "/RateLimitPerSecond", "range"),
        (with(json!({ "SubscriberUrl": URL })), "/SubscriberUrl", "known_field"),
    ];
    for (body, pointer, rule) in cases {
        let _problem = api
            .post("/v1/subscriptions", &body)
            .await
            .problem(400)
            .naming(pointer, rule);
    }
    assert!(api.list("/v1/subscriptions").await.is_empty(), "nothing of it was made");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_packet_number_for_a_schedule_is_explained() {
    let herald = Herald::start().await;
    let body = subscription("BusinessObjectCreated", PACKET, None, URL);
    herald
        .api()
        .post("/v1/subscriptions", &body)
        .await
        .problem(400)
        .saying("260");
    let named = merged(body, json!({ "FilterObjectType": "Schedule" }));
    let made = herald.api().subscribe(&named).await;
    assert_eq!(made.0["FilterObjectType"], SCHEDULE, "a name in, the number out");
    for empty in [json!(null), json!(""), json!(uuid::Uuid::nil())] {
        let made = herald
            .api()
            .subscribe(&merged(named.clone(), json!({ "FilterObjectGUID": empty })))
            .await;
        assert_eq!(made.0["FilterObjectGUID"], json!(null));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn put_accepts_what_get_gave_and_keeps_the_secret() {
    let scene = Scene::start().await;
    let made = scene
        .subscribe(
            "/",
            json!({ "Name": "before", "CustomHeader": "X-A", "CustomHeaderValue": "1" }),
        )
        .await;
    let shown = scene.api.get(&made.path()).await.json();
    let put = scene
        .api
        .send(Method::PUT, &made.path(), &shown)
        .await
        .expect(200)
        .json();
    for name in ["GUID", "Webhook", "SubscriberURL", "Name", "CustomHeader", "CreatedAt"] {
        assert_eq!(put[name], shown[name], "{name}");
    }
    let renamed = merged(
        without(without(shown, "/CustomHeader"), "/CustomHeaderValue"),
        json!({ "Name": "after" }),
    );
    let put = scene
        .api
        .send(Method::PUT, &made.path(), &renamed)
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&put["Name"], &put["CustomHeader"]),
        (&json!("after"), &json!(null)),
        "absent is the default"
    );
    scene.publish().await;
    assert!(
        scene
            .receiver
            .wait_for_one("/")
            .await
            .verifies_with(made.signing_secret())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patch_is_a_merge_patch_and_refuses_faults_whole() {
    let herald = Herald::start().await;
    let api = herald.api();
    let made = api
        .subscribe(&merged(
            packets_of(guid(), URL),
            json!({ "Name": "one", "MaxInFlight": 7 }),
        ))
        .await;
    let change = json!({ "Name": null, "Retry": { "MaxAttempts": 4 } });
    let patched = api.patch(&made.path(), &change).await.expect(200).json();
    assert_eq!((&patched["Name"], &patched["MaxInFlight"]), (&json!(null), &json!(7)));
    assert_eq!(
        (&patched["Retry"]["MaxAttempts"], &patched["Retry"]["Multiplier"]),
        (&json!(4), &json!(3))
    );
    let bad = json!({ "Name": "two", "TimeoutSeconds": 99 });
    let _refused = api
        .patch(&made.path(), &bad)
        .await
        .problem(400)
        .naming("/TimeoutSeconds", "range");
    assert_eq!(api.get(&made.path()).await.json(), patched);
    let merge = api
        .request(Method::PATCH, &made.path())
        .header("content-type", "application/merge-patch+json");
    let reply = herald_tests::Reply::of(merge.body(r#"{"Name":"three"}"#))
        .await
        .unwrap()
        .expect(200);
    assert_eq!(reply.json()["Name"], "three");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_come_in_pages_newest_first() {
    let herald = Herald::start().await;
    let api = herald.api();
    let mut made = Vec::new();
    for _ in 0..7 {
        made.insert(0, api.subscribe(&packets_of(guid(), URL)).await.guid().to_owned());
    }
    let mut seen = Vec::new();
    let mut next = String::new();
    loop {
        let page = api
            .get(&format!("/v1/subscriptions?Limit=3{next}"))
            .await
            .expect(200)
            .json();
        let items = page["Items"].as_array().unwrap();
        assert!(items.len() <= 3);
        seen.extend(items.iter().map(|item| text(&item["GUID"]).to_owned()));
        match page["NextCursor"].as_str() {
            Some(cursor) => next = format!("&Cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(seen, made);
    for query in ["Limit=0", "Limit=501", "Limit=x", "Cursor=nonsense"] {
        let _bad = api.get(&format!("/v1/subscriptions?{query}")).await.problem(400);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_catalogue_describes_each_webhook() {
    let herald = Herald::start().await;
    let api: Api = herald.api();
    let whole = api.get("/v1/webhooks").await.expect(200);
    for name in [
        "PacketCreated",
        "PacketUpdated",
        "NewCommunication",
        "BusinessObjectCreated",
        "BusinessObjectUpdated",
        "SpecificBusinessObjectUpdated",
    ] {
        assert!(whole.text().contains(name), "{name} is missing in {}", whole.text());
        let one = api.get(&format!("/v1/webhooks/{name}")).await.expect(200);
        assert!(one.text().contains("GUID"), "{}", one.text());
    }
}
