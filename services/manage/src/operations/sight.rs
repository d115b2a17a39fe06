//! What a caller sees, and what its subscriptions may listen to.

use herald_access::Caller;
use herald_access::problem::Problem;
use herald_domain::access::{AccessRefusal, Needed, Role};
use herald_domain::id::AccountId;
use herald_domain::index::Interest;
use herald_registry::Registry;
use std::sync::Arc;

/// What a caller sees: everything as an operator, otherwise what belongs to its account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sight {
    Everything,
    Of(AccountId),
}

impl Sight {
    pub(crate) fn of(caller: Caller) -> Self {
        if caller.has(Role::Operator) {
            Self::Everything
        } else {
            Self::Of(caller.account())
        }
    }

    /// The account to narrow a list to.
    pub(crate) fn account(self) -> Option<AccountId> {
        match self {
            Self::Everything => None,
            Self::Of(account) => Some(account),
        }
    }

    pub(crate) fn includes(self, owner: AccountId) -> bool {
        self.account().is_none_or(|account| account == owner)
    }
}

/// Answers 403, naming what is missing, where the account may not have a subscription with that interest.
pub(crate) fn permit(registry: &Registry, account: AccountId, interest: &Interest) -> Result<(), Problem> {
    let (owner, catalogue) = {
        let view = registry.view();
        (view.account(account).map(Arc::clone), Arc::clone(view.catalogue()))
    };
    let needed = Needed::by(interest, &catalogue);
    let refusal = owner.map_or(Some(AccessRefusal::AccountInactive), |owner| owner.refuses(&needed));
    match refusal {
        None => Ok(()),
        Some(AccessRefusal::AccountInactive) => Err(Problem::forbidden(format!("the account {account} is inactive"))),
        Some(AccessRefusal::RoleMissing) => Err(Problem::forbidden(format!(
            "the account {account} has not the role ProcessBuilder"
        ))),
        Some(AccessRefusal::PermissionMissing(Needed::Everything)) => Err(Problem::forbidden(format!(
            "the account {account} has no permission on everything, which a subscription without a filter takes for a \
             prefix: only an operator has it; name the event types, or set FilterObjectType"
        ))),
        Some(AccessRefusal::PermissionMissing(Needed::Object(kind, object))) => {
            let name = catalogue.object_name(kind).unwrap_or_default();
            let what = match object {
                Some(object) => format!("the {name} {object}"),
                None => format!("every {name}"),
            };
            Err(Problem::forbidden(format!(
                "the account {account} has no permission on {what} (ObjectType {}); an operator gives it with POST \
                 /v1/accounts/{account}/grants",
                kind.number()
            )))
        }
    }
}
