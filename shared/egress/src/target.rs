//! Where requests go, and whether they may go there.

use herald_domain::address::EgressPolicy;
use herald_domain::subscription::literal_address;
use http::header::{ACCEPT, HOST, InvalidHeaderValue, USER_AGENT};
use http::uri::InvalidUri;
use http::{HeaderMap, HeaderValue, Uri};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use url::Url;

/// How long an isolated target's requests have connections of their own. It is bounded, because a receiver's trouble
/// passes, and over HTTP/1.1 each request under way takes a connection.
const ISOLATION: Duration = Duration::from_mins(10);

/// Why no request can go to a URL.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// The text is no URL.
    #[error("the subscriber's URL is not one any more")]
    Url(#[from] url::ParseError),
    /// HTTP cannot express the URL.
    #[error("the subscriber's URL is not one that HTTP allows")]
    Uri(#[from] InvalidUri),
    /// The URL has no host or no port.
    #[error("the subscriber's URL has no host")]
    Host,
    /// Requests may not go to the URL's literal address.
    #[error("{0} is not an address that a request may go to; --egress-allow would allow it")]
    Address(IpAddr),
    /// HTTP cannot express the host.
    #[error("a header has a value that HTTP does not allow")]
    Header(#[from] InvalidHeaderValue),
}

/// A URL that requests go to. It remembers whether its requests share connections with those of other targets.
#[derive(Debug)]
pub struct Target {
    uri: Uri,
    /// Host, and port if the URL names one.
    authority: HeaderValue,
    origin: Origin,
    /// Until when the target is isolated: its requests have connections of their own.
    isolated_until: Mutex<Option<Instant>>,
}

/// The server that a URL names.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    /// Scheme, host and port in one text.
    pub(crate) name: Arc<str>,
    pub(crate) host: url::Host,
    pub(crate) port: u16,
    pub(crate) tls: bool,
}

impl Origin {
    /// None where the URL has no host or no port.
    fn of(url: &Url) -> Option<Self> {
        Some(Self {
            name: url.origin().ascii_serialization().into(),
            host: url.host()?.to_owned(),
            port: url.port_or_known_default()?,
            tls: url.scheme() == "https",
        })
    }
}

impl Target {
    /// Checks the URL's own address; a name is judged when it is looked up.
    pub(crate) fn new(policy: &EgressPolicy, url: &str) -> Result<Self, TargetError> {
        let url = Url::parse(url)?;
        if let Some(address) = literal_address(&url)
            && !policy.permits(address)
        {
            return Err(TargetError::Address(address));
        }
        let origin = Origin::of(&url).ok_or(TargetError::Host)?;
        let authority = match url.port() {
            Some(port) => format!("{}:{port}", origin.host),
            None => origin.host.to_string(),
        };
        let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
        Ok(Self {
            uri: Uri::try_from(format!("{}://{authority}{}{query}", url.scheme(), url.path()))?,
            authority: HeaderValue::try_from(authority)?,
            origin,
            isolated_until: Mutex::default(),
        })
    }

    /// The whole URL, without user, password and fragment.
    pub fn uri(&self) -> &Uri {
        &self.uri
    }

    /// The headers with which every request to the target begins: `Host`, `User-Agent` and `Accept`.
    pub fn headers(&self) -> HeaderMap {
        // Room for the headers that are added: a clone has a table of the same size.
        let mut headers = HeaderMap::with_capacity(16);
        headers.insert(HOST, self.authority.clone());
        headers.insert(
            USER_AGENT,
            HeaderValue::from_static(concat!("Herald/", env!("CARGO_PKG_VERSION"))),
        );
        headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        headers
    }

    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Isolates the target for [`ISOLATION`], because a request was not answered in time or the receiver wants HTTP/1.1:
    /// its requests have connections of their own.
    pub(crate) fn isolate(&self, now: Instant) {
        *self.isolated_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(now + ISOLATION);
    }

    /// Ends the isolation, because the receiver speaks only HTTP/2: requests share connections again.
    pub(crate) fn share_again(&self) {
        *self.isolated_until.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Whether the target is isolated: its requests have connections of their own.
    pub(crate) fn is_isolated(&self, now: Instant) -> bool {
        let until = *self.isolated_until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(url: &str) -> Result<Target, TargetError> {
        Target::new(&EgressPolicy::default(), url)
    }

    #[test]
    fn a_request_leads_where_its_url_says() {
        let target = target("https://user:secret@a.example:8443/a%2Fb//?c=%7E&d='#e").unwrap();
        assert_eq!(target.uri(), "https://a.example:8443/a%2Fb//?c=%7E&d=%27");
        assert_eq!(target.headers()["host"], "a.example:8443");
        let origin = target.origin();
        assert_eq!(
            (&*origin.name, origin.port, origin.tls),
            ("https://a.example:8443", 8443, true)
        );
    }

    #[test]
    fn a_literal_address_that_is_not_permitted_is_no_target() {
        assert!(matches!(target("http://10.0.0.1/"), Err(TargetError::Address(_))));
    }

    #[test]
    fn a_target_is_isolated_for_a_while_and_not_for_good() {
        let target = target("https://a.example/").unwrap();
        let now = Instant::now();
        assert!(!target.is_isolated(now));
        target.isolate(now);
        assert!(target.is_isolated(now + ISOLATION / 2));
        assert!(!target.is_isolated(now + ISOLATION));
        target.isolate(now);
        target.share_again();
        assert!(!target.is_isolated(now));
    }
}
