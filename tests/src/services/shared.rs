//! A place of one's own on the servers that `tests/with-services` started.

use super::management::Management;
use super::postgres::query;
use std::future::Future;
use uuid::Uuid;

/// Names the shared broker's AMQP URL, vhost `/`.
pub const RABBITMQ: &str = "HERALD_TEST_RABBITMQ";
/// Names the URL of its management API, with the user.
pub const RABBITMQ_API: &str = "HERALD_TEST_RABBITMQ_API";
/// Names the URL of the shared server's database `postgres`, as a superuser.
pub const POSTGRES: &str = "HERALD_TEST_POSTGRES";

fn shared(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| {
        panic!("{variable} is not set: run this under tests/with-services, as in `tests/with-services cargo test …`")
    })
}

/// An own vhost on the shared broker, removed when dropped.
#[derive(Debug)]
pub struct Vhost {
    name: String,
    management: Management,
    url: String,
}

impl Vhost {
    /// Makes an empty one.
    pub async fn create() -> Self {
        let (broker, api) = (shared(RABBITMQ), shared(RABBITMQ_API));
        let (server, _root) = broker.rsplit_once('/').expect("an AMQP URL with a vhost");
        let name = unique();
        let management = Management::new(&api);
        management.make_vhost(&name).await;
        Self {
            url: format!("{server}/{name}"),
            name,
            management,
        }
    }

    /// The AMQP URL of the vhost.
    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The broker's management API.
    pub fn management(&self) -> &Management {
        &self.management
    }
}

impl Drop for Vhost {
    fn drop(&mut self) {
        let name = &self.name;
        let api = shared(RABBITMQ_API);
        // A client belongs to the runtime that it was used on, so the new runtime gets a new client.
        block_on(async move { Management::new(&api).remove_vhost(name).await });
    }
}

/// An own database on the shared server, dropped when dropped.
#[derive(Debug)]
pub struct Database {
    name: String,
    server: String,
}

impl Database {
    /// Makes an empty one.
    pub fn create() -> Self {
        Self::make("")
    }

    /// Makes a copy of another one, to which nobody may be connected.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self::make(&format!("TEMPLATE {}", self.name))
    }

    fn make(how: &str) -> Self {
        let server = shared(POSTGRES);
        let name = unique();
        query(&server, &format!("CREATE DATABASE {name} {how}"));
        Self { name, server }
    }

    /// Its URL, as a superuser.
    pub fn url(&self) -> String {
        let (server, _database) = self.server.rsplit_once('/').expect("a URL with a database");
        format!("{server}/{}", self.name)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        query(&self.server, &format!("DROP DATABASE {} WITH (FORCE)", self.name));
    }
}

/// A name that is one in SQL, in a URL and in a vhost, without quotes.
fn unique() -> String {
    format!("herald_{}", Uuid::new_v4().simple())
}

/// Waits for a future where nothing can be awaited.
fn block_on(future: impl Future<Output = ()> + Send) {
    // On a thread of its own, because this one may be a runtime's already, where another may neither be
    // waited for nor dropped. What could not be removed goes with the server.
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(future);
        });
        drop(waiting.join());
    });
}
