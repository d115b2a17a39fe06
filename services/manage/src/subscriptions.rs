//! Subscriptions.

use crate::callers::{Builder, Sight, permit};
use crate::fields::Fields;
use crate::json::{Json, OptionalJson};
use crate::openapi::{BodyRefused, Conflict, Forbidden, Malformed, Missing, Refused};
use crate::paging::{List, PageParams, Paging};
use crate::path::At;
use crate::query::Query;
use crate::{Manage, fresh_id, ledger_away, schemas, secrets};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use herald_access::problem::Problem;
use herald_domain::address::EgressPolicy;
use herald_domain::delivery::Closed;
use herald_domain::id::SubscriptionId;
use herald_domain::signing::SigningKey;
use herald_domain::subscription::{Draft, Settings, Subscription, merge_patch, parse};
use herald_domain::time::Timestamp;
use herald_ledger::retrying::RetriedSome;
use serde_json::{Map, Value};
use std::sync::Arc;
use std::time::Duration;

/// Until how many deliveries are tried again with one request.
const RETRIED_AT_A_TIME: usize = 10_000;

type Shown = Map<String, Value>;

/// Create a subscription
///
/// The account needs permission on the filter's object. `SecretKey` is shown in this answer and no
/// other; where none is given, 32 random bytes are made. Events published after this answer match.
#[utoipa::path(
    post, path = "/v1/subscriptions", operation_id = "create_subscription",
    tag = "Subscriptions", security(("key" = [])),
    request_body = schemas::SubscriptionRequest,
    responses(
        (status = 201, description = "It is there.", body = schemas::SubscriptionWithSecret,
            headers(("Location" = String, description = "Its address."))),
        Refused, Forbidden, Malformed, BodyRefused,
    ),
)]
pub(crate) async fn create(
    State(manage): State<Manage>,
    Builder(caller): Builder,
    Json(body): Json,
) -> Result<Response, Problem> {
    let draft = read(&body, &manage.egress)?;
    permit(&manage.registry, caller.account(), draft.settings.topic)?;
    let (secret, key) = draft.secret.map_or_else(generate, Ok)?;
    let now = manage.ledger.now();
    let subscription = Subscription {
        id: SubscriptionId(fresh_id()),
        owner: caller.account(),
        settings: draft.settings,
        key,
        created_at: now,
        updated_at: now,
        open_from: Timestamp::from_micros(0),
        open_from_version: 0,
        deactivated: None,
        deleted: false,
    };
    manage
        .ledger
        .create_subscription(subscription.clone())
        .await
        .map_err(ledger_away)?;
    manage.refresh().await;
    let location = format!("/v1/subscriptions/{}", subscription.id);
    let body = axum::Json(shown_with_secret(&subscription, secret));
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], body).into_response())
}

/// List subscriptions
///
/// An account's own; an operator sees all.
#[utoipa::path(
    get, path = "/v1/subscriptions", operation_id = "list_subscriptions", tag = "Subscriptions", security(("key" = [])),
    params(PageParams),
    responses(
        (status = 200, description = "A page.", body = List<schemas::Subscription>),
        Refused, Forbidden, Malformed,
    ),
)]
pub(crate) async fn list(
    State(manage): State<Manage>,
    Builder(caller): Builder,
    query: Query,
) -> Result<axum::Json<List<Shown>>, Problem> {
    let paging = Paging::only(query)?;
    let ask = u64::try_from(paging.ask()).unwrap_or(u64::MAX);
    let owner = Sight::of(caller).account();
    let found = manage
        .ledger
        .subscriptions(owner, paging.before, ask)
        .await
        .map_err(ledger_away)?;
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
        Refused, Forbidden, Missing,
    ),
)]
pub(crate) async fn show(
    State(manage): State<Manage>,
    Builder(caller): Builder,
    At(id): At<SubscriptionId>,
) -> Result<axum::Json<Shown>, Problem> {
    let subscription = seen(&manage, Sight::of(caller), id).await?;
    Ok(axum::Json(shown(&subscription)))
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
        Refused, Forbidden, Missing, Malformed, BodyRefused,
    ),
)]
pub(crate) async fn replace(
    State(manage): State<Manage>,
    Builder(caller): Builder,
    At(id): At<SubscriptionId>,
    Json(body): Json,
) -> Result<axum::Json<Shown>, Problem> {
    let egress = Arc::clone(&manage.egress);
    change(&manage, Builder(caller), id, move |_| read(&body, &egress)).await
}

/// Change a subscription
///
/// A JSON merge patch (RFC 7396) over what `GET` gives. Role and permission are checked again.
#[utoipa::path(
    patch, path = "/v1/subscriptions/{guid}", operation_id = "change_subscription",
    tag = "Subscriptions", security(("key" = [])),
    params(("guid" = uuid::Uuid, Path, description = "The subscription's `GUID`.")),
    request_body(
        content((schemas::SubscriptionPatch = "application/merge-patch+json"), (schemas::SubscriptionPatch = "application/json")),
        description = "The fields to change; null gives a field its default.",
    ),
    responses(
        (status = 200, description = "The subscription as it is now.", body = schemas::Subscription),
        Refused, Forbidden, Missing, Malformed, BodyRefused,
    ),
)]
pub(crate) async fn patch(
    State(manage): State<Manage>,
    Builder(caller): Builder,
    At(id): At<SubscriptionId>,
    Json(body): Json,
) -> Result<axum::Json<Shown>, Problem> {
    let egress = Arc::clone(&manage.egress);
    let merged = move |present: &Subscription| {
        let mut merged = Value::Object(present.settings.to_json());
        merge_patch(&mut merged, &body);
        read(&merged, &egress)
    };
    change(&manage, Builder(caller), id, merged).await
}

/// Delete a subscription
///
/// What is open is cancelled, but an attempt under way that succeeds is Delivered. Closed deliveries can still be looked
/// at.
#[utoipa::path(
    delete, path = "/v1/subscriptions/{guid}", operation_id = "delete_subscription",
    tag = "Subscriptions", security(("key" = [])),
    params(("guid" = uuid::Uuid, Path, description = "The subscription's `GUID`.")),
    responses((status = 204, description = "It is gone."), Refused, Forbidden, Missing),
)]
pub(crate) async fn remove(
    State(manage): State<Manage>,
    Builder(caller): Builder,
    At(id): At<SubscriptionId>,
) -> Result<StatusCode, Problem> {
    seen(&manage, Sight::of(caller), id).await?;
    let found = manage
        .ledger
        .delete_subscription(id, caller.account())
        .await
        .map_err(ledger_away)?;
    manage.refresh().await;
    if found {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Problem::not_found("subscription"))
    }
}

/// Give a subscription a new secret
///
/// The one given, or 32 random bytes. Every attempt from now on is signed with it, also of messages
/// that are waiting to be sent again.
#[utoipa::path(
    post, path = "/v1/subscriptions/{guid}/rotate-secret", operation_id = "rotate_subscription_secret",
    tag = "Subscriptions", security(("key" = [])),
    params(("guid" = uuid::Uuid, Path, description = "The subscription's `GUID`.")),
    request_body = Option<schemas::NewSecret>,
    responses(
        (status = 200, description = "The subscription with its new secret.", body = schemas::SubscriptionWithSecret),
        Refused, Forbidden, Missing, Malformed, BodyRefused,
    ),
)]
pub(crate) async fn rotate_secret(
    State(manage): State<Manage>,
    Builder(caller): Builder,
    At(id): At<SubscriptionId>,
    OptionalJson(body): OptionalJson,
) -> Result<axum::Json<Shown>, Problem> {
    seen(&manage, Sight::of(caller), id).await?;
    let given = body.as_ref().map_or(Ok(None), read_secret)?;
    let (secret, key) = given.map_or_else(generate, Ok)?;
    let change = move |subscription: &mut Subscription| -> Result<(), Problem> {
        subscription.key = key;
        Ok(())
    };
    let changed = manage
        .ledger
        .update_subscription(id, caller.account(), change)
        .await
        .map_err(ledger_away)?;
    let subscription = changed.ok_or_else(|| Problem::not_found("subscription"))??;
    manage.refresh().await;
    Ok(axum::Json(shown_with_secret(&subscription, secret)))
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
        Refused, Forbidden, Missing, Conflict, Malformed, BodyRefused,
    ),
)]
pub(crate) async fn retry(
    State(manage): State<Manage>,
    Builder(caller): Builder,
    At(id): At<SubscriptionId>,
    Json(body): Json,
) -> Result<(StatusCode, axum::Json<schemas::Retried>), Problem> {
    let (ended, since) = read_retry(&body)?;
    let subscription = seen(&manage, Sight::of(caller), id).await?;
    permit(&manage.registry, subscription.owner, subscription.settings.topic)?;
    let retried = manage.ledger.retry_some(id, ended, since, RETRIED_AT_A_TIME).await;
    match retried.map_err(ledger_away)? {
        RetriedSome::Done { deliveries, more } => Ok((
            StatusCode::ACCEPTED,
            axum::Json(schemas::Retried {
                retried: deliveries,
                more,
            }),
        )),
        RetriedSome::Unwanted => Err(Problem::conflict(
            "the subscription is inactive, so what is tried again would be cancelled at once; set Active to true first",
        )),
    }
}

fn read_retry(body: &Value) -> Result<(Closed, Timestamp), Problem> {
    let mut fields = Fields::of(body, &["Status", "Since"], &[])?;
    let ended = fields.ended();
    let since = fields.time("Since");
    fields.finish(ended.map(|ended| (ended, since.unwrap_or(Timestamp::from_micros(0)))))
}

/// Answers 403 where the subscription's owner may not have it (any more).
pub(crate) async fn permit_owner(manage: &Manage, id: SubscriptionId) -> Result<(), Problem> {
    match manage.ledger.subscription(id).await.map_err(ledger_away)? {
        Some(subscription) => permit(&manage.registry, subscription.owner, subscription.settings.topic),
        // What is deleted has another answer.
        None => Ok(()),
    }
}

fn read_secret(body: &Value) -> Result<Option<(String, SigningKey)>, Problem> {
    let mut fields = Fields::of(body, &["SecretKey"], &[])?;
    let secret = fields.secret();
    fields.finish(Some(secret))
}

fn generate() -> Result<(String, SigningKey), Problem> {
    let key = secrets::signing_key(secrets::system)?;
    Ok((key.to_signing_secret(), key))
}

/// Makes of the subscription what `draft` says, which sees it as it is in the transaction, so that of
/// two changes at a time neither undoes the other.
async fn change(
    manage: &Manage,
    Builder(caller): Builder,
    id: SubscriptionId,
    draft: impl FnOnce(&Subscription) -> Result<Draft, Problem> + Send + 'static,
) -> Result<axum::Json<Shown>, Problem> {
    let sight = Sight::of(caller);
    let registry = Arc::clone(&manage.registry);
    let change = move |subscription: &mut Subscription| {
        if !sight.includes(subscription.owner) {
            return Err(Problem::not_found("subscription"));
        }
        let draft = draft(subscription)?;
        let topic = draft.settings.topic;
        // An operator may mend what its owner no longer may, but not widen what the owner listens to.
        if sight != Sight::Everything || topic != subscription.settings.topic {
            permit(&registry, subscription.owner, topic)?;
        }
        subscription.settings = draft.settings;
        if let Some((_, key)) = draft.secret {
            subscription.key = key;
        }
        Ok(())
    };
    let changed = manage
        .ledger
        .update_subscription(id, caller.account(), change)
        .await
        .map_err(ledger_away)?;
    let subscription = changed.ok_or_else(|| Problem::not_found("subscription"))??;
    manage.refresh().await;
    Ok(axum::Json(shown(&subscription)))
}

/// The subscription, if the caller may see it.
async fn seen(manage: &Manage, sight: Sight, id: SubscriptionId) -> Result<Subscription, Problem> {
    let found = manage.ledger.subscription(id).await.map_err(ledger_away)?;
    let seen = found.filter(|subscription| sight.includes(subscription.owner));
    seen.ok_or_else(|| Problem::not_found("subscription"))
}

fn read(body: &Value, egress: &EgressPolicy) -> Result<Draft, Problem> {
    let draft = parse(body, egress).map_err(Problem::faults)?;
    Ok(Draft {
        settings: as_kept(draft.settings),
        ..draft
    })
}

/// The settings as the ledger keeps them, to the millisecond, so that this answer and the next are alike.
fn as_kept(mut settings: Settings) -> Settings {
    let retry = Arc::make_mut(&mut settings.retry);
    for duration in [
        &mut settings.timeout,
        &mut retry.initial,
        &mut retry.max,
        &mut retry.give_up_after,
    ] {
        *duration = Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
    }
    settings
}

fn shown(subscription: &Subscription) -> Shown {
    let mut fields = Shown::new();
    fields.insert("GUID".to_owned(), subscription.id.to_string().into());
    fields.insert("Owner".to_owned(), subscription.owner.to_string().into());
    fields.extend(subscription.settings.to_json());
    fields.insert("CreatedAt".to_owned(), subscription.created_at.to_string().into());
    fields.insert("UpdatedAt".to_owned(), subscription.updated_at.to_string().into());
    let deactivated = subscription.deactivated;
    let at = deactivated.map(|why| why.at.to_string());
    fields.insert("DeactivatedAt".to_owned(), at.into());
    let reason = deactivated.map(|why| why.reason.name());
    fields.insert("DeactivationReason".to_owned(), reason.into());
    fields
}

fn shown_with_secret(subscription: &Subscription, secret: String) -> Shown {
    let mut fields = shown(subscription);
    fields.insert("SecretKey".to_owned(), secret.into());
    fields.insert("SigningSecret".to_owned(), subscription.key.to_signing_secret().into());
    fields
}
