//! The client: what a request takes from name to answer, and when it is sent again.

use crate::answer::Answer;
use crate::connect::{self, Connection};
use crate::exchange::{BodyLimits, Exchange, ExchangeOutcome, Request, Timing};
use crate::failure::{self, Failure, Http2, ResolveError, SendError, Want};
use crate::names::Names;
use crate::pool::{Host, Lease, MAX_IDLE, Message, Pool, SWEEP_EVERY};
use crate::target::{Target, TargetError};
use crate::tls::Tls;
use crate::want;
use bytes::Bytes;
use herald_domain::address::EgressPolicy;
use http::header::CONNECTION;
use http::{HeaderMap, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use rustls::pki_types::CertificateDer;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

/// The most times that a request is sent again as the same exchange.
const MAX_REPEATS: usize = 2;

/// Why requests cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    /// No authority is trusted, or a given certificate is not valid.
    #[error("the authorities that are trusted could not be loaded")]
    Tls(#[from] rustls::Error),
    /// The system's settings for looking up names are not valid.
    #[error("names cannot be looked up")]
    Names(#[from] hickory_resolver::net::NetError),
}

/// The client, which sends requests to permitted addresses and keeps connections for the next ones.
#[derive(Debug)]
pub struct Client {
    policy: Arc<EgressPolicy>,
    names: Arc<Names>,
    tls: Tls,
    pool: Arc<Pool>,
}

/// An answer whose body is still to be read.
#[derive(Debug)]
struct Answering {
    response: Response<Incoming>,
    lease: Lease,
}

impl Client {
    /// Sends to public addresses and those that `policy` allows, trusts the system's authorities and
    /// `trusted`, and looks names up at `dns`, or where the system does if that is empty.
    pub fn new(
        policy: Arc<EgressPolicy>,
        trusted: &[CertificateDer<'static>],
        dns: &[SocketAddr],
    ) -> Result<Self, EgressError> {
        Ok(Self {
            policy,
            names: Arc::new(Names::new(dns)?),
            tls: Tls::new(trusted)?,
            pool: Pool::new(MAX_IDLE),
        })
    }

    /// The target of requests to this URL. A literal address in it must be permitted.
    pub fn target(&self, url: &str) -> Result<Target, TargetError> {
        Target::new(&self.policy, url)
    }

    /// Closes connections that nobody uses, until shutdown.
    pub async fn sweep(&self, shutdown: &CancellationToken) {
        let sweeping = async {
            loop {
                tokio::time::sleep(SWEEP_EVERY).await;
                self.pool.sweep(std::time::Instant::now());
            }
        };
        shutdown.run_until_cancelled(sweeping).await;
    }

    /// Sends a request and reads its answer, no longer than until the deadline. What came of the body by then is the
    /// answer's body.
    pub async fn exchange(&self, request: Request<'_>, deadline: Instant) -> Result<Exchange, Want> {
        let began = Instant::now();
        let Request {
            target,
            headers,
            body,
            limits,
        } = request;
        let outcome = match timeout_at(deadline, self.send(target, headers, body)).await {
            Ok(Ok(answering)) => ExchangeOutcome::Answered(answering.read(limits, deadline).await),
            Ok(Err(SendError::Want(error))) => return Err(Want(error)),
            Ok(Err(error)) => ExchangeOutcome::Failed(Failure {
                kind: error.kind(),
                detail: error.words(),
            }),
            Err(_elapsed) => {
                target.isolate(std::time::Instant::now());
                ExchangeOutcome::TimedOut
            }
        };
        let total = began.elapsed();
        Ok(Exchange {
            outcome,
            timing: Timing { total },
        })
    }

    /// Sends a request, and gives the answer when its head has come.
    async fn send(&self, target: &Target, headers: HeaderMap, body: Bytes) -> Result<Answering, SendError> {
        let message = Message {
            uri: target.uri().clone(),
            headers,
            body,
        };
        let mut new = false;
        let mut broken = None;
        for repeats_left in (0..=MAX_REPEATS).rev() {
            let isolated = target.is_isolated(std::time::Instant::now());
            let taken = self.take(target, new, isolated).await;
            if isolated && repeats_left > 0 && taken.as_ref().is_err_and(SendError::speaks_no_such_http) {
                target.share_again();
                continue;
            }
            let mut lease = match (taken, broken.take()) {
                // Something was sent, so this counts as an attempt.
                (Err(SendError::Want(_)), Some(earlier)) => return Err(earlier),
                (taken, _) => taken?,
            };
            match lease.send(message.clone()).await {
                Ok(response) if repeats_left > 0 && lease.reused && is_stray(&response) => new = true,
                Ok(response) => return Ok(Answering { response, lease }),
                Err(error) => match again(&lease, &error) {
                    Again::No => return Err(error.into()),
                    _ if repeats_left == 0 => return Err(error.into()),
                    Again::OverHttp1 => target.isolate(std::time::Instant::now()),
                    Again::Anywhere => {}
                    Again::Anew => (new, broken) = (true, Some(error.into())),
                },
            }
        }
        unreachable!("the last time round returns")
    }

    async fn take(&self, target: &Target, new: bool, isolated: bool) -> Result<Lease, SendError> {
        let origin = target.origin();
        let host = Host {
            origin: Arc::clone(&origin.name),
            may_share: origin.tls && !isolated,
        };
        let connect = async |changed: watch::Sender<()>| -> Result<Connection, SendError> {
            let addresses = self.addresses(&origin.host).await?;
            connect::connect(origin, &addresses, &self.tls, !host.may_share, changed).await
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
            // Judged when the target was made.
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

impl Answering {
    /// Reads the body as far as `limits` say and as it comes before the deadline. If the body ends within them, the
    /// next request may have the connection. An error while reading changes nothing: the status is the answer.
    async fn read(self, limits: BodyLimits, deadline: Instant) -> Answer {
        let (head, incoming) = self.response.into_parts();
        let mut body = Vec::new();
        let reading = read(incoming, self.lease, &mut body, limits);
        // As much as came in time.
        let is_whole = timeout_at(deadline, reading).await.unwrap_or(false);
        Answer {
            status: head.status,
            headers: head.headers,
            body,
            is_whole,
        }
    }
}

/// Reads a body into `beginning`. Returns whether `beginning` has the whole body.
async fn read(mut body: Incoming, lease: Lease, beginning: &mut Vec<u8>, limits: BodyLimits) -> bool {
    let mut read = 0;
    loop {
        match body.frame().await {
            None => {
                lease.keep();
                return read <= limits.kept;
            }
            Some(Ok(frame)) => {
                let Some(bytes) = frame.data_ref() else { continue };
                let room = limits.kept.saturating_sub(beginning.len());
                beginning.extend(bytes.iter().take(room));
                read += bytes.len();
                if read > limits.read {
                    return false;
                }
            }
            Some(Err(_)) => return false,
        }
    }
}

#[cfg(test)]
mod tests;
