//! Signatures as Standard Webhooks has them, over `id.timestamp.body`: v1, HMAC-SHA256, and v1a, Ed25519. And those of
//! Autotask's callouts, over the body.
//!
//! <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>

mod asymmetric;
mod signatures;

pub use asymmetric::{AsymmetricKey, BadPublicKey, PublicKey, SEED_BYTES};
pub use signatures::Signatures;

use crate::time::Timestamp;
use asymmetric::AsymmetricSigner;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::Sha256;
use std::fmt;
use std::ops::RangeInclusive;

/// The longest `SecretKey`, in characters.
pub const MAX_SECRET_CHARS: usize = 256;

/// The shortest `SecretKey` that is text, in bytes: the least length of a secret that a person chose, by NIST SP
/// 800-63B. Whoever wants more has one made.
pub const MIN_SECRET_BYTES: usize = 8;

/// How long a key after `whsec_` is, in bytes, by Standard Webhooks.
pub const KEY_BYTES: RangeInclusive<usize> = 24..=64;

const PREFIX: &str = "whsec_";

/// A subscription's signing key. Never shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningKey(Box<[u8]>);

/// The text is no usable `SecretKey`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadSecret {
    /// Too short or too long.
    #[error("must have at least {MIN_SECRET_BYTES} bytes and at most {MAX_SECRET_CHARS} characters")]
    Length,
    /// `whsec_` and then a key that is too short or too long.
    #[error("has a key of {0} bytes after whsec_; it must have {least} to {most}", least = KEY_BYTES.start(), most = KEY_BYTES.end())]
    KeyLength(usize),
    /// `whsec_` and then something that is not base64, or nothing.
    #[error(
        "must have the key in standard base64 after whsec_: letters, digits, + and /, filled up with = to a multiple \
         of 4 characters"
    )]
    Base64,
    /// It begins with almost `whsec_`.
    #[error("begins almost with whsec_; write that exactly, in lower case and without space before it")]
    Prefix,
}

impl SigningKey {
    /// The key of a new `SecretKey`: what follows `whsec_` is decoded from base64; any other text is the
    /// key itself, as UTF-8.
    ///
    /// After `whsec_` only what every library of Standard Webhooks decodes to the same key is accepted: the
    /// standard alphabet, padding, no bits left over, 24 to 64 bytes. Text without `whsec_` is for
    /// receivers that verify by themselves; libraries would take it for base64, so they are given
    /// `SigningSecret`.
    pub fn from_secret(secret: &str) -> Result<Self, BadSecret> {
        let key = Self::meant_by(secret)?;
        let bytes = key.0.len();
        if secret.starts_with(PREFIX) {
            if !KEY_BYTES.contains(&bytes) {
                return Err(BadSecret::KeyLength(bytes));
            }
        } else if bytes < MIN_SECRET_BYTES {
            return Err(BadSecret::Length);
        }
        Ok(key)
    }

    /// The key of a `SecretKey` or `SigningSecret` that is in use, however short it is: subscriptions keep
    /// the keys that they were given when there was no least length, and `SigningSecret` has the bytes of
    /// a text.
    pub fn meant_by(secret: &str) -> Result<Self, BadSecret> {
        if secret.is_empty() || secret.chars().count() > MAX_SECRET_CHARS {
            return Err(BadSecret::Length);
        }
        if let Some(base64) = secret.strip_prefix(PREFIX) {
            return match BASE64_STANDARD.decode(base64) {
                Ok(key) if !key.is_empty() => Ok(Self(key.into())),
                _ => Err(BadSecret::Base64),
            };
        }
        let almost = secret.trim_start().to_ascii_lowercase();
        if ["whsec_", "whsec-", "whsec:"]
            .iter()
            .any(|prefix| almost.starts_with(prefix))
        {
            return Err(BadSecret::Prefix);
        }
        Ok(Self(secret.as_bytes().into()))
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

    /// The value of `X-Hook-Signature`, as Autotask signs: `sha1=` and base64 of HMAC-SHA1 over the body.
    pub fn hook_signature(&self, body: &[u8]) -> String {
        #[expect(clippy::expect_used, reason = "HMAC takes keys of every length")]
        let mut mac = Hmac::<Sha1>::new_from_slice(&self.0).expect("invariant: HMAC takes any key");
        mac.update(body);
        format!("sha1={}", BASE64_STANDARD.encode(mac.finalize().into_bytes()))
    }

    /// [`Signer::sign`], for one signature.
    pub fn sign(&self, id: &str, at: Timestamp, body: &[u8]) -> String {
        self.signer().sign(id, at, body)
    }
}

/// A key that signs beside the one that replaced it, so that a receiver has time to learn that one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormerKey {
    /// The key that signs.
    pub key: SigningKey,
    /// The Ed25519 key that was replaced with it, if there was one.
    pub asymmetric: Option<AsymmetricKey>,
    /// When they sign no more.
    pub until: Timestamp,
}

/// The keys of a subscription, made ready to sign with. Never shown by `Debug`.
#[derive(Debug, Clone)]
pub struct Signers {
    newest: Pair,
    former: Option<(Pair, Timestamp)>,
}

/// Keys that sign together.
#[derive(Debug, Clone)]
struct Pair {
    symmetric: Signer,
    asymmetric: Option<AsymmetricSigner>,
}

impl Pair {
    fn new(key: &SigningKey, asymmetric: Option<&AsymmetricKey>) -> Self {
        Self {
            symmetric: key.signer(),
            asymmetric: asymmetric.map(AsymmetricKey::signer),
        }
    }
}

impl Signers {
    /// Signs with `key`, with the Ed25519 key if there is one, and with the former ones as long as they do.
    pub fn new(key: &SigningKey, asymmetric: Option<&AsymmetricKey>, former: Option<&FormerKey>) -> Self {
        let former = former.map(|former| {
            let asymmetric = asymmetric.and(former.asymmetric.as_ref());
            (Pair::new(&former.key, asymmetric), former.until)
        });
        Self {
            newest: Pair::new(key, asymmetric),
            former,
        }
    }

    /// The value of `webhook-signature`: those of v1, then those of v1a, each time the newest key's first.
    pub fn sign(&self, id: &str, at: Timestamp, body: &[u8]) -> String {
        let former = self.former.as_ref().filter(|(_, until)| at < *until);
        let pairs = || std::iter::once(&self.newest).chain(former.map(|(pair, _)| pair));
        let mut value = String::with_capacity(192);
        let symmetric = pairs().map(|pair| pair.symmetric.sign(id, at, body));
        let asymmetric = pairs().filter_map(|pair| Some(pair.asymmetric.as_ref()?.sign(id, at, body)));
        for signature in symmetric.chain(asymmetric) {
            if !value.is_empty() {
                value.push(' ');
            }
            value.push_str(&signature);
        }
        value
    }
}

/// What is signed.
fn message(id: &str, at: Timestamp, body: &[u8]) -> Vec<u8> {
    let mut message = format!("{id}.{}.", at.as_unix_seconds()).into_bytes();
    message.extend_from_slice(body);
    message
}

/// A signature as `webhook-signature` has it.
fn signature(version: &str, bytes: &[u8]) -> String {
    let mut signature = String::with_capacity(96);
    signature.push_str(version);
    BASE64_STANDARD.encode_string(bytes, &mut signature);
    signature
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
        signature("v1,", &mac.finalize().into_bytes())
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

    /// The value is that of RFC 2202, 3, test case 2.
    #[test]
    fn a_hooks_signature_is_hmac_sha1_over_the_body() {
        let key = SigningKey::from_bytes(b"Jefe".to_vec());
        let signature = key.hook_signature(b"what do ya want for nothing?");
        assert_eq!(signature, "sha1=7/zfauXrL6LSdBbV8YTfnCWafHk=");
    }

    #[test]
    fn a_former_key_signs_behind_the_newest_until_its_time_is_over() {
        let (new, old) = (SigningKey::from_bytes(vec![1; 32]), SigningKey::from_bytes(vec![2; 32]));
        let until = Timestamp::from_micros(10_000_000);
        let former = FormerKey {
            key: old.clone(),
            asymmetric: Some(AsymmetricKey::from_seed([2; SEED_BYTES])),
            until,
        };
        let signers = Signers::new(&new, None, Some(&former));
        let before = Timestamp::from_micros(9_999_999);
        let both = format!("{} {}", new.sign("a", before, b"{}"), old.sign("a", before, b"{}"));
        assert_eq!(signers.sign("a", before, b"{}"), both);
        assert_eq!(signers.sign("a", until, b"{}"), new.sign("a", until, b"{}"));
        assert_eq!(
            Signers::new(&new, None, None).sign("a", before, b"{}"),
            new.sign("a", before, b"{}")
        );
        // The asymmetric ones come behind them.
        let newest = AsymmetricKey::from_seed([1; SEED_BYTES]);
        let signed = Signers::new(&new, Some(&newest), Some(&former)).sign("a", before, b"{}");
        let asymmetric = signed.strip_prefix(&format!("{both} ")).unwrap();
        let (first, second) = asymmetric.split_once(' ').unwrap();
        assert!(newest.public_key().verifies(first, "a", before, b"{}"));
        let former = former.asymmetric.unwrap().public_key();
        assert!(former.verifies(second, "a", before, b"{}") && !former.verifies(first, "a", before, b"{}"));
    }

    #[test]
    fn a_secret_is_decoded_or_taken_as_it_is() {
        let text = "geheim, geheimer";
        assert_eq!(SigningKey::from_secret(text).unwrap().as_bytes(), text.as_bytes());
        let key = SigningKey::from_secret("whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3").unwrap();
        assert_eq!(key.as_bytes(), b"0123456789abcdef01234567");
        assert_eq!(key.to_signing_secret(), "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3");
        assert_eq!(format!("{key:?}"), "SigningKey(..)");
    }

    #[test]
    fn what_libraries_decode_differently_or_is_too_short_is_refused() {
        let encoded = |bytes: usize| SigningKey::from_bytes(vec![0xfb; bytes]).to_signing_secret();
        for bytes in [24, 25, 26, 32, 64] {
            assert!(SigningKey::from_secret(&encoded(bytes)).is_ok(), "{bytes}");
        }
        for (secret, rule) in [
            (encoded(23), BadSecret::KeyLength(23)),
            (encoded(65), BadSecret::KeyLength(65)),
            ("whsec_Z2VoZWlt".to_owned(), BadSecret::KeyLength(6)),
            // Not padded, not the standard alphabet, with bits left over, twice the prefix, with space.
            (encoded(25).replace('=', ""), BadSecret::Base64),
            (encoded(24).replace('+', "-").replace('/', "_"), BadSecret::Base64),
            (encoded(25).replace("w==", "x=="), BadSecret::Base64),
            (format!("whsec_{}", encoded(24)), BadSecret::Base64),
            (format!("{} ", encoded(24)), BadSecret::Base64),
            (encoded(24).replace("whsec_", "whsec_\n"), BadSecret::Base64),
            ("whsec_".to_owned(), BadSecret::Base64),
            ("whsec_?".to_owned(), BadSecret::Base64),
            (format!(" {}", encoded(24)), BadSecret::Prefix),
            (encoded(24).replace("whsec_", "WHSEC_"), BadSecret::Prefix),
            (encoded(24).replace("whsec_", "whsec-"), BadSecret::Prefix),
            (String::new(), BadSecret::Length),
            ("letters".to_owned(), BadSecret::Length),
            ("x".repeat(257), BadSecret::Length),
        ] {
            assert_eq!(SigningKey::from_secret(&secret).unwrap_err(), rule, "{secret:?}");
        }
        assert!(SigningKey::from_secret("letters!").is_ok());
    }

    #[test]
    fn a_short_secret_that_is_in_use_goes_on_verifying() {
        assert_eq!(SigningKey::meant_by("geheim").unwrap().as_bytes(), b"geheim");
        assert_eq!(SigningKey::meant_by("whsec_Z2VoZWlt").unwrap().as_bytes(), b"geheim");
        assert_eq!(SigningKey::meant_by("whsec_").unwrap_err(), BadSecret::Base64);
    }
}
