//! Bad input of every kind: the answer names each fault, and nothing of it is accepted.

use crate::scene::Scene;
use herald_tests::samples::{event, guid, merged, packet_of, without};
use herald_tests::{Herald, PATIENCE, Reply};
use http::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_fault_of_an_event_is_named() {
    let herald = Herald::start().await;
    let api = herald.api();
    let changed = |kind: &str, change: Value| merged(event(kind), change);
    let data = |name: &str, value: Value| changed("PacketCreated", json!({ "Data": { name: value } }));
    let told = |name: &str, value: Value| changed("NewCommunication", json!({ "Data": { name: value } }));
    let lacking = |kind: &str, pointer: &str| without(event(kind), pointer);
    let cases = [
        (lacking("PacketCreated", "/Type"), "/Type", "required"),
        (lacking("PacketCreated", "/Objects"), "/Objects", "required"),
        (lacking("PacketCreated", "/Data"), "/Data", "required"),
        (
            changed("PacketCreated", json!({ "Type": "PacketDeleted" })),
            "/Type",
            "one_of",
        ),
        (changed("PacketCreated", json!({ "Type": 7 })), "/Type", "one_of"),
        (changed("PacketCreated", json!({ "Id": "17" })), "/Id", "uuid"),
        (
            changed("PacketCreated", json!({ "Id": uuid::Uuid::nil() })),
            "/Id",
            "uuid",
        ),
        (
            changed("PacketCreated", json!({ "OccurredAt": "yesterday" })),
            "/OccurredAt",
            "date_time",
        ),
        (
            changed("PacketCreated", json!({ "Colour": "blue" })),
            "/Colour",
            "known_field",
        ),
        (
            changed("PacketCreated", json!({ "Objects": { "Customer": guid() } })),
            "/Objects/Customer",
            "known_field",
        ),
        (
            changed("PacketCreated", json!({ "Objects": { "Company": "Globex" } })),
            "/Objects/Company",
            "guid",
        ),
        (changed("PacketCreated", json!({ "Objects": [] })), "/Objects", "object"),
        (
            lacking("PacketCreated", "/Objects/Packet"),
            "/Objects/Packet",
            "required",
        ),
        (
            lacking("PacketUpdated", "/Objects/Packet"),
            "/Objects/Packet",
            "required",
        ),
        (
            lacking("NewCommunication", "/Objects/Communication"),
            "/Objects/Communication",
            "required",
        ),
        (
            lacking("BusinessObjectCreated", "/Objects/Company"),
            "/Objects",
            "exactly_one",
        ),
        (
            changed("BusinessObjectUpdated", json!({ "Objects": { "Schedule": guid() } })),
            "/Objects",
            "exactly_one",
        ),
        (changed("PacketCreated", json!({ "Data": "text" })), "/Data", "object"),
        (
            lacking("PacketCreated", "/Data/CustomerName"),
            "/Data/CustomerName",
            "required",
        ),
        (lacking("BusinessObjectCreated", "/Data/Name"), "/Data/Name", "required"),
        (data("CustomerName", json!(null)), "/Data/CustomerName", "required"),
        (data("CustomerName", json!(7)), "/Data/CustomerName", "text"),
        (data("Title", json!(["x"])), "/Data/Title", "text"),
        (data("Status", json!(6)), "/Data/Status", "one_of"),
        (data("Status", json!("1")), "/Data/Status", "one_of"),
        (data("RAGStatus", json!(-3)), "/Data/RAGStatus", "one_of"),
        (data("ProcessType", json!(0)), "/Data/ProcessType", "one_of"),
        (data("StartedbyMethod", json!(9)), "/Data/StartedbyMethod", "one_of"),
        (
            data("DueDate", json!("2026-13-01T00:00:00Z")),
            "/Data/DueDate",
            "date_time",
        ),
        (told("Importance", json!(3)), "/Data/Importance", "one_of"),
        (told("AttachmentCount", json!(-1)), "/Data/AttachmentCount", "range"),
        (told("AttachmentCount", json!(1.5)), "/Data/AttachmentCount", "range"),
        (told("CommunicationType", json!(8)), "/Data/CommunicationType", "one_of"),
        (data("GUID", json!(guid())), "/Data/GUID", "reserved"),
        (data("PacketGUID", json!(guid())), "/Data/PacketGUID", "reserved"),
        (
            data("CommunicationGUID", json!(null)),
            "/Data/CommunicationGUID",
            "reserved",
        ),
        (data("ObjectGUID", json!("")), "/Data/ObjectGUID", "reserved"),
        (data("ObjectType", json!(31)), "/Data/ObjectType", "reserved"),
    ];
    for (event, pointer, rule) in cases {
        let problem = api.post("/v1/events", &event).await.problem(400).naming(pointer, rule);
        let elsewhere = problem
            .faults()
            .into_iter()
            .find(|(other, _)| !other.starts_with(pointer));
        assert_eq!(elsewhere, None, "what is in order is not named: {:#}", problem.0);
    }
    assert_eq!(herald.settled(PATIENCE).await.count("Events"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_faults_come_at_once() {
    let herald = Herald::start().await;
    let change = json!({ "Id": "x", "Objects": { "Packet": null }, "Data": { "Status": 9, "Title": 1, "GUID": "x" } });
    let bad = without(merged(event("PacketCreated"), change), "/Data/Reference");
    let problem = herald.api().post("/v1/events", &bad).await.problem(400);
    let mut pointers: Vec<_> = problem
        .faults()
        .into_iter()
        .map(|(pointer, _)| pointer.to_owned())
        .collect();
    pointers.sort_unstable();
    let expected = [
        "/Data/GUID",
        "/Data/Reference",
        "/Data/Status",
        "/Data/Title",
        "/Id",
        "/Objects/Packet",
    ];
    assert_eq!(pointers, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_an_event_is_refused() {
    let herald = Herald::start().await;
    let api = herald.api();
    let twice = r#"{"Type":"BusinessObjectCreated","Type":"BusinessObjectCreated","Objects":{},"Data":{"Name":"x"}}"#;
    let whole = event("BusinessObjectCreated").to_string();
    let cut = whole.split_at(whole.len() - 1).0.to_owned();
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let bodies = [
        "", " ", "{", "not JSON", "null", "42", "\"text\"", "[]", "[null]", "[[]]", "{}", twice, &cut, &deep,
    ];
    for body in bodies {
        let start: String = body.chars().take(40).collect();
        let problem = api
            .post_raw("/v1/events", "application/json", body.to_owned())
            .await
            .problem(400);
        assert!(!problem.faults().is_empty(), "{start:?}: {:#}", problem.0);
    }
    for body in ["", "\n\n", "not JSON\n", "[]\n"] {
        let problem = api
            .post_raw("/v1/events", "application/x-ndjson", body)
            .await
            .problem(400);
        assert!(!problem.faults().is_empty(), "{body:?}: {:#}", problem.0);
    }
    let _utf8 = api
        .post_raw("/v1/events", "application/json", vec![b'"', 0xff, 0xfe, b'"'])
        .await
        .problem(400);
    let broken = format!("{whole}\n{cut}\n");
    let problem = api
        .post_raw("/v1/events", "application/x-ndjson", broken)
        .await
        .problem(400);
    assert!(problem.faults()[0].0.starts_with("/1"), "{:#}", problem.0);
    assert_eq!(herald.settled(PATIENCE).await.count("Events"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_content_types_are_415() {
    let herald = Herald::start().await;
    let api = herald.api();
    let body = event("PacketCreated").to_string();
    for content_type in [
        "text/plain",
        "application/xml",
        "application/x-www-form-urlencoded",
        "application/jsonx",
    ] {
        let _refused = api
            .post_raw("/v1/events", content_type, body.clone())
            .await
            .problem(415);
    }
    let none = api.request(Method::POST, "/v1/events").body(body);
    let _refused = Reply::of(none).await.unwrap().problem(415);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_and_roles_are_checked() {
    let Scene {
        herald: _herald, api, ..
    } = Scene::start().await;
    let event = event("PacketCreated");
    for (method, path) in [
        (Method::POST, "/v1/events"),
        (Method::POST, "/v1/subscriptions"),
        (Method::GET, "/v1/subscriptions"),
        (Method::GET, "/v1/deliveries"),
        (Method::GET, "/v1/dead-letters"),
        (Method::GET, "/v1/accounts"),
    ] {
        for stranger in [api.without_key(), api.with_key("wrong"), api.with_key("")] {
            let _refused = stranger.send(method.clone(), path, &event).await.problem(401);
        }
        let basic = api
            .without_key()
            .request(method, path)
            .header("authorization", "Basic dXNlcjpwYXNz");
        let _refused = Reply::of(basic.header("content-type", "application/json").body("{}"))
            .await
            .unwrap()
            .problem(401);
    }
    let builder = api.account("builder", &["ProcessBuilder"]).await;
    builder
        .api
        .post("/v1/events", &event)
        .await
        .problem(403)
        .saying("Producer");
    let producer = api.account("producer", &["Producer"]).await;
    producer.api.get("/v1/accounts").await.problem(403).saying("Operator");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_paths_and_methods_are_problems_too() {
    let herald = Herald::start().await;
    let api = herald.api();
    for path in ["/v1", "/v1/nothing", "/v2/events", "/v1/subscriptions/not-a-guid/more"] {
        let _missing = api.get(path).await.problem(404);
    }
    let _missing = api.get(&format!("/v1/subscriptions/{}", guid())).await.problem(404);
    let _missing = api.get(&format!("/v1/deliveries/{}", guid())).await.problem(404);
    let _missing = api.get(&format!("/v1/events/{}", guid())).await.problem(404);
    let _missing = api.get("/v1/webhooks/Nothing").await.problem(404);
    for (method, path) in [
        (Method::PUT, "/v1/events"),
        (Method::DELETE, "/v1/subscriptions"),
        (Method::POST, "/v1/webhooks"),
    ] {
        let reply = api.send(method, path, &json!({})).await;
        assert!(
            !reply.header("allow").is_empty(),
            "405 names what is allowed: {:?}",
            reply.headers
        );
        let _refused = reply.problem(405);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_body_is_instead_of_json_is_named() {
    let herald = Herald::start().await;
    let api = herald.api();
    let good = event("BusinessObjectCreated").to_string();
    let utf16: Vec<u8> = "\u{feff}{}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    for (content_type, body, words) in [
        (
            "application/json",
            format!("\u{feff}{good}").into_bytes(),
            "byte order mark",
        ),
        (
            "application/x-ndjson",
            format!("\u{feff}{good}\n{good}").into_bytes(),
            "byte order mark",
        ),
        ("application/json", utf16, "UTF-16"),
        ("application/json", vec![0x1f, 0x8b, 8, 0], "gzip"),
        (
            "application/json",
            format!("{good}\n{good}\n").into_bytes(),
            "application/x-ndjson",
        ),
        ("application/json", format!("\u{a0}{good}").into_bytes(), "is not JSON"),
        (
            "application/x-ndjson",
            format!("{good}\u{b}\n{good}").into_bytes(),
            "is not JSON",
        ),
        (
            "application/json",
            good.replacen("Name\":\"", "Name\":\"\\ud83d", 1).into_bytes(),
            "surrogate",
        ),
    ] {
        let problem = api.post_raw("/v1/events", content_type, body).await.problem(400);
        assert!(problem.0.to_string().contains(words), "{words}: {:#}", problem.0);
    }
    for coding in ["gzip", "x-nonsense"] {
        let request = api.request(Method::POST, "/v1/events");
        let request = request
            .header("content-type", "application/json")
            .header("content-encoding", coding);
        let refused = Reply::of(request.body(good.clone())).await.unwrap();
        assert_eq!(refused.header("accept-encoding"), "identity");
        let _refused = refused.problem(415);
    }
    assert_eq!(herald.settled(PATIENCE).await.count("Events"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_that_are_only_announced_keep_nobody_out() {
    let scene = Scene::start().await;
    let mut announced = Vec::new();
    for _ in 0..16 {
        let mut stream = TcpStream::connect(("127.0.0.1", scene.herald.port())).await.unwrap();
        let upload = head(&scene.herald, "Content-Length: 8000000") + "[";
        stream.write_all(upload.as_bytes()).await.unwrap();
        announced.push(stream);
    }
    // With more than its bytes a request is another's as well: the largest there may be.
    let event = packet_of(scene.company).to_string();
    let largest = format!("{event}{}", " ".repeat((8 << 20) - event.len()));
    let reply = scene.api.post_raw("/v1/events", "application/json", largest).await;
    let _accepted = reply.expect(202);
    drop(announced);
}

/// A request head for an upload, as a client without manners would send it.
fn head(herald: &Herald, framing: &str) -> String {
    format!(
        "POST /v1/events HTTP/1.1\r\nHost: herald\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n{framing}\r\n\r\n",
        herald.operator_key()
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_does_not_end_accepts_nothing() {
    let scene = Scene::start().await;
    scene.subscribe("/", json!({})).await;
    let herald = &scene.herald;
    // Each body is a whole event: only the framing says that more should come.
    let event = packet_of(scene.company).to_string();
    let chunk = format!("{:x}\r\n{event}\r\n", event.len());
    let uploads = [
        head(herald, "Transfer-Encoding: chunked") + &chunk,
        head(herald, &format!("Content-Length: {}", event.len() + 1)) + &event,
    ];
    for upload in uploads {
        let mut stream = TcpStream::connect(("127.0.0.1", herald.port())).await.unwrap();
        stream.write_all(upload.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        // Whether there is an answer at all is the server's choice; it must not be a 202.
        drop(stream.read_to_end(&mut answer).await);
        assert!(
            !String::from_utf8_lossy(&answer).starts_with("HTTP/1.1 2"),
            "{}",
            String::from_utf8_lossy(&answer)
        );
    }
    // One that stays open and silent holds nobody else up.
    let mut silent = TcpStream::connect(("127.0.0.1", herald.port())).await.unwrap();
    silent
        .write_all((head(herald, "Transfer-Encoding: chunked") + &chunk).as_bytes())
        .await
        .unwrap();
    let id = scene.publish().await;
    assert_eq!(scene.receiver.wait_for_one("/").await.event_id(), id);
    assert_eq!(herald.settled(PATIENCE).await.count("Events"), 1);
    drop(silent);
}
