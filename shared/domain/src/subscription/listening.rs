//! `Webhook` or `EventTypes`, with `FilterObjectType` and `FilterObjectGUID`: what a subscription listens to.

use super::reader::{Faulty, Reader};
use super::setting::{Cell, Cells, Column, Corrupt, Field, Kind, Setting, required};
use crate::catalogue::{MAX_NAME_CHARS, ObjectType, Webhook, is_name};
use crate::id::{ObjectGuid, parse_guid};
use crate::index::{Interest, ObjectFilter, Topic, TypeInterest};
use serde_json::{Value, json};
use std::sync::Arc;

const WEBHOOK: &str = "Webhook";
const EVENT_TYPES: &str = "EventTypes";
const OBJECT_TYPE: &str = "FilterObjectType";
const OBJECT: &str = "FilterObjectGUID";

/// The most `EventTypes`.
const MOST: usize = 100;

/// The `object_type` of a subscription to event types without a filter.
const NO_FILTER: i16 = 0;

pub(super) struct Listening;

impl Setting for Listening {
    type Value = Interest;
    const FIELDS: &'static [Field] = &[
        Field::new(
            WEBHOOK,
            || {
                let names = Webhook::ALL.map(Webhook::name);
                json!({"type": "string", "description": "A kind of subscription.", "enum": names})
            },
            "What to be told of: one of Enate's webhooks. With `EventTypes` it is `Events` or absent.",
        )
        .named("Webhook"),
        Field::new(
            EVENT_TYPES,
            || json!({"type": "array", "items": {"type": "string"}, "example": ["InvoicePaid", "Invoice.*"]}),
            "Instead of a webhook: 1 to 100 names of event types, or prefixes that end in `*`. `*` alone is everything \
             but Herald's own events.",
        )
        .nullable(),
        Field::new(
            OBJECT_TYPE,
            object_type_schema,
            "The number of an object type, or its name; `/v1/webhooks` says which go with a webhook. With `EventTypes` \
             it may be any, or absent: then an event matches whatever it names.",
        )
        .named("ObjectTypeInput")
        .shown(|| json!({"type": "integer", "format": "int32", "example": 31}))
        .nullable(),
        Field::new(
            OBJECT,
            || json!({"type": "string", "format": "uuid"}),
            "Which object. Left empty (absent, null, `\"\"`, all zeros) for `BusinessObjectCreated` and \
             `BusinessObjectUpdated`, required for the other webhooks, and as one likes with `EventTypes`.",
        )
        .nullable(),
    ];
    const COLUMNS: &'static [Column] = &[
        Column::new("webhook", Kind::Small),
        Column::new("object_type", Kind::Small),
        Column::new("object", Kind::Guid),
        Column::new("event_types", Kind::Text),
        Column::new("object_name", Kind::Text),
    ];

    fn read(reader: &mut Reader<'_>, held: Option<&Interest>) -> Result<Interest, Faulty> {
        let webhook = match reader.get(WEBHOOK) {
            None => None,
            Some(value) => {
                let webhook = value.as_str().and_then(Webhook::named);
                if webhook.is_none() {
                    let names = Webhook::ALL.map(Webhook::name).join(", ");
                    let faulty = reader.fault(WEBHOOK, "one_of", format!("Webhook must be one of {names}"));
                    reader.check_filter();
                    return Err(faulty);
                }
                webhook
            }
        };
        match (webhook, reader.get(EVENT_TYPES)) {
            (None | Some(Webhook::Events), Some(names)) => {
                let held = held.map(Interest::event_types).unwrap_or_default();
                reader.type_interest(names, held)
            }
            (Some(Webhook::Events), None) => {
                let detail = "a subscription with Webhook Events needs EventTypes";
                Err(reader.fault(EVENT_TYPES, "required", detail))
            }
            (Some(_), Some(_)) => {
                let detail =
                    "a subscription has either one of Enate's webhooks or EventTypes; leave out Webhook, or give null";
                Err(reader.fault(EVENT_TYPES, "exactly_one", detail))
            }
            (Some(webhook), None) => reader.topic(webhook).map(Interest::Webhook),
            (None, None) => {
                let faulty = reader.fault(WEBHOOK, "required", "Webhook or EventTypes is required");
                reader.check_filter();
                Err(faulty)
            }
        }
    }

    fn show(interest: &Interest) -> impl IntoIterator<Item = Value> {
        let event_types = match interest {
            Interest::Webhook(_) => Value::Null,
            Interest::EventTypes(types) => types.names.iter().map(|name| Value::from(&**name)).collect(),
        };
        let filter = interest.filter();
        let object = filter.and_then(|(_, object)| object);
        [
            interest.webhook().name().into(),
            event_types,
            filter.map(|(kind, _)| kind.number()).into(),
            object.map(|guid| guid.to_string()).into(),
        ]
    }

    fn store(interest: &Interest) -> impl IntoIterator<Item = Cell> {
        let filter = interest.filter();
        let (event_types, object_name) = match interest {
            Interest::Webhook(_) => (None, None),
            Interest::EventTypes(types) => {
                let names: Value = types.names.iter().map(|name| &**name).collect();
                let object_name = types.filter.as_ref().map(|filter| filter.name.to_string());
                (Some(names.to_string()), object_name)
            }
        };
        [
            Cell::Small(Some(interest.webhook().code())),
            Cell::Small(Some(filter.map_or(NO_FILTER, |(kind, _)| kind.number()))),
            Cell::Guid(filter.and_then(|(_, object)| object).map(|object| object.0)),
            Cell::Text(event_types),
            Cell::Text(object_name),
        ]
    }

    fn load(cells: &mut Cells) -> Result<Interest, Corrupt> {
        let webhook = Webhook::coded(required(cells.small()?)?).ok_or(Corrupt("an unknown webhook"))?;
        let kind = ObjectType::numbered(required(cells.small()?)?.into());
        let object = cells.guid()?.map(ObjectGuid);
        let (names, object_name) = (cells.text()?, cells.text()?);
        let Some(names) = names else {
            return Ok(Interest::Webhook(Topic {
                webhook,
                object_type: kind.ok_or(Corrupt("an unknown object type"))?,
                object,
            }));
        };
        let filter = kind.zip(object_name).map(|(kind, name)| ObjectFilter {
            kind,
            name: name.into(),
            object,
        });
        let names = serde_json::from_str(&names).map_err(|_malformed| Corrupt("malformed event types"))?;
        Ok(Interest::EventTypes(Arc::new(TypeInterest { names, filter })))
    }
}

fn object_type_schema() -> Value {
    let enate = |text: fn((ObjectType, &'static str)) -> String, around: &str| {
        let all = ObjectType::ENATE.map(|one| format!("{around}{}{around}", text(one)));
        format!("{}, or that of a registered one.", all.join(", "))
    };
    json!({
        "oneOf": [
            {"type": "integer", "format": "int32", "description": enate(|(kind, _)| kind.number().to_string(), "")},
            {"type": "string", "description": enate(|(_, name)| name.to_owned(), "`")},
        ],
        "description": "An object type: its number or its name.",
        "example": 31,
    })
}

impl Reader<'_> {
    /// Finds what is wrong with the filter, whatever the webhook is.
    fn check_filter(&mut self) {
        match self.get(OBJECT_TYPE) {
            None => {
                self.fault(OBJECT_TYPE, "required", "FilterObjectType is required");
            }
            Some(value) if self.object_type(value).is_none() => {
                self.unknown_object_type();
            }
            Some(_) => {}
        }
        let _noted = self.filter_object();
    }

    fn unknown_object_type(&mut self) -> Faulty {
        self.fault(OBJECT_TYPE, "one_of", no_object_type())
    }

    fn topic(&mut self, webhook: Webhook) -> Result<Topic, Faulty> {
        let object_type = self.topic_object_type(webhook);
        let object = self.topic_object(webhook);
        Ok(Topic {
            webhook,
            object_type: object_type?,
            object: object?,
        })
    }

    /// An interest in event types. Those in `held` may be archived since.
    fn type_interest(&mut self, names: &Value, held: &[Box<str>]) -> Result<Interest, Faulty> {
        let names = match names.as_array() {
            Some(names) if (1..=MOST).contains(&names.len()) => names,
            _ => {
                let detail =
                    format!("EventTypes must be an array of 1 to {MOST} names of event types, or prefixes and *");
                return Err(self.fault(EVENT_TYPES, "array", detail));
            }
        };
        let is_kept = self.is_kept(EVENT_TYPES);
        let mut read: Vec<Box<str>> = Vec::with_capacity(names.len());
        let mut faulty = None;
        for (n, name) in names.iter().enumerate() {
            let checked = match name.as_str() {
                None => Err(("text", format!("each of {EVENT_TYPES} must be text"))),
                Some(name) if read.iter().any(|known| **known == *name) => {
                    Err(("unique", format!("{name} is named more than once")))
                }
                Some(name) if is_kept || held.iter().any(|held| **held == *name) => Ok(name),
                Some(name) => self.type_name(name).map(|()| name),
            };
            match checked {
                Ok(name) => read.push(name.into()),
                Err((rule, detail)) => faulty = Some(self.fault_at(&format!("/{EVENT_TYPES}/{n}"), rule, detail)),
            }
        }
        let filter = self.object_filter()?;
        match faulty {
            None => Ok(Interest::EventTypes(Arc::new(TypeInterest { names: read, filter }))),
            Some(faulty) => Err(faulty),
        }
    }

    /// Whether a subscription may name it.
    fn type_name(&self, name: &str) -> Result<(), (&'static str, String)> {
        if let Some(prefix) = name.strip_suffix('*') {
            let is_fit = prefix.is_empty() || is_name(prefix);
            let wrong = || {
                let detail = format!("{name} must be what names begin with, and * at the end alone");
                ("name", detail)
            };
            return is_fit.then_some(()).ok_or_else(wrong);
        }
        let Some(kind) = self.catalogue.event_type(name) else {
            if name.contains('*') {
                let shown: String = name.chars().take(MAX_NAME_CHARS).collect();
                return Err((
                    "name",
                    format!("{shown}: * goes at the end, behind what names begin with"),
                ));
            }
            return Err(("event_type", no_event_type(name)));
        };
        let spec = self.catalogue.registered(kind.name());
        if spec.is_some_and(|spec| spec.draft.archived) {
            return Err(("archived", format!("{name} is archived: it takes no new subscriptions")));
        }
        Ok(())
    }

    /// The filter of a subscription to event types, if it has one.
    fn object_filter(&mut self) -> Result<Option<ObjectFilter>, Faulty> {
        let object = self.filter_object()?;
        let Some(value) = self.get(OBJECT_TYPE) else {
            if object.is_some() {
                let detail = "a FilterObjectGUID needs a FilterObjectType";
                return Err(self.fault(OBJECT_TYPE, "required", detail));
            }
            return Ok(None);
        };
        let kind = self.object_type(value);
        let name = kind.and_then(|kind| self.catalogue.object_name(kind));
        let (Some(kind), Some(name)) = (kind, name) else {
            return Err(self.unknown_object_type());
        };
        let name = name.into();
        Ok(Some(ObjectFilter { kind, name, object }))
    }

    fn object_type(&self, value: &Value) -> Option<ObjectType> {
        match value {
            Value::Number(number) => self.catalogue.object_numbered(number.as_i64()?),
            Value::String(name) => self.catalogue.object_type(name),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        }
    }

    fn topic_object_type(&mut self, webhook: Webhook) -> Result<ObjectType, Faulty> {
        let Some(value) = self.get(OBJECT_TYPE) else {
            return Err(self.fault(OBJECT_TYPE, "required", "FilterObjectType is required"));
        };
        let Some(object_type) = self.object_type(value) else {
            return Err(self.unknown_object_type());
        };
        if !webhook.filter_types().contains(&object_type) {
            let confused = object_type == ObjectType::PACKET && webhook.filter_types().contains(&ObjectType::SCHEDULE);
            let hint = if confused {
                "; 81 is Packet, a Schedule is 260"
            } else {
                ""
            };
            let allowed = describe(webhook.filter_types().iter().copied());
            let detail = format!("{} filters by one of {allowed}{hint}", webhook.name());
            return Err(self.fault(OBJECT_TYPE, "one_of", detail));
        }
        Ok(object_type)
    }

    /// The GUID of the filter, if it is given. Absent, null, empty and all zeros are all no GUID.
    fn filter_object(&mut self) -> Result<Option<ObjectGuid>, Faulty> {
        match self.get(OBJECT) {
            None => Ok(None),
            Some(Value::String(text)) if text.is_empty() => Ok(None),
            Some(value) => {
                let Some(Ok(guid)) = value.as_str().map(parse_guid) else {
                    return Err(self.fault(OBJECT, "guid", "FilterObjectGUID must be a GUID"));
                };
                Ok(Some(ObjectGuid(guid)).filter(|guid| !guid.0.is_nil()))
            }
        }
    }

    /// The GUID of the filter, by the rule of the webhook.
    fn topic_object(&mut self, webhook: Webhook) -> Result<Option<ObjectGuid>, Faulty> {
        let guid = self.filter_object()?;
        let name = webhook.name();
        if webhook.filters_by_guid() && guid.is_none() {
            return Err(self.fault(OBJECT, "required", format!("{name} needs a FilterObjectGUID")));
        }
        if !webhook.filters_by_guid() && guid.is_some() {
            let detail = format!("{name} filters by type alone; leave FilterObjectGUID empty");
            return Err(self.fault(OBJECT, "empty", detail));
        }
        Ok(guid)
    }
}

/// The words for an event type that is not there, which `EventTypes` names.
pub fn no_event_type(name: &str) -> String {
    let shown: String = name.chars().take(MAX_NAME_CHARS).collect();
    format!("there is no event type {shown}; GET /v1/event-types lists all")
}

/// The words for an object type that is not there, which `FilterObjectType` names.
pub fn no_object_type() -> String {
    let enate = describe(ObjectType::ENATE.into_iter().map(|(kind, _)| kind));
    format!("FilterObjectType must be one of {enate}, or a registered one; GET /v1/object-types lists all")
}

/// Enate's object types with their numbers, in words.
fn describe(kinds: impl Iterator<Item = ObjectType>) -> String {
    let kinds: Vec<_> = kinds
        .map(|kind| format!("{} {}", kind.number(), kind.enate_name().unwrap_or_default()))
        .collect();
    kinds.join(", ")
}

#[cfg(test)]
mod tests {
    use crate::address::EgressPolicy;
    use crate::catalogue::Catalogue;
    use crate::subscription::parse;
    use serde_json::{Value, json};

    #[test]
    fn a_fault_in_a_list_says_where_it_is_and_in_which_list() {
        let faults = |field: &str, value: Value| {
            let mut body = json!({"EventTypes": ["*"], "SubscriberURL": "https://a.example"});
            body[field] = value;
            parse(&body, &Catalogue::default(), &EgressPolicy::default()).unwrap_err()
        };
        for (field, value, place, words) in [
            ("EventTypes", json!([5]), 0, "EventTypes"),
            ("EventTypes", json!(["a*b"]), 0, "* goes at the end"),
            ("EventTypes", json!(["a*b*"]), 0, "* at the end"),
            ("Signatures", json!(["v2"]), 0, "Signatures"),
            ("Signatures", json!(["v1", "v1"]), 1, "Signatures"),
        ] {
            let faults = faults(field, value);
            assert_eq!(faults[0].pointer, format!("/{field}/{place}"));
            assert!(faults[0].detail.contains(words), "{faults:?}");
        }
    }
}
