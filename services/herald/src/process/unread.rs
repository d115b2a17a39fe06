//! What an answer left unread of a request: it is read on, for a while, before the answer goes out.
//!
//! A client that sends its whole request before it looks for an answer would otherwise find the connection
//! reset, and never see why it was refused (RFC 9112, 9.6).

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::header::EXPECT;
use axum::middleware::Next;
use axum::response::Response;
use futures_util::StreamExt as _;
use hyper::body::{Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::oneshot;

/// What the system's buffers take in of a request that nobody reads.
const SMALL_BYTES: u64 = 64 * 1024;

/// How much of a request is read only to be dropped: twice what the largest may have.
const MAX_BYTES: usize = 16 << 20;

/// How long that may take.
const MAX_TIME: Duration = Duration::from_secs(10);

/// Answers a request, and before that reads what of its body the handler did not.
pub(crate) async fn read_on(request: Request, next: Next) -> Response {
    let told = hyper::body::Body::size_hint(request.body()).exact();
    if told.is_some_and(|bytes| bytes <= SMALL_BYTES) {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    // Such a client sends nothing before it is asked to, which reading does.
    let waits = parts.headers.contains_key(EXPECT);
    let (back, mut returned) = oneshot::channel();
    let lent = Lent {
        body,
        read: false,
        back: Some(back),
    };
    let response = next.run(Request::from_parts(parts, Body::new(lent))).await;
    if let Ok(rest) = returned.try_recv()
        && (rest.read || !waits)
    {
        // Whether it was all or not, the answer goes out now.
        let _elapsed = tokio::time::timeout(MAX_TIME, drain(rest.body)).await;
    }
    response
}

async fn drain(body: Body) {
    let (mut chunks, mut bytes) = (body.into_data_stream(), 0);
    while let Some(Ok(chunk)) = chunks.next().await {
        bytes += chunk.len();
        if bytes > MAX_BYTES {
            return;
        }
    }
}

/// What is left of a body.
struct Rest {
    body: Body,
    read: bool,
}

/// A body that is handed back when it is dropped.
struct Lent {
    body: Body,
    /// Whether anything of it was asked for.
    read: bool,
    back: Option<oneshot::Sender<Rest>>,
}

impl hyper::body::Body for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.read = true;
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let Some(back) = self.back.take() else { return };
        let rest = Rest {
            body: std::mem::take(&mut self.body),
            read: self.read,
        };
        // Nobody waits for it where the connection is gone.
        drop(back.send(rest));
    }
}
