//! What a producer may rely on: ids in order, one delivery for one `Id`, whole batches.

use crate::scene::Scene;
use herald_tests::PATIENCE;
use herald_tests::api::text;
use herald_tests::samples::{event, guid, id_of, merged, packet_of, without};
use herald_tests::wait::wait_for;
use serde_json::{Value, json};
use std::collections::BTreeSet;

fn ndjson(events: &[Value]) -> String {
    events.iter().map(Value::to_string).collect::<Vec<_>>().join("\n") + "\n"
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_several_and_lines_are_accepted_with_their_ids_in_order() {
    let scene = Scene::start().await;
    scene.subscribe("/", json!({})).await;
    let mut all = BTreeSet::new();
    let one = packet_of(scene.company);
    assert_eq!(scene.api.publish(&one).await, id_of(&one));
    all.insert(id_of(&one));
    let several: Vec<_> = (0..20).map(|_| packet_of(scene.company)).collect();
    let ids: Vec<_> = several.iter().map(id_of).collect();
    assert_eq!(scene.api.publish_all(&several).await, ids);
    all.extend(ids);
    let lines: Vec<_> = (0..20).map(|_| packet_of(scene.company)).collect();
    let ids: Vec<_> = lines.iter().map(id_of).collect();
    let text = ndjson(&lines).replace('\n', "\r\n\n");
    let reply = scene
        .api
        .publish_raw("application/x-ndjson; charset=utf-8", &text)
        .await;
    assert_eq!(reply.json()["Ids"], json!(ids));
    all.extend(ids);
    let arrived = scene.receiver.wait_for("/", all.len()).await;
    let arrived: BTreeSet<_> = arrived.iter().map(|request| request.event_id().to_owned()).collect();
    assert_eq!(arrived, all);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_without_id_is_given_one() {
    let scene = Scene::start().await;
    scene.subscribe("/", json!({})).await;
    let anonymous = without(packet_of(scene.company), "/Id");
    let first = scene.api.publish(&anonymous).await;
    let second = scene.api.publish(&merged(anonymous, json!({ "Id": null }))).await;
    assert_ne!(first, second, "two events, although their text is the same");
    assert!(first.parse::<uuid::Uuid>().is_ok() && first == first.to_lowercase());
    let arrived: BTreeSet<_> = scene
        .receiver
        .wait_for("/", 2)
        .await
        .iter()
        .map(|request| request.event_id().to_owned())
        .collect();
    assert_eq!(arrived, BTreeSet::from([first.clone(), second]));
    let shown = scene.api.get(&format!("/v1/events/{first}")).await.expect(200);
    assert!(shown.text().contains(&first));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_id_again_is_delivered_once_and_the_first_body_wins() {
    let scene = Scene::start().await;
    scene.subscribe("/", json!({})).await;
    let first = packet_of(scene.company);
    let id = id_of(&first);
    assert_eq!(scene.api.publish(&first).await, id);
    scene.receiver.wait_for("/", 1).await;
    let differing = merged(first.clone(), json!({ "Data": { "CustomerName": "Somebody else" } }));
    let upper = merged(first.clone(), json!({ "Id": id.to_uppercase() }));
    assert_eq!(scene.api.publish(&first).await, id);
    assert_eq!(scene.api.publish(&differing).await, id);
    assert_eq!(scene.api.publish(&upper).await, id, "an Id is written in lower case");
    // Within one batch too.
    let twin = packet_of(scene.company);
    assert_eq!(
        scene.api.publish_all(&[twin.clone(), twin.clone(), first]).await,
        [id_of(&twin), id_of(&twin), id]
    );
    let audit = scene.herald.settled(PATIENCE).await;
    assert_eq!(
        (audit.count("Events"), audit.count("Matched")),
        (2, 2),
        "{}",
        audit.output
    );
    let requests = scene.receiver.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0].json()["CustomerName"], "Globex Corporation");
    wait_for("a metric counts one differing repeat", PATIENCE, async || {
        let differing = scene.herald.metrics().await.sum(|name| name.contains("differing"));
        (differing - 1.0).abs() < 0.5
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_id_of_two_accounts_is_two_events() {
    let scene = Scene::start().await;
    scene.subscribe("/", json!({})).await;
    let event = packet_of(scene.company);
    let (one, other) = (
        scene.api.account("one", &["Producer"]).await,
        scene.api.account("other", &["Producer"]).await,
    );
    one.api.publish(&event).await;
    other.api.publish(&event).await;
    let requests = scene.receiver.wait_for("/", 2).await;
    assert_ne!(requests[0].header("webhook-id"), requests[1].header("webhook-id"));
    assert_eq!(requests[0].event_id(), requests[1].event_id());
    assert_eq!(scene.herald.settled(PATIENCE).await.count("Events"), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_with_one_bad_event_is_refused_whole() {
    let scene = Scene::start().await;
    scene.subscribe("/", json!({})).await;
    let mut events: Vec<_> = (0..5).map(|_| packet_of(scene.company)).collect();
    events[3]["Data"]["Status"] = json!(9);
    events[4]["Data"]["GUID"] = json!(guid());
    let problem = scene.api.post("/v1/events", &json!(events)).await.problem(400);
    assert_eq!(
        problem.faults(),
        [("/3/Data/Status", "one_of"), ("/4/Data/GUID", "reserved")]
    );
    let lines = ndjson(&events);
    let problem = scene
        .api
        .post_raw("/v1/events", "application/x-ndjson", lines)
        .await
        .problem(400);
    assert_eq!(
        problem.faults(),
        [("/3/Data/Status", "one_of"), ("/4/Data/GUID", "reserved")]
    );
    // What is accepted afterwards is recorded after anything that had been let through before.
    let good = scene.publish().await;
    let audit = scene.herald.settled(PATIENCE).await;
    assert_eq!(audit.count("Events"), 1);
    let arrived: Vec<_> = scene
        .receiver
        .requests()
        .iter()
        .map(|request| request.event_id().to_owned())
        .collect();
    assert_eq!(arrived, [good]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_limits_are_where_the_contract_has_them() {
    let Scene { herald, api, .. } = Scene::start().await;
    let small = |_| {
        let objects = json!({ "Company": guid() });
        json!({ "Id": guid(), "Type": "BusinessObjectCreated", "Objects": objects, "Data": { "Name": "x" } })
    };
    let most: Vec<_> = (0..10_000).map(small).collect();
    assert_eq!(api.publish_all(&most).await.len(), 10_000);
    let too_many: Vec<_> = (0..10_001).map(small).collect();
    let _refused = api
        .post("/v1/events", &json!(too_many))
        .await
        .problem(400)
        .naming("", "max_items");
    let limit = 256 * 1024;
    let _accepted = api.publish_raw("application/json", &sized(limit)).await;
    let _refused = api
        .post_raw("/v1/events", "application/json", sized(limit + 1))
        .await
        .problem(413);
    let batch = format!("[{},{}]", sized(1000), sized(limit + 1));
    let _refused = api.post_raw("/v1/events", "application/json", batch).await.problem(413);
    let padded = |bytes: usize| format!("{}{}", " ".repeat(bytes - 1000), sized(1000));
    let _accepted = api.publish_raw("application/json", &padded(8 << 20)).await;
    assert_eq!(herald.settled(PATIENCE).await.count("Events"), 10_002);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_sends_too_much_is_told_so() {
    let Scene { herald, api, .. } = Scene::start().await;
    let limit = 8 << 20;
    for bytes in [limit + 1, 2 * limit] {
        let body = format!("{}{}", " ".repeat(bytes - 1000), sized(1000));
        let reply = api.post_raw("/v1/events", "application/json", body.clone()).await;
        let _refused = reply.problem(413);
        // Without a Content-Length, the server only finds out on the way.
        let chunks: Vec<_> = body
            .into_bytes()
            .chunks(1 << 16)
            .map(|chunk| Ok::<_, std::io::Error>(chunk.to_vec()))
            .collect();
        let stream = reqwest::Body::wrap_stream(futures_util::stream::iter(chunks));
        let _refused = api
            .post_raw("/v1/events", "application/json", stream)
            .await
            .problem(413);
    }
    assert_eq!(herald.settled(PATIENCE).await.count("Events"), 0);
}

/// An event whose text has exactly that many bytes.
fn sized(bytes: usize) -> String {
    let event = merged(event("BusinessObjectCreated"), json!({ "Data": { "Filling": "" } })).to_string();
    let filling = "x".repeat(bytes - event.len());
    event.replace(r#""Filling":"""#, &format!(r#""Filling":"{filling}""#))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_and_rejections_can_be_asked_for() {
    let scene = Scene::start().await;
    let made = scene.subscribe("/", json!({})).await;
    let event = scene.publish().await;
    let delivery = scene.api.delivery_with(made.guid(), "Delivered").await;
    for filter in [
        format!("Event={event}"),
        format!("Status=Delivered&Subscription={}", made.guid()),
    ] {
        let found = scene.api.list(&format!("/v1/deliveries?{filter}")).await;
        assert_eq!(found.len(), 1, "{filter}: {found:#?}");
        assert_eq!(text(&found[0]["Id"]), text(&delivery["Id"]));
    }
    for filter in [
        "Status=Dead",
        "Until=2001-01-01T00:00:00Z",
        "Since=2999-01-01T00:00:00Z",
    ] {
        assert!(
            scene.api.list(&format!("/v1/deliveries?{filter}")).await.is_empty(),
            "{filter}"
        );
    }
    let _bad = scene.api.get("/v1/deliveries?Status=Lost").await.problem(400);
    assert!(scene.api.list("/v1/rejected-events").await.is_empty());
}
