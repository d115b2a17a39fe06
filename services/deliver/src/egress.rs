//! Requests to receivers. Every address is checked after name resolution, at every connect.
//!
//! A literal address in a URL never reaches the resolver, so
//! [`check_literal`](crate::target::check_literal) checks it when the URL is prepared for its requests. Names are
//! judged by what they resolve to, at each connect, so an answer that changes between two look-ups gets nobody past
//! the check. Redirects are not followed, and proxies from the environment are ignored, because either could lead
//! elsewhere.
//!
//! Receivers that offer HTTP/2 over TLS (ALPN) get it, and requests to a host share connections. Requests that hang
//! would use these up for every other subscription on that host. So a subscription with a request that was not
//! answered in time is isolated: it has connections of its own for some minutes, over HTTP/1.1, whether its request
//! hung or only waited for others. A subscription whose receiver says that it wants HTTP/1.1 (RFC 9113, 7) is
//! isolated too. A receiver that speaks only HTTP/2 refuses such a connection (RFC 7301, 3.2); then its requests
//! share connections again.
//!
//! A request is sent again at once, as the same attempt, if the receiver has not failed: it says that it did nothing
//! with the request (RFC 9113, 8.7), it wants HTTP/1.1 or only HTTP/2, or it closed an idle connection before a byte
//! of the answer came (RFC 9112, 9.3.1), as it may at any time. The `webhook-id` makes that safe.

mod chain;
mod connect;
mod failure;
mod names;
mod pool;
mod tls;
pub(crate) mod want;

use crate::prepared::{Prepare, Prepared};
use bytes::Bytes;
use connect::Connection;
use failure::Http2;
pub(crate) use failure::{ResolveError, SendError, bounded};
use herald_domain::address::EgressPolicy;
use http::header::CONNECTION;
use http::{HeaderMap, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use names::Names;
use pool::{Host, Lease, MAX_IDLE, Message, Pool, SWEEP_EVERY};
use rustls::pki_types::CertificateDer;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;
use tls::Tls;
pub use tls::parse_certificates;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The most times that a request is sent again as the same attempt.
const MAX_REPEATS: usize = 2;

/// Why requests cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    /// No authority is trusted, or a given certificate is not valid.
    #[error("the authorities that are trusted could not be loaded")]
    Tls(#[from] rustls::Error),
    /// A metric of that name exists already.
    #[error("a metric could not be registered")]
    Metrics(#[from] prometheus::Error),
    /// The system's settings for looking up names are not valid.
    #[error("names cannot be looked up")]
    Names(#[from] hickory_resolver::net::NetError),
}

/// Sends requests to permitted addresses.
#[derive(Debug)]
pub(crate) struct Sender {
    policy: Arc<EgressPolicy>,
    names: Arc<Names>,
    tls: Tls,
    pool: Arc<Pool>,
    prepare: Prepare,
}

/// An answer, whose body is still to be read.
#[derive(Debug)]
pub(crate) struct Exchange {
    response: Response<Incoming>,
    lease: Lease,
}

impl Sender {
    /// Sends to public addresses and those that `policy` allows, trusts the system's authorities and
    /// `trusted`, and looks names up at `dns`, or where the system does if that is empty.
    pub(crate) fn new(
        policy: Arc<EgressPolicy>,
        trusted: &[CertificateDer<'static>],
        dns: &[SocketAddr],
    ) -> Result<Self, EgressError> {
        Ok(Self {
            prepare: Prepare::new(Arc::clone(&policy)),
            policy,
            names: Arc::new(Names::new(dns)?),
            tls: Tls::new(trusted)?,
            pool: Pool::new(MAX_IDLE),
        })
    }

    /// Prepares subscriptions for their requests.
    pub(crate) fn prepare(&self) -> &Prepare {
        &self.prepare
    }

    /// Closes connections that nobody uses, until shutdown.
    pub(crate) async fn sweep(&self, shutdown: &CancellationToken) {
        let sweeping = async {
            loop {
                tokio::time::sleep(SWEEP_EVERY).await;
                self.pool.sweep(Instant::now());
            }
        };
        shutdown.run_until_cancelled(sweeping).await;
    }

    /// Sends a subscription's request, and gives the answer when its head has come.
    pub(crate) async fn exchange(
        &self,
        prepared: &Prepared,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Exchange, SendError> {
        let message = Message {
            uri: prepared.uri().clone(),
            headers,
            body,
        };
        let mut new = false;
        let mut broken = None;
        for repeats_left in (0..=MAX_REPEATS).rev() {
            let apart = prepared.is_apart(Instant::now());
            let taken = self.take(prepared, new, apart).await;
            if apart && repeats_left > 0 && taken.as_ref().is_err_and(SendError::speaks_no_such_http) {
                prepared.share_again();
                continue;
            }
            let mut lease = match (taken, broken.take()) {
                // Something was sent, so this counts as an attempt.
                (Err(SendError::Want(_)), Some(earlier)) => return Err(earlier),
                (taken, _) => taken?,
            };
            match lease.send(message.clone()).await {
                Ok(response) if repeats_left > 0 && lease.reused && is_stray(&response) => new = true,
                Ok(response) => return Ok(Exchange { response, lease }),
                Err(error) => match again(&lease, &error) {
                    Again::No => return Err(error.into()),
                    _ if repeats_left == 0 => return Err(error.into()),
                    Again::OverHttp1 => prepared.keep_apart(Instant::now()),
                    Again::Anywhere => {}
                    Again::Anew => (new, broken) = (true, Some(error.into())),
                },
            }
        }
        unreachable!("the last time round returns")
    }

    async fn take(&self, prepared: &Prepared, new: bool, apart: bool) -> Result<Lease, SendError> {
        let target = prepared.target();
        let host = Host {
            origin: Arc::clone(&target.origin),
            may_share: target.tls && !apart,
        };
        let connect = async |changed: watch::Sender<()>| -> Result<Connection, SendError> {
            let addresses = self.addresses(&target.host).await?;
            connect::connect(target, &addresses, &self.tls, !host.may_share, changed).await
        };
        // Few requests connect. Boxed, so that the futures of the others stay small.
        let taken = self
            .pool
            .take(&host, new, async |changed| Box::pin(connect(changed)).await);
        let taken = taken.await;
        if let Err(SendError::Want(_)) = taken {
            self.pool.make_room();
        }
        taken
    }

    /// The addresses of a host that a request may go to.
    async fn addresses(&self, host: &url::Host) -> Result<Vec<IpAddr>, SendError> {
        let name = match host {
            url::Host::Domain(name) => name,
            // Judged when the URL was prepared.
            url::Host::Ipv4(address) => return Ok(vec![(*address).into()]),
            url::Host::Ipv6(address) => return Ok(vec![(*address).into()]),
        };
        let found = match Arc::clone(&self.names).look_up(name).await {
            Ok(found) => found,
            Err(error) if want::is_cause_of(&error) => return Err(SendError::Want(std::io::Error::other(error))),
            Err(error) => return Err(ResolveError::Lookup(error).into()),
        };
        let permitted: Vec<_> = found
            .iter()
            .copied()
            .filter(|address| self.policy.permits(*address))
            .collect();
        if permitted.is_empty() {
            return Err(ResolveError::Refused { name: name.clone() }.into());
        }
        Ok(permitted)
    }
}

/// Whether and how a request that failed is sent again.
enum Again {
    No,
    OverHttp1,
    Anywhere,
    Anew,
}

fn again(lease: &Lease, error: &hyper::Error) -> Again {
    match Http2::of(error) {
        Some(Http2::WantsHttp1) => Again::OverHttp1,
        Some(Http2::Refused) => Again::Anywhere,
        Some(Http2::GoingAway) => {
            lease.retire();
            Again::Anywhere
        }
        Some(Http2::EndedStream) => Again::No,
        None => {
            lease.retire();
            let was_idle = lease.reused && lease.was_silent() && failure::broke(error);
            if was_idle || error.is_canceled() {
                Again::Anew
            } else {
                Again::No
            }
        }
    }
}

/// Whether the answer may be about a connection that was idle too long, and not about the request.
fn is_stray(response: &Response<Incoming>) -> bool {
    let closes = |value: &http::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"close");
    response.status() == StatusCode::REQUEST_TIMEOUT && response.headers().get_all(CONNECTION).iter().any(closes)
}

impl Exchange {
    pub(crate) fn status(&self) -> StatusCode {
        self.response.status()
    }

    pub(crate) fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// Reads the body into `beginning`, at most `kept` bytes of it. If the body ends within `most` bytes, the next
    /// request may have the connection. An error while reading changes nothing: the status is the answer. Returns
    /// whether `beginning` has the whole body.
    pub(crate) async fn read(self, beginning: &mut Vec<u8>, kept: usize, most: usize) -> bool {
        let mut body = self.response.into_body();
        let mut read = 0;
        loop {
            match body.frame().await {
                None => {
                    self.lease.keep();
                    return read <= kept;
                }
                Some(Ok(frame)) => {
                    let Some(bytes) = frame.data_ref() else { continue };
                    let room = kept.saturating_sub(beginning.len());
                    beginning.extend(bytes.iter().take(room));
                    read += bytes.len();
                    if read > most {
                        return false;
                    }
                }
                Some(Err(_)) => return false,
            }
        }
    }
}

#[cfg(test)]
mod tests;
