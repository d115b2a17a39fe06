//! Which subscriptions an event matches.
//!
//! An event leads to a few keys, each a hash look-up: at most two of Enate's topics or four filters of one, and of
//! subscriptions to event types its type and each length of prefix that is subscribed to, with each object that it
//! names. So the cost of matching grows with the subscriptions that match and not with those that do not.

use crate::catalogue::{EnateEvent, EventType, ObjectType, Webhook};
use crate::event::Objects;
use crate::id::{ObjectGuid, SubscriptionId};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// What a subscription listens to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Interest {
    /// One of Enate's webhooks, with its filter.
    Webhook(Topic),
    /// Events of certain types.
    EventTypes(Arc<TypeInterest>),
}

impl Interest {
    /// The subscription's `Webhook`.
    pub fn webhook(&self) -> Webhook {
        match self {
            Self::Webhook(topic) => topic.webhook,
            Self::EventTypes(_) => Webhook::Events,
        }
    }

    /// The names and prefixes of event types; none of one of Enate's webhooks.
    pub fn event_types(&self) -> &[Box<str>] {
        match self {
            Self::Webhook(_) => &[],
            Self::EventTypes(types) => &types.names,
        }
    }

    /// The type and the object that it filters by, as far as it does.
    pub fn filter(&self) -> Option<(ObjectType, Option<ObjectGuid>)> {
        match self {
            Self::Webhook(topic) => Some((topic.object_type, topic.object)),
            Self::EventTypes(types) => types.filter.as_ref().map(|filter| (filter.kind, filter.object)),
        }
    }
}

/// One of Enate's webhooks, with its filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic {
    /// The `Webhook` that the subscription names.
    pub webhook: Webhook,
    /// Its `FilterObjectType`.
    pub object_type: ObjectType,
    /// Its `FilterObjectGUID`, for the webhooks that have one.
    pub object: Option<ObjectGuid>,
}

/// Event types by their names, and perhaps an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeInterest {
    /// `EventTypes`: names, or what names begin with and a `*`.
    pub names: Vec<Box<str>>,
    /// Only events that name such an object.
    pub filter: Option<ObjectFilter>,
}

/// What an event must name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectFilter {
    /// The `FilterObjectType`.
    pub kind: ObjectType,
    /// Its name in an event's `Objects`; it is the same as long as there is a subscription with it.
    pub name: Box<str>,
    /// The `FilterObjectGUID`; none for any object of the type.
    pub object: Option<ObjectGuid>,
}

/// What the names of Herald's own events begin with. Only a prefix that begins so includes them.
const OWN: &str = "Herald.";

/// The topics that one of Enate's events belongs to.
fn topics_of(kind: EnateEvent, objects: &Objects) -> impl Iterator<Item = Topic> {
    let specific = |webhook, object_type| {
        let object = objects.of_type(object_type)?;
        Some(Topic {
            webhook,
            object_type,
            object: Some(object),
        })
    };
    let of_type = |webhook| {
        let (object_type, _) = objects.business_object()?;
        Some(Topic {
            webhook,
            object_type,
            object: None,
        })
    };
    let topics = match kind {
        EnateEvent::PacketCreated => [
            specific(Webhook::PacketCreated, ObjectType::COMPANY),
            specific(Webhook::PacketCreated, ObjectType::CONTRACT),
            specific(Webhook::PacketCreated, ObjectType::SERVICE),
            specific(Webhook::PacketCreated, ObjectType::PROCESS),
        ],
        EnateEvent::PacketUpdated => [specific(Webhook::PacketUpdated, ObjectType::PACKET), None, None, None],
        EnateEvent::NewCommunication => [
            specific(Webhook::NewCommunication, ObjectType::PACKET),
            None,
            None,
            None,
        ],
        EnateEvent::BusinessObjectCreated => [of_type(Webhook::BusinessObjectCreated), None, None, None],
        EnateEvent::BusinessObjectUpdated => {
            let object = objects.business_object();
            [
                of_type(Webhook::BusinessObjectUpdated),
                object.and_then(|(object_type, _)| specific(Webhook::SpecificBusinessObjectUpdated, object_type)),
                None,
                None,
            ]
        }
    };
    topics.into_iter().flatten()
}

/// The active subscriptions by what they listen to.
#[derive(Debug, Clone, Default)]
pub struct Index {
    by_topic: HashMap<Topic, Listeners>,
    by_name: HashMap<Box<str>, ByObject>,
    by_prefix: HashMap<Box<str>, ByObject>,
    /// How many prefixes there are of each length, in bytes.
    lengths: BTreeMap<usize, usize>,
}

/// Those who listen to one name or prefix.
#[derive(Debug, Clone, Default)]
struct ByObject {
    any: Option<Listeners>,
    /// By the name of the object's type, and the object, or none for every one.
    filtered: HashMap<Box<str>, HashMap<Option<ObjectGuid>, Listeners>>,
}

impl ByObject {
    fn add(&mut self, filter: Option<&ObjectFilter>, subscription: SubscriptionId) {
        match filter {
            None => add_to(&mut self.any, subscription),
            Some(filter) => {
                let of_type = self.filtered.entry(filter.name.clone()).or_default();
                let listeners = of_type.entry(filter.object);
                listeners
                    .and_modify(|listeners| listeners.add(subscription))
                    .or_insert(Listeners::One(subscription));
            }
        }
    }

    /// Removes a subscription; whether nobody is left.
    fn remove(&mut self, filter: Option<&ObjectFilter>, subscription: SubscriptionId) -> bool {
        match filter {
            None => {
                if self.any.as_mut().is_some_and(|any| any.remove(subscription)) {
                    self.any = None;
                }
            }
            Some(filter) => {
                if let Some(of_type) = self.filtered.get_mut(&filter.name) {
                    if of_type
                        .get_mut(&filter.object)
                        .is_some_and(|it| it.remove(subscription))
                    {
                        of_type.remove(&filter.object);
                    }
                    if of_type.is_empty() {
                        self.filtered.remove(&filter.name);
                    }
                }
            }
        }
        self.any.is_none() && self.filtered.is_empty()
    }

    fn matching<'a>(&'a self, objects: &'a Objects) -> impl Iterator<Item = SubscriptionId> + 'a {
        let named = objects.iter().filter(|_| !self.filtered.is_empty());
        let of_type = named.filter_map(|(name, guid)| Some((self.filtered.get(name)?, guid)));
        let filtered = of_type.flat_map(|(of_type, guid)| [of_type.get(&None), of_type.get(&Some(guid))]);
        let all = self.any.iter().chain(filtered.flatten());
        all.flat_map(Listeners::ids)
    }
}

fn add_to(place: &mut Option<Listeners>, subscription: SubscriptionId) {
    match place {
        Some(listeners) => listeners.add(subscription),
        None => *place = Some(Listeners::One(subscription)),
    }
}

// Nearly every topic has one listener; a set for each would cost a million allocations. A topic may also have
// a million, so adding and removing one must not copy the others.
#[derive(Debug, Clone)]
enum Listeners {
    One(SubscriptionId),
    Many(BTreeSet<SubscriptionId>),
}

impl Listeners {
    fn add(&mut self, subscription: SubscriptionId) {
        match self {
            Self::One(one) if *one == subscription => {}
            Self::One(one) => *self = Self::Many(BTreeSet::from([*one, subscription])),
            Self::Many(many) => drop(many.insert(subscription)),
        }
    }

    /// Removes a subscription; whether none is left.
    fn remove(&mut self, subscription: SubscriptionId) -> bool {
        match self {
            Self::One(one) => *one == subscription,
            Self::Many(many) => {
                many.remove(&subscription);
                many.is_empty()
            }
        }
    }

    fn ids(&self) -> impl Iterator<Item = SubscriptionId> {
        let (one, many) = match self {
            Self::One(one) => (Some(*one), None),
            Self::Many(many) => (None, Some(many)),
        };
        one.into_iter().chain(many.into_iter().flatten().copied())
    }
}

impl Index {
    /// Adds a subscription; adding it twice is adding it once.
    pub fn add(&mut self, interest: &Interest, subscription: SubscriptionId) {
        match interest {
            Interest::Webhook(topic) => {
                self.by_topic
                    .entry(*topic)
                    .and_modify(|listeners| listeners.add(subscription))
                    .or_insert(Listeners::One(subscription));
            }
            Interest::EventTypes(types) => {
                let filter = types.filter.as_ref();
                for name in &types.names {
                    let Some(prefix) = name.strip_suffix('*') else {
                        self.by_name.entry(name.clone()).or_default().add(filter, subscription);
                        continue;
                    };
                    if !self.by_prefix.contains_key(prefix) {
                        *self.lengths.entry(prefix.len()).or_default() += 1;
                    }
                    self.by_prefix
                        .entry(prefix.into())
                        .or_default()
                        .add(filter, subscription);
                }
            }
        }
    }

    /// Removes a subscription that was added with this interest.
    pub fn remove(&mut self, interest: &Interest, subscription: SubscriptionId) {
        match interest {
            Interest::Webhook(topic) => {
                if let Some(listeners) = self.by_topic.get_mut(topic)
                    && listeners.remove(subscription)
                {
                    self.by_topic.remove(topic);
                }
            }
            Interest::EventTypes(types) => {
                for name in &types.names {
                    let (map, key) = match name.strip_suffix('*') {
                        Some(prefix) => (&mut self.by_prefix, prefix),
                        None => (&mut self.by_name, &**name),
                    };
                    let is_prefix = key.len() < name.len();
                    let is_empty = map
                        .get_mut(key)
                        .is_some_and(|it| it.remove(types.filter.as_ref(), subscription));
                    if is_empty {
                        map.remove(key);
                        if is_prefix {
                            self.forget_length(key.len());
                        }
                    }
                }
            }
        }
    }

    fn forget_length(&mut self, length: usize) {
        if let Some(count) = self.lengths.get_mut(&length) {
            *count -= 1;
            if *count == 0 {
                self.lengths.remove(&length);
            }
        }
    }

    /// The subscriptions that an event matches, with the webhook that each asked for, ordered by
    /// GUID so that a large fan-out can be cut and continued.
    pub fn matches(&self, kind: &EventType, objects: &Objects) -> Vec<(SubscriptionId, Webhook)> {
        let topics = kind.enate().into_iter().flat_map(|event| topics_of(event, objects));
        let mut matched: Vec<_> = topics
            .filter_map(|topic| Some((topic.webhook, self.by_topic.get(&topic)?)))
            .flat_map(|(webhook, listeners)| listeners.ids().map(move |id| (id, webhook)))
            .collect();
        let named = self.by_name.get(kind.name());
        let by_type = named.into_iter().chain(self.prefixes_of(kind.name()));
        matched.extend(
            by_type
                .flat_map(|it| it.matching(objects))
                .map(|id| (id, Webhook::Events)),
        );
        matched.sort_unstable();
        // Several names of one subscription may mean the same event.
        matched.dedup();
        matched
    }

    fn prefixes_of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a ByObject> {
        let least = if name.starts_with(OWN) { OWN.len() } else { 0 };
        let lengths = self.lengths.range(least..=name.len().max(least));
        lengths.filter_map(|(length, _)| self.by_prefix.get(name.get(..*length)?))
    }
}

/// Subscriptions that changed since an index was made. It brings what was matched by that index up to date, so
/// that dispatch need not wait until the index has the changes.
#[derive(Debug, Clone, Default)]
pub struct Amendment {
    changed: HashSet<SubscriptionId>,
    active: Index,
}

impl Amendment {
    /// Takes the changed subscriptions, each with what it listens to now; without that if it is inactive or deleted.
    pub fn new(changes: impl IntoIterator<Item = (SubscriptionId, Option<Interest>)>) -> Self {
        let mut amendment = Self::default();
        for (subscription, interest) in changes {
            amendment.changed.insert(subscription);
            if let Some(interest) = interest {
                amendment.active.add(&interest, subscription);
            }
        }
        amendment
    }

    /// Makes `matches` what [`Index::matches`] gives for the event once the index has the changes.
    pub fn apply(&self, kind: &EventType, objects: &Objects, matches: &mut Vec<(SubscriptionId, Webhook)>) {
        if self.changed.is_empty() {
            return;
        }
        matches.retain(|(subscription, _)| !self.changed.contains(subscription));
        let added = self.active.matches(kind, objects);
        if !added.is_empty() {
            matches.extend(added);
            matches.sort_unstable();
        }
    }
}

#[cfg(test)]
mod tests;
