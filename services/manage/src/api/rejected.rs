//! Messages that were no events.

use crate::api::paging::{List, PageParams, Paging};
use crate::api::query::Query;
use crate::api::refusals::{Malformed, Refused};
use crate::operations::sight::Sight;
use crate::{Manage, ledger_away};
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

/// How many are read at a time, and after how many bytes a page ends early: a body may have 1 MiB, and
/// a full page of those would fill the memory.
const STEP: usize = 8;
const PAGE_BYTES: usize = 8 << 20;

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
    /// What came, up to 1 MiB, where it is UTF-8.
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
    responses((status = 200, description = "A page.", body = List<RejectedEvent>), Refused, Malformed),
)]
pub(crate) async fn list(
    State(manage): State<Manage>,
    caller: Caller,
    query: Query,
) -> Result<Json<List<RejectedEvent>>, Problem> {
    let paging = Paging::only(query)?;
    let scope = Sight::of(caller).account().map(|account| account.to_string());
    let page = find(&manage, scope.as_deref(), paging).await?;
    let items = page.items.into_iter().map(shape).collect::<Result<_, _>>()?;
    Ok(Json(List {
        items,
        next_cursor: page.next_cursor,
    }))
}

async fn find(manage: &Manage, scope: Option<&str>, paging: Paging<Uuid>) -> Result<List<RejectedView>, Problem> {
    let mut found: Vec<RejectedView> = Vec::new();
    let mut bytes = 0;
    loop {
        let step = STEP.min(paging.ask() - found.len());
        let before = found.last().map(|last| last.id).or(paging.before);
        let ask = u64::try_from(step).unwrap_or(u64::MAX);
        let rows = manage.ledger.rejected(scope, before, ask).await.map_err(ledger_away)?;
        let exhausted = rows.len() < step;
        bytes += rows.iter().map(|row| row.body.len()).sum::<usize>();
        found.extend(rows);
        if exhausted || found.len() >= paging.ask() {
            return Ok(List::page(found, paging.limit, |row| row.id));
        }
        if bytes >= PAGE_BYTES {
            let next_cursor = found.last().map(|last| last.id.to_string());
            return Ok(List {
                items: found,
                next_cursor,
            });
        }
    }
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
