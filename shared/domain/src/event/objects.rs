//! The objects that an event concerns.

use super::given_twice;
use crate::catalogue::ObjectType;
use crate::id::{ObjectGuid, parse_guid};
use crate::json::{Fields, is_null, kind_of, text};
use crate::problem::{Fault, Faults, pointer_to};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt::Write as _;

/// The objects that an event concerns, each by the name of its type. An all-zero GUID is read as absent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Objects(Vec<(Cow<'static, str>, ObjectGuid)>);

/// Names that need no catalogue, in the order in which they are written. Nothing filters by Communication: the mail,
/// note, call or letter.
const ENATE: [&str; 7] = [
    "Company",
    "Contract",
    "Service",
    "Process",
    "Packet",
    "Schedule",
    "Communication",
];

/// The most objects that an event may name.
pub(super) const MAX_OBJECTS: usize = 64;

/// The one of the names that need no catalogue that is that attribute of a CloudEvent, in lower case.
pub(super) fn enate_named_by(attribute: &str) -> Option<&'static str> {
    let lower = |name: &str| name.bytes().map(|byte| byte.to_ascii_lowercase()).eq(attribute.bytes());
    ENATE.into_iter().find(|name| lower(name))
}

/// Where a name is written: Enate's first, then the others by name.
fn place(name: &str) -> (usize, &str) {
    let enate = ENATE.iter().position(|known| *known == name);
    (enate.unwrap_or(ENATE.len()), name)
}

impl<N: Into<Cow<'static, str>>> FromIterator<(N, ObjectGuid)> for Objects {
    fn from_iter<I: IntoIterator<Item = (N, ObjectGuid)>>(objects: I) -> Self {
        let mut all = Self::default();
        for (name, guid) in objects {
            all.put(name.into(), guid);
        }
        all
    }
}

impl<N: Into<Cow<'static, str>>, const COUNT: usize> From<[(N, ObjectGuid); COUNT]> for Objects {
    fn from(objects: [(N, ObjectGuid); COUNT]) -> Self {
        objects.into_iter().collect()
    }
}

impl Objects {
    /// Puts an object to its place; of two of one name the later counts.
    fn put(&mut self, name: Cow<'static, str>, guid: ObjectGuid) {
        match self.0.binary_search_by(|(known, _)| place(known).cmp(&place(&name))) {
            Ok(found) => self.0[found].1 = guid,
            Err(gap) => self.0.insert(gap, (name, guid)),
        }
    }

    /// The object of that name.
    pub fn get(&self, name: &str) -> Option<ObjectGuid> {
        let mut objects = self.0.iter();
        objects.find(|(known, _)| known == name).map(|(_, guid)| *guid)
    }

    /// The object of that type, which is one of Enate's.
    pub fn of_type(&self, kind: ObjectType) -> Option<ObjectGuid> {
        self.get(kind.enate_name()?)
    }

    /// The Company or Schedule that a business-object event is about.
    pub fn business_object(&self) -> Option<(ObjectType, ObjectGuid)> {
        let of_type = |kind| self.of_type(kind).map(|guid| (kind, guid));
        of_type(ObjectType::COMPANY).or_else(|| of_type(ObjectType::SCHEDULE))
    }

    /// Name and GUID of each.
    pub fn iter(&self) -> impl Iterator<Item = (&str, ObjectGuid)> {
        self.0.iter().map(|(name, guid)| (&**name, *guid))
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

    /// Reads what [`Objects::to_json`] wrote.
    pub fn from_json(json: &str) -> Result<Self, Faults> {
        let raw = serde_json::from_str(json).map_err(|error| Fault::new("", "json", error.to_string()))?;
        let mut faults = Faults::default();
        let objects = Self::read(raw, "", |_name| true, &mut faults);
        faults.into_result(objects.unwrap_or_default())
    }

    /// Reads `Objects`; besides Enate's names those that are known.
    pub(super) fn read(
        raw: &RawValue,
        parent: &str,
        is_known: impl Fn(&str) -> bool,
        faults: &mut Faults,
    ) -> Option<Self> {
        let Ok(Fields(fields)) = serde_json::from_str(raw.get()) else {
            let detail = format!("Objects must be an object, not {}", kind_of(raw));
            faults.add(parent, "object", detail);
            return None;
        };
        let mut objects = Self::default();
        let mut seen: Vec<Cow<'_, str>> = Vec::with_capacity(fields.len().min(MAX_OBJECTS));
        for (name, raw) in fields {
            let pointer = || format!("{parent}{}", pointer_to(&name));
            if seen.contains(&name) {
                faults.push_with(|| given_twice(pointer(), &name));
                continue;
            }
            let enate = ENATE.into_iter().find(|known| *known == name);
            if enate.is_none() && !is_known(&name) {
                faults.push_with(|| {
                    let detail = format!(
                        "Objects has no field {name}; it has {} and registered ones, which GET /v1/object-types lists",
                        ENATE.join(", ")
                    );
                    Fault::new(pointer(), "known_field", detail)
                });
                faults.note_catalogue();
                continue;
            }
            if seen.len() == MAX_OBJECTS {
                faults.add(
                    parent,
                    "max_items",
                    format!("Objects may name at most {MAX_OBJECTS} objects"),
                );
                break;
            }
            match text(raw).map(|text| parse_guid(&text)) {
                _ if is_null(raw) => {}
                Some(Ok(guid)) if guid.is_nil() => {}
                Some(Ok(guid)) => {
                    let name = enate.map_or_else(|| Cow::Owned(name.clone().into_owned()), Cow::Borrowed);
                    objects.put(name, ObjectGuid(guid));
                }
                Some(Err(rule)) => faults.add(pointer(), "guid", rule.to_string()),
                None => faults.add(pointer(), "guid", format!("must be a GUID, not {}", kind_of(raw))),
            }
            seen.push(name);
        }
        Some(objects)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn objects_are_written_in_one_order_and_read_again() {
        let guid = |n| ObjectGuid(Uuid::from_u128(n));
        let objects = Objects::from([
            ("Zone", guid(1)),
            ("Packet", guid(2)),
            ("Account", guid(3)),
            ("Company", guid(4)),
        ]);
        let names: Vec<_> = objects.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["Company", "Packet", "Account", "Zone"]);
        assert_eq!(Objects::from_json(&objects.to_json()).unwrap(), objects);
        assert_eq!(
            (objects.get("Zone"), objects.of_type(ObjectType::PACKET)),
            (Some(guid(1)), Some(guid(2)))
        );
        assert_eq!(objects.get("Contract"), None);
    }
}
