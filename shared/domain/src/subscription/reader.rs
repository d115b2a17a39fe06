//! Reading a subscription's fields from JSON, each by its rule.

use super::header::reserved;
use super::literal_address;
use crate::address::EgressPolicy;
use crate::catalogue::{Catalogue, MAX_NAME_CHARS, ObjectType, Webhook, is_name};
use crate::id::{AccountId, ObjectGuid, parse_guid};
use crate::index::{Interest, ObjectFilter, Topic, TypeInterest};
use crate::message::Format;
use crate::problem::{Fault, Faults, pointer_to};
use crate::retry::RetryPolicy;
use crate::signing::SigningKey;
use serde_json::{Map, Value};
use std::sync::Arc;
use std::time::Duration;
use url::Url;

const MAX_URL_CHARS: usize = 2048;
const MAX_HEADER_CHARS: usize = 4096;

/// Reads an object's fields, and collects what is wrong with them.
pub(super) struct Reader<'a> {
    pub(super) fields: &'a Map<String, Value>,
    /// The same object as it is kept. What is as it was there was judged when it was set, by the rules of then, and is
    /// taken as it is.
    pub(super) present: Option<&'a Map<String, Value>>,
    /// The event types that the subscription has already: they may be archived since.
    pub(super) held: &'a [Box<str>],
    /// What event types and object types there are.
    pub(super) catalogue: &'a Catalogue,
    /// The pointer to the object.
    pub(super) parent: &'static str,
    pub(super) faults: Faults,
}

impl<'a> Reader<'a> {
    /// Whether the field is as it is kept; absent is null.
    pub(super) fn is_kept(&self, name: &str) -> bool {
        let kept = |present: &Map<String, Value>| present.get(name).filter(|value| !value.is_null()) == self.get(name);
        self.present.is_some_and(kept)
    }

    fn fault(&mut self, name: &str, rule: &'static str, detail: impl Into<String>) {
        let parent = self.parent;
        self.faults
            .push_with(|| Fault::new(format!("{parent}{}", pointer_to(name)), rule, detail));
    }

    /// The field, unless it is absent or null.
    fn get(&self, name: &str) -> Option<&'a Value> {
        self.fields.get(name).filter(|value| !value.is_null())
    }

    pub(super) fn only(&mut self, known: &[&str], ignored: &[&str]) {
        for name in self.fields.keys() {
            if !known.contains(&name.as_str()) && !ignored.contains(&name.as_str()) {
                let pointer = || format!("{}{}", self.parent, pointer_to(name));
                let detail = || format!("there is no field {name}; the fields are {}", known.join(", "));
                self.faults.push_with(|| Fault::new(pointer(), "known_field", detail()));
            }
        }
    }

    /// What the subscription listens to: one of Enate's webhooks, or event types.
    pub(super) fn interest(&mut self) -> Option<Interest> {
        let webhook = match self.get("Webhook") {
            None => None,
            Some(value) => {
                let webhook = value.as_str().and_then(Webhook::named);
                if webhook.is_none() {
                    let names = Webhook::ALL.map(Webhook::name).join(", ");
                    self.fault("Webhook", "one_of", format!("Webhook must be one of {names}"));
                    self.check_filter();
                    return None;
                }
                webhook
            }
        };
        match (webhook, self.get("EventTypes")) {
            (None | Some(Webhook::Events), Some(names)) => self.type_interest(names),
            (Some(Webhook::Events), None) => {
                self.fault(
                    "EventTypes",
                    "required",
                    "a subscription with Webhook Events needs EventTypes",
                );
                None
            }
            (Some(_), Some(_)) => {
                let detail =
                    "a subscription has either one of Enate's webhooks or EventTypes; leave out Webhook, or give null";
                self.fault("EventTypes", "exactly_one", detail);
                None
            }
            (Some(webhook), None) => self.topic(webhook).map(Interest::Webhook),
            (None, None) => {
                self.fault("Webhook", "required", "Webhook or EventTypes is required");
                self.check_filter();
                None
            }
        }
    }

    /// Finds what is wrong with the filter, whatever the webhook is.
    fn check_filter(&mut self) {
        const NAME: &str = "FilterObjectType";
        match self.get(NAME) {
            None => self.fault(NAME, "required", "FilterObjectType is required"),
            Some(value) if self.object_type(value).is_none() => self.unknown_object_type(),
            Some(_) => {}
        }
        self.object();
    }

    fn unknown_object_type(&mut self) {
        let enate = describe(ObjectType::ENATE.into_iter().map(|(kind, _)| kind));
        let detail =
            format!("FilterObjectType must be one of {enate}, or a registered one; GET /v1/object-types lists all");
        self.fault("FilterObjectType", "one_of", detail);
    }

    fn topic(&mut self, webhook: Webhook) -> Option<Topic> {
        let object_type = self.topic_object_type(webhook);
        let object = self.topic_object(webhook);
        Some(Topic {
            webhook,
            object_type: object_type?,
            object: object?,
        })
    }

    fn type_interest(&mut self, names: &Value) -> Option<Interest> {
        const NAME: &str = "EventTypes";
        const MOST: usize = 100;
        let names = match names.as_array() {
            Some(names) if (1..=MOST).contains(&names.len()) => names,
            _ => {
                let detail =
                    format!("EventTypes must be an array of 1 to {MOST} names of event types, or prefixes and *");
                self.fault(NAME, "array", detail);
                return None;
            }
        };
        let is_kept = self.is_kept(NAME);
        let mut read: Vec<Box<str>> = Vec::with_capacity(names.len());
        let mut faulty = false;
        for (n, name) in names.iter().enumerate() {
            let checked = match name.as_str() {
                None => Err(("text", "must be text".to_owned())),
                Some(name) if read.iter().any(|known| **known == *name) => {
                    Err(("unique", format!("{name} is named more than once")))
                }
                Some(name) if is_kept || self.held.iter().any(|held| **held == *name) => Ok(name),
                Some(name) => self.type_name(name).map(|()| name),
            };
            match checked {
                Ok(name) => read.push(name.into()),
                Err((rule, detail)) => {
                    faulty = true;
                    self.faults
                        .push_with(|| Fault::new(format!("/{NAME}/{n}"), rule, detail));
                }
            }
        }
        let filter = self.object_filter();
        let filter = filter?;
        (!faulty).then(|| Interest::EventTypes(Arc::new(TypeInterest { names: read, filter })))
    }

    /// Whether a subscription may name it.
    fn type_name(&self, name: &str) -> Result<(), (&'static str, String)> {
        if let Some(prefix) = name.strip_suffix('*') {
            let is_fit = prefix.is_empty() || is_name(prefix);
            let wrong = || {
                let detail = format!("{name} must be what a name begins with, and * at its end");
                ("name", detail)
            };
            return is_fit.then_some(()).ok_or_else(wrong);
        }
        let Some(kind) = self.catalogue.event_type(name) else {
            let shown: String = name.chars().take(MAX_NAME_CHARS).collect();
            let detail = format!("there is no event type {shown}; GET /v1/event-types lists all");
            return Err(("event_type", detail));
        };
        let spec = self.catalogue.registered(kind.name());
        if spec.is_some_and(|spec| spec.draft.archived) {
            return Err(("archived", format!("{name} is archived: it takes no new subscriptions")));
        }
        Ok(())
    }

    /// The filter of a subscription to event types, if it has one; nothing at all where it is at fault.
    #[expect(clippy::option_option, reason = "outside: was it read; inside: was it given")]
    fn object_filter(&mut self) -> Option<Option<ObjectFilter>> {
        const NAME: &str = "FilterObjectType";
        let object = self.object()?;
        let Some(value) = self.get(NAME) else {
            if object.is_some() {
                self.fault(NAME, "required", "a FilterObjectGUID needs a FilterObjectType");
                return None;
            }
            return Some(None);
        };
        let kind = self.object_type(value);
        let name = kind.and_then(|kind| self.catalogue.object_name(kind));
        let (Some(kind), Some(name)) = (kind, name) else {
            self.unknown_object_type();
            return None;
        };
        let name = name.into();
        Some(Some(ObjectFilter { kind, name, object }))
    }

    fn object_type(&self, value: &Value) -> Option<ObjectType> {
        match value {
            Value::Number(number) => self.catalogue.object_numbered(number.as_i64()?),
            Value::String(name) => self.catalogue.object_type(name),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        }
    }

    fn topic_object_type(&mut self, webhook: Webhook) -> Option<ObjectType> {
        const NAME: &str = "FilterObjectType";
        let Some(value) = self.get(NAME) else {
            self.fault(NAME, "required", "FilterObjectType is required");
            return None;
        };
        let Some(object_type) = self.object_type(value) else {
            self.unknown_object_type();
            return None;
        };
        if !webhook.filter_types().contains(&object_type) {
            let confused = object_type == ObjectType::PACKET && webhook.filter_types().contains(&ObjectType::SCHEDULE);
            let hint = if confused {
                "; 81 is Packet, a Schedule is 260"
            } else {
                ""
            };
            let allowed = describe(webhook.filter_types().iter().copied());
            self.fault(
                NAME,
                "one_of",
                format!("{} filters by one of {allowed}{hint}", webhook.name()),
            );
            return None;
        }
        Some(object_type)
    }

    /// The GUID of the filter, if it is given; nothing at all where it is at fault. Absent, null, empty and all zeros
    /// are all no GUID.
    #[expect(clippy::option_option, reason = "outside: was it read; inside: was it given")]
    fn object(&mut self) -> Option<Option<ObjectGuid>> {
        const NAME: &str = "FilterObjectGUID";
        match self.get(NAME) {
            None => Some(None),
            Some(Value::String(text)) if text.is_empty() => Some(None),
            Some(value) => {
                let Some(Ok(guid)) = value.as_str().map(parse_guid) else {
                    self.fault(NAME, "guid", "FilterObjectGUID must be a GUID");
                    return None;
                };
                Some(Some(ObjectGuid(guid)).filter(|guid| !guid.0.is_nil()))
            }
        }
    }

    /// [`Reader::object`], by the rule of the webhook.
    #[expect(clippy::option_option, reason = "outside: was it read; inside: was it given")]
    fn topic_object(&mut self, webhook: Webhook) -> Option<Option<ObjectGuid>> {
        const NAME: &str = "FilterObjectGUID";
        let guid = self.object()?;
        if webhook.filters_by_guid() && guid.is_none() {
            self.fault(NAME, "required", format!("{} needs a FilterObjectGUID", webhook.name()));
            return None;
        }
        if !webhook.filters_by_guid() && guid.is_some() {
            self.fault(
                NAME,
                "empty",
                format!("{} filters by type alone; leave FilterObjectGUID empty", webhook.name()),
            );
            return None;
        }
        Some(guid)
    }

    /// How messages are written, if it is given.
    pub(super) fn format(&mut self) -> Option<Format> {
        let value = self.get("Format")?;
        let format = value.as_str().and_then(Format::named);
        if format.is_none() {
            let names = Format::ALL.map(Format::name).join(", ");
            self.fault("Format", "one_of", format!("Format must be one of {names}"));
        }
        format
    }

    pub(super) fn url(&mut self, egress: &EgressPolicy) -> Option<String> {
        const NAME: &str = "SubscriberURL";
        let Some(value) = self.get(NAME) else {
            self.fault(NAME, "required", "SubscriberURL is required");
            return None;
        };
        let checked = match value.as_str() {
            None => Err(("url", "SubscriberURL must be text".to_owned())),
            Some(text) if self.is_kept(NAME) => Ok(text.to_owned()),
            Some(text) => normal_url(text, egress),
        };
        match checked {
            Ok(url) => Some(url),
            Err((rule, detail)) => {
                self.fault(NAME, rule, detail);
                None
            }
        }
    }

    pub(super) fn custom_header(&mut self) -> Option<(String, String)> {
        let name = self
            .optional_text("CustomHeader", MAX_HEADER_CHARS)
            .filter(|name| !name.is_empty());
        let given = self.get("CustomHeaderValue").is_some();
        let value = self.optional_text("CustomHeaderValue", MAX_HEADER_CHARS);
        let Some(name) = name else {
            if self.get("CustomHeader").is_none_or(|name| name == "") && value.is_some_and(|value| !value.is_empty()) {
                self.fault("CustomHeader", "required", "CustomHeaderValue needs a CustomHeader");
            }
            return None;
        };
        let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        let is_kept = self.is_kept("CustomHeader");
        if !is_kept && !name.chars().all(token) {
            self.fault(
                "CustomHeader",
                "header_name",
                "CustomHeader must be an HTTP header name (RFC 9110): letters, digits and !#$%&'*+-.^_`|~",
            );
        } else if let Some(reason) = reserved(&name).filter(|_| !is_kept) {
            self.fault(
                "CustomHeader",
                "reserved",
                format!("{name} {reason}; use a name of your own"),
            );
        }
        let Some(value) = value else {
            if !given {
                self.fault(
                    "CustomHeaderValue",
                    "required",
                    "CustomHeader needs a CustomHeaderValue",
                );
            }
            return None;
        };
        let is_well_formed = value.trim() == value && value.chars().all(|c| matches!(c, ' '..='~'));
        if !is_well_formed && !self.is_kept("CustomHeaderValue") {
            self.fault(
                "CustomHeaderValue",
                "header_value",
                "CustomHeaderValue must be printable ASCII, without space at its ends",
            );
        }
        Some((name, value))
    }

    pub(super) fn owner(&mut self) -> Option<AccountId> {
        let value = self.get("Owner")?;
        let owner = value.as_str().and_then(|text| text.parse().ok());
        if owner.is_none() {
            self.fault("Owner", "guid", "Owner must be the Id of an account");
        }
        owner
    }

    pub(super) fn secret(&mut self) -> Option<(String, SigningKey)> {
        let value = self.get("SecretKey")?;
        let Some(text) = value.as_str() else {
            self.fault("SecretKey", "text", "SecretKey must be text");
            return None;
        };
        match SigningKey::from_secret(text) {
            Ok(key) => Some((text.to_owned(), key)),
            Err(rule) => {
                self.fault("SecretKey", "secret", format!("SecretKey {rule}"));
                None
            }
        }
    }

    pub(super) fn retry(&mut self) -> RetryPolicy {
        let defaults = RetryPolicy::default();
        let fields = match self.get("Retry") {
            None => return defaults,
            Some(Value::Object(fields)) => fields,
            Some(_) => {
                self.fault("Retry", "object", "Retry must be an object");
                return defaults;
            }
        };
        let mut reader = Reader {
            fields,
            present: self.present.and_then(|present| present.get("Retry")?.as_object()),
            held: &[],
            catalogue: self.catalogue,
            parent: "/Retry",
            faults: Faults::default(),
        };
        reader.only(
            &[
                "InitialSeconds",
                "Multiplier",
                "MaxSeconds",
                "GiveUpAfterSeconds",
                "MaxAttempts",
            ],
            &[],
        );
        let initial = reader.seconds("InitialSeconds", defaults.initial.as_secs_f64(), 0.01, 604_800.0);
        let max = reader.seconds("MaxSeconds", defaults.max.as_secs_f64(), 0.01, 604_800.0);
        let policy = RetryPolicy {
            initial,
            multiplier: reader.float("Multiplier", defaults.multiplier, 1.0, 100.0),
            max,
            give_up_after: reader.seconds(
                "GiveUpAfterSeconds",
                defaults.give_up_after.as_secs_f64(),
                0.0,
                2_592_000.0,
            ),
            max_attempts: reader.whole("MaxAttempts", 1, 1000).and_then(|n| u32::try_from(n).ok()),
        };
        let is_kept = reader.is_kept("InitialSeconds") && reader.is_kept("MaxSeconds");
        if reader.faults.is_empty() && max < initial && !is_kept {
            reader.fault("MaxSeconds", "range", "MaxSeconds must not be less than InitialSeconds");
        }
        self.faults.append_within("", reader.faults);
        policy
    }

    pub(super) fn optional_text(&mut self, name: &str, most: usize) -> Option<String> {
        match self.get(name)? {
            Value::String(text) if self.is_kept(name) => Some(text.clone()),
            Value::String(text) if text.contains('\0') => {
                self.fault(name, "character", format!("{name} may not have the character U+0000"));
                None
            }
            Value::String(text) if text.chars().count() <= most => Some(text.clone()),
            Value::String(_) => {
                self.fault(name, "max_length", format!("{name} may have at most {most} characters"));
                None
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                self.fault(name, "text", format!("{name} must be text"));
                None
            }
        }
    }

    pub(super) fn boolean(&mut self, name: &str, default: bool) -> bool {
        match self.get(name) {
            None => default,
            Some(Value::Bool(value)) => *value,
            Some(_) => {
                self.fault(name, "boolean", format!("{name} must be true or false"));
                default
            }
        }
    }

    fn float(&mut self, name: &str, default: f64, least: f64, most: f64) -> f64 {
        match self.get(name).map(Value::as_f64) {
            None => default,
            Some(Some(value)) if (least..=most).contains(&value) || self.is_kept(name) => value,
            Some(_) => {
                self.fault(name, "range", format!("{name} must be a number from {least} to {most}"));
                default
            }
        }
    }

    pub(super) fn seconds(&mut self, name: &str, default: f64, least: f64, most: f64) -> Duration {
        Duration::from_secs_f64(self.float(name, default, least, most))
    }

    pub(super) fn positive(&mut self, name: &str, most: f64) -> Option<f64> {
        let value = self.get(name)?.as_f64();
        match value {
            Some(value) if (value > 0.0 && value <= most) || self.is_kept(name) => Some(value),
            _ => {
                self.fault(
                    name,
                    "range",
                    format!("{name} must be a number above 0, at most {most}, or null"),
                );
                None
            }
        }
    }

    pub(super) fn whole(&mut self, name: &str, least: u64, most: u64) -> Option<u64> {
        let value = self.get(name)?;
        match value.as_u64() {
            Some(value) if (least..=most).contains(&value) || self.is_kept(name) => Some(value),
            _ => {
                let kind = if value.is_f64() {
                    "a whole number without point or exponent,"
                } else {
                    "a whole number"
                };
                self.fault(name, "range", format!("{name} must be {kind} from {least} to {most}"));
                None
            }
        }
    }
}

/// Enate's object types with their numbers, in words.
fn describe(kinds: impl Iterator<Item = ObjectType>) -> String {
    let kinds: Vec<_> = kinds
        .map(|kind| format!("{} {}", kind.number(), kind.enate_name().unwrap_or_default()))
        .collect();
    kinds.join(", ")
}

/// A URL as it will be called, judged when a subscription is made. Names are judged later, when they are
/// resolved; a literal address can be judged at once.
///
/// The parser that calls it repairs what is no URL by RFC 3986: it drops white space and control characters,
/// and reads `\` and a missing `//` as if they were right. What was pasted wrongly is refused here instead, so
/// that what is shown is what is called.
fn normal_url(text: &str, egress: &EgressPolicy) -> Result<String, (&'static str, String)> {
    let fault = |rule, detail: &str| Err((rule, format!("SubscriberURL {detail}")));
    let too_long = || {
        let detail = format!("may have at most {MAX_URL_CHARS} characters");
        fault("max_length", &detail)
    };
    if text.chars().count() > MAX_URL_CHARS {
        return too_long();
    }
    if let Some(wrong) = text.chars().find(|c| c.is_whitespace() || c.is_control() || *c == '\\') {
        let detail = format!("may not have the character U+{:04X}", u32::from(wrong));
        return fault("url_character", &detail);
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return fault("url", "must be a URL that begins with http:// or https://");
    };
    if !["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        return fault("url_scheme", "must begin with http:// or https://");
    }
    if rest.starts_with('/') {
        return fault("url", "must have a host after ://");
    }
    let url = match Url::parse(text) {
        Ok(url) => url,
        Err(error) => return fault("url", &format!("is no URL: {error}")),
    };
    if !url.username().is_empty() || url.password().is_some() {
        return fault(
            "url_credentials",
            "must not carry a user name or password; use CustomHeader",
        );
    }
    if url.fragment().is_some() {
        return fault("url_fragment", "must not have a fragment (#...); it would not be sent");
    }
    if url.as_str().len() > MAX_URL_CHARS {
        return too_long();
    }
    match literal_address(&url) {
        Some(address) if !egress.permits(address) => Err((
            "address_refused",
            format!(
                "SubscriberURL names {address}, which is not a public address; allow its network with --egress-allow"
            ),
        )),
        _ => Ok(url.into()),
    }
}
