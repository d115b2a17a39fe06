//! A subscriber's endpoint on this machine: every path, any answer.

use anyhow::Context;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use herald_domain::time::{Clock, SystemClock, Timestamp};
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// How many messages may wait to be looked at; beyond it, senders wait for their answer.
const WAITING: usize = 1024;

/// A message that came, and how it was answered.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) at: Timestamp,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) answer: StatusCode,
}

impl Received {
    /// A header's value, if it is there and text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// `Webhook-Attempt`; 1 where a sender does not count.
    pub(crate) fn attempt(&self) -> u32 {
        attempt(&self.headers)
    }
}

fn attempt(headers: &HeaderMap) -> u32 {
    headers
        .get("webhook-attempt")
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .unwrap_or(1)
}

/// Receives until it is dropped.
#[derive(Debug)]
pub(crate) struct Receiver {
    address: SocketAddr,
    messages: mpsc::Receiver<Received>,
    server: JoinHandle<()>,
}

type Answer = Arc<dyn Fn(&str, u32) -> StatusCode + Send + Sync>;

#[derive(Clone)]
struct Endpoint {
    answer: Answer,
    messages: mpsc::Sender<Received>,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Endpoint")
    }
}

impl Receiver {
    /// Listens on 127.0.0.1, on a free port if `port` is 0. `answer` says how a message to a path is
    /// answered at its n-th attempt.
    pub(crate) async fn start(
        port: u16,
        answer: impl Fn(&str, u32) -> StatusCode + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .await
            .with_context(|| format!("cannot listen on 127.0.0.1:{port}; --port 0 takes any that is free"))?;
        let address = listener.local_addr()?;
        let (sender, messages) = mpsc::channel(WAITING);
        let app = Router::new().fallback(receive).with_state(Endpoint {
            answer: Arc::new(answer),
            messages: sender,
        });
        let server = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, app).await {
                tracing::error!(%error, "the receiver failed");
            }
        });
        Ok(Self {
            address,
            messages,
            server,
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next message; none when the server has failed.
    pub(crate) async fn next(&mut self) -> Option<Received> {
        self.messages.recv().await
    }

    /// A message that has come already.
    pub(crate) fn waiting(&mut self) -> Option<Received> {
        self.messages.try_recv().ok()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn receive(
    State(endpoint): State<Endpoint>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Result<StatusCode, (StatusCode, &'static str)> {
    if method != Method::POST {
        return Err((StatusCode::METHOD_NOT_ALLOWED, "messages come by POST\n"));
    }
    let answer = (endpoint.answer)(uri.path(), attempt(&headers));
    let received = Received {
        at: SystemClock.now(),
        path: uri.path().to_owned(),
        headers,
        body,
        answer,
    };
    // Handed over before it is answered, so that whoever saw the answer can find the message.
    match endpoint.messages.send(received).await {
        Ok(()) => Ok(answer),
        Err(_ending) => Err((StatusCode::SERVICE_UNAVAILABLE, "the receiver is stopping\n")),
    }
}
