//! Event types and object types are rows, of which every process hears by the registry's version.

use crate::rig::{Database, Rig, guid};
use herald_domain::access::OPERATOR;
use herald_domain::catalogue::{
    Catalogue, EventTypeDraft, FIRST_REGISTERED, MAX_EVENT_TYPES, ObjectType, packs, read_event_type,
};
use herald_domain::event::Objects;
use herald_domain::id::SubscriptionId;
use herald_domain::index::{Amendment, Interest, ObjectFilter, TypeInterest};
use herald_domain::message::Format;
use herald_ledger::catalogue::Conflict;
use herald_ledger::dispatching::{BatchResult, EventResult};
use serde_json::json;
use std::sync::Arc;
use uuid::Uuid;

pub(crate) fn draft() -> EventTypeDraft {
    let body = json!({
        "Description": "An invoice is paid.", "Objects": ["Company"], "Schema": {"required": ["Number"]},
        "Example": {"Number": 1},
    });
    read_event_type("InvoicePaid", &body, &Catalogue::default()).unwrap()
}

/// Whatever is there or not, it may be registered.
#[expect(clippy::unnecessary_wraps, reason = "stands for a check that can refuse")]
pub(crate) fn anyway<T>(_present: Option<&T>) -> Result<(), Conflict> {
    Ok(())
}

/// Whatever it is, it may be deleted.
#[expect(clippy::unnecessary_wraps, reason = "stands for a check that can refuse")]
pub(crate) fn agree<T>(_present: &T) -> Result<(), Conflict> {
    Ok(())
}

pub(crate) async fn catalogue(rig: &Rig) -> Catalogue {
    let mut catalogue = Catalogue::default();
    let apply = |changes: herald_ledger::registry::Changes| {
        changes
            .event_types
            .into_iter()
            .for_each(|spec| catalogue.put_event_type(spec));
        changes
            .object_types
            .into_iter()
            .for_each(|spec| catalogue.put_object_type(spec));
    };
    rig.ledger.changes_since(-1, apply).await.unwrap();
    catalogue
}

async fn what_is_registered_is_found_until_it_is_deleted_and_comes_back_as_it_was(database: Database) {
    let rig = Rig::new(database).await;
    let put = |draft| {
        rig.ledger
            .put_event_type("InvoicePaid".to_owned(), draft, OPERATOR, anyway)
    };
    let before = rig.version().await;
    let (made, is_new) = put(draft()).await.unwrap().unwrap();
    assert!(is_new && rig.version().await > before);
    let (changed, is_new) = put(EventTypeDraft {
        archived: true,
        ..draft()
    })
    .await
    .unwrap()
    .unwrap();
    assert!(!is_new);
    assert_eq!((&changed.kind, changed.created_at), (&made.kind, made.created_at));
    let found = Arc::clone(catalogue(&rig).await.registered("InvoicePaid").unwrap());
    assert_eq!(found.draft, changed.draft);

    let delete = || rig.ledger.delete_event_type("InvoicePaid".to_owned(), OPERATOR, agree);
    assert_eq!(delete().await.unwrap(), Some(Ok(())));
    assert_eq!(delete().await.unwrap(), None);
    let gone = catalogue(&rig).await;
    assert!(gone.registered("InvoicePaid").is_none());
    assert_eq!(gone.former_event_type("InvoicePaid"), Some(made.kind.clone()));
    let other = rig
        .ledger
        .put_event_type("InvoiceSent".to_owned(), draft(), OPERATOR, anyway)
        .await;
    assert_ne!(other.unwrap().unwrap().0.kind, made.kind, "a number is not used again");
    let (back, is_new) = put(draft()).await.unwrap().unwrap();
    assert!(is_new);
    assert_eq!(back.kind, made.kind);
}

async fn object_types_have_numbers_that_stay(database: Database) {
    let rig = Rig::new(database).await;
    let put = |name: &str, number: Option<i64>| {
        let number = number.and_then(ObjectType::numbered);
        rig.ledger.put_object_type(name.to_owned(), number, OPERATOR, anyway)
    };
    let number = |put: Result<(herald_domain::catalogue::ObjectTypeSpec, bool), Conflict>| {
        put.map(|(spec, is_new)| (spec.kind.number(), is_new))
    };
    assert_eq!(number(put("Invoice", Some(1001)).await.unwrap()), Ok((1001, true)));
    assert_eq!(number(put("Order", None).await.unwrap()), Ok((1000, true)));
    assert_eq!(number(put("Zone", None).await.unwrap()), Ok((1002, true)));
    assert_eq!(number(put("Invoice", None).await.unwrap()), Ok((1001, false)));
    assert_eq!(
        number(put("Invoice", Some(1009)).await.unwrap()),
        Err(Conflict::Numbered(1001))
    );
    let taken = Conflict::Taken("Invoice".to_owned());
    assert_eq!(number(put("Bill", Some(1001)).await.unwrap()), Err(taken));

    let body = json!({"Objects": ["Invoice"]});
    let draft = read_event_type("InvoicePaid", &body, &catalogue(&rig).await).unwrap();
    let made = rig
        .ledger
        .put_event_type("InvoicePaid".to_owned(), draft.clone(), OPERATOR, anyway)
        .await;
    assert!(made.unwrap().is_ok());
    let delete = || rig.ledger.delete_object_type("Invoice".to_owned(), OPERATOR, agree);
    let asked = Conflict::Asked("InvoicePaid".to_owned());
    assert_eq!(delete().await.unwrap(), Some(Err(asked)));
    let deleted = rig
        .ledger
        .delete_event_type("InvoicePaid".to_owned(), OPERATOR, agree)
        .await;
    assert_eq!(deleted.unwrap(), Some(Ok(())));
    assert_eq!(delete().await.unwrap(), Some(Ok(())));
    // It was deleted since the request was read.
    let late = rig
        .ledger
        .put_event_type("InvoicePaid".to_owned(), draft, OPERATOR, anyway)
        .await
        .unwrap();
    assert_eq!(late.unwrap_err(), Conflict::Unknown("Invoice".to_owned()));
}

/// A subscription to events of the type that name that company.
pub(crate) fn interest(names: &[&str]) -> Interest {
    Interest::EventTypes(Arc::new(TypeInterest {
        names: names.iter().map(|name| (*name).into()).collect(),
        filter: Some(ObjectFilter {
            kind: ObjectType::COMPANY,
            name: "Company".into(),
            object: Some(guid(1)),
        }),
    }))
}

async fn an_event_of_a_registered_type_is_recorded_with_what_matches_by_then(database: Database) {
    let rig = Rig::new(database).await;
    let (spec, _) = rig
        .ledger
        .put_event_type("InvoicePaid".to_owned(), draft(), OPERATOR, anyway)
        .await
        .unwrap()
        .unwrap();
    let id = rig.subscribe(7).await;
    let version = rig.version().await;
    let change = rig.ledger.update_subscription(id, OPERATOR, |it| {
        it.settings.interest = interest(&["InvoicePaid", "Order*"]);
        it.settings.format = Format::StandardWebhooks;
        Ok::<(), ()>(())
    });
    let changed = change.await.unwrap().unwrap().unwrap();
    assert_eq!(rig.ledger.subscription(id).await.unwrap(), Some(changed));
    for format in Format::ALL {
        let change = rig.ledger.update_subscription(id, OPERATOR, move |it| {
            it.settings.format = format;
            Ok::<(), ()>(())
        });
        let _changed = change.await.unwrap().unwrap().unwrap();
        let kept = rig.ledger.subscription(id).await.unwrap().unwrap();
        assert_eq!(kept.settings.format, format);
    }
    assert_eq!(
        rig.ledger
            .delete_event_type("InvoicePaid".to_owned(), OPERATOR, agree)
            .await
            .unwrap(),
        Some(Err(Conflict::Subscribed))
    );

    let mut event = crate::rig::event(Uuid::now_v7(), "a", &[]);
    let record = Arc::make_mut(&mut event.record);
    record.kind = spec.kind.clone();
    record.objects = Objects::from([("Company", guid(1))]);
    // Matched by the version before the subscription was one to the type.
    let recorded = rig
        .ledger
        .record(vec![event.clone()], version, rig.owned.clone())
        .await
        .unwrap();
    let BatchResult::Done(_, results) = recorded else {
        panic!("one subscription changed");
    };
    let [EventResult::New { mine, .. }] = &results[..] else {
        panic!("it is new")
    };
    assert_eq!(
        mine.iter().map(|it| it.subscription).collect::<Vec<SubscriptionId>>(),
        [id]
    );
    let shown = rig.ledger.event(event.record.uid).await.unwrap().unwrap();
    assert_eq!((shown.kind.name(), shown.matched_count), ("InvoicePaid", 1));
    let stored = rig.ledger.newest_events(&spec.kind, None).await.unwrap();
    assert_eq!(stored.len(), 1);
    assert!(
        rig.ledger
            .newest_events(&spec.kind, Some(stored[0].uid))
            .await
            .unwrap()
            .is_empty()
    );
    // A worker that takes over reads the type's name with the event.
    let mut matches: Vec<_> = Vec::new();
    Amendment::new([(id, Some(interest(&["Invoice*"])))]).apply(&shown.kind, &shown.objects, &mut matches);
    assert_eq!(matches.len(), 1);
}

async fn packs_are_registered_once_and_what_an_operator_registered_before_them_stays(database: Database) {
    let rig = Rig::new(database).await;
    let put = |name: &str| rig.ledger.put_event_type(name.to_owned(), draft(), OPERATOR, anyway);
    let delete = |name: &str| rig.ledger.delete_event_type(name.to_owned(), OPERATOR, agree);
    let (own, _) = put("TicketUpdated").await.unwrap().unwrap();
    let (gone, _) = put("NewEmail").await.unwrap().unwrap();
    assert_eq!(delete("NewEmail").await.unwrap(), Some(Ok(())));

    // Several processes start at once.
    let another = rig.another().await;
    let (one, other) = tokio::join!(rig.ledger.register_packs(), another.register_packs());
    one.unwrap();
    other.unwrap();
    let version = rig.version().await;
    let registered = catalogue(&rig).await;
    for kind in packs() {
        let spec = registered.registered(kind.name).unwrap();
        let is_own = kind.name == "TicketUpdated";
        assert_eq!(spec.built_in, !is_own, "{}", kind.name);
        assert_eq!(spec.draft, if is_own { draft() } else { kind.draft() });
        assert!(spec.kind.code() >= FIRST_REGISTERED, "an earlier version reads it");
    }
    assert_eq!(registered.all_registered().count(), packs().count());
    assert_eq!(registered.event_type("TicketUpdated"), Some(own.kind));
    assert_eq!(
        registered.event_type("NewEmail"),
        Some(gone.kind),
        "events of it are there"
    );

    let kind = "Autotask.Ticket.Update";
    assert_eq!(put(kind).await.unwrap().unwrap_err(), Conflict::BuiltIn);
    assert_eq!(delete(kind).await.unwrap(), Some(Err(Conflict::BuiltIn)));
    rig.ledger.register_packs().await.unwrap();
    assert_eq!(rig.version().await, version, "nothing is left to do");

    // An operator's own goes on being one, until it is deleted.
    let (changed, is_new) = put("TicketUpdated").await.unwrap().unwrap();
    assert!(!changed.built_in && !is_new);
    assert_eq!(delete("TicketUpdated").await.unwrap(), Some(Ok(())));
    // And another version had another schema.
    let other = format!("UPDATE event_types SET schema = NULL WHERE name = '{kind}'");
    rig.execute(other).await.unwrap();
    rig.ledger.register_packs().await.unwrap();
    assert!(rig.version().await > version);
    let registered = catalogue(&rig).await;
    for name in [kind, "TicketUpdated"] {
        let wanted = packs().find(|kind| kind.name == name).unwrap();
        let spec = registered.registered(name).unwrap();
        assert!(spec.built_in && spec.draft == wanted.draft(), "{name}");
    }
}

async fn ten_thousand_types_are_found_and_no_more_are_taken(database: Database) {
    let rig = Rig::new(database).await;
    rig.ledger.register_packs().await.unwrap();
    let put = |name: &str| rig.ledger.put_event_type(name.to_owned(), draft(), OPERATOR, anyway);
    let (pattern, _) = put("Type0").await.unwrap().unwrap();
    // All but the first and the last, as copies of the first.
    let copied = MAX_EVENT_TYPES - 2;
    let copy = format!(
        "INSERT INTO event_types SELECT code + n, 'Type' || n, description, objects, schema, example, archived, built_in, \
         deleted, created_at, updated_at, version FROM event_types, \
         (WITH RECURSIVE counted (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted WHERE n < {copied}) \
         SELECT n FROM counted) numbers WHERE name = 'Type0'"
    );
    rig.execute(copy).await.unwrap();
    let (last, is_new) = put("Last").await.unwrap().unwrap();
    assert!(is_new);
    assert_eq!(
        put("OneMore").await.unwrap().unwrap_err(),
        Conflict::Full(MAX_EVENT_TYPES)
    );
    // What is there may be changed, and makes room by going.
    assert!(!put("Type7").await.unwrap().unwrap().1);
    let deleted = rig.ledger.delete_event_type("Type8".to_owned(), OPERATOR, agree).await;
    assert_eq!(deleted.unwrap(), Some(Ok(())));
    let (back, is_new) = put("Type8").await.unwrap().unwrap();
    assert!(is_new);

    let registered = catalogue(&rig).await;
    assert_eq!(registered.all_registered().count(), MAX_EVENT_TYPES + packs().count());
    for (name, kind) in [
        ("Type0", pattern.kind),
        ("Type8", back.kind),
        ("Last", last.kind.clone()),
    ] {
        assert_eq!(registered.event_type(name), Some(kind), "{name}");
    }
    let id = rig.subscribe(7).await;
    let change = rig.ledger.update_subscription(id, OPERATOR, |it| {
        it.settings.interest = interest(&["Last", "Type9*"]);
        Ok::<(), ()>(())
    });
    change.await.unwrap().unwrap().unwrap();
    let version = rig.version().await - 1;
    for (name, matched) in [("Last", 1), ("Type9998", 1), ("Type1", 0)] {
        let kind = registered.event_type(name).unwrap();
        let mut event = crate::rig::event(Uuid::now_v7(), "a", &[]);
        let record = Arc::make_mut(&mut event.record);
        record.kind = kind;
        record.objects = Objects::from([("Company", guid(1))]);
        let uid = record.uid;
        rig.ledger
            .record(vec![event], version, rig.owned.clone())
            .await
            .unwrap();
        let shown = rig.ledger.event(uid).await.unwrap().unwrap();
        assert_eq!((shown.kind.name(), shown.matched_count), (name, matched));
    }
}

on_both! {
    what_is_registered_is_found_until_it_is_deleted_and_comes_back_as_it_was,
    object_types_have_numbers_that_stay,
    an_event_of_a_registered_type_is_recorded_with_what_matches_by_then,
    packs_are_registered_once_and_what_an_operator_registered_before_them_stays,
    ten_thousand_types_are_found_and_no_more_are_taken,
}
