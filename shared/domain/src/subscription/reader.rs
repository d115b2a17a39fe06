//! Reading the fields of a request, each by its rule.

use crate::address::EgressPolicy;
use crate::catalogue::Catalogue;
use crate::problem::{Fault, Faults, pointer_to};
use serde_json::{Map, Value};
use std::time::Duration;

/// Reads an object's fields, and collects what is wrong with them.
pub(super) struct Reader<'a> {
    pub(super) fields: &'a Map<String, Value>,
    /// The same object as it is kept. What is as it was there was judged when it was set, by the rules of then, and is
    /// taken as it is.
    pub(super) present: Option<&'a Map<String, Value>>,
    /// What event types and object types there are.
    pub(super) catalogue: &'a Catalogue,
    /// Where requests may go.
    pub(super) egress: &'a EgressPolicy,
    /// The pointer to the object.
    pub(super) parent: &'static str,
    pub(super) faults: Faults,
}

/// A field is at fault. The reader has noted why.
#[derive(Debug)]
pub(super) struct Faulty;

impl<'a> Reader<'a> {
    /// Whether the field is as it is kept; absent is null.
    pub(super) fn is_kept(&self, name: &str) -> bool {
        let kept = |present: &Map<String, Value>| present.get(name).filter(|value| !value.is_null()) == self.get(name);
        self.present.is_some_and(kept)
    }

    /// Notes a fault of the field.
    pub(super) fn fault(&mut self, name: &str, rule: &'static str, detail: impl Into<String>) -> Faulty {
        self.fault_at(&pointer_to(name), rule, detail)
    }

    /// Notes a fault at a place that is further in.
    pub(super) fn fault_at(&mut self, pointer: &str, rule: &'static str, detail: impl Into<String>) -> Faulty {
        let parent = self.parent;
        self.faults
            .push_with(|| Fault::new(format!("{parent}{pointer}"), rule, detail));
        Faulty
    }

    /// The field, unless it is absent or null.
    pub(super) fn get(&self, name: &str) -> Option<&'a Value> {
        self.fields.get(name).filter(|value| !value.is_null())
    }

    /// Notes a fault of each field that is not among these.
    pub(super) fn only(&mut self, known: &[&str], ignored: &[&str]) {
        for name in self.fields.keys() {
            if !known.contains(&name.as_str()) && !ignored.contains(&name.as_str()) {
                let pointer = || format!("{}{}", self.parent, pointer_to(name));
                let detail = || format!("there is no field {name}; the fields are {}", known.join(", "));
                self.faults.push_with(|| Fault::new(pointer(), "known_field", detail()));
            }
        }
    }

    /// Reads a field that is an object, which stands at the pointer `parent`. Nothing where it is absent.
    pub(super) fn object<T>(
        &mut self,
        name: &str,
        parent: &'static str,
        read: impl FnOnce(&mut Self) -> Result<T, Faulty>,
    ) -> Result<Option<T>, Faulty> {
        let fields = match self.get(name) {
            None => return Ok(None),
            Some(Value::Object(fields)) => fields,
            Some(_) => return Err(self.fault(name, "object", format!("{name} must be an object"))),
        };
        let mut inner = Self {
            fields,
            present: self.present.and_then(|present| present.get(name)?.as_object()),
            parent,
            faults: Faults::default(),
            ..*self
        };
        let read = read(&mut inner);
        self.faults.append_within("", inner.faults);
        read.map(Some)
    }

    /// A text of at most so many characters.
    pub(super) fn optional_text(&mut self, name: &str, most: usize) -> Result<Option<String>, Faulty> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) if self.is_kept(name) => Ok(Some(text.clone())),
            Some(Value::String(text)) if text.contains('\0') => {
                Err(self.fault(name, "character", format!("{name} may not have the character U+0000")))
            }
            Some(Value::String(text)) if text.chars().count() <= most => Ok(Some(text.clone())),
            Some(Value::String(_)) => {
                Err(self.fault(name, "max_length", format!("{name} may have at most {most} characters")))
            }
            Some(_) => Err(self.fault(name, "text", format!("{name} must be text"))),
        }
    }

    pub(super) fn boolean(&mut self, name: &str, default: bool) -> Result<bool, Faulty> {
        match self.get(name) {
            None => Ok(default),
            Some(Value::Bool(value)) => Ok(*value),
            Some(_) => Err(self.fault(name, "boolean", format!("{name} must be true or false"))),
        }
    }

    /// A number of that range.
    pub(super) fn float(&mut self, name: &str, default: f64, least: f64, most: f64) -> Result<f64, Faulty> {
        match self.get(name).map(Value::as_f64) {
            None => Ok(default),
            Some(Some(value)) if (least..=most).contains(&value) || self.is_kept(name) => Ok(value),
            Some(_) => Err(self.fault(name, "range", format!("{name} must be a number from {least} to {most}"))),
        }
    }

    /// A time in seconds.
    pub(super) fn seconds(&mut self, name: &str, default: f64, least: f64, most: f64) -> Result<Duration, Faulty> {
        self.float(name, default, least, most).map(Duration::from_secs_f64)
    }

    /// A number above 0.
    pub(super) fn positive(&mut self, name: &str, most: f64) -> Result<Option<f64>, Faulty> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        match value.as_f64() {
            Some(value) if (value > 0.0 && value <= most) || self.is_kept(name) => Ok(Some(value)),
            _ => Err(self.fault(
                name,
                "range",
                format!("{name} must be a number above 0, at most {most}, or null"),
            )),
        }
    }

    /// A whole number of that range.
    pub(super) fn whole<T: TryFrom<u64>>(&mut self, name: &str, least: u64, most: u64) -> Result<Option<T>, Faulty> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        let is_kept = self.is_kept(name);
        let read = value.as_u64().filter(|read| (least..=most).contains(read) || is_kept);
        if let Some(read) = read.and_then(|read| T::try_from(read).ok()) {
            return Ok(Some(read));
        }
        let kind = if value.is_f64() {
            "a whole number without point or exponent,"
        } else {
            "a whole number"
        };
        Err(self.fault(name, "range", format!("{name} must be {kind} from {least} to {most}")))
    }
}

/// Whole numbers without a fraction, as people write them.
pub(super) fn number(value: f64) -> Value {
    #[expect(clippy::cast_possible_truncation, reason = "checked to be whole and small")]
    if value.fract() == 0.0 && value.abs() < 1e15 {
        (value as i64).into()
    } else {
        value.into()
    }
}
