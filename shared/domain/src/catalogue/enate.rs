//! Enate's events and webhooks: one row of a table for each.
//!
//! The names, numbers and ranges are those of Enate's webhooks, and contracts. Where its public page contradicts
//! itself, Schedule is 260, `BusinessObjectCreated` takes no GUID, and `SpecificBusinessObjectUpdated` is a webhook of
//! its own.

use super::fields::{BUSINESS_OBJECT, COMMUNICATION, Field, PACKET};
use super::object::ObjectType;

/// An event type of Enate's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EnateEvent {
    /// A Case, Ticket or Action was created.
    PacketCreated,
    /// A Case, Ticket or Action was changed.
    PacketUpdated,
    /// A mail, note, call or letter was added to a packet.
    NewCommunication,
    /// A Company or Schedule was created.
    BusinessObjectCreated,
    /// A Company or Schedule was changed.
    BusinessObjectUpdated,
}

/// Which objects an event must name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectRule {
    /// Each of these.
    All(&'static [&'static str]),
    /// One of these and no more.
    ExactlyOne(&'static [&'static str]),
}

/// What a field holds that Herald adds in front of `Data`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// The subscription's GUID.
    Subscription,
    /// The GUID of the object of that name.
    Object(&'static str),
    /// The GUID of the Company or Schedule.
    BusinessObject,
    /// The number of the type of the Company or Schedule.
    BusinessObjectType,
}

/// What there is to know of an event type.
struct EventSpec {
    event: EnateEvent,
    name: &'static str,
    description: &'static str,
    code: i16,
    routing_key: &'static str,
    objects: ObjectRule,
    fields: &'static [Field],
    added: &'static [(&'static str, Added)],
    example: &'static str,
}

const GUID: (&str, Added) = ("GUID", Added::Subscription);
const PACKET_GUID: (&str, Added) = ("PacketGUID", Added::Object("Packet"));
const COMMUNICATION_GUID: (&str, Added) = ("CommunicationGUID", Added::Object("Communication"));
const OBJECT: [(&str, Added); 2] = [
    ("ObjectGUID", Added::BusinessObject),
    ("ObjectType", Added::BusinessObjectType),
];

const PACKET_EXAMPLE: &str = r#"{"CustomerName":"Globex Corporation","SupplierName":"Initech","ContractName":"Capital Discovery","ServiceName":"HR Relief","ServiceLineName":"East Coast","ProcessTypeName":"Start Employee","Reference":"202234-C","Title":"New starter in Boston","Status":1,"DueDate":"2026-12-01T17:00:00Z","RAGStatus":1,"ProcessType":1,"StartedbyMethod":4}"#;
const COMMUNICATION_EXAMPLE: &str = r#"{"To":"hr@initech.example","CC":null,"From":"peter@globex.example","Sender":"peter@globex.example","Importance":0,"Subject":"Documents for the new starter","AttachmentCount":2,"CommunicationType":2}"#;
const BUSINESS_OBJECT_EXAMPLE: &str = r#"{"Name":"2022 Schedule"}"#;

/// In the order of [`EnateEvent::ALL`].
const EVENTS: [EventSpec; 5] = [
    EventSpec {
        event: EnateEvent::PacketCreated,
        name: "PacketCreated",
        description: "A Case, Ticket or Action was created.",
        code: 1,
        routing_key: "packet.created",
        objects: ObjectRule::All(&["Packet"]),
        fields: PACKET,
        added: &[GUID, PACKET_GUID],
        example: PACKET_EXAMPLE,
    },
    EventSpec {
        event: EnateEvent::PacketUpdated,
        name: "PacketUpdated",
        description: "A Case, Ticket or Action was changed.",
        code: 2,
        routing_key: "packet.updated",
        objects: ObjectRule::All(&["Packet"]),
        fields: PACKET,
        added: &[GUID, PACKET_GUID],
        example: PACKET_EXAMPLE,
    },
    EventSpec {
        event: EnateEvent::NewCommunication,
        name: "NewCommunication",
        description: "A mail, note, call or letter was added to a Case, Ticket or Action.",
        code: 3,
        routing_key: "communication.new",
        objects: ObjectRule::All(&["Packet", "Communication"]),
        fields: COMMUNICATION,
        added: &[GUID, PACKET_GUID, COMMUNICATION_GUID],
        example: COMMUNICATION_EXAMPLE,
    },
    EventSpec {
        event: EnateEvent::BusinessObjectCreated,
        name: "BusinessObjectCreated",
        description: "A Company or Schedule was created.",
        code: 4,
        routing_key: "business-object.created",
        objects: ObjectRule::ExactlyOne(&["Company", "Schedule"]),
        fields: BUSINESS_OBJECT,
        added: &[GUID, OBJECT[0], OBJECT[1]],
        example: BUSINESS_OBJECT_EXAMPLE,
    },
    EventSpec {
        event: EnateEvent::BusinessObjectUpdated,
        name: "BusinessObjectUpdated",
        description: "A Company or Schedule was changed.",
        code: 5,
        routing_key: "business-object.updated",
        objects: ObjectRule::ExactlyOne(&["Company", "Schedule"]),
        fields: BUSINESS_OBJECT,
        added: &[GUID, OBJECT[0], OBJECT[1]],
        example: BUSINESS_OBJECT_EXAMPLE,
    },
];

impl EnateEvent {
    /// Every one.
    pub const ALL: [Self; 5] = [
        Self::PacketCreated,
        Self::PacketUpdated,
        Self::NewCommunication,
        Self::BusinessObjectCreated,
        Self::BusinessObjectUpdated,
    ];

    const fn spec(self) -> &'static EventSpec {
        &EVENTS[self as usize]
    }

    /// The name in `Type`.
    pub const fn name(self) -> &'static str {
        self.spec().name
    }

    /// What happened, in words.
    pub const fn description(self) -> &'static str {
        self.spec().description
    }

    /// The number by which the ledger keeps it; never reused.
    pub const fn code(self) -> i16 {
        self.spec().code
    }

    /// The key under which it is published to RabbitMQ.
    pub const fn routing_key(self) -> &'static str {
        self.spec().routing_key
    }

    /// The event type of that name.
    pub fn named(name: &str) -> Option<Self> {
        EVENTS.iter().find(|spec| spec.name == name).map(|spec| spec.event)
    }

    /// The event type of that number.
    pub fn coded(code: i16) -> Option<Self> {
        EVENTS.iter().find(|spec| spec.code == code).map(|spec| spec.event)
    }

    /// The objects that an event must name.
    pub const fn objects(self) -> ObjectRule {
        self.spec().objects
    }

    /// The fields that `Data` has.
    pub const fn fields(self) -> &'static [Field] {
        self.spec().fields
    }

    /// The fields that Herald adds in front of `Data` in the message.
    pub const fn added_fields(self) -> &'static [(&'static str, Added)] {
        self.spec().added
    }

    /// A `Data` by its rules, as JSON.
    pub const fn example(self) -> &'static str {
        self.spec().example
    }
}

/// Fields that Herald adds to some message; no event's `Data` may have them.
pub const RESERVED_FIELDS: [&str; 5] = ["GUID", "PacketGUID", "CommunicationGUID", "ObjectGUID", "ObjectType"];

/// What a subscription asks for; its `Webhook`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Webhook {
    /// A packet is created under the company, contract, service or process of the filter.
    PacketCreated,
    /// The packet of the filter changes.
    PacketUpdated,
    /// A communication is added to the packet of the filter.
    NewCommunication,
    /// A business object of the filter's type is created.
    BusinessObjectCreated,
    /// Any business object of the filter's type changes.
    BusinessObjectUpdated,
    /// The business object of the filter changes.
    SpecificBusinessObjectUpdated,
    /// An event of one of the subscription's `EventTypes` happens.
    Events,
}

/// What there is to know of one of Enate's webhooks.
struct WebhookSpec {
    webhook: Webhook,
    name: &'static str,
    description: &'static str,
    code: i16,
    event: EnateEvent,
    filter_types: &'static [ObjectType],
    filters_by_guid: bool,
}

const COMPANY_OR_SCHEDULE: &[ObjectType] = &[ObjectType::COMPANY, ObjectType::SCHEDULE];

const WEBHOOKS: [WebhookSpec; 6] = [
    WebhookSpec {
        webhook: Webhook::PacketCreated,
        name: "PacketCreated",
        description: "A Case, Ticket or Action is created under the given company, contract, service or process.",
        code: 1,
        event: EnateEvent::PacketCreated,
        filter_types: &[
            ObjectType::COMPANY,
            ObjectType::CONTRACT,
            ObjectType::SERVICE,
            ObjectType::PROCESS,
        ],
        filters_by_guid: true,
    },
    WebhookSpec {
        webhook: Webhook::PacketUpdated,
        name: "PacketUpdated",
        description: "The given Case, Ticket or Action is updated.",
        code: 2,
        event: EnateEvent::PacketUpdated,
        filter_types: &[ObjectType::PACKET],
        filters_by_guid: true,
    },
    WebhookSpec {
        webhook: Webhook::NewCommunication,
        name: "NewCommunication",
        description: "A communication (mail, note, call, letter) is added to the given Case, Ticket or Action.",
        code: 3,
        event: EnateEvent::NewCommunication,
        filter_types: &[ObjectType::PACKET],
        filters_by_guid: true,
    },
    WebhookSpec {
        webhook: Webhook::BusinessObjectCreated,
        name: "BusinessObjectCreated",
        description: "A Company or Schedule is created.",
        code: 4,
        event: EnateEvent::BusinessObjectCreated,
        filter_types: COMPANY_OR_SCHEDULE,
        filters_by_guid: false,
    },
    WebhookSpec {
        webhook: Webhook::BusinessObjectUpdated,
        name: "BusinessObjectUpdated",
        description: "Any Company or any Schedule is updated.",
        code: 5,
        event: EnateEvent::BusinessObjectUpdated,
        filter_types: COMPANY_OR_SCHEDULE,
        filters_by_guid: false,
    },
    WebhookSpec {
        webhook: Webhook::SpecificBusinessObjectUpdated,
        name: "SpecificBusinessObjectUpdated",
        description: "The given Company or Schedule is updated.",
        code: 6,
        event: EnateEvent::BusinessObjectUpdated,
        filter_types: COMPANY_OR_SCHEDULE,
        filters_by_guid: true,
    },
];

impl Webhook {
    /// Enate's webhooks.
    pub const ENATE: [Self; 6] = [
        Self::PacketCreated,
        Self::PacketUpdated,
        Self::NewCommunication,
        Self::BusinessObjectCreated,
        Self::BusinessObjectUpdated,
        Self::SpecificBusinessObjectUpdated,
    ];

    /// Every value of `Webhook`.
    pub const ALL: [Self; 7] = [
        Self::PacketCreated,
        Self::PacketUpdated,
        Self::NewCommunication,
        Self::BusinessObjectCreated,
        Self::BusinessObjectUpdated,
        Self::SpecificBusinessObjectUpdated,
        Self::Events,
    ];

    const fn spec(self) -> Option<&'static WebhookSpec> {
        let place = self as usize;
        if place < WEBHOOKS.len() {
            Some(&WEBHOOKS[place])
        } else {
            None
        }
    }

    /// The name in `Webhook`.
    pub const fn name(self) -> &'static str {
        match self.spec() {
            Some(spec) => spec.name,
            None => "Events",
        }
    }

    /// The number by which the ledger keeps it; never reused.
    pub const fn code(self) -> i16 {
        match self.spec() {
            Some(spec) => spec.code,
            None => 7,
        }
    }

    /// The webhook of that name; `NewBusinessObject` is read as `BusinessObjectCreated`, because
    /// Enate's page calls it so once. It is never written.
    pub fn named(name: &str) -> Option<Self> {
        if name == "NewBusinessObject" {
            return Some(Self::BusinessObjectCreated);
        }
        let enate = WEBHOOKS.iter().find(|spec| spec.name == name).map(|spec| spec.webhook);
        enate.or_else(|| (name == Self::Events.name()).then_some(Self::Events))
    }

    /// The webhook of that number.
    pub fn coded(code: i16) -> Option<Self> {
        let enate = WEBHOOKS.iter().find(|spec| spec.code == code).map(|spec| spec.webhook);
        enate.or_else(|| (code == Self::Events.code()).then_some(Self::Events))
    }

    /// The events that one of Enate's fires for.
    pub fn event_type(self) -> Option<EnateEvent> {
        self.spec().map(|spec| spec.event)
    }

    /// When it fires, in words.
    pub const fn description(self) -> &'static str {
        match self.spec() {
            Some(spec) => spec.description,
            None => "An event of one of the subscription's event types happens.",
        }
    }

    /// The object types that the filter of one of Enate's may have; none for `Events`, whose filter may have any.
    pub const fn filter_types(self) -> &'static [ObjectType] {
        match self.spec() {
            Some(spec) => spec.filter_types,
            None => &[],
        }
    }

    /// Whether its filter names one object; otherwise it names a type only.
    pub const fn filters_by_guid(self) -> bool {
        match self.spec() {
            Some(spec) => spec.filters_by_guid,
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_code_and_name_leads_back_to_its_own() {
        for event in EnateEvent::ALL {
            assert_eq!(event.spec().event, event);
            assert_eq!(EnateEvent::named(event.name()), Some(event));
            assert_eq!(EnateEvent::coded(event.code()), Some(event));
        }
        for webhook in Webhook::ALL {
            assert!(webhook.spec().is_none_or(|spec| spec.webhook == webhook));
            assert_eq!(Webhook::named(webhook.name()), Some(webhook));
            assert_eq!(Webhook::coded(webhook.code()), Some(webhook));
        }
    }

    #[test]
    fn what_is_added_is_reserved_and_no_field_twice() {
        for event in EnateEvent::ALL {
            for (added, _) in event.added_fields() {
                assert!(RESERVED_FIELDS.contains(added));
            }
            let names: HashSet<_> = event.fields().iter().map(|field| field.name).collect();
            assert_eq!(names.len(), event.fields().len());
            assert!(RESERVED_FIELDS.iter().all(|name| !names.contains(name)));
        }
    }
}
