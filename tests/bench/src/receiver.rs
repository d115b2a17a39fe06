//! The subscribers: one small HTTP server that says yes and keeps the books.

use crate::event::number_in;
use anyhow::Context;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

/// A running receiver; dropping it closes its listener.
#[derive(Debug)]
pub(crate) struct Receiver {
    address: SocketAddr,
    books: Arc<Books>,
    listening: AbortHandle,
}

impl Receiver {
    /// Listens, for that many subscriptions. Whenever all of them have an event, `room` gets a permit.
    pub(crate) async fn start(subscriptions: u32, room: Option<Arc<Semaphore>>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("a free port")?;
        let address = listener.local_addr()?;
        let books = Arc::new(Books {
            all: (1 << subscriptions) - 1,
            room,
            state: Mutex::default(),
        });
        let listening = tokio::spawn(listen(listener, Arc::clone(&books))).abort_handle();
        Ok(Self {
            address,
            books,
            listening,
        })
    }

    /// Where the messages of a subscription go, counted from 0.
    pub(crate) fn url(&self, subscription: u32) -> String {
        format!("http://{}/{subscription}", self.address)
    }

    /// What has been received so far.
    pub(crate) fn tally(&self) -> Tally {
        self.books.lock().tally
    }

    /// When all subscriptions had that event, if they have.
    pub(crate) fn complete_at(&self, number: usize) -> Option<Instant> {
        self.books.lock().events.get(number)?.complete_at
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
    /// Messages that had come before.
    pub(crate) repeated: u64,
}

#[derive(Debug)]
struct Books {
    /// A bit for every subscription.
    all: u32,
    room: Option<Arc<Semaphore>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    tally: Tally,
    events: Vec<Event>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Event {
    received: u32,
    complete_at: Option<Instant>,
}

impl Books {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether that can have been sent.
    fn enter(&self, subscription: u32, number: usize) -> bool {
        let now = Instant::now();
        let bit = 1_u32.checked_shl(subscription).unwrap_or(0) & self.all;
        if bit == 0 {
            return false;
        }
        let mut state = self.lock();
        let State { tally, events } = &mut *state;
        if events.len() <= number {
            events.resize(number + 1, Event::default());
        }
        let Some(event) = events.get_mut(number) else {
            return false;
        };
        if event.received & bit != 0 {
            tally.repeated += 1;
            return true;
        }
        event.received |= bit;
        tally.delivered += 1;
        if event.received == self.all {
            event.complete_at = Some(now);
            tally.complete += 1;
            if let Some(room) = &self.room {
                room.add_permits(1);
            }
        }
        true
    }
}

async fn listen(listener: TcpListener, books: Arc<Books>) {
    while let Ok((stream, _)) = listener.accept().await {
        let books = Arc::clone(&books);
        tokio::spawn(async move {
            stream.set_nodelay(true).expect("a connected socket");
            let answer = service_fn(|request| answer(&books, request));
            // Connections end when their client does, in whatever way.
            drop(
                http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), answer)
                    .await,
            );
        });
    }
}

async fn answer(books: &Books, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let subscription = request
        .uri()
        .path()
        .strip_prefix('/')
        .and_then(|path| path.parse().ok());
    let body = request.into_body().collect().await;
    let number = body.ok().and_then(|body| number_in(&body.to_bytes()));
    let known = subscription
        .zip(number)
        .is_some_and(|(subscription, number)| books.enter(subscription, number));
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
        let books = Books {
            all: 0b11,
            room: Some(Arc::clone(&room)),
            state: Mutex::default(),
        };
        for (subscription, number, known) in [(0, 5, true), (0, 5, true), (2, 5, false), (40, 5, false), (1, 4, true)] {
            assert_eq!(books.enter(subscription, number), known);
        }
        assert_eq!(room.available_permits(), 0);
        assert!(books.enter(1, 5));
        assert_eq!(room.available_permits(), 1);
        let state = books.lock();
        let Tally {
            delivered,
            complete,
            repeated,
        } = state.tally;
        assert_eq!((delivered, complete, repeated), (3, 1, 1));
        assert!(state.events[5].complete_at.is_some() && state.events[4].complete_at.is_none());
    }
}
