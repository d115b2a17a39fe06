//! Request bodies. Axum's own `Json` answers in plain text and with 422, so bodies are read here.

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, Method, StatusCode, header};
use herald_access::body::check_encoding;
use herald_access::problem::Problem;
use herald_domain::problem::Fault;
use herald_domain::text;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::Value;
use std::time::Duration;

/// The largest body, in bytes.
const MAX_BYTES: usize = 1 << 20;

/// How long a client may take to send its body.
const MAX_READ_TIME: Duration = Duration::from_secs(30);

/// The body of a request, read as JSON.
#[derive(Debug)]
pub(crate) struct Json(pub Value);

/// A JSON body that may be left out.
#[derive(Debug)]
pub(crate) struct OptionalJson(pub Option<Value>);

impl<S: Send + Sync> FromRequest<S> for Json {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        check_media_type(request.method(), request.headers())?;
        let bytes = read(request.into_body()).await?;
        parse(&bytes).map(Self)
    }
}

impl<S: Send + Sync> FromRequest<S> for OptionalJson {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let bytes = read(body).await?;
        if bytes.is_empty() {
            return Ok(Self(None));
        }
        check_media_type(&parts.method, &parts.headers)?;
        parse(&bytes).map(|value| Self(Some(value)))
    }
}

fn check_media_type(method: &Method, headers: &HeaderMap) -> Result<(), Problem> {
    check_encoding(headers)?;
    let value = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim();
    let is = |name: &str| essence.eq_ignore_ascii_case(name);
    if is("application/json") || (method == Method::PATCH && is("application/merge-patch+json")) {
        return Ok(());
    }
    let detail = match *method {
        Method::PATCH => "Content-Type must be application/json or application/merge-patch+json",
        _ => "Content-Type must be application/json",
    };
    Err(Problem::media_type(detail))
}

async fn read(body: Body) -> Result<Bytes, Problem> {
    match tokio::time::timeout(MAX_READ_TIME, Limited::new(body, MAX_BYTES).collect()).await {
        Ok(Ok(read)) => Ok(read.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Problem::too_large(format!(
            "a request may have at most {MAX_BYTES} bytes (1 MiB)"
        ))),
        Ok(Err(error)) => {
            let fault = Fault::new("", "body", format!("the body could not be read: {error}"));
            Err(Problem::faults(fault))
        }
        Err(_elapsed) => {
            let detail = format!("the request was not complete within {} s", MAX_READ_TIME.as_secs());
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, detail))
        }
    }
}

fn parse(bytes: &[u8]) -> Result<Value, Problem> {
    let text = text::read(bytes).map_err(Problem::faults)?;
    // No text can hold it, and what reads the body next could not say in which field it stands.
    if let Some(fault) = text::half_surrogate(text) {
        return Err(Problem::faults(fault));
    }
    let body = serde_json::from_str(text)
        .map_err(|error| Problem::faults(Fault::new("", "json", format!("the body is not JSON: {error}"))))?;
    // Readers differ in which of two they take, so neither is.
    match text::repeated_name(text) {
        Some(fault) => Err(Problem::faults(fault)),
        None => Ok(body),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_given_twice_is_refused() {
        let twice = r#"{"Name":"a","Roles":["Producer"],"Roles":["Operator"]}"#;
        assert_eq!(parse(twice.as_bytes()).unwrap_err().status(), StatusCode::BAD_REQUEST);
        assert!(parse(br#"{"Name":"a","Roles":["Producer"]}"#).is_ok());
    }
}
