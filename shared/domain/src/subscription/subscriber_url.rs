//! `SubscriberURL`.

use super::reader::{Faulty, Reader};
use super::setting::{Cell, Cells, Column, Corrupt, Field, Kind, Setting, required};
use crate::address::EgressPolicy;
use serde_json::{Value, json};
use url::{Host, Url};

const NAME: &str = "SubscriberURL";
const MAX_CHARS: usize = 2048;

pub(super) struct SubscriberUrl;

impl Setting for SubscriberUrl {
    type Value = String;
    const FIELDS: &'static [Field] = &[Field::new(
        NAME,
        || json!({"type": "string", "format": "uri", "example": "https://example.com/hooks"}),
        "Where messages go; http or https, at most 2048 characters. An address that egress forbids is refused, and so is \
         a name that resolves only to such. A name that does not resolve yet is accepted.",
    )
    .required()];
    const COLUMNS: &'static [Column] = &[Column::new("url", Kind::Text)];

    fn read(reader: &mut Reader<'_>, _held: Option<&String>) -> Result<String, Faulty> {
        let Some(value) = reader.get(NAME) else {
            return Err(reader.fault(NAME, "required", "SubscriberURL is required"));
        };
        let checked = match value.as_str() {
            None => Err(("url", "SubscriberURL must be text".to_owned())),
            Some(text) => normal(text, reader.egress),
        };
        checked.map_err(|(rule, detail)| reader.fault(NAME, rule, detail))
    }

    fn show(url: &String) -> impl IntoIterator<Item = Value> {
        [url.as_str().into()]
    }

    fn store(url: &String) -> impl IntoIterator<Item = Cell> {
        [Cell::Text(Some(url.clone()))]
    }

    fn load(cells: &mut Cells) -> Result<String, Corrupt> {
        // Earlier versions kept it as it was given.
        Ok(url_as_kept(&required(cells.text()?)?))
    }
}

/// A URL as it will be called, which is how subscriptions keep it now; the text itself, if it is none. Subscriptions of
/// earlier versions were kept with what was given.
pub fn url_as_kept(url: &str) -> String {
    Url::parse(url).map_or_else(|_no_url| url.to_owned(), String::from)
}

/// The address in a URL's host, if it is one and not a name.
pub fn literal_address(url: &Url) -> Option<std::net::IpAddr> {
    match url.host()? {
        Host::Ipv4(address) => Some(address.into()),
        Host::Ipv6(address) => Some(address.into()),
        Host::Domain(_) => None,
    }
}

/// A URL as it will be called, judged when a subscription is made. Names are judged later, when they are
/// resolved; a literal address can be judged at once.
///
/// The parser that calls it repairs what is no URL by RFC 3986: it drops white space and control characters,
/// and reads `\` and a missing `//` as if they were right. What was pasted wrongly is refused here instead, so
/// that what is shown is what is called.
fn normal(text: &str, egress: &EgressPolicy) -> Result<String, (&'static str, String)> {
    let fault = |rule, detail: &str| Err((rule, format!("SubscriberURL {detail}")));
    let too_long = || {
        let detail = format!("may have at most {MAX_CHARS} characters");
        fault("max_length", &detail)
    };
    if text.chars().count() > MAX_CHARS {
        return too_long();
    }
    if let Some(wrong) = text.chars().find(|c| c.is_whitespace() || c.is_control() || *c == '\\') {
        let detail = format!("may not have the character U+{:04X}", u32::from(wrong));
        return fault("url_character", &detail);
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return fault("url", "must be a URL that begins with http:// or https://");
    };
    if !["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        return fault("url_scheme", "must begin with http:// or https://");
    }
    if rest.starts_with('/') {
        return fault("url", "must have a host after ://");
    }
    let url = match Url::parse(text) {
        Ok(url) => url,
        Err(error) => return fault("url", &format!("is no URL: {error}")),
    };
    if !url.username().is_empty() || url.password().is_some() {
        return fault(
            "url_credentials",
            "must not carry a user name or password; use CustomHeader",
        );
    }
    if url.fragment().is_some() {
        return fault("url_fragment", "must not have a fragment (#...); it would not be sent");
    }
    if url.as_str().len() > MAX_CHARS {
        return too_long();
    }
    match literal_address(&url) {
        Some(address) if !egress.permits(address) => Err((
            "address_refused",
            format!(
                "SubscriberURL names {address}, which is not a public address; allow its network with --egress-allow"
            ),
        )),
        _ => Ok(url.into()),
    }
}
