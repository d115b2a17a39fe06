//! A real subscriber on a loopback address, that records what it gets and answers as it is told.
//!
//! It speaks HTTP/1.1 on the bare socket, because most of what it must be able to do (lie about
//! lengths, drip a header byte by byte, reset) is what an HTTP library prevents. Over TLS it speaks HTTP/2
//! where its certificate's configuration offers it and the other side takes it.

mod answer;
mod http2;
mod request;

pub use answer::{Answer, Gate};
pub use request::Request;

use crate::wait::{PATIENCE, wait_until};
use answer::After;
use request::read_request;
use rustls::ServerConfig;
use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

type Script = Arc<dyn Fn(&Request) -> Answer + Send + Sync>;

/// The subscriber; it ends when dropped.
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    scheme: &'static str,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    connections: AtomicU64,
    /// Requests at a time on a connection over HTTP/2; 0 for any number.
    streams: AtomicU32,
}

#[derive(Default)]
struct State {
    scripts: HashMap<String, Script>,
    requests: Vec<Request>,
    repeats: HashMap<(String, String), usize>,
    in_flight: HashMap<String, InFlight>,
}

#[derive(Default, Clone, Copy)]
struct InFlight {
    now: usize,
    most: usize,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("connections", &self.connections)
            .finish_non_exhaustive()
    }
}

impl Receiver {
    /// Starts one that answers 200 to everything, until scripted otherwise.
    pub async fn start() -> Self {
        Self::listen(None).await
    }

    /// Starts one that speaks TLS with that certificate.
    pub async fn start_tls(config: Arc<ServerConfig>) -> Self {
        Self::listen(Some(TlsAcceptor::from(config))).await
    }

    async fn listen(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let scheme = if tls.is_some() { "https" } else { "http" };
        let shared = Arc::<Shared>::default();
        let accepting = tokio::spawn(accept(listener, tls, Arc::clone(&shared)));
        Self {
            address,
            scheme,
            shared,
            accepting,
        }
    }

    /// Answers requests to `path` by what `script` says of each. [`Request::repeat`] counts from 1.
    pub fn script(&self, path: &str, script: impl Fn(&Request) -> Answer + Send + Sync + 'static) {
        self.state().scripts.insert(path.to_owned(), Arc::new(script));
    }

    /// Takes no more requests at a time on each connection over HTTP/2 that is made from now on.
    pub fn allow_streams(&self, most: u32) {
        self.shared.streams.store(most, Ordering::Relaxed);
    }

    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.address)
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Every request so far, in the order of their arrival.
    pub fn requests(&self) -> Vec<Request> {
        self.state().requests.clone()
    }

    /// The requests to one path.
    pub fn requests_to(&self, path: &str) -> Vec<Request> {
        self.state()
            .requests
            .iter()
            .filter(|request| request.path == path)
            .cloned()
            .collect()
    }

    /// Waits for at least that many requests to a path, and gives them.
    pub async fn wait_for(&self, path: &str, count: usize) -> Vec<Request> {
        self.wait_within(PATIENCE, path, count).await
    }

    /// [`Receiver::wait_for`] with another deadline.
    pub async fn wait_within(&self, within: Duration, path: &str, count: usize) -> Vec<Request> {
        let what = format!("{count} requests to {path}");
        wait_until(&what, within, async || {
            Some(self.requests_to(path)).filter(|found| found.len() >= count)
        })
        .await
    }

    /// Waits for one request to a path.
    pub async fn wait_for_one(&self, path: &str) -> Request {
        self.wait_for(path, 1).await.swap_remove(0)
    }

    /// The requests to a path that are being answered now.
    pub fn in_flight(&self, path: &str) -> usize {
        self.state().in_flight.get(path).map_or(0, |count| count.now)
    }

    /// The most that ever were at the same time.
    pub fn most_in_flight(&self, path: &str) -> usize {
        self.state().in_flight.get(path).map_or(0, |count| count.most)
    }

    /// How many connections there have been.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // A script that panicked has failed its own test; the recording is still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records the request, and gives it with its count, and what to do about it.
    fn record(self: &Arc<Self>, mut request: Request) -> (Answer, Busy) {
        let mut state = self.state();
        let key = (request.path.clone(), request.header("webhook-id").to_owned());
        let repeats = state.repeats.entry(key).or_default();
        *repeats += 1;
        request.repeat = *repeats;
        let count = state.in_flight.entry(request.path.clone()).or_default();
        count.now += 1;
        count.most = count.most.max(count.now);
        let busy = Busy {
            shared: Arc::clone(self),
            path: request.path.clone(),
        };
        let script = state.scripts.get(&request.path).cloned();
        state.requests.push(request.clone());
        drop(state);
        (script.map_or_else(Answer::ok, |script| script(&request)), busy)
    }
}

/// Counts a request as being in flight until dropped.
struct Busy {
    shared: Arc<Shared>,
    path: String,
}

impl Drop for Busy {
    fn drop(&mut self) {
        if let Some(count) = self.shared.state().in_flight.get_mut(&self.path) {
            count.now -= 1;
        }
    }
}

/// A connection that can be cut as well as closed.
trait Wire: AsyncRead + AsyncWrite + Unpin + Send {
    fn tcp(&self) -> &TcpStream;
}

impl Wire for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Wire for TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    while let Ok((stream, _peer)) = listener.accept().await {
        let connection = shared.connections.fetch_add(1, Ordering::Relaxed) + 1;
        let shared = Arc::clone(&shared);
        let tls = tls.clone();
        tokio::spawn(async move {
            match tls {
                None => serve(stream, connection, shared).await,
                // A handshake that fails is what some tests are about.
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        match stream.get_ref().1.alpn_protocol() {
                            Some(b"h2") => http2::serve(stream, connection, shared).await,
                            _ => serve(stream, connection, shared).await,
                        }
                    }
                }
            }
        });
    }
}

async fn serve(mut wire: impl Wire, connection: u64, shared: Arc<Shared>) {
    let mut buffer = bytes::BytesMut::new();
    while let Ok(Some(request)) = read_request(&mut wire, &mut buffer, connection).await {
        let (answer, busy) = shared.record(request);
        match answer.give(&mut wire, busy).await {
            Ok(After::NextRequest) => {}
            Ok(After::Reset) => {
                // With a linger time of zero the kernel sends RST instead of FIN.
                drop(wire.tcp().set_zero_linger());
                return;
            }
            Ok(After::Freeze) => std::future::pending().await,
            // An error means that the other side went away, which is its right.
            Ok(After::Close) | Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests;
