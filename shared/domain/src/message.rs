//! Messages: an event and a subscription in, the bytes that are signed and sent out.
//!
//! Each format is a file of its own, which owns the body, its content type and the headers that it adds.

mod enate;
mod standard_webhooks;

use crate::catalogue::EventType;
use crate::event::Objects;
use crate::id::SubscriptionId;
use crate::time::Timestamp;
use std::borrow::Cow;

/// What a message is made of.
#[derive(Debug, Clone, Copy)]
pub struct Envelope<'a> {
    /// The subscription that gets the message.
    pub subscription: SubscriptionId,
    /// The event's `Type`.
    pub kind: &'a EventType,
    /// The event's `Objects`.
    pub objects: &'a Objects,
    /// The event's `Data` as it was accepted, a JSON object.
    pub data: &'a str,
    /// When it happened, if the producer said.
    pub occurred_at: Option<Timestamp>,
    /// When it was accepted.
    pub accepted_at: Timestamp,
}

/// What a format makes of an event.
#[derive(Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// The content type of the body.
    pub content_type: &'static str,
    /// The headers that the format adds, names in lower case.
    pub headers: Vec<(Cow<'static, str>, String)>,
    /// The body, which is what is signed.
    pub body: String,
}

impl Outgoing {
    /// A body that is plain JSON, with no further headers.
    fn json(body: String) -> Self {
        Self {
            content_type: "application/json",
            headers: Vec::new(),
            body,
        }
    }
}

/// How messages are written; a subscription's `Format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Format {
    /// `Data` with the GUIDs in front, as Enate sends it.
    Enate,
    /// `type`, `timestamp` and `data`, as the Standard Webhooks specification recommends.
    StandardWebhooks,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 2] = [Self::Enate, Self::StandardWebhooks];

    /// The name in `Format`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Enate => "Enate",
            Self::StandardWebhooks => "StandardWebhooks",
        }
    }

    /// The number by which the ledger keeps it; never reused.
    pub const fn code(self) -> i16 {
        match self {
            Self::Enate => 1,
            Self::StandardWebhooks => 2,
        }
    }

    /// The format of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    /// The format of that number.
    pub fn coded(code: i16) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.code() == code)
    }

    /// Writes the message of an event in this format.
    pub fn compose(self, envelope: &Envelope<'_>) -> Outgoing {
        match self {
            Self::Enate => Outgoing::json(enate::body(envelope)),
            Self::StandardWebhooks => Outgoing::json(standard_webhooks::body(envelope)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::RegisteredType;
    use std::sync::Arc;
    use uuid::Uuid;

    pub(super) fn registered() -> EventType {
        let name = "InvoicePaid".into();
        EventType::Registered(Arc::new(RegisteredType { code: 1000, name }))
    }

    pub(super) fn envelope<'a>(kind: &'a EventType, objects: &'a Objects, data: &'a str) -> Envelope<'a> {
        Envelope {
            subscription: SubscriptionId(Uuid::from_u128(7)),
            kind,
            objects,
            data,
            occurred_at: None,
            accepted_at: Timestamp::from_micros(2_000_000),
        }
    }

    #[test]
    fn every_name_and_code_leads_back_to_its_own() {
        for format in Format::ALL {
            assert_eq!(Format::named(format.name()), Some(format));
            assert_eq!(Format::coded(format.code()), Some(format));
        }
    }
}
