//! CloudEvents 1.0 that come in: structured, several in a batch, or with attributes beside the body.
//!
//! A CloudEvent is written anew as the event that it is, with its data to the byte, and judged like any other. Its faults
//! name its own attributes.
//!
//! <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md>

mod attributes;

pub use attributes::{Attributes, MAX_ATTRIBUTE_BYTES, header_value};

use super::objects::{MAX_OBJECTS, enate_named_by};
use super::{Event, not_json, parse};
use crate::catalogue::{Catalogue, DEFINED_ATTRIBUTES, attribute_of};
use crate::id::parse_guid;
use crate::json::{Fields, is_null, kind_of, text};
use crate::problem::{Fault, Faults, pointer_to};
use crate::text::trim;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use fluent_uri::UriRef;
use serde_json::value::RawValue;
use sha1::{Digest, Sha1};
use std::borrow::Cow;
use uuid::{Builder, Uuid};

/// The attributes without which nothing is a CloudEvent.
const REQUIRED: [&str; 4] = ["specversion", "id", "source", "type"];

/// How a message carries CloudEvents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// The body is one CloudEvent, `application/cloudevents+json`.
    Structured,
    /// The body is an array of them, `application/cloudevents-batch+json`.
    Batch,
    /// The body is the data, and the attributes stand beside it.
    Binary(Attributes),
    /// The body is in another format than JSON, of that media type.
    Other(String),
}

impl Mode {
    /// How a message of that content type carries CloudEvents, if it does. `beside` are the attributes that stand beside
    /// the body, in lower case and without their prefix.
    pub fn of(content_type: Option<&str>, beside: impl IntoIterator<Item = (String, String)>) -> Option<Self> {
        let essence = content_type.map(essence).unwrap_or_default();
        match essence.strip_prefix("application/cloudevents") {
            Some("+json") => return Some(Self::Structured),
            Some("-batch+json") => return Some(Self::Batch),
            Some(_) => return Some(Self::Other(essence)),
            None => {}
        }
        let attributes = Attributes::read(content_type, beside);
        let is_one = attributes.too_many || attributes.all.iter().any(|(name, _)| REQUIRED.contains(&&**name));
        is_one.then_some(Self::Binary(attributes))
    }

    /// Why no message of that media type can be read, if none can.
    pub fn unreadable(&self) -> Option<Fault> {
        match self {
            Self::Other(media_type) => Some(unreadable(media_type)),
            Self::Structured | Self::Batch | Self::Binary(_) => None,
        }
    }
}

fn unreadable(media_type: &str) -> Fault {
    let detail = format!("{media_type} cannot be read; send application/cloudevents+json");
    Fault::new("", "media_type", detail)
}

/// A media type without its parameters, in lower case.
fn essence(media_type: &str) -> String {
    let essence = media_type.split(';').next().unwrap_or_default();
    essence.trim().to_ascii_lowercase()
}

fn is_json(media_type: &str) -> bool {
    let essence = essence(media_type);
    let subtype = essence.split_once('/').map_or("", |(_, subtype)| subtype);
    subtype == "json" || subtype.ends_with("+json")
}

/// A CloudEvent, written as the event that it is.
#[derive(Debug)]
pub struct CloudEvent {
    /// The event's JSON text.
    json: String,
    /// Where its data stood.
    data_at: &'static str,
    /// What is wrong with it as a CloudEvent.
    faults: Faults,
}

impl CloudEvent {
    /// Reads the body of a message that carries one CloudEvent. A batch is read element by element, each as structured.
    pub fn read(mode: &Mode, body: &str, catalogue: &Catalogue) -> Result<Self, Faults> {
        match mode {
            Mode::Structured | Mode::Batch => structured(body, catalogue),
            Mode::Binary(attributes) => binary(attributes, body, catalogue),
            Mode::Other(media_type) => Err(unreadable(media_type).into()),
        }
    }

    /// The event's JSON text.
    pub fn json(&self) -> &str {
        &self.json
    }

    /// The event. All faults are named at once, in the CloudEvent's own terms.
    pub fn parse(&self, catalogue: &Catalogue) -> Result<Event<'_>, Faults> {
        let mut faults = self.faults.clone();
        match parse(&self.json, catalogue) {
            Ok(event) => faults.into_result(event),
            Err(of_event) => {
                let own: Vec<_> = self.faults.iter().map(|fault| &*fault.pointer).collect();
                // What is wrong with an attribute is said once: without it the event has another fault in its place.
                let is_said = |pointer: &str| {
                    let mut own = own.iter().filter(|own| !own.is_empty());
                    own.any(|own| {
                        pointer
                            .strip_prefix(own)
                            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                    })
                };
                let of_event = of_event.filter_map(|fault| {
                    let fault = in_its_terms(fault, self.data_at);
                    (!is_said(&fault.pointer)).then_some(fault)
                });
                faults.append_within("", of_event);
                Err(faults)
            }
        }
    }
}

/// What a CloudEvent says, attribute by attribute.
#[derive(Default)]
struct Draft<'a> {
    specversion: Option<Cow<'a, str>>,
    id: Option<Cow<'a, str>>,
    source: Option<Cow<'a, str>>,
    kind: Option<Cow<'a, str>>,
    time: Option<Cow<'a, str>>,
    content_type: Option<Cow<'a, str>>,
    /// Name of the object type, and what its attribute says.
    objects: Vec<(&'a str, Cow<'a, str>)>,
    data: Option<Cow<'a, str>>,
    faults: Faults,
}

impl<'a> Draft<'a> {
    /// Takes an attribute with a text.
    fn put(&mut self, name: &str, value: Cow<'a, str>, catalogue: &'a Catalogue) {
        let place = match name {
            "specversion" => &mut self.specversion,
            "id" => &mut self.id,
            "source" => &mut self.source,
            "type" => &mut self.kind,
            "time" => &mut self.time,
            "datacontenttype" => &mut self.content_type,
            _ => {
                if let Some(object) = object_of(name, catalogue) {
                    self.put_object(name, object, value);
                }
                return;
            }
        };
        if place.is_some() {
            self.faults
                .add(pointer_to(name), "unique", format!("{name} is given more than once"));
        }
        *place = Some(value);
    }

    fn put_object(&mut self, name: &str, object: &'a str, value: Cow<'a, str>) {
        if self.objects.iter().any(|(known, _)| *known == object) {
            self.faults
                .add(pointer_to(name), "unique", format!("{name} is given more than once"));
        } else if value.is_empty() {
            // As good as absent, like the GUID of zeros.
        } else if parse_guid(&value).is_err() {
            self.faults.add(pointer_to(name), "guid", no_guid(name, object));
        } else if self.objects.len() <= MAX_OBJECTS {
            // One too many is enough to be told so.
            self.objects.push((object, value));
        }
    }

    /// Takes an attribute with something else than text, which only those may have that are not read.
    fn put_no_text(&mut self, name: &str, raw: &RawValue, catalogue: &Catalogue) {
        if DEFINED_ATTRIBUTES.contains(&name) {
            let detail = format!("{name} must be text, not {}", kind_of(raw));
            self.faults.add(pointer_to(name), "text", detail);
        } else if let Some(object) = object_of(name, catalogue) {
            self.faults.add(pointer_to(name), "guid", no_guid(name, object));
        }
    }

    /// Judges what only a CloudEvent has, and writes the event.
    fn finish(mut self, data_at: &'static str) -> CloudEvent {
        match self.specversion.as_deref() {
            Some("1.0") => {}
            Some(_) => self.faults.add("/specversion", "one_of", "specversion must be 1.0"),
            None => self.require("specversion"),
        }
        if self.id.as_deref().is_none_or(str::is_empty) {
            self.require("id");
        }
        match self.source.as_deref() {
            None | Some("") => self.require("source"),
            Some(source) if UriRef::parse(source).is_err() => {
                let detail = "source must be a URI-reference (RFC 3986), such as https://example.com/orders; other \
                              characters are percent-encoded in it";
                self.faults.add("/source", "uri_reference", detail);
            }
            Some(_) => {}
        }
        if let Some(media_type) = self.content_type.as_deref().filter(|given| !is_json(given)) {
            let media_type: String = media_type.chars().take(100).collect();
            let detail = format!("datacontenttype must be application/json or absent, not {media_type}");
            self.faults.add("/datacontenttype", "one_of", detail);
        }
        let json = self.json();
        CloudEvent {
            json,
            data_at,
            faults: self.faults,
        }
    }

    /// Says that an attribute is missing, unless its value has a fault.
    fn require(&mut self, name: &str) {
        let pointer = pointer_to(name);
        if self.faults.iter().all(|fault| fault.pointer != pointer) {
            self.faults
                .add(pointer, "required", format!("{name} is required, and may not be empty"));
        }
    }

    fn json(&self) -> String {
        let mut json = String::with_capacity(self.data.as_deref().map_or(0, str::len) + 512);
        let mut add = |name: &str, value: &str| {
            json.push(if json.is_empty() { '{' } else { ',' });
            json.push('"');
            json.push_str(name);
            json.push_str("\":");
            json.push_str(value);
        };
        if let (Some(id), Some(source)) = (&self.id, &self.source) {
            add("Id", &format!("\"{}\"", id_of(source, id)));
        }
        if let Some(kind) = &self.kind {
            add("Type", &quoted(kind));
        }
        if let Some(time) = &self.time {
            add("OccurredAt", &quoted(time));
        }
        let objects: Vec<_> = self
            .objects
            .iter()
            .map(|(name, guid)| format!("\"{name}\":{}", quoted(guid)))
            .collect();
        add("Objects", &format!("{{{}}}", objects.join(",")));
        if let Some(data) = &self.data {
            add("Data", data);
        }
        json.push('}');
        json
    }
}

/// The object type that an attribute is named after, unless the specification defines the attribute.
fn object_of<'a>(attribute: &str, catalogue: &'a Catalogue) -> Option<&'a str> {
    if DEFINED_ATTRIBUTES.contains(&attribute) {
        return None;
    }
    enate_named_by(attribute).or_else(|| catalogue.object_of_attribute(attribute))
}

fn no_guid(name: &str, object: &str) -> String {
    format!("{name} must be a GUID, because it names an object of type {object}; give other things another name")
}

/// A JSON text of that value.
fn quoted(value: &str) -> String {
    serde_json::Value::from(value).to_string()
}

/// The `Id` of the event: the CloudEvent's own where it is a UUID, else one made of source and id, so that the same
/// CloudEvent has the same `Id` each time. It is the `UUIDv5` of the id in the namespace that is the `UUIDv5` of the source
/// among URLs.
fn id_of(source: &str, id: &str) -> Uuid {
    parse_guid(id).unwrap_or_else(|_no_uuid| uuid_v5(uuid_v5(Uuid::NAMESPACE_URL, source), id))
}

fn uuid_v5(namespace: Uuid, name: &str) -> Uuid {
    let mut hash = Sha1::new();
    hash.update(namespace.as_bytes());
    hash.update(name.as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.finalize()[..16]);
    Builder::from_sha1_bytes(bytes).into_uuid()
}

fn structured<'a>(body: &'a str, catalogue: &'a Catalogue) -> Result<CloudEvent, Faults> {
    let Fields(fields) = serde_json::from_str::<Fields<'a>>(body).map_err(|error| not_json(body, &error))?;
    let mut draft = Draft::default();
    let mut base64 = None;
    for (name, raw) in fields {
        // Null is the same as absent, says the JSON format.
        match &*name {
            _ if is_null(raw) => {}
            "data" if draft.data.is_some() => draft.faults.add("/data", "unique", "data is given more than once"),
            "data" => draft.data = Some(Cow::Borrowed(raw.get())),
            "data_base64" => base64 = Some(raw),
            // What is not read may be of any type.
            "subject" | "dataschema" => {}
            name => match text(raw) {
                Some(value) => draft.put(name, value, catalogue),
                None => draft.put_no_text(name, raw, catalogue),
            },
        }
    }
    match (base64, draft.data.is_some()) {
        (None, _) => return Ok(draft.finish("/data")),
        (Some(_), true) => {
            let detail = "data and data_base64 exclude each other; give data";
            draft.faults.add("/data_base64", "exactly_one", detail);
            return Ok(draft.finish("/data"));
        }
        (Some(raw), false) => match object_in(raw) {
            Ok(data) => draft.data = Some(Cow::Owned(data)),
            Err((rule, must)) => {
                let detail = format!("data_base64 must be {must}; JSON is better given as data");
                draft.faults.add("/data_base64", rule, detail);
            }
        },
    }
    Ok(draft.finish("/data_base64"))
}

/// The JSON object that stands in base64; else the rule that is broken, and what it must be.
fn object_in(raw: &RawValue) -> Result<String, (&'static str, &'static str)> {
    let base64 = text(raw).ok_or(("text", "text"))?;
    let bytes = BASE64_STANDARD
        .decode(&*base64)
        .map_err(|_no_base64| ("base64", "standard base64"))?;
    let must = "a JSON object in UTF-8, in base64";
    let json = String::from_utf8(bytes).map_err(|_no_text| ("object", must))?;
    match serde_json::from_str::<&RawValue>(&json) {
        Ok(data) if kind_of(data) == "an object" => Ok(data.get().to_owned()),
        Ok(_) | Err(_) => Err(("object", must)),
    }
}

fn binary<'a>(attributes: &'a Attributes, body: &'a str, catalogue: &'a Catalogue) -> Result<CloudEvent, Faults> {
    if attributes.too_many {
        let detail = format!("the attributes of a CloudEvent may have at most {MAX_ATTRIBUTE_BYTES} bytes (16 KiB)");
        return Err(Fault::new("", "max_bytes", detail).into());
    }
    let mut draft = Draft {
        content_type: attributes.content_type.as_deref().map(Cow::Borrowed),
        ..Draft::default()
    };
    for (name, value) in &attributes.all {
        draft.put(name, Cow::Borrowed(value), catalogue);
    }
    if !trim(body).is_empty() {
        // What is no JSON value may not be put between the fields of another.
        match serde_json::from_str::<&RawValue>(body) {
            Ok(data) => draft.data = Some(Cow::Borrowed(data.get())),
            Err(error) => {
                let detail = format!("the body, which is the CloudEvent's data, is not JSON: {error}");
                draft.faults.add("/data", "json", detail);
            }
        }
    }
    Ok(draft.finish("/data"))
}

/// A fault of the event as one of the CloudEvent.
fn in_its_terms(fault: Fault, data_at: &str) -> Fault {
    const NAMES: [(&str, &str); 3] = [("Id", "id"), ("Type", "type"), ("OccurredAt", "time")];
    let Fault { pointer, rule, detail } = fault;
    if let Some(within) = pointer.strip_prefix("/Data") {
        let detail = match (within, detail.strip_prefix("Data ")) {
            ("", Some(rest)) => format!("{} {rest}", data_at.trim_start_matches('/')),
            _ => detail,
        };
        return Fault::new(format!("{data_at}{within}"), rule, detail);
    }
    if let Some(object) = pointer.strip_prefix("/Objects/") {
        let Some(attribute) = attribute_of(object) else {
            let detail = format!("{detail}, which no attribute of a CloudEvent can be; publish it as an event");
            return Fault::new("", rule, detail);
        };
        let detail = format!("{detail}, which a CloudEvent has as its extension attribute {attribute}, a GUID");
        return Fault::new(format!("/{attribute}"), rule, detail);
    }
    if pointer == "/Objects" {
        let detail = format!("{detail}, which a CloudEvent has as extension attributes in lower case");
        return Fault::new("", rule, detail);
    }
    let name = pointer.trim_start_matches('/');
    match NAMES.into_iter().find(|(known, _)| *known == name) {
        Some((known, name)) => {
            let rest = detail.strip_prefix(known).map(|rest| format!("{name}{rest}"));
            Fault::new(format!("/{name}"), rule, rest.unwrap_or(detail))
        }
        None => Fault::new(pointer, rule, detail),
    }
}

#[cfg(test)]
mod tests;
