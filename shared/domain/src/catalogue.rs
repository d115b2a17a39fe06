//! What exists: event types, webhooks, object types, and the fields of each message.
//!
//! The names, numbers and ranges are those of Enate's webhooks, and contracts. Where its public page
//! contradicts itself, Schedule is 260, `BusinessObjectCreated` takes no GUID, and
//! `SpecificBusinessObjectUpdated` is a webhook of its own.

/// What happened; the `Type` of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventType {
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

impl EventType {
    /// Every event type.
    pub const ALL: [Self; 5] = [
        Self::PacketCreated,
        Self::PacketUpdated,
        Self::NewCommunication,
        Self::BusinessObjectCreated,
        Self::BusinessObjectUpdated,
    ];

    /// The name in `Type`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PacketCreated => "PacketCreated",
            Self::PacketUpdated => "PacketUpdated",
            Self::NewCommunication => "NewCommunication",
            Self::BusinessObjectCreated => "BusinessObjectCreated",
            Self::BusinessObjectUpdated => "BusinessObjectUpdated",
        }
    }

    /// The number by which the ledger keeps it; never reused.
    pub const fn code(self) -> i16 {
        match self {
            Self::PacketCreated => 1,
            Self::PacketUpdated => 2,
            Self::NewCommunication => 3,
            Self::BusinessObjectCreated => 4,
            Self::BusinessObjectUpdated => 5,
        }
    }

    /// The event type of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The event type of that number.
    pub fn coded(code: i16) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }

    /// The fields that `Data` has.
    pub const fn fields(self) -> &'static [Field] {
        match self {
            Self::PacketCreated | Self::PacketUpdated => PACKET,
            Self::NewCommunication => COMMUNICATION,
            Self::BusinessObjectCreated | Self::BusinessObjectUpdated => BUSINESS_OBJECT,
        }
    }

    /// The fields that Herald adds in front of `Data` in the message.
    pub const fn added_fields(self) -> &'static [&'static str] {
        match self {
            Self::PacketCreated | Self::PacketUpdated => &["GUID", "PacketGUID"],
            Self::NewCommunication => &["GUID", "PacketGUID", "CommunicationGUID"],
            Self::BusinessObjectCreated | Self::BusinessObjectUpdated => &["GUID", "ObjectGUID", "ObjectType"],
        }
    }
}

/// Fields that Herald adds to some message; no event's `Data` may have them.
pub const RESERVED_FIELDS: [&str; 5] = ["GUID", "PacketGUID", "CommunicationGUID", "ObjectGUID", "ObjectType"];

/// A kind of object that a filter can name, with its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectType {
    /// 31
    Company,
    /// 81: a Case, Ticket or Action
    Packet,
    /// 215
    Contract,
    /// 217
    Service,
    /// 260
    Schedule,
    /// 911
    Process,
}

impl ObjectType {
    /// Every object type.
    pub const ALL: [Self; 6] = [
        Self::Company,
        Self::Packet,
        Self::Contract,
        Self::Service,
        Self::Schedule,
        Self::Process,
    ];

    /// The number, as in `FilterObjectType`.
    pub const fn number(self) -> i16 {
        match self {
            Self::Company => 31,
            Self::Packet => 81,
            Self::Contract => 215,
            Self::Service => 217,
            Self::Schedule => 260,
            Self::Process => 911,
        }
    }

    /// The name, as in an event's `Objects`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Company => "Company",
            Self::Packet => "Packet",
            Self::Contract => "Contract",
            Self::Service => "Service",
            Self::Schedule => "Schedule",
            Self::Process => "Process",
        }
    }

    /// The object type of that number.
    pub fn numbered(number: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| i64::from(kind.number()) == number)
    }

    /// The object type of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

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
}

impl Webhook {
    /// Every webhook.
    pub const ALL: [Self; 6] = [
        Self::PacketCreated,
        Self::PacketUpdated,
        Self::NewCommunication,
        Self::BusinessObjectCreated,
        Self::BusinessObjectUpdated,
        Self::SpecificBusinessObjectUpdated,
    ];

    /// The name in `Webhook` and in the header `Webhook-Type`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PacketCreated => "PacketCreated",
            Self::PacketUpdated => "PacketUpdated",
            Self::NewCommunication => "NewCommunication",
            Self::BusinessObjectCreated => "BusinessObjectCreated",
            Self::BusinessObjectUpdated => "BusinessObjectUpdated",
            Self::SpecificBusinessObjectUpdated => "SpecificBusinessObjectUpdated",
        }
    }

    /// The number by which the ledger keeps it; never reused.
    pub const fn code(self) -> i16 {
        match self {
            Self::PacketCreated => 1,
            Self::PacketUpdated => 2,
            Self::NewCommunication => 3,
            Self::BusinessObjectCreated => 4,
            Self::BusinessObjectUpdated => 5,
            Self::SpecificBusinessObjectUpdated => 6,
        }
    }

    /// The webhook of that name; `NewBusinessObject` is read as `BusinessObjectCreated`, because
    /// Enate's page calls it so once. It is never written.
    pub fn named(name: &str) -> Option<Self> {
        if name == "NewBusinessObject" {
            return Some(Self::BusinessObjectCreated);
        }
        Self::ALL.into_iter().find(|webhook| webhook.name() == name)
    }

    /// The webhook of that number.
    pub fn coded(code: i16) -> Option<Self> {
        Self::ALL.into_iter().find(|webhook| webhook.code() == code)
    }

    /// The events that it fires for.
    pub const fn event_type(self) -> EventType {
        match self {
            Self::PacketCreated => EventType::PacketCreated,
            Self::PacketUpdated => EventType::PacketUpdated,
            Self::NewCommunication => EventType::NewCommunication,
            Self::BusinessObjectCreated => EventType::BusinessObjectCreated,
            Self::BusinessObjectUpdated | Self::SpecificBusinessObjectUpdated => EventType::BusinessObjectUpdated,
        }
    }

    /// When it fires, in words.
    pub const fn description(self) -> &'static str {
        match self {
            Self::PacketCreated => {
                "A Case, Ticket or Action is created under the given company, contract, service or process."
            }
            Self::PacketUpdated => "The given Case, Ticket or Action is updated.",
            Self::NewCommunication => {
                "A communication (mail, note, call, letter) is added to the given Case, Ticket or Action."
            }
            Self::BusinessObjectCreated => "A Company or Schedule is created.",
            Self::BusinessObjectUpdated => "Any Company or any Schedule is updated.",
            Self::SpecificBusinessObjectUpdated => "The given Company or Schedule is updated.",
        }
    }

    /// The object types that its filter may have.
    pub const fn filter_types(self) -> &'static [ObjectType] {
        match self {
            Self::PacketCreated => &[
                ObjectType::Company,
                ObjectType::Contract,
                ObjectType::Service,
                ObjectType::Process,
            ],
            Self::PacketUpdated | Self::NewCommunication => &[ObjectType::Packet],
            Self::BusinessObjectCreated | Self::BusinessObjectUpdated | Self::SpecificBusinessObjectUpdated => {
                &[ObjectType::Company, ObjectType::Schedule]
            }
        }
    }

    /// Whether its filter names one object; otherwise it names a type only.
    pub const fn filters_by_guid(self) -> bool {
        match self {
            Self::PacketCreated
            | Self::PacketUpdated
            | Self::NewCommunication
            | Self::SpecificBusinessObjectUpdated => true,
            Self::BusinessObjectCreated | Self::BusinessObjectUpdated => false,
        }
    }
}

/// What values a field of `Data` may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldKind {
    /// Any text.
    Text,
    /// One of these numbers, with what each means.
    Code(&'static [(i64, &'static str)]),
    /// A whole number from 0.
    Count,
    /// An RFC 3339 date-time.
    DateTime,
}

/// A known field of `Data`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// The exact name.
    pub name: &'static str,
    /// The values it may have.
    pub kind: FieldKind,
    /// Whether it must be there and not null.
    pub required: bool,
}

const fn required(name: &'static str, kind: FieldKind) -> Field {
    Field {
        name,
        kind,
        required: true,
    }
}

const fn optional(name: &'static str, kind: FieldKind) -> Field {
    Field {
        name,
        kind,
        required: false,
    }
}

const PACKET: &[Field] = &[
    required("CustomerName", FieldKind::Text),
    required("SupplierName", FieldKind::Text),
    required("ContractName", FieldKind::Text),
    required("ServiceName", FieldKind::Text),
    required("ServiceLineName", FieldKind::Text),
    required("ProcessTypeName", FieldKind::Text),
    required("Reference", FieldKind::Text),
    optional("Title", FieldKind::Text),
    required(
        "Status",
        FieldKind::Code(&[
            (0, "Draft"),
            (1, "ToDo"),
            (2, "InProgress"),
            (3, "Waiting"),
            (4, "Resolved"),
            (5, "Closed"),
        ]),
    ),
    optional("DueDate", FieldKind::DateTime),
    required(
        "RAGStatus",
        FieldKind::Code(&[
            (-2, "ToBeDetermined"),
            (-1, "Overdue"),
            (0, "DueToday"),
            (1, "DueInFuture"),
        ]),
    ),
    required(
        "ProcessType",
        FieldKind::Code(&[(1, "Case"), (2, "Ticket"), (3, "Action")]),
    ),
    optional(
        "StartedbyMethod",
        FieldKind::Code(&[
            (0, "Workflow"),
            (1, "ByOperationalUser"),
            (2, "BySelfServiceUser"),
            (3, "ByRobotUser"),
            (4, "ByEmail"),
            (5, "FromTicket"),
            (6, "ByOperationalUserInBulk"),
            (7, "ByRobotUserInBulk"),
            (8, "BySchedule"),
        ]),
    ),
];

const COMMUNICATION: &[Field] = &[
    optional("To", FieldKind::Text),
    optional("CC", FieldKind::Text),
    optional("From", FieldKind::Text),
    optional("Sender", FieldKind::Text),
    required("Importance", FieldKind::Code(&[(0, "Normal"), (1, "Low"), (2, "High")])),
    optional("Subject", FieldKind::Text),
    required("AttachmentCount", FieldKind::Count),
    required(
        "CommunicationType",
        FieldKind::Code(&[
            (0, "EmailOutgoing"),
            (1, "PhoneIncoming"),
            (2, "EmailIncoming"),
            (3, "ESSComment"),
            (4, "AuditNote"),
            (5, "PhoneOutgoing"),
            (6, "LetterIncoming"),
            (7, "LetterOutgoing"),
        ]),
    ),
];

const BUSINESS_OBJECT: &[Field] = &[required("Name", FieldKind::Text)];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_code_and_name_leads_back_to_its_own() {
        for kind in EventType::ALL {
            assert_eq!(EventType::named(kind.name()), Some(kind));
            assert_eq!(EventType::coded(kind.code()), Some(kind));
        }
        for webhook in Webhook::ALL {
            assert_eq!(Webhook::named(webhook.name()), Some(webhook));
            assert_eq!(Webhook::coded(webhook.code()), Some(webhook));
        }
        for kind in ObjectType::ALL {
            assert_eq!(ObjectType::named(kind.name()), Some(kind));
            assert_eq!(ObjectType::numbered(kind.number().into()), Some(kind));
        }
    }

    #[test]
    fn what_is_added_is_reserved_and_no_field_twice() {
        for kind in EventType::ALL {
            for added in kind.added_fields() {
                assert!(RESERVED_FIELDS.contains(added));
            }
            let names: HashSet<_> = kind.fields().iter().map(|field| field.name).collect();
            assert_eq!(names.len(), kind.fields().len());
            assert!(RESERVED_FIELDS.iter().all(|name| !names.contains(name)));
        }
    }
}
