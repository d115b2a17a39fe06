//! Messages that were no events.

use crate::Manage;
use crate::api::paging::{List, PageParams, Paging};
use crate::api::query::Query;
use crate::api::refusals::{Malformed, SharedAnswers};
use crate::operations::rejected;
use axum::Json;
use axum::extract::State;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use herald_access::Caller;
use herald_access::problem::Problem;
use herald_domain::time::Timestamp;
use herald_ledger::rejected::RejectedView;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

/// A message that was no event.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct RejectedEvent {
    id: Uuid,
    /// In whose scope it came: an account's id, or the AMQP user.
    account: String,
    #[schema(value_type = String, format = DateTime)]
    received_at: Timestamp,
    /// What is wrong with it, as the `errors` of a problem answer.
    #[schema(value_type = Vec<Object>, example = json!([{"pointer": "/Data/Status", "rule": "one_of", "detail": "Status must be one of 0 to 5"}]))]
    errors: Box<RawValue>,
    /// What came, up to 1 MiB, where it is UTF-8. A CloudEvent in binary mode is one JSON object, with its attributes.
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    /// What came, up to 1 MiB, where it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    body_base64: Option<String>,
    /// How long it was.
    body_bytes: i64,
}

/// List rejected events
///
/// Messages from AMQP that were no events, kept with the reason: an account's own, for an operator all.
/// A page may have fewer than `Limit` items where they are large.
#[utoipa::path(
    get, path = "/v1/rejected-events", operation_id = "list_rejected_events", tag = "Events", security(("key" = [])),
    params(PageParams),
    responses((status = 200, description = "A page.", body = List<RejectedEvent>), SharedAnswers, Malformed),
)]
pub(crate) async fn list(
    State(manage): State<Manage>,
    caller: Caller,
    query: Query,
) -> Result<Json<List<RejectedEvent>>, Problem> {
    let paging = Paging::only(query)?;
    let (found, more) = rejected::list(&manage, caller, paging.before, paging.limit).await?;
    let next_cursor = found.last().filter(|_| more).map(|last| last.id.to_string());
    let items = found.into_iter().map(shape).collect::<Result<_, _>>()?;
    Ok(Json(List { items, next_cursor }))
}

fn shape(view: RejectedView) -> Result<RejectedEvent, Problem> {
    let (body, body_base64) = match String::from_utf8(view.body) {
        Ok(text) => (Some(text), None),
        Err(error) => (None, Some(BASE64_STANDARD.encode(error.as_bytes()))),
    };
    Ok(RejectedEvent {
        id: view.id,
        account: view.account,
        received_at: view.received_at,
        errors: RawValue::from_string(view.faults).map_err(|error| Problem::unavailable("rejected event", &error))?,
        body,
        body_base64,
        body_bytes: view.body_bytes,
    })
}
