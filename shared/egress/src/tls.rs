//! TLS to receivers: whose certificates are trusted, and what is said where a handshake fails.

use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, pem};
use rustls::{AlertDescription, CertificateError, ClientConfig};
use rustls_platform_verifier::Verifier;
use std::sync::Arc;

/// What is offered in a handshake.
#[derive(Debug)]
pub(super) struct Tls {
    /// HTTP/2, else HTTP/1.1.
    pub(super) both: Arc<ClientConfig>,
    /// HTTP/1.1.
    pub(super) http1: Arc<ClientConfig>,
}

/// Reads the certificates of a PEM file.
pub fn parse_certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, pem::Error> {
    CertificateDer::pem_slice_iter(pem).collect()
}

impl Tls {
    /// Trusts the system's authorities and `trusted`.
    pub(super) fn new(trusted: &[CertificateDer<'static>]) -> Result<Self, rustls::Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = Verifier::new_with_extra_roots(trusted.iter().cloned(), Arc::clone(&provider))?;
        let verifier: Arc<dyn ServerCertVerifier> = Arc::new(verifier);
        let config = |protocols: &[&[u8]]| {
            let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
                .with_safe_default_protocol_versions()?
                .dangerous()
                .with_custom_certificate_verifier(Arc::clone(&verifier))
                .with_no_client_auth();
            config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
            Ok::<_, rustls::Error>(Arc::new(config))
        };
        Ok(Self {
            both: config(&[b"h2", b"http/1.1"])?,
            http1: config(&[b"http/1.1"])?,
        })
    }
}

/// Why there is no trust, for who runs the receiver.
pub(super) fn words(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(error) => certificate(error),
        rustls::Error::AlertReceived(alert) => alert_received(*alert),
        rustls::Error::PeerIncompatible(_) => {
            "the receiver offers no version or cipher that Herald speaks: it must speak TLS 1.2 with ECDHE, or TLS 1.3"
                .to_owned()
        }
        rustls::Error::InvalidMessage(_) => "what the receiver sent is not TLS; is it an https port?".to_owned(),
        rustls::Error::NoCertificatesPresented => "the receiver showed no certificate".to_owned(),
        _ => "the receiver does not keep to the rules of TLS".to_owned(),
    }
}

fn certificate(error: &CertificateError) -> String {
    let text = match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "the receiver's certificate has expired",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the receiver's certificate is not valid yet, or Herald's clock is behind"
        }
        CertificateError::UnknownIssuer => {
            "the receiver's certificate was issued by nobody who is trusted: either the receiver does not send the \
             certificates between its own and its authority's, or the authority is private and belongs into \
             --egress-ca"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "the receiver's certificate does not name the URL's host in its subjectAltName"
        }
        CertificateError::Revoked => "the receiver's certificate was revoked",
        CertificateError::BadSignature => "the receiver's certificate has a wrong signature",
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "the receiver's certificate, or one above it, is signed by an algorithm that is too weak or unknown, such \
             as SHA-1"
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => NOT_FOR_SERVERS,
        // The library's own errors have no other form here than their names.
        CertificateError::Other(other) => match &*other.to_string() {
            name if name.contains("CaUsedAsEndEntity") => {
                "the receiver's certificate is that of an authority; make one with basicConstraints=CA:FALSE, also \
                 where it is self-signed"
            }
            name if name.contains("UnsupportedCertVersion") => {
                "the receiver's certificate is of an old version; only version 3 is supported"
            }
            name if name.contains("EKU") || name.contains("Eku") || name.contains("Purpose") => NOT_FOR_SERVERS,
            _ => NOT_BY_THE_RULES,
        },
        _ => NOT_BY_THE_RULES,
    };
    text.to_owned()
}

const NOT_FOR_SERVERS: &str = "the receiver's certificate is not for servers: its extendedKeyUsage lacks serverAuth";
const NOT_BY_THE_RULES: &str = "the receiver's certificate does not keep to the rules for certificates (RFC 5280)";

fn alert_received(alert: AlertDescription) -> String {
    let text = match alert {
        AlertDescription::CertificateRequired | AlertDescription::NoCertificate => {
            "the receiver wants a certificate from Herald (mutual TLS), which has none"
        }
        AlertDescription::HandshakeFailure
        | AlertDescription::ProtocolVersion
        | AlertDescription::InsufficientSecurity => {
            "the receiver ended the handshake: no version or cipher in common, or it wants a certificate from Herald"
        }
        AlertDescription::UnrecognisedName => "the receiver does not know the URL's host",
        AlertDescription::NoApplicationProtocol => "the receiver speaks neither HTTP/2 nor HTTP/1.1 over TLS (ALPN)",
        AlertDescription::AccessDenied => "the receiver refused access",
        AlertDescription::InternalError => "the receiver reported an error of its own in the handshake",
        _ => return format!("the receiver ended the connection with TLS alert {}", u8::from(alert)),
    };
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_words_are_the_librarys() {
        let certificates = [
            CertificateError::UnknownIssuer,
            CertificateError::Expired,
            CertificateError::BadEncoding,
            CertificateError::NotValidForName,
            CertificateError::ApplicationVerificationFailure,
        ];
        let errors = certificates.map(rustls::Error::InvalidCertificate).into_iter().chain([
            rustls::Error::AlertReceived(AlertDescription::CertificateRequired),
            rustls::Error::AlertReceived(AlertDescription::DecodeError),
            rustls::Error::HandshakeNotComplete,
        ]);
        for error in errors {
            let words = words(&error);
            assert!(words.starts_with("the receiver"), "{words}");
            assert!(!words.contains('{'), "{words}");
        }
    }
}
