use super::header::reserved;
use super::*;
use crate::message::Format;
use crate::retry::RetryPolicy;
use proptest::prelude::*;
use serde_json::json;
use std::sync::Arc;

fn parse(body: &Value, egress: &EgressPolicy) -> Result<Draft, Faults> {
    super::parse(body, &Catalogue::default(), egress)
}

fn parse_patch(present: &Settings, patch: &Value, egress: &EgressPolicy) -> Result<Draft, Faults> {
    super::parse_patch(present, patch, &Catalogue::default(), egress)
}

fn body() -> Value {
    json!({"Webhook": "PacketUpdated", "FilterObjectType": 81, "FilterObjectGUID": "22222222-2222-4222-8222-222222222222", "SubscriberURL": "https://example.com/hook"})
}

fn with(field: &str, value: Value) -> Result<Draft, Faults> {
    let mut body = body();
    body[field] = value;
    parse(&body, &EgressPolicy::default())
}

fn rules(result: Result<Draft, Faults>) -> Vec<(String, &'static str)> {
    result
        .err()
        .unwrap_or_default()
        .into_listed()
        .into_iter()
        .map(|fault| (fault.pointer, fault.rule))
        .collect()
}

#[test]
fn defaults_are_the_contracts() {
    let settings = parse(&body(), &EgressPolicy::default()).unwrap().settings;
    assert_eq!(
        Value::Object(settings.to_json()),
        json!({
            "Webhook": "PacketUpdated", "EventTypes": null, "FilterObjectType": 81,
            "FilterObjectGUID": "22222222-2222-4222-8222-222222222222", "Format": "Enate",
            "SubscriberURL": "https://example.com/hook", "CustomHeader": null, "CustomHeaderValue": null, "Name": null, "Active": true,
            "TimeoutSeconds": 15, "MaxInFlight": 64, "RateLimitPerSecond": null,
            "Signatures": ["v1"],
            "Retry": {"InitialSeconds": 5, "Multiplier": 3, "MaxSeconds": 21600, "GiveUpAfterSeconds": 259_200, "MaxAttempts": null},
        })
    );
}

/// Each setting by its declaration alone, so that this holds for new ones as well.
#[test]
fn every_setting_is_read_shown_kept_and_set_back() {
    let usual = parse(&body(), &EgressPolicy::default()).unwrap().settings;
    let mut all = body();
    let optional = || Settings::fields().filter(|field| field.name != "EventTypes" && body().get(field.name).is_none());
    for field in optional() {
        all[field.name] = field.sample();
    }
    let settings = parse(&all, &EgressPolicy::default()).unwrap().settings;
    let (shown, default) = (settings.to_json(), usual.to_json());
    for field in optional() {
        let name = field.name;
        let expected = if field.shown.is_some() {
            json!(true)
        } else {
            field.sample()
        };
        assert_eq!(shown[name], expected, "{name}");
        assert_ne!(shown[name], default[name], "{name}");
        assert_eq!(default[name].is_null(), field.absent == Absent::Null, "{name}");
        assert!(!field.about.is_empty(), "{name}");
    }
    let of_types = json!({"EventTypes": ["*"], "SubscriberURL": "https://a.example"});
    let of_types = parse(&of_types, &EgressPolicy::default()).unwrap().settings;
    for settings in [&settings, &usual, &of_types] {
        let cells = settings.to_cells();
        let kinds: Vec<_> = Settings::columns().map(|column| column.kind).collect();
        assert_eq!(cells.iter().map(Cell::kind).collect::<Vec<_>>(), kinds);
        assert_eq!(Settings::from_cells(&mut Cells::new(cells)).unwrap(), *settings);
    }
    // What GET shows changes nothing, write-only values included.
    let put = parse_replacement(
        &settings,
        &Value::Object(shown),
        &Catalogue::default(),
        &EgressPolicy::default(),
    );
    assert_eq!(put.unwrap().settings, settings);
    let nulls: Map<_, _> = optional().map(|field| (field.name.to_owned(), Value::Null)).collect();
    let patched = parse_patch(&settings, &Value::Object(nulls), &EgressPolicy::default());
    assert_eq!(patched.unwrap().settings, usual);
    let names: Vec<_> = Settings::columns().map(|column| column.name).collect();
    assert_eq!(
        names.iter().collect::<std::collections::HashSet<_>>().len(),
        names.len()
    );
}

/// It is a format, and the fault says what is missing.
#[test]
fn a_subscription_may_have_every_format_but_autotasks() {
    for format in Format::ALL {
        match with("Format", json!(format.name())) {
            Ok(draft) => assert_eq!(draft.settings.format, format),
            Err(faults) => {
                assert_eq!(format, Format::Autotask);
                assert!(faults[0].detail.contains("SequenceNumber"), "{faults:?}");
            }
        }
    }
    assert!(with("Format", json!("Autotask")).is_err());
}

#[test]
fn each_fault_names_its_field_and_rule() {
    for (field, value, pointer, rule) in [
        ("Webhook", json!("PacketDeleted"), "/Webhook", "one_of"),
        ("Webhook", Value::Null, "/Webhook", "required"),
        ("FilterObjectType", json!(31), "/FilterObjectType", "one_of"),
        ("FilterObjectType", json!("Paket"), "/FilterObjectType", "one_of"),
        ("FilterObjectGUID", json!("x"), "/FilterObjectGUID", "guid"),
        ("FilterObjectGUID", json!(""), "/FilterObjectGUID", "required"),
        (
            "FilterObjectGUID",
            json!("00000000-0000-0000-0000-000000000000"),
            "/FilterObjectGUID",
            "required",
        ),
        ("SubscriberURL", json!("example.com"), "/SubscriberURL", "url"),
        (
            "SubscriberURL",
            json!("ftp://example.com"),
            "/SubscriberURL",
            "url_scheme",
        ),
        (
            "SubscriberURL",
            json!("https://a:b@example.com"),
            "/SubscriberURL",
            "url_credentials",
        ),
        (
            "SubscriberURL",
            json!("http://127.0.0.1/x"),
            "/SubscriberURL",
            "address_refused",
        ),
        (
            "SubscriberURL",
            json!("http://2130706433/"),
            "/SubscriberURL",
            "address_refused",
        ),
        (
            "SubscriberURL",
            json!("http://0177.0.0.1/"),
            "/SubscriberURL",
            "address_refused",
        ),
        (
            "SubscriberURL",
            json!("http://[::ffff:10.0.0.1]/"),
            "/SubscriberURL",
            "address_refused",
        ),
        ("CustomHeader", json!("X-Key"), "/CustomHeaderValue", "required"),
        ("CustomHeaderValue", json!("v"), "/CustomHeader", "required"),
        ("Name", json!(7), "/Name", "text"),
        ("Name", json!("a\0b"), "/Name", "character"),
        ("MaxInFlight", json!(5.0), "/MaxInFlight", "range"),
        (
            "SubscriberURL",
            json!("http://example.com\0/"),
            "/SubscriberURL",
            "url_character",
        ),
        ("Active", json!("yes"), "/Active", "boolean"),
        ("SecretKey", json!("whsec_%"), "/SecretKey", "secret"),
        ("SecretKey", json!(""), "/SecretKey", "secret"),
        ("SecretKey", json!("short"), "/SecretKey", "secret"),
        ("SecretKey", json!(7), "/SecretKey", "text"),
        ("Owner", json!("me"), "/Owner", "guid"),
        ("TimeoutSeconds", json!(0), "/TimeoutSeconds", "range"),
        ("TimeoutSeconds", json!(31), "/TimeoutSeconds", "range"),
        ("Retry", json!({"Multiplier": 0.5}), "/Retry/Multiplier", "range"),
        (
            "Retry",
            json!({"InitialSeconds": 30, "MaxSeconds": 20}),
            "/Retry/MaxSeconds",
            "range",
        ),
        ("Retry", json!({"MaxAttempts": 0}), "/Retry/MaxAttempts", "range"),
        ("Retry", json!({"Tries": 3}), "/Retry/Tries", "known_field"),
        ("MaxInFlight", json!(0), "/MaxInFlight", "range"),
        ("RateLimitPerSecond", json!(0), "/RateLimitPerSecond", "range"),
        ("Format", json!("Soap"), "/Format", "one_of"),
        ("Format", json!(1), "/Format", "one_of"),
        ("Signatures", json!("v1"), "/Signatures", "array"),
        ("Signatures", json!([]), "/Signatures", "array"),
        ("Signatures", json!(["v1", "v1a", "v1"]), "/Signatures", "array"),
        ("Signatures", json!(["v1", "v2"]), "/Signatures/1", "one_of"),
        ("Signatures", json!([1]), "/Signatures/0", "one_of"),
        ("Signatures", json!(["v1", "v1"]), "/Signatures/1", "unique"),
        ("Signatures", json!(["v1a"]), "/Signatures", "required"),
        (
            "SubscriberUrl",
            json!("https://example.com"),
            "/SubscriberUrl",
            "known_field",
        ),
    ] {
        assert_eq!(
            rules(with(field, value.clone())),
            [(pointer.to_owned(), rule)],
            "{field} = {value}"
        );
    }
}

#[test]
fn the_order_of_signatures_does_not_matter() {
    for given in [json!(["v1", "v1a"]), json!(["v1a", "v1"])] {
        let settings = with("Signatures", given).unwrap().settings;
        assert_eq!(settings.signatures, Signatures::Both);
        assert_eq!(settings.to_json()["Signatures"], json!(["v1", "v1a"]));
    }
}

/// A process keeps a million of them, so whoever makes them larger is to know.
#[test]
fn a_subscription_with_the_usual_settings_is_small() {
    assert_eq!(size_of::<Subscription>(), 256);
    let [one, other] = [(); 2].map(|()| parse(&body(), &EgressPolicy::default()).unwrap().settings);
    assert!(
        std::ptr::eq(&raw const *one, &raw const *other),
        "the rare settings are shared"
    );
}

#[test]
fn schedule_is_260_and_the_error_says_so() {
    let body =
        json!({"Webhook": "BusinessObjectUpdated", "FilterObjectType": 81, "SubscriberURL": "https://example.com"});
    let faults = parse(&body, &EgressPolicy::default()).unwrap_err();
    assert!(faults[0].detail.contains("a Schedule is 260"), "{faults:?}");
}

#[test]
fn the_alias_is_read_and_never_written_and_names_are_read_for_numbers() {
    let body = json!({"Webhook": "NewBusinessObject", "FilterObjectType": "Schedule", "FilterObjectGUID": "", "SubscriberURL": "https://example.com"});
    let json = parse(&body, &EgressPolicy::default()).unwrap().settings.to_json();
    assert_eq!(json["Webhook"], "BusinessObjectCreated");
    assert_eq!(json["FilterObjectType"], 260);
}

#[test]
fn headers_that_herald_sets_are_refused() {
    for (name, rule) in [
        ("Webhook-Id", "reserved"),
        ("Host", "reserved"),
        ("content-LENGTH", "reserved"),
        ("X Key", "header_name"),
        ("X:Y", "header_name"),
    ] {
        let mut body = body();
        body["CustomHeader"] = name.into();
        body["CustomHeaderValue"] = "v".into();
        assert_eq!(
            rules(parse(&body, &EgressPolicy::default())),
            [("/CustomHeader".to_owned(), rule)],
            "{name}"
        );
    }
    for value in ["a\r\nb", "ü", " a"] {
        let mut body = body();
        body["CustomHeader"] = "X-Key".into();
        body["CustomHeaderValue"] = value.into();
        assert_eq!(
            rules(parse(&body, &EgressPolicy::default())),
            [("/CustomHeaderValue".to_owned(), "header_value")],
            "{value:?}"
        );
    }
}

#[test]
fn a_url_is_kept_as_it_will_be_called_or_refused() {
    for (given, kept) in [
        ("https://example.com", "https://example.com/"),
        ("HTTPS://EXAMPLE.com:443/Hook", "https://example.com/Hook"),
        (
            "http://example.com:080/a/./b/../c?x='%2f%zz",
            "http://example.com/a/c?x=%27%2f%zz",
        ),
        (
            "https://b\u{fc}cher.example/\u{fc}",
            "https://xn--bcher-kva.example/%C3%BC",
        ),
    ] {
        assert_eq!(
            with("SubscriberURL", json!(given)).unwrap().settings.url,
            kept,
            "{given}"
        );
    }
    for (given, rule) in [
        ("example.com/hook", "url"),
        ("localhost:9000/hook", "url"),
        ("http:/example.com/h", "url"),
        ("http:example.com/h", "url"),
        ("http:///example.com/h", "url"),
        ("http://", "url"),
        ("ws://example.com/", "url_scheme"),
        ("http:\\\\example.com\\h", "url_character"),
        ("http://exam\nple.com/h", "url_character"),
        ("\thttp://example.com/h", "url_character"),
        (" http://example.com/h", "url_character"),
        ("http://example.com/h ", "url_character"),
        ("http://example.com/a b", "url_character"),
        ("http://example.com/\u{a0}", "url_character"),
        ("\u{1}http://example.com/h", "url_character"),
    ] {
        assert_eq!(
            rules(with("SubscriberURL", json!(given))),
            [("/SubscriberURL".to_owned(), rule)],
            "{given:?}"
        );
    }
    // Encoded, a name may be longer than it was written.
    let long = format!("https://example.com/{}", "\u{fc}".repeat(1000));
    assert_eq!(
        rules(with("SubscriberURL", json!(long))),
        [("/SubscriberURL".to_owned(), "max_length")]
    );
}

#[test]
fn a_header_value_that_is_too_long_is_told_so_and_no_more() {
    let mut body = body();
    body["CustomHeader"] = "X-Key".into();
    body["CustomHeaderValue"] = "x".repeat(5000).into();
    let expected = [("/CustomHeaderValue".to_owned(), "max_length")];
    assert_eq!(rules(parse(&body, &EgressPolicy::default())), expected);
    body["CustomHeader"] = "X".repeat(5000).into();
    body["CustomHeaderValue"] = "x".into();
    let expected = [("/CustomHeader".to_owned(), "max_length")];
    assert_eq!(rules(parse(&body, &EgressPolicy::default())), expected);
}

#[test]
fn many_faults_are_counted_and_a_hundred_kept() {
    let mut body = body();
    for n in 0..1000 {
        body[format!("x{n}")] = 0.into();
        body["Retry"][format!("x{n}")] = 0.into();
    }
    let faults = parse(&body, &EgressPolicy::default()).unwrap_err();
    assert_eq!((faults.len(), faults.count()), (crate::problem::MAX_FAULTS, 2000));
}

proptest! {
    #[test]
    fn what_get_gave_put_accepts(
        active: bool, timeout in 1u32..=300, initial in 1u32..100, attempts in prop::option::of(1u32..=1000), rate in prop::option::of(0.1f64..100.0), header in prop::option::of("[A-Z][a-z]{1,8}"),
    ) {
        let mut body = body();
        body["Active"] = active.into();
        body["TimeoutSeconds"] = (f64::from(timeout) / 10.0).into();
        body["Retry"] = json!({"InitialSeconds": f64::from(initial) / 100.0, "MaxAttempts": attempts});
        body["RateLimitPerSecond"] = rate.into();
        if let Some(header) = header.filter(|name| reserved(name).is_none()) {
            body["CustomHeader"] = header.into();
            body["CustomHeaderValue"] = "value".into();
        }
        let draft = parse(&body, &EgressPolicy::default()).unwrap();
        let again = parse(&Value::Object(draft.settings.to_json()), &EgressPolicy::default()).unwrap();
        prop_assert_eq!(again, draft);
    }

    #[test]
    fn reading_never_panics(text in "\\PC{0,30}", number: f64) {
        for value in [json!(text), json!(number), json!([text]), json!({text: number})] {
            for field in Settings::fields().chain([&SECRET_KEY, &OWNER]) {
                drop(with(field.name, value.clone()));
            }
        }
    }
}

/// A subscription as an earlier version let it be: every field that can breaks a rule of today.
fn of_old() -> Settings {
    let mut settings = parse(&body(), &EgressPolicy::default()).unwrap().settings;
    settings.url = "http://user:secret@10.0.0.1/a b#c".to_owned();
    settings.custom_header = Some(Box::new(("Via".to_owned(), "\u{e4} ".to_owned())));
    settings.name = Some("n".repeat(1000));
    settings.timeout = Duration::from_mins(5);
    settings.max_in_flight = 20_000;
    settings.rate_limit_per_second = Some(1e9);
    settings.retry = Arc::new(RetryPolicy {
        initial: Duration::from_secs(30),
        multiplier: 1000.0,
        max: Duration::from_secs(20),
        give_up_after: Duration::from_hours(10_000),
        max_attempts: Some(5000),
    });
    settings
}

#[test]
fn a_patch_is_judged_by_what_it_changes() {
    type Change = fn(&mut Settings);
    let egress = EgressPolicy::default();
    let old = of_old();
    let patched = |patch: Value| parse_patch(&old, &patch, &egress);
    let changes: [(Value, Change); 8] = [
        (json!({}), |_| {}),
        (json!({ "Active": false }), |it| it.active = false),
        (json!({ "Name": "b" }), |it| it.name = Some("b".to_owned())),
        (json!({ "CustomHeader": "Via", "Active": true }), |_| {}),
        (json!({ "SubscriberURL": "HTTPS://b.example" }), |it| {
            it.url = "https://b.example/".to_owned();
        }),
        (json!({ "CustomHeaderValue": "v" }), |it| {
            it.custom_header = Some(Box::new(("Via".to_owned(), "v".to_owned())));
        }),
        (json!({ "CustomHeader": null, "CustomHeaderValue": null }), |it| {
            it.custom_header = None;
        }),
        (json!({ "Retry": { "MaxAttempts": 3 } }), |it| {
            Arc::make_mut(&mut it.retry).max_attempts = Some(3);
        }),
    ];
    for (patch, change) in changes {
        let mut expected = old.clone();
        change(&mut expected);
        assert_eq!(patched(patch.clone()).unwrap().settings, expected, "{patch}");
    }
    for (patch, pointer, rule) in [
        (
            json!({ "SubscriberURL": "http://10.0.0.2/" }),
            "/SubscriberURL",
            "address_refused",
        ),
        (json!({ "CustomHeader": "Date" }), "/CustomHeader", "reserved"),
        (
            json!({ "CustomHeaderValue": "\u{fc}" }),
            "/CustomHeaderValue",
            "header_value",
        ),
        (json!({ "Retry": { "Multiplier": 2000 } }), "/Retry/Multiplier", "range"),
        (json!({ "Retry": { "MaxSeconds": 10 } }), "/Retry/MaxSeconds", "range"),
        (json!({ "TimeoutSeconds": 301 }), "/TimeoutSeconds", "range"),
        (json!({ "Webhook": "PacketDeleted" }), "/Webhook", "one_of"),
        (json!({ "Nmae": "b" }), "/Nmae", "known_field"),
        (json!([]), "", "object"),
    ] {
        assert_eq!(rules(patched(patch.clone())), [(pointer.to_owned(), rule)], "{patch}");
    }
    // What replaces it all is judged whole.
    assert!(parse(&Value::Object(old.to_json()), &egress).is_err());
}

#[test]
fn a_merge_patch_follows_the_rfc() {
    for (target, patch, merged) in [
        (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
        (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
        (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
        (
            json!({"a": {"b": "c"}}),
            json!({"a": {"b": "d", "c": null}}),
            json!({"a": {"b": "d"}}),
        ),
        (
            json!({"a": [1]}),
            json!({"a": {"b": {"c": null}}}),
            json!({"a": {"b": {}}}),
        ),
        (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
    ] {
        let mut result = target.clone();
        merge_patch(&mut result, &patch);
        assert_eq!(result, merged, "{target} + {patch}");
    }
}
