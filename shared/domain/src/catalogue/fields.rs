//! The fields of the messages of Enate's events.

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

pub(super) const PACKET: &[Field] = &[
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

pub(super) const COMMUNICATION: &[Field] = &[
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

pub(super) const BUSINESS_OBJECT: &[Field] = &[required("Name", FieldKind::Text)];
