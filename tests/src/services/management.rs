//! RabbitMQ's management API, as far as the tests need it.

use crate::api::Reply;
use crate::tls::install_crypto;
use http::Method;
use serde_json::{Value, json};
use std::time::Duration;

/// A client of one broker's management API.
#[derive(Debug, Clone)]
pub struct Management {
    client: reqwest::Client,
    base: String,
}

impl Management {
    /// For `http://user:password@host:port`.
    pub fn new(base: &str) -> Self {
        install_crypto();
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(30))
            .build()
            .expect("a client");
        Self {
            client,
            base: base.to_owned(),
        }
    }

    /// GET, where the API may not be up yet.
    pub async fn try_get(&self, path: &str) -> Option<Value> {
        let reply = self.send(Method::GET, path, None).await.ok()?;
        (reply.status == 200).then(|| reply.json())
    }

    /// A request that must succeed.
    pub async fn call(&self, method: Method, path: &str, body: Option<Value>) {
        let what = format!("{method} {path}");
        let reply = self
            .send(method, path, body)
            .await
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!((200..300).contains(&reply.status), "{what}: {reply:?}");
    }

    async fn send(&self, method: Method, path: &str, body: Option<Value>) -> reqwest::Result<Reply> {
        let mut request = self.client.request(method, format!("{}/api{path}", self.base));
        if let Some(body) = body {
            request = request
                .header("content-type", "application/json")
                .body(body.to_string());
        }
        Reply::of(request).await
    }

    /// Makes a vhost, where whoever makes it may do everything.
    pub async fn make_vhost(&self, name: &str) {
        self.call(Method::PUT, &format!("/vhosts/{name}"), None).await;
    }

    /// Removes a vhost with all that is in it.
    pub async fn remove_vhost(&self, name: &str) {
        self.call(Method::DELETE, &format!("/vhosts/{name}"), None).await;
    }

    /// Makes a user whose password is its name, with these rights to configure, write and read.
    pub async fn make_user(&self, name: &str, vhost: &str, [configure, write, read]: [&str; 3]) {
        let user = json!({ "password": name, "tags": "" });
        self.call(Method::PUT, &format!("/users/{name}"), Some(user)).await;
        let rights = json!({ "configure": configure, "write": write, "read": read });
        self.call(Method::PUT, &format!("/permissions/{vhost}/{name}"), Some(rights))
            .await;
    }

    pub async fn remove_user(&self, name: &str) {
        self.call(Method::DELETE, &format!("/users/{name}"), None).await;
    }

    /// Closes every connection of a vhost from the broker's side, and says how many there were.
    pub async fn close_connections(&self, vhost: &str) -> usize {
        let connections = self.try_get(&format!("/vhosts/{vhost}/connections")).await;
        let connections = connections.expect("the vhost is there");
        let names = connections.as_array().expect("a list");
        for connection in names {
            let name = connection["name"].as_str().expect("connections have names");
            // Names such as `127.0.0.1:40000 -> 127.0.0.1:5672`.
            let name = name.replace(' ', "%20").replace('>', "%3E");
            // One that went away by itself in the meantime is as closed as one that is closed here.
            drop(self.send(Method::DELETE, &format!("/connections/{name}"), None).await);
        }
        names.len()
    }
}
