//! An event: its reading, its rules, and how several come in one request.
//!
//! Reading collects every fault instead of stopping at the first, and keeps `Data` as the bytes that
//! came, because those are what will be signed and sent.

use crate::catalogue::{EventType, Field, FieldKind, ObjectType, RESERVED_FIELDS};
use crate::id::{EventId, ObjectGuid, parse_guid};
use crate::json::{Fields, is_null, kind_of, text};
use crate::problem::{Fault, MAX_FAULTS, pointer_to};
use crate::time::Timestamp;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt::Write as _;

/// The largest event, in bytes of its JSON text.
pub const MAX_EVENT_BYTES: usize = 256 * 1024;

/// The most events in one request or message.
pub const MAX_EVENTS: usize = 10_000;

/// A well-formed event, borrowing from the text that it was read from.
#[derive(Debug, Clone)]
pub struct Event<'a> {
    /// The producer's `Id`, if it gave one.
    pub id: Option<EventId>,
    /// What happened.
    pub kind: EventType,
    /// When it happened, if the producer said.
    pub occurred_at: Option<Timestamp>,
    /// What it concerns.
    pub objects: Objects,
    /// `Data`, as the JSON text that came.
    pub data: &'a str,
}

/// The objects that an event concerns. An all-zero GUID is read as absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Objects {
    /// 31
    pub company: Option<ObjectGuid>,
    /// 215
    pub contract: Option<ObjectGuid>,
    /// 217
    pub service: Option<ObjectGuid>,
    /// 911
    pub process: Option<ObjectGuid>,
    /// 81
    pub packet: Option<ObjectGuid>,
    /// 260
    pub schedule: Option<ObjectGuid>,
    /// The mail, note, call or letter; nothing filters by it.
    pub communication: Option<ObjectGuid>,
}

const OBJECT_NAMES: [&str; 7] = [
    "Company",
    "Contract",
    "Service",
    "Process",
    "Packet",
    "Schedule",
    "Communication",
];

impl Objects {
    /// The object of that type.
    pub fn of_type(&self, kind: ObjectType) -> Option<ObjectGuid> {
        match kind {
            ObjectType::Company => self.company,
            ObjectType::Packet => self.packet,
            ObjectType::Contract => self.contract,
            ObjectType::Service => self.service,
            ObjectType::Schedule => self.schedule,
            ObjectType::Process => self.process,
        }
    }

    /// The Company or Schedule that a business-object event is about.
    pub fn business_object(&self) -> Option<(ObjectType, ObjectGuid)> {
        let company = self.company.map(|guid| (ObjectType::Company, guid));
        company.or_else(|| self.schedule.map(|guid| (ObjectType::Schedule, guid)))
    }

    fn slot(&mut self, name: &str) -> Option<&mut Option<ObjectGuid>> {
        Some(match name {
            "Company" => &mut self.company,
            "Contract" => &mut self.contract,
            "Service" => &mut self.service,
            "Process" => &mut self.process,
            "Packet" => &mut self.packet,
            "Schedule" => &mut self.schedule,
            "Communication" => &mut self.communication,
            _ => return None,
        })
    }

    /// Name and GUID of each object that is there.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, ObjectGuid)> + use<> {
        let mut objects = *self;
        OBJECT_NAMES
            .into_iter()
            .filter_map(move |name| Some((name, (*objects.slot(name)?)?)))
    }

    /// Compact JSON, as the ledger keeps it.
    pub fn to_json(&self) -> String {
        let mut json = String::with_capacity(256);
        for (name, guid) in self.iter() {
            json.push(if json.is_empty() { '{' } else { ',' });
            let _infallible = write!(json, "\"{name}\":\"{guid}\"");
        }
        json.push_str(if json.is_empty() { "{}" } else { "}" });
        json
    }

    /// Reads what [`Objects::to_json`] or a producer wrote.
    pub fn from_json(json: &str) -> Result<Self, Vec<Fault>> {
        let raw = serde_json::from_str(json).map_err(|error| vec![Fault::new("", "json", error.to_string())])?;
        let mut faults = Faults::default();
        let objects = read_objects(raw, "", &mut faults);
        faults.into_result(objects.unwrap_or_default())
    }
}

#[derive(Default)]
struct Faults(Vec<Fault>);

impl Faults {
    fn add(&mut self, pointer: impl Into<String>, rule: &'static str, detail: impl Into<String>) {
        if self.0.len() < MAX_FAULTS {
            self.0.push(Fault::new(pointer, rule, detail));
        }
    }

    fn is_full(&self) -> bool {
        self.0.len() >= MAX_FAULTS
    }

    fn into_result<T>(self, value: T) -> Result<T, Vec<Fault>> {
        if self.0.is_empty() { Ok(value) } else { Err(self.0) }
    }
}

/// Reads one event; the faults' pointers are relative to it.
pub fn parse(json: &str) -> Result<Event<'_>, Vec<Fault>> {
    let fields = serde_json::from_str::<Fields<'_>>(json).map_err(|error| vec![not_json(&error)])?;
    let mut faults = Faults::default();
    let mut seen: Vec<Cow<'_, str>> = Vec::with_capacity(5);
    let mut id = None;
    let mut kind = None;
    let mut occurred_at = None;
    let mut objects = None;
    let mut data = None;
    for (name, raw) in fields.0 {
        // Every further name would be one to compare with, and none is needed to refuse the event.
        if faults.is_full() {
            break;
        }
        let pointer = || pointer_to(&name);
        if seen.contains(&name) {
            faults.add(pointer(), "unique", format!("{name} is given more than once"));
            continue;
        }
        match &*name {
            "Id" => id = read_id(raw, &mut faults),
            "Type" => kind = Some(read_type(raw, &mut faults)),
            "OccurredAt" if !is_null(raw) => occurred_at = read_timestamp(raw, pointer, &mut faults),
            "OccurredAt" => {}
            "Objects" => objects = Some(raw),
            "Data" => data = Some(raw),
            other => faults.add(
                pointer(),
                "known_field",
                format!("an event has no field {other}; it has Id, Type, OccurredAt, Objects and Data"),
            ),
        }
        seen.push(name);
    }
    for (name, there) in [
        ("Type", kind.is_some()),
        ("Objects", objects.is_some()),
        ("Data", data.is_some()),
    ] {
        if !there {
            faults.add(format!("/{name}"), "required", format!("{name} is required"));
        }
    }
    let objects = objects.and_then(|raw| read_objects(raw, "/Objects", &mut faults));
    let kind = kind.flatten();
    if let (Some(kind), Some(objects)) = (kind, &objects) {
        check_objects(kind, objects, &mut faults);
    }
    if let (Some(kind), Some(data)) = (kind, data) {
        check_data(kind, data, &mut faults);
    }
    match (kind, objects, data) {
        (Some(kind), Some(objects), Some(data)) => faults.into_result(Event {
            id,
            kind,
            occurred_at,
            objects,
            data: data.get(),
        }),
        _ => Err(faults.0),
    }
}

fn not_json(error: &serde_json::Error) -> Fault {
    match error.classify() {
        serde_json::error::Category::Data => Fault::new("", "object", "an event must be a JSON object"),
        serde_json::error::Category::Io | serde_json::error::Category::Syntax | serde_json::error::Category::Eof => {
            Fault::new("", "json", format!("is not JSON: {error}"))
        }
    }
}

fn read_id(raw: &RawValue, faults: &mut Faults) -> Option<EventId> {
    if is_null(raw) {
        return None;
    }
    let id = text(raw).and_then(|text| text.parse::<EventId>().ok());
    match id {
        // Every event of a producer that forgot to set it would be a repeat of the first.
        Some(id) if id.0.is_nil() => {
            faults.add("/Id", "uuid", "Id must not be the all-zero UUID");
            None
        }
        Some(id) => Some(id),
        None => {
            faults.add("/Id", "uuid", "Id must be a UUID in its hyphenated form, or absent");
            None
        }
    }
}

fn read_type(raw: &RawValue, faults: &mut Faults) -> Option<EventType> {
    let kind = text(raw).and_then(|text| EventType::named(&text));
    if kind.is_none() {
        let names = EventType::ALL.map(EventType::name).join(", ");
        faults.add("/Type", "one_of", format!("Type must be one of {names}"));
    }
    kind
}

fn read_timestamp(raw: &RawValue, pointer: impl FnOnce() -> String, faults: &mut Faults) -> Option<Timestamp> {
    let read = text(raw).and_then(|text| Timestamp::parse(&text).ok());
    if read.is_none() {
        faults.add(pointer(), "date_time", crate::time::NotATimestamp.to_string());
    }
    read
}

fn read_objects(raw: &RawValue, parent: &str, faults: &mut Faults) -> Option<Objects> {
    let mut objects = Objects::default();
    let Ok(Fields(fields)) = serde_json::from_str(raw.get()) else {
        faults.add(
            parent,
            "object",
            format!("Objects must be an object, not {}", kind_of(raw)),
        );
        return None;
    };
    let mut seen: Vec<Cow<'_, str>> = Vec::with_capacity(fields.len());
    for (name, raw) in fields {
        if faults.is_full() {
            break;
        }
        let pointer = || format!("{parent}{}", pointer_to(&name));
        if seen.contains(&name) {
            faults.add(pointer(), "unique", format!("{name} is given more than once"));
            continue;
        }
        match objects.slot(&name) {
            None => faults.add(
                pointer(),
                "known_field",
                format!("Objects has no field {name}; it has {}", OBJECT_NAMES.join(", ")),
            ),
            Some(_) if is_null(raw) => {}
            Some(slot) => match text(raw).map(|text| parse_guid(&text)) {
                Some(Ok(guid)) if guid.is_nil() => {}
                Some(Ok(guid)) => *slot = Some(ObjectGuid(guid)),
                Some(Err(rule)) => faults.add(pointer(), "guid", rule.to_string()),
                None => faults.add(pointer(), "guid", format!("must be a GUID, not {}", kind_of(raw))),
            },
        }
        seen.push(name);
    }
    Some(objects)
}

fn check_objects(kind: EventType, objects: &Objects, faults: &mut Faults) {
    let mut require = |name: &str, guid: Option<ObjectGuid>| {
        let pointer = format!("/Objects/{name}");
        if guid.is_none() && faults.0.iter().all(|fault| fault.pointer != pointer) {
            faults.add(
                pointer,
                "required",
                format!("a {} event needs Objects.{name}", kind.name()),
            );
        }
    };
    match kind {
        EventType::PacketCreated | EventType::PacketUpdated => require("Packet", objects.packet),
        EventType::NewCommunication => {
            require("Packet", objects.packet);
            require("Communication", objects.communication);
        }
        EventType::BusinessObjectCreated | EventType::BusinessObjectUpdated => {
            if objects.company.is_some() == objects.schedule.is_some() {
                faults.add(
                    "/Objects",
                    "exactly_one",
                    format!(
                        "a {} event needs exactly one of Objects.Company and Objects.Schedule",
                        kind.name()
                    ),
                );
            }
        }
    }
}

fn check_data(kind: EventType, raw: &RawValue, faults: &mut Faults) {
    let Ok(Fields(fields)) = serde_json::from_str(raw.get()) else {
        faults.add(
            "/Data",
            "object",
            format!("Data must be an object, not {}", kind_of(raw)),
        );
        return;
    };
    let specs = kind.fields();
    let mut known = 0u32;
    let mut unknown: Vec<Cow<'_, str>> = Vec::new();
    for (name, raw) in fields {
        let pointer = || format!("/Data{}", pointer_to(&name));
        if RESERVED_FIELDS.contains(&&*name) {
            faults.add(
                pointer(),
                "reserved",
                format!("{name} is added by Herald and may not be given"),
            );
        } else if let Some(position) = specs.iter().position(|field| field.name == name) {
            if known & (1 << position) != 0 {
                faults.add(pointer(), "unique", format!("{name} is given more than once"));
            }
            known |= 1 << position;
            check_field(&specs[position], raw, faults);
        } else {
            unknown.push(name);
        }
    }
    for (position, field) in specs.iter().enumerate() {
        if field.required && known & (1 << position) == 0 {
            faults.add(
                format!("/Data/{}", field.name),
                "required",
                format!("a {} event needs Data.{}", kind.name(), field.name),
            );
        }
    }
    // Receivers differ in which of two equal names they take, so neither is let through.
    unknown.sort_unstable();
    for pair in unknown.windows(2) {
        if pair[0] == pair[1] {
            let pointer = format!("/Data{}", pointer_to(&pair[0]));
            faults.add(pointer, "unique", format!("{} is given more than once", pair[0]));
        }
    }
}

fn check_field(field: &Field, raw: &RawValue, faults: &mut Faults) {
    let name = field.name;
    let mut fault = |rule, must: String| {
        faults.add(format!("/Data/{name}"), rule, format!("{name} must be {must}"));
    };
    if is_null(raw) {
        if field.required {
            fault("required", "given, and not null".to_owned());
        }
        return;
    }
    match field.kind {
        FieldKind::Text => {
            if text(raw).is_none() {
                fault("text", format!("text, not {}", kind_of(raw)));
            }
        }
        FieldKind::Count => {
            if serde_json::from_str::<u64>(raw.get()).is_err() {
                fault("range", "a whole number from 0".to_owned());
            }
        }
        FieldKind::Code(codes) => {
            let code = serde_json::from_str::<i64>(raw.get()).ok();
            if !codes.iter().any(|(known, _)| Some(*known) == code) {
                let meanings: Vec<_> = codes
                    .iter()
                    .map(|(code, meaning)| format!("{code} {meaning}"))
                    .collect();
                fault("one_of", format!("one of {}", meanings.join(", ")));
            }
        }
        FieldKind::DateTime => {
            read_timestamp(raw, || format!("/Data/{name}"), faults);
        }
    }
}

/// A text that is one event, or several, as the elements of an array.
#[derive(Debug)]
pub enum Batch<'a> {
    /// One event.
    One(&'a str),
    /// An array's elements.
    Many(Vec<&'a str>),
}

/// Splits a JSON text into its events without judging them. An array must have 1 to
/// [`MAX_EVENTS`] elements.
pub fn split_json(json: &str) -> Result<Batch<'_>, Fault> {
    if !json.trim_start().starts_with('[') {
        return Ok(Batch::One(json.trim()));
    }
    let elements: Vec<&RawValue> =
        serde_json::from_str(json).map_err(|error| Fault::new("", "json", format!("is not JSON: {error}")))?;
    check_count(elements.len())?;
    Ok(Batch::Many(elements.into_iter().map(RawValue::get).collect()))
}

/// Splits newline-delimited JSON into its events; blank lines are passed over.
pub fn split_ndjson(text: &str) -> Result<Vec<&str>, Fault> {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    check_count(lines.len())?;
    Ok(lines)
}

fn check_count(count: usize) -> Result<(), Fault> {
    if count == 0 {
        return Err(Fault::new("", "not_empty", "at least one event is needed"));
    }
    if count > MAX_EVENTS {
        return Err(Fault::new(
            "",
            "max_items",
            format!("at most {MAX_EVENTS} events at a time, not {count}"),
        ));
    }
    Ok(())
}

/// The event's text with `Id` set: as it was where it has one, else with it spliced in front.
/// `json` is a text that [`parse`] has accepted.
pub fn with_id<'a>(json: &'a str, event: &Event<'_>, id: EventId) -> Cow<'a, str> {
    if event.id.is_some() {
        return Cow::Borrowed(json);
    }
    let body = json.trim_start().strip_prefix('{').unwrap_or(json);
    let nulls = serde_json::from_str::<Fields<'_>>(json)
        .ok()
        .and_then(|Fields(fields)| fields.into_iter().find(|(name, _)| name == "Id"));
    let Some((_, null)) = nulls else {
        return Cow::Owned(format!("{{\"Id\":\"{id}\",{body}"));
    };
    // `"Id": null` is the same as none; the value is replaced where it stands.
    let start = null.get().as_ptr().addr() - json.as_ptr().addr();
    let (before, rest) = json.split_at(start);
    let after = rest.strip_prefix("null").unwrap_or(rest);
    Cow::Owned(format!("{before}\"{id}\"{after}"))
}

#[cfg(test)]
mod tests;
