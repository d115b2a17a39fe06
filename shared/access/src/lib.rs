//! What every HTTP entrance shares: who is calling, what they may do, and how a refusal looks.
#![warn(missing_docs)]

pub mod body;
pub mod problem;

use axum::extract::{FromRef, FromRequestParts};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use herald_domain::access::Role;
use herald_domain::id::AccountId;
use herald_registry::{KeyHash, Registry};
use problem::Problem;
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// The account behind a request's key; extracting it answers 401 where there is none, and 503 where the
/// ledger would have to be asked whether there is one, and is away.
#[derive(Debug, Clone, Copy)]
pub struct Caller(pub herald_registry::Caller);

impl Caller {
    /// The account whose key the request has.
    pub fn account(&self) -> AccountId {
        self.0.account
    }

    /// Whether the caller has that role.
    pub fn has(&self, role: Role) -> bool {
        self.0.roles.has(role)
    }

    /// Answers 403, naming the role, where the caller has it not.
    pub fn require(&self, role: Role) -> Result<(), Problem> {
        if self.has(role) {
            return Ok(());
        }
        Err(Problem::forbidden(format!(
            "this needs a key with the role {}",
            role.name()
        )))
    }
}

impl<S> FromRequestParts<S> for Caller
where
    Arc<Registry>: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        // What has been looked up for this request already.
        if let Some(caller) = parts.extensions.get::<Self>() {
            return Ok(*caller);
        }
        let header = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let Some((scheme, key)) = header.and_then(|header| header.split_once(' ')) else {
            return Err(Problem::unauthorized("a key is needed: Authorization: Bearer <key>"));
        };
        if !scheme.eq_ignore_ascii_case("Bearer") {
            return Err(Problem::unauthorized(
                "the scheme must be Bearer: Authorization: Bearer <key>",
            ));
        }
        let registry = Arc::<Registry>::from_ref(state);
        let caller = registry.caller(&hash_key(key.trim())).await;
        caller
            .map_err(|error| Problem::unavailable("ledger, which knows the keys,", &error))?
            .map(Self)
            .ok_or_else(|| Problem::unauthorized("this key is not known, or its account is inactive"))
    }
}

/// The hash under which a key is kept. Keys are 256 random bits, so a plain hash is enough.
pub fn hash_key(key: &str) -> KeyHash {
    Sha256::digest(key.as_bytes()).into()
}
