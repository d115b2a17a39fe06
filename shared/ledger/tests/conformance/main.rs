//! What every ledger must do, whatever database it stands on. Today there is one, SQLite.

#![expect(clippy::unwrap_used, reason = "these are tests, also where the lint does not see it")]

mod dispatching;
mod finishing;
mod managing;
mod rig;
mod writing;
