//! Which subscriptions an event matches.
//!
//! An event leads to at most four keys, each a hash look-up, so the cost of matching grows with the
//! subscriptions that match and not with those that do not.

use crate::catalogue::{EventType, ObjectType, Webhook};
use crate::event::Objects;
use crate::id::{ObjectGuid, SubscriptionId};
use std::collections::HashMap;

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

// Nearly every topic has one listener; a Vec for each would cost a million allocations.
#[derive(Debug, Clone)]
enum Listeners {
    One(SubscriptionId),
    Many(Vec<SubscriptionId>),
}

impl Listeners {
    fn as_slice(&self) -> &[SubscriptionId] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}

impl Index {
    /// Adds a subscription; adding it twice is adding it once.
    pub fn add(&mut self, topic: Topic, subscription: SubscriptionId) {
        let listeners = self.by_topic.entry(topic).or_insert(Listeners::One(subscription));
        if listeners.as_slice().contains(&subscription) {
            return;
        }
        let mut many = std::mem::replace(listeners, Listeners::One(subscription))
            .as_slice()
            .to_vec();
        many.push(subscription);
        *listeners = Listeners::Many(many);
    }

    /// Removes a subscription.
    pub fn remove(&mut self, topic: Topic, subscription: SubscriptionId) {
        let Some(listeners) = self.by_topic.get_mut(&topic) else {
            return;
        };
        let left: Vec<_> = listeners
            .as_slice()
            .iter()
            .copied()
            .filter(|other| *other != subscription)
            .collect();
        match left.as_slice() {
            [] => drop(self.by_topic.remove(&topic)),
            [one] => *listeners = Listeners::One(*one),
            _ => *listeners = Listeners::Many(left),
        }
    }

    /// The subscriptions that an event matches, with the webhook that each asked for, ordered by
    /// GUID so that a large fan-out can be cut and continued.
    pub fn matches(&self, kind: EventType, objects: &Objects) -> Vec<(SubscriptionId, Webhook)> {
        let mut matched: Vec<_> = topics_of(kind, objects)
            .filter_map(|topic| Some((topic.webhook, self.by_topic.get(&topic)?)))
            .flat_map(|(webhook, listeners)| listeners.as_slice().iter().map(move |id| (*id, webhook)))
            .collect();
        matched.sort_unstable();
        matched
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
    }
}
