//! The catalogue: which event types, object types and webhooks there are, and what their messages hold.
//!
//! Enate's are tables in the code. Others are registered at Herald's start ([`packs`]) and while it runs, and are rows of
//! the ledger; [`Catalogue`] has them as they are at one version of the registry.

mod attribute;
mod autotask;
mod enate;
mod enneo;
mod fields;
mod object;
mod pack;
mod registered;
mod schema;

pub use attribute::{DEFINED_ATTRIBUTES, attribute_of};
pub use enate::{Added, EnateEvent, ObjectRule, RESERVED_FIELDS, Webhook};
pub use fields::{Field, FieldKind};
pub use object::{FIRST_REGISTERED, ObjectType};
pub use pack::PackType;
pub use registered::{
    EventTypeDraft, EventTypeSpec, MAX_EVENT_TYPES, MAX_NAME_CHARS, MAX_OBJECT_TYPES, ObjectTypeSpec, is_name,
    read_event_type, read_object_type,
};
pub use schema::{MAX_SCHEMA_BYTES, Schema};

use std::collections::{BTreeMap, HashMap};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// The event types of the packs `autotask` and `enneo`, which are registered at a process's start.
pub fn packs() -> impl Iterator<Item = &'static PackType> {
    autotask::TYPES.iter().chain(&enneo::TYPES)
}

/// What happened; the `Type` of an event.
#[derive(Debug, Clone)]
pub enum EventType {
    /// One of Enate's.
    Enate(EnateEvent),
    /// One that was registered.
    Registered(Arc<RegisteredType>),
}

/// The identity of a registered event type. Neither part of it changes, nor is either used again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisteredType {
    /// The number by which the ledger keeps it, from [`FIRST_REGISTERED`].
    pub code: i16,
    /// The name in `Type`.
    pub name: Box<str>,
}

impl EventType {
    /// The name in `Type`.
    pub fn name(&self) -> &str {
        match self {
            Self::Enate(event) => event.name(),
            Self::Registered(registered) => &registered.name,
        }
    }

    /// The number by which the ledger keeps it; never reused.
    pub fn code(&self) -> i16 {
        match self {
            Self::Enate(event) => event.code(),
            Self::Registered(registered) => registered.code,
        }
    }

    /// The key under which it is published to RabbitMQ: of a registered type its name.
    pub fn routing_key(&self) -> &str {
        match self {
            Self::Enate(event) => event.routing_key(),
            Self::Registered(registered) => &registered.name,
        }
    }

    /// What it is called in metrics: its name if it is one of Enate's or of a pack's, else `other`, because there may be
    /// thousands.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Enate(event) => event.name(),
            Self::Registered(registered) => {
                let of_pack = packs().find(|kind| *kind.name == *registered.name);
                of_pack.map_or(Self::OTHER, |kind| kind.name)
            }
        }
    }

    /// What the types that an operator registered are called in metrics.
    pub const OTHER: &str = "other";

    /// Every [`EventType::label`].
    pub fn labels() -> impl Iterator<Item = &'static str> {
        let enate = EnateEvent::ALL.into_iter().map(EnateEvent::name);
        enate.chain(packs().map(|kind| kind.name)).chain([Self::OTHER])
    }

    /// Which one of Enate's it is, if it is one.
    pub fn enate(&self) -> Option<EnateEvent> {
        match self {
            Self::Enate(event) => Some(*event),
            Self::Registered(_) => None,
        }
    }
}

impl From<EnateEvent> for EventType {
    fn from(event: EnateEvent) -> Self {
        Self::Enate(event)
    }
}

impl PartialEq for EventType {
    fn eq(&self, other: &Self) -> bool {
        self.code() == other.code()
    }
}

impl Eq for EventType {}

impl Hash for EventType {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.code().hash(state);
    }
}

/// What is registered, at one version of the registry.
#[derive(Debug, Clone, Default)]
pub struct Catalogue {
    /// By name; deleted ones too, because events of theirs may still be on their way.
    event_types: HashMap<Box<str>, Arc<EventTypeSpec>>,
    objects: HashMap<Box<str>, ObjectType>,
    names: HashMap<ObjectType, Box<str>>,
    /// The deleted object types: a name keeps its number, and permissions may still have it.
    former_objects: HashMap<Box<str>, ObjectType>,
    /// The registered object types by the attribute that names them in a CloudEvent; of several the first counts.
    attributes: HashMap<String, BTreeMap<ObjectType, Box<str>>>,
}

impl Catalogue {
    /// The event type of that name, unless it is deleted.
    pub fn event_type(&self, name: &str) -> Option<EventType> {
        let enate = EnateEvent::named(name).map(EventType::Enate);
        enate.or_else(|| self.registered(name).map(|spec| spec.kind.clone()))
    }

    /// The event type that there is or was of that name: an event of it was accepted.
    pub fn former_event_type(&self, name: &str) -> Option<EventType> {
        let enate = EnateEvent::named(name).map(EventType::Enate);
        enate.or_else(|| self.event_types.get(name).map(|spec| spec.kind.clone()))
    }

    /// What was registered under that name, unless it is deleted.
    pub fn registered(&self, name: &str) -> Option<&Arc<EventTypeSpec>> {
        self.event_types.get(name).filter(|spec| !spec.deleted)
    }

    /// What was registered and is not deleted, in no order.
    pub fn all_registered(&self) -> impl Iterator<Item = &Arc<EventTypeSpec>> {
        self.event_types.values().filter(|spec| !spec.deleted)
    }

    /// The object type of that name.
    pub fn object_type(&self, name: &str) -> Option<ObjectType> {
        ObjectType::enate_named(name).or_else(|| self.objects.get(name).copied())
    }

    /// The object type that there is or was of that name.
    pub fn former_object_type(&self, name: &str) -> Option<ObjectType> {
        self.object_type(name)
            .or_else(|| self.former_objects.get(name).copied())
    }

    /// The name of the registered object type that an attribute of a CloudEvent names. Where two have names that differ
    /// only in case or signs, it is the one with the lower number.
    pub fn object_of_attribute(&self, attribute: &str) -> Option<&str> {
        let (_, name) = self.attributes.get(attribute)?.first_key_value()?;
        Some(name)
    }

    /// The name of an object type.
    pub fn object_name(&self, kind: ObjectType) -> Option<&str> {
        kind.enate_name().or_else(|| self.names.get(&kind).map(|name| &**name))
    }

    /// The object type of that number, if there is one.
    pub fn object_numbered(&self, number: i64) -> Option<ObjectType> {
        ObjectType::numbered(number).filter(|kind| self.object_name(*kind).is_some())
    }

    /// The object types of which an event of that type must name one object each, or one object of one of them. Nothing
    /// filters by Communication, so it is not among them.
    pub fn objects_of(&self, kind: &EventType) -> Vec<ObjectType> {
        let known = |name: &str| self.object_type(name);
        match kind {
            EventType::Enate(event) => match event.objects() {
                ObjectRule::All(names) | ObjectRule::ExactlyOne(names) => {
                    names.iter().filter_map(|name| known(name)).collect()
                }
            },
            EventType::Registered(registered) => {
                let names = self.registered(&registered.name).map(|spec| &spec.draft.objects);
                names.into_iter().flatten().filter_map(|name| known(name)).collect()
            }
        }
    }

    /// The object types that were registered, by number.
    pub fn registered_objects(&self) -> Vec<(ObjectType, &str)> {
        let mut all: Vec<_> = self.names.iter().map(|(kind, name)| (*kind, &**name)).collect();
        all.sort_unstable();
        all
    }

    /// Takes an event type as it is now.
    pub fn put_event_type(&mut self, spec: EventTypeSpec) {
        self.event_types.insert(spec.kind.name().into(), Arc::new(spec));
    }

    /// Takes an object type as it is now.
    pub fn put_object_type(&mut self, spec: ObjectTypeSpec) {
        if let Some(attribute) = attribute_of(&spec.name) {
            let named = self.attributes.entry(attribute).or_default();
            if spec.deleted {
                named.remove(&spec.kind);
            } else {
                named.insert(spec.kind, spec.name.clone());
            }
        }
        if spec.deleted {
            self.objects.remove(&spec.name);
            self.names.remove(&spec.kind);
            self.former_objects.insert(spec.name, spec.kind);
        } else {
            self.former_objects.remove(&spec.name);
            self.objects.insert(spec.name.clone(), spec.kind);
            self.names.insert(spec.kind, spec.name);
        }
    }
}
