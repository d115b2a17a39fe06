//! Whether a message is from who it says: Standard Webhooks, seen from the receiver.

use axum::http::HeaderMap;
use herald_domain::signing::{PublicKey, SigningKey};
use herald_domain::time::Timestamp;
use std::time::Duration;
use subtle::ConstantTimeEq;

/// How far `webhook-timestamp` may be from now; older ones may be replays.
const TOLERANCE: Duration = Duration::from_mins(5);

/// What is wrong with a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Wrong {
    #[error("there is no {0} header")]
    Missing(&'static str),
    #[error("webhook-timestamp is not a number of seconds")]
    Timestamp,
    #[error("webhook-timestamp is more than 5 minutes from now")]
    Time,
    #[error("no signature is made with this secret for this body")]
    Signature,
    #[error("no v1a signature is made with the key of this public key for this body")]
    AsymmetricSignature,
}

/// Verifies a message with the secret. One of several signatures is enough: a sender that changes its secret signs with
/// both.
pub(crate) fn verify(headers: &HeaderMap, body: &[u8], key: &SigningKey, now: Timestamp) -> Result<(), Wrong> {
    let (id, at, given) = signed(headers, now)?;
    let expected = key.sign(id, at, body);
    // Every one is compared in full, so that the time it takes says nothing.
    let found = given.split(' ').fold(false, |found, one| {
        found | bool::from(one.as_bytes().ct_eq(expected.as_bytes()))
    });
    if found { Ok(()) } else { Err(Wrong::Signature) }
}

/// Verifies a message with the public key, which is for signatures of v1a.
pub(crate) fn verify_asymmetric(
    headers: &HeaderMap,
    body: &[u8],
    key: &PublicKey,
    now: Timestamp,
) -> Result<(), Wrong> {
    let (id, at, given) = signed(headers, now)?;
    if key.verifies(given, id, at, body) {
        Ok(())
    } else {
        Err(Wrong::AsymmetricSignature)
    }
}

/// The id, the time and the signatures of a message that was sent about now.
fn signed(headers: &HeaderMap, now: Timestamp) -> Result<(&str, Timestamp, &str), Wrong> {
    let header = |name| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .ok_or(Wrong::Missing(name))
    };
    let id = header("webhook-id")?;
    let seconds: i64 = header("webhook-timestamp")?
        .parse()
        .map_err(|_not_a_number| Wrong::Timestamp)?;
    let at = Timestamp::from_micros(seconds.checked_mul(1_000_000).ok_or(Wrong::Timestamp)?);
    let given = header("webhook-signature")?;
    if now.since(at).max(at.since(now)) > TOLERANCE {
        return Err(Wrong::Time);
    }
    Ok((id, at, given))
}

#[cfg(test)]
mod tests {
    use super::*;
    use herald_domain::signing::{AsymmetricKey, SEED_BYTES, Signers};

    const NOW: Timestamp = Timestamp::from_micros(1_790_000_000_000_000);

    fn key() -> SigningKey {
        SigningKey::from_secret("a secret between two").unwrap()
    }

    fn headers(at: Timestamp, signature: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("webhook-id", "0193f1a0".parse().unwrap());
        headers.insert("webhook-timestamp", at.as_unix_seconds().into());
        headers.insert("webhook-signature", signature.parse().unwrap());
        headers
    }

    #[test]
    fn one_right_signature_among_several_is_enough() {
        let right = key().sign("0193f1a0", NOW, b"{}");
        assert_eq!(verify(&headers(NOW, &right), b"{}", &key(), NOW), Ok(()));
        assert_eq!(
            verify(&headers(NOW, &format!("v1,AAAA v1a,BBBB {right}")), b"{}", &key(), NOW),
            Ok(())
        );
    }

    #[test]
    fn another_body_key_or_signature_is_wrong() {
        let right = key().sign("0193f1a0", NOW, b"{}");
        let other = SigningKey::from_secret("another secret between two").unwrap();
        assert_eq!(
            verify(&headers(NOW, &right), b"{ }", &key(), NOW),
            Err(Wrong::Signature)
        );
        assert_eq!(verify(&headers(NOW, &right), b"{}", &other, NOW), Err(Wrong::Signature));
        assert_eq!(verify(&headers(NOW, ""), b"{}", &key(), NOW), Err(Wrong::Signature));
    }

    #[test]
    fn the_public_key_verifies_signatures_of_v1a_and_no_others() {
        let asymmetric = AsymmetricKey::from_seed([7; SEED_BYTES]);
        let value = Signers::new(&key(), Some(&asymmetric), None).sign("0193f1a0", NOW, b"{}");
        let (headers, public) = (headers(NOW, &value), asymmetric.public_key());
        assert_eq!(verify(&headers, b"{}", &key(), NOW), Ok(()));
        assert_eq!(verify_asymmetric(&headers, b"{}", &public, NOW), Ok(()));
        let wrong = Err(Wrong::AsymmetricSignature);
        assert_eq!(verify_asymmetric(&headers, b"{ }", &public, NOW), wrong);
        let other = AsymmetricKey::from_seed([8; SEED_BYTES]).public_key();
        assert_eq!(verify_asymmetric(&headers, b"{}", &other, NOW), wrong);
    }

    #[test]
    fn a_message_from_another_time_is_wrong() {
        for (seconds, result) in [
            (-301, Err(Wrong::Time)),
            (-299, Ok(())),
            (299, Ok(())),
            (301, Err(Wrong::Time)),
        ] {
            let at = Timestamp::from_micros(NOW.as_micros() + seconds * 1_000_000);
            let signature = key().sign("0193f1a0", at, b"{}");
            assert_eq!(
                verify(&headers(at, &signature), b"{}", &key(), NOW),
                result,
                "{seconds}"
            );
        }
    }

    #[test]
    fn what_is_missing_or_no_number_is_named() {
        let mut all = headers(NOW, "v1,AAAA");
        all.insert("webhook-timestamp", "soon".parse().unwrap());
        assert_eq!(verify(&all, b"{}", &key(), NOW), Err(Wrong::Timestamp));
        all.insert("webhook-timestamp", i64::MAX.into());
        assert_eq!(verify(&all, b"{}", &key(), NOW), Err(Wrong::Timestamp));
        all.remove("webhook-timestamp");
        assert_eq!(
            verify(&all, b"{}", &key(), NOW),
            Err(Wrong::Missing("webhook-timestamp"))
        );
    }
}
