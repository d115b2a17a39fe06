//! The process's HTTP listener.
//!
//! Connections have a bound, so that clients cannot use up the descriptors and the memory that deliveries
//! need. Beyond it some more are served just long enough to say how the process is, or that there are too
//! many; what comes beyond those waits. A connection that does nothing ends: a request's head must come within
//! 15 s, also on a connection that was used before, and a client that takes nothing of an answer for 30 s is
//! left.

mod patient;
mod places;

use crate::process::http::when_full;
use axum::Router;
use axum::extract::Request;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use patient::Patient;
pub(crate) use places::Places;
use std::convert::Infallible;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long open HTTP connections may take at the end.
pub(crate) const CLOSE: Duration = Duration::from_secs(2);

/// How long a client may take to send a request's headers; it is held a connection for no longer.
const HEADERS: Duration = Duration::from_secs(15);

/// The same where there are too many connections.
const HEADERS_WHEN_FULL: Duration = Duration::from_secs(2);

/// How long a client may take nothing of an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a connection holds at most of what it has read and nobody has taken, and so the largest head of a request.
/// It grows to that with large requests, and stays there: hyper's own 400 KiB are 50 MB with 128 connections.
const READ_BYTES: usize = 64 * 1024;

/// The most connections, where there are descriptors for more; each may hold [`READ_BYTES`].
const MAX_CONNECTIONS: usize = 2048;

/// How many connections a process may have that may open so many files: a quarter is for those who send to
/// it, the rest for those it sends to, and for its stores.
pub(crate) fn most_connections(descriptors: u64) -> usize {
    let quarter = usize::try_from(descriptors / 4).unwrap_or(usize::MAX);
    quarter.clamp(8, MAX_CONNECTIONS)
}

/// Serves until `close`; then open connections have a moment to end what they are at. Each connection gets
/// the routes as they are when it is opened. No more are served at a time than there are `places`.
pub(crate) async fn serve(
    listener: TcpListener,
    places: Places,
    app: watch::Receiver<Router>,
    close: CancellationToken,
) {
    let mut connections = JoinSet::new();
    let mut full = false;
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &places) => accepted,
            Some(_ended) = connections.join_next() => continue,
            () = close.cancelled() => break,
        };
        let Some((stream, when_full)) = accepted else { continue };
        let routes = app.borrow().clone();
        if let Some(place) = places.take() {
            // Said again only after there was room for as many as it takes to fill up.
            full &= places.free() < places.most() / 10;
            connections.spawn(connection(stream, place, routes, false, close.clone()));
        } else {
            places.refuse();
            if !std::mem::replace(&mut full, true) {
                tracing::warn!(
                    most = places.most(),
                    "there are as many connections as may be; further ones are refused"
                );
            }
            connections.spawn(connection(stream, when_full, routes, true, close.clone()));
        }
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(CLOSE, ended).await.is_err() {
        connections.shutdown().await;
    }
}

/// The next connection, with a place among those beyond the most, without which none is accepted.
async fn accept(listener: &TcpListener, places: &Places) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let place = places.extra().await?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, place)),
        Err(error) => {
            // Out of descriptors, mostly; those in use come free again.
            tracing::warn!(%error, "a connection could not be accepted");
            tokio::time::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}

/// Serves a connection, which keeps its place as long.
async fn connection(
    stream: TcpStream,
    place: OwnedSemaphorePermit,
    routes: Router,
    full: bool,
    close: CancellationToken,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection is gone already");
    }
    let stream = TokioIo::new(Patient::new(stream, PATIENCE));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).max_buf_size(READ_BYTES);
    if full {
        http.header_read_timeout(HEADERS_WHEN_FULL);
        let refuse = service_fn(move |request: Request<hyper::body::Incoming>| {
            let routes = routes.clone();
            async move { Ok::<_, Infallible>(when_full(request.map(axum::body::Body::new), routes).await) }
        });
        drop(tokio::time::timeout(HEADERS, http.serve_connection(stream, refuse)).await);
    } else {
        http.header_read_timeout(HEADERS);
        let mut served = std::pin::pin!(http.serve_connection(stream, TowerToHyperService::new(routes)));
        // How a client breaks off is its own affair.
        tokio::select! {
            ended = &mut served => drop(ended),
            () = close.cancelled() => {
                served.as_mut().graceful_shutdown();
                drop(served.await);
            }
        }
    }
    drop(place);
}

#[cfg(test)]
mod tests;
