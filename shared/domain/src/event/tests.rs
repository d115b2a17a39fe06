use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

fn packet_event() -> Value {
    json!({
        "Id": "0193f1a0-7c1e-7d1a-b1f0-3a5c7e9d1b2f",
        "Type": "PacketCreated",
        "OccurredAt": "2026-11-22T05:13:39Z",
        "Objects": { "Company": "11111111-1111-4111-8111-111111111111", "Packet": "22222222-2222-4222-8222-222222222222" },
        "Data": {
            "CustomerName": "Globex Corporation", "SupplierName": "Initech", "ContractName": "Capital Discovery",
            "ServiceName": "HR Relief", "ServiceLineName": "East Coast", "ProcessTypeName": "Start Employee",
            "Reference": "202234-C", "Title": null, "Status": 1, "DueDate": "2026-12-01T00:00:00Z",
            "RAGStatus": -2, "ProcessType": 1, "StartedbyMethod": 4, "Extra": {"Status": 99}
        }
    })
}

fn faults_of(event: &Value) -> Vec<(String, &'static str)> {
    let text = event.to_string();
    match parse(&text) {
        Ok(_) => Vec::new(),
        Err(faults) => faults.into_iter().map(|fault| (fault.pointer, fault.rule)).collect(),
    }
}

fn faults_with(pointer: &str, value: Value) -> Vec<(String, &'static str)> {
    let mut event = packet_event();
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    event.pointer_mut(parent).unwrap()[name] = value;
    faults_of(&event)
}

#[test]
fn a_well_formed_event_is_read_and_its_data_kept_to_the_byte() {
    let text = r#"{"Type":"BusinessObjectCreated","Objects":{"Schedule":"33333333-3333-4333-8333-33333333333A"},"Data":{ "Name" : "2022 \u0053chedule",  "x":1.50 }}"#;
    let event = parse(text).unwrap();
    assert_eq!(event.data, r#"{ "Name" : "2022 \u0053chedule",  "x":1.50 }"#);
    assert_eq!(
        event.objects.business_object().unwrap().1.to_string(),
        "33333333-3333-4333-8333-33333333333a"
    );
    assert_eq!(event.id, None);
}

#[test]
fn each_fault_names_its_field_and_rule() {
    assert_eq!(faults_of(&packet_event()), []);
    for (pointer, value, rule) in [
        ("/Id", json!("x"), "uuid"),
        ("/Id", json!(7), "uuid"),
        ("/Id", json!("00000000-0000-0000-0000-000000000000"), "uuid"),
        ("/Type", json!("PacketDeleted"), "one_of"),
        ("/Type", json!(1), "one_of"),
        ("/OccurredAt", json!("yesterday"), "date_time"),
        ("/Objects", json!([]), "object"),
        ("/Objects/Packet", json!("p-1"), "guid"),
        ("/Objects/Packet", json!(81), "guid"),
        ("/Objects/Packet", Value::Null, "required"),
        (
            "/Objects/Pakcet",
            json!("22222222-2222-4222-8222-222222222222"),
            "known_field",
        ),
        ("/Data", json!("text"), "object"),
        ("/Data/Status", json!(6), "one_of"),
        ("/Data/Status", json!("1"), "one_of"),
        ("/Data/Status", json!(1.5), "one_of"),
        ("/Data/RAGStatus", json!(-3), "one_of"),
        ("/Data/CustomerName", Value::Null, "required"),
        ("/Data/CustomerName", json!(1), "text"),
        ("/Data/Title", json!(["a"]), "text"),
        ("/Data/DueDate", json!("tomorrow"), "date_time"),
        ("/Data/GUID", json!("11111111-1111-4111-8111-111111111111"), "reserved"),
        ("/Surprise", json!(1), "known_field"),
    ] {
        let faults = faults_with(pointer, value.clone());
        assert!(
            faults.contains(&(pointer.to_owned(), rule)),
            "{pointer} = {value}: {faults:?}"
        );
    }
}

#[test]
fn all_faults_are_named_at_once() {
    let event = json!({"Type": "NewCommunication", "Objects": {}, "Data": {"Importance": 3, "ObjectGUID": null}});
    let mut faults = faults_of(&event);
    faults.sort();
    let pointers: Vec<_> = faults.iter().map(|(pointer, _)| pointer.as_str()).collect();
    assert_eq!(
        pointers,
        [
            "/Data/AttachmentCount",
            "/Data/CommunicationType",
            "/Data/Importance",
            "/Data/ObjectGUID",
            "/Objects/Communication",
            "/Objects/Packet"
        ]
    );
}

#[test]
fn what_is_optional_may_be_absent_or_null() {
    for name in ["Title", "DueDate", "StartedbyMethod"] {
        assert_eq!(faults_with(&format!("/Data/{name}"), Value::Null), []);
        let mut event = packet_event();
        event["Data"].as_object_mut().unwrap().remove(name);
        assert_eq!(faults_of(&event), []);
    }
    let mut event = packet_event();
    event["Objects"]["Contract"] = json!("00000000-0000-0000-0000-000000000000");
    event["Objects"]["Service"] = Value::Null;
    event["OccurredAt"] = Value::Null;
    assert_eq!(faults_of(&event), []);
}

#[test]
fn a_business_object_event_has_exactly_one_object() {
    let both =
        json!({"Company": "11111111-1111-4111-8111-111111111111", "Schedule": "11111111-1111-4111-8111-111111111112"});
    for (objects, faulty) in [
        (json!({}), true),
        (both, true),
        (json!({"Company": "11111111-1111-4111-8111-111111111111"}), false),
    ] {
        let event = json!({"Type": "BusinessObjectUpdated", "Objects": objects, "Data": {"Name": "x"}});
        assert_eq!(
            faults_of(&event) == [("/Objects".to_owned(), "exactly_one")],
            faulty,
            "{event}"
        );
    }
}

#[test]
fn a_name_given_twice_is_a_fault_at_every_level() {
    let text = packet_event().to_string();
    for (once, twice, pointer) in [
        (r#""Status":1"#, r#""Status":1,"\u0053tatus":2"#, "/Data/Status"),
        (r#""Extra":"#, r#""Extra":1,"Extra":"#, "/Data/Extra"),
        (r#""Packet":"#, r#""Packet":null,"Packet":"#, "/Objects/Packet"),
        (r#""Type":"#, r#""Type":"PacketUpdated","Type":"#, "/Type"),
    ] {
        let changed = text.replacen(once, twice, 1);
        assert_ne!(changed, text);
        let faults = parse(&changed).unwrap_err();
        assert!(
            faults
                .iter()
                .any(|fault| fault.pointer == pointer && fault.rule == "unique"),
            "{faults:?}"
        );
    }
}

#[test]
fn a_batch_has_one_to_ten_thousand_events() {
    assert_eq!(split_json("[]").unwrap_err().rule, "not_empty");
    assert_eq!(split_ndjson(" \n\n").unwrap_err().rule, "not_empty");
    assert_eq!(split_json("[1,").unwrap_err().rule, "json");
    let many = |n: usize| format!("[{}]", vec!["1"; n].join(","));
    assert!(matches!(split_json(&many(MAX_EVENTS)), Ok(Batch::Many(events)) if events.len() == MAX_EVENTS));
    assert_eq!(split_json(&many(MAX_EVENTS + 1)).unwrap_err().rule, "max_items");
    assert_eq!(split_ndjson("{}\r\n\n {\"a\":1} ").unwrap(), ["{}", "{\"a\":1}"]);
}

proptest! {
    #[test]
    fn reading_never_panics(text in "\\PC*", at in 0usize..400, with in "\\PC{0,3}") {
        drop(parse(&text));
        drop(split_json(&text));
        let mut mutated = packet_event().to_string();
        let at = at.min(mutated.len());
        if mutated.is_char_boundary(at) {
            mutated.insert_str(at, &with);
            drop(parse(&mutated));
        }
    }

    #[test]
    fn an_id_is_spliced_in_and_nothing_else_changes(bits in 1u128.., space in " {0,3}", null: bool) {
        let id = EventId(uuid::Uuid::from_u128(bits));
        let null = if null { "\"Id\" : null , " } else { "" };
        let text = format!("{space}{{{space}{null}\"Type\":\"BusinessObjectCreated\",\"Objects\":{{\"Company\":\"11111111-1111-4111-8111-111111111111\"}},\"Data\":{{\"Name\":\"x\"}}}}");
        let event = parse(&text).unwrap();
        let spliced = with_id(&text, &event, id);
        let again = parse(&spliced).unwrap();
        prop_assert_eq!(again.id, Some(id));
        prop_assert_eq!(again.data, event.data);
        prop_assert_eq!(again.objects, event.objects);
        prop_assert_eq!(with_id(&spliced, &again, EventId(uuid::Uuid::nil())), spliced.clone());
    }

    #[test]
    fn objects_survive_the_ledger(bits: [Option<u128>; 7]) {
        let mut objects = Objects::default();
        for (name, bits) in OBJECT_NAMES.iter().zip(bits) {
            *objects.slot(name).unwrap() = bits.filter(|bits| *bits != 0).map(|bits| ObjectGuid(uuid::Uuid::from_u128(bits)));
        }
        prop_assert_eq!(Objects::from_json(&objects.to_json()).unwrap(), objects);
    }
}
