use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

fn parse(json: &str) -> Result<Event<'_>, Faults> {
    super::parse(json, &Catalogue::default())
}

fn parse_accepted(json: &str) -> Result<Event<'_>, Faults> {
    super::parse_accepted(json, &Catalogue::default())
}

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
        Err(faults) => faults
            .into_listed()
            .into_iter()
            .map(|fault| (fault.pointer, fault.rule))
            .collect(),
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

/// Rules for the content change; what was accepted before they did is an event all the same.
#[test]
fn what_was_accepted_is_read_whatever_the_rules_are_now() {
    let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
    let datas = [
        r#"{"Title":"\ud83d","Extra":{"\udc00":1}}"#.to_owned(),
        format!(r#"{{"Deep":{deep}}}"#),
        r#"{"status":1,"Status":1.0,"packetguid":"x","A":1,"A":2}"#.to_owned(),
        r#"{"DueDate":"2026-12-01 00:00"}"#.to_owned(),
        "{}".to_owned(),
    ];
    for data in datas {
        let event = format!(
            r#"{{"Id":"0193f1a0-7c1e-7d1a-b1f0-3a5c7e9d1b2f","Type":"PacketCreated","OccurredAt":"2026-11-22 05:13",
            "Objects":{{"Packet":"22222222-2222-4222-8222-222222222222"}},"Data":{data}}}"#
        );
        assert!(parse(&event).is_err(), "{event}");
        let accepted = parse_accepted(&event).unwrap();
        assert_eq!((accepted.data, accepted.occurred_at), (data.as_str(), None));
        assert!(accepted.id.is_some() && accepted.objects.get("Packet").is_some());
    }
    for (unreadable, pointer) in [
        ("[]", ""),
        (r#"{"Type":"Packet","Objects":{},"Data":{}}"#, "/Type"),
        (
            r#"{"Type":"PacketCreated","Objects":{"Packet":"x"},"Data":{}}"#,
            "/Objects/Packet",
        ),
        (r#"{"Type":"PacketCreated","Objects":{},"Data":[]}"#, "/Data"),
        (r#"{"Type":"PacketCreated","Objects":{}}"#, "/Data"),
    ] {
        let faults = parse_accepted(unreadable).unwrap_err();
        assert_eq!(
            (faults.count(), faults[0].pointer.as_str()),
            (1, pointer),
            "{unreadable}"
        );
    }
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
        ("/Data/Status", json!(1.0), "one_of"),
        ("/Data/guid", json!("11111111-1111-4111-8111-111111111111"), "reserved"),
        ("/Data/Pac\u{212a}etGUID", json!(1), "reserved"),
        ("/Data/status", json!(5), "letter_case"),
        ("/Data/title", json!("x"), "letter_case"),
        ("/Data/DueDate", json!("2026-12-01T00:00:00+0100"), "date_time"),
        ("/OccurredAt", json!("2026-12-01T00:00:00Z[Europe/Berlin]"), "date_time"),
        ("/OccurredAt", json!("9999-12-31T23:59:59-01:00"), "date_time"),
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

#[test]
fn elements_beyond_the_most_are_counted_and_not_kept() {
    let zeros = format!("[{}0]", "0,".repeat(1_000_000));
    let fault = split_json(&zeros).unwrap_err();
    assert!(fault.detail.contains("not 1000001"), "{fault:?}");
    let lines = "0\n".repeat(1_000_000);
    assert_eq!(split_ndjson(&lines).unwrap_err().rule, "max_items");
}

#[test]
fn white_space_is_jsons_alone() {
    let event = packet_event().to_string();
    let one = format!(" \t\r\n{event} \t\r\n");
    assert!(matches!(split_json(&one), Ok(Batch::One(text)) if text == event));
    for other in ['\u{a0}', '\u{2028}', '\u{3000}', '\u{85}', '\u{b}', '\u{c}'] {
        for text in [format!("{other}{event}"), format!("{event}{other}"), other.to_string()] {
            let Ok(Batch::One(one)) = split_json(&text) else {
                panic!("{text:?} begins no array")
            };
            assert_eq!(parse(one).unwrap_err()[0].rule, "json", "{text:?}");
            let lines = format!("{event}\n{text}\n{event}");
            assert_eq!(split_ndjson(&lines).unwrap()[1], text, "a line of its own");
        }
        let around = format!("{other}[{event}]");
        assert!(matches!(split_json(&around), Ok(Batch::One(_))), "{around:?}");
    }
}

#[test]
fn lines_sent_as_json_are_told_how_to_be_sent() {
    let event = packet_event().to_string();
    for lines in [format!("{event}\n{event}\n"), format!("{event}\n{event}\n{event}")] {
        let fault = &parse(&lines).unwrap_err()[0];
        assert!(
            fault.rule == "json" && fault.detail.contains("application/x-ndjson"),
            "{fault:?}"
        );
    }
    assert!(!parse(&format!("{event}x")).unwrap_err()[0].detail.contains("ndjson"));
}

#[test]
fn half_a_surrogate_pair_is_refused_wherever_it_stands() {
    let text = packet_event().to_string();
    for (whole, half, pointer) in [
        (r#""Globex Corporation""#, r#""\ud83d""#, "/Data/CustomerName"),
        (r#"{"Status":99}"#, r#"{"Status":["\udc00"]}"#, "/Data/Extra/Status/0"),
        (r#""Extra":"#, r#""\ud800":"#, "/Data"),
        (r#""Packet":"#, r#""\ud800":"#, "/Objects"),
        (r#""Type":"#, r#""\ud800":"#, ""),
        (r#""PacketCreated""#, r#""\ud800""#, "/Type"),
    ] {
        let changed = text.replacen(whole, half, 1);
        assert_ne!(changed, text);
        let faults = parse(&changed).unwrap_err();
        let named: Vec<_> = faults
            .iter()
            .map(|fault| (fault.pointer.as_str(), fault.rule))
            .collect();
        assert_eq!(named, [(pointer, "half_surrogate")]);
    }
    // A whole pair and U+0000 are characters like others.
    let pair = text.replace("Globex Corporation", r"\ud83d\ude00\u0000");
    assert!(parse(&pair).unwrap().data.contains(r"\ud83d\ude00\u0000"));
}

#[test]
fn a_number_with_a_point_is_told_from_one_out_of_range() {
    let detail = |name: &str, written: &str| {
        let text = json!({
            "Type": "NewCommunication",
            "Objects": {"Packet": uuid::Uuid::max().to_string(), "Communication": uuid::Uuid::max().to_string()},
            "Data": {"Importance": 1, "AttachmentCount": 2, "CommunicationType": 3},
        });
        let number = text["Data"][name].to_string();
        let changed = text
            .to_string()
            .replace(&format!("\"{name}\":{number}"), &format!("\"{name}\":{written}"));
        parse(&changed).unwrap_err()[0].detail.clone()
    };
    for written in ["1.0", "1e0", "1E0", "-1.5"] {
        for name in ["Importance", "AttachmentCount"] {
            let told = detail(name, written);
            assert!(told.contains("a whole number without point or exponent"), "{told}");
        }
    }
    assert!(detail("AttachmentCount", "-1").ends_with("a whole number from 0"));
    assert!(detail("Importance", "\"1e0\"").contains("one of 0 Normal"));
}

#[test]
fn times_of_data_have_any_year_that_rfc_3339_can_write() {
    for time in [
        "9999-12-31T23:59:59.9999999Z",
        "9999-12-31T23:59:59-01:00",
        "0000-01-01T00:00:00.123456789012Z",
    ] {
        assert_eq!(faults_with("/Data/DueDate", json!(time)), []);
    }
    assert_eq!(faults_with("/OccurredAt", json!("9999-12-31T23:59:59.9999999Z")), []);
}

#[test]
fn data_has_a_depth_that_receivers_can_read() {
    let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    let text = packet_event().to_string();
    let with = |levels: usize| text.replace(r#"{"Status":99}"#, &nested(levels));
    assert!(parse(&with(MAX_DEPTH - 1)).is_ok());
    for levels in [MAX_DEPTH, 100_000] {
        let faults = parse(&with(levels)).unwrap_err();
        assert_eq!((faults[0].pointer.as_str(), faults[0].rule), ("/Data", "max_depth"));
    }
}

#[test]
fn many_faults_are_counted_and_a_hundred_kept() {
    let unknown: Vec<_> = (0..20_000).map(|n| format!("\"x{n}\":0,")).collect();
    let unknown = unknown.concat();
    for (text, count) in [
        (
            packet_event().to_string().replacen('{', &format!("{{{unknown}"), 1),
            20_000,
        ),
        (
            packet_event()
                .to_string()
                .replace(r#""Objects":{"#, &format!(r#""Objects":{{{unknown}"#)),
            20_000,
        ),
        (
            packet_event()
                .to_string()
                .replace(r#""Extra""#, &format!("{}\"Extra\"", "\"GUID\":0,".repeat(500))),
            500,
        ),
    ] {
        let faults = parse(&text).unwrap_err();
        assert_eq!((faults.len(), faults.count()), (crate::problem::MAX_FAULTS, count));
    }
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
        let spliced = with_id(&text, event.id, id);
        let again = parse(&spliced).unwrap();
        prop_assert_eq!(again.id, Some(id));
        prop_assert_eq!(again.data, event.data);
        prop_assert_eq!(&again.objects, &event.objects);
        prop_assert_eq!(with_id(&spliced, again.id, EventId(uuid::Uuid::nil())), spliced.clone());
    }
}

/// A catalogue with one event type and one object type.
fn catalogue() -> Catalogue {
    use crate::catalogue::{EventTypeSpec, ObjectTypeSpec, RegisteredType, read_event_type};
    let mut catalogue = Catalogue::default();
    catalogue.put_object_type(ObjectTypeSpec {
        kind: crate::catalogue::ObjectType::numbered(1000).unwrap(),
        name: "Invoice".into(),
        deleted: false,
    });
    let body = json!({
        "Objects": ["Company", "Invoice"],
        "Schema": {"required": ["Number"], "properties": {"Number": {"type": "integer"}}},
    });
    let draft = read_event_type("InvoicePaid", &body, &catalogue).unwrap();
    let name = "InvoicePaid".into();
    catalogue.put_event_type(EventTypeSpec {
        kind: EventType::Registered(std::sync::Arc::new(RegisteredType { code: 1000, name })),
        draft,
        built_in: false,
        deleted: false,
        created_at: Timestamp::from_micros(0),
        updated_at: Timestamp::from_micros(0),
    });
    catalogue
}

#[test]
fn an_event_of_a_registered_type_is_judged_by_its_objects_and_schema() {
    let catalogue = catalogue();
    let company = "11111111-1111-4111-8111-111111111111";
    let event = |change: &dyn Fn(&mut Value)| {
        let mut event = json!({
            "Type": "InvoicePaid", "Objects": {"Company": company, "Invoice": company, "Packet": company},
            "Data": {"Number": 7, "GUIDs": []},
        });
        change(&mut event);
        let text = event.to_string();
        let read = super::parse(&text, &catalogue);
        let faults = read.err().map(Faults::into_listed).unwrap_or_default();
        let rules: Vec<_> = faults.into_iter().map(|fault| (fault.pointer, fault.rule)).collect();
        rules
    };
    assert_eq!(event(&|_| {}), []);
    let wrong = |pointer: &str, rule| [(pointer.to_owned(), rule)];
    assert_eq!(
        event(&|event| drop(event["Objects"]["Invoice"].take())),
        wrong("/Objects/Invoice", "required")
    );
    assert_eq!(
        event(&|event| event["Objects"]["Order"] = company.into()),
        wrong("/Objects/Order", "known_field")
    );
    assert_eq!(
        event(&|event| event["Data"]["Number"] = "7".into()),
        wrong("/Data/Number", "schema")
    );
    assert_eq!(event(&|event| event["Data"] = json!([])), wrong("/Data", "object"));
    assert_eq!(
        event(&|event| event["Data"]["guid"] = 1.into()),
        wrong("/Data/guid", "reserved")
    );
    assert_eq!(
        event(&|event| event["Type"] = "InvoicePaif".into()),
        wrong("/Type", "one_of")
    );
    let many: serde_json::Map<_, _> = (0..65).map(|n| (format!("O{n}"), company.into())).collect();
    let many = json!({"Type": "InvoicePaid", "Objects": many, "Data": {}}).to_string();
    let faults = super::parse_accepted(&many, &catalogue).unwrap_err();
    assert_eq!((faults[0].pointer.as_str(), faults[0].rule), ("/Objects", "max_items"));
    let twice = r#"{"Type":"InvoicePaid","Objects":{"Company":"11111111-1111-4111-8111-111111111111","Invoice":"11111111-1111-4111-8111-111111111111"},"Data":{"Number":7,"Number":8}}"#;
    assert_eq!(super::parse(twice, &catalogue).unwrap_err()[0].rule, "unique");
}

#[test]
fn an_accepted_event_of_a_type_that_was_deleted_is_taken() {
    let mut catalogue = catalogue();
    let mut spec = (**catalogue.registered("InvoicePaid").unwrap()).clone();
    spec.deleted = true;
    catalogue.put_event_type(spec);
    let text = r#"{"Type":"InvoicePaid","Objects":{"Gone":"11111111-1111-4111-8111-111111111111"},"Data":{}}"#;
    assert_eq!(super::parse(text, &catalogue).unwrap_err()[0].pointer, "/Type");
    let event = super::parse_accepted(text, &catalogue).unwrap();
    assert_eq!((event.kind.name(), event.objects.iter().count()), ("InvoicePaid", 1));
}

#[test]
fn an_outline_judges_what_needs_no_catalogue() {
    let of = |text: &str| {
        outline(text)
            .map(|it| (it.id.is_some(), it.kind.into_owned()))
            .map_err(Faults::into_listed)
    };
    let invoice = r#"{"Type":"InvoicePaid","Objects":{"Invoice":"11111111-1111-4111-8111-111111111111"},"Data":{}}"#;
    assert_eq!(of(invoice), Ok((false, "InvoicePaid".to_owned())));
    let with_id = invoice.replacen('{', r#"{"Id":"0193f1a0-7c1e-7d1a-b1f0-3a5c7e9d1b2f","#, 1);
    assert_eq!(of(&with_id), Ok((true, "InvoicePaid".to_owned())));
    for (wrong, pointer) in [
        (invoice.replacen('{', r#"{"Id":"x","#, 1), "/Id"),
        (invoice.replace("InvoicePaid", "Invoice Paid"), "/Type"),
        (
            packet_event().to_string().replace("RAGStatus", "Rag"),
            "/Data/RAGStatus",
        ),
        ("{".to_owned(), ""),
    ] {
        assert_eq!(of(&wrong).unwrap_err()[0].pointer, pointer);
    }
}

#[test]
fn only_faults_by_the_catalogue_may_be_outdated() {
    let catalogue = catalogue();
    let outdated = |text: &str| super::parse(text, &catalogue).unwrap_err().may_be_outdated();
    let guid = "11111111-1111-4111-8111-111111111111";
    let invoice = |objects: &str, data: &str| {
        format!(r#"{{"Type":"InvoicePaid","Objects":{{"Company":"{guid}"{objects}}},"Data":{data}}}"#)
    };
    let named = format!(r#","Invoice":"{guid}""#);
    for by_catalogue in [
        invoice("", r#"{"Number":1}"#),
        invoice(&named, r#"{"Number":"1"}"#),
        invoice(&format!(r#"{named},"Order":"{guid}""#), r#"{"Number":1}"#),
        invoice(&named, r#"{"Number":1}"#).replace("InvoicePaid", "InvoiceSent"),
    ] {
        assert!(outdated(&by_catalogue), "{by_catalogue}");
    }
    // Enate's types have their rules in the code.
    let enate = r#"{"Type":"PacketCreated","Objects":{},"Data":{}}"#;
    assert!(!outdated(enate));
    assert!(!outdated("{"));
    let mut batch = Faults::default();
    batch.append_within("/3", super::parse(&invoice("", "{}"), &catalogue).unwrap_err());
    assert!(batch.may_be_outdated());
}
