//! A client of the public API.

use crate::tls::install_crypto;
use crate::wait::{PATIENCE, wait_until};
use bytes::Bytes;
use http::{HeaderMap, Method};
use serde_json::Value;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(30);

/// Talks to one Herald with one key; cheap to clone.
#[derive(Debug, Clone)]
pub struct Api {
    client: reqwest::Client,
    base: String,
    events: String,
    key: Option<String>,
}

impl Api {
    /// A client of the server at `base`.
    pub fn new(base: &str, key: &str) -> Self {
        install_crypto();
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(TIMEOUT)
            .build()
            .expect("a client");
        Self {
            client,
            base: base.to_owned(),
            events: base.to_owned(),
            key: Some(key.to_owned()),
        }
    }

    /// The same, where events are taken by another server than the one that serves the rest.
    #[must_use]
    pub fn with_events_at(self, base: &str) -> Self {
        Self {
            events: base.to_owned(),
            ..self
        }
    }

    /// The same server, with another key.
    #[must_use]
    pub fn with_key(&self, key: &str) -> Self {
        Self {
            key: Some(key.to_owned()),
            ..self.clone()
        }
    }

    /// The same server, without a key.
    #[must_use]
    pub fn without_key(&self) -> Self {
        Self {
            key: None,
            ..self.clone()
        }
    }

    /// A request to be built further; [`Reply::of`] sends it.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let takes_events = path.split('?').next() == Some("/v1/events");
        let base = if takes_events { &self.events } else { &self.base };
        let request = self.client.request(method, format!("{base}{path}"));
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    /// GET, where the server may be away.
    pub async fn try_get(&self, path: &str) -> reqwest::Result<Reply> {
        Reply::of(self.request(Method::GET, path)).await
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.try_get(path)
            .await
            .unwrap_or_else(|error| panic!("GET {path}: {error:?}"))
    }

    /// A request with a JSON body, where the server may be away.
    pub async fn try_send(&self, method: Method, path: &str, body: &Value) -> reqwest::Result<Reply> {
        let request = self.request(method, path).header("content-type", "application/json");
        Reply::of(request.body(body.to_string())).await
    }

    /// A request with a JSON body.
    pub async fn send(&self, method: Method, path: &str, body: &Value) -> Reply {
        let what = format!("{method} {path}");
        self.try_send(method, path, body)
            .await
            .unwrap_or_else(|error| panic!("{what}: {error:?}"))
    }

    /// POST of a JSON body.
    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        self.send(Method::POST, path, body).await
    }

    /// PATCH with a merge patch.
    pub async fn patch(&self, path: &str, body: &Value) -> Reply {
        self.send(Method::PATCH, path, body).await
    }

    pub async fn delete(&self, path: &str) -> Reply {
        Reply::of(self.request(Method::DELETE, path))
            .await
            .unwrap_or_else(|error| panic!("DELETE {path}: {error:?}"))
    }

    /// POST of any bytes as any type.
    pub async fn post_raw(&self, path: &str, content_type: &str, body: impl Into<reqwest::Body>) -> Reply {
        let request = self
            .request(Method::POST, path)
            .header("content-type", content_type)
            .body(body);
        Reply::of(request)
            .await
            .unwrap_or_else(|error| panic!("POST {path}: {error:?}"))
    }

    /// Makes a subscription.
    pub async fn subscribe(&self, body: &Value) -> Subscription {
        let reply = self.post("/v1/subscriptions", body).await.expect(201);
        Subscription(reply.json())
    }

    /// Publishes one event, and gives the `Id` of the answer.
    pub async fn publish(&self, event: &Value) -> String {
        let reply = self.publish_raw("application/json", &event.to_string()).await;
        text(&reply.json()["Id"]).to_owned()
    }

    /// Publishes several events in one request, and gives the `Ids` of the answer.
    pub async fn publish_all(&self, events: &[Value]) -> Vec<String> {
        let body = Value::from(events).to_string();
        let reply = self.publish_raw("application/json", &body).await.json();
        reply["Ids"]
            .as_array()
            .expect("Ids for an array")
            .iter()
            .map(|id| text(id).to_owned())
            .collect()
    }

    /// Publishes as the contract has producers do it: a 503, which is what a broker gets them that takes
    /// over 2 s to confirm, as one on a busy machine does, is obeyed. Events need an `Id`, which makes one
    /// that is sent again the same event.
    pub async fn publish_raw(&self, content_type: &str, body: &str) -> Reply {
        wait_until("the events are accepted", PATIENCE, async || {
            let reply = self.post_raw("/v1/events", content_type, body.to_owned()).await;
            if reply.status == 503 {
                let pause: u64 = reply.header("retry-after").parse().expect("seconds after a 503");
                #[expect(
                    clippy::print_stderr,
                    reason = "it goes with the output of a test that fails, and a test that is slow of it can be told"
                )]
                {
                    eprintln!("503, tried again in {pause} s: {}", reply.text());
                }
                tokio::time::sleep(Duration::from_secs(pause)).await;
                return None;
            }
            Some(reply.expect(202))
        })
        .await
    }

    /// The items of a list, all pages.
    pub async fn list(&self, path: &str) -> Vec<Value> {
        let joint = if path.contains('?') { '&' } else { '?' };
        let mut items = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = self
                .get(&format!("{path}{joint}Limit=500{cursor}"))
                .await
                .expect(200)
                .json();
            items.extend_from_slice(page["Items"].as_array().unwrap_or_else(|| panic!("no Items in {page}")));
            match page["NextCursor"].as_str() {
                Some(next) => cursor = format!("&Cursor={next}"),
                None => return items,
            }
        }
    }

    /// The deliveries of a subscription.
    pub async fn deliveries_of(&self, subscription: &str) -> Vec<Value> {
        self.list(&format!("/v1/deliveries?Subscription={subscription}")).await
    }

    /// One delivery with its attempts.
    pub async fn delivery(&self, id: &str) -> Value {
        self.get(&format!("/v1/deliveries/{id}")).await.expect(200).json()
    }

    /// Waits until a subscription's only delivery has that status, and gives it with its attempts.
    pub async fn delivery_with(&self, subscription: &str, status: &str) -> Value {
        self.deliveries_with(subscription, 1, status).await.swap_remove(0)
    }

    /// Waits until a subscription has that many deliveries, all with that status, and gives them with
    /// their attempts.
    pub async fn deliveries_with(&self, subscription: &str, count: usize, status: &str) -> Vec<Value> {
        let what = format!("{count} deliveries of {subscription} are {status}");
        let deliveries = wait_until(&what, PATIENCE, async || {
            let deliveries = self.deliveries_of(subscription).await;
            let all = deliveries.iter().all(|delivery| delivery["Status"] == status);
            (all && deliveries.len() >= count).then_some(deliveries)
        });
        let deliveries = deliveries.await;
        assert_eq!(deliveries.len(), count, "{deliveries:#?}");
        let mut whole = Vec::new();
        for delivery in deliveries {
            whole.push(self.delivery(text(&delivery["Id"])).await);
        }
        whole
    }

    /// Makes an account with those roles, and a client with a key of it.
    pub async fn account(&self, name: &str, roles: &[&str]) -> Account {
        let body = serde_json::json!({ "Name": name, "Roles": roles });
        let account = self.post("/v1/accounts", &body).await.expect(201).json();
        let id = text(&account["Id"]).to_owned();
        let path = format!("/v1/accounts/{id}/keys");
        let key = self.post(&path, &serde_json::json!({})).await.expect(201).json();
        let api = self.with_key(text(&key["Key"]));
        Account { id, api, key }
    }

    /// Permits an account to listen to an object.
    pub async fn grant(&self, account: &str, object_type: u16, object: Option<uuid::Uuid>) -> Value {
        let body = serde_json::json!({ "ObjectType": object_type, "ObjectGUID": object });
        let reply = self.post(&format!("/v1/accounts/{account}/grants"), &body).await;
        assert!((200..300).contains(&reply.status), "{reply:?}");
        if reply.body.is_empty() {
            Value::Null
        } else {
            reply.json()
        }
    }
}

/// An account that a test made.
#[derive(Debug)]
pub struct Account {
    pub id: String,
    /// A client with its key.
    pub api: Api,
    /// The answer that the key came in.
    pub key: Value,
}

/// The answer to create or rotate a subscription.
#[derive(Debug, Clone)]
pub struct Subscription(pub Value);

impl Subscription {
    pub fn guid(&self) -> &str {
        text(&self.0["GUID"])
    }

    /// Its path in the API.
    pub fn path(&self) -> String {
        format!("/v1/subscriptions/{}", self.guid())
    }

    /// The secret for Standard Webhooks verifiers.
    pub fn signing_secret(&self) -> &str {
        text(&self.0["SigningSecret"])
    }
}

/// A text in JSON, or a panic that shows what is there instead.
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is not text"))
}

/// An answer, read whole.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    /// Sends a request and reads the answer.
    pub async fn of(request: reqwest::RequestBuilder) -> reqwest::Result<Self> {
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Ok(Self {
            status,
            headers,
            body: response.bytes().await?,
        })
    }

    /// Panics unless the status is that.
    #[expect(
        clippy::return_self_not_must_use,
        reason = "often the status is all that a test asks"
    )]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }

    /// A header as text; empty where it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("an answer in UTF-8")
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {:?}", self.text()))
    }

    /// Panics unless it is a problem as RFC 9457 and the contract have it, of that status.
    #[must_use]
    pub fn problem(self, status: u16) -> Problem {
        let reply = self.expect(status);
        assert_eq!(
            reply.header("content-type"),
            "application/problem+json",
            "{}",
            reply.text()
        );
        let problem = reply.json();
        assert_eq!(problem["status"], status, "{problem}");
        for member in ["type", "title", "detail"] {
            assert!(!text(&problem[member]).is_empty(), "{member} is empty in {problem}");
        }
        Problem(problem)
    }
}

/// A problem answer.
#[derive(Debug)]
pub struct Problem(pub Value);

impl Problem {
    /// Pointer and rule of each fault.
    pub fn faults(&self) -> Vec<(&str, &str)> {
        let errors = self.0["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
        errors
            .iter()
            .map(|error| (text(&error["pointer"]), text(&error["rule"])))
            .collect()
    }

    /// Panics unless it names that fault.
    #[must_use]
    pub fn naming(self, pointer: &str, rule: &str) -> Self {
        assert!(
            self.faults().contains(&(pointer, rule)),
            "{pointer} {rule} is not in {:#}",
            self.0
        );
        self
    }

    /// Panics unless its text contains that.
    pub fn saying(&self, words: &str) {
        assert!(self.0.to_string().contains(words), "{words:?} is not in {:#}", self.0);
    }
}
