//! Deliveries, their attempts, and the manual retry.

use crate::Manage;
use crate::api::callers::Builder;
use crate::api::paging::{List, PageParams, Paging};
use crate::api::path::At;
use crate::api::query::Query;
use crate::api::refusals::{Conflict, Forbidden, Malformed, Missing, SharedAnswers};
use crate::api::schemas::{ErrorName, StatusName, WebhookName};
use crate::operations::deliveries;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use herald_access::Caller;
use herald_access::problem::Problem;
use herald_domain::delivery::{Closed, Status};
use herald_domain::id::{DeliveryId, EventId, SubscriptionId};
use herald_domain::time::Timestamp;
use herald_ledger::history::{AttemptView, DeliveryFilter, DeliveryView};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

/// What becomes of one event for one subscription.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Delivery {
    /// Sent as `webhook-id`, the same at every attempt.
    #[schema(value_type = Uuid)]
    id: DeliveryId,
    /// The event's `Id`, as the producer gave it or was given it.
    #[schema(value_type = Uuid)]
    event_id: EventId,
    #[serde(rename = "SubscriptionGUID")]
    #[schema(value_type = Uuid)]
    subscription_guid: SubscriptionId,
    /// What the subscription asked for when the event was matched.
    #[schema(value_type = WebhookName)]
    webhook: &'static str,
    #[schema(value_type = StatusName)]
    status: &'static str,
    /// Why it was closed without success: `gave_up`, `max_attempts`, `gone`, `address_refused`,
    /// `subscription_inactive`, `subscription_deleted`, `account_inactive`, `role_missing`,
    /// `permission_missing`.
    #[schema(required, example = "gave_up")]
    reason: Option<String>,
    attempt_count: i64,
    /// When the next attempt is due; null once it is closed.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    due_at: Option<Timestamp>,
    /// When the event was matched.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[schema(required, value_type = Option<String>, format = DateTime)]
    closed_at: Option<Timestamp>,
    #[schema(required, example = 503)]
    last_status_code: Option<i32>,
    /// As in an attempt.
    #[schema(required, value_type = Option<ErrorName>)]
    last_error: Option<String>,
}

/// One request to the subscriber.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Attempt {
    /// From 1.
    number: i64,
    /// When it began.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    #[schema(example = 0.118)]
    duration_seconds: f64,
    /// Null if there was no answer.
    #[schema(required, example = 503)]
    status_code: Option<i32>,
    /// Null if it succeeded.
    #[schema(required, value_type = Option<ErrorName>)]
    error: Option<String>,
    /// The error in words.
    #[schema(required)]
    detail: Option<String>,
    /// When the next attempt was due; null if there was to be none.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    next_due_at: Option<Timestamp>,
}

/// A delivery with all its attempts.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct DeliveryWithAttempts {
    #[serde(flatten)]
    delivery: Delivery,
    /// In order.
    attempts: Vec<Attempt>,
}

/// A dead delivery with its last attempt.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct DeadLetter {
    #[serde(flatten)]
    delivery: Delivery,
    #[schema(required)]
    last_attempt: Option<Attempt>,
}

/// Which deliveries to list.
#[derive(Debug, utoipa::IntoParams)]
#[into_params(parameter_in = Query, rename_all = "PascalCase")]
#[expect(dead_code, reason = "describes what read_filter reads")]
pub(crate) struct DeliveryParams {
    /// Only to this subscription.
    subscription: Option<Uuid>,
    /// Only of the event with this `Id`.
    event: Option<Uuid>,
    /// Only those whose `CreatedAt` is this RFC 3339 time or later. An event that waited for more than a day before
    /// its deliveries were made is listed by its own time.
    #[param(format = DateTime)]
    since: Option<String>,
    /// Only those whose `CreatedAt` is before this RFC 3339 time.
    #[param(format = DateTime)]
    until: Option<String>,
}

/// List deliveries
///
/// Those to an account's own subscriptions; an operator sees all.
#[utoipa::path(
    get, path = "/v1/deliveries", operation_id = "list_deliveries", tag = "Deliveries", security(("key" = [])),
    params(
        ("Status" = Option<StatusName>, Query, description = "Only those of this status."),
        DeliveryParams,
        PageParams,
    ),
    responses((status = 200, description = "A page.", body = List<Delivery>), SharedAnswers, Forbidden, Malformed),
)]
pub(crate) async fn list(
    State(manage): State<Manage>,
    Builder(caller): Builder,
    mut query: Query,
) -> Result<Json<List<Delivery>>, Problem> {
    query.only(&["Status", "Subscription", "Event", "Since", "Until", "Limit", "Cursor"]);
    let names = Status::ALL.map(Status::name).join(", ");
    let status = query.read("Status", "one_of", format!("one of {names}"), Status::named);
    let page = page(&manage, caller, query, status).await?;
    Ok(Json(page.map(Delivery::from)))
}

/// List dead letters
///
/// Deliveries that were given up or could never succeed, each with its last attempt.
#[utoipa::path(
    get, path = "/v1/dead-letters", operation_id = "list_dead_letters", tag = "Deliveries", security(("key" = [])),
    params(DeliveryParams, PageParams),
    responses((status = 200, description = "A page.", body = List<DeadLetter>), SharedAnswers, Forbidden, Malformed),
)]
pub(crate) async fn dead_letters(
    State(manage): State<Manage>,
    Builder(caller): Builder,
    mut query: Query,
) -> Result<Json<List<DeadLetter>>, Problem> {
    query.only(&["Subscription", "Event", "Since", "Until", "Limit", "Cursor"]);
    let page = page(&manage, caller, query, Some(Status::Closed(Closed::Dead))).await?;
    let mut attempts = deliveries::attempts(&manage, &page.items).await?;
    Ok(Json(page.map(|view| {
        let last = attempts.remove(&view.id).and_then(|mut attempts| attempts.pop());
        DeadLetter {
            delivery: view.into(),
            last_attempt: last.map(Attempt::from),
        }
    })))
}

/// Look at a delivery
#[utoipa::path(
    get, path = "/v1/deliveries/{id}", operation_id = "get_delivery", tag = "Deliveries", security(("key" = [])),
    params(("id" = Uuid, Path, description = "The delivery's `Id`, sent as `webhook-id`.")),
    responses(
        (status = 200, description = "The delivery with its attempts.", body = DeliveryWithAttempts),
        SharedAnswers, Forbidden, Missing,
    ),
)]
pub(crate) async fn show(
    State(manage): State<Manage>,
    Builder(caller): Builder,
    At(id): At<DeliveryId>,
) -> Result<Json<DeliveryWithAttempts>, Problem> {
    let view = deliveries::find(&manage, caller, id).await?;
    let mut attempts = deliveries::attempts(&manage, std::slice::from_ref(&view)).await?;
    let attempts = attempts
        .remove(&id)
        .unwrap_or_default()
        .into_iter()
        .map(Attempt::from)
        .collect();
    Ok(Json(DeliveryWithAttempts {
        delivery: view.into(),
        attempts,
    }))
}

/// Try a delivery again
///
/// It is due at once, with the same id; attempt numbers go on, and its give-up clock starts again. One that was
/// refused can be tried again once the subscription's owner has the role and the permission.
#[utoipa::path(
    post, path = "/v1/deliveries/{id}/retry", operation_id = "retry_delivery",
    tag = "Deliveries", security(("key" = [])),
    params(("id" = Uuid, Path, description = "The delivery's `Id`.")),
    responses(
        (status = 202, description = "It is open again.", body = Delivery),
        SharedAnswers, Forbidden, Missing, Conflict,
    ),
)]
pub(crate) async fn retry(
    State(manage): State<Manage>,
    Builder(caller): Builder,
    At(id): At<DeliveryId>,
) -> Result<(StatusCode, Json<Delivery>), Problem> {
    let delivery = deliveries::retry(&manage, caller, id).await?;
    Ok((StatusCode::ACCEPTED, Json(delivery.into())))
}

/// The page of deliveries that a query asks for.
async fn page(
    manage: &Manage,
    caller: Caller,
    mut query: Query,
    status: Option<Status>,
) -> Result<List<DeliveryView>, Problem> {
    const TIME: &str = "an RFC 3339 date-time with an offset, such as 2026-11-22T05:13:39Z";
    // In a query + is a space, which no date-time has: it was meant as it was written.
    let time = |text: &str| Timestamp::parse(&text.replace(' ', "+")).ok();
    let paging = Paging::<DeliveryId>::read(&mut query);
    let event: Option<EventId> = query.guid("Event");
    let wanted = DeliveryFilter {
        status,
        subscription: query.guid("Subscription"),
        since: query.read("Since", "date_time", TIME, time),
        until: query.read("Until", "date_time", TIME, time),
        before: paging.before,
        ..DeliveryFilter::default()
    };
    query.finish(())?;
    let found = deliveries::list(manage, caller, wanted, event, paging.ask()).await?;
    Ok(List::page(found, paging.limit, |delivery| delivery.id))
}

impl From<DeliveryView> for Delivery {
    fn from(view: DeliveryView) -> Self {
        Self {
            id: view.id,
            event_id: view.event_id,
            subscription_guid: view.subscription,
            webhook: view.webhook.name(),
            status: view.status.name(),
            reason: view.reason,
            attempt_count: view.attempts,
            due_at: view.due_at,
            created_at: view.created_at,
            closed_at: view.closed_at,
            last_status_code: view.last_status_code,
            last_error: view.last_error,
        }
    }
}

impl From<AttemptView> for Attempt {
    fn from(view: AttemptView) -> Self {
        Self {
            number: view.number,
            at: view.at,
            duration_seconds: view.duration.as_secs_f64(),
            status_code: view.status_code,
            error: view.error,
            detail: view.detail,
            next_due_at: view.next_due_at,
        }
    }
}
