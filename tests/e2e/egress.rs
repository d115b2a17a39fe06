//! No request goes where it may not.

use crate::scene::{Scene, attempts};
use herald_tests::herald::Builder;
use herald_tests::samples::{guid, merged, packet_of, packets_of, quick_retry};
use herald_tests::{Herald, Receiver};
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_literal_address_that_is_not_public_is_refused_at_once() {
    let Scene {
        herald: _herald,
        api,
        company,
        ..
    } = Scene::with(Herald::builder().public_only()).await;
    for host in [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:10.0.0.1]",
        "[fe80::1]",
        "[fc00::1]",
        "[64:ff9b::7f00:1]",
        "[64:ff9b:1::7f00:1]",
        "[::127.0.0.1]",
        "[2002:7f00:1::1]",
        "[2001:0:7f00:1::1]",
        "[2606:4700::5efe:127.0.0.1]",
        "127.0.0.1.",
        "0177.0.0.1",
        "127%2e0.0.1",
        "168.63.129.16",
    ] {
        let body = packets_of(company, &format!("http://{host}:8080/hook"));
        let reply = api.post("/v1/subscriptions", &body).await;
        assert_eq!(reply.status, 400, "{host}: {}", reply.text());
        let problem = reply.problem(400);
        assert!(
            problem.faults().iter().any(|(pointer, _)| *pointer == "/SubscriberURL"),
            "{host}: {:#}",
            problem.0
        );
        problem.saying("--egress-allow");
    }
    let made = api
        .subscribe(&packets_of(company, "https://subscriber.example/hook"))
        .await;
    let change = json!({ "SubscriberURL": "http://127.0.0.1/" });
    api.patch(&made.path(), &change)
        .await
        .problem(400)
        .saying("--egress-allow");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_resolves_to_a_forbidden_address_is_dead_at_once() {
    let scene = Scene::with(Herald::builder().public_only()).await;
    for host in ["localhost", "localhost.", "LOCALHOST", "inner.localhost"] {
        let url = format!("http://{host}:{}/", scene.receiver.port());
        let company = guid();
        let subscription = merged(packets_of(company, &url), quick_retry());
        let made = scene.api.subscribe(&subscription).await;
        scene.api.publish(&packet_of(company)).await;
        let delivery = scene.api.delivery_with(made.guid(), "Dead").await;
        assert_eq!(
            (&delivery["Reason"], &delivery["LastError"]),
            (&json!("address_refused"), &json!("address_refused")),
            "{host}"
        );
        let [attempt] = attempts(&delivery) else {
            panic!("what can never succeed is not repeated: {delivery:#}")
        };
        let detail = attempt["Detail"].as_str().unwrap_or_default();
        assert!(detail.contains("--egress-allow"), "{attempt}");
    }
    assert_eq!(scene.receiver.connections(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_allowed_network_allows_itself_and_no_other() {
    let scene = Scene::with(
        Herald::builder()
            .public_only()
            .arg("--egress-allow")
            .arg("127.0.0.0/8,10.9.0.0/16"),
    )
    .await;
    scene.subscribe("/", json!({})).await;
    let _made = scene
        .api
        .subscribe(&packets_of(scene.company, "http://10.9.8.7/"))
        .await;
    for host in ["10.8.0.1", "[::1]", "192.168.1.1"] {
        let body = packets_of(scene.company, &format!("http://{host}/"));
        scene
            .api
            .post("/v1/subscriptions", &body)
            .await
            .problem(400)
            .saying("--egress-allow");
    }
    scene.publish().await;
    scene.receiver.wait_for("/", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_is_allowed_by_the_address_that_it_resolves_to() {
    let scene = Scene::start().await;
    let url = format!("http://localhost:{}/named", scene.receiver.port());
    scene.api.subscribe(&packets_of(scene.company, &url)).await;
    scene.publish().await;
    let request = scene.receiver.wait_for_one("/named").await;
    assert_eq!(request.header("host"), format!("localhost:{}", scene.receiver.port()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proxies_in_the_environment_are_ignored() {
    let proxy = Receiver::start().await;
    let variables = [
        "HTTP_PROXY",
        "http_proxy",
        "HTTPS_PROXY",
        "https_proxy",
        "ALL_PROXY",
        "all_proxy",
    ];
    let with_proxy = |builder: Builder, name: &&str| builder.env(name, proxy.url(""));
    let scene = Scene::with(variables.iter().fold(Herald::builder(), with_proxy)).await;
    scene.subscribe("/", json!({})).await;
    scene.publish().await;
    let request = scene.receiver.wait_for_one("/").await;
    assert_eq!(request.path, "/", "in origin form, as to no proxy");
    assert_eq!(proxy.connections(), 0);
}
