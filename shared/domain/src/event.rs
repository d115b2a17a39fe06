//! An event: its reading, its rules, and how several come in one request.
//!
//! Reading collects every fault instead of stopping at the first, and keeps `Data` as the bytes that
//! came, because those are what will be signed and sent. So nothing is added either: a field that may be null
//! and that the producer left out is left out of the message.
//!
//! Names are exact, as JSON has them (RFC 8259, 4). But many readers ignore the case of letters, and of two
//! such names take the last. So a name in `Data` that such a reader would take for one that Herald adds or
//! checks is refused.

use crate::catalogue::{Catalogue, EnateEvent, EventType, Field, FieldKind, ObjectRule, RESERVED_FIELDS, is_name};
use crate::id::EventId;
use crate::json::{Fields, is_null, kind_of, text};
use crate::problem::{Fault, Faults, pointer_to};
use crate::text::{MAX_DEPTH, differs_in_case, half_surrogate, is_shallow};
use crate::time::{NotATimestamp, Timestamp, is_date_time};
pub use batch::{Batch, split_json, split_ndjson};
pub use objects::Objects;
use serde_json::value::RawValue;
use std::borrow::Cow;

mod batch;
pub mod cloud_events;
mod objects;

/// The largest event, in bytes of its JSON text.
pub const MAX_EVENT_BYTES: usize = 256 * 1024;

/// The most events in one request or message.
pub const MAX_EVENTS: usize = 10_000;

fn is_unknown_type(fault: &Fault) -> bool {
    fault.rule == UNKNOWN_TYPE && fault.pointer == "/Type"
}

const UNKNOWN_TYPE: &str = "one_of";

/// A well-formed event, borrowing from the text that it was read from.
#[derive(Debug, Clone)]
pub struct Event<'a> {
    /// The producer's `Id`, if it gave one.
    pub id: Option<EventId>,
    /// Its `Type`.
    pub kind: EventType,
    /// When it happened, if the producer said.
    pub occurred_at: Option<Timestamp>,
    /// Its `Objects`: what it is about.
    pub objects: Objects,
    /// `Data`, as the JSON text that came.
    pub data: &'a str,
}

/// The fields of an event.
const FIELDS: [&str; 5] = ["Id", "Type", "OccurredAt", "Objects", "Data"];

/// Reads one event of a type that `catalogue` has; the faults' pointers are relative to it.
pub fn parse<'a>(json: &'a str, catalogue: &Catalogue) -> Result<Event<'a>, Faults> {
    match half_surrogate(json) {
        Some(fault) => Err(fault.into()),
        None => read(json, catalogue, false),
    }
}

/// Reads one event that ingest has accepted, which may have been an earlier version's. Its producer was told 202 by the
/// rules of then, so it is taken as it is: only what must be read for it to be matched and sent is asked of it.
pub fn parse_accepted<'a>(json: &'a str, catalogue: &Catalogue) -> Result<Event<'a>, Faults> {
    read(json, catalogue, true)
}

fn read<'a>(json: &'a str, catalogue: &Catalogue, is_accepted: bool) -> Result<Event<'a>, Faults> {
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
            "Type" => kind = Some(read_type(raw, catalogue, is_accepted, &mut faults)),
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
    let is_known = |name: &str| is_accepted || catalogue.object_type(name).is_some();
    let objects = objects.and_then(|raw| Objects::read(raw, "/Objects", is_known, &mut faults));
    let kind = kind.flatten();
    if let (Some(kind), Some(objects), false) = (&kind, &objects, is_accepted) {
        check_objects(kind, objects, catalogue, &mut faults);
    }
    match (&kind, data) {
        (_, Some(data)) if is_accepted && kind_of(data) != "an object" => faults.push_with(|| no_object(data)),
        (_, Some(_)) if is_accepted => {}
        (Some(kind), Some(data)) => check_data(kind, data, catalogue, &mut faults),
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

/// The `Id` of an event, whatever else it is.
pub fn id_of(json: &str) -> Option<EventId> {
    let Fields(fields) = serde_json::from_str(json).ok()?;
    let (_, raw) = fields.into_iter().find(|(name, _)| name == "Id")?;
    read_id(raw, &mut Faults::default())
}

/// What a program without the catalogue can tell of an event.
#[derive(Debug, PartialEq, Eq)]
pub struct Outline<'a> {
    /// Its `Id`, if it has one.
    pub id: Option<EventId>,
    /// Its `Type`, which may be registered.
    pub kind: Cow<'a, str>,
}

/// Reads an event as far as that goes without the catalogue: of a type that is none of Enate's, `Objects` and `Data` are
/// not judged.
pub fn outline(json: &str) -> Result<Outline<'_>, Faults> {
    let outline = |id, kind| Outline { id, kind };
    let faults = match parse(json, &Catalogue::default()) {
        Ok(event) => return Ok(outline(event.id, Cow::Owned(event.kind.name().to_owned()))),
        Err(faults) => faults,
    };
    let Ok(Fields(fields)) = serde_json::from_str(json) else {
        return Err(faults);
    };
    let field = |name: &str| fields.iter().find(|(field, _)| *field == name).map(|(_, raw)| *raw);
    let kind = field("Type").and_then(text).filter(|name| is_name(name));
    let depends = |fault: &Fault| is_unknown_type(fault) || fault.pointer.starts_with("/Objects/");
    match kind {
        Some(kind) if faults.iter().any(is_unknown_type) && faults.iter().all(depends) => {
            let id = field("Id").and_then(|raw| read_id(raw, &mut Faults::default()));
            Ok(outline(id, kind))
        }
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

fn read_type(raw: &RawValue, catalogue: &Catalogue, is_accepted: bool, faults: &mut Faults) -> Option<EventType> {
    let find = |name: &str| {
        if is_accepted {
            catalogue.former_event_type(name)
        } else {
            catalogue.event_type(name)
        }
    };
    let kind = text(raw).and_then(|text| find(&text));
    if kind.is_none() {
        let names = EnateEvent::ALL.map(EnateEvent::name).join(", ");
        let detail = format!("Type must be one of {names}, or a registered one; GET /v1/event-types lists all");
        faults.add("/Type", UNKNOWN_TYPE, detail);
        faults.note_catalogue();
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

fn check_objects(kind: &EventType, objects: &Objects, catalogue: &Catalogue, faults: &mut Faults) {
    let require = |name: &str, faults: &mut Faults| {
        let pointer = format!("/Objects/{name}");
        if objects.get(name).is_none() && faults.iter().all(|fault| fault.pointer != pointer) {
            let detail = format!("a {} event needs Objects.{name}", kind.name());
            faults.add(pointer, "required", detail);
        }
    };
    match kind {
        EventType::Registered(_) => {
            let names = catalogue.registered(kind.name()).map(|spec| &spec.draft.objects);
            let before = faults.count();
            for name in names.into_iter().flatten() {
                require(name, faults);
            }
            if faults.count() > before {
                faults.note_catalogue();
            }
        }
        EventType::Enate(event) => match event.objects() {
            ObjectRule::All(names) => names.iter().for_each(|name| require(name, faults)),
            ObjectRule::ExactlyOne(names) => {
                if names.iter().filter(|name| objects.get(name).is_some()).count() != 1 {
                    let names: Vec<_> = names.iter().map(|name| format!("Objects.{name}")).collect();
                    let detail = format!("a {} event needs exactly one of {}", kind.name(), names.join(" and "));
                    faults.add("/Objects", "exactly_one", detail);
                }
            }
        },
    }
}

fn no_object(data: &RawValue) -> Fault {
    Fault::new(
        "/Data",
        "object",
        format!("Data must be an object, not {}", kind_of(data)),
    )
}

fn check_data(kind: &EventType, raw: &RawValue, catalogue: &Catalogue, faults: &mut Faults) {
    if kind_of(raw) != "an object" {
        return faults.push_with(|| no_object(raw));
    }
    if !is_shallow(raw.get(), MAX_DEPTH) {
        let detail = format!("Data may have at most {MAX_DEPTH} arrays and objects in one another");
        return faults.add("/Data", "max_depth", detail);
    }
    match (kind, catalogue.registered(kind.name())) {
        (EventType::Enate(event), _) => check_fields(*event, raw, faults),
        (EventType::Registered(_), Some(spec)) => {
            let before = faults.count();
            spec.draft.check_data(raw.get(), "/Data", faults);
            if faults.count() > before {
                faults.note_catalogue();
            }
        }
        (EventType::Registered(_), None) => {}
    }
}

fn check_fields(kind: EnateEvent, raw: &RawValue, faults: &mut Faults) {
    let Ok(Fields(fields)) = serde_json::from_str(raw.get()) else {
        return faults.push_with(|| no_object(raw));
    };
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

/// The event's text with `Id` set: as it was where it has one, which is `present`, else with it spliced in front.
/// `json` is a text that [`parse`] or [`outline`] has accepted.
pub fn with_id(json: &str, present: Option<EventId>, id: EventId) -> Cow<'_, str> {
    if present.is_some() {
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
