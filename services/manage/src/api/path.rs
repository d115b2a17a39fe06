//! Identifiers in paths. What is not a GUID names nothing, so it is 404 like any other stranger.

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;
use herald_access::problem::Problem;
use herald_domain::id::{AccountId, DeliveryId, EventId, KeyId, SubscriptionId};
use std::str::FromStr;

/// The identifier in the path.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At<T>(pub T);

/// What a path can name.
pub(crate) trait Addressed: FromStr {
    /// The parameter's name in the route.
    const PARAMETER: &str;
    /// What it is, for people.
    const WHAT: &str;
}

impl Addressed for SubscriptionId {
    const PARAMETER: &str = "guid";
    const WHAT: &str = "subscription";
}

impl Addressed for DeliveryId {
    const PARAMETER: &str = "id";
    const WHAT: &str = "delivery";
}

impl Addressed for EventId {
    const PARAMETER: &str = "id";
    const WHAT: &str = "event";
}

impl Addressed for AccountId {
    const PARAMETER: &str = "id";
    const WHAT: &str = "account";
}

impl Addressed for KeyId {
    const PARAMETER: &str = "keyId";
    const WHAT: &str = "key";
}

impl<S: Send + Sync, T: Addressed> FromRequestParts<S> for At<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let parameters = RawPathParams::from_request_parts(parts, state).await.ok();
        let named = parameters.as_ref().and_then(|parameters| {
            let (_, text) = parameters.iter().find(|(name, _)| *name == T::PARAMETER)?;
            text.parse().ok()
        });
        named.map(Self).ok_or_else(|| Problem::not_found(T::WHAT))
    }
}
