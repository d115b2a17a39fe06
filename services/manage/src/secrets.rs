//! Secrets made by Herald. Where the random bytes come from is handed in.

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use herald_access::problem::Problem;
use herald_domain::signing::{AsymmetricKey, SEED_BYTES, SigningKey};

/// 256 bits, so that guessing is hopeless and a plain hash of a key is enough.
const BYTES: usize = 32;

/// Fills a buffer from the operating system's source of randomness.
pub(crate) fn system(buffer: &mut [u8]) -> Result<(), Problem> {
    getrandom::fill(buffer).map_err(|error| Problem::unavailable("source of randomness", &error))
}

/// A new signing key from random bytes.
pub(crate) fn signing_key<E>(fill: impl FnOnce(&mut [u8]) -> Result<(), E>) -> Result<SigningKey, E> {
    let mut bytes = [0; BYTES];
    fill(&mut bytes)?;
    Ok(SigningKey::from_bytes(bytes.to_vec()))
}

/// A key for asymmetric signatures.
pub(crate) fn asymmetric_key<E>(fill: impl FnOnce(&mut [u8]) -> Result<(), E>) -> Result<AsymmetricKey, E> {
    let mut seed = [0; SEED_BYTES];
    fill(&mut seed)?;
    Ok(AsymmetricKey::from_seed(seed))
}

/// An API key: `herald_` and 43 characters, which a scanner for leaked secrets can recognise.
pub(crate) fn api_key<E>(fill: impl FnOnce(&mut [u8]) -> Result<(), E>) -> Result<String, E> {
    let mut bytes = [0; BYTES];
    fill(&mut bytes)?;
    Ok(format!("herald_{}", BASE64_URL_SAFE_NO_PAD.encode(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    #[expect(clippy::unnecessary_wraps, reason = "stands for a source that can fail")]
    fn counting(buffer: &mut [u8]) -> Result<(), Infallible> {
        for (n, byte) in (0..).zip(buffer) {
            *byte = n;
        }
        Ok(())
    }

    #[test]
    fn secrets_have_their_forms() {
        let Ok(key) = api_key(counting);
        assert_eq!(key, "herald_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8");
        let Ok(key) = signing_key(counting);
        assert_eq!(
            key.to_signing_secret(),
            "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
        );
    }
}
