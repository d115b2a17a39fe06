//! Herald's HTTP API, as any client sees it.

use anyhow::{Context, ensure};
use reqwest::{Client, RequestBuilder, StatusCode, header};
use serde_json::Value;
use std::net::SocketAddr;
use std::time::Duration;

/// How long a request may take: far longer than it should.
const MAX_REQUEST_TIME: Duration = Duration::from_secs(10);

/// A client with a key.
#[derive(Debug)]
pub(super) struct Api {
    client: Client,
    base: String,
    key: String,
}

impl Api {
    pub(super) fn new(address: SocketAddr, key: &str) -> anyhow::Result<Self> {
        let client = Client::builder()
            .no_proxy()
            .timeout(MAX_REQUEST_TIME)
            .build()
            .context("the HTTP client could not be made")?;
        Ok(Self {
            client,
            base: format!("http://{address}"),
            key: key.to_owned(),
        })
    }

    pub(super) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        let request = self.client.get(format!("{}{path}", self.base));
        self.ask(request, StatusCode::OK)
            .await
            .with_context(|| format!("GET {path}"))
    }

    pub(super) async fn post(&self, path: &str, body: &Value, expected: StatusCode) -> anyhow::Result<Value> {
        let request = self.client.post(format!("{}{path}", self.base));
        let request = request
            .header(header::CONTENT_TYPE, "application/json")
            .body(body.to_string());
        self.ask(request, expected)
            .await
            .with_context(|| format!("POST {path}"))
    }

    pub(super) async fn put(&self, path: &str, body: &Value, expected: StatusCode) -> anyhow::Result<Value> {
        let request = self.client.put(format!("{}{path}", self.base));
        let request = request
            .header(header::CONTENT_TYPE, "application/json")
            .body(body.to_string());
        self.ask(request, expected).await.with_context(|| format!("PUT {path}"))
    }

    async fn ask(&self, request: RequestBuilder, expected: StatusCode) -> anyhow::Result<Value> {
        let response = request.bearer_auth(&self.key).send().await?;
        let status = response.status();
        let text = response.text().await?;
        ensure!(status == expected, "{status} where {expected} was expected: {text}");
        serde_json::from_str(&text).with_context(|| format!("the answer is not JSON: {text}"))
    }
}
