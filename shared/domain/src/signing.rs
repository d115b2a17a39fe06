//! Signatures as Standard Webhooks v1 has them: HMAC-SHA256 over `id.timestamp.body`.
//!
//! <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>

use crate::time::Timestamp;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::fmt;

/// The longest `SecretKey`, in characters.
pub const MAX_SECRET_CHARS: usize = 256;

const PREFIX: &str = "whsec_";

/// A subscription's signing key. Never shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningKey(Box<[u8]>);

/// The text is no usable `SecretKey`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadSecret {
    /// Empty, or too long.
    #[error("must have 1 to {MAX_SECRET_CHARS} characters")]
    Length,
    /// `whsec_` and then something that is not base64, or nothing.
    #[error("after whsec_ must come the key in base64")]
    Base64,
}

impl SigningKey {
    /// The key of a `SecretKey`: what follows `whsec_` is decoded from base64; any other text is the
    /// key itself, as UTF-8.
    pub fn from_secret(secret: &str) -> Result<Self, BadSecret> {
        if secret.is_empty() || secret.chars().count() > MAX_SECRET_CHARS {
            return Err(BadSecret::Length);
        }
        match secret.strip_prefix(PREFIX) {
            None => Ok(Self(secret.as_bytes().into())),
            Some(base64) => match BASE64_STANDARD.decode(base64) {
                Ok(key) if !key.is_empty() => Ok(Self(key.into())),
                _ => Err(BadSecret::Base64),
            },
        }
    }

    /// A key of these bytes.
    pub fn from_bytes(key: Vec<u8>) -> Self {
        Self(key.into())
    }

    /// The key's bytes, for the ledger.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The key as `SigningSecret` has it: `whsec_` and base64.
    pub fn to_signing_secret(&self) -> String {
        format!("{PREFIX}{}", BASE64_STANDARD.encode(&self.0))
    }

    /// Signs with this key. Making it is half the work of a short signature, and done once.
    pub fn signer(&self) -> Signer {
        #[expect(clippy::expect_used, reason = "HMAC takes keys of every length")]
        let keyed = Hmac::<Sha256>::new_from_slice(&self.0).expect("invariant: HMAC takes any key");
        Signer(keyed)
    }

    /// [`Signer::sign`], for one signature.
    pub fn sign(&self, id: &str, at: Timestamp, body: &[u8]) -> String {
        self.signer().sign(id, at, body)
    }
}

/// A key that has been made ready to sign with. Never shown by `Debug`.
#[derive(Clone)]
pub struct Signer(Hmac<Sha256>);

impl Signer {
    /// The value of `webhook-signature` for a message with this `webhook-id`, sent at `at`.
    pub fn sign(&self, id: &str, at: Timestamp, body: &[u8]) -> String {
        let mut mac = self.0.clone();
        mac.update(id.as_bytes());
        mac.update(format!(".{}.", at.as_unix_seconds()).as_bytes());
        mac.update(body);
        let mut signature = String::with_capacity(48);
        signature.push_str("v1,");
        BASE64_STANDARD.encode_string(mac.finalize().into_bytes(), &mut signature);
        signature
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer(..)")
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_independent_verifier_accepts_the_signature_and_no_changed_body(
            key in proptest::collection::vec(any::<u8>(), 1..64), id in "[a-z0-9-]{1,40}", body in "\\PC{1,200}",
        ) {
            let key = SigningKey::from_bytes(key);
            let verifier = standardwebhooks::Webhook::new(&key.to_signing_secret()).unwrap();
            let now = crate::time::Clock::now(&crate::time::SystemClock);
            let mut headers = http::HeaderMap::new();
            headers.insert("webhook-id", id.parse().unwrap());
            headers.insert("webhook-timestamp", now.as_unix_seconds().into());
            let signature = key.sign(&id, now, body.as_bytes());
            prop_assert_eq!(&key.signer().sign(&id, now, body.as_bytes()), &signature);
            headers.insert("webhook-signature", signature.parse().unwrap());
            prop_assert!(verifier.verify(body.as_bytes(), &headers).is_ok());
            let changed = format!("{body} ");
            prop_assert!(verifier.verify(changed.as_bytes(), &headers).is_err());
        }
    }

    #[test]
    fn a_secret_is_decoded_or_taken_as_it_is() {
        assert_eq!(SigningKey::from_secret("geheim").unwrap().as_bytes(), b"geheim");
        assert_eq!(SigningKey::from_secret("whsec_Z2VoZWlt").unwrap().as_bytes(), b"geheim");
        assert_eq!(
            SigningKey::from_secret("geheim").unwrap().to_signing_secret(),
            "whsec_Z2VoZWlt"
        );
        assert_eq!(SigningKey::from_secret("whsec_?").unwrap_err(), BadSecret::Base64);
        assert_eq!(SigningKey::from_secret("whsec_").unwrap_err(), BadSecret::Base64);
        assert_eq!(SigningKey::from_secret("").unwrap_err(), BadSecret::Length);
        assert_eq!(
            SigningKey::from_secret(&"x".repeat(257)).unwrap_err(),
            BadSecret::Length
        );
        assert_eq!(
            format!("{:?}", SigningKey::from_secret("geheim").unwrap()),
            "SigningKey(..)"
        );
    }
}
