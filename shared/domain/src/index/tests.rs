use super::*;
use crate::catalogue::RegisteredType;
use proptest::prelude::*;
use uuid::Uuid;

fn guid(n: u8) -> ObjectGuid {
    ObjectGuid(Uuid::from_u128(n.into()))
}

/// Registered types, of which some are prefixes of others.
const REGISTERED: [&str; 4] = ["Invoice", "InvoicePaid", "Packet", "Herald.CallFailed"];

/// Names and prefixes that a subscription may have.
const NAMES: [&str; 9] = [
    "*",
    "Invoice",
    "Invoice*",
    "InvoicePaid",
    "I*",
    "Packet*",
    "PacketUpdated",
    "Herald.*",
    "H*",
];

/// The rules once more, written as the public pages have them: subscription by subscription.
fn fires(interest: &Interest, kind: &EventType, objects: &Objects) -> bool {
    let topic = match interest {
        Interest::Webhook(topic) => topic,
        Interest::EventTypes(types) => {
            let name = kind.name();
            let is_own = name.starts_with("Herald.");
            let means = |wanted: &str| match wanted.strip_suffix('*') {
                None => wanted == name,
                Some(prefix) => name.starts_with(prefix) && (!is_own || prefix.starts_with("Herald.")),
            };
            let passes = |filter: &ObjectFilter| match (filter.object, objects.get(&filter.name)) {
                (_, None) => false,
                (None, Some(_)) => true,
                (wanted, there) => wanted == there,
            };
            return types.names.iter().any(|wanted| means(wanted)) && types.filter.as_ref().is_none_or(passes);
        }
    };
    let Some(kind) = kind.enate() else { return false };
    let names = topic.object.is_some() && objects.of_type(topic.object_type) == topic.object;
    match topic.webhook {
        Webhook::PacketCreated => kind == EnateEvent::PacketCreated && names,
        Webhook::PacketUpdated => kind == EnateEvent::PacketUpdated && names,
        Webhook::NewCommunication => kind == EnateEvent::NewCommunication && names,
        Webhook::BusinessObjectCreated => {
            kind == EnateEvent::BusinessObjectCreated && objects.of_type(topic.object_type).is_some()
        }
        Webhook::BusinessObjectUpdated => {
            kind == EnateEvent::BusinessObjectUpdated && objects.of_type(topic.object_type).is_some()
        }
        Webhook::SpecificBusinessObjectUpdated => kind == EnateEvent::BusinessObjectUpdated && names,
        Webhook::Events => false,
    }
}

fn topic() -> impl Strategy<Value = Interest> {
    (0usize..6, any::<prop::sample::Index>(), 0u8..3).prop_map(|(webhook, kind, object)| {
        let webhook = Webhook::ENATE[webhook];
        let object_type = *kind.get(webhook.filter_types());
        Interest::Webhook(Topic {
            webhook,
            object_type,
            object: webhook.filters_by_guid().then(|| guid(object)),
        })
    })
}

fn types() -> impl Strategy<Value = Interest> {
    let names = prop::collection::vec(prop::sample::select(&NAMES[..]), 1..4);
    let kinds = [
        (ObjectType::COMPANY, "Company"),
        (ObjectType::numbered(1000).unwrap(), "Ticket"),
    ];
    let filter = (prop::sample::select(kinds.to_vec()), prop::option::of(0u8..3));
    (names, prop::option::of(filter)).prop_map(|(names, filter)| {
        let filter = filter.map(|((kind, name), object)| ObjectFilter {
            kind,
            name: name.into(),
            object: object.map(guid),
        });
        let names = names.into_iter().map(Into::into).collect();
        Interest::EventTypes(Arc::new(TypeInterest { names, filter }))
    })
}

fn interest() -> impl Strategy<Value = Interest> {
    prop_oneof![topic(), types()]
}

fn event() -> impl Strategy<Value = (EventType, Objects)> {
    (
        0usize..9,
        any::<[Option<bool>; 5]>(),
        any::<bool>(),
        prop::option::of(0u8..3),
    )
        .prop_map(|(kind, given, company, ticket)| {
            let object = |n: usize| given[n].map(|which| guid(which.into()));
            let kind = match EnateEvent::ALL.get(kind) {
                Some(event) => EventType::Enate(*event),
                None => EventType::Registered(Arc::new(RegisteredType {
                    code: 1000 + i16::try_from(kind).unwrap(),
                    name: REGISTERED[kind - 5].into(),
                })),
            };
            let business = matches!(
                kind.enate(),
                Some(EnateEvent::BusinessObjectCreated | EnateEvent::BusinessObjectUpdated)
            );
            let one = Some(object(0).unwrap_or_else(|| guid(2)));
            let objects = [
                ("Company", if business { one.filter(|_| company) } else { object(0) }),
                ("Schedule", if business { one.filter(|_| !company) } else { None }),
                ("Contract", object(1)),
                ("Service", object(2)),
                ("Process", object(3)),
                ("Packet", object(4)),
                ("Ticket", ticket.map(guid)),
            ];
            let there = objects.into_iter().filter_map(|(name, guid)| Some((name, guid?)));
            (kind, there.collect())
        })
}

/// What many subscriptions may have in common: a webhook with its filter, a name with and without one, a prefix.
fn shared_interests() -> [Interest; 4] {
    let types = |name: &str, filter| {
        let names = vec![name.into()];
        Interest::EventTypes(Arc::new(TypeInterest { names, filter }))
    };
    let topic = Topic {
        webhook: Webhook::PacketCreated,
        object_type: ObjectType::COMPANY,
        object: Some(guid(1)),
    };
    let filter = ObjectFilter {
        kind: ObjectType::COMPANY,
        name: "Company".into(),
        object: Some(guid(1)),
    };
    [
        Interest::Webhook(topic),
        types("PacketCreated", Some(filter)),
        types("PacketCreated", None),
        types("Packet*", None),
    ]
}

/// So many that an index which copied the others at each change would take minutes, and one which does not takes a moment.
const CROWD: u128 = 200_000;

#[test]
fn a_crowd_comes_to_one_topic_and_leaves_it_one_by_one() {
    let kind = EventType::Enate(EnateEvent::PacketCreated);
    let objects = Objects::from([("Company", guid(1)), ("Packet", guid(2))]);
    let id = |n| SubscriptionId(Uuid::from_u128(n));
    // 77,777 and the crowd have no common factor, so each comes once and in no order.
    let shuffled = || (0..CROWD).map(|n| n * 77_777 % CROWD);
    for interest in shared_interests() {
        let mut index = Index::default();
        shuffled().for_each(|n| index.add(&interest, id(n)));
        let matched = index.matches(&kind, &objects);
        let wanted: Vec<_> = (0..CROWD).map(|n| (id(n), interest.webhook())).collect();
        assert_eq!(matched, wanted);
        // As when a subscription of the crowd is changed: out, and in again.
        for n in shuffled() {
            index.remove(&interest, id(n));
            index.add(&interest, id(n));
        }
        assert_eq!(index.matches(&kind, &objects), wanted);
        shuffled().skip(1).for_each(|n| index.remove(&interest, id(n)));
        assert_eq!(index.matches(&kind, &objects), wanted[..1]);
    }
}

proptest! {
    #[test]
    fn the_index_finds_what_a_scan_finds(interests in prop::collection::vec(interest(), 0..40), removed in prop::collection::vec(any::<bool>(), 40), event in event()) {
        let (kind, objects) = event;
        let subscriptions: Vec<_> = interests.into_iter().enumerate().map(|(n, interest)| (interest, SubscriptionId(Uuid::from_u128(n as u128)))).collect();
        let mut index = Index::default();
        for (interest, id) in &subscriptions {
            index.add(interest, *id);
            index.add(interest, *id);
        }
        for ((interest, id), removed) in subscriptions.iter().zip(&removed) {
            if *removed { index.remove(interest, *id); }
        }
        let scanned: Vec<_> = subscriptions.iter().zip(&removed)
            .filter(|((interest, _), removed)| !**removed && fires(interest, &kind, &objects))
            .map(|((interest, id), _)| (*id, interest.webhook())).collect();
        prop_assert_eq!(index.matches(&kind, &objects), scanned);
        for (interest, id) in &subscriptions {
            index.remove(interest, *id);
        }
        let left = (index.by_topic.len(), index.by_name.len(), index.by_prefix.len(), index.lengths.len());
        prop_assert_eq!(left, (0, 0, 0, 0));
    }

    #[test]
    fn amended_matches_are_those_of_the_index_with_the_changes(
        before in prop::collection::vec(prop::option::of(interest()), 24),
        changes in prop::collection::vec((0u128..32, prop::option::of(interest())), 0..24),
        event in event(),
    ) {
        let (kind, objects) = event;
        let id = |n| SubscriptionId(Uuid::from_u128(n));
        let mut now: HashMap<SubscriptionId, Interest> = before.into_iter().enumerate()
            .filter_map(|(n, interest)| Some((id(n as u128), interest?))).collect();
        let index_of = |interests: &HashMap<SubscriptionId, Interest>| {
            let mut index = Index::default();
            for (id, interest) in interests { index.add(interest, *id); }
            index
        };
        let mut amended = index_of(&now).matches(&kind, &objects);
        let changes: HashMap<_, _> = changes.into_iter().map(|(n, interest)| (id(n), interest)).collect();
        for (id, interest) in &changes {
            match interest {
                Some(interest) => drop(now.insert(*id, interest.clone())),
                None => drop(now.remove(id)),
            }
        }
        Amendment::new(changes).apply(&kind, &objects, &mut amended);
        prop_assert_eq!(amended, index_of(&now).matches(&kind, &objects));
    }

    #[test]
    fn one_topic_has_whoever_came_and_did_not_leave(changes in prop::collection::vec((any::<bool>(), 0u128..12), 0..120)) {
        let kind = EventType::Enate(EnateEvent::PacketCreated);
        let objects = Objects::from([("Company", guid(1)), ("Packet", guid(2))]);
        for interest in shared_interests() {
            let (mut index, mut there) = (Index::default(), BTreeSet::new());
            for (comes, n) in &changes {
                let id = SubscriptionId(Uuid::from_u128(*n));
                if *comes {
                    index.add(&interest, id);
                    there.insert(id);
                } else {
                    index.remove(&interest, id);
                    there.remove(&id);
                }
            }
            let wanted: Vec<_> = there.into_iter().map(|id| (id, interest.webhook())).collect();
            prop_assert_eq!(index.matches(&kind, &objects), wanted);
        }
    }
}
