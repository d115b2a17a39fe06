//! `CustomHeader` with its `CustomHeaderValue`, and the names that it may not have.

use super::reader::{Faulty, Reader};
use super::setting::{Cell, Cells, Column, Corrupt, Field, Kind, Setting};
use crate::message::Format;
use serde_json::{Value, json};

const NAME: &str = "CustomHeader";
const VALUE: &str = "CustomHeaderValue";
const MAX_CHARS: usize = 4096;

pub(super) struct CustomHeader;

impl Setting for CustomHeader {
    type Value = Option<Box<(String, String)>>;
    const FIELDS: &'static [Field] = &[
        Field::new(
            NAME,
            || json!({"type": "string", "example": "X-Route"}),
            "A header for every message. One that Herald sets, or that changes what the request is, is refused.",
        )
        .nullable(),
        Field::new(
            VALUE,
            || json!({"type": "string", "example": "starters"}),
            "The value of `CustomHeader`.",
        )
        .nullable(),
    ];
    const COLUMNS: &'static [Column] = &[
        Column::new("custom_header", Kind::Text),
        Column::new("custom_header_value", Kind::Text),
    ];

    fn read(reader: &mut Reader<'_>, _held: Option<&Self::Value>) -> Result<Self::Value, Faulty> {
        let name = reader.optional_text(NAME, MAX_CHARS);
        let value = reader.optional_text(VALUE, MAX_CHARS);
        let Some(name) = name?.filter(|name| !name.is_empty()) else {
            if value?.is_some_and(|value| !value.is_empty()) {
                return Err(reader.fault(NAME, "required", "CustomHeaderValue needs a CustomHeader"));
            }
            return Ok(None);
        };
        let name = check_name(reader, name);
        let Some(value) = value? else {
            return Err(reader.fault(VALUE, "required", "CustomHeader needs a CustomHeaderValue"));
        };
        let is_well_formed = value.trim() == value && value.chars().all(|c| matches!(c, ' '..='~'));
        if !is_well_formed && !reader.is_kept(VALUE) {
            let detail = "CustomHeaderValue must be printable ASCII, without space at its ends";
            return Err(reader.fault(VALUE, "header_value", detail));
        }
        Ok(Some(Box::new((name?, value))))
    }

    fn show(header: &Self::Value) -> impl IntoIterator<Item = Value> {
        let (name, value) = header.as_deref().map(|(name, value)| (&**name, &**value)).unzip();
        [name, value].map(Value::from)
    }

    fn store(header: &Self::Value) -> impl IntoIterator<Item = Cell> {
        let (name, value) = header.as_deref().cloned().unzip();
        [name, value].map(Cell::Text)
    }

    fn load(cells: &mut Cells) -> Result<Self::Value, Corrupt> {
        let (name, value) = (cells.text()?, cells.text()?);
        Ok(name.zip(value).map(Box::new))
    }
}

fn check_name(reader: &mut Reader<'_>, name: String) -> Result<String, Faulty> {
    if reader.is_kept(NAME) {
        return Ok(name);
    }
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if !name.chars().all(token) {
        let detail = "CustomHeader must be an HTTP header name (RFC 9110): letters, digits and !#$%&'*+-.^_`|~";
        return Err(reader.fault(NAME, "header_name", detail));
    }
    match reserved(&name) {
        None => Ok(name),
        Some(reason) => {
            let detail = format!("{name} {reason}; use a name of your own");
            Err(reader.fault(NAME, "reserved", detail))
        }
    }
}

/// Names that Herald sets, beside those of formats.
const SET_BY_HERALD: [&str; 4] = ["user-agent", "traceparent", "tracestate", "accept-encoding"];

/// Names that frame the request or belong to one connection.
const TRANSPORT: [&str; 13] = [
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
    "host",
    "expect",
    "max-forwards",
    "via",
    "date",
    "early-data",
];

/// Names that ask for another answer, or for another method or address, than a plain POST does.
const MEANING: [&str; 12] = [
    "range",
    "if-range",
    "if-match",
    "if-none-match",
    "if-modified-since",
    "if-unmodified-since",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-url",
    "x-rewrite-url",
    "x-original-method",
];

/// Names that say where a request came from; a receiver may trust them.
const ORIGIN: [&str; 4] = ["forwarded", "x-real-ip", "true-client-ip", "x-client-ip"];

/// Why a header of that name may not be added, or nothing if it may.
///
/// `_` counts as `-`, as it does for receivers behind CGI, WSGI or PHP. The names of every format are kept free, because a
/// subscription may come to have another one.
pub(super) fn reserved(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase().replace('_', "-");
    let begins = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
    let is = |names: &[&str]| names.contains(&name.as_str());
    if Format::ALL.into_iter().any(|format| format.sets(&name)) || is(&SET_BY_HERALD) {
        Some("is set by Herald")
    } else if begins(&["content-"]) || is(&["digest", "repr-digest"]) {
        Some("describes the body, which is Herald's")
    } else if begins(&["proxy-", "sec-"]) || is(&TRANSPORT) {
        Some("belongs to the transport")
    } else if is(&MEANING) {
        Some("changes what the request asks for")
    } else if begins(&["x-forwarded-"]) || is(&ORIGIN) {
        Some("says where the request came from")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_the_request_is_refused_in_every_spelling() {
        for name in [
            "Content-Type",
            "Content-Length",
            "Content-Encoding",
            "Content-Digest",
            "Content-MD5",
            "Digest",
            "Transfer-Encoding",
            "Connection",
            "Keep-Alive",
            "TE",
            "Trailer",
            "Upgrade",
            "HTTP2-Settings",
            "Host",
            "Expect",
            "Via",
            "Max-Forwards",
            "Date",
            "Proxy-Authorization",
            "Proxy-Connection",
            "Sec-WebSocket-Key",
            "Range",
            "If-Range",
            "If-Match",
            "If-None-Match",
            "If-Modified-Since",
            "If-Unmodified-Since",
            "X-HTTP-Method-Override",
            "X-Original-URL",
            "Forwarded",
            "X-Forwarded-For",
            "X-Real-IP",
            "User-Agent",
            "Accept-Encoding",
            "traceparent",
            "tracestate",
            "webhook-id",
            "Webhook-Anything",
            "ce-type",
            "X-Hook-Signature",
        ] {
            let spellings = [name.to_owned(), name.to_ascii_uppercase(), name.replace('-', "_")];
            for spelling in spellings {
                assert!(reserved(&spelling).is_some(), "{spelling}");
            }
        }
    }

    #[test]
    fn what_authenticates_or_routes_is_allowed() {
        for name in [
            "Authorization",
            "X-Api-Key",
            "X-Route",
            "Cookie",
            "Ocp-Apim-Subscription-Key",
            "Idempotency-Key",
            "Secret",
        ] {
            assert_eq!(reserved(name), None, "{name}");
        }
    }
}
