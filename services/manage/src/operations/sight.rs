//! What a caller sees, and what its subscriptions may listen to.

use herald_access::Caller;
use herald_access::problem::Problem;
use herald_domain::access::{Refusal, Role};
use herald_domain::id::AccountId;
use herald_domain::index::Topic;
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

/// Answers 403, naming what is missing, where the account may not have a subscription to that topic.
pub(crate) fn permit(registry: &Registry, account: AccountId, topic: Topic) -> Result<(), Problem> {
    let owner = registry.view().account(account).map(Arc::clone);
    let refusal = owner.map_or(Some(Refusal::AccountInactive), |owner| {
        owner.refuses(topic.object_type, topic.object)
    });
    match refusal {
        None => Ok(()),
        Some(Refusal::AccountInactive) => Err(Problem::forbidden(format!("the account {account} is inactive"))),
        Some(Refusal::RoleMissing) => Err(Problem::forbidden(format!(
            "the account {account} has not the role ProcessBuilder"
        ))),
        Some(Refusal::PermissionMissing) => {
            let kind = topic.object_type;
            let what = match topic.object {
                Some(object) => format!("the {} {object}", kind.name()),
                None => format!("every {}", kind.name()),
            };
            Err(Problem::forbidden(format!(
                "the account {account} has no permission on {what} (ObjectType {}); an operator gives it with POST \
                 /v1/accounts/{account}/grants",
                kind.number()
            )))
        }
    }
}
