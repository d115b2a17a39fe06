//! Requests to receivers: every address is checked after name resolution, at every connect.
//!
//! A literal address in a URL never reaches the resolver, so [`check_literal`](crate::target::check_literal) asks when a URL is prepared for
//! its requests; names are judged by what they resolve to, at each connect, so an answer that changes between
//! two look-ups changes nothing. Redirects are not followed, and proxies from the environment are ignored,
//! because either could lead elsewhere.
//!
//! To receivers that offer it over TLS, HTTP/2 is spoken (ALPN), and requests to a host share connections. Those
//! that hang would use these up for every other subscription on that host; so one of whose requests was not
//! answered in time has connections of its own for some minutes, over HTTP/1.1, whether it was what hangs or what
//! waited. The same becomes of one whose receiver says that it wants HTTP/1.1 (RFC 9113, 7). A receiver that speaks
//! nothing but HTTP/2 refuses such a connection (RFC 7301, 3.2), and its requests share connections again.
//!
//! A request is sent again at once, as the same attempt, where its receiver cannot be said to have failed: where
//! it did nothing with it and says so (RFC 9113, 8.7), wants HTTP/1.1 or nothing but HTTP/2, or closed a connection
//! that had been kept before a byte of the answer came (RFC 9112, 9.3.1), which it may do whenever it has waited long
//! enough. The `webhook-id` makes that safe.

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

/// How often a request is sent again as the same attempt, at most.
const MAX_REPEATS: usize = 2;

/// Why requests cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    /// No authority is trusted, or one of the given certificates is none.
    #[error("the authorities that are trusted could not be loaded")]
    Tls(#[from] rustls::Error),
    /// A metric of that name exists already.
    #[error("a metric could not be registered")]
    Metrics(#[from] prometheus::Error),
    /// The system's settings for looking up names are no settings.
    #[error("names cannot be looked up")]
    Names(#[from] hickory_resolver::net::NetError),
}

/// Sends requests where they may go.
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
                // Something was sent, so it is not as if there had been no attempt.
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
        // Few requests connect, and those that do not should not be as large.
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

/// Whether it may be what a receiver said of a connection that was idle too long, and not of the request.
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

    /// Reads the body into `beginning`, no more of it than `kept` bytes, and lets the next request have the
    /// connection if it ends within `most` bytes. What goes wrong with it changes nothing: the status is the answer.
    /// Whether the beginning is the whole of it.
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
