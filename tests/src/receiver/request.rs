//! A recorded request, and reading one from the wire.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use ring::signature::{ED25519, UnparsedPublicKey};
use std::io;
use std::time::Instant;
use tokio::io::{AsyncRead, AsyncReadExt};

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    /// Such as `POST`.
    pub method: String,
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// When it was complete.
    pub at: Instant,
    /// Which HTTP it came over.
    pub version: http::Version,
    /// Which connection it came on, from 1.
    pub connection: u64,
    /// How many requests with this `webhook-id` have come to this path, this one included.
    pub repeat: usize,
}

impl Request {
    /// A header as text; empty where it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body in UTF-8")
    }

    /// `Webhook-Event-Id`.
    pub fn event_id(&self) -> &str {
        self.header("webhook-event-id")
    }

    /// `Webhook-Attempt`.
    pub fn attempt(&self) -> u32 {
        self.header("webhook-attempt")
            .parse()
            .expect("a number in Webhook-Attempt")
    }

    /// Whether the independent implementation of Standard Webhooks accepts the signature.
    pub fn verifies_with(&self, signing_secret: &str) -> bool {
        let verifier = standardwebhooks::Webhook::new(signing_secret).expect("a whsec_ secret");
        verifier.verify(&self.body, &self.headers).is_ok()
    }

    /// Whether a `v1a` signature of it verifies with a subscription's `PublicKey`.
    pub fn verifies_with_public_key(&self, public_key: &str) -> bool {
        let decode = |base64: &str| BASE64_STANDARD.decode(base64).expect("it is base64");
        let key = decode(public_key.strip_prefix("whpk_").expect("a whpk_ key"));
        let key = UnparsedPublicKey::new(&ED25519, key);
        let front = format!("{}.{}.", self.header("webhook-id"), self.header("webhook-timestamp"));
        let signed = [front.as_bytes(), &self.body].concat();
        let given = self.header("webhook-signature").split(' ');
        given
            .filter_map(|one| one.strip_prefix("v1a,"))
            .any(|one| key.verify(&signed, &decode(one)).is_ok())
    }

    /// The same with the key's bytes instead of their base64.
    pub fn verifies_with_key(&self, key: &[u8]) -> bool {
        let verifier = standardwebhooks::Webhook::from_bytes(key.to_vec()).expect("any key will do");
        verifier.verify(&self.body, &self.headers).is_ok()
    }
}

/// Reads the next request of a connection, or nothing where it ended between two.
pub(super) async fn read_request(
    wire: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
    connection: u64,
) -> io::Result<Option<Request>> {
    let head_end = loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        if wire.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    };
    let head = String::from_utf8_lossy(&buffer.split_to(head_end)).into_owned();
    buffer.advance(4);
    let mut lines = head.split("\r\n");
    let mut first = lines.next().unwrap_or_default().split(' ');
    let mut next = || first.next().unwrap_or_default().to_owned();
    let (method, path) = (next(), next());
    let headers: HeaderMap = lines.filter_map(header).collect();
    let length = headers
        .get("content-length")
        .and_then(|length| length.to_str().ok()?.parse().ok());
    let length: usize = length.unwrap_or_default();
    while buffer.len() < length {
        if wire.read_buf(buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let body = buffer.split_to(length).freeze();
    Ok(Some(Request {
        method,
        path,
        headers,
        body,
        at: Instant::now(),
        version: http::Version::HTTP_11,
        connection,
        repeat: 0,
    }))
}

fn header(line: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = line.split_once(':')?;
    Some((name.parse().ok()?, value.trim().parse().ok()?))
}
