//! Where requests go, and whether they may go there.

use herald_domain::address::EgressPolicy;
use herald_domain::subscription::literal_address;
use std::net::IpAddr;
use std::sync::Arc;
use url::Url;

/// Where requests go.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// Scheme, host and port.
    pub(crate) origin: Arc<str>,
    pub(crate) host: url::Host,
    pub(crate) port: u16,
    pub(crate) tls: bool,
}

impl Target {
    /// None where the URL has no host or no port.
    pub(crate) fn of(url: &Url) -> Option<Self> {
        Some(Self {
            origin: url.origin().ascii_serialization().into(),
            host: url.host()?.to_owned(),
            port: url.port_or_known_default()?,
            tls: url.scheme() == "https",
        })
    }
}

/// The literal address that a request may not go to.
#[derive(Debug, thiserror::Error)]
#[error("{0} is not an address that a request may go to; --egress-allow would allow it")]
pub(crate) struct LiteralRefused(IpAddr);

/// Whether the URL's own address may be gone to; a name is judged when it is looked up.
pub(crate) fn check_literal(policy: &EgressPolicy, url: &Url) -> Result<(), LiteralRefused> {
    match literal_address(url) {
        Some(address) if !policy.permits(address) => Err(LiteralRefused(address)),
        Some(_) | None => Ok(()),
    }
}
