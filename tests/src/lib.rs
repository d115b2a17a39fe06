//! End-to-end tests against the real binary, with real receivers and real faults.
//!
//! This library is the harness; the scenarios are in `e2e/`, one file per group.
//!
//! | module | what it is |
//! |---|---|
//! | [`herald`] | the binary, one process or several, on ports and a place of its own, killed, terminated, restarted |
//! | [`api`] | a client of the public API, typed where tests say it often, raw where they send nonsense |
//! | [`receiver`] | a subscriber that does what it is told: answer, fail, hang, drip, reset, flood, lie |
//! | [`cloud_events`] | CloudEvents that another SDK makes and reads |
//! | [`collector`] | an OpenTelemetry collector that keeps the spans it gets |
//! | [`tls`] | certificates: good, expired, for the wrong name |
//! | [`dns`] | a name server that answers as it is told, or not at all |
//! | [`binary`] | where the binary is, and a clean environment for it |
//! | [`samples`] | well-formed events and subscriptions |
//! | [`producer`] | a producer in Python, over AMQP |
//! | [`python`] | programs from the Python package index |
//! | [`metrics`] | what `/metrics` says, summed over all processes |
//! | [`audit`] | `herald audit`, its answer and its exit code |
//! | [`services`] | real RabbitMQ and PostgreSQL: started, killed, frozen, wiped |
//! | [`sandbox`] | a temporary folder that takes its processes with it |
//! | [`wait`] | waiting for a state with a deadline; nothing here sleeps and hopes |
//!
//! The binary is the one that `HERALD_BIN` names, else the one beside the running test, else the
//! release build. Cargo does not build it for these tests: `tests/run` does.

pub mod api;
pub mod audit;
pub mod binary;
#[cfg(test)]
mod circles;
pub mod cloud_events;
pub mod collector;
pub mod dns;
pub mod herald;
pub mod metrics;
pub mod producer;
pub mod python;
pub mod receiver;
pub mod samples;
pub mod sandbox;
pub mod services;
pub mod tls;
pub mod wait;

pub use api::{Api, Reply, Subscription};
pub use dns::{NameAnswer, NameServer};
pub use herald::{Herald, Role, Stack};
pub use receiver::{Answer, Gate, Receiver, Request};
pub use wait::{PATIENCE, wait_until};
