//! Which subscriptions an event matches.
//!
//! An event leads to at most four keys, each a hash look-up, so the cost of matching grows with the
//! subscriptions that match and not with those that do not.

use crate::catalogue::{EventType, ObjectType, Webhook};
use crate::event::Objects;
use crate::id::{ObjectGuid, SubscriptionId};
use std::collections::{BTreeSet, HashMap, HashSet};

/// What a subscription listens to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic {
    /// Its `Webhook`.
    pub webhook: Webhook,
    /// Its `FilterObjectType`.
    pub object_type: ObjectType,
    /// Its `FilterObjectGUID`, for the webhooks that have one.
    pub object: Option<ObjectGuid>,
}

/// The topics that an event belongs to.
pub fn topics_of(kind: EventType, objects: &Objects) -> impl Iterator<Item = Topic> {
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
        EventType::PacketCreated => [
            specific(Webhook::PacketCreated, ObjectType::Company),
            specific(Webhook::PacketCreated, ObjectType::Contract),
            specific(Webhook::PacketCreated, ObjectType::Service),
            specific(Webhook::PacketCreated, ObjectType::Process),
        ],
        EventType::PacketUpdated => [specific(Webhook::PacketUpdated, ObjectType::Packet), None, None, None],
        EventType::NewCommunication => [
            specific(Webhook::NewCommunication, ObjectType::Packet),
            None,
            None,
            None,
        ],
        EventType::BusinessObjectCreated => [of_type(Webhook::BusinessObjectCreated), None, None, None],
        EventType::BusinessObjectUpdated => {
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

/// The active subscriptions by topic.
#[derive(Debug, Clone, Default)]
pub struct Index {
    by_topic: HashMap<Topic, Listeners>,
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
    pub fn add(&mut self, topic: Topic, subscription: SubscriptionId) {
        self.by_topic
            .entry(topic)
            .and_modify(|listeners| listeners.add(subscription))
            .or_insert(Listeners::One(subscription));
    }

    /// Removes a subscription.
    pub fn remove(&mut self, topic: Topic, subscription: SubscriptionId) {
        if let Some(listeners) = self.by_topic.get_mut(&topic)
            && listeners.remove(subscription)
        {
            self.by_topic.remove(&topic);
        }
    }

    /// The subscriptions that an event matches, with the webhook that each asked for, ordered by
    /// GUID so that a large fan-out can be cut and continued.
    pub fn matches(&self, kind: EventType, objects: &Objects) -> Vec<(SubscriptionId, Webhook)> {
        let mut matched: Vec<_> = topics_of(kind, objects)
            .filter_map(|topic| Some((topic.webhook, self.by_topic.get(&topic)?)))
            .flat_map(|(webhook, listeners)| listeners.ids().map(move |id| (id, webhook)))
            .collect();
        matched.sort_unstable();
        matched
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
    /// Takes the changed subscriptions, each with the topic that it listens to now; without one if it is inactive
    /// or deleted.
    pub fn new(changes: impl IntoIterator<Item = (SubscriptionId, Option<Topic>)>) -> Self {
        let mut amendment = Self::default();
        for (subscription, topic) in changes {
            amendment.changed.insert(subscription);
            if let Some(topic) = topic {
                amendment.active.add(topic, subscription);
            }
        }
        amendment
    }

    /// Makes `matches` what [`Index::matches`] gives for the event once the index has the changes.
    pub fn apply(&self, kind: EventType, objects: &Objects, matches: &mut Vec<(SubscriptionId, Webhook)>) {
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
mod tests {
    use super::*;
    use proptest::prelude::*;
    use uuid::Uuid;

    fn guid(n: u8) -> ObjectGuid {
        ObjectGuid(Uuid::from_u128(n.into()))
    }

    /// The rules once more, written as the public page has them: subscription by subscription.
    fn fires(topic: Topic, kind: EventType, objects: &Objects) -> bool {
        let names = topic.object.is_some() && objects.of_type(topic.object_type) == topic.object;
        match topic.webhook {
            Webhook::PacketCreated => kind == EventType::PacketCreated && names,
            Webhook::PacketUpdated => kind == EventType::PacketUpdated && names,
            Webhook::NewCommunication => kind == EventType::NewCommunication && names,
            Webhook::BusinessObjectCreated => {
                kind == EventType::BusinessObjectCreated && objects.of_type(topic.object_type).is_some()
            }
            Webhook::BusinessObjectUpdated => {
                kind == EventType::BusinessObjectUpdated && objects.of_type(topic.object_type).is_some()
            }
            Webhook::SpecificBusinessObjectUpdated => kind == EventType::BusinessObjectUpdated && names,
        }
    }

    fn topic() -> impl Strategy<Value = Topic> {
        (0usize..6, any::<prop::sample::Index>(), 0u8..3).prop_map(|(webhook, kind, object)| {
            let webhook = Webhook::ALL[webhook];
            let object_type = *kind.get(webhook.filter_types());
            Topic {
                webhook,
                object_type,
                object: webhook.filters_by_guid().then(|| guid(object)),
            }
        })
    }

    fn event() -> impl Strategy<Value = (EventType, Objects)> {
        (0usize..5, any::<[Option<bool>; 5]>(), any::<bool>()).prop_map(|(kind, given, company)| {
            let object = |n: usize| given[n].map(|which| guid(which.into()));
            let kind = EventType::ALL[kind];
            let business = matches!(
                kind,
                EventType::BusinessObjectCreated | EventType::BusinessObjectUpdated
            );
            let one = Some(object(0).unwrap_or_else(|| guid(2)));
            let objects = Objects {
                company: if business { one.filter(|_| company) } else { object(0) },
                schedule: if business { one.filter(|_| !company) } else { None },
                contract: object(1),
                service: object(2),
                process: object(3),
                packet: object(4),
                communication: None,
            };
            (kind, objects)
        })
    }

    proptest! {
        #[test]
        fn the_index_finds_what_a_scan_finds(topics in prop::collection::vec(topic(), 0..40), removed in prop::collection::vec(any::<bool>(), 40), event in event()) {
            let (kind, objects) = event;
            let subscriptions: Vec<_> = topics.into_iter().enumerate().map(|(n, topic)| (topic, SubscriptionId(Uuid::from_u128(n as u128)))).collect();
            let mut index = Index::default();
            for (topic, id) in &subscriptions {
                index.add(*topic, *id);
                index.add(*topic, *id);
            }
            for ((topic, id), removed) in subscriptions.iter().zip(&removed) {
                if *removed { index.remove(*topic, *id); }
            }
            let scanned: Vec<_> = subscriptions.iter().zip(&removed)
                .filter(|((topic, _), removed)| !**removed && fires(*topic, kind, &objects))
                .map(|((topic, id), _)| (*id, topic.webhook)).collect();
            prop_assert_eq!(index.matches(kind, &objects), scanned);
        }

        #[test]
        fn amended_matches_are_those_of_the_index_with_the_changes(
            before in prop::collection::vec(prop::option::of(topic()), 24),
            changes in prop::collection::vec((0u128..32, prop::option::of(topic())), 0..24),
            event in event(),
        ) {
            let (kind, objects) = event;
            let id = |n| SubscriptionId(Uuid::from_u128(n));
            let mut now: HashMap<SubscriptionId, Topic> = before.into_iter().enumerate()
                .filter_map(|(n, topic)| Some((id(n as u128), topic?))).collect();
            let index_of = |topics: &HashMap<SubscriptionId, Topic>| {
                let mut index = Index::default();
                for (id, topic) in topics { index.add(*topic, *id); }
                index
            };
            let mut amended = index_of(&now).matches(kind, &objects);
            let changes: HashMap<_, _> = changes.into_iter().map(|(n, topic)| (id(n), topic)).collect();
            for (id, topic) in &changes {
                match topic {
                    Some(topic) => drop(now.insert(*id, *topic)),
                    None => drop(now.remove(id)),
                }
            }
            Amendment::new(changes).apply(kind, &objects, &mut amended);
            prop_assert_eq!(amended, index_of(&now).matches(kind, &objects));
        }
    }
}
