//! Events as they come in real life, and the subscriptions that they match.
//!
//! All of them tell one story: Globex Corporation takes on somebody, which is the Case 202234-C.

use serde_json::{Value, json};

/// Globex Corporation, the customer.
const GLOBEX: &str = "6a1f0f5e-55a5-4f0c-9c39-0d5e2e0c1a01";
/// A customer that nobody subscribed to.
const UMBRELLA: &str = "6a1f0f5e-55a5-4f0c-9c39-0d5e2e0c1a02";
const CAPITAL_DISCOVERY: &str = "8c0b7c1e-9d54-4a8e-8f1f-3b2f6d7e2b01";
const HR_RELIEF: &str = "b7e2a9d4-3c61-4e0b-a5d7-91c4f0e83c01";
const START_EMPLOYEE: &str = "d2c5e8f1-7a34-4b96-8e02-5f6a1b9c4d01";
const PAYROLL_QUERY: &str = "d2c5e8f1-7a34-4b96-8e02-5f6a1b9c4d02";
const SCHEDULE_2022: &str = "f4a8c2e6-1b5d-4937-9c8e-2d7f3a6b5e01";
const SCHEDULE_2023: &str = "f4a8c2e6-1b5d-4937-9c8e-2d7f3a6b5e02";
/// The Case 202234-C.
const CASE: &str = "e9d3b7a1-6f28-4c5e-b0d4-8a1c5e7f6f01";
const TICKET: &str = "e9d3b7a1-6f28-4c5e-b0d4-8a1c5e7f6f02";
const ACTION: &str = "e9d3b7a1-6f28-4c5e-b0d4-8a1c5e7f6f03";

/// Where the receiver answers 503 to the first attempt, and 200 from then on.
pub(crate) const RECOVERING: &str = "/recovering";
/// Where the receiver always answers 500.
pub(crate) const BROKEN: &str = "/broken";
/// After so many attempts Herald gives that one up.
pub(crate) const BROKEN_ATTEMPTS: u32 = 3;

/// A subscription that the first sample of `PacketCreated` matches, to be made by hand.
pub(crate) fn subscription(receiver: &str) -> Value {
    json!({
        "Webhook": "PacketCreated", "FilterObjectType": "Company", "FilterObjectGUID": GLOBEX, "SubscriberURL": receiver,
    })
}

/// Twelve events of all types. Two of them match no subscription.
pub(crate) fn events() -> Vec<Value> {
    vec![
        case_created(),
        ticket_created(),
        action_created_elsewhere(),
        case_updated(2, 1),
        communication(
            1,
            2,
            json!({
                "From": "hiring@globex.example", "To": "hr@initech.example", "CC": null,
                "Subject": "202234-C: contract signed, first day is 5 December", "AttachmentCount": 1,
            }),
        ),
        communication(
            2,
            1,
            json!({"To": null, "CC": null, "From": null, "Subject": null, "AttachmentCount": 0}),
        ),
        business_object("BusinessObjectCreated", "Schedule", SCHEDULE_2023, "2023 Schedule"),
        business_object("BusinessObjectCreated", "Company", UMBRELLA, "Umbrella Logistics"),
        business_object("BusinessObjectUpdated", "Company", GLOBEX, "Globex Corporation"),
        business_object("BusinessObjectUpdated", "Schedule", SCHEDULE_2022, "2022 Schedule"),
        communication(
            3,
            0,
            json!({
                "From": "hr@initech.example", "To": "hiring@globex.example", "CC": "it@globex.example",
                "Subject": "202234-C: welcome pack and laptop", "AttachmentCount": 2,
            }),
        ),
        case_updated(4, 1),
    ]
}

/// What a subscriber at `receiver` (`http://host:port`) asks for: each of the six webhooks, then one
/// whose endpoint recovers, and one whose endpoint never does.
pub(crate) fn subscriptions(receiver: &str) -> Vec<Value> {
    let to = |path: &str| format!("{receiver}{path}");
    vec![
        json!({
            "Name": "Work for Globex Corporation", "Webhook": "PacketCreated", "FilterObjectType": "Company",
            "FilterObjectGUID": GLOBEX, "SubscriberURL": to("/packets"),
            "CustomHeader": "X-Route", "CustomHeaderValue": "starters",
        }),
        json!({
            "Name": "Progress of 202234-C", "Webhook": "PacketUpdated", "FilterObjectType": "Packet",
            "FilterObjectGUID": CASE, "SubscriberURL": to("/packets"),
        }),
        json!({
            "Name": "Mails and calls about 202234-C", "Webhook": "NewCommunication", "FilterObjectType": "Packet",
            "FilterObjectGUID": CASE, "SubscriberURL": to("/communications"),
        }),
        json!({
            "Name": "New schedules", "Webhook": "BusinessObjectCreated", "FilterObjectType": "Schedule",
            "SubscriberURL": to("/objects"),
        }),
        json!({
            "Name": "Changed companies", "Webhook": "BusinessObjectUpdated", "FilterObjectType": "Company",
            "SubscriberURL": to("/objects"),
        }),
        json!({
            "Name": "Changes of 2022 Schedule", "Webhook": "SpecificBusinessObjectUpdated",
            "FilterObjectType": "Schedule", "FilterObjectGUID": SCHEDULE_2022, "SubscriberURL": to("/objects"),
        }),
        json!({
            "Name": "Start Employee, endpoint fails once", "Webhook": "PacketCreated", "FilterObjectType": "Process",
            "FilterObjectGUID": START_EMPLOYEE, "SubscriberURL": to(RECOVERING), "Retry": {"InitialSeconds": 0.3},
        }),
        json!({
            "Name": "Changed schedules, endpoint is broken", "Webhook": "BusinessObjectUpdated",
            "FilterObjectType": "Schedule", "SubscriberURL": to(BROKEN),
            "Retry": {"InitialSeconds": 0.2, "MaxAttempts": BROKEN_ATTEMPTS},
        }),
    ]
}

/// An event type that is none of Enate's, to be registered.
pub(crate) const INVOICE_PAID: &str = "InvoicePaid";

/// How it is registered.
pub(crate) fn invoice_paid() -> Value {
    json!({
        "Description": "An invoice was paid in full.", "Objects": ["Company"],
        "Schema": {"type": "object", "required": ["Number"], "properties": {"Number": {"type": "string"}}},
        "Example": {"Number": "2026-0117"},
    })
}

/// A subscription to it and to all whose names begin like it.
pub(crate) fn invoices(receiver: &str) -> Value {
    json!({
        "Name": "Invoices of Globex", "EventTypes": ["Invoice*"], "FilterObjectType": "Company",
        "FilterObjectGUID": GLOBEX, "SubscriberURL": format!("{receiver}/invoices"),
    })
}

/// An event of it.
pub(crate) fn invoice() -> Value {
    json!({"Type": INVOICE_PAID, "Objects": {"Company": GLOBEX}, "Data": {"Number": "2026-0117"}})
}

fn case_created() -> Value {
    packet(
        "PacketCreated",
        &[("Process", START_EMPLOYEE), ("Packet", CASE)],
        json!({
            "CustomerName": "Globex Corporation", "ProcessTypeName": "Start Employee", "Reference": "202234-C",
            "Title": "Start Employee: Ada Marlowe", "Status": 1, "DueDate": "2026-12-05T08:00:00Z", "RAGStatus": 1,
            "ProcessType": 1, "StartedbyMethod": 1,
        }),
    )
}

fn case_updated(status: i64, rag: i64) -> Value {
    packet(
        "PacketUpdated",
        &[("Process", START_EMPLOYEE), ("Packet", CASE)],
        json!({
            "CustomerName": "Globex Corporation", "ProcessTypeName": "Start Employee", "Reference": "202234-C",
            "Title": "Start Employee: Ada Marlowe", "Status": status, "DueDate": "2026-12-05T08:00:00Z", "RAGStatus": rag,
            "ProcessType": 1, "StartedbyMethod": 1,
        }),
    )
}

fn ticket_created() -> Value {
    packet(
        "PacketCreated",
        &[("Process", PAYROLL_QUERY), ("Packet", TICKET)],
        json!({
            "CustomerName": "Globex Corporation", "ProcessTypeName": "Payroll Query", "Reference": "202235-T",
            "Title": null, "Status": 0, "DueDate": null, "RAGStatus": -2, "ProcessType": 2, "StartedbyMethod": 4,
        }),
    )
}

fn action_created_elsewhere() -> Value {
    let mut event = packet(
        "PacketCreated",
        &[("Process", PAYROLL_QUERY), ("Packet", ACTION)],
        json!({
            "CustomerName": "Umbrella Logistics", "ProcessTypeName": "Payroll Query", "Reference": "202236-A",
            "Title": "Check hours of November", "Status": 1, "DueDate": "2026-11-30T17:00:00Z", "RAGStatus": 0,
            "ProcessType": 3, "StartedbyMethod": 8,
        }),
    );
    event["Objects"]["Company"] = UMBRELLA.into();
    event
}

fn packet(kind: &str, objects: &[(&str, &str)], mut data: Value) -> Value {
    let mut all = json!({"Company": GLOBEX, "Contract": CAPITAL_DISCOVERY, "Service": HR_RELIEF});
    for (name, guid) in objects {
        all[name] = (*guid).into();
    }
    data["SupplierName"] = "Initech".into();
    data["ContractName"] = "Capital Discovery".into();
    data["ServiceName"] = "HR Relief".into();
    data["ServiceLineName"] = "East Coast".into();
    json!({"Type": kind, "Objects": all, "Data": data})
}

fn communication(number: u8, kind: i64, mut data: Value) -> Value {
    data["Importance"] = 0.into();
    data["CommunicationType"] = kind.into();
    let guid = format!("a5c1e7d9-2b84-4f63-9d0a-6e3b8c5f7a{number:02}");
    json!({"Type": "NewCommunication", "Objects": {"Packet": CASE, "Communication": guid}, "Data": data})
}

fn business_object(kind: &str, object_type: &str, guid: &str, name: &str) -> Value {
    json!({"Type": kind, "Objects": {object_type: guid}, "Data": {"Name": name}})
}

#[cfg(test)]
mod tests {
    use super::*;
    use herald_domain::address::EgressPolicy;
    use herald_domain::catalogue::{Catalogue, EnateEvent, Webhook};
    use herald_domain::event::{outline, parse};
    use herald_domain::id::SubscriptionId;
    use herald_domain::index::Index;
    use std::collections::BTreeSet;
    use uuid::Uuid;

    #[test]
    fn the_events_are_well_formed_and_of_every_type() {
        let texts: Vec<_> = events().iter().map(Value::to_string).collect();
        let kinds: BTreeSet<_> = texts
            .iter()
            .map(|text| outline(text).unwrap().kind.into_owned())
            .collect();
        assert_eq!(kinds, EnateEvent::ALL.map(|event| event.name().to_owned()).into());
    }

    #[test]
    fn the_subscription_to_make_by_hand_matches_and_can_be_quoted_in_a_shell() {
        let subscription = subscription("http://127.0.0.1:9000/");
        assert!(!subscription.to_string().contains(['\'', '\n', '\\']), "{subscription}");
        let first = events()
            .into_iter()
            .find(|event| event["Type"] == subscription["Webhook"])
            .unwrap();
        assert_eq!(first["Objects"]["Company"], subscription["FilterObjectGUID"]);
    }

    #[test]
    fn every_subscription_is_accepted_and_matches_something() {
        let egress = EgressPolicy::new(vec!["127.0.0.1/32".parse().unwrap()]);
        let mut index = Index::default();
        let mut ids = BTreeSet::new();
        let mut webhooks = BTreeSet::new();
        for (number, request) in (1..).zip(subscriptions("http://127.0.0.1:9000")) {
            let draft = herald_domain::subscription::parse(&request, &Catalogue::default(), &egress).unwrap();
            let id = SubscriptionId(Uuid::from_u128(number));
            index.add(&draft.settings.interest, id);
            ids.insert(id);
            webhooks.insert(draft.settings.interest.webhook());
        }
        assert_eq!(webhooks, Webhook::ENATE.into());
        let texts: Vec<_> = events().iter().map(Value::to_string).collect();
        let matched: Vec<_> = texts
            .iter()
            .map(|text| {
                let event = parse(text, &Catalogue::default()).unwrap();
                index.matches(&event.kind, &event.objects)
            })
            .collect();
        assert_eq!(
            matched.iter().flatten().map(|(id, _)| *id).collect::<BTreeSet<_>>(),
            ids
        );
        assert_eq!(matched.iter().filter(|matches| matches.is_empty()).count(), 2);
        assert!(matched.iter().any(|matches| matches.len() == 2));
    }
}
