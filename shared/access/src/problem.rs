//! Problem answers, RFC 9457.
//!
//! The rule for what becomes what: a fault of the request is 4xx and names the field; a thing that is
//! not there, or belongs to somebody else, is 404; a part of Herald that is away is 503 with
//! `Retry-After` and a line in the log; nothing is ever 422.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use herald_domain::problem::{Fault, Faults};
use serde::Serialize;

/// A refusal, in the form of RFC 9457.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct Problem {
    /// Always `about:blank`: the status says what kind it is.
    #[serde(rename = "type")]
    #[schema(example = "about:blank")]
    kind: &'static str,
    /// The status in words.
    #[schema(example = "Bad Request")]
    title: String,
    /// The HTTP status.
    #[schema(example = 400)]
    status: u16,
    /// What is wrong.
    #[schema(example = "Status must be one of 0 to 5")]
    detail: String,
    /// The faults of the request, each with its field and rule.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<FaultSchema>)]
    errors: Vec<Fault>,
    #[serde(skip)]
    retry_after_seconds: Option<u32>,
    /// The request was encoded, and nothing but identity is read.
    #[serde(skip)]
    encoded: bool,
}

/// One fault of a request.
#[derive(Debug, utoipa::ToSchema)]
#[schema(as = Fault)]
#[expect(dead_code, reason = "describes herald_domain's Fault, which does not know OpenAPI")]
struct FaultSchema {
    /// JSON Pointer (RFC 6901) to the field at fault; empty for the whole.
    #[schema(example = "/Data/Status")]
    pointer: String,
    /// The rule's short, stable name.
    #[schema(example = "one_of")]
    rule: String,
    /// What is wrong and what would be right.
    detail: String,
}

impl Problem {
    /// A problem of that status.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
            errors: Vec::new(),
            retry_after_seconds: None,
            encoded: false,
        }
    }

    /// The HTTP status of the answer.
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// 400 with the faults; `detail` says the first, and how many there are and are listed.
    pub fn faults(faults: impl Into<Faults>) -> Self {
        let faults = faults.into();
        let first = faults
            .first()
            .map_or("the request is malformed", |first| first.detail.as_str());
        let detail = match (faults.count(), faults.len()) {
            (0 | 1, _) => first.to_owned(),
            (count, listed) if listed < count => {
                let more = count - listed;
                format!("{first} (the first of {count} faults: {listed} are listed, and {more} more are not)")
            }
            (count, _) => format!("{first} (the first of {count} faults)"),
        };
        Self {
            errors: faults.into_listed(),
            ..Self::new(StatusCode::BAD_REQUEST, detail)
        }
    }

    /// 401: there is no key, or an unknown one.
    pub fn unauthorized(detail: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, detail)
    }

    /// 403: the caller may not do this.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, detail)
    }

    /// 404, also for what belongs to another account.
    pub fn not_found(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("there is no such {what}"))
    }

    /// 409: this is not possible as things stand.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, detail)
    }

    /// The same refusal, told with another status.
    #[must_use]
    pub fn with_status(self, status: StatusCode) -> Self {
        Self {
            title: Self::new(status, "").title,
            status: status.as_u16(),
            ..self
        }
    }

    /// 413: the body is too large.
    pub fn too_large(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
    }

    /// 415: the body is of a kind that is not read.
    pub fn media_type(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail)
    }

    /// 415: `Content-Encoding` names a coding, and bodies are read as they are.
    pub fn content_encoding(coding: &str) -> Self {
        Self {
            encoded: true,
            ..Self::media_type(format!(
                "Content-Encoding {coding} is not understood; send the body as it is, without one"
            ))
        }
    }

    /// 429: a caller has as many requests under way as it may.
    pub fn too_many_requests(detail: impl Into<String>) -> Self {
        Self {
            retry_after_seconds: Some(1),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, detail)
        }
    }

    /// 503: the process does not serve yet, or no more; another one, or the next, will.
    pub fn stopping() -> Self {
        Self {
            retry_after_seconds: Some(1),
            ..Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "this process is starting or stopping; try again",
            )
        }
    }

    /// 503: more is being sent at a time than there is memory for.
    pub fn overloaded() -> Self {
        Self {
            retry_after_seconds: Some(1),
            ..Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "too much is being sent at a time; try again",
            )
        }
    }

    /// 503: what was asked took longer than anybody may wait.
    pub fn too_slow(detail: impl Into<String>) -> Self {
        Self {
            retry_after_seconds: Some(5),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
        }
    }

    /// 503: a part is away, and why.
    pub fn unreachable(part: &str, why: &str, error: &(dyn std::error::Error + 'static)) -> Self {
        Self {
            detail: format!("the {part} cannot be reached: {why}; try again"),
            ..Self::unavailable(part, error)
        }
    }

    /// 503: a part is away. Why is logged once by whoever lost it, and not for each of thousands of requests.
    pub fn unavailable(part: &str, error: &(dyn std::error::Error + 'static)) -> Self {
        tracing::debug!(error, part, "a request could not be served");
        Self {
            retry_after_seconds: Some(1),
            ..Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("the {part} is not available; try again"),
            )
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status();
        let (retry_after, encoded) = (self.retry_after_seconds, self.encoded);
        let mut response = (status, Json(self)).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if encoded {
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}
