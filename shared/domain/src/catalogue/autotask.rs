//! The pack `autotask`: what happens to an entity of Autotask's.
//!
//! Autotask's ids are whole numbers, and an event's `Objects` holds GUIDs. So no event of these types must name an object,
//! and each may.

use super::pack::PackType;

/// `Fields` may hold anything: which fields an entity has is for its owner to decide, own fields included.
const SCHEMA: &str = r#"{"type":"object","required":["Id"],"properties":{
    "Id":{"type":"integer","minimum":0,"description":"The entity's id."},
    "Fields":{"type":"object","description":"The entity's fields by their names."},
    "Changed":{"type":"array","items":{"type":"string"},"description":"The names of the fields that changed."},
    "PersonID":{"type":["integer","null"],"description":"The id of the resource or contact that did it."}}}"#;

const fn row(name: &'static str, description: &'static str, example: &'static str) -> PackType {
    PackType {
        name,
        description,
        objects: &[],
        schema: SCHEMA,
        example,
    }
}

/// The pack.
pub(super) const TYPES: [PackType; 15] = [
    row(
        "Autotask.Company.Create",
        "A company (account) was created.",
        r#"{"Id":174,"Fields":{"companyName":"Globex Corporation","phone":"555-0100"},"PersonID":30691780}"#,
    ),
    row(
        "Autotask.Company.Update",
        "A company (account) was changed.",
        r#"{"Id":174,"Fields":{"companyName":"Globex Corporation","phone":"555-0101"},"Changed":["phone"],"PersonID":30691780}"#,
    ),
    row(
        "Autotask.Company.Delete",
        "A company (account) was deleted.",
        r#"{"Id":174,"Fields":{"companyName":"Globex Corporation"},"PersonID":30691780}"#,
    ),
    row(
        "Autotask.Contact.Create",
        "A contact was created.",
        r#"{"Id":30683001,"Fields":{"firstName":"Peter","lastName":"Gibbons","companyID":174},"PersonID":30691780}"#,
    ),
    row(
        "Autotask.Contact.Update",
        "A contact was changed.",
        r#"{"Id":30683001,"Fields":{"emailAddress":"peter@initech.example"},"Changed":["emailAddress"],"PersonID":30691780}"#,
    ),
    row(
        "Autotask.Contact.Delete",
        "A contact was deleted.",
        r#"{"Id":30683001,"Fields":{"lastName":"Gibbons"},"PersonID":30691780}"#,
    ),
    row(
        "Autotask.ConfigurationItem.Create",
        "A configuration item (asset, installed product) was created.",
        r#"{"Id":40211,"Fields":{"referenceTitle":"Printer, second floor","companyID":174},"PersonID":30691780}"#,
    ),
    row(
        "Autotask.ConfigurationItem.Update",
        "A configuration item (asset, installed product) was changed.",
        r#"{"Id":40211,"Fields":{"isActive":false},"Changed":["isActive"],"PersonID":30691780}"#,
    ),
    row(
        "Autotask.ConfigurationItem.Delete",
        "A configuration item (asset, installed product) was deleted.",
        r#"{"Id":40211,"Fields":{"referenceTitle":"Printer, second floor"},"PersonID":30691780}"#,
    ),
    row(
        "Autotask.Ticket.Create",
        "A ticket was created.",
        r#"{"Id":351181,"Fields":{"ticketNumber":"T20250915.0001","title":"No paper","status":1},"PersonID":30691780}"#,
    ),
    row(
        "Autotask.Ticket.Update",
        "A ticket was changed.",
        r#"{"Id":351181,"Fields":{"ticketNumber":"T20250915.0001","status":5},"Changed":["status"],"PersonID":30691780}"#,
    ),
    row(
        "Autotask.Ticket.Delete",
        "A ticket was deleted.",
        r#"{"Id":351181,"Fields":{"ticketNumber":"T20250915.0001"},"PersonID":30691780}"#,
    ),
    row(
        "Autotask.TicketNote.Create",
        "A note was added to a ticket.",
        r#"{"Id":29683,"Fields":{"ticketID":351181,"title":"Paper was filled in"},"PersonID":30691780}"#,
    ),
    row(
        "Autotask.TicketNote.Update",
        "A note on a ticket was changed.",
        r#"{"Id":29683,"Fields":{"ticketID":351181,"publish":1},"Changed":["publish"],"PersonID":30691780}"#,
    ),
    row(
        "Autotask.TicketNote.Delete",
        "A note on a ticket was deleted.",
        r#"{"Id":29683,"Fields":{"ticketID":351181},"PersonID":30691780}"#,
    ),
];
