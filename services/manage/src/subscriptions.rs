//! Subscriptions.

use crate::callers::{Builder, Sight, permit};
use crate::etag::{IfMatch, IfNoneMatch, Representation};
use crate::fields::Fields;
use crate::json::Json;
use crate::paging::{List, PageParams, Paging};
use crate::path::At;
use crate::query::Query;
use crate::refusals::{BodyRefused, Conflict, Forbidden, Malformed, Missing, Refused};
use crate::{Manage, fresh_id, ledger_away, schemas, secrets};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use herald_access::Caller;
use herald_access::problem::Problem;
use herald_domain::access::Role;
use herald_domain::address::EgressPolicy;
use herald_domain::catalogue::Webhook;
use herald_domain::delivery::Closed;
use herald_domain::id::{AccountId, SubscriptionId};
use herald_domain::problem::Fault;
use herald_domain::signing::SigningKey;
use herald_domain::subscription::{Draft, Subscription, parse, parse_patch, url_as_kept};
use herald_domain::time::Timestamp;
use herald_ledger::history::retrying::RetriedSome;
use herald_ledger::subscriptions::SubscriptionFilter;
use herald_registry::Registry;
use serde_json::{Map, Value};
use std::sync::Arc;
use std::time::Duration;

/// Until how many deliveries are tried again with one request.
const RETRIED_AT_A_TIME: usize = 10_000;

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
        Refused, Forbidden, Malformed, BodyRefused,
    ),
)]
pub(crate) async fn create(
    State(manage): State<Manage>,
    Builder(caller): Builder,
    Json(body): Json,
) -> Result<Response, Problem> {
    let draft = read(&body, &manage.egress)?;
    let owner = owner(&manage, caller, draft.owner)?;
    permit(&manage.registry, owner, draft.settings.topic)?;
    let (secret, key) = draft.secret.map_or_else(generate, Ok)?;
    let now = manage.ledger.now();
    let subscription = Subscription {
        id: SubscriptionId(fresh_id()),
        owner,
        settings: draft.settings,
        key,
        former_key: None,
        created_at: now,
        updated_at: now,
        open_from: Timestamp::from_micros(0),
        open_from_version: 0,
        deactivated: None,
        deleted: false,
    };
    manage
        .ledger
        .create_subscription(subscription.clone(), caller.account())
        .await
        .map_err(ledger_away)?;
    manage.refresh().await;
    let location = format!("/v1/subscriptions/{}", subscription.id);
    let etag = Representation::of(&shown(&subscription))?.etag()?;
    let body = axum::Json(shown_with_secret(&subscription, secret));
    let headers = [(header::ETAG, etag)];
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], headers, body).into_response())
}

/// Whose a subscription is to be: the caller's own, or for an operator any account's.
fn owner(manage: &Manage, caller: Caller, given: Option<AccountId>) -> Result<AccountId, Problem> {
    let owner = given.unwrap_or_else(|| caller.account());
    if owner == caller.account() {
        return Ok(owner);
    }
    if !caller.has(Role::Operator) {
        return Err(Problem::forbidden(
            "Owner may name another account only with a key that has the role Operator; leave it out",
        ));
    }
    if manage.registry.view().account(owner).is_none() {
        let detail = "Owner must be the Id of an account; there is none of that Id";
        return Err(Problem::faults(vec![Fault::new("/Owner", "account", detail)]));
    }
    Ok(owner)
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
        Refused, Forbidden, Malformed,
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
    let sight = Sight::of(caller);
    if wanted.owner.is_some_and(|owner| !sight.includes(owner)) {
        return Ok(axum::Json(List::whole(Vec::new())));
    }
    let wanted = SubscriptionFilter {
        owner: wanted.owner.or_else(|| sight.account()),
        ..wanted
    };
    let ask = u64::try_from(paging.ask()).unwrap_or(u64::MAX);
    let found = manage
        .ledger
        .subscriptions(wanted, paging.before, ask)
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
    if_none_match: IfNoneMatch,
) -> Result<Response, Problem> {
    let subscription = seen(&manage, Sight::of(caller), id).await?;
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
        Refused, Forbidden, Missing, Malformed, BodyRefused,
    ),
)]
pub(crate) async fn replace(
    State(manage): State<Manage>,
    Builder(caller): Builder,
    At(id): At<SubscriptionId>,
    if_match: IfMatch,
    Json(body): Json,
) -> Result<Response, Problem> {
    let egress = Arc::clone(&manage.egress);
    change(&manage, caller, id, if_match, move |_| read(&body, &egress)).await
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
        Refused, Forbidden, Missing, Malformed, BodyRefused,
    ),
)]
pub(crate) async fn patch(
    State(manage): State<Manage>,
    Builder(caller): Builder,
    At(id): At<SubscriptionId>,
    if_match: IfMatch,
    Json(body): Json,
) -> Result<Response, Problem> {
    let egress = Arc::clone(&manage.egress);
    let merged = move |present: &Subscription| {
        let draft = parse_patch(&present.settings, &body, &egress).map_err(Problem::faults)?;
        Ok(as_kept(draft))
    };
    change(&manage, caller, id, if_match, merged).await
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
    if_match: IfMatch,
) -> Result<StatusCode, Problem> {
    let registry = Arc::clone(&manage.registry);
    let check = move |present: &Subscription| {
        may_change(&registry, caller, present)?;
        if_match.check(&shown(present))
    };
    let deleted = manage.ledger.delete_subscription(id, caller.account(), check).await;
    deleted
        .map_err(ledger_away)?
        .ok_or_else(|| Problem::not_found("subscription"))??;
    manage.refresh().await;
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

pub(crate) fn generate() -> Result<(String, SigningKey), Problem> {
    let key = secrets::signing_key(secrets::system)?;
    Ok((key.to_signing_secret(), key))
}

/// Makes of the subscription what `draft` says, which sees it as it is in the transaction, so that of
/// two changes at a time neither undoes the other.
async fn change(
    manage: &Manage,
    caller: Caller,
    id: SubscriptionId,
    if_match: IfMatch,
    draft: impl FnOnce(&Subscription) -> Result<Draft, Problem> + Send + 'static,
) -> Result<Response, Problem> {
    let registry = Arc::clone(&manage.registry);
    let now = manage.ledger.now();
    let changed = update(manage, caller, id, move |subscription| {
        if !Sight::of(caller).includes(subscription.owner) {
            return Err(Problem::not_found("subscription"));
        }
        if_match.check(&shown(subscription))?;
        let draft = draft(subscription)?;
        if draft.owner.is_some_and(|owner| owner != subscription.owner) {
            let detail = "Owner cannot be changed; create the subscription anew with another Owner";
            return Err(Problem::faults(vec![Fault::new("/Owner", "read_only", detail)]));
        }
        let topic = draft.settings.topic;
        if topic == subscription.settings.topic {
            may_change(&registry, caller, subscription)?;
        } else {
            permit(&registry, subscription.owner, topic)?;
        }
        subscription.settings = draft.settings;
        if let Some((_, key)) = draft.secret {
            subscription.rotate(key, Duration::ZERO, now);
        }
        Ok(())
    });
    Representation::of(&shown(&changed.await?))?.answer()
}

/// Changes the subscription in a transaction; what is refused is not changed.
pub(crate) async fn update(
    manage: &Manage,
    caller: Caller,
    id: SubscriptionId,
    change: impl FnOnce(&mut Subscription) -> Result<(), Problem> + Send + 'static,
) -> Result<Subscription, Problem> {
    let changed = manage.ledger.update_subscription(id, caller.account(), change).await;
    let subscription = changed
        .map_err(ledger_away)?
        .ok_or_else(|| Problem::not_found("subscription"))??;
    manage.refresh().await;
    Ok(subscription)
}

/// Answers 404 where the caller does not see the subscription, and 403 where its owner has not the role
/// or the permission any more. An operator may mend and delete what its owner no longer may.
pub(crate) fn may_change(registry: &Registry, caller: Caller, subscription: &Subscription) -> Result<(), Problem> {
    match Sight::of(caller) {
        Sight::Everything => Ok(()),
        Sight::Of(account) if account == subscription.owner => {
            permit(registry, subscription.owner, subscription.settings.topic)
        }
        Sight::Of(_) => Err(Problem::not_found("subscription")),
    }
}

/// The subscription, if the caller may see it.
async fn seen(manage: &Manage, sight: Sight, id: SubscriptionId) -> Result<Subscription, Problem> {
    let found = manage.ledger.subscription(id).await.map_err(ledger_away)?;
    let seen = found.filter(|subscription| sight.includes(subscription.owner));
    seen.ok_or_else(|| Problem::not_found("subscription"))
}

fn read(body: &Value, egress: &EgressPolicy) -> Result<Draft, Problem> {
    parse(body, egress).map(as_kept).map_err(Problem::faults)
}

/// With settings as the ledger keeps them, to the millisecond, so that this answer and the next are alike.
fn as_kept(mut draft: Draft) -> Draft {
    let settings = &mut draft.settings;
    let retry = Arc::make_mut(&mut settings.retry);
    for duration in [
        &mut settings.timeout,
        &mut retry.initial,
        &mut retry.max,
        &mut retry.give_up_after,
    ] {
        *duration = Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
    }
    draft
}

pub(crate) fn shown(subscription: &Subscription) -> Shown {
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

pub(crate) fn shown_with_secret(subscription: &Subscription, secret: String) -> Shown {
    let mut fields = shown(subscription);
    fields.insert("SecretKey".to_owned(), secret.into());
    fields.insert("SigningSecret".to_owned(), subscription.key.to_signing_secret().into());
    fields
}
