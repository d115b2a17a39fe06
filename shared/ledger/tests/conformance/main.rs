//! What every ledger must do, whatever database it stands on. Today there is one, SQLite.

mod dispatching;
mod finishing;
mod managing;
mod rig;
mod writing;
