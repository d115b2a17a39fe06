//! What an operator registers: event types and object types, and their rules.

use super::{Catalogue, EventType, FIRST_REGISTERED, MAX_SCHEMA_BYTES, ObjectType, Schema};
use crate::json::Fields;
use crate::problem::{Fault, Faults, pointer_to};
use crate::text::{MAX_DEPTH, is_shallow, repeated_name};
use crate::time::Timestamp;
use serde_json::{Map, Value};

/// The most event types that may be registered besides those of packs. Each process keeps them all in memory.
pub const MAX_EVENT_TYPES: usize = 10_000;

/// The most object types that may be registered.
pub const MAX_OBJECT_TYPES: usize = 10_000;

/// The longest name, in characters.
pub const MAX_NAME_CHARS: usize = 100;

/// The longest `Description`, in characters.
const MAX_DESCRIPTION_CHARS: usize = 2000;

/// The most objects that an event type may ask its events to name.
const MAX_OBJECTS: usize = 20;

/// The field that Herald adds to the `Data` of registered types in Enate's format.
const ADDED: &str = "GUID";

/// Names that begin so are those of Herald's own events.
const OWN: &str = "Herald.";

/// An event type as it is registered.
#[derive(Debug, Clone)]
pub struct EventTypeSpec {
    /// Its number and name.
    pub kind: EventType,
    /// What is settable of it.
    pub draft: EventTypeDraft,
    /// It came with Herald and is not changed.
    pub built_in: bool,
    /// It is no longer there. Its number and name stay, because events of it are in the ledger.
    pub deleted: bool,
    /// When it was first registered.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// What is settable of an event type.
#[derive(Debug, Clone, PartialEq)]
pub struct EventTypeDraft {
    /// What it is, for people.
    pub description: Option<String>,
    /// The names of the object types of which its events name one object each.
    pub objects: Vec<Box<str>>,
    /// What `Data` must fit.
    pub schema: Option<Schema>,
    /// A `Data` that fits, as JSON.
    pub example: Option<Value>,
    /// Its events are accepted, and no new subscriptions to it.
    pub archived: bool,
}

/// An object type as it is registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectTypeSpec {
    /// Its number, which does not change.
    pub kind: ObjectType,
    /// Its name in `Objects`.
    pub name: Box<str>,
    /// It is no longer there.
    pub deleted: bool,
}

/// Whether it is the name of an event type or object type: a letter, and up to 99 letters, digits, dots, hyphens and
/// underscores.
pub fn is_name(text: &str) -> bool {
    let mut chars = text.chars();
    let first = chars.next().is_some_and(|first| first.is_ascii_alphabetic());
    let rest = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    first && text.len() <= MAX_NAME_CHARS && chars.all(rest)
}

fn check_name(name: &str, faults: &mut Faults) {
    if !is_name(name) {
        let detail = format!(
            "a name is a letter and up to {} letters, digits, dots, hyphens and underscores",
            MAX_NAME_CHARS - 1
        );
        faults.add("/Name", "name", detail);
    } else if name.starts_with(OWN) {
        faults.add(
            "/Name",
            "reserved",
            format!("names that begin with {OWN} are Herald's own"),
        );
    }
}

/// The fields of a request, and what is wrong with them.
struct Reader<'a> {
    fields: &'a Map<String, Value>,
    faults: Faults,
}

impl<'a> Reader<'a> {
    fn of(body: &'a Value, what: &str, known: &[&str]) -> Result<Self, Faults> {
        let Value::Object(fields) = body else {
            return Err(Fault::new("", "object", format!("{what} must be a JSON object")).into());
        };
        let mut faults = Faults::default();
        for name in fields.keys().filter(|name| !known.contains(&name.as_str())) {
            let detail = || format!("there is no field {name}; the fields are {}", known.join(", "));
            faults.push_with(|| Fault::new(pointer_to(name), "known_field", detail()));
        }
        Ok(Self { fields, faults })
    }

    fn get(&self, name: &str) -> Option<&'a Value> {
        self.fields.get(name).filter(|value| !value.is_null())
    }

    fn named(&mut self, name: &str) {
        check_name(name, &mut self.faults);
        if self.get("Name").is_some_and(|given| given != name) {
            self.faults.add(
                "/Name",
                "same",
                format!("Name must be {name}, as in the path, or absent"),
            );
        }
    }

    fn description(&mut self) -> Option<String> {
        let text = self.get("Description")?;
        match text.as_str() {
            Some(text) if text.contains('\0') => {
                let detail = "Description may not have the character U+0000";
                self.faults.add("/Description", "character", detail);
                None
            }
            Some(text) if text.chars().count() <= MAX_DESCRIPTION_CHARS => Some(text.to_owned()),
            Some(_) => {
                let detail = format!("Description may have at most {MAX_DESCRIPTION_CHARS} characters");
                self.faults.add("/Description", "max_length", detail);
                None
            }
            None => {
                self.faults.add("/Description", "text", "Description must be text");
                None
            }
        }
    }

    fn boolean(&mut self, name: &str) -> bool {
        match self.get(name) {
            None => false,
            Some(Value::Bool(value)) => *value,
            Some(_) => {
                self.faults
                    .add(format!("/{name}"), "boolean", format!("{name} must be true or false"));
                false
            }
        }
    }

    fn objects(&mut self, catalogue: &Catalogue) -> Vec<Box<str>> {
        let Some(value) = self.get("Objects") else {
            return Vec::new();
        };
        let Some(names) = value.as_array().filter(|names| names.len() <= MAX_OBJECTS) else {
            let detail = format!("Objects must be an array of up to {MAX_OBJECTS} names of object types");
            self.faults.add("/Objects", "array", detail);
            return Vec::new();
        };
        let mut objects: Vec<Box<str>> = Vec::with_capacity(names.len());
        for (n, name) in names.iter().enumerate() {
            let pointer = format!("/Objects/{n}");
            match name.as_str() {
                Some(name) if objects.iter().any(|known| **known == *name) => {
                    self.faults
                        .add(pointer, "unique", format!("{name} is named more than once"));
                }
                Some(name) if name == "Communication" || catalogue.object_type(name).is_some() => {
                    objects.push(name.into());
                }
                _ => {
                    let detail = format!("{name} is not an object type; GET /v1/object-types lists them, PUT adds one");
                    self.faults.add(pointer, "object_type", detail);
                }
            }
        }
        objects
    }
}

/// Reads the body of a request that registers the event type of that name. Every fault is named at once.
pub fn read_event_type(name: &str, body: &Value, catalogue: &Catalogue) -> Result<EventTypeDraft, Faults> {
    const FIELDS: [&str; 6] = ["Name", "Description", "Objects", "Schema", "Example", "Archived"];
    // They are part of what GET gives.
    const READ_ONLY: [&str; 3] = ["BuiltIn", "CreatedAt", "UpdatedAt"];
    let known = [&FIELDS[..], &READ_ONLY[..]].concat();
    let mut reader = Reader::of(body, "an event type", &known)?;
    reader.named(name);
    let description = reader.description();
    let objects = reader.objects(catalogue);
    let archived = reader.boolean("Archived");
    let schema = match reader.get("Schema").map(Schema::parse).transpose() {
        Ok(schema) => schema,
        Err(fault) => {
            reader.faults.push_with(|| fault);
            None
        }
    };
    let example = reader.get("Example");
    if let Some(example) = example {
        if example.to_string().len() > MAX_SCHEMA_BYTES {
            let detail = format!("Example may have at most {MAX_SCHEMA_BYTES} bytes");
            reader.faults.add("/Example", "max_bytes", detail);
        } else if !example.is_object() {
            reader
                .faults
                .add("/Example", "object", "Example must be an object, as Data is");
        }
    }
    let draft = EventTypeDraft {
        description,
        objects,
        schema,
        example: example.cloned(),
        archived,
    };
    if let (Some(example), true) = (&draft.example, reader.faults.is_empty()) {
        draft.check_data(&example.to_string(), "/Example", &mut reader.faults);
    }
    reader.faults.into_result(draft)
}

/// Reads the body of a request that registers the object type of that name; its number, if it gives one.
pub fn read_object_type(name: &str, body: &Value) -> Result<Option<ObjectType>, Faults> {
    let mut reader = Reader::of(body, "an object type", &["Name", "Number", "BuiltIn"])?;
    reader.named(name);
    if name == "Communication" {
        reader.faults.add(
            "/Name",
            "reserved",
            "Communication is the name of Enate's communications",
        );
    }
    let number = reader.get("Number");
    let kind = number.and_then(Value::as_i64).and_then(ObjectType::numbered);
    let kind = kind.filter(|kind| kind.number() >= FIRST_REGISTERED);
    if number.is_some() && kind.is_none() {
        let detail = format!(
            "Number must be a whole number from {FIRST_REGISTERED} to {}, or absent",
            i16::MAX
        );
        reader.faults.add("/Number", "range", detail);
    }
    reader.faults.into_result(kind)
}

impl EventTypeDraft {
    /// What is wrong with an event's `Data`, an object, by the type's rules; pointers begin with `parent`.
    pub fn check_data(&self, data: &str, parent: &str, faults: &mut Faults) {
        if !is_shallow(data, MAX_DEPTH) {
            let detail = format!("may have at most {MAX_DEPTH} arrays and objects in one another");
            return faults.add(parent, "max_depth", detail);
        }
        if let Some(fault) = repeated_name(data) {
            // Receivers differ in which of two equal names they take.
            return faults.push_with(|| fault.within(parent));
        }
        let Ok(Fields(fields)) = serde_json::from_str(data) else {
            return;
        };
        let added = |name: &str| name.eq_ignore_ascii_case(ADDED);
        for (name, _) in fields.iter().filter(|(name, _)| added(name)) {
            faults.push_with(|| {
                let detail = format!("{ADDED} is added by Herald and may not be given, in no spelling");
                Fault::new(format!("{parent}{}", pointer_to(name)), "reserved", detail)
            });
        }
        if let Some(schema) = &self.schema {
            match serde_json::from_str(data) {
                Ok(data) => schema.check(&data, parent, faults),
                Err(error) => faults.add(parent, "json", error.to_string()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rules(came: Result<EventTypeDraft, Faults>) -> Vec<(String, &'static str)> {
        let faults = came.err().map(Faults::into_listed).unwrap_or_default();
        faults.into_iter().map(|fault| (fault.pointer, fault.rule)).collect()
    }

    #[test]
    fn each_rule_of_an_event_type_has_its_fault() {
        let catalogue = Catalogue::default();
        let read = |name: &str, body: Value| rules(read_event_type(name, &body, &catalogue));
        assert_eq!(read("InvoicePaid", json!({})), []);
        let whole = json!({
            "Name": "InvoicePaid", "Description": "An invoice is paid.", "Objects": ["Company"], "Archived": true,
            "Schema": {"type": "object", "required": ["Number"]}, "Example": {"Number": 1},
            "BuiltIn": false, "CreatedAt": "2026-01-01T00:00:00Z", "UpdatedAt": null,
        });
        assert_eq!(read("InvoicePaid", whole), []);
        let cases = [
            ("1st", json!({}), "/Name", "name"),
            ("Herald.Own", json!({}), "/Name", "reserved"),
            ("A", json!({"Name": "B"}), "/Name", "same"),
            ("A", json!([]), "", "object"),
            ("A", json!({"Descriptoin": ""}), "/Descriptoin", "known_field"),
            ("A", json!({"Description": 1}), "/Description", "text"),
            (
                "A",
                json!({"Description": "x".repeat(2001)}),
                "/Description",
                "max_length",
            ),
            ("A", json!({"Objects": "Company"}), "/Objects", "array"),
            ("A", json!({"Objects": ["Company", "Company"]}), "/Objects/1", "unique"),
            ("A", json!({"Objects": ["Invoice"]}), "/Objects/0", "object_type"),
            ("A", json!({"Archived": "yes"}), "/Archived", "boolean"),
            ("A", json!({"Schema": {"type": 1}}), "/Schema", "schema"),
            ("A", json!({"Example": 1}), "/Example", "object"),
            (
                "A",
                json!({"Schema": {"required": ["B"]}, "Example": {}}),
                "/Example",
                "schema",
            ),
            ("A", json!({"Example": {"guid": 1}}), "/Example/guid", "reserved"),
            ("A", json!({"Description": "a\u{0}"}), "/Description", "character"),
        ];
        for (name, body, pointer, rule) in cases {
            assert_eq!(read(name, body.clone()), [(pointer.to_owned(), rule)], "{body}");
        }
    }

    #[test]
    fn names_are_ascii_and_begin_with_a_letter() {
        for name in ["A", "invoice.paid", "A-b_c.9", &"a".repeat(100)] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "9a", ".a", "a b", "ä", "a*", &"a".repeat(101)] {
            assert!(!is_name(name), "{name}");
        }
    }

    #[test]
    fn object_types_have_numbers_from_a_thousand() {
        let read = |body: Value| read_object_type("Ticket", &body).map_err(|faults| faults.into_listed()[0].rule);
        assert_eq!(read(json!({})), Ok(None));
        assert_eq!(
            read(json!({"Name": "Ticket", "Number": 1001, "BuiltIn": false})),
            Ok(ObjectType::numbered(1001))
        );
        for number in [json!(31), json!(999), json!(40_000), json!("1001"), json!(1000.5)] {
            assert_eq!(read(json!({"Number": number})), Err("range"));
        }
    }
}
