//! The scenarios, against the public contract and nothing else.
//!
//! Each test starts a Herald of its own with [`herald_tests::Herald`]; when that is dropped its accounts
//! must be exact. `tests/run` runs them all; `cargo test --release -p herald-tests --test e2e NAME` runs
//! some, with the binary that `HERALD_BIN` names or the release build.

mod load;
mod scene;

mod accepting;
mod auditing;
mod cancelling;
mod cloud_events;
mod cluster;
mod crash;
mod egress;
mod embedded;
mod failures;
mod http2;
mod isolation;
mod lifecycle;
mod matching;
mod message;
mod names;
mod observing;
mod pacing;
mod refusing;
mod restoring;
mod retry;
mod rights;
mod slow;
mod subscriptions;
mod tls;
mod tracing;
mod types;
