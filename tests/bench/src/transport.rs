//! How messages reach the subscribers.

use std::fmt;

/// In clear or over TLS, and with which version of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Transport {
    /// HTTP/1.1 without TLS.
    Http,
    /// TLS, with HTTP/1.1 alone.
    Tls,
    /// TLS, with HTTP/2 offered beside HTTP/1.1.
    TlsHttp2,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "http",
            Self::Tls => "https, HTTP/1.1",
            Self::TlsHttp2 => "https, HTTP/2",
        })
    }
}
