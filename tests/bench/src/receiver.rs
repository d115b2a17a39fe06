//! The subscribers: one small HTTP server, in clear or over TLS, that says yes and keeps the books.

use crate::event::number_in;
use crate::to_usize;
use crate::transport::Transport;
use anyhow::Context;
use bytes::Bytes;
use herald_tests::tls::Authority;
use http::{Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;

/// A running receiver; dropping it closes its listener.
#[derive(Debug)]
pub(crate) struct Receiver {
    address: SocketAddr,
    /// Who vouches for it, over TLS.
    authority: Option<Authority>,
    books: Arc<Books>,
    listening: AbortHandle,
}

impl Receiver {
    /// Listens in clear, for that many subscriptions. Whenever all of them have an event, `room` gets a permit.
    pub(crate) async fn start(subscriptions: u32, room: Option<Arc<Semaphore>>) -> anyhow::Result<Self> {
        Self::start_over(Transport::Http, subscriptions, room).await
    }

    /// [`start`](Self::start), in clear or over TLS.
    pub(crate) async fn start_over(
        transport: Transport,
        subscriptions: u32,
        room: Option<Arc<Semaphore>>,
    ) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("a free port")?;
        let address = listener.local_addr()?;
        let books = Arc::new(Books::new(subscriptions, room));
        let authority = (transport != Transport::Http).then(Authority::default);
        let config = authority.as_ref().map(|authority| match transport {
            Transport::TlsHttp2 => authority.good_with_http2(),
            Transport::Http | Transport::Tls => authority.good(),
        });
        let acceptor = config.map(TlsAcceptor::from);
        let listening = tokio::spawn(listen(listener, acceptor, Arc::clone(&books))).abort_handle();
        Ok(Self {
            address,
            authority,
            books,
            listening,
        })
    }

    /// Where the messages of a subscription go, counted from 0.
    pub(crate) fn url(&self, subscription: u32) -> String {
        let scheme = if self.authority.is_some() { "https" } else { "http" };
        format!("{scheme}://{}/{subscription}", self.address)
    }

    /// Whom to trust, where it speaks TLS.
    pub(crate) fn authority(&self) -> Option<&Authority> {
        self.authority.as_ref()
    }

    /// What has been received so far.
    pub(crate) fn tally(&self) -> Tally {
        self.books.lock().tally
    }

    /// From now on, keeps when each message arrives; see [`arrivals`](Self::arrivals).
    pub(crate) fn keep_arrivals(&self) {
        self.books.lock().arrivals = Some(Vec::new());
    }

    /// The arrivals since [`keep_arrivals`](Self::keep_arrivals): an event's number and the time, for each
    /// message that came for the first time.
    pub(crate) fn arrivals(&self) -> Vec<(usize, Instant)> {
        self.books.lock().arrivals.take().unwrap_or_default()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

/// What has been received.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    /// Messages, each counted once.
    pub(crate) delivered: u64,
    /// Events that all subscriptions have.
    pub(crate) complete: u64,
    /// Messages of an event that its subscription had already, whatever their `webhook-id`.
    pub(crate) repeated: u64,
    /// Messages among `delivered` that came over HTTP/2.
    pub(crate) over_http2: u64,
    /// Connections that were accepted.
    pub(crate) connections: u64,
}

#[derive(Debug)]
struct Books {
    subscriptions: u32,
    room: Option<Arc<Semaphore>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    tally: Tally,
    /// How many subscriptions have each event.
    counts: Vec<u32>,
    /// A bit for every event and subscription: a million of them must find room.
    bits: Vec<u64>,
    arrivals: Option<Vec<(usize, Instant)>>,
}

impl Books {
    fn new(subscriptions: u32, room: Option<Arc<Semaphore>>) -> Self {
        Self {
            subscriptions,
            room,
            state: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether that can have been sent.
    fn enter(&self, subscription: u32, number: usize, version: Version) -> bool {
        let now = Instant::now();
        if subscription >= self.subscriptions {
            return false;
        }
        let mut state = self.lock();
        if !state.mark(number, subscription, self.subscriptions) {
            state.tally.repeated += 1;
            return true;
        }
        state.tally.delivered += 1;
        state.tally.over_http2 += u64::from(version == Version::HTTP_2);
        if let Some(arrivals) = &mut state.arrivals {
            arrivals.push((number, now));
        }
        if state.count(number) == self.subscriptions {
            state.tally.complete += 1;
            if let Some(room) = &self.room {
                room.add_permits(1);
            }
        }
        true
    }
}

impl State {
    /// Whether the subscription did not have that event yet; now it has.
    fn mark(&mut self, number: usize, subscription: u32, of: u32) -> bool {
        let (of, subscription) = (to_usize(of), to_usize(subscription));
        let place = number * of + subscription;
        let (word, bit) = (place / 64, 1 << (place % 64));
        if self.bits.len() <= word {
            self.bits.resize(word + 1, 0);
        }
        let word = self.bits.get_mut(word).expect("it was just made");
        let new = *word & bit == 0;
        *word |= bit;
        new
    }

    /// How many subscriptions have that event, one more than before.
    fn count(&mut self, number: usize) -> u32 {
        if self.counts.len() <= number {
            self.counts.resize(number + 1, 0);
        }
        let count = self.counts.get_mut(number).expect("it was just made");
        *count += 1;
        *count
    }
}

async fn listen(listener: TcpListener, acceptor: Option<TlsAcceptor>, books: Arc<Books>) {
    while let Ok((stream, _)) = listener.accept().await {
        books.lock().tally.connections += 1;
        stream.set_nodelay(true).expect("a connected socket");
        tokio::spawn(serve(stream, acceptor.clone(), Arc::clone(&books)));
    }
}

/// Serves a connection until its client ends it, in whatever way.
async fn serve(stream: TcpStream, acceptor: Option<TlsAcceptor>, books: Arc<Books>) {
    let Some(acceptor) = acceptor else {
        return serve_http1(stream, &books).await;
    };
    let Ok(stream) = acceptor.accept(stream).await else {
        return;
    };
    if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
        return serve_http1(stream, &books).await;
    }
    let answer = service_fn(move |request| {
        let books = Arc::clone(&books);
        async move { answer(&books, request).await }
    });
    let serving = http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), answer);
    drop(serving.await);
}

async fn serve_http1(stream: impl AsyncRead + AsyncWrite + Unpin, books: &Books) {
    let answer = service_fn(|request| answer(books, request));
    let serving = http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
    drop(serving.await);
}

async fn answer(books: &Books, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let version = request.version();
    let subscription = request
        .uri()
        .path()
        .strip_prefix('/')
        .and_then(|path| path.parse().ok());
    let body = request.into_body().collect().await;
    let number = body.ok().and_then(|body| number_in(&body.to_bytes()));
    let known = subscription
        .zip(number)
        .is_some_and(|(subscription, number)| books.enter(subscription, number, version));
    let mut response = Response::new(Full::default());
    if !known {
        *response.status_mut() = StatusCode::BAD_REQUEST;
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_complete_when_every_subscription_has_it_once() {
        let room = Arc::new(Semaphore::new(0));
        let books = Books::new(70, Some(Arc::clone(&room)));
        books.lock().arrivals = Some(Vec::new());
        for (subscription, number, known) in [(0, 5, true), (0, 5, true), (70, 5, false), (69, 4, true)] {
            assert_eq!(books.enter(subscription, number, Version::HTTP_11), known);
        }
        for subscription in 1..69 {
            assert!(books.enter(subscription, 5, Version::HTTP_2));
        }
        assert_eq!(room.available_permits(), 0);
        assert!(books.enter(69, 5, Version::HTTP_2));
        assert_eq!(room.available_permits(), 1);
        let state = books.lock();
        let Tally {
            delivered,
            complete,
            repeated,
            over_http2,
            connections,
        } = state.tally;
        assert_eq!((delivered, complete, repeated), (71, 1, 1));
        assert_eq!((over_http2, connections), (69, 0));
        let arrivals = state.arrivals.as_ref().unwrap();
        assert_eq!(arrivals.len(), 71);
        assert_eq!(arrivals.iter().filter(|(number, _)| *number == 4).count(), 1);
    }
}
