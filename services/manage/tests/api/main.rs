//! The management API over a real ledger in a temporary file.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod accounts;
mod catalogue;
mod changes;
mod deliveries;
mod description;
mod events;
mod requests;
mod subscriptions;
mod world;
