//! Well-formed events and subscriptions, to be bent by tests.

use serde_json::{Value, json};
use uuid::Uuid;

/// The five types of events.
pub const EVENT_TYPES: [&str; 5] = [
    "PacketCreated",
    "PacketUpdated",
    "NewCommunication",
    "BusinessObjectCreated",
    "BusinessObjectUpdated",
];

/// `FilterObjectType` of each object.
pub const COMPANY: u16 = 31;
pub const PACKET: u16 = 81;
pub const CONTRACT: u16 = 215;
pub const SERVICE: u16 = 217;
pub const SCHEDULE: u16 = 260;
pub const PROCESS: u16 = 911;

/// A GUID that nobody else has.
pub fn guid() -> Uuid {
    Uuid::new_v4()
}

/// A whole packet, as `Data`.
pub fn packet_data() -> Value {
    json!({
        "CustomerName": "Globex Corporation", "SupplierName": "Initech", "ContractName": "Capital Discovery",
        "ServiceName": "HR Relief", "ServiceLineName": "East Coast", "ProcessTypeName": "Start Employee",
        "Reference": "202234-C", "Title": "Start of Jane Doe", "Status": 1, "DueDate": "2026-12-01T09:00:00Z",
        "RAGStatus": 1, "ProcessType": 1, "StartedbyMethod": 4
    })
}

/// A whole communication, as `Data`.
pub fn communication_data() -> Value {
    json!({
        "To": "desk@globex.example", "CC": null, "From": "jane@example.org", "Sender": "jane@example.org",
        "Importance": 0, "Subject": "My first day", "AttachmentCount": 2, "CommunicationType": 2
    })
}

/// An event with every object that its type may have, all GUIDs new.
pub fn event(kind: &str) -> Value {
    let (objects, data) = match kind {
        "PacketCreated" | "PacketUpdated" => (
            json!({ "Company": guid(), "Contract": guid(), "Service": guid(), "Process": guid(), "Packet": guid() }),
            packet_data(),
        ),
        "NewCommunication" => (
            json!({ "Packet": guid(), "Communication": guid() }),
            communication_data(),
        ),
        _ => (json!({ "Company": guid() }), json!({ "Name": "2026 Schedule" })),
    };
    json!({ "Id": guid(), "Type": kind, "OccurredAt": "2026-11-22T05:13:39Z", "Objects": objects, "Data": data })
}

/// A `PacketCreated` of that company.
pub fn packet_of(company: Uuid) -> Value {
    merged(event("PacketCreated"), json!({ "Objects": { "Company": company } }))
}

/// The `Id` of an event.
pub fn id_of(event: &Value) -> String {
    event["Id"].as_str().expect("samples have an Id").to_owned()
}

/// The body of a request for a subscription.
pub fn subscription(webhook: &str, object_type: u16, object: Option<Uuid>, url: &str) -> Value {
    json!({
        "Webhook": webhook, "FilterObjectType": object_type, "FilterObjectGUID": object, "SubscriberURL": url
    })
}

/// A subscription to the packets of a company.
pub fn packets_of(company: Uuid, url: &str) -> Value {
    subscription("PacketCreated", COMPANY, Some(company), url)
}

/// A schedule of retries that a test can sit out.
pub fn quick_retry() -> Value {
    json!({ "Retry": { "InitialSeconds": 0.05, "Multiplier": 1, "MaxSeconds": 0.1 } })
}

/// `base` with the fields of `change` set, objects merged; null sets null.
#[must_use]
pub fn merged(mut base: Value, change: Value) -> Value {
    merge(&mut base, change);
    base
}

fn merge(base: &mut Value, change: Value) {
    match (base, change) {
        (Value::Object(fields), Value::Object(changes)) => {
            for (name, change) in changes {
                merge(fields.entry(name).or_insert(Value::Null), change);
            }
        }
        (base, change) => *base = change,
    }
}

/// `base` without the field at that JSON pointer.
#[must_use]
pub fn without(mut base: Value, pointer: &str) -> Value {
    let (parent, name) = pointer.rsplit_once('/').expect("a pointer to a field");
    let fields = base
        .pointer_mut(parent)
        .and_then(Value::as_object_mut)
        .expect("an object above the field");
    assert!(fields.remove(name).is_some(), "{pointer} was not there");
    base
}
