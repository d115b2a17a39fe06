//! A request: who sends it, what follows from its headers, and its body, read within limits of bytes and time.

use crate::metrics::RequestRefusal;
use crate::room::Reservation;
use axum::body::{Body, HttpBody};
use axum::http::{HeaderMap, StatusCode};
use futures_util::StreamExt;
use herald_access::Caller;
use herald_access::problem::Problem;
use herald_domain::access::Role;
use herald_domain::problem::Fault;
use herald_domain::trace::TraceContext;
use std::time::Duration;

/// The largest request, in bytes.
pub const MAX_REQUEST_BYTES: usize = 8 << 20;

/// From how much on room for the rest of a request is made at once and not piece by piece.
const LARGE_BYTES: usize = 256 * 1024;

/// How long a client may take to send its request.
const MAX_READ_TIME: Duration = Duration::from_secs(30);

/// Why a request is refused: for metrics, and as it is answered.
pub(crate) type RefusedRequest = (RequestRefusal, Problem);

/// The caller, if it may publish.
pub(crate) fn producer(caller: Result<Caller, Problem>) -> Result<Caller, RefusedRequest> {
    let caller = caller.map_err(|problem| match problem.status() {
        // Whether the key is known could not be looked up.
        StatusCode::SERVICE_UNAVAILABLE => (RequestRefusal::Unavailable, problem),
        _ => (RequestRefusal::Unauthorized, problem),
    })?;
    caller
        .require(Role::Producer)
        .map_err(|problem| (RequestRefusal::Forbidden, problem))?;
    Ok(caller)
}

/// W3C Trace Context; what is none is left out, as the standard says.
pub(crate) fn traceparent(headers: &HeaderMap) -> Option<TraceContext> {
    headers.get("traceparent")?.to_str().ok()?.parse().ok()
}

/// Reads the body whole.
pub(crate) async fn read(body: Body, reserved: &mut Reservation) -> Result<Vec<u8>, RefusedRequest> {
    match tokio::time::timeout(MAX_READ_TIME, read_whole(body, reserved)).await {
        Ok(read) => read,
        Err(_elapsed) => {
            let detail = format!("the request was not complete within {} s", MAX_READ_TIME.as_secs());
            Err((
                RequestRefusal::Invalid,
                Problem::new(StatusCode::REQUEST_TIMEOUT, detail),
            ))
        }
    }
}

async fn read_whole(body: Body, reserved: &mut Reservation) -> Result<Vec<u8>, RefusedRequest> {
    let told = body.size_hint().exact().and_then(|bytes| usize::try_from(bytes).ok());
    let told = told.unwrap_or(0);
    if told > MAX_REQUEST_BYTES {
        return Err(too_large());
    }
    let mut whole = Vec::with_capacity(told.min(LARGE_BYTES));
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| {
            let fault = Fault::new("", "body", format!("the body could not be read: {error}"));
            (RequestRefusal::Invalid, Problem::faults(fault))
        })?;
        if whole.len() + chunk.len() > MAX_REQUEST_BYTES {
            return Err(too_large());
        }
        reserved
            .take(chunk.len())
            .map_err(|_full| (RequestRefusal::Overloaded, Problem::overloaded()))?;
        if whole.len() + chunk.len() > LARGE_BYTES {
            whole.reserve(told.max(chunk.len()).saturating_sub(whole.len()));
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(whole)
}

fn too_large() -> RefusedRequest {
    let detail = format!("a request may have at most {MAX_REQUEST_BYTES} bytes (8 MiB)");
    (RequestRefusal::TooLarge, Problem::too_large(detail))
}
