//! The connection pool: connections are kept for the next request to the same host.
//!
//! Over HTTP/1.1 a connection carries one request at a time, and then waits among the idle ones for the next. Over
//! HTTP/2 all requests to a host share a connection, as many at a time as the receiver allows. Beyond that another
//! connection is opened, so no request waits for the answer to another one.
//!
//! The first connection to a host shows whether it speaks HTTP/2. The other requests wait for that connection,
//! [`FOLLOW`] at most.
//!
//! A connection takes no new request once it is [`MAX_AGE`] old, however busy it is. So requests follow a name
//! that has moved, and a certificate or a policy that has changed. Idle connections are bounded in time, and in
//! number over all hosts.

use super::connect::{Body, Connection};
use super::failure::SendError;
use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, Method, Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use std::collections::HashMap;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::{timeout, timeout_at};
use tokio_util::sync::CancellationToken;

/// The most idle connections, over all hosts. Attempts under way have some 2,000 more at the most.
pub(super) const MAX_IDLE: usize = 4096;

/// How long a connection is kept without a request.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);

/// The age at which a connection takes no more requests.
const MAX_AGE: Duration = Duration::from_mins(3);

/// How often connections beyond these limits are looked for and closed.
pub(super) const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// How long a request waits for the connection that another one is making, before it makes its own.
const FOLLOW: Duration = Duration::from_secs(1);

/// How long an idle connection may take to be ready for its next request.
const READY: Duration = Duration::from_millis(100);

/// Where a connection leads.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Host {
    /// Scheme, host and port.
    pub(super) origin: Arc<str>,
    /// Whether HTTP/2 may be spoken.
    pub(super) may_share: bool,
}

/// The connections to all hosts.
#[derive(Debug)]
pub(super) struct Pool {
    max_idle: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    hosts: HashMap<Host, Lines>,
    /// The idle connections of all hosts.
    idle: usize,
    /// Connections over HTTP/2 so far.
    numbered: u64,
}

/// The connections to one host.
#[derive(Debug)]
struct Lines {
    /// Connections over HTTP/1.1 without a request; the last one was used last.
    idle: Vec<Idle>,
    /// Connections over HTTP/2.
    shared: Vec<Shared>,
    /// Connections that are being made.
    connecting: usize,
    /// Requests that wait for one of these.
    waiting: usize,
    /// How many requests at a time the last connection allowed, if it was over HTTP/2; 0 if it was over HTTP/1.1.
    each: Option<usize>,
    changed: watch::Sender<()>,
}

#[derive(Debug)]
struct Idle {
    sender: http1::SendRequest<Body>,
    read: Arc<AtomicU64>,
    ended: CancellationToken,
    made_at: Instant,
    since: Instant,
}

#[derive(Debug)]
struct Shared {
    number: u64,
    sender: http2::SendRequest<Body>,
    /// How many requests at a time the receiver allows; 0 before it has said so.
    limit: Arc<AtomicUsize>,
    ended: CancellationToken,
    in_use: usize,
    made_at: Instant,
    /// Since when the connection has no request, if it has none.
    since: Instant,
}

impl Shared {
    fn is_usable(&self, now: Instant) -> bool {
        !self.sender.is_closed() && is_young(self.made_at, now)
    }
}

fn is_young(made_at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(made_at) < MAX_AGE
}

/// What the pool has for a request.
enum Found {
    Use(Lease),
    Wait(Waiting),
    Connect(Connecting),
}

impl Pool {
    /// A pool that keeps at most so many idle connections.
    pub(super) fn new(max_idle: usize) -> Arc<Self> {
        Arc::new(Self {
            max_idle,
            state: Mutex::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic leaves nothing half done here.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection for one request: one from the pool, or, if there is none or a `new` one is wanted, what `connect`
    /// makes.
    pub(super) async fn take(
        self: &Arc<Self>,
        host: &Host,
        new: bool,
        connect: impl AsyncFnOnce(watch::Sender<()>) -> Result<Connection, SendError>,
    ) -> Result<Lease, SendError> {
        let mut may_wait = !new;
        // One limit for all turns together: the answers to other requests must not make it longer.
        let until = tokio::time::Instant::now() + FOLLOW;
        let connecting = loop {
            match self.find(host, new, may_wait, Instant::now()) {
                Found::Use(mut lease) => {
                    if lease.is_ready().await {
                        return Ok(lease);
                    }
                }
                Found::Wait(mut waiting) => may_wait = timeout_at(until, waiting.changed.changed()).await.is_ok(),
                Found::Connect(connecting) => break connecting,
            }
        };
        let made = connect(connecting.changed.clone()).await?;
        Ok(self.enter(host, made, Instant::now()))
    }

    fn find(self: &Arc<Self>, host: &Host, new: bool, may_wait: bool, now: Instant) -> Found {
        let mut state = self.state();
        let state = &mut *state;
        let lines = state.hosts.entry(host.clone()).or_insert_with(Lines::none);
        if !new {
            if let Some(shared) = lines.shared_with_room(now) {
                let line = Line::Shared {
                    number: shared.number,
                    sender: Some(shared.sender.clone()),
                    ended: shared.ended.clone(),
                };
                return Found::Use(self.lease(host, line, true));
            }
            while let Some(idle) = lines.idle.pop() {
                state.idle -= 1;
                if is_young(idle.made_at, now) && !idle.sender.is_closed() {
                    let line = Line::own(idle.sender, idle.read, idle.ended, idle.made_at);
                    return Found::Use(self.lease(host, line, true));
                }
            }
        }
        if host.may_share && may_wait && lines.waiting < lines.expected(now) {
            lines.waiting += 1;
            return Found::Wait(Waiting {
                pool: Arc::clone(self),
                host: host.clone(),
                changed: lines.changed.subscribe(),
            });
        }
        lines.connecting += 1;
        Found::Connect(Connecting {
            pool: Arc::clone(self),
            host: host.clone(),
            changed: lines.changed.clone(),
        })
    }

    fn lease(self: &Arc<Self>, host: &Host, line: Line, reused: bool) -> Lease {
        Lease {
            pool: Arc::clone(self),
            host: host.clone(),
            line: Some(line),
            reused,
        }
    }

    /// Takes in a connection that was made, with one request to begin with.
    fn enter(self: &Arc<Self>, host: &Host, made: Connection, now: Instant) -> Lease {
        let mut state = self.state();
        state.numbered += 1;
        let number = state.numbered;
        let lines = state.hosts.entry(host.clone()).or_insert_with(Lines::none);
        let line = match made {
            Connection::Http1 { sender, read, ended } => {
                lines.each = Some(0);
                Line::own(sender, read, ended, now)
            }
            Connection::Http2 { sender, limit, ended } => {
                lines.shared.push(Shared {
                    number,
                    sender: sender.clone(),
                    limit,
                    ended: ended.clone(),
                    in_use: 1,
                    made_at: now,
                    since: now,
                });
                Line::Shared {
                    number,
                    sender: Some(sender),
                    ended,
                }
            }
        };
        drop(state);
        self.lease(host, line, false)
    }

    /// Closes connections that have been idle too long or are too old, and forgets hosts without a connection.
    pub(super) fn sweep(&self, now: Instant) {
        self.close_idle(now, IDLE_TIMEOUT);
    }

    /// Closes every idle connection, so that other parts can have the descriptors.
    pub(super) fn make_room(&self) {
        self.close_idle(Instant::now(), Duration::ZERO);
    }

    fn close_idle(&self, now: Instant, after: Duration) {
        let mut state = self.state();
        let waits = |since: Instant| now.saturating_duration_since(since) < after;
        state.hosts.retain(|_, lines| {
            lines
                .idle
                .retain(|idle| waits(idle.since) && is_young(idle.made_at, now) && !idle.sender.is_closed());
            lines
                .shared
                .retain(|shared| shared.in_use > 0 || (waits(shared.since) && shared.is_usable(now)));
            !lines.idle.is_empty() || !lines.shared.is_empty() || lines.connecting > 0 || lines.waiting > 0
        });
        state.idle = state.hosts.values().map(|lines| lines.idle.len()).sum();
    }
}

impl Lines {
    fn none() -> Self {
        Self {
            idle: Vec::new(),
            shared: Vec::new(),
            connecting: 0,
            waiting: 0,
            each: None,
            changed: watch::Sender::new(()),
        }
    }

    /// A connection over HTTP/2 on which another request may begin. The request is counted in.
    fn shared_with_room(&mut self, now: Instant) -> Option<&Shared> {
        for shared in &self.shared {
            match shared.limit.load(Ordering::Relaxed) {
                0 => {}
                limit => self.each = Some(limit),
            }
        }
        // A connection in use that takes no more requests is not closed here: its last request closes it.
        let shared = self
            .shared
            .iter_mut()
            .find(|shared| shared.in_use < shared.limit.load(Ordering::Relaxed) && shared.is_usable(now))?;
        shared.in_use += 1;
        Some(shared)
    }

    /// How many requests may find room on connections that are being made or have not told their limit yet.
    fn expected(&self, now: Instant) -> usize {
        let each = match self.each {
            Some(0) => return 0,
            Some(each) => each - 1,
            None => usize::MAX,
        };
        let silent = |shared: &&Shared| shared.limit.load(Ordering::Relaxed) == 0 && shared.is_usable(now);
        let coming = self.connecting + self.shared.iter().filter(silent).count();
        each.saturating_mul(coming)
    }
}

/// A request that waits for a connection that another request makes.
struct Waiting {
    pool: Arc<Pool>,
    host: Host,
    changed: watch::Receiver<()>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(lines) = self.pool.state().hosts.get_mut(&self.host) {
            lines.waiting -= 1;
        }
    }
}

/// A connection that is being made.
struct Connecting {
    pool: Arc<Pool>,
    host: Host,
    changed: watch::Sender<()>,
}

impl Drop for Connecting {
    fn drop(&mut self) {
        if let Some(lines) = self.pool.state().hosts.get_mut(&self.host) {
            lines.connecting -= 1;
        }
        self.changed.send_replace(());
    }
}

/// Why a lease has its sender.
const UNSENT: &str = "a lease sends once, before it is kept";

/// A connection, for one request.
#[derive(Debug)]
pub(super) struct Lease {
    pool: Arc<Pool>,
    host: Host,
    line: Option<Line>,
    /// Whether it carried requests before.
    pub(super) reused: bool,
}

#[derive(Debug)]
enum Line {
    Own {
        /// Until the connection has ended.
        sender: Option<http1::SendRequest<Body>>,
        read: Arc<AtomicU64>,
        /// How much had been read when the request was sent.
        read_before: u64,
        ended: CancellationToken,
        made_at: Instant,
    },
    Shared {
        number: u64,
        /// Until the request was sent.
        sender: Option<http2::SendRequest<Body>>,
        ended: CancellationToken,
    },
}

impl Line {
    fn own(sender: http1::SendRequest<Body>, read: Arc<AtomicU64>, ended: CancellationToken, made_at: Instant) -> Self {
        let read_before = read.load(Ordering::Relaxed);
        Self::Own {
            sender: Some(sender),
            read,
            read_before,
            ended,
            made_at,
        }
    }
}

/// The content of a request, whatever the version of HTTP.
#[derive(Debug, Clone)]
pub(super) struct Message {
    /// With scheme and host.
    pub(super) uri: Uri,
    /// `Host` among them.
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Lease {
    async fn is_ready(&mut self) -> bool {
        match &mut self.line {
            // It may never be ready if the receiver answered before it had read the whole request.
            Some(Line::Own {
                sender: Some(sender), ..
            }) => matches!(timeout(READY, sender.ready()).await, Ok(Ok(()))),
            Some(Line::Shared {
                sender: Some(sender), ..
            }) => sender.ready().await.is_ok(),
            _ => false,
        }
    }

    /// Sends the request over this connection. A lease sends one request.
    ///
    /// A connection may end at the very moment when the request comes into its queue. Then nobody takes the request
    /// out, and hyper answers it only when the last sender is dropped. So all senders are dropped when the connection
    /// has ended.
    pub(super) async fn send(&mut self, message: Message) -> hyper::Result<Response<Incoming>> {
        let mut request = Request::new(Body::new(message.body));
        *request.method_mut() = Method::POST;
        *request.headers_mut() = message.headers;
        match self.line.as_mut().expect(UNSENT) {
            Line::Own { sender, ended, .. } => {
                *request.uri_mut() = origin_form(message.uri);
                let mut answer = pin!(sender.as_mut().expect(UNSENT).send_request(request));
                if let Some(answer) = before(ended, answer.as_mut()).await {
                    return answer;
                }
                *sender = None;
                answer.await
            }
            Line::Shared { sender, ended, .. } => {
                *request.uri_mut() = message.uri;
                request.headers_mut().remove(HOST);
                let mut answer = pin!(sender.take().expect(UNSENT).send_request(request));
                if let Some(answer) = before(ended, answer.as_mut()).await {
                    return answer;
                }
                self.retire();
                answer.await
            }
        }
    }

    /// Whether it is certain that no byte was read since the request was sent.
    pub(super) fn was_silent(&self) -> bool {
        match &self.line {
            Some(Line::Own { read, read_before, .. }) => read.load(Ordering::Relaxed) == *read_before,
            // The receiver may have worked on this request while it answered others. If it has not, HTTP/2 says so.
            Some(Line::Shared { .. }) | None => false,
        }
    }

    /// Takes the connection out of use: it gets no more requests.
    pub(super) fn retire(&self) {
        if let Some(Line::Shared { number, .. }) = &self.line
            && let Some(lines) = self.pool.state().hosts.get_mut(&self.host)
        {
            lines.shared.retain(|shared| shared.number != *number);
        }
    }

    /// Keeps the connection for the next request, after the answer was read to its end.
    pub(super) fn keep(mut self) {
        let Some(Line::Own {
            sender: Some(sender),
            read,
            ended,
            made_at,
            ..
        }) = self.line.take_if(|line| matches!(line, Line::Own { .. }))
        else {
            return;
        };
        let now = Instant::now();
        let mut state = self.pool.state();
        if sender.is_closed() || !is_young(made_at, now) || state.idle >= self.pool.max_idle {
            return;
        }
        state.idle += 1;
        let lines = state.hosts.entry(self.host.clone()).or_insert_with(Lines::none);
        lines.idle.push(Idle {
            sender,
            read,
            ended,
            made_at,
            since: now,
        });
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(Line::Shared { number, .. }) = &self.line else {
            return;
        };
        let now = Instant::now();
        let mut state = self.pool.state();
        let Some(lines) = state.hosts.get_mut(&self.host) else {
            return;
        };
        let Some(at) = lines.shared.iter().position(|shared| shared.number == *number) else {
            return;
        };
        let shared = &mut lines.shared[at];
        shared.in_use -= 1;
        shared.since = now;
        // Dropping the last sender closes the connection.
        if shared.in_use == 0 && !shared.is_usable(now) {
            lines.shared.swap_remove(at);
        }
        lines.changed.send_replace(());
    }
}

/// The answer, if it comes before the connection has ended.
async fn before<T>(ended: &CancellationToken, answer: Pin<&mut impl Future<Output = T>>) -> Option<T> {
    tokio::select! {
        biased;
        answer = answer => Some(answer),
        () = ended.cancelled() => None,
    }
}

/// The URI as it stands in the first line of a request over HTTP/1.1.
fn origin_form(uri: Uri) -> Uri {
    let mut parts = uri.into_parts();
    parts.scheme = None;
    parts.authority = None;
    Uri::from_parts(parts).unwrap_or_default()
}

#[cfg(test)]
mod tests;
