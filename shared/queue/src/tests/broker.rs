//! A vhost of a test's own on the RabbitMQ that the test run brings along.

use crate::rabbitmq::{Rabbit, Settings};
use herald_domain::time::SystemClock;
use herald_telemetry::health::Health;
use reqwest::{Client, Method, Response, StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// The vhost; it is deleted with this.
pub(super) struct Vhost {
    server: Server,
    name: String,
}

#[derive(Clone)]
struct Server {
    client: Client,
    /// `amqp://user:password@host:port`
    amqp: String,
    api: String,
    user: String,
    password: String,
}

fn setting(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_unset| {
        panic!("{name} is not set: these tests need a RabbitMQ; run tests/run, or tests/with-services cargo test ...")
    })
}

/// They are told with each request; said twice, they are a bad request.
fn without_credentials(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
        _ => url.to_owned(),
    }
}

impl Server {
    fn new() -> Self {
        drop(rustls::crypto::ring::default_provider().install_default());
        let amqp = setting("HERALD_TEST_RABBITMQ");
        let authority = amqp.strip_prefix("amqp://").expect("HERALD_TEST_RABBITMQ is amqp://…");
        let authority = authority.split('/').next().unwrap();
        let (credentials, _) = authority.split_once('@').unwrap_or(("guest:guest", authority));
        let (user, password) = credentials.split_once(':').unwrap();
        Self {
            client: Client::builder().no_proxy().build().unwrap(),
            amqp: format!("amqp://{authority}"),
            api: without_credentials(setting("HERALD_TEST_RABBITMQ_API").trim_end_matches('/')),
            user: user.to_owned(),
            password: password.to_owned(),
        }
    }

    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Response {
        let request = self
            .client
            .request(method, format!("{}/api/{path}", self.api))
            .basic_auth(&self.user, Some(&self.password))
            .header("content-type", "application/json")
            .body(body.unwrap_or_else(|| json!({})).to_string());
        request.send().await.expect("RabbitMQ's management API answers")
    }

    async fn must(&self, method: Method, path: &str, body: Option<Value>) -> String {
        let response = self.call(method, path, body).await;
        let (status, path) = (response.status(), path.to_owned());
        let text = response.text().await.unwrap();
        assert!(status.is_success(), "{path}: {status} {text}");
        text
    }
}

impl Vhost {
    pub(super) async fn new() -> Self {
        let server = Server::new();
        let name = format!("herald-test-{}", Uuid::new_v4());
        server.must(Method::PUT, &format!("vhosts/{name}"), None).await;
        let vhost = Self { server, name };
        vhost.permit(&vhost.server.user, [".*", ".*", ".*"]).await;
        vhost
    }

    /// What the user may configure, write and read here.
    async fn permit(&self, user: &str, [configure, write, read]: [&str; 3]) {
        let rights = json!({"configure": configure, "write": write, "read": read});
        let path = format!("permissions/{}/{user}", self.name);
        self.server.must(Method::PUT, &path, Some(rights)).await;
    }

    /// A URL to here for another user, who may do that much.
    pub(super) async fn another_user(&self, rights: [&str; 3]) -> (String, String) {
        let user = format!("u-{}", Uuid::new_v4());
        let account = json!({"password": "p", "tags": ""});
        self.server
            .must(Method::PUT, &format!("users/{user}"), Some(account))
            .await;
        self.permit(&user, rights).await;
        let (_, host) = self.server.amqp.rsplit_once('@').unwrap();
        (format!("amqp://{user}:p@{host}/{}", self.name), user)
    }

    pub(super) async fn delete_user(&self, user: &str) {
        self.server.must(Method::DELETE, &format!("users/{user}"), None).await;
    }

    pub(super) fn url(&self) -> String {
        format!("{}/{}", self.server.amqp, self.name)
    }

    pub(super) fn settings(&self) -> Settings {
        settings(&self.url())
    }

    /// The queue here, connected.
    pub(super) async fn open(&self) -> Rabbit {
        let rabbit = open(self.settings());
        super::until(async || rabbit.status().publisher_connected).await;
        rabbit
    }

    /// Closes every connection that there is; how many there were.
    pub(super) async fn close_connections(&self) -> usize {
        let path = format!("vhosts/{}/connections", self.name);
        let connections: Value = serde_json::from_str(&self.server.must(Method::GET, &path, None).await).unwrap();
        let mut closed = 0;
        for connection in connections.as_array().unwrap() {
            let name = connection["name"].as_str().unwrap_or_default().replace(' ', "%20");
            let name = name.replace('>', "%3E");
            let path = format!("connections/{name}");
            let response = self.server.call(Method::DELETE, &path, None).await;
            closed += usize::from(response.status() == StatusCode::NO_CONTENT);
        }
        closed
    }

    /// Sets what holds for all queues here.
    pub(super) async fn policy(&self, definition: Value) {
        let policy = json!({"pattern": ".*", "definition": definition, "apply-to": "queues"});
        let path = format!("policies/{}/test", self.name);
        self.server.must(Method::PUT, &path, Some(policy)).await;
    }

    /// How many messages that queue has, or none if it is not there.
    pub(super) async fn messages(&self, queue: &str) -> Option<u64> {
        let settings = self.settings();
        let connection = settings.connect("test").await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        let passive = lapin::options::QueueDeclareOptions::default().passive();
        let asked = channel.queue_declare(queue.into(), passive, lapin::types::FieldTable::default());
        asked.await.ok().map(|queue| queue.message_count().into())
    }
}

/// Settings that do not wait for queues to settle: nothing kills the server of a test.
pub(super) fn settings(url: &str) -> Settings {
    let mut settings = Settings::new(url).unwrap();
    settings.settle = Duration::from_millis(100);
    settings
}

/// The queue there, running.
pub(super) fn open(settings: Settings) -> Rabbit {
    let (rabbit, publisher) = Rabbit::open(settings, Arc::new(SystemClock), Health::default());
    tokio::spawn(publisher);
    rabbit
}

impl Drop for Vhost {
    fn drop(&mut self) {
        let (server, name) = (self.server.clone(), self.name.clone());
        // On a thread, because a test that failed is not to be waited for in its own runtime.
        let deleting = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let server = Server {
                client: Client::builder().no_proxy().build().unwrap(),
                ..server
            };
            runtime
                .block_on(server.call(Method::DELETE, &format!("vhosts/{name}"), None))
                .status()
        });
        drop(deleting.join());
    }
}
