//! The HTTP client: every address is checked after name resolution, at every connect.
//!
//! A literal address in a URL never reaches the resolver, so [`check_literal`] asks when a URL is prepared for
//! its requests; names are judged by what they resolve to, at each connect, so an answer that changes between
//! two look-ups changes nothing. Redirects are not followed, and proxies from the environment are ignored,
//! because either could lead elsewhere.
//!
//! To receivers that offer it over TLS, HTTP/2 is spoken (ALPN), and all requests to a host share a connection.
//! A request that such a receiver says it did nothing with (RFC 9113, 8.7) is sent again by reqwest at once, at
//! most twice. A connection bears so many requests at a time, and those that hang would use it up for every
//! other subscription on that host; so one of whose requests was not answered in time has connections of its
//! own from then on, over HTTP/1.1, whether it was what hangs or what waited.
//!
//! What is kept open without a request is bounded for each host, in time, and over all hosts, see [`kept`].

mod kept;
mod names;

use crate::prepared::{Prepare, Prepared};
use herald_domain::address::EgressPolicy;
use herald_domain::subscription::literal_address;
use http::HeaderValue;
use http::header::CONNECTION;
use kept::{Host, Kept};
use names::{LookupError, Names};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Certificate, Client, Request, Response, redirect};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use url::Url;

/// Connections that are kept open to one host; as many as a lane has in flight by default. With fewer, a
/// lane at its limit closes what it needs again at once: of 4,000 requests with 64 in flight, 1,174 made a
/// connection where 32 were kept, 1,749 where 16 were, and 64 in all where 64 were.
const MAX_IDLE_PER_HOST: usize = 64;

/// Connections that are kept open to all hosts together. Beside them are those of the attempts under way, some
/// 2,000 at the most.
const MAX_IDLE: usize = 4096;

/// How long one is kept without a request; what is over it is looked for as often, so it may be twice that.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);

/// How often a connection that requests wait on over HTTP/2 is asked whether it is alive, and how long it
/// has to answer. An attempt has 15 s by default, so those who wait learn it before, and the next attempt
/// finds another connection.
const PING_INTERVAL: Duration = Duration::from_secs(5);
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// What a receiver may send of one answer over HTTP/2 before it is read: no more of it is.
const WINDOW_BYTES: u32 = 16 * 1024;

/// The head of an answer over HTTP/2, at most. Over HTTP/1.1 hyper has bounds of its own: 100 headers, and
/// about 400 KiB.
const MAX_HEAD_BYTES: u32 = 64 * 1024;

/// Why the client could not be made.
#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    /// The HTTP client refused its settings.
    #[error("the HTTP client could not be made")]
    Client(#[from] reqwest::Error),
    /// A metric of that name exists already.
    #[error("a metric could not be registered")]
    Metrics(#[from] prometheus::Error),
    /// The system's settings for looking up names are no settings.
    #[error("names cannot be looked up")]
    Names(#[from] hickory_resolver::net::NetError),
}

/// Why a name led nowhere.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResolveError {
    #[error(transparent)]
    Lookup(#[from] LookupError),
    #[error("{name} resolves to no address that a request may go to")]
    Refused { name: String },
}

/// The literal address that a request may not go to.
#[derive(Debug, thiserror::Error)]
#[error("{0} is not an address that a request may go to")]
pub(crate) struct LiteralRefused(std::net::IpAddr);

/// Sends requests where they may go.
#[derive(Debug)]
pub(crate) struct Sender {
    shared: Client,
    apart: Client,
    prepare: Prepare,
    kept: Mutex<Kept>,
}

/// A request's way to its subscriber, held until its answer was read.
pub(crate) struct Way<'s> {
    sender: &'s Sender,
    host: Host,
    /// Whether its connection may be kept.
    kept: bool,
}

/// Reads the certificates of a PEM file.
pub fn parse_certificates(pem: &[u8]) -> Result<Vec<Certificate>, EgressError> {
    Ok(Certificate::from_pem_bundle(pem)?)
}

impl Sender {
    /// Sends to public addresses and those that `policy` allows, trusts the system's authorities and
    /// `trusted`, and looks names up at `dns`, or where the system does if that is empty.
    pub(crate) fn new(
        policy: Arc<EgressPolicy>,
        trusted: &[Certificate],
        dns: &[SocketAddr],
    ) -> Result<Self, EgressError> {
        let resolver = Arc::new(CheckedResolver {
            policy: Arc::clone(&policy),
            names: Arc::new(Names::new(dns)?),
        });
        let builder = || {
            Client::builder()
                .user_agent(concat!("Herald/", env!("CARGO_PKG_VERSION")))
                .redirect(redirect::Policy::none())
                .referer(false)
                .no_proxy()
                .dns_resolver(Arc::clone(&resolver))
                .tls_certs_merge(trusted.iter().cloned())
                .pool_max_idle_per_host(MAX_IDLE_PER_HOST)
                .pool_idle_timeout(IDLE_TIMEOUT)
        };
        let shared = builder()
            .http2_keep_alive_interval(PING_INTERVAL)
            .http2_keep_alive_timeout(PING_TIMEOUT)
            .http2_keep_alive_while_idle(false)
            .http2_initial_stream_window_size(WINDOW_BYTES)
            .http2_max_header_list_size(MAX_HEAD_BYTES)
            .build()?;
        Ok(Self {
            shared,
            apart: builder().http1_only().build()?,
            prepare: Prepare::new(policy),
            kept: Mutex::new(Kept::new(MAX_IDLE, 2 * IDLE_TIMEOUT)),
        })
    }

    /// The way of that subscription's next request.
    pub(crate) fn way(&self, prepared: &Prepared) -> Way<'_> {
        let host = (Arc::clone(prepared.origin()), prepared.is_apart());
        let kept = self.kept().begin(&host, Instant::now());
        Way {
            sender: self,
            host,
            kept,
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Nothing is left half done where this could panic.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Prepares subscriptions for their requests.
    pub(crate) fn prepare(&self) -> &Prepare {
        &self.prepare
    }
}

impl Way<'_> {
    /// Sends it.
    pub(crate) async fn send(&self, mut request: Request) -> reqwest::Result<Response> {
        if !self.kept {
            request
                .headers_mut()
                .insert(CONNECTION, HeaderValue::from_static("close"));
        }
        let (_, apart) = self.host;
        // A connection over HTTP/2 would stay, whatever a request says.
        let client = if apart || !self.kept {
            &self.sender.apart
        } else {
            &self.sender.shared
        };
        client.execute(request).await
    }
}

impl Drop for Way<'_> {
    fn drop(&mut self) {
        if self.kept {
            self.sender.kept().end(&self.host, Instant::now());
        }
    }
}

/// Whether the URL's own address may be gone to; a name is judged when it is looked up.
pub(crate) fn check_literal(policy: &EgressPolicy, url: &Url) -> Result<(), LiteralRefused> {
    match literal_address(url) {
        Some(address) if !policy.permits(address) => Err(LiteralRefused(address)),
        Some(_) | None => Ok(()),
    }
}

/// The answers of name servers, sifted.
struct CheckedResolver {
    policy: Arc<EgressPolicy>,
    names: Arc<Names>,
}

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (policy, names) = (Arc::clone(&self.policy), Arc::clone(&self.names));
        Box::pin(async move {
            let found = names.look_up(name.as_str()).await.map_err(ResolveError::from)?;
            let permitted: Vec<SocketAddr> = found
                .iter()
                .filter(|address| policy.permits(**address))
                .map(|address| SocketAddr::new(*address, 0))
                .collect();
            if permitted.is_empty() {
                let name = name.as_str().to_owned();
                return Err(ResolveError::Refused { name }.into());
            }
            Ok(Box::new(permitted.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prepared;
    use std::io;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::timeout;

    const SOON: Duration = Duration::from_secs(10);

    /// Reads a request, answers it, and gives its head.
    async fn answer(stream: &mut TcpStream) -> io::Result<String> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await?;
        Ok(String::from_utf8_lossy(&head).to_lowercase())
    }

    #[tokio::test]
    async fn a_connection_that_cannot_be_kept_ends_with_its_answer() {
        // Another test of this process may have been first.
        drop(rustls::crypto::ring::default_provider().install_default());
        let policy = Arc::new(EgressPolicy::new(vec!["127.0.0.0/8".parse().unwrap()]));
        let mut sender = Sender::new(policy, &[], &[]).unwrap();
        sender.kept = Mutex::new(Kept::new(1, IDLE_TIMEOUT));
        let first = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let second = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = |listener: &TcpListener| format!("http://{}/", listener.local_addr().unwrap());
        let send = async |number, url: &str| {
            let prepared = sender
                .prepare()
                .get(&prepared::tests::subscription(number, url))
                .unwrap();
            let way = sender.way(&prepared);
            way.send(prepared.request()).await.unwrap().bytes().await.unwrap();
        };
        let keeping = async {
            let mut stream = first.accept().await.unwrap().0;
            for _ in 0..2 {
                assert!(!answer(&mut stream).await.unwrap().contains("connection: close"));
            }
            stream
        };
        let closing = async {
            let mut stream = second.accept().await.unwrap().0;
            assert!(answer(&mut stream).await.unwrap().contains("connection: close"));
            stream.read_u8().await.unwrap_err().kind()
        };
        let sending = async {
            send(1, &at(&first)).await;
            send(2, &at(&second)).await;
            send(1, &at(&first)).await;
        };
        let all = async { tokio::join!(keeping, closing, sending) };
        let (_stream, end, ()) = timeout(SOON, all).await.unwrap();
        assert_eq!(end, io::ErrorKind::UnexpectedEof);
    }
}
