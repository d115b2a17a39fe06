//! What holds for the body of every request.

use crate::problem::Problem;
use axum::http::{HeaderMap, header};

/// Answers 415 where `Content-Encoding` names a coding (RFC 9110, 8.4): bodies are read as they came. A
/// coding that is not understood is no reason to read what may be something else.
pub fn check_encoding(headers: &HeaderMap) -> Result<(), Problem> {
    for value in headers.get_all(header::CONTENT_ENCODING) {
        let value = value.to_str().unwrap_or("that is no text");
        for coding in value.split(',').map(str::trim) {
            if !(coding.is_empty() || coding.eq_ignore_ascii_case("identity")) {
                return Err(Problem::content_encoding(coding));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;
    use axum::response::IntoResponse as _;

    #[test]
    fn only_identity_is_understood() {
        let checked = |value: &'static [u8]| {
            let value = HeaderValue::from_bytes(value).unwrap();
            check_encoding(&HeaderMap::from_iter([(header::CONTENT_ENCODING, value)]))
        };
        assert!(check_encoding(&HeaderMap::new()).is_ok());
        for fine in ["", "identity", "Identity, identity"] {
            assert!(checked(fine.as_bytes()).is_ok(), "{fine}");
        }
        for coding in [b"gzip".as_slice(), b"br", b"identity, deflate", b"x-nonsense", b"\xff"] {
            let answer = checked(coding).unwrap_err().into_response();
            assert_eq!(answer.status(), 415);
            assert_eq!(answer.headers()[header::ACCEPT_ENCODING], "identity");
        }
    }
}
