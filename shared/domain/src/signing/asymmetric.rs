//! Signatures as Standard Webhooks v1a has them: Ed25519 over the same text as v1.

use super::{message, signature};
use crate::time::Timestamp;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// How long the seed of a key is, in bytes.
pub const SEED_BYTES: usize = 32;

const VERSION: &str = "v1a,";
const PREFIX: &str = "whpk_";

/// The private key of a subscription's Ed25519 signatures. Never shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct AsymmetricKey(Box<[u8; SEED_BYTES]>);

impl AsymmetricKey {
    /// The key that follows from a seed, which is random.
    pub fn from_seed(seed: [u8; SEED_BYTES]) -> Self {
        Self(Box::new(seed))
    }

    /// The seed, for the ledger.
    pub fn seed(&self) -> &[u8; SEED_BYTES] {
        &self.0
    }

    /// The key by which others verify.
    pub fn public_key(&self) -> PublicKey {
        let mut key = [0; SEED_BYTES];
        key.copy_from_slice(self.pair().public_key().as_ref());
        PublicKey(key)
    }

    pub(super) fn signer(&self) -> AsymmetricSigner {
        AsymmetricSigner(Arc::new(self.pair()))
    }

    fn pair(&self) -> Ed25519KeyPair {
        #[expect(clippy::expect_used, reason = "Ed25519 takes every seed of 32 bytes")]
        Ed25519KeyPair::from_seed_unchecked(&*self.0).expect("invariant: a seed of 32 bytes")
    }
}

/// A key that has been made ready to sign with. Never shown by `Debug`.
#[derive(Clone)]
pub(super) struct AsymmetricSigner(Arc<Ed25519KeyPair>);

impl AsymmetricSigner {
    pub(super) fn sign(&self, id: &str, at: Timestamp, body: &[u8]) -> String {
        let signed = self.0.sign(&message(id, at, body));
        signature(VERSION, signed.as_ref())
    }
}

/// The public key of a subscription's Ed25519 signatures: `whpk_` and base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicKey([u8; SEED_BYTES]);

/// The text is no public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be {PREFIX} and the standard base64 of {SEED_BYTES} bytes, as a subscription's PublicKey is")]
pub struct BadPublicKey;

impl PublicKey {
    /// Whether one of the signatures in a `webhook-signature` is made with this key, for a message with this
    /// `webhook-id` that was sent at `at`.
    pub fn verifies(&self, signatures: &str, id: &str, at: Timestamp, body: &[u8]) -> bool {
        let key = UnparsedPublicKey::new(&ED25519, &self.0);
        let message = message(id, at, body);
        let given = signatures.split(' ').filter_map(|one| one.strip_prefix(VERSION));
        let mut decoded = given.filter_map(|one| BASE64_STANDARD.decode(one).ok());
        decoded.any(|one| key.verify(&message, &one).is_ok())
    }
}

impl FromStr for PublicKey {
    type Err = BadPublicKey;

    fn from_str(text: &str) -> Result<Self, BadPublicKey> {
        let base64 = text.strip_prefix(PREFIX).ok_or(BadPublicKey)?;
        let bytes = BASE64_STANDARD.decode(base64).map_err(|_not_base64| BadPublicKey)?;
        Ok(Self(bytes.try_into().map_err(|_length| BadPublicKey)?))
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", BASE64_STANDARD.encode(self.0))
    }
}

impl fmt::Debug for AsymmetricKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AsymmetricKey(..)")
    }
}

impl fmt::Debug for AsymmetricSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AsymmetricSigner(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes<const N: usize>(hex: &str) -> [u8; N] {
        let digit = |n: usize| u8::from_str_radix(hex.get(2 * n..2 * n + 2).unwrap(), 16).unwrap();
        std::array::from_fn(digit)
    }

    /// RFC 8032, section 7.1, tests 1 and 2.
    #[test]
    fn keys_and_signatures_are_those_of_the_rfc() {
        for (seed, public, message, expected) in [
            (
                "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
                "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
                &[][..],
                "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
            ),
            (
                "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
                "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
                &[0x72][..],
                "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
            ),
        ] {
            let key = AsymmetricKey::from_seed(bytes(seed));
            assert_eq!(key.public_key(), PublicKey(bytes(public)));
            assert_eq!(key.pair().sign(message).as_ref(), bytes::<64>(expected));
        }
    }

    #[test]
    fn the_public_key_verifies_the_message_and_no_other() {
        let at = Timestamp::from_micros(1_790_000_000_000_000);
        let key = AsymmetricKey::from_seed([7; SEED_BYTES]);
        let signature = key.signer().sign("a", at, b"{}");
        let public: PublicKey = key.public_key().to_string().parse().unwrap();
        assert!(public.verifies(&signature, "a", at, b"{}"));
        assert!(public.verifies(&format!("v1,AAAA v1a,? v1a,AAAA {signature}"), "a", at, b"{}"));
        let later = Timestamp::from_micros(1_790_000_001_000_000);
        let other = AsymmetricKey::from_seed([8; SEED_BYTES]).public_key();
        assert!(!public.verifies(&signature, "b", at, b"{}"));
        assert!(!public.verifies(&signature, "a", later, b"{}"));
        assert!(!public.verifies(&signature, "a", at, b"{ }"));
        assert!(!other.verifies(&signature, "a", at, b"{}"));
        assert!(!public.verifies(&signature.replace("v1a,", "v1,"), "a", at, b"{}"));
        assert_eq!(format!("{key:?}"), "AsymmetricKey(..)");
    }

    #[test]
    fn a_public_key_has_its_form() {
        let text = AsymmetricKey::from_seed([0; SEED_BYTES]).public_key().to_string();
        assert_eq!(text, "whpk_O2onvM62pC1io6jQKm8Nc2UyFXcd4kOmOsBIoYtZ2ik=");
        for wrong in [
            "",
            "whpk_",
            "whpk_AAAA",
            "whpk_?",
            &text.replace("whpk_", "whsk_"),
            &text.replace("whpk_", ""),
        ] {
            assert_eq!(wrong.parse::<PublicKey>(), Err(BadPublicKey), "{wrong}");
        }
    }
}
