//! What surrounds the workers: the queue with its producers, the subscribers, and who listens to what.

use crate::ensure;
use crate::ledger::{Content, Epoch, Key, ProcessId};
use herald_domain::address::EgressPolicy;
use herald_domain::catalogue::{Catalogue, EnateEvent, ObjectType, Webhook};
use herald_domain::delivery::{AttemptError, Outcome};
use herald_domain::event::Objects;
use herald_domain::id::{AccountId, DeliveryId, EventId, ObjectGuid, Shard, SubscriptionId};
use herald_domain::index::{Interest, Topic};
use herald_domain::message::Format;
use herald_domain::retry::RetryPolicy;
use herald_domain::signing::SigningKey;
use herald_domain::subscription::{Subscription, parse};
use herald_domain::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use uuid::Uuid;

fn guid(n: u128) -> ObjectGuid {
    ObjectGuid(Uuid::from_u128(n))
}

/// Six subscriptions on three shards: four listen to a company, one to a contract, one to a packet.
pub(crate) fn subscriptions(now: Timestamp) -> Vec<Subscription> {
    let topic = |webhook, object_type, n| Topic {
        webhook,
        object_type,
        object: Some(guid(n)),
    };
    let company = topic(Webhook::PacketCreated, ObjectType::COMPANY, 1);
    let contract = topic(Webhook::PacketCreated, ObjectType::CONTRACT, 2);
    let packet = topic(Webhook::PacketUpdated, ObjectType::PACKET, 3);
    let on_shard = |shard: u8| {
        let ids = (1..).map(|n| SubscriptionId(Uuid::from_u128(n)));
        ids.filter(move |id| Shard::of(*id) == Shard(shard)).take(2)
    };
    let ids = (0..3).flat_map(on_shard);
    ids.zip([company, contract, company, packet, company, company].map(Interest::Webhook))
        .map(|(id, interest)| subscription(id, interest, now))
        .collect()
}

/// Every other subscription takes one attempt at a time and has `MaxAttempts`; the rest take two, but no more than two
/// a second. Give-up and maximum come so soon that both are reached.
#[expect(clippy::unwrap_used, reason = "the body is a good one")]
fn subscription(id: SubscriptionId, interest: Interest, now: Timestamp) -> Subscription {
    let is_even = id.0.as_u128().is_multiple_of(2);
    let retry = RetryPolicy {
        initial: Duration::from_secs(2),
        multiplier: 2.0,
        max: Duration::from_secs(8),
        give_up_after: Duration::from_secs(30),
        max_attempts: (!is_even).then_some(4),
    };
    let body = serde_json::json!({"EventTypes": ["*"], "SubscriberURL": "https://a.example/"});
    let mut settings = parse(&body, &Catalogue::default(), &EgressPolicy::default())
        .unwrap()
        .settings;
    settings.interest = interest;
    settings.format = Format::Enate;
    settings.timeout = Duration::from_secs(10);
    settings.retry = retry.shared();
    settings.max_in_flight = if is_even { 1 } else { 2 };
    settings.rate_limit_per_second = (!is_even).then_some(2.0);
    Subscription {
        open_from: now,
        ..Subscription::new(
            id,
            herald_domain::access::OPERATOR,
            settings,
            SigningKey::from_bytes(vec![1; 32]),
            now,
        )
    }
}

/// The key of the `n`th event; two accounts use the same Ids.
pub(crate) fn key(n: u8) -> Key {
    let n = u128::from(n);
    (AccountId(Uuid::from_u128(n % 2)), EventId(Uuid::from_u128(n / 2)))
}

/// What an event is about follows from its key, as a producer that publishes again sends the same.
pub(crate) fn content_of((account, event): Key) -> Content {
    let (kind, company, contract, packet) = match (account.0.as_u128() + 2 * event.0.as_u128()) % 5 {
        0 => (EnateEvent::PacketCreated, 1, 2, 8), // matches five: three chunks
        1 => (EnateEvent::PacketCreated, 1, 9, 8),
        2 => (EnateEvent::PacketCreated, 9, 2, 8),
        3 => (EnateEvent::PacketUpdated, 1, 2, 3),
        _ => (EnateEvent::PacketUpdated, 1, 2, 9), // matches none
    };
    let objects = Objects::from([
        ("Company", guid(company)),
        ("Contract", guid(contract)),
        ("Packet", guid(packet)),
    ]);
    let kind = kind.into();
    Content { kind, objects }
}

pub(crate) type Tag = u64;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Message {
    /// None for the sweep of an event whose message may be gone.
    pub tag: Option<Tag>,
    pub key: Key,
}

/// The broker: at least once, in any order, and it loses nothing.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    messages: BTreeMap<Tag, (Key, Option<ProcessId>)>,
    pub published: BTreeSet<Key>,
    next: Tag,
}

impl Queue {
    pub(crate) fn publish(&mut self, key: Key) {
        self.published.insert(key);
        self.messages.insert(self.next, (key, None));
        self.next += 1;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    pub(crate) fn has_waiting(&self) -> bool {
        self.messages.values().any(|(_, held)| held.is_none())
    }

    /// Up to `most` messages, beginning anywhere.
    pub(crate) fn pull(&mut self, by: ProcessId, most: usize, from: usize) -> Vec<Message> {
        let mut waiting: Vec<_> = self
            .messages
            .iter_mut()
            .filter(|(_, (_, held))| held.is_none())
            .collect();
        if waiting.is_empty() {
            return Vec::new();
        }
        let middle = from % waiting.len();
        waiting.rotate_left(middle);
        let pulled = waiting.into_iter().take(most).map(|(tag, (key, held))| {
            *held = Some(by);
            Message {
                tag: Some(*tag),
                key: *key,
            }
        });
        pulled.collect()
    }

    pub(crate) fn acknowledge(&mut self, by: ProcessId, tag: Tag) {
        if self.messages.get(&tag).is_some_and(|(_, held)| *held == Some(by)) {
            self.messages.remove(&tag);
        }
    }

    /// What that consumer had is delivered again.
    pub(crate) fn release(&mut self, from: ProcessId) {
        for (_, held) in self.messages.values_mut().filter(|(_, held)| *held == Some(from)) {
            *held = None;
        }
    }
}

/// How subscribers answer.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Mood {
    /// Every way.
    Any,
    Well,
    Never,
}

#[derive(Debug)]
pub(crate) struct Subscribers {
    pub mood: Mood,
    /// Requests that are not answered yet, and at which epoch and after how many manual retries they were sent.
    under_way: BTreeSet<(DeliveryId, Epoch, u32)>,
    /// How many requests were begun.
    begun: BTreeMap<DeliveryId, u32>,
    /// How often each was answered with success, by epoch and manual retries.
    pub succeeded: BTreeMap<(DeliveryId, Epoch, u32), u32>,
    /// Those whose success a worker brought to the ledger.
    pub recorded: BTreeSet<DeliveryId>,
}

impl Subscribers {
    pub(crate) fn new() -> Self {
        Self {
            mood: Mood::Any,
            under_way: BTreeSet::new(),
            begun: BTreeMap::new(),
            succeeded: BTreeMap::new(),
            recorded: BTreeSet::new(),
        }
    }

    /// A request begins. Without faults no other is under way, whoever sent it; else none of the same epoch.
    pub(crate) fn begin(&mut self, id: DeliveryId, epoch: Epoch, generation: u32, faults: bool) -> Result<(), String> {
        let same = |(other, at, _): &(DeliveryId, Epoch, u32)| *other == id && (*at == epoch || !faults);
        ensure!(
            !self.under_way.iter().any(same),
            "{id} is in flight twice, now at epoch {epoch}"
        );
        self.under_way.insert((id, epoch, generation));
        *self.begun.entry(id).or_default() += 1;
        Ok(())
    }

    pub(crate) fn begun(&self, id: DeliveryId) -> u32 {
        self.begun.get(&id).copied().unwrap_or(0)
    }

    pub(crate) fn forget(&mut self, id: DeliveryId, epoch: Epoch, generation: u32) {
        self.under_way.remove(&(id, epoch, generation));
    }

    pub(crate) fn answer(&mut self, id: DeliveryId, epoch: Epoch, generation: u32, dice: u16) -> Outcome {
        self.forget(id, epoch, generation);
        let answered = |status, seconds: Option<u64>| Outcome::Answered {
            status,
            retry_after: seconds.map(Duration::from_secs),
        };
        let outcome = match (self.mood, dice % 32) {
            (Mood::Never, _) | (Mood::Any, 22..=26) => Outcome::Failed(AttemptError::Timeout),
            (Mood::Well, _) | (Mood::Any, 0..=14) => answered(204, None),
            (Mood::Any, 15..=18) => answered(500, None),
            (Mood::Any, 19..=21) => answered(503, Some(3)),
            (Mood::Any, 27) => answered(410, None),
            (Mood::Any, 28) => Outcome::Failed(AttemptError::AddressRefused),
            (Mood::Any, _) => answered(302, None),
        };
        if outcome.is_success() {
            *self.succeeded.entry((id, epoch, generation)).or_default() += 1;
        }
        outcome
    }
}
