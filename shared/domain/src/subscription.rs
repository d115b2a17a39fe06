//! Subscriptions: their fields, rules and defaults.

mod fields;
mod header;
mod listening;
mod plain;
mod reader;
mod retrying;
mod setting;
mod settings;
mod subscriber_url;

pub use fields::{OWNER, READ_ONLY, SECRET_KEY};
pub use listening::{no_event_type, no_object_type};
pub use setting::{Absent, Cell, Cells, Column, Corrupt, Field, Kind};
pub use settings::Settings;
pub use subscriber_url::{literal_address, url_as_kept};

use crate::address::EgressPolicy;
use crate::catalogue::Catalogue;
use crate::delivery::Reason;
use crate::id::{AccountId, SubscriptionId};
use crate::problem::{Fault, Faults};
use crate::signing::{AsymmetricKey, FormerKey, PublicKey, Signatures, Signers, SigningKey};
use crate::time::Timestamp;
use reader::{Faulty, Reader};
use serde_json::{Map, Value};
use std::time::Duration;

/// A subscription as it is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Subscription {
    /// Its `GUID`.
    pub id: SubscriptionId,
    /// The account that made it.
    pub owner: AccountId,
    /// What its owner may set.
    pub settings: Settings,
    /// What messages are signed with.
    pub key: SigningKey,
    /// What they are signed with too, where [`Settings`] say so. It is made when they first do.
    pub asymmetric_key: Option<AsymmetricKey>,
    /// The keys before these, where a rotation said that they sign for a while.
    pub former_key: Option<Box<FormerKey>>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// Deliveries opened before this are cancelled: when it was last deactivated or deleted.
    pub open_from: Timestamp,
    /// The registry's version that this made, see [`crate::delivery::Delivery::is_opened_before`]; 0 if it never
    /// was, or if that was not noted.
    pub open_from_version: i64,
    /// When and why Herald itself deactivated it; none while it is active.
    pub deactivated: Option<Deactivation>,
    /// Deleted: kept so that its deliveries can still be explained.
    pub deleted: bool,
}

/// A deactivation that Herald made by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deactivation {
    /// When the subscription was deactivated.
    pub at: Timestamp,
    /// Why it was deactivated.
    pub reason: Reason,
}

/// What a request asked a subscription to be.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    /// The settings, defaults filled in.
    pub settings: Settings,
    /// `SecretKey` as it was given, if it was, with the key that it means.
    pub secret: Option<(String, SigningKey)>,
    /// Whose it is to be, where the request says.
    pub owner: Option<AccountId>,
}

/// How long a former key may sign beside the new one.
pub const MAX_OVERLAP: Duration = Duration::from_hours(7 * 24);

impl Subscription {
    /// A new subscription. Whatever opened deliveries for it did so after it was made.
    pub fn new(id: SubscriptionId, owner: AccountId, settings: Settings, key: SigningKey, now: Timestamp) -> Self {
        Self {
            id,
            owner,
            settings,
            key,
            asymmetric_key: None,
            former_key: None,
            created_at: now,
            updated_at: now,
            open_from: Timestamp::from_micros(0),
            open_from_version: 0,
            deactivated: None,
            deleted: false,
        }
    }

    /// The subscription as `GET` shows it.
    pub fn to_json(&self) -> Map<String, Value> {
        let deactivated = self.deactivated;
        let before = [
            ("GUID", self.id.to_string().into()),
            ("Owner", self.owner.to_string().into()),
        ];
        let behind = [
            ("PublicKey", self.public_key().map(|key| key.to_string()).into()),
            ("CreatedAt", self.created_at.to_string().into()),
            ("UpdatedAt", self.updated_at.to_string().into()),
            ("DeactivatedAt", deactivated.map(|why| why.at.to_string()).into()),
            ("DeactivationReason", deactivated.map(|why| why.reason.name()).into()),
        ];
        let named = |(name, value): (&str, Value)| (name.to_owned(), value);
        let mut shown: Map<String, Value> = before.into_iter().map(named).collect();
        shown.extend(self.settings.to_json());
        shown.extend(behind.into_iter().map(named));
        shown
    }

    /// Whether its messages are to have asymmetric signatures, and it has no key for them yet.
    pub fn lacks_asymmetric_key(&self) -> bool {
        self.settings.signatures == Signatures::Both && self.asymmetric_key.is_none()
    }

    /// The asymmetric key, where it signs.
    fn signing_asymmetric_key(&self) -> Option<&AsymmetricKey> {
        match self.settings.signatures {
            Signatures::Symmetric => None,
            Signatures::Both => self.asymmetric_key.as_ref(),
        }
    }

    /// Its `PublicKey`.
    pub fn public_key(&self) -> Option<PublicKey> {
        self.signing_asymmetric_key().map(AsymmetricKey::public_key)
    }

    /// What signs its messages.
    pub fn signers(&self) -> Signers {
        Signers::new(&self.key, self.signing_asymmetric_key(), self.former_key.as_deref())
    }

    /// Gives it new keys. The present ones sign beside them for `overlap`; those from a rotation before end now.
    pub fn rotate(&mut self, key: SigningKey, asymmetric: Option<AsymmetricKey>, overlap: Duration, now: Timestamp) {
        let former = FormerKey {
            key: std::mem::replace(&mut self.key, key),
            asymmetric: std::mem::replace(&mut self.asymmetric_key, asymmetric),
            until: now.plus(overlap),
        };
        self.former_key = (former.until > now).then(|| Box::new(former));
    }
}

/// Reads the body of a create or replace request. Every fault is named at once.
pub fn parse(body: &Value, catalogue: &Catalogue, egress: &EgressPolicy) -> Result<Draft, Faults> {
    read(body, None, None, catalogue, egress)
}

/// Reads the body of a request to replace what is kept, as [`parse`] does. It may go on to name event types that were
/// archived since.
pub fn parse_replacement(
    present: &Settings,
    body: &Value,
    catalogue: &Catalogue,
    egress: &EgressPolicy,
) -> Result<Draft, Faults> {
    read(body, Some(present), None, catalogue, egress)
}

/// Reads the body of a request to change what is kept: a JSON merge patch (RFC 7396) over what `GET` gives.
///
/// Only what it changes is judged. What stays as it is may break a rule that is newer than it, such as one for the
/// names of headers; its owner can then still deactivate the subscription, or change something else of it. Fields that
/// are judged together, such as the webhook and its filter, are judged when one of them changes.
pub fn parse_patch(
    present: &Settings,
    patch: &Value,
    catalogue: &Catalogue,
    egress: &EgressPolicy,
) -> Result<Draft, Faults> {
    let kept = present.to_json();
    let mut merged = Value::Object(kept.clone());
    merge_patch(&mut merged, patch);
    read(&merged, Some(present), Some(&kept), catalogue, egress)
}

/// Reads a request. `held` is what the subscription has so far, and `kept` the same where only changes are judged.
fn read(
    body: &Value,
    held: Option<&Settings>,
    kept: Option<&Map<String, Value>>,
    catalogue: &Catalogue,
    egress: &EgressPolicy,
) -> Result<Draft, Faults> {
    let Value::Object(fields) = body else {
        return Err(Fault::new("", "object", "a subscription must be a JSON object").into());
    };
    let mut reader = Reader {
        fields,
        present: kept,
        catalogue,
        egress,
        parent: "",
        faults: Faults::default(),
    };
    let known: Vec<_> = Settings::fields()
        .chain([&SECRET_KEY, &OWNER])
        .map(|field| field.name)
        .collect();
    let ignored: Vec<_> = READ_ONLY
        .iter()
        .map(|field| field.name)
        .chain([fields::SIGNING_SECRET])
        .collect();
    reader.only(&known, &ignored);
    let settings = Settings::read(&mut reader, held);
    let secret = secret(&mut reader);
    let owner = owner(&mut reader);
    match (settings, secret, owner) {
        (Ok(settings), Ok(secret), Ok(owner)) if reader.faults.is_empty() => Ok(Draft {
            settings,
            secret,
            owner,
        }),
        _ => Err(reader.faults),
    }
}

fn owner(reader: &mut Reader<'_>) -> Result<Option<AccountId>, Faulty> {
    let Some(value) = reader.get(OWNER.name) else {
        return Ok(None);
    };
    match value.as_str().map(str::parse) {
        Some(Ok(owner)) => Ok(Some(owner)),
        _ => Err(reader.fault(OWNER.name, "guid", "Owner must be the Id of an account")),
    }
}

fn secret(reader: &mut Reader<'_>) -> Result<Option<(String, SigningKey)>, Faulty> {
    const NAME: &str = SECRET_KEY.name;
    let Some(value) = reader.get(NAME) else {
        return Ok(None);
    };
    let Some(text) = value.as_str() else {
        return Err(reader.fault(NAME, "text", "SecretKey must be text"));
    };
    match SigningKey::from_secret(text) {
        Ok(key) => Ok(Some((text.to_owned(), key))),
        Err(rule) => Err(reader.fault(NAME, "secret", format!("SecretKey {rule}"))),
    }
}

/// Applies a JSON merge patch (RFC 7396).
pub fn merge_patch(target: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    if let Value::Object(fields) = target {
        for (name, change) in changes {
            if change.is_null() {
                fields.remove(name);
            } else {
                merge_patch(fields.entry(name.clone()).or_insert(Value::Null), change);
            }
        }
    }
}

#[cfg(test)]
mod tests;
