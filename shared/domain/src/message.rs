//! Messages: an event and a subscription in, the bytes that are signed and sent out.
//!
//! Each format is a file of its own, which owns the body, its content type and the headers that it adds.

mod autotask;
mod cloud_events;
mod enate;
mod standard_webhooks;

pub use autotask::{SIGNATURE as HOOK_SIGNATURE, Shown};
pub use cloud_events::{NotASource, Source};

use crate::catalogue::EventType;
use crate::event::Objects;
use crate::id::{EventId, SubscriptionId};
use crate::time::Timestamp;
use std::borrow::Cow;

/// What a message is made of.
#[derive(Debug, Clone, Copy)]
pub struct Envelope<'a> {
    /// The subscription that gets the message.
    pub subscription: SubscriptionId,
    /// The event's `Id`.
    pub event: EventId,
    /// The `source` of CloudEvents.
    pub source: &'a Source,
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
    /// Its number among the messages of the subscription, from 1, if they are numbered.
    pub sequence: Option<u64>,
    /// The fields of an entity that Autotask's callouts show.
    pub fields: Shown<'a>,
}

/// How a message is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Standard Webhooks: `webhook-timestamp` and `webhook-signature`.
    StandardWebhooks,
    /// [`HOOK_SIGNATURE`]: HMAC-SHA1 over the body.
    Hook,
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
    /// A CloudEvent in one JSON object.
    CloudEvents,
    /// A CloudEvent whose attributes are headers.
    CloudEventsBinary,
    /// A callout as Autotask sends it.
    Autotask,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 5] = [
        Self::Enate,
        Self::StandardWebhooks,
        Self::CloudEvents,
        Self::CloudEventsBinary,
        Self::Autotask,
    ];

    /// Those that a subscription may have. A callout of Autotask has a sequence number, which no subscription counts yet.
    pub const OFFERED: [Self; 4] = [
        Self::Enate,
        Self::StandardWebhooks,
        Self::CloudEvents,
        Self::CloudEventsBinary,
    ];

    /// The name in `Format`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Enate => "Enate",
            Self::StandardWebhooks => "StandardWebhooks",
            Self::CloudEvents => "CloudEvents",
            Self::CloudEventsBinary => "CloudEventsBinary",
            Self::Autotask => "Autotask",
        }
    }

    /// The number by which the ledger keeps it; never reused.
    pub const fn code(self) -> i16 {
        match self {
            Self::Enate => 1,
            Self::StandardWebhooks => 2,
            Self::CloudEvents => 3,
            Self::CloudEventsBinary => 4,
            Self::Autotask => 5,
        }
    }

    /// What a message is in it, for the API's description.
    pub const fn description(self) -> &'static str {
        match self {
            Self::Enate => "`Data` with the subscription's GUID and those of what it concerns in front",
            Self::StandardWebhooks => "`type`, `timestamp` and `data`",
            Self::CloudEvents => "a CloudEvent 1.0 in one JSON object, `application/cloudevents+json`",
            Self::CloudEventsBinary => "`Data`, with the attributes of a CloudEvent 1.0 as `ce-` headers",
            Self::Autotask => "a callout of Autotask, signed with `X-Hook-Signature` alone",
        }
    }

    /// How its messages are signed.
    pub const fn scheme(self) -> Scheme {
        match self {
            Self::Enate | Self::StandardWebhooks | Self::CloudEvents | Self::CloudEventsBinary => {
                Scheme::StandardWebhooks
            }
            Self::Autotask => Scheme::Hook,
        }
    }

    /// Whether the format or its signature sets a header of that name, in lower case.
    pub fn sets(self, name: &str) -> bool {
        let by_format = match self {
            Self::Enate | Self::StandardWebhooks | Self::CloudEvents | Self::Autotask => false,
            Self::CloudEventsBinary => name.starts_with(cloud_events::PREFIX),
        };
        by_format
            || match self.scheme() {
                Scheme::StandardWebhooks => name.starts_with("webhook-"),
                Scheme::Hook => name == HOOK_SIGNATURE,
            }
    }

    /// The format of that name, if a subscription may have it.
    pub fn named(name: &str) -> Option<Self> {
        Self::OFFERED.into_iter().find(|format| format.name() == name)
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
            Self::CloudEvents => cloud_events::structured(envelope),
            Self::CloudEventsBinary => cloud_events::binary(envelope),
            Self::Autotask => autotask::compose(envelope),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::RegisteredType;
    use crate::id::ObjectGuid;
    use std::sync::{Arc, OnceLock};
    use uuid::Uuid;

    pub(super) fn registered() -> EventType {
        let name = "InvoicePaid".into();
        EventType::Registered(Arc::new(RegisteredType { code: 1000, name }))
    }

    static DEFAULT: OnceLock<Source> = OnceLock::new();

    pub(super) fn envelope<'a>(kind: &'a EventType, objects: &'a Objects, data: &'a str) -> Envelope<'a> {
        Envelope {
            subscription: SubscriptionId(Uuid::from_u128(7)),
            event: EventId(Uuid::from_u128(8)),
            source: DEFAULT.get_or_init(Source::default),
            kind,
            objects,
            data,
            occurred_at: None,
            accepted_at: Timestamp::from_micros(2_000_000),
            sequence: None,
            fields: Shown::All,
        }
    }

    #[test]
    fn every_name_and_code_leads_back_to_its_own() {
        for format in Format::ALL {
            assert_eq!(Format::coded(format.code()), Some(format));
            let named = Format::named(format.name());
            assert_eq!(named, Format::OFFERED.contains(&format).then_some(format));
        }
    }

    /// A subscription's own header may have none of these names, whatever its format is now.
    #[test]
    fn a_format_sets_no_header_that_is_not_its_own() {
        let (kind, objects) = (
            registered(),
            Objects::from([("Packet", ObjectGuid(Uuid::from_u128(9)))]),
        );
        for format in Format::ALL {
            let outgoing = format.compose(&envelope(&kind, &objects, "{}"));
            for (name, _) in &outgoing.headers {
                assert!(format.sets(name), "{format:?} {name}");
            }
            assert!(!format.sets("authorization"));
        }
        assert!(Format::Autotask.sets(HOOK_SIGNATURE) && !Format::Autotask.sets("webhook-signature"));
    }
}
