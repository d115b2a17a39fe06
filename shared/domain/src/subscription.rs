//! Subscriptions: their fields, rules and defaults.

mod header;
mod reader;

use crate::address::EgressPolicy;
use crate::catalogue::Catalogue;
use crate::delivery::Reason;
use crate::id::{AccountId, SubscriptionId};
use crate::index::Interest;
use crate::message::Format;
use crate::problem::{Fault, Faults};
use crate::retry::RetryPolicy;
use crate::signing::{FormerKey, SigningKey};
use crate::time::Timestamp;
use reader::Reader;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Duration;
use url::{Host, Url};

/// A subscription as it is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Subscription {
    /// Its `GUID`.
    pub id: SubscriptionId,
    /// The account that made it.
    pub owner: AccountId,
    /// What its owner may set.
    pub settings: Settings,
    /// What messages are signed with.
    pub key: SigningKey,
    /// The key before that, where a rotation said that it signs for a while.
    pub former_key: Option<FormerKey>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// Deliveries opened before this are cancelled: when it was last deactivated or deleted.
    pub open_from: Timestamp,
    /// The registry's version that this made, see [`crate::delivery::Delivery::is_opened_before`]; 0 if it never
    /// was, or if that was not noted.
    pub open_from_version: i64,
    /// When and why Herald itself deactivated it; none while it is active.
    pub deactivated: Option<Deactivation>,
    /// Deleted: kept so that its deliveries can still be explained.
    pub deleted: bool,
}

/// A deactivation that Herald made by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deactivation {
    /// When the subscription was deactivated.
    pub at: Timestamp,
    /// Why it was deactivated.
    pub reason: Reason,
}

/// The settable part of a subscription.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// What it listens to.
    pub interest: Interest,
    /// How messages are written.
    pub format: Format,
    /// Where messages go, as it is called.
    pub url: String,
    /// One more header on every message, name and value.
    pub custom_header: Option<Box<(String, String)>>,
    /// A name for people.
    pub name: Option<String>,
    /// No messages while false.
    pub active: bool,
    /// How long an attempt may take in all; 0.1 to 30 s.
    pub timeout: Duration,
    /// When to try again and when to give up.
    pub retry: Arc<RetryPolicy>,
    /// The most attempts at a time, 1 to 1,000.
    pub max_in_flight: u16,
    /// The most attempts a second; none for no limit.
    pub rate_limit_per_second: Option<f64>,
}

/// What a request asked a subscription to be.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    /// The settings, defaults filled in.
    pub settings: Settings,
    /// `SecretKey` as it was given, if it was, with the key that it means.
    pub secret: Option<(String, SigningKey)>,
    /// Whose it is to be, where the request says.
    pub owner: Option<AccountId>,
}

/// How long a former key may sign beside the new one.
pub const MAX_OVERLAP: Duration = Duration::from_hours(7 * 24);

impl Subscription {
    /// Gives it a new key. The present one signs beside it for `overlap`; one from a rotation before ends now.
    pub fn rotate(&mut self, key: SigningKey, overlap: Duration, now: Timestamp) {
        let former = std::mem::replace(&mut self.key, key);
        let until = now.plus(overlap);
        self.former_key = (until > now).then_some(FormerKey { key: former, until });
    }
}

/// Fields that answers have and requests may repeat; they are passed over.
const READ_ONLY: [&str; 6] = [
    "GUID",
    "CreatedAt",
    "UpdatedAt",
    "DeactivatedAt",
    "DeactivationReason",
    "SigningSecret",
];

/// The longest `Name`.
const MAX_NAME_CHARS: usize = 100;

impl Settings {
    /// The settings as `GET` shows them.
    pub fn to_json(&self) -> Map<String, Value> {
        let (header, value) = match self.custom_header.as_deref() {
            Some((name, value)) => (Value::from(name.as_str()), Value::from(value.as_str())),
            None => (Value::Null, Value::Null),
        };
        let retry = &self.retry;
        let event_types = match &self.interest {
            Interest::Webhook(_) => Value::Null,
            Interest::EventTypes(types) => types.names.iter().map(|name| Value::from(&**name)).collect(),
        };
        let filter = self.interest.filter();
        let object = filter.and_then(|(_, object)| object);
        let fields = [
            ("Webhook", self.interest.webhook().name().into()),
            ("EventTypes", event_types),
            ("FilterObjectType", filter.map(|(kind, _)| kind.number()).into()),
            ("FilterObjectGUID", object.map(|guid| guid.to_string()).into()),
            ("Format", self.format.name().into()),
            ("SubscriberURL", self.url.as_str().into()),
            ("CustomHeader", header),
            ("CustomHeaderValue", value),
            ("Name", self.name.as_deref().into()),
            ("Active", self.active.into()),
            ("TimeoutSeconds", number(self.timeout.as_secs_f64())),
            (
                "Retry",
                json!({
                    "InitialSeconds": number(retry.initial.as_secs_f64()),
                    "Multiplier": number(retry.multiplier),
                    "MaxSeconds": number(retry.max.as_secs_f64()),
                    "GiveUpAfterSeconds": number(retry.give_up_after.as_secs_f64()),
                    "MaxAttempts": retry.max_attempts,
                }),
            ),
            ("MaxInFlight", self.max_in_flight.into()),
            (
                "RateLimitPerSecond",
                self.rate_limit_per_second.map_or(Value::Null, number),
            ),
        ];
        fields
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    }
}

/// Whole numbers without a fraction, as people write them.
fn number(value: f64) -> Value {
    #[expect(clippy::cast_possible_truncation, reason = "checked to be whole and small")]
    if value.fract() == 0.0 && value.abs() < 1e15 {
        (value as i64).into()
    } else {
        value.into()
    }
}

/// Reads the body of a create or replace request. Every fault is named at once.
pub fn parse(body: &Value, catalogue: &Catalogue, egress: &EgressPolicy) -> Result<Draft, Faults> {
    read(body, None, &[], catalogue, egress)
}

/// Reads the body of a request to replace what is kept, as [`parse`] does. It may go on to name event types that were
/// archived since.
pub fn parse_replacement(
    present: &Settings,
    body: &Value,
    catalogue: &Catalogue,
    egress: &EgressPolicy,
) -> Result<Draft, Faults> {
    read(body, None, present.interest.event_types(), catalogue, egress)
}

/// Reads the body of a request to change what is kept: a JSON merge patch (RFC 7396) over what `GET` gives.
///
/// Only what it changes is judged. What stays as it is may break a rule that is newer than it, such as one for the
/// names of headers; its owner can then still deactivate the subscription, or change something else of it. Fields that
/// are judged together, such as the webhook and its filter, are judged when one of them changes.
pub fn parse_patch(
    present: &Settings,
    patch: &Value,
    catalogue: &Catalogue,
    egress: &EgressPolicy,
) -> Result<Draft, Faults> {
    let mut merged = Value::Object(present.to_json());
    merge_patch(&mut merged, patch);
    read(
        &merged,
        Some(present),
        present.interest.event_types(),
        catalogue,
        egress,
    )
}

fn read(
    body: &Value,
    present: Option<&Settings>,
    held: &[Box<str>],
    catalogue: &Catalogue,
    egress: &EgressPolicy,
) -> Result<Draft, Faults> {
    let Value::Object(fields) = body else {
        return Err(Fault::new("", "object", "a subscription must be a JSON object").into());
    };
    let kept = present.map(Settings::to_json);
    let mut reader = Reader {
        fields,
        present: kept.as_ref(),
        held,
        catalogue,
        parent: "",
        faults: Faults::default(),
    };
    reader.only(
        &[
            "Webhook",
            "EventTypes",
            "FilterObjectType",
            "FilterObjectGUID",
            "Format",
            "SubscriberURL",
            "CustomHeader",
            "CustomHeaderValue",
            "Name",
            "Active",
            "SecretKey",
            "TimeoutSeconds",
            "Retry",
            "MaxInFlight",
            "RateLimitPerSecond",
            "Owner",
        ],
        &READ_ONLY,
    );
    let interest_fields = ["Webhook", "EventTypes", "FilterObjectType", "FilterObjectGUID"];
    let is_kept = interest_fields.iter().all(|name| reader.is_kept(name));
    let interest = match present.filter(|_| is_kept) {
        Some(present) => Some(present.interest.clone()),
        None => reader.interest(),
    };
    let format = reader.format();
    let url = reader.url(egress);
    let custom_header = reader.custom_header();
    let name = reader.optional_text("Name", MAX_NAME_CHARS);
    let active = reader.boolean("Active", true);
    let secret = reader.secret();
    let timeout = reader.seconds("TimeoutSeconds", 15.0, 0.1, 30.0);
    let retry = reader.retry();
    let max_in_flight = reader.whole("MaxInFlight", 1, 1000).and_then(|n| u16::try_from(n).ok());
    let rate_limit_per_second = reader.positive("RateLimitPerSecond", 1_000_000.0);
    let owner = reader.owner();
    let faults = reader.faults;
    let (Some(interest), Some(url), true) = (interest, url, faults.is_empty()) else {
        return Err(faults);
    };
    let usual = match &interest {
        Interest::Webhook(_) => Format::Enate,
        Interest::EventTypes(_) => Format::StandardWebhooks,
    };
    Ok(Draft {
        settings: Settings {
            interest,
            format: format.unwrap_or(usual),
            url,
            custom_header: custom_header.map(Box::new),
            name,
            active,
            timeout,
            retry: retry.shared(),
            max_in_flight: max_in_flight.unwrap_or(64),
            rate_limit_per_second,
        },
        secret,
        owner,
    })
}

/// Applies a JSON merge patch (RFC 7396).
pub fn merge_patch(target: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    if let Value::Object(fields) = target {
        for (name, change) in changes {
            if change.is_null() {
                fields.remove(name);
            } else {
                merge_patch(fields.entry(name.clone()).or_insert(Value::Null), change);
            }
        }
    }
}

/// The address in a URL's host, if it is one and not a name.
pub fn literal_address(url: &Url) -> Option<std::net::IpAddr> {
    match url.host()? {
        Host::Ipv4(address) => Some(address.into()),
        Host::Ipv6(address) => Some(address.into()),
        Host::Domain(_) => None,
    }
}

/// A URL as it will be called, which is how subscriptions keep it now; the text itself, if it is none. Subscriptions of
/// earlier versions were kept with what was given.
pub fn url_as_kept(url: &str) -> String {
    Url::parse(url).map_or_else(|_no_url| url.to_owned(), String::from)
}

#[cfg(test)]
mod tests;
