//! Accounts, what their keys may do, and what their subscriptions may listen to.

use crate::catalogue::{Catalogue, ObjectType};
use crate::id::{AccountId, ObjectGuid};
use crate::index::Interest;
use std::fmt;

/// What a key, and the account behind it, may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Publish events, and see the account's own.
    Producer,
    /// Own subscriptions, and see their deliveries.
    ProcessBuilder,
    /// Everything, for every account.
    Operator,
}

impl Role {
    /// Every role, in the order of their bits.
    pub const ALL: [Self; 3] = [Self::Producer, Self::ProcessBuilder, Self::Operator];

    /// The name in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Producer => "Producer",
            Self::ProcessBuilder => "ProcessBuilder",
            Self::Operator => "Operator",
        }
    }

    /// The role of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }

    const fn bit(self) -> u8 {
        match self {
            Self::Producer => 1,
            Self::ProcessBuilder => 2,
            Self::Operator => 4,
        }
    }
}

/// A set of roles. `Operator` includes the others.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Roles(u8);

impl Roles {
    /// The set without any role.
    pub const NONE: Self = Self(0);
    /// The operator's roles: every one.
    pub const OPERATOR: Self = Self(4);

    /// Whether what `role` allows is allowed.
    pub const fn has(self, role: Role) -> bool {
        self.0 & (role.bit() | Role::Operator.bit()) != 0
    }

    /// The set with `role`.
    #[must_use]
    pub const fn with(self, role: Role) -> Self {
        Self(self.0 | role.bit())
    }

    /// What both sets allow.
    #[must_use]
    pub fn both(self, other: Self) -> Self {
        Role::ALL
            .into_iter()
            .filter(|role| self.has(*role) && other.has(*role))
            .fold(Self::NONE, Self::with)
    }

    /// The roles that were given, without what they include.
    pub fn iter(self) -> impl Iterator<Item = Role> {
        Role::ALL.into_iter().filter(move |role| self.0 & role.bit() != 0)
    }

    /// As the ledger keeps it.
    pub const fn bits(self) -> i16 {
        self.0 as i16
    }

    /// What the ledger kept; unknown bits are left out.
    pub fn from_bits(bits: i16) -> Self {
        Role::ALL
            .into_iter()
            .filter(|role| bits & i16::from(role.bit()) != 0)
            .fold(Self::NONE, Self::with)
    }
}

impl FromIterator<Role> for Roles {
    fn from_iter<I: IntoIterator<Item = Role>>(roles: I) -> Self {
        roles.into_iter().fold(Self::NONE, Self::with)
    }
}

impl fmt::Debug for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// Permission on one object, or on every object of a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Grant {
    /// The type of the objects.
    pub object_type: ObjectType,
    /// The object; none for every object of the type.
    pub object: Option<ObjectGuid>,
}

/// Who publishes or subscribes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its id; an event published over HTTP belongs to it.
    pub id: AccountId,
    /// A name for people.
    pub name: String,
    /// An inactive account's keys are refused, and nothing is sent for its subscriptions.
    pub active: bool,
    /// What its keys may do at most.
    pub roles: Roles,
    /// What its subscriptions may filter by.
    pub grants: Vec<Grant>,
}

/// The operator's own account: every role, every permission, always active.
pub const OPERATOR: AccountId = AccountId(uuid::Uuid::max());

impl Account {
    /// Why the account may not own a subscription that takes these permissions, or nothing if it may. Asked when
    /// a subscription is made or changed, and again at every attempt.
    pub fn refuses(&self, needed: &[Needed]) -> Option<AccessRefusal> {
        if self.roles.has(Role::Operator) && self.active {
            return None;
        }
        if !self.active {
            return Some(AccessRefusal::AccountInactive);
        }
        if !self.roles.has(Role::ProcessBuilder) {
            return Some(AccessRefusal::RoleMissing);
        }
        let refused = needed
            .iter()
            .find(|needed| !self.grants.iter().any(|grant| needed.is_given_by(grant)));
        refused.map(|needed| AccessRefusal::PermissionMissing(*needed))
    }
}

/// A permission that a subscription takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needed {
    /// On one object, or without one on every object of the type.
    Object(ObjectType, Option<ObjectGuid>),
    /// On everything, which only an operator has.
    Everything,
}

impl Needed {
    /// What a subscription with that interest takes: permission on its filter. Without a filter it is told of every
    /// object, and takes permission on every object of each type that its events must name. A prefix may come to mean
    /// any event.
    pub fn by(interest: &Interest, catalogue: &Catalogue) -> Vec<Self> {
        if let Some((kind, object)) = interest.filter() {
            return vec![Self::Object(kind, object)];
        }
        let Interest::EventTypes(types) = interest else {
            return Vec::new();
        };
        let of_name = |name: &str| match catalogue.event_type(name) {
            None => vec![Self::Everything],
            Some(kind) => {
                let kinds = catalogue.objects_of(&kind).into_iter();
                kinds.map(|kind| Self::Object(kind, None)).collect()
            }
        };
        types.names.iter().flat_map(|name| of_name(name)).collect()
    }

    fn is_given_by(self, grant: &Grant) -> bool {
        match self {
            Self::Object(kind, object) => {
                grant.object_type == kind && (grant.object.is_none() || grant.object == object)
            }
            Self::Everything => false,
        }
    }
}

/// Why an account may not have a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessRefusal {
    /// The account is inactive.
    AccountInactive,
    /// It has not the role `ProcessBuilder`.
    RoleMissing,
    /// It has no grant that gives this.
    PermissionMissing(Needed),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::TypeInterest;
    use std::sync::Arc;

    #[test]
    fn operator_includes_every_role_and_bits_survive() {
        assert!(Role::ALL.into_iter().all(|role| Roles::OPERATOR.has(role)));
        for bits in 0..8 {
            assert_eq!(Roles::from_bits(bits).bits(), bits);
        }
        let narrow = Roles::OPERATOR.both(Roles::NONE.with(Role::Producer));
        assert!(narrow.has(Role::Producer) && !narrow.has(Role::ProcessBuilder));
    }

    #[test]
    fn a_grant_covers_its_object_or_its_whole_type() {
        let object = |n| Some(ObjectGuid(uuid::Uuid::from_u128(n)));
        let mut account = Account {
            id: AccountId(uuid::Uuid::nil()),
            name: String::new(),
            active: true,
            roles: Roles::NONE.with(Role::ProcessBuilder),
            grants: vec![
                Grant {
                    object_type: ObjectType::PACKET,
                    object: object(1),
                },
                Grant {
                    object_type: ObjectType::COMPANY,
                    object: None,
                },
            ],
        };
        let refusal = |account: &Account, kind, object| account.refuses(&[Needed::Object(kind, object)]);
        let missing = |kind, object| Some(AccessRefusal::PermissionMissing(Needed::Object(kind, object)));
        assert_eq!(refusal(&account, ObjectType::PACKET, object(1)), None);
        assert_eq!(
            refusal(&account, ObjectType::PACKET, object(2)),
            missing(ObjectType::PACKET, object(2))
        );
        assert_eq!(refusal(&account, ObjectType::COMPANY, None), None);
        assert_eq!(refusal(&account, ObjectType::COMPANY, object(9)), None);
        assert_eq!(
            refusal(&account, ObjectType::SCHEDULE, None),
            missing(ObjectType::SCHEDULE, None)
        );
        let everything = Needed::Everything;
        assert_eq!(
            account.refuses(&[everything]),
            Some(AccessRefusal::PermissionMissing(everything))
        );
        assert_eq!(account.refuses(&[]), None);
        account.roles = Roles::NONE.with(Role::Producer);
        assert_eq!(
            refusal(&account, ObjectType::COMPANY, None),
            Some(AccessRefusal::RoleMissing)
        );
        account.active = false;
        assert_eq!(
            refusal(&account, ObjectType::COMPANY, None),
            Some(AccessRefusal::AccountInactive)
        );
    }

    #[test]
    fn without_a_filter_every_object_that_the_events_name_is_needed() {
        let needed = |names: &[&str]| {
            let names = names.iter().map(|name| (*name).into()).collect();
            let interest = Interest::EventTypes(Arc::new(TypeInterest { names, filter: None }));
            Needed::by(&interest, &Catalogue::default())
        };
        let all = |kind| Needed::Object(kind, None);
        assert_eq!(needed(&["NewCommunication"]), [all(ObjectType::PACKET)]);
        let either = [all(ObjectType::COMPANY), all(ObjectType::SCHEDULE)];
        assert_eq!(needed(&["BusinessObjectCreated"]), either);
        assert_eq!(
            needed(&["Packet*", "PacketCreated"]),
            [Needed::Everything, all(ObjectType::PACKET)]
        );
        // It may be registered with any objects later.
        assert_eq!(needed(&["Unknown"]), [Needed::Everything]);
    }
}
