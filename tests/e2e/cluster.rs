//! What is about RabbitMQ, PostgreSQL and several processes, whatever stack the other scenarios run on.
//! `tests/run` runs these once.
//!
//! | group | what it breaks or uses |
//! |---|---|
//! | `roles` | one process killed, frozen, terminated |
//! | `broker` | RabbitMQ killed, wiped, out of memory, a node of three killed |
//! | `database` | PostgreSQL killed, frozen, behind a pooler |
//! | `disk` | no room for the embedded file (with the long faults, though it is the other stack) |
//! | `producers` | events published over AMQP by others, malformed ones too |
//! | `tracing` | traces that begin with a message over AMQP |
//! | `upgrade` | an earlier version's processes, replaced one by one |
//! | `access` | TLS with a private authority, users with few rights |
//!
//! What destroys a server starts its own. RabbitMQ is never killed within seconds of a declaration:
//! `herald migrate` returns when the queues are old enough.

mod access;
mod broker;
mod database;
mod disk;
mod producers;
mod roles;
mod tracing;
mod upgrade;

use crate::scene::Scene;
use herald_tests::Herald;
use herald_tests::herald::Builder;
use herald_tests::services::Servers;

/// Whether to run what takes long: `HERALD_LONG`, which `tests/run --long` sets.
fn long() -> bool {
    let long = std::env::var_os("HERALD_LONG").is_some();
    if !long {
        crate::load::say("left out: it takes long; tests/run --long runs it");
    }
    long
}

/// A cluster on servers of its own.
fn on(servers: &Servers) -> Builder {
    Herald::builder().on(&servers.rabbitmq.url(), &servers.postgres.url())
}

/// A scene on servers of its own; it goes before they do.
struct OwnServers {
    scene: Scene,
    servers: Servers,
}

impl OwnServers {
    async fn start() -> Self {
        let servers = Servers::start().await;
        Self {
            scene: Scene::with(on(&servers)).await,
            servers,
        }
    }
}
