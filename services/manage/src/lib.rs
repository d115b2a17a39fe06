//! The management API: subscriptions, deliveries, events, accounts.
//!
//! | module | operations |
//! |---|---|
//! | `subscriptions`, `rotation` | create, read, change, delete, rotate the secret |
//! | `deliveries` | list, look at one, retry, dead letters |
//! | `events`, `rejected` | what was accepted, and what was not |
//! | `webhooks` | the catalogue |
//! | `accounts`, `keys`, `grants` | who may do what; for operators |
//!
//! A handler extracts, authorises, asks the ledger once and shapes the answer; the rules themselves are
//! in `herald_domain`. What belongs to another account is answered as if it were not there. After a
//! change the registry is refreshed before the answer goes out, so whoever subscribes and publishes at
//! once is matched, and a key works from the moment it is shown.
#![warn(missing_docs)]

mod accounts;
mod callers;
mod deliveries;
mod etag;
mod events;
mod fields;
mod grants;
mod json;
mod keys;
mod openapi;
mod operations;
mod paging;
mod path;
mod query;
mod refusals;
mod rejected;
mod rotation;
mod schemas;
mod secrets;
mod subscriptions;
mod turns;
mod webhooks;

use axum::Router;
use axum::extract::FromRef;
use axum::http::{Method, StatusCode};
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use herald_access::problem::Problem;
use herald_domain::address::EgressPolicy;
use herald_ledger::{Error, Ledger};
use herald_registry::Registry;
pub use openapi::describe;
use std::sync::Arc;
use turns::{Turns, take_turn};
use uuid::Uuid;

/// What the management API needs.
#[derive(Debug, Clone)]
pub struct Manage {
    /// What is read and changed.
    pub ledger: Ledger,
    /// Who is calling and what they may do; refreshed after every change.
    pub registry: Arc<Registry>,
    /// Judges the addresses in subscriptions.
    pub egress: Arc<EgressPolicy>,
}

impl FromRef<Manage> for Arc<Registry> {
    fn from_ref(manage: &Manage) -> Self {
        Self::clone(&manage.registry)
    }
}

impl Manage {
    /// Brings the registry up to what was just changed. The change stands whether or not that
    /// succeeds: the registry catches up by itself.
    async fn refresh(&self) {
        if let Err(error) = self.registry.refresh().await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the registry could not be refreshed after a change"
            );
        }
    }
}

/// Every route of the management API. What no route has is left to the caller's fallback.
pub fn router(manage: Manage) -> Router {
    let turns = (manage.clone(), Turns::default());
    Router::new()
        .route(
            "/v1/subscriptions",
            get(subscriptions::list).post(subscriptions::create),
        )
        .route(
            "/v1/subscriptions/{guid}",
            get(subscriptions::show)
                .put(subscriptions::replace)
                .patch(subscriptions::patch)
                .delete(subscriptions::remove),
        )
        .route("/v1/subscriptions/{guid}/rotate-secret", post(rotation::rotate_secret))
        .route("/v1/subscriptions/{guid}/retry", post(subscriptions::retry))
        .route("/v1/deliveries", get(deliveries::list))
        .route("/v1/deliveries/{id}", get(deliveries::show))
        .route("/v1/deliveries/{id}/retry", post(deliveries::retry))
        .route("/v1/dead-letters", get(deliveries::dead_letters))
        .route("/v1/events/{id}", get(events::show))
        .route("/v1/rejected-events", get(rejected::list))
        .route("/v1/webhooks", get(webhooks::list))
        .route("/v1/webhooks/{name}", get(webhooks::show))
        .route("/v1/accounts", get(accounts::list).post(accounts::create))
        .route("/v1/accounts/{id}", get(accounts::show).patch(accounts::patch))
        .route("/v1/accounts/{id}/keys", get(keys::list).post(keys::create))
        .route("/v1/accounts/{id}/keys/{keyId}", get(keys::show).delete(keys::remove))
        .route(
            "/v1/accounts/{id}/grants",
            get(grants::list).post(grants::create).delete(grants::remove),
        )
        .route_layer(from_fn_with_state(turns, take_turn))
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(manage)
}

async fn method_not_allowed(method: Method) -> Problem {
    let detail = format!("this address does not know {method}; the header Allow says what it knows");
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail)
}

/// The answer where the ledger is away, or took too long.
fn ledger_away(error: Error) -> Problem {
    match error {
        Error::Slow(limit) => Problem::too_slow(format!(
            "this took longer than {} s; a list is shorter with Since and Until, or with Subscription",
            limit.as_secs()
        )),
        Error::Unreachable(ref why) => Problem::unreachable("ledger", why, &error),
        error => Problem::unavailable("ledger", &error),
    }
}

/// A fresh identifier, greater than those before it: lists are ordered by it.
fn fresh_id() -> Uuid {
    Uuid::now_v7()
}
