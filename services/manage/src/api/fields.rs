//! Reading the fields of a small request body, every fault named at once.

use herald_access::problem::Problem;
use herald_domain::access::{Role, Roles};
use herald_domain::catalogue::{Catalogue, ObjectType};
use herald_domain::delivery::{Closed, Status};
use herald_domain::id::{ObjectGuid, parse_guid};
use herald_domain::problem::{Fault, Faults, pointer_to};
use herald_domain::signing::SigningKey;
use herald_domain::time::Timestamp;
use serde_json::{Map, Value};
use std::time::Duration;

const MAX_NAME_CHARS: usize = 100;

/// The fields of a body, and the faults found so far.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    fields: &'a Map<String, Value>,
    faults: Faults,
}

impl<'a> Fields<'a> {
    /// A body with these fields; those of `ignored` may be there too, because answers have them.
    pub(crate) fn of(body: &'a Value, known: &[&str], ignored: &[&str]) -> Result<Self, Problem> {
        let Value::Object(fields) = body else {
            return Err(Problem::faults(Fault::new(
                "",
                "object",
                "the body must be a JSON object",
            )));
        };
        let mut read = Self {
            fields,
            faults: Faults::default(),
        };
        for name in fields.keys() {
            if !known.contains(&name.as_str()) && !ignored.contains(&name.as_str()) {
                let detail = || format!("there is no field {name}; the fields are {}", known.join(", "));
                read.faults
                    .push_with(|| Fault::new(pointer_to(name), "known_field", detail()));
            }
        }
        Ok(read)
    }

    /// What was read, unless something was wrong.
    pub(crate) fn finish<T>(self, read: Option<T>) -> Result<T, Problem> {
        match read {
            Some(read) if self.faults.is_empty() => Ok(read),
            _ => Err(Problem::faults(self.faults)),
        }
    }

    fn fault(&mut self, name: &str, rule: &'static str, detail: impl Into<String>) {
        self.faults.push_with(|| Fault::new(pointer_to(name), rule, detail));
    }

    /// The field, unless it is absent or null.
    fn get(&self, name: &str) -> Option<&'a Value> {
        self.fields.get(name).filter(|value| !value.is_null())
    }

    pub(crate) fn optional_name(&mut self) -> Option<String> {
        let value = self.get("Name")?;
        match value.as_str() {
            // The other ledger, PostgreSQL, could not keep it.
            Some(text) if text.contains('\0') => {
                self.fault("Name", "character", "Name may not have the character U+0000");
                None
            }
            Some(text) if !text.is_empty() && text.chars().count() <= MAX_NAME_CHARS => Some(text.to_owned()),
            _ => {
                self.fault(
                    "Name",
                    "text",
                    format!("Name must be text of 1 to {MAX_NAME_CHARS} characters"),
                );
                None
            }
        }
    }

    /// The name; one that is the `present` one was judged when it was given, by the rules of then.
    pub(crate) fn name(&mut self, present: Option<&str>) -> Option<String> {
        if let Some(present) = present.filter(|present| self.get("Name").and_then(Value::as_str) == Some(*present)) {
            return Some(present.to_owned());
        }
        if self.get("Name").is_none() {
            self.fault("Name", "required", "Name is required");
        }
        self.optional_name()
    }

    pub(crate) fn active(&mut self) -> bool {
        match self.get("Active") {
            None => true,
            Some(Value::Bool(active)) => *active,
            Some(_) => {
                self.fault("Active", "boolean", "Active must be true or false");
                true
            }
        }
    }

    pub(crate) fn roles(&mut self, default: Roles) -> Roles {
        let Some(value) = self.get("Roles") else {
            return default;
        };
        let named = |role: &Value| role.as_str().and_then(Role::named);
        let roles: Option<Roles> = value.as_array().and_then(|roles| roles.iter().map(named).collect());
        roles.unwrap_or_else(|| {
            let names = Role::ALL.map(Role::name).join(", ");
            self.fault("Roles", "one_of", format!("Roles must be an array of {names}"));
            default
        })
    }

    /// The object type that the field gives by its number or name.
    pub(crate) fn object_type(&mut self, catalogue: &Catalogue) -> Option<ObjectType> {
        let numbered = |number| catalogue.object_numbered(number);
        self.object_type_by(numbered, |name| catalogue.object_type(name))
    }

    /// The same of one that may be deleted.
    pub(crate) fn former_object_type(&mut self, catalogue: &Catalogue) -> Option<ObjectType> {
        self.object_type_by(ObjectType::numbered, |name| catalogue.former_object_type(name))
    }

    fn object_type_by(
        &mut self,
        numbered: impl FnOnce(i64) -> Option<ObjectType>,
        named: impl FnOnce(&str) -> Option<ObjectType>,
    ) -> Option<ObjectType> {
        const NAME: &str = "ObjectType";
        let Some(value) = self.get(NAME) else {
            self.fault(NAME, "required", "ObjectType is required");
            return None;
        };
        let object_type = match value {
            Value::Number(number) => number.as_i64().and_then(numbered),
            Value::String(name) => named(name),
            _ => None,
        };
        if object_type.is_none() {
            let kinds = ObjectType::ENATE.map(|(kind, name)| format!("{} {name}", kind.number()));
            let all = kinds.join(", ");
            let detail =
                format!("ObjectType must be one of {all}, or a registered one; GET /v1/object-types lists all");
            self.fault(NAME, "one_of", detail);
        }
        object_type
    }

    /// Absent, null, empty and all zeros are all no GUID: every object of the type.
    pub(crate) fn object(&mut self) -> Option<ObjectGuid> {
        const NAME: &str = "ObjectGUID";
        let value = self.get(NAME)?;
        if value.as_str() == Some("") {
            return None;
        }
        let Some(Ok(guid)) = value.as_str().map(parse_guid) else {
            self.fault(
                NAME,
                "guid",
                "ObjectGUID must be a GUID, or absent for every object of the type",
            );
            return None;
        };
        (!guid.is_nil()).then_some(ObjectGuid(guid))
    }

    /// How deliveries ended, without success.
    pub(crate) fn ended(&mut self) -> Option<Closed> {
        let retriable = || Closed::ALL.into_iter().filter(|ended| ended.can_be_retried());
        let name = |ended: Closed| Status::Closed(ended).name();
        let given = self.get("Status").and_then(Value::as_str);
        let ended = given.and_then(|given| retriable().find(|ended| name(*ended) == given));
        if ended.is_none() {
            let names: Vec<_> = retriable().map(name).collect();
            self.fault(
                "Status",
                "one_of",
                format!("Status must be one of {}", names.join(", ")),
            );
        }
        ended
    }

    pub(crate) fn time(&mut self, name: &str) -> Option<Timestamp> {
        let value = self.get(name)?;
        let time = value.as_str().and_then(|text| Timestamp::parse(text).ok());
        if time.is_none() {
            let rule = "an RFC 3339 date-time with an offset, such as 2026-11-22T05:13:39Z";
            self.fault(name, "date_time", format!("{name} must be {rule}"));
        }
        time
    }

    /// A time of 0 to `most`; 0 where it is absent.
    pub(crate) fn seconds(&mut self, name: &str, most: Duration) -> Duration {
        let read = self.get(name).map_or(Some(0.0), Value::as_f64);
        if let Some(seconds) = read.filter(|seconds| (0.0..=most.as_secs_f64()).contains(seconds)) {
            return Duration::from_secs_f64(seconds);
        }
        self.fault(
            name,
            "range",
            format!("{name} must be a number from 0 to {}", most.as_secs()),
        );
        Duration::ZERO
    }

    /// The secret as it was given, with the key that it means.
    pub(crate) fn secret(&mut self) -> Option<(String, SigningKey)> {
        let text = self.get("SecretKey")?.as_str();
        match text.map(SigningKey::from_secret) {
            Some(Ok(key)) => Some((text.unwrap_or_default().to_owned(), key)),
            Some(Err(rule)) => {
                self.fault("SecretKey", "secret", format!("SecretKey {rule}"));
                None
            }
            None => {
                self.fault("SecretKey", "text", "SecretKey must be text");
                None
            }
        }
    }
}
