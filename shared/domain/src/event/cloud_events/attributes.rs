//! The attributes of a CloudEvent that stand beside its data.

use super::quoted;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use percent_encoding::percent_decode;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// The most bytes of all attributes beside a body, names included.
pub const MAX_ATTRIBUTE_BYTES: usize = 16 * 1024;

/// The attributes of a CloudEvent whose data is the body.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Name, without the prefix, and value.
    pub(super) all: Vec<(String, String)>,
    /// The content type of the body, unless it is empty.
    pub(super) content_type: Option<String>,
    /// There are more than [`MAX_ATTRIBUTE_BYTES`]; those beyond are left out.
    pub(super) too_many: bool,
}

impl Attributes {
    /// The attributes of a body of that content type, as far as there is room for them.
    pub(super) fn read(content_type: Option<&str>, beside: impl IntoIterator<Item = (String, String)>) -> Self {
        let content_type = content_type.filter(|given| !given.is_empty());
        let mut attributes = Self {
            content_type: content_type.map(str::to_owned),
            ..Self::default()
        };
        let mut bytes = 0;
        for (name, value) in beside {
            bytes += name.len() + value.len();
            if bytes > MAX_ATTRIBUTE_BYTES {
                attributes.too_many = true;
                break;
            }
            attributes.all.push((name, value));
        }
        attributes
    }

    /// The CloudEvent as one JSON object, which says all that its message said. A body that is JSON is the member `data`,
    /// byte for byte; another one is `data_base64`.
    pub fn with_body(&self, body: &[u8]) -> String {
        let content_type = self.content_type.iter().map(|value| ("datacontenttype", value));
        let named = self.all.iter().map(|(name, value)| (name.as_str(), value));
        let member = |(name, value): (&str, &String)| format!("{}:{}", quoted(name), quoted(value));
        let mut members: Vec<_> = named.chain(content_type).map(member).collect();
        let json = std::str::from_utf8(body).ok();
        match json.and_then(|json| serde_json::from_str::<&RawValue>(json).ok()) {
            Some(data) => members.push(format!("\"data\":{}", data.get())),
            None if body.trim_ascii().is_empty() => {}
            None => members.push(format!("\"data_base64\":\"{}\"", BASE64_STANDARD.encode(body))),
        }
        format!("{{{}}}", members.join(","))
    }
}

/// The value of an attribute that comes as a header of HTTP: percent-encoded, or in quotes as earlier versions of the
/// specification had it. None if it is not UTF-8.
pub fn header_value(value: &[u8]) -> Option<String> {
    let unquoted = match value {
        [b'"', quoted @ .., b'"'] => Cow::Owned(unescape(quoted)),
        _ => Cow::Borrowed(value),
    };
    let decoded = percent_decode(&unquoted).decode_utf8().ok()?;
    Some(decoded.into_owned())
}

/// What a quoted string of RFC 7230 says.
fn unescape(quoted: &[u8]) -> Vec<u8> {
    let mut bytes = quoted.iter().copied();
    let mut plain = Vec::with_capacity(quoted.len());
    while let Some(byte) = bytes.next() {
        plain.push(if byte == b'\\' {
            bytes.next().unwrap_or(byte)
        } else {
            byte
        });
    }
    plain
}
