//! What is decided in the transaction of a change: conditions on types, and whether the types are there that a
//! subscription names.

use crate::catalogue::{agree, anyway, catalogue, draft, interest};
use crate::rig::{Database, Rig};
use herald_domain::access::OPERATOR;
use herald_domain::catalogue::{EventTypeDraft, EventTypeSpec, ObjectType, ObjectTypeSpec};
use herald_domain::id::SubscriptionId;
use herald_domain::index::{Interest, ObjectFilter, TypeInterest};
use herald_domain::message::Format;
use herald_ledger::catalogue::Conflict;
use herald_ledger::subscriptions::{NoSuchType, Refusal};
use std::sync::Arc;
use uuid::Uuid;

/// Why a test refuses: what it saw, or a conflict.
#[derive(Debug, PartialEq)]
enum Seen<T> {
    Present(Option<Box<T>>),
    Conflict(Conflict),
}

impl<T> From<Conflict> for Seen<T> {
    fn from(conflict: Conflict) -> Self {
        Self::Conflict(conflict)
    }
}

async fn a_check_sees_what_is_there_in_the_transaction_and_what_it_refuses_is_not_changed(database: Database) {
    let rig = Rig::new(database).await;
    let look = |present: Option<&EventTypeSpec>| Err(Seen::Present(present.map(|spec| Box::new(spec.draft.clone()))));
    let put = || {
        rig.ledger
            .put_event_type("InvoicePaid".to_owned(), draft(), OPERATOR, look)
    };
    let before = rig.version().await;
    assert_eq!(put().await.unwrap().unwrap_err(), Seen::Present(None));
    assert!(catalogue(&rig).await.registered("InvoicePaid").is_none());
    assert_eq!(rig.version().await, before);
    let archived = EventTypeDraft {
        archived: true,
        ..draft()
    };
    let made = rig
        .ledger
        .put_event_type("InvoicePaid".to_owned(), archived.clone(), OPERATOR, anyway)
        .await;
    assert!(made.unwrap().is_ok());
    let seen = || Seen::Present(Some(Box::new(archived.clone())));
    assert_eq!(put().await.unwrap().unwrap_err(), seen());
    let refuse = |present: &EventTypeSpec| Err(Seen::Present(Some(Box::new(present.draft.clone()))));
    let deleted = rig
        .ledger
        .delete_event_type("InvoicePaid".to_owned(), OPERATOR, refuse)
        .await;
    assert_eq!(deleted.unwrap(), Some(Err(seen())));
    assert_eq!(catalogue(&rig).await.registered("InvoicePaid").unwrap().draft, archived);
    let deleted = rig
        .ledger
        .delete_event_type("InvoicePaid".to_owned(), OPERATOR, agree)
        .await;
    assert_eq!(deleted.unwrap(), Some(Ok(())));
    assert_eq!(put().await.unwrap().unwrap_err(), Seen::Present(None), "it is gone");

    let look = |present: Option<&ObjectTypeSpec>| Err(Seen::Present(present.map(|spec| Box::new(spec.kind.number()))));
    let put = || rig.ledger.put_object_type("Invoice".to_owned(), None, OPERATOR, look);
    assert_eq!(put().await.unwrap().unwrap_err(), Seen::Present(None));
    let made = rig
        .ledger
        .put_object_type("Invoice".to_owned(), None, OPERATOR, anyway)
        .await;
    assert!(made.unwrap().is_ok());
    assert_eq!(put().await.unwrap().unwrap_err(), Seen::Present(Some(Box::new(1000))));
    let refuse = |present: &ObjectTypeSpec| Err(Seen::Present(Some(Box::new(present.kind.number()))));
    let deleted = rig
        .ledger
        .delete_object_type("Invoice".to_owned(), OPERATOR, refuse)
        .await;
    assert_eq!(deleted.unwrap(), Some(Err(Seen::Present(Some(Box::new(1000))))));
}

async fn a_type_is_deleted_or_a_subscription_names_it_and_never_both(database: Database) {
    let rig = Rig::new(database).await;
    let id = rig.subscribe(7).await;
    let listen = |interest: Interest| {
        rig.ledger.update_subscription(id, OPERATOR, move |it| {
            it.settings.interest = interest;
            Ok::<(), ()>(())
        })
    };
    let kept = rig.ledger.subscription(id).await.unwrap().unwrap().settings.interest;
    for _ in 0..10 {
        let invoice = rig
            .ledger
            .put_object_type("Invoice".to_owned(), None, OPERATOR, anyway)
            .await;
        let (invoice, _) = invoice.unwrap().unwrap();
        let paid = rig
            .ledger
            .put_event_type("InvoicePaid".to_owned(), draft(), OPERATOR, anyway)
            .await;
        assert!(paid.unwrap().is_ok());
        let of_invoices = Interest::EventTypes(Arc::new(TypeInterest {
            names: vec!["InvoicePaid".into()],
            filter: Some(ObjectFilter {
                kind: invoice.kind,
                name: "Invoice".into(),
                object: None,
            }),
        }));
        let (deleted, changed) = tokio::join!(
            rig.ledger.delete_object_type("Invoice".to_owned(), OPERATOR, agree),
            listen(of_invoices.clone()),
        );
        match (deleted.unwrap(), changed.unwrap().unwrap()) {
            (Some(Ok(())), Err(refusal)) => assert_eq!(refusal, Refusal::NoSuchType(NoSuchType::Object)),
            (Some(Err(Conflict::Subscribed)), Ok(changed)) => assert_eq!(changed.settings.interest, of_invoices),
            met => panic!("{met:?}"),
        }
        listen(kept.clone()).await.unwrap().unwrap().unwrap();

        let (deleted, changed) = tokio::join!(
            rig.ledger.delete_event_type("InvoicePaid".to_owned(), OPERATOR, agree),
            listen(interest(&["Invoice*", "InvoicePaid"])),
        );
        match (deleted.unwrap(), changed.unwrap().unwrap()) {
            (Some(Ok(())), Err(refusal)) => {
                let (at, name) = (1, "InvoicePaid".to_owned());
                assert_eq!(refusal, Refusal::NoSuchType(NoSuchType::Event { at, name }));
            }
            (Some(Err(Conflict::Subscribed)), Ok(_)) => {}
            met => panic!("{met:?}"),
        }
        listen(kept.clone()).await.unwrap().unwrap().unwrap();
    }
}

async fn a_new_subscription_names_only_types_that_are_there(database: Database) {
    let rig = Rig::new(database).await;
    let id = rig.subscribe(7).await;
    let subscription = rig.ledger.subscription(id).await.unwrap().unwrap();
    let create = |n: u128, interest: Interest| {
        let mut new = subscription.clone();
        new.id = SubscriptionId(Uuid::from_u128(n));
        new.settings.interest = interest;
        new.settings.format = Format::StandardWebhooks;
        rig.ledger.create_subscription(new, OPERATOR)
    };
    let missing = |at: usize, name: &str| NoSuchType::Event {
        at,
        name: name.to_owned(),
    };
    let names = ["PacketCreated", "Invoice*", "InvoicePaid"];
    assert_eq!(
        create(8, interest(&names)).await.unwrap(),
        Err(missing(2, "InvoicePaid"))
    );
    let paid = rig
        .ledger
        .put_event_type("InvoicePaid".to_owned(), draft(), OPERATOR, anyway)
        .await;
    assert!(paid.unwrap().is_ok());
    assert_eq!(create(8, interest(&names)).await.unwrap(), Ok(()));
    let of_orders = |kind: ObjectType| {
        let object = None;
        let name = "Order".into();
        let filter = Some(ObjectFilter { kind, name, object });
        let names = vec!["InvoicePaid".into()];
        Interest::EventTypes(Arc::new(TypeInterest { names, filter }))
    };
    let kind = ObjectType::numbered(1000).unwrap();
    assert_eq!(create(9, of_orders(kind)).await.unwrap(), Err(NoSuchType::Object));
    let order = rig
        .ledger
        .put_object_type("Order".to_owned(), Some(kind), OPERATOR, anyway)
        .await;
    assert!(order.unwrap().is_ok());
    assert_eq!(create(9, of_orders(kind)).await.unwrap(), Ok(()));

    // Earlier versions let a subscription name a type that was being deleted: it is no fault of another change.
    for table in ["event_types", "object_types"] {
        rig.execute(format!("UPDATE {table} SET deleted = TRUE")).await.unwrap();
    }
    rig.set_active(SubscriptionId(Uuid::from_u128(8)), false).await;
    rig.set_active(SubscriptionId(Uuid::from_u128(9)), false).await;
}

on_both! {
    a_check_sees_what_is_there_in_the_transaction_and_what_it_refuses_is_not_changed,
    a_type_is_deleted_or_a_subscription_names_it_and_never_both,
    a_new_subscription_names_only_types_that_are_there,
}
