//! Real servers, private to the tests.
//!
//! | type | what it is |
//! |---|---|
//! | [`RabbitMq`], [`Postgres`] | a server of one's own, to be killed, frozen, wiped; on loopback, in a temporary folder |
//! | [`Vhost`], [`Database`] | a place of one's own on the servers that `tests/with-services` shares among all tests |
//! | [`PgBouncer`] | a pooler before a database |
//! | [`Ground`] | one of each, prepared by `herald migrate` and ready to be built on |
//! | [`Management`] | RabbitMQ's management API |
//!
//! All of it goes when it is dropped, and when the test process dies too.

mod ground;
mod management;
mod pooler;
mod postgres;
mod program;
mod rabbitmq;
mod shared;

pub use ground::{Ground, migrate};
pub use management::Management;
pub use pooler::PgBouncer;
pub use postgres::{Postgres, dump, query, restore, try_query};
pub use rabbitmq::RabbitMq;
pub use shared::{Database, POSTGRES, RABBITMQ, RABBITMQ_API, Vhost};

use std::path::{Path, PathBuf};
use std::process::Output;

/// A RabbitMQ and a PostgreSQL of one's own.
#[derive(Debug)]
pub struct Servers {
    pub rabbitmq: RabbitMq,
    pub postgres: Postgres,
}

impl Servers {
    /// Starts both, and waits until they serve.
    pub async fn start() -> Self {
        let (rabbitmq, postgres) = tokio::join!(RabbitMq::start(), Postgres::start());
        Self { rabbitmq, postgres }
    }

    /// [`Self::start`] with [`Postgres::start_volatile`]: hundreds of databases are made and dropped by tests, and a
    /// slow disk would be what they wait for.
    pub async fn start_volatile() -> Self {
        let (rabbitmq, postgres) = tokio::join!(RabbitMq::start(), Postgres::start_volatile());
        Self { rabbitmq, postgres }
    }
}

/// A program in one of the folders or in `PATH`.
fn find_program(name: &str, folders: &[&str]) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = folders.iter().map(PathBuf::from).chain(std::env::split_paths(&path));
    let mut candidates = folders.map(|folder| folder.join(name));
    let found = candidates.find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{name} is not installed; tests/install installs it or says what to install"))
}

fn output_of(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    format!("{}\n{}", text(&output.stdout), text(&output.stderr))
}

fn log_of(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap_or_else(|error| format!("{}: {error}", file.display()))
}

#[cfg(test)]
mod tests;
