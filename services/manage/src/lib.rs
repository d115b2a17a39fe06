//! The management API: subscriptions, deliveries, events, accounts.
//!
//! | module | what it does |
//! |---|---|
//! | `operations` | decides whether the caller may, and reads and changes the ledger |
//! | `api` | reads requests, and renders the results of operations |
//!
//! The rules themselves are in `herald_domain`. An object of another account is answered as if it were not there. After
//! a change the registry is refreshed before the answer goes out. So an event that is published right after a
//! subscription was made is matched, and a key works from the moment when it is shown.
#![warn(missing_docs)]

mod api;
mod operations;
mod secrets;

pub use api::{describe, router};
use axum::extract::FromRef;
use herald_access::problem::Problem;
use herald_domain::address::EgressPolicy;
use herald_domain::catalogue::Catalogue;
use herald_ledger::{Error, Ledger};
use herald_registry::Registry;
use std::sync::Arc;
use uuid::Uuid;

/// What the management API needs.
#[derive(Debug, Clone)]
pub struct Manage {
    /// The ledger, which is read and changed.
    pub ledger: Ledger,
    /// The registry, which tells who is calling and what they may do; refreshed after every change.
    pub registry: Arc<Registry>,
    /// The policy by which addresses in subscriptions are checked.
    pub egress: Arc<EgressPolicy>,
}

impl FromRef<Manage> for Arc<Registry> {
    fn from_ref(manage: &Manage) -> Self {
        Self::clone(&manage.registry)
    }
}

impl Manage {
    /// All event types and object types, also those that another process registered a moment ago.
    async fn catalogue(&self) -> Arc<Catalogue> {
        self.refresh().await;
        Arc::clone(self.registry.view().catalogue())
    }

    /// Refreshes the registry after a change. The change counts even if that fails: the registry catches up by itself.
    async fn refresh(&self) {
        if let Err(error) = self.registry.refresh().await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the registry could not be refreshed for a change"
            );
        }
    }
}

/// The answer if the ledger is away, or took too long.
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
