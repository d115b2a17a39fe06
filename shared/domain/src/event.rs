//! An event: its reading, its rules, and how several come in one request.
//!
//! Reading collects every fault instead of stopping at the first, and keeps `Data` as the bytes that
//! came, because those are what will be signed and sent. So nothing is added either: a field that may be null
//! and that the producer left out is left out of the message.
//!
//! Names are exact, as JSON has them (RFC 8259, 4). But many readers ignore the case of letters, and of two
//! such names take the last. So a name in `Data` that such a reader would take for one that Herald adds or
//! checks is refused.

use crate::catalogue::{EventType, Field, FieldKind, ObjectType, RESERVED_FIELDS};
use crate::id::{EventId, ObjectGuid, parse_guid};
use crate::json::{Fields, is_null, kind_of, text};
use crate::problem::{Fault, Faults, pointer_to};
use crate::text::{differs_in_case, half_surrogate, is_shallow};
use crate::time::{NotATimestamp, Timestamp, is_date_time};
pub use batch::{Batch, split_json, split_ndjson};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt::Write as _;

mod batch;

/// The largest event, in bytes of its JSON text.
pub const MAX_EVENT_BYTES: usize = 256 * 1024;

/// The most events in one request or message.
pub const MAX_EVENTS: usize = 10_000;

/// The most arrays and objects in one another that `Data` may have, itself included. Readers have limits of
/// their own, of which that of .NET is the usual one; deeper, a message could never be delivered.
pub const MAX_DEPTH: usize = 64;

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
    pub fn from_json(json: &str) -> Result<Self, Faults> {
        let raw = serde_json::from_str(json).map_err(|error| Fault::new("", "json", error.to_string()))?;
        let mut faults = Faults::default();
        let objects = read_objects(raw, "", &mut faults);
        faults.into_result(objects.unwrap_or_default())
    }
}

/// The fields of an event.
const FIELDS: [&str; 5] = ["Id", "Type", "OccurredAt", "Objects", "Data"];

/// Reads one event; the faults' pointers are relative to it.
pub fn parse(json: &str) -> Result<Event<'_>, Faults> {
    match half_surrogate(json) {
        Some(fault) => Err(fault.into()),
        None => read(json, false),
    }
}

/// Reads one event that ingest has accepted, which may have been an earlier version's. Its producer was told 202 by the
/// rules of then, so it is taken as it is: only what must be read for it to be matched and sent is asked of it.
pub fn parse_accepted(json: &str) -> Result<Event<'_>, Faults> {
    read(json, true)
}

fn read(json: &str, is_accepted: bool) -> Result<Event<'_>, Faults> {
    let fields = serde_json::from_str::<Fields<'_>>(json).map_err(|error| not_json(json, &error))?;
    let mut faults = Faults::default();
    let mut seen = [false; FIELDS.len()];
    let mut id = None;
    let mut kind = None;
    let mut occurred_at = None;
    let mut objects = None;
    let mut data = None;
    for (name, raw) in fields.0 {
        let Some(place) = FIELDS.iter().position(|field| *field == name) else {
            if is_accepted {
                continue;
            }
            faults.push_with(|| {
                let detail = format!("an event has no field {name}; it has Id, Type, OccurredAt, Objects and Data");
                Fault::new(pointer_to(&name), "known_field", detail)
            });
            continue;
        };
        if std::mem::replace(&mut seen[place], true) {
            faults.push_with(|| given_twice(pointer_to(&name), &name));
            continue;
        }
        match FIELDS[place] {
            "Id" => id = read_id(raw, &mut faults),
            "Type" => kind = Some(read_type(raw, &mut faults)),
            "OccurredAt" if is_null(raw) => {}
            // Nothing depends on it.
            "OccurredAt" if is_accepted => occurred_at = read_timestamp(raw, &mut Faults::default()),
            "OccurredAt" => occurred_at = read_timestamp(raw, &mut faults),
            "Objects" => objects = Some(raw),
            _ => data = Some(raw),
        }
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
    if let (Some(kind), Some(objects), false) = (kind, &objects, is_accepted) {
        check_objects(kind, objects, &mut faults);
    }
    match (kind, data) {
        (_, Some(data)) if is_accepted && kind_of(data) != "an object" => faults.push_with(|| no_object(data)),
        (_, Some(_)) if is_accepted => {}
        (Some(kind), Some(data)) => check_data(kind, data, &mut faults),
        _ => {}
    }
    match (kind, objects, data) {
        (Some(kind), Some(objects), Some(data)) => faults.into_result(Event {
            id,
            kind,
            occurred_at,
            objects,
            data: data.get(),
        }),
        _ => Err(faults),
    }
}

fn given_twice(pointer: String, name: &str) -> Fault {
    Fault::new(pointer, "unique", format!("{name} is given more than once"))
}

fn not_json(json: &str, error: &serde_json::Error) -> Fault {
    match error.classify() {
        _ if batch::is_several(json) => {
            let detail = "is several JSON texts; send an array, or newline-delimited JSON as application/x-ndjson";
            Fault::new("", "json", detail)
        }
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

fn read_timestamp(raw: &RawValue, faults: &mut Faults) -> Option<Timestamp> {
    let read = text(raw).and_then(|text| Timestamp::parse(&text).ok());
    if read.is_none() {
        faults.add("/OccurredAt", "date_time", format!("OccurredAt {NotATimestamp}"));
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
    let mut seen = [false; OBJECT_NAMES.len()];
    for (name, raw) in fields {
        let pointer = || format!("{parent}{}", pointer_to(&name));
        if let Some(place) = OBJECT_NAMES.iter().position(|known| *known == name)
            && std::mem::replace(&mut seen[place], true)
        {
            faults.push_with(|| given_twice(pointer(), &name));
            continue;
        }
        match objects.slot(&name) {
            None => faults.push_with(|| {
                let detail = format!("Objects has no field {name}; it has {}", OBJECT_NAMES.join(", "));
                Fault::new(pointer(), "known_field", detail)
            }),
            Some(_) if is_null(raw) => {}
            Some(slot) => match text(raw).map(|text| parse_guid(&text)) {
                Some(Ok(guid)) if guid.is_nil() => {}
                Some(Ok(guid)) => *slot = Some(ObjectGuid(guid)),
                Some(Err(rule)) => faults.add(pointer(), "guid", rule.to_string()),
                None => faults.add(pointer(), "guid", format!("must be a GUID, not {}", kind_of(raw))),
            },
        }
    }
    Some(objects)
}

fn check_objects(kind: EventType, objects: &Objects, faults: &mut Faults) {
    let mut require = |name: &str, guid: Option<ObjectGuid>| {
        let pointer = format!("/Objects/{name}");
        if guid.is_none() && faults.iter().all(|fault| fault.pointer != pointer) {
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

fn no_object(data: &RawValue) -> Fault {
    Fault::new(
        "/Data",
        "object",
        format!("Data must be an object, not {}", kind_of(data)),
    )
}

fn check_data(kind: EventType, raw: &RawValue, faults: &mut Faults) {
    let Ok(Fields(fields)) = serde_json::from_str(raw.get()) else {
        return faults.push_with(|| no_object(raw));
    };
    if !is_shallow(raw.get(), MAX_DEPTH) {
        let detail = format!("Data may have at most {MAX_DEPTH} arrays and objects in one another");
        faults.add("/Data", "max_depth", detail);
    }
    let specs = kind.fields();
    let mut known = 0u32;
    let mut unknown: Vec<Cow<'_, str>> = Vec::new();
    for (name, raw) in fields {
        let pointer = || format!("/Data{}", pointer_to(&name));
        if RESERVED_FIELDS.contains(&&*name) {
            let detail = || format!("{name} is added by Herald and may not be given");
            faults.push_with(|| Fault::new(pointer(), "reserved", detail()));
        } else if let Some(position) = specs.iter().position(|field| field.name == name) {
            if known & (1 << position) != 0 {
                faults.push_with(|| given_twice(pointer(), &name));
            }
            known |= 1 << position;
            check_field(&specs[position], raw, faults);
        } else {
            check_case(&name, specs, faults);
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
            faults.push_with(|| given_twice(format!("/Data{}", pointer_to(&pair[0])), &pair[0]));
        }
    }
}

/// Refuses a name that a reader who ignores case takes for one that is added or checked.
fn check_case(name: &str, specs: &[Field], faults: &mut Faults) {
    let same = |known: &&str| differs_in_case(name, known);
    if let Some(reserved) = RESERVED_FIELDS.iter().copied().find(same) {
        faults.push_with(|| {
            let detail = format!("to a reader that ignores case {name} is {reserved}, which Herald adds");
            Fault::new(format!("/Data{}", pointer_to(name)), "reserved", detail)
        });
    } else if let Some(known) = specs.iter().map(|field| field.name).find(same) {
        faults.push_with(|| {
            let detail = format!("{name} must be written {known}: to a reader that ignores case they are the same");
            Fault::new(format!("/Data{}", pointer_to(name)), "letter_case", detail)
        });
    }
}

/// What a code or a count must be, where it is a number that is written otherwise.
const WHOLE_NUMBER: &str = "a whole number without point or exponent";

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
    // 1.0 is a whole number too, but receivers that read an integer fail on it, and it would be sent as it came.
    let pointed = || kind_of(raw) == "a number" && raw.get().contains(['.', 'e', 'E']);
    match field.kind {
        FieldKind::Text => {
            if text(raw).is_none() {
                fault("text", format!("text, not {}", kind_of(raw)));
            }
        }
        FieldKind::Count => {
            if serde_json::from_str::<u64>(raw.get()).is_err() {
                fault(
                    "range",
                    if pointed() {
                        WHOLE_NUMBER
                    } else {
                        "a whole number from 0"
                    }
                    .to_owned(),
                );
            }
        }
        FieldKind::Code(codes) => {
            let code = serde_json::from_str::<i64>(raw.get()).ok();
            if pointed() {
                fault("one_of", WHOLE_NUMBER.to_owned());
            } else if !codes.iter().any(|(known, _)| Some(*known) == code) {
                let meanings: Vec<_> = codes
                    .iter()
                    .map(|(code, meaning)| format!("{code} {meaning}"))
                    .collect();
                fault("one_of", format!("one of {}", meanings.join(", ")));
            }
        }
        FieldKind::DateTime => {
            if !text(raw).is_some_and(|text| is_date_time(&text)) {
                faults.add(format!("/Data/{name}"), "date_time", format!("{name} {NotATimestamp}"));
            }
        }
    }
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
