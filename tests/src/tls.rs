//! Certificates for receivers: a private authority, and what it can get wrong.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const LOOPBACK: [&str; 2] = ["127.0.0.1", "localhost"];

/// A certificate authority that nobody trusts unless told to.
#[derive(Debug)]
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Default for Authority {
    fn default() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names, so none is invalid");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, "Herald's tests");
        let key = KeyPair::generate().expect("a key pair");
        Self {
            issuer: CertifiedIssuer::self_signed(params, key).expect("a self-signed certificate"),
        }
    }
}

impl Authority {
    /// Writes the authority's certificate as PEM into `folder`.
    pub fn write_pem(&self, folder: &Path) -> PathBuf {
        let file = folder.join("authority.pem");
        std::fs::write(&file, self.issuer.pem()).expect("a writable folder");
        file
    }

    /// Writes a server's certificate for the loopback address and `localhost`, and its key, as PEM into
    /// `folder`.
    pub fn write_server_pem(&self, folder: &Path) -> (PathBuf, PathBuf) {
        let params = CertificateParams::new(LOOPBACK.map(str::to_owned)).expect("valid names");
        let key = KeyPair::generate().expect("a key pair");
        let certificate = params.signed_by(&key, &self.issuer).expect("a signed certificate");
        let (certificate_file, key_file) = (folder.join("server.pem"), folder.join("server-key.pem"));
        std::fs::write(&certificate_file, certificate.pem()).expect("a writable folder");
        std::fs::write(&key_file, key.serialize_pem()).expect("a writable folder");
        (certificate_file, key_file)
    }

    /// A server's certificate for the loopback address and `localhost`.
    pub fn good(&self) -> Arc<ServerConfig> {
        self.issue(&LOOPBACK, false)
    }

    /// The same of a server that offers HTTP/2.
    pub fn good_with_http2(&self) -> Arc<ServerConfig> {
        let mut config = ServerConfig::clone(&self.good());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Arc::new(config)
    }

    /// The same of a server that speaks nothing but HTTP/2.
    pub fn good_with_nothing_but_http2(&self) -> Arc<ServerConfig> {
        let mut config = ServerConfig::clone(&self.good());
        config.alpn_protocols = vec![b"h2".to_vec()];
        Arc::new(config)
    }

    /// The same of a server that wants a certificate from its clients.
    pub fn good_wanting_another(&self) -> Arc<ServerConfig> {
        let mut roots = RootCertStore::empty();
        roots
            .add(self.issuer.der().clone())
            .expect("a certificate of an authority");
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots))
            .build()
            .expect("an authority");
        let (certificate, private) = self.certify(&LOOPBACK, false);
        let config = ServerConfig::builder()
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![certificate], private)
            .expect("a key that fits its certificate");
        Arc::new(config)
    }

    /// A certificate for the loopback address that says that it is an authority's, as `openssl req -x509` makes
    /// it, and the file of it for who trusts it.
    pub fn self_signed(folder: &Path) -> (Arc<ServerConfig>, PathBuf) {
        let mut params = CertificateParams::new(LOOPBACK.map(str::to_owned)).expect("valid names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key pair");
        let certificate = params.self_signed(&key).expect("a self-signed certificate");
        let file = folder.join("self-signed.pem");
        std::fs::write(&file, certificate.pem()).expect("a writable folder");
        (serve_as(certificate.der().clone(), private(&key)), file)
    }

    /// The same, expired for years.
    pub fn expired(&self) -> Arc<ServerConfig> {
        self.issue(&LOOPBACK, true)
    }

    /// A certificate for somebody else's name.
    pub fn wrong_name(&self) -> Arc<ServerConfig> {
        self.issue(&["elsewhere.example"], false)
    }

    fn issue(&self, names: &[&str], expired: bool) -> Arc<ServerConfig> {
        let (certificate, private) = self.certify(names, expired);
        serve_as(certificate, private)
    }

    fn certify(&self, names: &[&str], expired: bool) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("valid names");
        if expired {
            params.not_before = date_time_ymd(2019, 1, 1);
            params.not_after = date_time_ymd(2020, 1, 1);
        }
        let key = KeyPair::generate().expect("a key pair");
        let certificate = params.signed_by(&key, &self.issuer).expect("a signed certificate");
        install_crypto();
        (certificate.der().clone(), private(&key))
    }
}

fn private(key: &KeyPair) -> PrivateKeyDer<'static> {
    PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()))
}

fn serve_as(certificate: CertificateDer<'static>, private: PrivateKeyDer<'static>) -> Arc<ServerConfig> {
    install_crypto();
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], private)
        .expect("a key that fits its certificate");
    Arc::new(config)
}

/// Makes `ring` the process's cryptography; the second call changes nothing.
pub fn install_crypto() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Whoever comes second finds the same provider installed, which is as good.
        drop(rustls::crypto::ring::default_provider().install_default());
    }
}
