//! Entity tags (RFC 9110, 8.8.3 and 13): a client that read something changes it only if nobody else did
//! meanwhile, and reads it again only if it was changed.
//!
//! A tag is a hash of the JSON that `GET` answers with, so it is strong, and every process gives the same.

use axum::extract::FromRequestParts;
use axum::http::header::{CONTENT_TYPE, ETAG, IF_MATCH, IF_NONE_MATCH};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use herald_access::problem::Problem;
use herald_domain::problem::Fault;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::convert::Infallible;

/// What `GET` answers with: the JSON and its tag.
#[derive(Debug)]
pub(crate) struct Representation {
    json: Vec<u8>,
    tag: String,
}

impl Representation {
    pub(crate) fn of(shown: &impl Serialize) -> Result<Self, Problem> {
        let json = serde_json::to_vec(shown).map_err(|error| Problem::unavailable("answer", &error))?;
        let hash = Sha256::digest(&json);
        let tag = format!("\"{}\"", BASE64_URL_SAFE_NO_PAD.encode(&hash[..16]));
        Ok(Self { json, tag })
    }

    pub(crate) fn etag(&self) -> Result<HeaderValue, Problem> {
        HeaderValue::try_from(&self.tag).map_err(|error| Problem::unavailable("answer", &error))
    }

    /// 304 where the client has it already.
    pub(crate) fn unless(self, IfNoneMatch(condition): &IfNoneMatch) -> Result<Response, Problem> {
        let known = condition
            .as_ref()
            .is_some_and(|condition| condition.names(&self.tag, true));
        let etag = self.etag()?;
        if known {
            return Ok((StatusCode::NOT_MODIFIED, [(ETAG, etag)]).into_response());
        }
        self.answer()
    }

    /// 200 with the tag.
    pub(crate) fn answer(self) -> Result<Response, Problem> {
        let json = HeaderValue::from_static("application/json");
        let headers = [(CONTENT_TYPE, json), (ETAG, self.etag()?)];
        Ok((headers, self.json).into_response())
    }
}

/// `If-Match`: the change is wanted only of what has one of these tags.
#[derive(Debug, Clone)]
pub(crate) struct IfMatch(Option<Condition>);

impl IfMatch {
    /// Answers 412 where what is there now is not what the client read.
    pub(crate) fn check(&self, shown: &impl Serialize) -> Result<(), Problem> {
        let Some(condition) = &self.0 else {
            return Ok(());
        };
        let present = Representation::of(shown)?;
        if condition.names(&present.tag, false) {
            return Ok(());
        }
        Err(unmet(format!(
            "it was changed since it was read: its ETag is {} now; read it again, and repeat the change with that",
            present.tag
        )))
    }
}

fn unmet(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::PRECONDITION_FAILED, detail)
}

/// `If-None-Match`: the answer is wanted only if it has none of these tags.
#[derive(Debug, Clone)]
pub(crate) struct IfNoneMatch(Option<Condition>);

/// The conditions of a `PUT` that makes something new or changes what is there: `If-Match`, and `If-None-Match`, which
/// with `*` has it only make something new.
#[derive(Debug, Clone)]
pub(crate) struct PutConditions {
    if_match: IfMatch,
    if_none_match: IfNoneMatch,
}

impl PutConditions {
    /// Answers 412 where what is there now, if anything, is not what the client read, or is what it does not want.
    pub(crate) fn check(&self, present: Option<&impl Serialize>) -> Result<(), Problem> {
        let Some(shown) = present else {
            return match self.if_match.0 {
                None => Ok(()),
                Some(_) => Err(unmet(
                    "there is nothing of that name, or not any more; leave If-Match out to make it new",
                )),
            };
        };
        self.if_match.check(shown)?;
        let tag = Representation::of(shown)?.tag;
        match &self.if_none_match.0 {
            Some(condition) if condition.names(&tag, true) => Err(unmet(format!(
                "it is there already, and its ETag is {tag}; leave If-None-Match out to change it"
            ))),
            _ => Ok(()),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Condition {
    /// `*`: whatever is there.
    Any,
    /// The tags, as they were given, `W/` and quotes included.
    OneOf(Vec<String>),
}

impl Condition {
    /// Whether the tag is among them. A weak one is the same only where `weakly` says so.
    fn names(&self, tag: &str, weakly: bool) -> bool {
        match self {
            Self::Any => true,
            Self::OneOf(tags) => tags
                .iter()
                .any(|given| given == tag || (weakly && given.strip_prefix("W/") == Some(tag))),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        if text.trim() == "*" {
            return Some(Self::Any);
        }
        let mut tags = Vec::new();
        let mut rest = text;
        loop {
            rest = rest.trim_start_matches([' ', '\t', ',']);
            if rest.is_empty() {
                return (!tags.is_empty()).then_some(Self::OneOf(tags));
            }
            let weak = rest.starts_with("W/");
            let quoted = rest.strip_prefix("W/").unwrap_or(rest).strip_prefix('"')?;
            let (tag, behind) = quoted.split_once('"')?;
            tags.push(format!("{}\"{tag}\"", if weak { "W/" } else { "" }));
            rest = behind;
        }
    }

    fn read(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Self>, Problem> {
        let mut lines = Vec::new();
        for line in headers.get_all(name) {
            lines.push(String::from_utf8_lossy(line.as_bytes()));
        }
        if lines.is_empty() {
            return Ok(None);
        }
        Self::parse(&lines.join(",")).map(Some).ok_or_else(|| {
            let detail = format!("{name} must be * or tags in quotes, as ETag gave them");
            Problem::faults(vec![Fault::new("", "entity_tag", detail)])
        })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        Condition::read(&parts.headers, &IF_MATCH).map(Self)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for PutConditions {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        Ok(Self {
            if_match: IfMatch(Condition::read(&parts.headers, &IF_MATCH)?),
            if_none_match: IfNoneMatch(Condition::read(&parts.headers, &IF_NONE_MATCH)?),
        })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for IfNoneMatch {
    type Rejection = Infallible;

    /// What cannot be read asks for the whole answer, which is never wrong.
    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(Self(Condition::read(&parts.headers, &IF_NONE_MATCH).unwrap_or(None)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_read_as_the_rfc_writes_them() {
        let one_of = |tags: &[&str]| Some(Condition::OneOf(tags.iter().map(|tag| (*tag).to_owned()).collect()));
        for (text, condition) in [
            ("*", Some(Condition::Any)),
            ("\"a\"", one_of(&["\"a\""])),
            ("\"a\", W/\"b,c\" ,\"\"", one_of(&["\"a\"", "W/\"b,c\"", "\"\""])),
            ("a", None),
            ("\"a", None),
            ("w/\"a\"", None),
            ("", None),
            (",", None),
        ] {
            assert_eq!(Condition::parse(text), condition, "{text}");
        }
    }

    #[test]
    fn a_weak_tag_is_none_to_change_by() {
        let weak = Condition::OneOf(vec!["W/\"a\"".to_owned()]);
        assert!(weak.names("\"a\"", true) && !weak.names("\"a\"", false));
        assert!(Condition::Any.names("\"a\"", false));
    }
}
