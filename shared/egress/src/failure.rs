//! Failures of requests, as the kinds of error that attempts have and in words.

use super::chain::within;
use super::names::LookupError;
use super::{tls, want};
use crate::credentials;
use herald_domain::delivery::AttemptError;
use hickory_resolver::net::{DnsError, NetError};
use rustls::AlertDescription;
use std::error::Error;
use std::io;

/// The most characters of a failure's description that are kept.
const MAX_DETAIL_CHARS: usize = 500;

/// Why a name has no address that a request may go to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResolveError {
    #[error(transparent)]
    Lookup(#[from] LookupError),
    #[error("{name} resolves to no address that a request may go to; --egress-allow would allow it")]
    Refused { name: String },
}

/// A request that was not answered.
#[derive(Debug)]
pub struct Failure {
    /// Its kind.
    pub kind: AttemptError,
    /// Its causes in words: one bounded line, without user and password of URLs.
    pub detail: String,
}

/// No request was sent, because this process or its machine is short of something. No receiver has failed by it.
#[derive(Debug, thiserror::Error)]
#[error("Herald is short of descriptors, ports or memory for connections: {0}")]
pub struct Want(pub(crate) io::Error);

/// Why a request was not answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    /// The name of its host has no usable address.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// No address answered.
    #[error("no connection")]
    Connect(#[source] io::Error),
    /// The handshake of TLS failed.
    #[error("no TLS")]
    Tls(#[source] io::Error),
    /// The request failed after the connection was made.
    #[error("no answer")]
    Exchange(#[from] hyper::Error),
    /// This process or its machine lacked something that a connection needs.
    #[error("Herald is short of descriptors, ports or memory for connections: {0}")]
    Want(io::Error),
}

impl SendError {
    /// No address answered, or there was no socket to ask with.
    pub(super) fn connect(error: io::Error) -> Self {
        if want::is(&error) {
            Self::Want(error)
        } else {
            Self::Connect(error)
        }
    }

    /// The receiver speaks none of the versions of HTTP that it was offered.
    pub(super) fn speaks_no_such_http(&self) -> bool {
        let mut next: Option<&(dyn Error + 'static)> = Some(self);
        while let Some(cause) = next {
            if let Some(rustls::Error::AlertReceived(alert)) = cause.downcast_ref() {
                return *alert == AlertDescription::NoApplicationProtocol;
            }
            next = within(cause);
        }
        false
    }

    /// The attempt's kind of error.
    pub(crate) fn kind(&self) -> AttemptError {
        match (self, innermost(self)) {
            // Before the connection is made there is nothing to reset.
            (Self::Connect(_) | Self::Tls(_), Some(AttemptError::Reset) | None) => AttemptError::Connect,
            (_, Some(kind)) => kind,
            (_, None) => AttemptError::Reset,
        }
    }

    /// The causes in words. No part of the payload is among them.
    pub(crate) fn words(&self) -> String {
        let mut causes = match self {
            Self::Resolve(error) => vec![error.to_string()],
            Self::Connect(_) | Self::Tls(_) | Self::Exchange(_) | Self::Want(_) => Vec::new(),
        };
        let mut next = self.source();
        while let Some(cause) = next {
            if let Some(error) = cause.downcast_ref::<rustls::Error>() {
                causes = vec![tls::words(error)];
                break;
            }
            if let Some(words) = cause.downcast_ref::<NetError>().and_then(dns_words) {
                causes.push(words);
                break;
            }
            let text = cause.to_string();
            // An error that wraps another often repeats its words.
            if !causes.last().is_some_and(|last| last.ends_with(&text)) {
                causes.push(text);
            }
            next = within(cause);
        }
        if causes.is_empty() {
            causes.push(self.to_string());
        }
        // The words may contain what the other side says when it closes an HTTP/2 connection, up to 16 KiB.
        bounded(&credentials::in_text(&causes.join(": "), false), MAX_DETAIL_CHARS)
    }
}

/// What name servers answered, in words. The error that it wraps has the question in it, which is not for people.
fn dns_words(error: &NetError) -> Option<String> {
    let NetError::Dns(said) = error else {
        return None;
    };
    Some(if error.is_nx_domain() {
        "there is no such name".to_owned()
    } else if error.is_no_records_found() {
        "it has no address".to_owned()
    } else if let DnsError::ResponseCode(code) = said {
        format!("its name servers answered with the error {code}")
    } else {
        said.to_string()
    })
}

/// The beginning of the text, in one line and without control characters, which a ledger may not be able to keep.
pub(crate) fn bounded(text: &str, most_chars: usize) -> String {
    let mut bounded = String::with_capacity(text.len().min(most_chars));
    let mut chars = text.chars();
    for char in chars.by_ref().take(most_chars) {
        bounded.push(if char.is_control() { ' ' } else { char });
    }
    if chars.next().is_some() {
        bounded.push('\u{2026}');
    }
    bounded
}

/// The kind of the innermost error that has one.
fn innermost(error: &(dyn Error + 'static)) -> Option<AttemptError> {
    let (mut next, mut found) = (Some(error), None);
    while let Some(cause) = next {
        found = kind_of(cause).or(found);
        next = within(cause);
    }
    found
}

/// Whether the connection only ended, and nothing that came over it was malformed.
pub(super) fn broke(error: &hyper::Error) -> bool {
    !error.is_user() && matches!(innermost(error), Some(AttemptError::Reset) | None)
}

/// The kind of one error in the chain, if it has one.
fn kind_of(cause: &(dyn Error + 'static)) -> Option<AttemptError> {
    if let Some(error) = cause.downcast_ref::<SendError>() {
        return match error {
            SendError::Resolve(ResolveError::Lookup(_)) => Some(AttemptError::Dns),
            SendError::Resolve(ResolveError::Refused { .. }) => Some(AttemptError::AddressRefused),
            SendError::Connect(_) | SendError::Tls(_) | SendError::Exchange(_) | SendError::Want(_) => None,
        };
    }
    if cause.is::<LookupError>() {
        return Some(AttemptError::Dns);
    }
    if cause.is::<rustls::Error>() {
        return Some(AttemptError::Tls);
    }
    if let Some(error) = cause.downcast_ref::<hyper::Error>() {
        if error.is_parse_too_large() {
            return Some(AttemptError::ResponseTooLarge);
        }
        // An HTTP/2 ping was not answered.
        if error.is_timeout() {
            return Some(AttemptError::Timeout);
        }
        return error.is_parse().then_some(AttemptError::Http);
    }
    if let Some(error) = cause.downcast_ref::<h2::Error>() {
        return kind_of_h2(error);
    }
    let error = cause.downcast_ref::<io::Error>()?;
    match error.kind() {
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof => Some(AttemptError::Reset),
        io::ErrorKind::TimedOut => Some(AttemptError::Timeout),
        _ => None,
    }
}

/// The kind of an HTTP/2 error. If the other side ended the stream or the connection, it is a reset; if this side
/// objected to what came, it is no HTTP.
fn kind_of_h2(error: &h2::Error) -> Option<AttemptError> {
    if error.is_io() {
        return None;
    }
    if !error.is_library() {
        return Some(AttemptError::Reset);
    }
    // This side refuses a stream only for a head beyond the limit, and the connection only if such a head comes in
    // ever more parts.
    let too_large = [h2::Reason::REFUSED_STREAM, h2::Reason::ENHANCE_YOUR_CALM].map(Some);
    Some(if too_large.contains(&error.reason()) {
        AttemptError::ResponseTooLarge
    } else {
        AttemptError::Http
    })
}

/// What the receiver says about a request that failed over HTTP/2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Http2 {
    /// It wants HTTP/1.1 (RFC 9113, 7).
    WantsHttp1,
    /// It did nothing with the request (RFC 9113, 8.7).
    Refused,
    /// It did nothing with the request, and takes no more on this connection.
    GoingAway,
    /// It ended this one request.
    EndedStream,
}

impl Http2 {
    /// The receiver's message in this error, if there is one.
    pub(super) fn of(error: &hyper::Error) -> Option<Self> {
        let mut next: Option<&(dyn Error + 'static)> = Some(error);
        let error = loop {
            let cause = next?;
            if let Some(error) = cause.downcast_ref::<h2::Error>() {
                break error;
            }
            next = within(cause);
        };
        if !error.is_remote() {
            return None;
        }
        match error.reason() {
            Some(h2::Reason::HTTP_1_1_REQUIRED) => Some(Self::WantsHttp1),
            Some(h2::Reason::REFUSED_STREAM) if error.is_reset() => Some(Self::Refused),
            Some(h2::Reason::NO_ERROR) if error.is_go_away() => Some(Self::GoingAway),
            _ => error.is_reset().then_some(Self::EndedStream),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_resolver::net::NoRecords;
    use hickory_resolver::proto::op::{Query, ResponseCode};

    #[test]
    fn the_innermost_cause_names_a_failure() {
        let failure = |error: io::Error| SendError::Connect(error).kind();
        assert_eq!(failure(io::ErrorKind::ConnectionRefused.into()), AttemptError::Connect);
        assert_eq!(failure(io::ErrorKind::ConnectionReset.into()), AttemptError::Connect);
        assert_eq!(failure(io::ErrorKind::TimedOut.into()), AttemptError::Timeout);
        let error = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let error = SendError::Tls(io::Error::new(io::ErrorKind::InvalidData, error));
        assert_eq!(error.kind(), AttemptError::Tls);
        assert!(error.words().contains("--egress-ca"), "{}", error.words());
        let refused = ResolveError::Refused {
            name: "a.test".to_owned(),
        };
        let refused = SendError::Resolve(refused);
        assert_eq!(refused.kind(), AttemptError::AddressRefused);
        assert!(refused.words().contains("--egress-allow"), "{}", refused.words());
    }

    #[test]
    fn what_name_servers_answer_is_said_in_plain_words() {
        let no_records = |code| DnsError::NoRecordsFound(NoRecords::new(Query::new(), code));
        for (said, words) in [
            (
                no_records(ResponseCode::NXDomain),
                "a.test did not resolve: there is no such name",
            ),
            (
                no_records(ResponseCode::NoError),
                "a.test did not resolve: it has no address",
            ),
            (
                DnsError::ResponseCode(ResponseCode::ServFail),
                "a.test did not resolve: its name servers answered with the error Server Failure",
            ),
        ] {
            let name = "a.test".into();
            let error = LookupError::Answer {
                name,
                error: NetError::Dns(said),
            };
            let error = SendError::Resolve(ResolveError::Lookup(error));
            assert_eq!(error.words(), words);
        }
    }

    #[test]
    fn words_are_one_bounded_line() {
        assert_eq!(bounded("a\0b\nc", 10), "a b c");
        assert_eq!(bounded("äöü", 2), "äö\u{2026}");
    }
}
