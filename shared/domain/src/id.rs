//! Identifiers, one type each, so that none is passed for another.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};
use std::fmt;
use std::str::FromStr;
use uuid::Uuid;

/// The text is not a GUID in its usual form (8-4-4-4-12 hexadecimal digits).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a GUID such as 0193f1a0-7c1e-7d1a-b1f0-3a5c7e9d1b2f")]
pub struct NotAGuid;

/// Reads a GUID in its hyphenated form, in either case. Other notations (braces, no hyphens) are refused, so that two
/// spellings of one GUID differ only in case.
pub fn parse_guid(text: &str) -> Result<Uuid, NotAGuid> {
    if text.len() != 36 {
        return Err(NotAGuid);
    }
    Uuid::try_parse(text).map_err(|_ignored_position| NotAGuid)
}

macro_rules! guid {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = NotAGuid;
            fn from_str(text: &str) -> Result<Self, NotAGuid> {
                parse_guid(text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

guid! {
    /// An event's `Id`, as the producer gave it or was given it. Unique within an account.
    EventId
}
guid! {
    /// An event's internal identity, a UUIDv7 given when the event is recorded.
    EventUid
}
guid! {
    /// A subscription's `GUID`.
    SubscriptionId
}
guid! {
    /// A delivery's id, sent as `webhook-id`.
    DeliveryId
}
guid! {
    /// The id of an account.
    AccountId
}
guid! {
    /// An API key's id; not the key.
    KeyId
}
guid! {
    /// A work item, communication, company and so on, outside Herald.
    ObjectGuid
}

impl DeliveryId {
    /// The id of the delivery of `event` to `subscription`. `replay` is nil, except for replays.
    ///
    /// The id is a `UUIDv8` (RFC 9562). Its 60 leading bits, apart from the version, are those of the event's
    /// `UUIDv7`: its time and a little more. The other 62 bits are SHA-256 over all three inputs. So the same inputs
    /// give the same id. Ids sort by the time of their event, which keeps the ledger's newest rows together and gives
    /// lists their order. All deliveries of an event lie in [`DeliveryId::range_of`], with few others, so the ledger
    /// needs no index by event.
    pub fn derive(event: EventUid, subscription: SubscriptionId, replay: Uuid) -> Self {
        let mut hash = Sha256::new();
        hash.update(event.0.as_bytes());
        hash.update(subscription.0.as_bytes());
        hash.update(replay.as_bytes());
        let digest = hash.finalize();
        let mut bytes = *event.0.as_bytes();
        bytes[8..].copy_from_slice(&digest[..8]);
        Self(uuid::Builder::from_custom_bytes(bytes).into_uuid())
    }

    /// The least and greatest id that a delivery of `event` can have. Deliveries of other events of the
    /// same moment may lie between.
    pub fn range_of(event: EventUid) -> (Self, Self) {
        let with_tail = |tail: u8| {
            let mut bytes = *event.0.as_bytes();
            bytes[8..].fill(tail);
            Self(uuid::Builder::from_custom_bytes(bytes).into_uuid())
        };
        (with_tail(0x00), with_tail(0xff))
    }
}

/// How many shards the subscriptions hash to; a shard is what a worker owns.
pub const SHARDS: u16 = 256;

/// One of the [`SHARDS`] parts of the subscriptions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shard(pub u8);

impl Shard {
    /// The shard of a subscription: FNV-1a over the GUID, folded to 8 bits. GUIDs are mostly random
    /// already, but imported ones need not be.
    pub fn of(subscription: SubscriptionId) -> Self {
        let hash = subscription.0.as_bytes().iter().fold(0x811c_9dc5_u32, |hash, byte| {
            (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
        });
        let [a, b, c, d] = hash.to_be_bytes();
        Self(a ^ b ^ c ^ d)
    }

    /// Every shard, in order.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..=u8::MAX).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn delivery_ids_are_deterministic_distinct_and_in_their_events_range(
            event in (0u64..1 << 48, any::<[u8; 10]>()), other in (0u64..1 << 48, any::<[u8; 10]>()), a: u128, b: u128
        ) {
            let v7 = |(millis, random): (u64, [u8; 10])| {
                EventUid(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
            };
            let id = |event, sub| DeliveryId::derive(v7(event), SubscriptionId(Uuid::from_u128(sub)), Uuid::nil());
            prop_assert_eq!(id(event, a), id(event, a));
            prop_assert_eq!(id(event, a) == id(event, b), a == b);
            let (low, high) = DeliveryId::range_of(v7(event));
            prop_assert!(low <= id(event, a) && id(event, a) <= high);
            prop_assert_eq!(id(event, a).0.get_version_num(), 8);
            if v7(event).0.as_bytes()[..8] < v7(other).0.as_bytes()[..8] {
                prop_assert!(id(event, a) < id(other, b), "sorted by event");
            }
        }

        #[test]
        fn guids_are_read_in_either_case_and_written_in_lower(bits: u128) {
            let guid = ObjectGuid(Uuid::from_u128(bits));
            let upper = guid.to_string().to_uppercase();
            prop_assert_eq!(upper.parse::<ObjectGuid>().unwrap(), guid);
            prop_assert_eq!(guid.to_string().to_lowercase(), guid.to_string());
        }
    }

    #[test]
    fn other_notations_of_a_guid_are_refused() {
        for text in [
            "",
            "x",
            "0193f1a07c1e7d1ab1f03a5c7e9d1b2f",
            "{0193f1a0-7c1e-7d1a-b1f0-3a5c7e9d1b2f}",
            "0193f1a0-7c1e-7d1a-b1f0-3a5c7e9d1b2g",
        ] {
            assert_eq!(text.parse::<ObjectGuid>(), Err(NotAGuid), "{text}");
        }
    }

    #[test]
    fn sequential_guids_spread_over_the_shards() {
        let shards: std::collections::HashSet<_> = (0..4096u128)
            .map(|n| Shard::of(SubscriptionId(Uuid::from_u128(n))))
            .collect();
        assert!(shards.len() > 200, "{} of 256 shards used", shards.len());
    }
}
