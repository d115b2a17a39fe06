use super::*;
use crate::catalogue::{ObjectType, ObjectTypeSpec};
use proptest::prelude::*;
use serde_json::{Value, json};

const COMPANY: &str = "6a1f0f5e-55a5-4f0c-9c39-0d5e2e0c1a01";

fn good() -> Value {
    json!({
        "specversion": "1.0", "id": "A-234", "source": "https://example.com/orders", "type": "BusinessObjectUpdated",
        "time": "2026-11-22T05:13:39Z", "company": COMPANY, "data": { "Name": "Globex" }
    })
}

fn with(name: &str, value: Value) -> Value {
    let mut event = good();
    event[name] = value;
    event
}

fn without(name: &str) -> Value {
    let mut event = good();
    event.as_object_mut().unwrap().remove(name);
    event
}

fn read_by(catalogue: &Catalogue, mode: &Mode, body: &str) -> Result<Value, Vec<(String, &'static str)>> {
    let named = |faults: Faults| {
        let faults = faults.into_listed().into_iter();
        faults.map(|fault| (fault.pointer, fault.rule)).collect::<Vec<_>>()
    };
    let read = CloudEvent::read(mode, body, catalogue).map_err(named)?;
    read.parse(catalogue).map_err(named)?;
    Ok(serde_json::from_str(read.json()).unwrap())
}

fn read(body: &Value) -> Result<Value, Vec<(String, &'static str)>> {
    read_by(&Catalogue::default(), &Mode::Structured, &body.to_string())
}

fn faults(body: &Value) -> Vec<(String, &'static str)> {
    read(body).unwrap_err()
}

fn beside(attributes: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    attributes.iter().map(owned).collect()
}

#[test]
fn a_cloud_event_is_the_event_that_it_says() {
    let event = json!({
        // Python: uuid5(uuid5(NAMESPACE_URL, source), id)
        "Id": "fda35ac6-ac65-5bac-96d2-11768c5f8ab7", "Type": "BusinessObjectUpdated",
        "OccurredAt": "2026-11-22T05:13:39Z", "Objects": { "Company": COMPANY }, "Data": { "Name": "Globex" }
    });
    assert_eq!(read(&good()).unwrap(), event);
    let id = "0193F1A0-7C1E-7D1A-B1F0-3A5C7E9D1B2F";
    assert_eq!(read(&with("id", id.into())).unwrap()["Id"], id.to_lowercase());
    let mut foreign = with("subject", 7.into());
    foreign["dataschema"] = "https://example.com/schema".into();
    foreign["datacontenttype"] = "application/vnd.example+json; charset=utf-8".into();
    foreign["partitionkey"] = 5.into();
    foreign["packet"] = Value::Null;
    foreign["schedule"] = "".into();
    assert_eq!(read(&foreign).unwrap(), event);
}

#[test]
fn data_stays_as_it_is_to_the_byte() {
    let data = "{ \"Name\":\"\\u00e4\",\n \"n\": 1.50 }";
    let body = good().to_string().replace(r#"{"Name":"Globex"}"#, data);
    let catalogue = Catalogue::default();
    let read = CloudEvent::read(&Mode::Structured, &body, &catalogue).unwrap();
    assert_eq!(read.parse(&catalogue).unwrap().data, data);
    let mut encoded = without("data");
    encoded["data_base64"] = BASE64_STANDARD.encode(data).into();
    let read = CloudEvent::read(&Mode::Structured, &encoded.to_string(), &catalogue).unwrap();
    assert_eq!(read.parse(&catalogue).unwrap().data, data);
}

#[test]
fn every_fault_names_the_attribute_and_is_said_once() {
    let one = |pointer: &str, rule| vec![(pointer.to_owned(), rule)];
    for (body, expected) in [
        (without("specversion"), one("/specversion", "required")),
        (with("specversion", "0.3".into()), one("/specversion", "one_of")),
        (with("specversion", 1.into()), one("/specversion", "text")),
        (without("id"), one("/id", "required")),
        (with("id", "".into()), one("/id", "required")),
        (with("id", Uuid::nil().to_string().into()), one("/id", "uuid")),
        (without("source"), one("/source", "required")),
        (with("source", "a b".into()), one("/source", "uri_reference")),
        (without("type"), one("/type", "required")),
        (with("type", "Nothing".into()), one("/type", "one_of")),
        (with("time", "yesterday".into()), one("/time", "date_time")),
        (
            with("datacontenttype", "text/xml".into()),
            one("/datacontenttype", "one_of"),
        ),
        (without("data"), one("/data", "required")),
        (with("data", "text".into()), one("/data", "object")),
        (with("data", json!({ "Name": 7 })), one("/data/Name", "text")),
        (with("data_base64", "e30=".into()), one("/data_base64", "exactly_one")),
        (with("communication", 7.into()), one("/communication", "guid")),
        (with("contract", "no GUID".into()), one("/contract", "guid")),
        (with("schedule", COMPANY.into()), one("", "exactly_one")),
    ] {
        assert_eq!(faults(&body), expected, "{body}");
    }
    let encoded = |base64: Value| {
        let mut body = without("data");
        body["data_base64"] = base64;
        faults(&body)
    };
    assert_eq!(encoded("?".into()), one("/data_base64", "base64"));
    assert_eq!(encoded("NQ==".into()), one("/data_base64", "object"));
    assert_eq!(encoded("/w==".into()), one("/data_base64", "object"));
    assert_eq!(encoded(json!({})), one("/data_base64", "text"));
    assert_eq!(encoded("eyJOYW1lIjo3fQ==".into()), one("/data_base64/Name", "text"));
    let packet = with("type", "PacketUpdated".into());
    assert!(faults(&packet).contains(&("/packet".to_owned(), "required")));
    let all = json!({ "id": "a", "data": {} });
    let pointers: Vec<_> = faults(&all).into_iter().map(|(pointer, _)| pointer).collect();
    assert_eq!(pointers, ["/specversion", "/source", "/type"]);
    let twice = good().to_string().replacen('{', r#"{"id":"b","#, 1);
    let twice = read_by(&Catalogue::default(), &Mode::Structured, &twice);
    assert_eq!(twice, Err(one("/id", "unique")));
}

#[test]
fn in_binary_mode_the_body_is_the_data_and_nothing_else() {
    let attributes = [
        ("specversion", "1.0"),
        ("id", "A-234"),
        ("source", "https://example.com/orders"),
        ("type", "BusinessObjectUpdated"),
        ("time", "2026-11-22T05:13:39Z"),
        ("company", COMPANY),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ];
    let catalogue = Catalogue::default();
    let read_as = |content_type: Option<&str>, body: &str| {
        let mode = Mode::of(content_type, beside(&attributes)).unwrap();
        read_by(&catalogue, &mode, body)
    };
    for content_type in [
        None,
        Some(""),
        Some("application/json"),
        Some("text/json;charset=utf-8"),
    ] {
        assert_eq!(
            read_as(content_type, r#" {"Name":"Globex"} "#).unwrap(),
            read(&good()).unwrap()
        );
    }
    let one = |pointer: &str, rule| Err(vec![(pointer.to_owned(), rule)]);
    assert_eq!(
        read_as(Some("text/plain"), r#"{"Name":"a"}"#),
        one("/datacontenttype", "one_of")
    );
    assert_eq!(read_as(None, " "), one("/data", "required"));
    assert_eq!(read_as(None, "[]"), one("/data", "object"));
    // A body that is more than one value could put fields beside the data.
    for body in [r#"{"Name":"a"},"Id":"b""#, r#"{"Name":"a"}}"#, "Globex"] {
        assert_eq!(read_as(None, body), one("/data", "json"), "{body}");
    }
}

#[test]
fn a_message_is_a_cloud_event_by_its_content_type_or_by_an_attribute_that_all_have() {
    let of = |content_type: &str, attributes: &[(&str, &str)]| Mode::of(Some(content_type), beside(attributes));
    assert_eq!(
        of("Application/CloudEvents+JSON; charset=utf-8", &[]),
        Some(Mode::Structured)
    );
    assert_eq!(of("application/cloudevents-batch+json", &[]), Some(Mode::Batch));
    let other = "application/cloudevents+avro";
    assert_eq!(of(other, &[]), Some(Mode::Other(other.to_owned())));
    assert_eq!(of("application/json", &[]), None);
    assert_eq!(of("application/json", &[("subject", "a")]), None);
    assert!(matches!(
        of("application/json", &[("type", "a")]),
        Some(Mode::Binary(_))
    ));
    let long = "a".repeat(MAX_ATTRIBUTE_BYTES);
    let mode = of("application/json", &[("long", &long)]).unwrap();
    let read = read_by(&Catalogue::default(), &mode, "{}");
    assert_eq!(read, Err(vec![(String::new(), "max_bytes")]));
}

/// What is kept of a CloudEvent in binary mode is the same one in one object.
#[test]
fn attributes_and_body_are_one_object_that_says_the_same() {
    let attributes = beside(&[
        ("specversion", "1.0"),
        ("id", "A-234"),
        ("source", "https://example.com/orders"),
        ("type", "BusinessObjectUpdated"),
        ("time", "2026-11-22T05:13:39Z"),
        ("company", COMPANY),
    ]);
    let mode = Mode::of(Some("application/json; charset=utf-8"), attributes).unwrap();
    let Mode::Binary(attributes) = &mode else {
        panic!("{mode:?}");
    };
    let catalogue = Catalogue::default();
    for data in [r#"{"Name":"Globex"}"#, r#"{"Name":7}"#, "", "Globex"] {
        let one = read_by(&catalogue, &Mode::Structured, &attributes.with_body(data.as_bytes()));
        let beside = read_by(&catalogue, &mode, data);
        assert_eq!(one.is_ok(), beside.is_ok(), "{data}");
        if data != "Globex" {
            assert_eq!(one, beside, "{data}");
        }
    }
}

#[test]
fn an_attribute_names_an_object_of_a_registered_type() {
    let mut catalogue = Catalogue::default();
    let mut put = |number, name: &str, deleted| {
        catalogue.put_object_type(ObjectTypeSpec {
            kind: ObjectType::numbered(number).unwrap(),
            name: name.into(),
            deleted,
        });
    };
    put(1002, "ticketnote", false);
    put(1001, "Ticket-Note", false);
    put(1003, "Source", false);
    let body = with("ticketnote", COMPANY.into()).to_string();
    let objects = |catalogue: &Catalogue| read_by(catalogue, &Mode::Structured, &body).unwrap()["Objects"].clone();
    assert_eq!(
        objects(&catalogue),
        json!({ "Company": COMPANY, "Ticket-Note": COMPANY })
    );
    catalogue.put_object_type(ObjectTypeSpec {
        kind: ObjectType::numbered(1001).unwrap(),
        name: "Ticket-Note".into(),
        deleted: true,
    });
    assert_eq!(
        objects(&catalogue),
        json!({ "Company": COMPANY, "ticketnote": COMPANY })
    );
}

#[test]
fn no_more_objects_are_read_than_an_event_may_name() {
    let mut catalogue = Catalogue::default();
    let mut body = good();
    for number in 0..1000_i64 {
        let name = format!("Object{number}");
        body[name.to_lowercase()] = COMPANY.into();
        catalogue.put_object_type(ObjectTypeSpec {
            kind: ObjectType::numbered(1000 + number).unwrap(),
            name: name.into(),
            deleted: false,
        });
    }
    let read = read_by(&catalogue, &Mode::Structured, &body.to_string());
    assert_eq!(read, Err(vec![(String::new(), "max_items")]));
}

#[test]
fn a_header_is_percent_encoded_or_quoted() {
    for (value, text) in [
        (&b"Euro%20%E2%82%AC%20%F0%9F%98%80"[..], Some("Euro € 😀")),
        (b"a%2525", Some("a%25")),
        (b"\"a \\\"b\\\" %20c\"", Some("a \"b\"  c")),
        ("€".as_bytes(), Some("€")),
        (b"\"", Some("\"")),
        (b"%zz", Some("%zz")),
        (b"%C0%A0", None),
        (b"\xff", None),
    ] {
        assert_eq!(header_value(value).as_deref(), text);
    }
}

proptest! {
    #[test]
    fn reading_never_panics(body in "\\PC{0,60}", names in proptest::collection::vec(("[a-z_]{0,9}", "\\PC{0,20}"), 0..6)) {
        let catalogue = Catalogue::default();
        let modes = [Mode::Structured, Mode::Batch].into_iter().chain(Mode::of(None, names));
        for mode in modes {
            if let Ok(read) = CloudEvent::read(&mode, &body, &catalogue) {
                let _judged = read.parse(&catalogue);
            }
        }
        let _decoded = header_value(body.as_bytes());
    }

    #[test]
    fn the_same_source_and_id_are_the_same_event_and_others_are_not(
        source in "[a-z]{1,4}", other in "[a-z]{1,4}", id in "[a-z]{1,4}", another in "[a-z]{1,4}",
    ) {
        let made = id_of(&source, &id);
        prop_assert_eq!(made.get_version_num(), 5);
        prop_assert_eq!(made == id_of(&other, &another), (source, id) == (other, another));
    }
}
