//! Callers with a role, what they see, and what their subscriptions may listen to.
//!
//! Roles are extracted before the body is read, so that who may not do something learns that and
//! nothing about the request.

use axum::extract::{FromRef, FromRequestParts};
use axum::http::request::Parts;
use herald_access::Caller;
use herald_access::problem::Problem;
use herald_domain::access::{Refusal, Role};
use herald_domain::id::AccountId;
use herald_domain::index::Topic;
use herald_registry::Registry;
use std::sync::Arc;

/// A caller with the role `ProcessBuilder`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Builder(pub Caller);

/// A caller with the role `Operator`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Operator(pub Caller);

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

impl<S> FromRequestParts<S> for Builder
where
    Arc<Registry>: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let caller = Caller::from_request_parts(parts, state).await?;
        caller.require(Role::ProcessBuilder)?;
        Ok(Self(caller))
    }
}

impl<S> FromRequestParts<S> for Operator
where
    Arc<Registry>: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let caller = Caller::from_request_parts(parts, state).await?;
        caller.require(Role::Operator)?;
        Ok(Self(caller))
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
