//! Subscriptions.

use crate::Manage;
use crate::api::callers::Builder;
use crate::api::etag::{IfMatch, IfNoneMatch, Representation};
use crate::api::fields::Fields;
use crate::api::json::Json;
use crate::api::paging::{List, PageParams, Paging};
use crate::api::path::At;
use crate::api::query::Query;
use crate::api::refusals::{BodyAnswers, Conflict, Forbidden, Malformed, Missing, SharedAnswers};
use crate::api::schemas;
use crate::operations::subscriptions as operations;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use herald_access::problem::Problem;
use herald_domain::address::EgressPolicy;
use herald_domain::catalogue::{Catalogue, Webhook};
use herald_domain::delivery::Closed;
use herald_domain::id::SubscriptionId;
use herald_domain::subscription::{Draft, Subscription, parse, parse_patch, parse_replacement, url_as_kept};
use herald_domain::time::Timestamp;
use herald_ledger::subscriptions::SubscriptionFilter;
use serde_json::{Map, Value};
use std::sync::Arc;

type Shown = Map<String, Value>;

/// Create a subscription
///
/// The owner, which is the key's account unless an operator names another in `Owner`, needs permission on
/// the filter's object. `SecretKey` is shown in this answer and no
/// other; where none is given, 32 random bytes are made. Events published after this answer match.
#[utoipa::path(
    post, path = "/v1/subscriptions", operation_id = "create_subscription",
    tag = "Subscriptions", security(("key" = [])),
    request_body = schemas::SubscriptionRequest,
    responses(
        (status = 201, description = "It is there.", body = schemas::SubscriptionWithSecret,
            headers(("Location" = String, description = "Its address."))),
        SharedAnswers, Forbidden, Malformed, BodyAnswers,
    ),
)]
pub(crate) async fn create(
    State(manage): State<Manage>,
    Builder(caller): Builder,
    Json(body): Json,
) -> Result<Response, Problem> {
    let draft = read(&body, &*manage.catalogue().await, &manage.egress)?;
    let (subscription, secret) = operations::create(&manage, caller, draft).await?;
    let location = format!("/v1/subscriptions/{}", subscription.id);
    let etag = Representation::of(&shown(&subscription))?.etag()?;
    let body = axum::Json(shown_with_secret(&subscription, secret));
    let headers = [(header::ETAG, etag)];
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], headers, body).into_response())
}

/// Which subscriptions to list.
#[derive(Debug, utoipa::IntoParams)]
#[into_params(parameter_in = Query, rename_all = "PascalCase")]
#[expect(dead_code, reason = "describes what list reads")]
pub(crate) struct SubscriptionParams {
    /// Only those that filter by this object.
    #[param(rename = "FilterObjectGUID")]
    filter_object_guid: Option<uuid::Uuid>,
    /// Only to this URL, however it is written: as it is called.
    #[param(rename = "SubscriberURL")]
    subscriber_url: Option<String>,
    /// Only active ones, or only inactive ones.
    active: Option<bool>,
    /// Only this account's.
    owner: Option<uuid::Uuid>,
}

/// List subscriptions
///
/// An account's own; an operator sees all. Several parameters narrow the list together.
#[utoipa::path(
    get, path = "/v1/subscriptions", operation_id = "list_subscriptions", tag = "Subscriptions", security(("key" = [])),
    params(
        ("Webhook" = Option<schemas::WebhookName>, Query, description = "Only of this kind."),
        SubscriptionParams,
        PageParams,
    ),
    responses(
        (status = 200, description = "A page.", body = List<schemas::Subscription>),
        SharedAnswers, Forbidden, Malformed,
    ),
)]
pub(crate) async fn list(
    State(manage): State<Manage>,
    Builder(caller): Builder,
    mut query: Query,
) -> Result<axum::Json<List<Shown>>, Problem> {
    query.only(&[
        "Webhook",
        "FilterObjectGUID",
        "SubscriberURL",
        "Active",
        "Owner",
        "Limit",
        "Cursor",
    ]);
    let paging = Paging::read(&mut query);
    let names = Webhook::ALL.map(Webhook::name).join(", ");
    let wanted = SubscriptionFilter {
        webhook: query.read("Webhook", "one_of", format!("one of {names}"), Webhook::named),
        object: query.guid("FilterObjectGUID"),
        url: query.get("SubscriberURL").map(url_as_kept),
        active: query.read("Active", "boolean", "true or false", |text| text.parse().ok()),
        owner: query.guid("Owner"),
    };
    query.finish(())?;
    let found = operations::list(&manage, caller, wanted, paging.before, paging.ask()).await?;
    let page = List::page(found, paging.limit, |subscription| subscription.id);
    Ok(axum::Json(page.map(|subscription| shown(&subscription))))
}

/// Look at a subscription
#[utoipa::path(
    get, path = "/v1/subscriptions/{guid}", operation_id = "get_subscription",
    tag = "Subscriptions", security(("key" = [])),
    params(("guid" = uuid::Uuid, Path, description = "The subscription's `GUID`.")),
    responses(
        (status = 200, description = "The subscription.", body = schemas::Subscription),
        SharedAnswers, Forbidden, Missing,
    ),
)]
pub(crate) async fn show(
    State(manage): State<Manage>,
    Builder(caller): Builder,
    At(id): At<SubscriptionId>,
    if_none_match: IfNoneMatch,
) -> Result<Response, Problem> {
    let subscription = operations::find(&manage, caller, id).await?;
    Representation::of(&shown(&subscription))?.unless(&if_none_match)
}

/// Replace a subscription
///
/// Takes what `GET` gave: read-only fields are passed over, and an absent `SecretKey` keeps the key.
/// Other absent fields get their defaults. Role and permission are checked again.
#[utoipa::path(
    put, path = "/v1/subscriptions/{guid}", operation_id = "replace_subscription",
    tag = "Subscriptions", security(("key" = [])),
    params(("guid" = uuid::Uuid, Path, description = "The subscription's `GUID`.")),
    request_body = schemas::SubscriptionRequest,
    responses(
        (status = 200, description = "The subscription as it is now.", body = schemas::Subscription),
        SharedAnswers, Forbidden, Missing, Malformed, BodyAnswers,
    ),
)]
pub(crate) async fn replace(
    State(manage): State<Manage>,
    Builder(caller): Builder,
    At(id): At<SubscriptionId>,
    if_match: IfMatch,
    Json(body): Json,
) -> Result<Response, Problem> {
    let (catalogue, egress) = (manage.catalogue().await, Arc::clone(&manage.egress));
    let replaced = move |present: &Subscription| {
        if_match.check(&shown(present))?;
        parse_replacement(&present.settings, &body, &catalogue, &egress).map_err(Problem::faults)
    };
    let changed = operations::change(&manage, caller, id, replaced).await?;
    Representation::of(&shown(&changed))?.answer()
}

/// Change a subscription
///
/// A JSON merge patch (RFC 7396) over what `GET` gives. Only what it changes is checked against the rules for the fields;
/// role and permission are checked again.
#[utoipa::path(
    patch, path = "/v1/subscriptions/{guid}", operation_id = "change_subscription",
    tag = "Subscriptions", security(("key" = [])),
    params(("guid" = uuid::Uuid, Path, description = "The subscription's `GUID`.")),
    request_body(
        content((schemas::SubscriptionPatch = "application/merge-patch+json")),
        description = "The fields to change; null gives a field its default.",
    ),
    responses(
        (status = 200, description = "The subscription as it is now.", body = schemas::Subscription),
        SharedAnswers, Forbidden, Missing, Malformed, BodyAnswers,
    ),
)]
pub(crate) async fn patch(
    State(manage): State<Manage>,
    Builder(caller): Builder,
    At(id): At<SubscriptionId>,
    if_match: IfMatch,
    Json(body): Json,
) -> Result<Response, Problem> {
    let (catalogue, egress) = (manage.catalogue().await, Arc::clone(&manage.egress));
    let merged = move |present: &Subscription| {
        if_match.check(&shown(present))?;
        parse_patch(&present.settings, &body, &catalogue, &egress).map_err(Problem::faults)
    };
    let changed = operations::change(&manage, caller, id, merged).await?;
    Representation::of(&shown(&changed))?.answer()
}

/// Delete a subscription
///
/// What is open is cancelled, but an attempt under way that succeeds is Delivered. Closed deliveries can still be looked
/// at.
#[utoipa::path(
    delete, path = "/v1/subscriptions/{guid}", operation_id = "delete_subscription",
    tag = "Subscriptions", security(("key" = [])),
    params(("guid" = uuid::Uuid, Path, description = "The subscription's `GUID`.")),
    responses((status = 204, description = "It is gone."), SharedAnswers, Forbidden, Missing),
)]
pub(crate) async fn remove(
    State(manage): State<Manage>,
    Builder(caller): Builder,
    At(id): At<SubscriptionId>,
    if_match: IfMatch,
) -> Result<StatusCode, Problem> {
    let check = move |present: &Subscription| if_match.check(&shown(present));
    operations::delete(&manage, caller, id, check).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Try deliveries of a subscription again
///
/// Those that ended so, since then: what a deactivation cancelled, dead letters after an outage, or what was refused
/// before a permission was back. They are due at once, with the same ids; attempt numbers go on, and their give-up
/// clocks start again. At most some 10,000 at a time, the oldest events first: while `More` is true, ask again.
#[utoipa::path(
    post, path = "/v1/subscriptions/{guid}/retry", operation_id = "retry_subscription_deliveries",
    tag = "Subscriptions", security(("key" = [])),
    params(("guid" = uuid::Uuid, Path, description = "The subscription's `GUID`.")),
    request_body = schemas::RetryRequest,
    responses(
        (status = 202, description = "They are open again.", body = schemas::Retried),
        SharedAnswers, Forbidden, Missing, Conflict, Malformed, BodyAnswers,
    ),
)]
pub(crate) async fn retry(
    State(manage): State<Manage>,
    Builder(caller): Builder,
    At(id): At<SubscriptionId>,
    Json(body): Json,
) -> Result<(StatusCode, axum::Json<schemas::Retried>), Problem> {
    let (ended, since) = read_retry(&body)?;
    let (retried, more) = operations::retry(&manage, caller, id, ended, since).await?;
    Ok((StatusCode::ACCEPTED, axum::Json(schemas::Retried { retried, more })))
}

fn read_retry(body: &Value) -> Result<(Closed, Timestamp), Problem> {
    let mut fields = Fields::of(body, &["Status", "Since"], &[])?;
    let ended = fields.ended();
    let since = fields.time("Since");
    fields.finish(ended.map(|ended| (ended, since.unwrap_or(Timestamp::from_micros(0)))))
}

fn read(body: &Value, catalogue: &Catalogue, egress: &EgressPolicy) -> Result<Draft, Problem> {
    parse(body, catalogue, egress).map_err(Problem::faults)
}

pub(crate) fn shown(subscription: &Subscription) -> Shown {
    subscription.to_json()
}

pub(crate) fn shown_with_secret(subscription: &Subscription, secret: String) -> Shown {
    let mut fields = shown(subscription);
    fields.insert("SecretKey".to_owned(), secret.into());
    fields.insert("SigningSecret".to_owned(), subscription.key.to_signing_secret().into());
    fields
}
