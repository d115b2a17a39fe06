//! Callers with a role.
//!
//! Roles are extracted before the body is read, so that who may not do something learns that and
//! nothing about the request.

use axum::extract::{FromRef, FromRequestParts};
use axum::http::request::Parts;
use herald_access::Caller;
use herald_access::problem::Problem;
use herald_domain::access::Role;
use herald_registry::Registry;
use std::sync::Arc;

/// A caller with the role `ProcessBuilder`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Builder(pub Caller);

/// A caller with the role `Operator`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Operator(pub Caller);

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
