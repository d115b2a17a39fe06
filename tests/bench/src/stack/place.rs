//! Where a stack keeps what it has: a vhost and a database of its own.

use super::Kind;
use herald_tests::services::{Management, Servers, query};
use uuid::Uuid;

/// A vhost and a database, as far as the stack uses them.
#[derive(Debug)]
pub(super) struct Place {
    name: String,
    management: Management,
    server: String,
    /// The vhost's URL.
    pub(super) broker: String,
    /// The database's URL.
    pub(super) database: String,
}

impl Place {
    pub(super) async fn make(kind: Kind, servers: &Servers) -> Self {
        let name = format!("bench_{}", Uuid::new_v4().simple());
        let within = |url: &str| {
            let (server, _default) = url.rsplit_once('/').expect("a URL with a path");
            format!("{server}/{name}")
        };
        let (broker, server) = (within(&servers.rabbitmq.url()), servers.postgres.url());
        let (database, management) = (within(&server), servers.rabbitmq.management());
        let (vhost, ledger) = kind.stores();
        if vhost {
            management.make_vhost(&name).await;
        }
        if ledger {
            query(&server, &format!("CREATE DATABASE {name}"));
        }
        Self {
            name,
            management,
            server,
            broker,
            database,
        }
    }

    pub(super) async fn remove(self, kind: Kind) {
        let (vhost, ledger) = kind.stores();
        if vhost {
            self.management.remove_vhost(&self.name).await;
        }
        if ledger {
            query(&self.server, &format!("DROP DATABASE {} WITH (FORCE)", self.name));
        }
    }
}
