use super::{Answer, Gate, Receiver};
use crate::tls::{Authority, install_crypto};
use crate::wait::{PATIENCE, wait_for};
use std::time::Duration;

fn client() -> reqwest::Client {
    install_crypto();
    reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(2))
        .build()
        .unwrap()
}

async fn post(client: &reqwest::Client, url: &str, id: &str) -> reqwest::Result<u16> {
    let response = client.post(url).header("webhook-id", id).body("{}").send().await?;
    let status = response.status().as_u16();
    response.bytes().await.map(|_body| status)
}

#[tokio::test]
async fn records_and_answers_by_script_and_keeps_the_connection() {
    let receiver = Receiver::start().await;
    receiver.script("/a", |request| {
        Answer::status(if request.repeat == 1 { 500 } else { 204 })
    });
    let client = client();
    let url = receiver.url("/a");
    assert_eq!(post(&client, &url, "1").await.unwrap(), 500);
    assert_eq!(post(&client, &url, "2").await.unwrap(), 500);
    assert_eq!(post(&client, &url, "1").await.unwrap(), 204);
    assert_eq!(post(&client, &receiver.url("/b"), "1").await.unwrap(), 200);
    let requests = receiver.requests_to("/a");
    assert_eq!(
        requests.iter().map(|request| request.repeat).collect::<Vec<_>>(),
        [1, 1, 2]
    );
    assert_eq!((requests[0].method.as_str(), requests[0].text()), ("POST", "{}"));
    assert_eq!(receiver.requests().len(), 4);
    assert_eq!(receiver.connections(), 1);
}

#[tokio::test]
async fn misbehaves_as_told() {
    let receiver = Receiver::start().await;
    receiver.script("/hang", |_| Answer::hang());
    receiver.script("/reset", |_| Answer::reset());
    receiver.script("/close", |_| Answer::close());
    receiver.script("/endless", |_| Answer::endless_headers());
    receiver.script("/drip", |_| Answer::ok().dripping());
    receiver.script("/lie", |_| Answer::ok().body("short").declaring(100));
    receiver.script("/big", |_| Answer::ok().body(vec![b'x'; 10_000_000]));
    let client = client();
    for path in ["/hang", "/drip"] {
        let error = post(&client, &receiver.url(path), "1").await.unwrap_err();
        assert!(error.is_timeout(), "{path}: {error:?}");
    }
    for path in ["/reset", "/close", "/endless", "/lie"] {
        let error = post(&client, &receiver.url(path), "1").await.unwrap_err();
        assert!(!error.is_timeout(), "{path}: {error:?}");
    }
    assert_eq!(post(&client, &receiver.url("/big"), "1").await.unwrap(), 200);
    wait_for("the hanging request to end", PATIENCE, async || {
        receiver.in_flight("/hang") == 0
    })
    .await;
}

#[tokio::test]
async fn a_gate_holds_answers_and_requests_in_flight_are_counted() {
    let receiver = Receiver::start().await;
    let gate = Gate::default();
    receiver.script("/", {
        let gate = gate.clone();
        move |_| Answer::ok().behind(&gate)
    });
    let client = client();
    let url = receiver.url("/");
    let both = async { tokio::join!(post(&client, &url, "1"), post(&client, &url, "2")) };
    let opening = async {
        receiver.wait_for("/", 2).await;
        assert_eq!(receiver.in_flight("/"), 2);
        gate.open();
    };
    let ((first, second), ()) = tokio::join!(both, opening);
    assert_eq!((first.unwrap(), second.unwrap()), (200, 200));
    assert_eq!((receiver.in_flight("/"), receiver.most_in_flight("/")), (0, 2));
}

#[tokio::test]
async fn speaks_tls_and_its_certificates_fail_as_named() {
    let authority = Authority::default();
    let folder = tempfile::tempdir().unwrap();
    let pem = std::fs::read(authority.write_pem(folder.path())).unwrap();
    install_crypto();
    let trusting = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([reqwest::Certificate::from_pem(&pem).unwrap()])
        .build()
        .unwrap();
    let good = Receiver::start_tls(authority.good()).await;
    assert_eq!(post(&trusting, &good.url("/"), "1").await.unwrap(), 200);
    assert!(
        post(&client(), &good.url("/"), "1").await.is_err(),
        "an unknown authority"
    );
    let expired = Receiver::start_tls(authority.expired()).await;
    assert!(post(&trusting, &expired.url("/"), "1").await.is_err());
    let wrong = Receiver::start_tls(authority.wrong_name()).await;
    assert!(post(&trusting, &wrong.url("/"), "1").await.is_err());
}
