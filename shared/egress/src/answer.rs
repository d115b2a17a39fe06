//! Answers, and what one that is no success says about its reason, for who looks at the attempt.

use crate::credentials;
use crate::failure::bounded;
use http::header::{CONTENT_ENCODING, LOCATION, WWW_AUTHENTICATE};
use http::{HeaderMap, StatusCode};

/// How much of the body a description holds.
pub(crate) const MAX_DESCRIBED_BYTES: usize = 1024;

/// How much of a header is kept.
const MAX_HEADER_CHARS: usize = 300;

/// An answer: its head, and the beginning of its body.
#[derive(Debug)]
pub struct Answer {
    /// The status, whatever it is.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, as far as it is kept and came in time.
    pub body: Vec<u8>,
    /// Whether `body` is the whole body.
    pub is_whole: bool,
}

impl Answer {
    /// What an answer that is no success says about its reason, in one bounded line: the status, `Location` of a
    /// redirect, `WWW-Authenticate`, and the beginning of the body where that is text; of URLs in them neither user
    /// nor password.
    pub fn describe(&self) -> String {
        let mut said = format!("the subscriber answered {}", self.status.as_u16());
        if let Some(reason) = self.status.canonical_reason() {
            said = format!("{said} {reason}");
        }
        let header = |name| {
            let value = self.headers.get(name)?;
            Some(String::from_utf8_lossy(value.as_bytes()))
        };
        if self.status.is_redirection()
            && let Some(location) = header(LOCATION)
        {
            let location = bounded(&credentials::of_location(&location), MAX_HEADER_CHARS);
            said = format!("{said}; Location: {location}");
        }
        if let Some(wanted) = header(WWW_AUTHENTICATE) {
            let wanted = bounded(&credentials::in_text(wanted.trim(), false), MAX_HEADER_CHARS);
            said = format!("{said}; WWW-Authenticate: {wanted}");
        }
        let is_coded = header(CONTENT_ENCODING).is_some_and(|coding| !coding.eq_ignore_ascii_case("identity"));
        match text(&self.body, self.is_whole) {
            Some(text) if !is_coded => format!("{said}: {text}"),
            _ => said,
        }
    }
}

/// The beginning of a body in one line, unless it is none of text.
fn text(body: &[u8], is_whole: bool) -> Option<String> {
    let whole = String::from_utf8_lossy(body);
    // A character that was cut in the middle.
    let text = whole.trim_end_matches('\u{fffd}').trim();
    let is_text = !text.is_empty() && !text.contains(['\0', '\u{fffd}']);
    is_text
        .then(|| text.split_whitespace().collect::<Vec<_>>().join(" "))
        .map(|text| bounded(&credentials::in_text(&text, !is_whole), MAX_DESCRIBED_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn said(status: u16, header: Option<(http::HeaderName, &str)>, body: &[u8]) -> String {
        let mut headers = HeaderMap::new();
        if let Some((name, value)) = header {
            headers.insert(name, HeaderValue::from_str(value).unwrap());
        }
        let answer = Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers,
            body: body.to_vec(),
            is_whole: true,
        };
        answer.describe()
    }

    #[test]
    fn the_reason_is_told_and_no_token() {
        let moved = said(308, Some((LOCATION, "https://u:p@b.example/new?token=x#y")), b"");
        assert_eq!(
            moved,
            "the subscriber answered 308 Permanent Redirect; Location: https://b.example/new"
        );
        let moved = said(301, Some((LOCATION, "/ä/new?token=x")), b"");
        assert_eq!(moved, "the subscriber answered 301 Moved Permanently; Location: /ä/new");
        let wanted = said(401, Some((WWW_AUTHENTICATE, "Bearer realm=\"a\"")), b"");
        assert_eq!(
            wanted,
            "the subscriber answered 401 Unauthorized; WWW-Authenticate: Bearer realm=\"a\""
        );
        assert_eq!(
            said(400, None, b"{\n  \"error\": \"Status must be known\"\n}\n"),
            "the subscriber answered 400 Bad Request: { \"error\": \"Status must be known\" }"
        );
        assert_eq!(said(599, None, b" \r\n"), "the subscriber answered 599");
    }

    #[test]
    fn no_password_is_kept_wherever_it_stands() {
        let url = "//user:secret@b.example/";
        for name in [LOCATION, WWW_AUTHENTICATE] {
            let said = said(302, Some((name, url)), format!("moved to https:{url}").as_bytes());
            assert!(said.contains("b.example") && !said.contains("secret"), "{said}");
        }
        let cut = Answer {
            status: StatusCode::NOT_FOUND,
            headers: HeaderMap::new(),
            body: b"no https://user:secr".to_vec(),
            is_whole: false,
        };
        assert_eq!(cut.describe(), "the subscriber answered 404 Not Found: no https://");
    }

    #[test]
    fn what_is_no_text_is_left_out() {
        let bare = "the subscriber answered 500 Internal Server Error";
        assert_eq!(said(500, None, &[0xff, 0x00, 0x01]), bare);
        assert_eq!(said(500, Some((CONTENT_ENCODING, "gzip")), b"text"), bare);
        let cut = "\u{e4}".repeat(600);
        assert!(!said(500, None, &cut.as_bytes()[..1023]).contains('\u{fffd}'));
    }

    proptest! {
        #[test]
        fn it_is_bounded_and_one_line_without_control_characters(
            body in prop::collection::vec(any::<u8>(), 0..1024), value in "[ -~]{0,2000}", status in 300u16..600,
        ) {
            for name in [LOCATION, WWW_AUTHENTICATE] {
                let said = said(status, Some((name, &value)), &body);
                prop_assert!(said.chars().count() <= MAX_DESCRIBED_BYTES + MAX_HEADER_CHARS + 100);
                prop_assert!(!said.contains(char::is_control));
            }
        }
    }
}
