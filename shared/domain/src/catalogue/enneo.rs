//! The pack `enneo`: what happens to a ticket of Enneo's, and the lookups that an external system answers.
//!
//! Enneo's ids are whole numbers or text, and an event's `Objects` holds GUIDs. So no event of these types must name an
//! object, and each may.

use super::pack::PackType;

/// The pack. The schemas ask for what a receiver cannot do without; further fields pass through.
pub(super) const TYPES: [PackType; 6] = [
    PackType {
        name: "TicketUpdated",
        description: "A ticket's status, priority, deadline or assignment was changed.",
        objects: &[],
        schema: r#"{"type":"object","minProperties":1,"properties":{
            "ticketId":{"type":["integer","string","null"]},
            "contractId":{"type":["integer","string","null"]},
            "status":{"type":["string","null"]},
            "workedOnBy":{"type":["integer","string","null"]},
            "priority":{"type":["integer","string","null"]},
            "dueBy":{"type":["string","null"]},
            "firstResponseDueBy":{"type":["string","null"]},
            "tagIds":{"type":["array","null"],"items":{"type":["integer","string"]}}}}"#,
        example: r#"{"ticketId":4711,"contractId":"C-1001","status":"open","workedOnBy":12,"priority":"high","dueBy":"2026-12-01T17:00:00Z","firstResponseDueBy":null,"tagIds":[3,8]}"#,
    },
    PackType {
        name: "NewEmail",
        description: "A mail came in, a mail went out, or an internal note was added. conversationId is null unless it is a \
                      reply or outgoing.",
        objects: &[],
        schema: r#"{"type":"object","required":["conversationId"],"properties":{
            "ticketId":{"type":["integer","string","null"]},
            "conversationId":{"type":["integer","string","null"]}}}"#,
        example: r#"{"ticketId":4711,"conversationId":null,"from":"peter@globex.example","subject":"My meter reading","body":"It is 4711."}"#,
    },
    PackType {
        name: "ContractById",
        description: "A lookup: the contract with that id.",
        objects: &[],
        schema: r#"{"type":"object","required":["contractId"],"properties":{
            "contractId":{"type":["integer","string"]}}}"#,
        example: r#"{"contractId":"C-1001"}"#,
    },
    PackType {
        name: "CustomerById",
        description: "A lookup: the customer with that id.",
        objects: &[],
        schema: r#"{"type":"object","required":["customerId"],"properties":{
            "customerId":{"type":["integer","string"],"maxLength":50}}}"#,
        example: r#"{"customerId":"K-2002"}"#,
    },
    PackType {
        name: "ContractsByFeatures",
        description: "A lookup: the contract that has these features, such as a name and an address.",
        objects: &[],
        schema: r#"{"type":"object","minProperties":1,"properties":{
            "customerId":{"type":["integer","string","null"],"maxLength":50},
            "contractId":{"type":["integer","string","null"]},
            "ticketId":{"type":["integer","string","null"]}}}"#,
        example: r#"{"lastname":"Gibbons","zip":"10115","ticketId":4711}"#,
    },
    PackType {
        name: "CustomersByText",
        description: "A lookup: the customers that a free text finds.",
        objects: &[],
        schema: r#"{"type":"object","required":["q"],"properties":{
            "q":{"type":"string"},
            "limit":{"type":"integer","minimum":1},
            "offset":{"type":"integer","minimum":0}}}"#,
        example: r#"{"q":"Gibbons","limit":10,"offset":0}"#,
    },
];
