use super::*;
use crate::commands::listen::Receiver;
use crate::commands::send::producer::Producer;
use uuid::Uuid;

fn items(count: u64) -> Vec<Item> {
    let id = |n: u64| EventId(Uuid::from_u128(n.into()));
    (1..=count)
        .map(|n| Item {
            text: format!("{{\"n\":{n}}}"),
            id: Some(id(n)),
            line: n * 10,
            end: n,
        })
        .collect()
}

#[test]
fn one_event_is_an_object_and_several_an_array() {
    assert_eq!(body(&items(1)), r#"{"n":1}"#);
    assert_eq!(body(&items(2)), r#"[{"n":1},{"n":2}]"#);
}

#[test]
fn faults_are_told_with_line_pointer_and_rule() {
    let problem = r#"{"detail":"the request has 2 faults","errors":[
        {"pointer":"/1/Data/Status","rule":"one_of","detail":"Status must be one of 0 Draft"},
        {"pointer":"/0","rule":"object","detail":"an event must be a JSON object"}]}"#;
    assert_eq!(
        explain(StatusCode::BAD_REQUEST, problem, &items(2)),
        "refused: 400 Bad Request, the request has 2 faults\n  \
         line 20: /Data/Status (one_of) Status must be one of 0 Draft\n  \
         line 10: (object) an event must be a JSON object"
    );
    assert_eq!(
        explain(StatusCode::NOT_FOUND, "<html>", &items(1)),
        "refused: 404 Not Found"
    );
    let one = items(1);
    let (item, pointer) = locate("/Type", &one);
    assert_eq!((item.map(|item| item.line), pointer), (Some(10), "/Type"));
    assert!(locate("/Type", &items(2)).0.is_none());
}

#[test]
fn an_answer_must_have_an_id_for_each_event() {
    let id = "0193f1a0-7c1e-7d1a-b1f0-3a5c7e9d1b2f";
    let both = format!(r#"{{"Id":"{id}","Ids":["{id}"]}}"#);
    assert!(matches!(accepted(&both, &items(1)), Answer::Accepted(ids) if ids.len() == 1));
    assert!(matches!(
        accepted(&format!(r#"{{"Id":"{id}"}}"#), &items(1)),
        Answer::Accepted(_)
    ));
    assert!(matches!(accepted(&both, &items(2)), Answer::Refused(_)));
    assert!(matches!(accepted("ok", &items(1)), Answer::Refused(_)));
}

#[test]
fn a_url_must_be_one() {
    assert!(Http::new("127.0.0.1:8080", "k").is_err());
    assert!(Http::new("ftp://127.0.0.1", "k").is_err());
    assert!(Http::new("http://127.0.0.1:8080", "a\nb").is_err());
}

/// Answers 503 once and then 200: what is not 202 is not taken for it.
#[tokio::test]
async fn a_batch_is_repeated_and_only_202_is_success() {
    drop(rustls::crypto::ring::default_provider().install_default());
    let seen = std::sync::atomic::AtomicU32::new(0);
    let mut receiver = Receiver::start(0, move |_path, _attempt| {
        match seen.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
            0 => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::OK,
        }
    })
    .await
    .unwrap();
    let producer = Producer::http(&format!("http://{}/", receiver.address()), "k").unwrap();
    let waited = std::cell::Cell::new(0);
    let error = producer
        .publish(&items(2), |_reason| waited.set(waited.get() + 1))
        .await
        .unwrap_err();
    assert!(error.contains("200 OK"), "{error}");
    assert_eq!(waited.get(), 1);
    for _ in 0..2 {
        let request = receiver.next().await.unwrap();
        assert_eq!(request.path, "/v1/events");
        assert_eq!(request.body, r#"[{"n":1},{"n":2}]"#.as_bytes());
        assert_eq!(request.header("authorization"), Some("Bearer k"));
    }
}
