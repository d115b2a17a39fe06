use super::*;
use herald_domain::time::{Clock, Timestamp};
use herald_queue::{Origins, Tag};
use uuid::Uuid;

const ID: &str = "0193f1a0-7c1e-7d1a-b1f0-3a5c7e9d1b2f";
const WITHOUT_ID: &str = r#"{"Type":"BusinessObjectUpdated","OccurredAt":"2026-11-22T05:13:39Z",
    "Objects":{"Company":"6a1f0f5e-55a5-4f0c-9c39-0d5e2e0c1a01"},"Data":{"Name":"Globex"}}"#;

fn with_id() -> String {
    WITHOUT_ID.replacen('{', &format!(r#"{{"Id":"{ID}","#), 1)
}

fn numbered(id: u128) -> String {
    WITHOUT_ID.replacen('{', &format!(r#"{{"Id":"{}","#, Uuid::from_u128(id)), 1)
}

fn events(batch: &[Received]) -> Decoded {
    super::events(batch, &Traces::default(), &ids(7), &Catalogue::default())
}

#[derive(Debug)]
struct At(Timestamp);

impl Clock for At {
    fn now(&self) -> Timestamp {
        self.0
    }
}

/// Ids of that second.
fn ids(second: i64) -> Ids {
    Ids::new(Arc::new(At(Timestamp::from_micros(second * 1_000_000))))
}

#[test]
fn uids_are_made_by_the_clock_that_is_handed_in_and_can_be_made_anew() {
    let mut decoded = events(&[received(with_id()), received(with_id())]);
    let uids = |decoded: &Decoded| decoded.events.iter().map(|event| event.record.uid).collect::<Vec<_>>();
    let second = |uid: &EventUid| (uid.0.as_u128() >> 80) / 1000;
    let former = uids(&decoded);
    assert!(former.is_sorted() && former.iter().all(|uid| second(uid) == 7));
    let place = SpanPlace {
        context: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
            .parse()
            .unwrap(),
        parent: None,
    };
    decoded.spans.insert(former[0], place);
    decoded.date_anew(&ids(90_000));
    let anew = uids(&decoded);
    assert!(anew.is_sorted() && anew.iter().all(|uid| second(uid) == 90_000));
    assert!(decoded.spans.contains_key(&anew[0]));
}

/// What is tried again is the same message still.
#[test]
fn what_a_rejected_message_is_kept_by_is_made_before_it_is_written() {
    let decoded = events(&[received("{"), received("{"), received(with_id())]);
    let ids: Vec<_> = decoded.rejected.iter().map(|message| message.record_id).collect();
    assert!(ids[0] < ids[1], "{ids:?}");
    assert!(ids.iter().all(|id| (id.as_u128() >> 80) / 1000 == 7));
    let event = &decoded.events[0];
    for _ in 0..2 {
        assert_eq!(unrecordable(event, None).record_id, event.record.uid.0);
    }
}

fn origin(accepted_at: i64, events: usize) -> Origin {
    Origin {
        account: "amqp".into(),
        accepted_at: Timestamp::from_micros(accepted_at),
        traceparent: None,
        events,
    }
}

fn received(body: impl Into<Vec<u8>>) -> Received {
    Received {
        tag: Tag::default(),
        trusted: false,
        accepted: false,
        message_id: None,
        redeliveries: 0,
        encoding: None,
        cloud_event: None,
        cut: None,
        origins: origin(7, 1).into(),
        body: body.into(),
    }
}

/// The rule that a message was rejected for.
fn rule(received: Received) -> String {
    let decoded = events(&[received]);
    assert!(decoded.events.is_empty());
    let faults: serde_json::Value = serde_json::from_str(&decoded.rejected[0].record.faults).unwrap();
    faults[0]["rule"].as_str().unwrap().to_owned()
}

#[test]
fn an_id_comes_from_the_event_or_else_from_the_message() {
    let decoded = events(&[
        received(with_id()),
        Received {
            message_id: Some(Uuid::from_u128(9).to_string()),
            ..received(WITHOUT_ID)
        },
        Received {
            // Its own comes first, so this need not be one.
            message_id: Some("mine".to_owned()),
            ..received(with_id())
        },
    ]);
    let ids: Vec<_> = decoded.events.iter().map(|event| event.record.id.to_string()).collect();
    assert_eq!(ids, [ID, &Uuid::from_u128(9).to_string(), ID]);
    assert!(decoded.rejected.is_empty());
    for id in ["mine", "00000000-0000-0000-0000-000000000000"] {
        let odd = Received {
            message_id: Some(id.to_owned()),
            ..received(WITHOUT_ID)
        };
        assert_eq!(rule(odd), "message_id");
    }
    assert_eq!(rule(received(WITHOUT_ID)), "required");
}

#[test]
fn a_cloud_event_is_an_event_and_its_faults_name_its_attributes() {
    let structured = |json: &str| Received {
        cloud_event: Some(Mode::Structured),
        ..received(json)
    };
    let good = r#"{"specversion":"1.0","id":"A-234","source":"https://example.com/orders","type":"BusinessObjectUpdated",
        "company":"6a1f0f5e-55a5-4f0c-9c39-0d5e2e0c1a01","data":{"Name":"Globex"}}"#;
    let attributes = [
        ("specversion", "1.0"),
        ("id", "A-234"),
        ("source", "https://example.com/orders"),
        ("type", "BusinessObjectUpdated"),
        ("company", "6a1f0f5e-55a5-4f0c-9c39-0d5e2e0c1a01"),
    ];
    let attributes = attributes.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let binary = Received {
        cloud_event: Mode::of(None, attributes),
        ..received(r#"{"Name":"Globex"}"#)
    };
    let read = events(&[structured(good), binary, received(WITHOUT_ID)]);
    let [one, other] = [0, 1].map(|place| &read.events[place]);
    assert_eq!((one.record.id, one.body_hash), (other.record.id, other.body_hash));
    assert_eq!(one.record.data, r#"{"Name":"Globex"}"#);
    assert_eq!(one.record.id.to_string(), "fda35ac6-ac65-5bac-96d2-11768c5f8ab7");
    // It is kept as it came.
    let bad = good.replace("company", "packet");
    let read = events(&[structured(&bad)]);
    let kept = &read.rejected[0].record;
    assert_eq!(kept.body, bad.as_bytes());
    assert!(
        kept.faults.contains("exactly_one") && kept.faults.contains("Company"),
        "{}",
        kept.faults
    );
    let of = |mode: Mode, body: &str| Received {
        cloud_event: Some(mode),
        ..received(body)
    };
    assert_eq!(
        rule(of(Mode::Other("application/cloudevents+avro".to_owned()), "{}")),
        "media_type"
    );
    assert_eq!(rule(of(Mode::Batch, &format!("[{good}]"))), "array");
    let avro = Received {
        cloud_event: Mode::of(Some("application/cloudevents+avro"), []),
        ..received(b"\xff".to_vec())
    };
    assert_eq!(rule(avro), "media_type", "and not that it is no text");
}

/// A CloudEvent in binary mode with that id and body, of a type that there is not.
fn binary(id: &str, body: &[u8]) -> Received {
    let attributes = [
        ("specversion", "1.0"),
        ("id", id),
        ("source", "urn:a"),
        ("type", "Nothing"),
        ("company", "6a1f0f5e-55a5-4f0c-9c39-0d5e2e0c1a01"),
    ];
    let attributes = attributes.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Received {
        cloud_event: Mode::of(Some("application/json"), attributes),
        ..received(body)
    }
}

#[test]
fn of_a_rejected_cloud_event_in_binary_mode_the_attributes_are_kept_with_the_data() {
    let kept = |message: Received| {
        let record = events(&[message]).rejected[0].record.clone();
        let body = String::from_utf8(record.body).unwrap();
        (body, record.body_bytes, record.faults)
    };
    let front = r#"{"specversion":"1.0","id":"a\"b","source":"urn:a","type":"Nothing","company":"6a1f0f5e-55a5-4f0c-9c39-0d5e2e0c1a01","datacontenttype":"application/json""#;
    let (body, bytes, faults) = kept(binary("a\"b", br#" { "Name":"Globex" } "#));
    assert_eq!(body, format!(r#"{front},"data":{{ "Name":"Globex" }}}}"#));
    assert_eq!(bytes, body.len());
    assert!(faults.contains("/type"), "{faults}");
    // Mended, it is an event.
    let mended = Received {
        cloud_event: Some(Mode::Structured),
        ..received(body.replace("Nothing", "BusinessObjectUpdated"))
    };
    let data = events(&[mended]).events[0].record.data.clone();
    assert_eq!(data, r#"{ "Name":"Globex" }"#);
    for (data, faulty) in [(&b"Globex"[..], "R2xvYmV4"), (b"\xff", "/w==")] {
        let (body, _, _) = kept(binary("a\"b", data));
        assert_eq!(body, format!(r#"{front},"data_base64":"{faulty}"}}"#));
    }
    let (body, _, faults) = kept(binary("a\"b", b" "));
    assert_eq!(body, format!("{front}}}"));
    assert!(faults.contains("/data"), "{faults}");
    // A list is no data, and no list of events either.
    let (_, _, faults) = kept(binary("a\"b", b"[{}]"));
    assert!(!faults.contains("array"), "{faults}");
    // Of one that is too large the attributes come first.
    let large = Received {
        cut: Some(5 << 20),
        ..binary("a\"b", &vec![b'x'; 1 << 20])
    };
    let (body, bytes, _) = kept(large);
    assert!(body.starts_with(front) && body.len() == 1 << 20);
    assert!(bytes > 5 << 20, "{bytes}");
}

#[test]
fn an_array_is_heralds_own() {
    let array = format!("[{},{}]", with_id(), with_id());
    assert_eq!(rule(received(array.as_str())), "array");
    let own = Received {
        trusted: true,
        ..received(array)
    };
    assert_eq!(events(&[own]).events.len(), 2);
    // A message is one thing, so its id is no event's in an array.
    let lacking = Received {
        trusted: true,
        message_id: Some(ID.to_owned()),
        ..received(format!("[{WITHOUT_ID}]"))
    };
    assert_eq!(rule(lacking), "required");
}

/// A producer was told 202 for it, by an ingest of an earlier version perhaps; it is sent as it was taken.
#[test]
fn what_ingest_accepted_is_no_event_that_a_newer_rule_rejects() {
    let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
    let large = "x".repeat(MAX_EVENT_BYTES);
    for data in [
        r#"{"Name":"\ud83d"}"#,
        &format!(r#"{{"Name":"a","Deep":{deep}}}"#),
        r#"{"Name":"a","name":"b"}"#,
        // With the Id that ingest put into it, an event may have more bytes than a producer may send.
        &format!(r#"{{"Name":"{large}"}}"#),
    ] {
        let event = with_id().replace(r#"{"Name":"Globex"}"#, data);
        let ways = |accepted: bool, body: String| Received {
            trusted: true,
            accepted,
            ..received(body)
        };
        for body in [event.clone(), format!("[{event}]")] {
            let decoded = events(&[ways(true, body.clone())]);
            assert_eq!(decoded.events.len(), 1, "{:?}", decoded.rejected.front());
            assert_eq!(decoded.events[0].record.data, data);
            // What a producer publishes itself is judged by the rules of now, whoever it says that it is.
            assert_eq!(events(&[ways(false, body)]).rejected.len(), 1);
        }
    }
    let without_a_type = with_id().replace("BusinessObjectUpdated", "Nothing");
    let accepted = Received {
        trusted: true,
        accepted: true,
        ..received(without_a_type)
    };
    assert_eq!(rule(accepted), "one_of", "it cannot be matched");
}

#[test]
fn what_is_too_large_or_no_ones_array_is_rejected_unread() {
    let large = Received {
        cut: Some(100 << 20),
        ..received("[broken")
    };
    let decoded = events(&[large]);
    let record = &decoded.rejected[0].record;
    assert_eq!((record.body_bytes, &record.body[..]), (100 << 20, &b"[broken"[..]));
    assert!(
        record.faults.contains("max_bytes") && record.faults.contains("104857600"),
        "{}",
        record.faults
    );
    // Neither UTF-8 nor JSON is looked at.
    assert_eq!(rule(received(b"  [\xff".to_vec())), "array");
}

#[test]
fn of_what_is_rejected_a_mebibyte_is_kept() {
    let decoded = events(&[received(vec![0xff; (1 << 20) + 1])]);
    let record = &decoded.rejected[0].record;
    assert_eq!((record.body_bytes, record.body.len()), ((1 << 20) + 1, 1 << 20));
}

#[test]
fn an_encoded_body_is_named_as_such() {
    let encoded = |encoding: Option<&str>, body: &[u8]| Received {
        encoding: encoding.map(str::to_owned),
        ..received(body)
    };
    let gzip = b"\x1f\x8b\x08\0\0\0\0\0\0\xff\xab";
    for (encoding, body) in [("gzip", &gzip[..]), ("deflate", b"\x78\x9c\xab"), ("Base64", b"\xff")] {
        let decoded = events(&[encoded(Some(encoding), body)]);
        let record = &decoded.rejected[0].record;
        assert!(
            record.faults.contains(r#""rule":"content_encoding""#),
            "{encoding}: {}",
            record.faults
        );
        assert!(record.faults.contains(encoding), "{}", record.faults);
        assert_eq!(record.body, body);
    }
    let unnamed = events(&[encoded(None, gzip)]);
    assert!(unnamed.rejected[0].record.faults.contains("gzip"));
    let text = events(&[encoded(Some("base64"), b"eyJJZCI6IjEifQ==")]);
    assert!(text.rejected[0].record.faults.contains("content_encoding"));
    assert_eq!(rule(encoded(Some("UTF-8"), b"\xff")), "utf8");
    // What can be read is an event, whatever it is called.
    assert_eq!(events(&[encoded(Some("gzip"), with_id().as_bytes())]).events.len(), 1);
}

#[test]
fn what_was_handed_out_over_and_over_is_alone() {
    let often = |redeliveries| Received {
        redeliveries,
        ..received(with_id())
    };
    let sizes = |counts: &[u64]| -> Vec<usize> {
        let batch = counts.iter().map(|count| often(*count)).collect();
        groups(batch).iter().map(Vec::len).collect()
    };
    assert_eq!(sizes(&[0, 1, 20]), [3]);
    assert_eq!(sizes(&[0, 21, 22, 0, 0]), [1, 1, 1, 2]);
    assert_eq!(sizes(&[21]), [1]);
    assert!(sizes(&[]).is_empty());
}

#[test]
fn what_the_ledger_refuses_is_kept_as_the_event_it_was() {
    let decoded = events(&[received(with_id())]);
    let RejectedMessage { record, id, .. } = unrecordable(&decoded.events[0], None);
    assert_eq!(id, Some(ID.parse().unwrap()));
    let again = events(&[received(record.body)]);
    assert_eq!(again.events[0].body_hash, decoded.events[0].body_hash);
    assert_eq!(again.events[0].record.occurred_at, decoded.events[0].record.occurred_at);
    assert!(record.faults.contains("unrecordable"));
}

#[test]
fn each_event_of_a_doubtful_message_has_its_turn_to_be_first() {
    let own = |redeliveries| Received {
        trusted: true,
        redeliveries,
        ..received(format!("[{}]", [5, 6, 7].map(numbered).join(",")))
    };
    let ids = |redeliveries| -> (bool, Vec<u128>) {
        let decoded = events(&[own(redeliveries)]);
        let ids = decoded.events.iter().map(|event| event.record.id.0.as_u128());
        (decoded.one_by_one, ids.collect())
    };
    assert_eq!(ids(20), (false, vec![5, 6, 7]));
    assert_eq!(ids(21), (true, vec![5, 6, 7]));
    assert_eq!(ids(22), (true, vec![6, 7, 5]));
    assert_eq!(ids(23), (true, vec![7, 5, 6]));
    let none = Received {
        redeliveries: 30,
        ..received("{}")
    };
    assert!(events(&[none]).events.is_empty());
}

#[test]
fn each_event_has_its_own_origin() {
    let of = |account: &str, accepted_at, events| Origin {
        account: account.into(),
        ..origin(accepted_at, events)
    };
    let several = Received {
        trusted: true,
        origins: Origins {
            first: of("a", 1, 2),
            others: vec![of("b", 2, 1)],
        },
        // One more than is counted, and one that is none.
        ..received(format!("[{},{{}},{},{}]", numbered(1), numbered(3), numbered(4)))
    };
    let decoded = events(&[several]);
    let whose: Vec<_> = decoded
        .events
        .iter()
        .map(|event| (&*event.account, event.record.accepted_at.as_micros()))
        .collect();
    assert_eq!(whose, [("a", 1), ("b", 2), ("b", 2)]);
    assert_eq!(&*decoded.rejected[0].record.account, "a");
}
