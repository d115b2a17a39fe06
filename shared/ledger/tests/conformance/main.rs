//! What every ledger must do, whatever database it stands on: each test runs on both.

#![expect(clippy::unwrap_used, reason = "these are tests, also where the lint does not see it")]

/// Makes two tests of each function, one on either database. One that is not named here is dead code, and
/// the compiler says so.
macro_rules! on_both {
    ($($test:ident),* $(,)?) => {
        mod sqlite {
            use crate::rig::Database;
            $(#[tokio::test] async fn $test() { super::$test(Database::Sqlite).await; })*
        }
        mod postgres {
            use crate::rig::Database;
            $(#[tokio::test] async fn $test() { super::$test(Database::Postgres).await; })*
        }
    };
}

mod bloat;
mod cancelling;
mod catalogue;
mod deciding;
mod dispatching;
mod environment;
mod expiring;
mod explained;
mod finishing;
mod growth;
mod lanes;
mod listing;
mod managing;
mod migrating;
mod plans;
mod rig;
mod sharing;
mod writing;
