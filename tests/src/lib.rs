//! End-to-end tests against the real binary, with real receivers and real faults.
//!
//! This library is the harness; the scenarios are in `e2e/`, one file per group.
//!
//! | module | what it is |
//! |---|---|
//! | [`herald`] | the binary, started on a port and a data folder of its own, killed, terminated, restarted |
//! | [`api`] | a client of the public API, typed where tests say it often, raw where they send nonsense |
//! | [`receiver`] | a subscriber that does what it is told: answer, fail, hang, drip, reset, flood, lie |
//! | [`tls`] | certificates: good, expired, for the wrong name |
//! | [`binary`] | where the binary is, and a clean environment for it |
//! | [`samples`] | well-formed events and subscriptions |
//! | [`audit`] | `herald audit`, its answer and its exit code |
//! | [`wait`] | waiting for a state with a deadline; nothing here sleeps and hopes |
//!
//! The binary is the one that `HERALD_BIN` names, else the one beside the running test, else the
//! release build. Cargo does not build it for these tests: `tests/run` does.

pub mod api;
pub mod audit;
pub mod binary;
pub mod herald;
pub mod receiver;
pub mod samples;
pub mod tls;
pub mod wait;

pub use api::{Api, Reply, Subscription};
pub use herald::{Herald, Stack};
pub use receiver::{Answer, Gate, Receiver, Request};
pub use wait::{PATIENCE, wait_until};
