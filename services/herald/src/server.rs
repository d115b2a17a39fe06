//! The process's HTTP listener.

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long open HTTP connections may take at the end.
pub(crate) const CLOSE: Duration = Duration::from_secs(2);

/// How long a client may take to send a request's headers; it is held a connection for no longer.
const HEADERS: Duration = Duration::from_secs(15);

/// What a connection holds at most of what it has read and nobody has taken, and so the largest head of a request.
/// It grows to that with large requests, and stays there: hyper's own 400 KiB are 50 MB with 128 connections.
const READ_BYTES: usize = 64 * 1024;

/// Serves until `close`; then open connections have a moment to end what they are at. Each connection gets
/// the routes as they are when it is opened.
pub(crate) async fn serve(listener: TcpListener, app: watch::Receiver<Router>, close: CancellationToken) {
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        .max_buf_size(READ_BYTES);
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors, mostly; those in use come free again.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            Some(_ended) = connections.join_next() => continue,
            () = close.cancelled() => break,
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection is gone already");
        }
        let routes = app.borrow().clone();
        let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
        let close = close.clone();
        connections.spawn(async move {
            let mut connection = std::pin::pin!(connection);
            // How a client breaks off is its own affair.
            tokio::select! {
                ended = &mut connection => drop(ended),
                () = close.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    drop(connection.await);
                }
            }
        });
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(CLOSE, ended).await.is_err() {
        connections.shutdown().await;
    }
}
