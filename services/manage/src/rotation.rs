//! New secrets for subscriptions.

use crate::callers::Builder;
use crate::etag::{IfMatch, Representation};
use crate::fields::Fields;
use crate::json::OptionalJson;
use crate::path::At;
use crate::refusals::{BodyRefused, Forbidden, Malformed, Missing, Refused};
use crate::subscriptions::{generate, may_change, shown, shown_with_secret, update};
use crate::{Manage, schemas};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use herald_access::problem::Problem;
use herald_domain::id::SubscriptionId;
use herald_domain::signing::SigningKey;
use herald_domain::subscription::MAX_OVERLAP;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// Give a subscription a new secret
///
/// The one given, or 32 random bytes. Every attempt from now on is signed with it, also of messages
/// that are waiting to be sent again. For `OverlapSeconds` the former secret signs as well:
/// `webhook-signature` has both signatures, the new one first, and a receiver that knows either secret
/// verifies. Without it a receiver has to know the new secret before, or refuses messages until it does.
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
    if_match: IfMatch,
    OptionalJson(body): OptionalJson,
) -> Result<Response, Problem> {
    let (given, overlap) = body.as_ref().map_or(Ok((None, Duration::ZERO)), read_rotation)?;
    let (secret, key) = given.map_or_else(generate, Ok)?;
    let registry = Arc::clone(&manage.registry);
    let now = manage.ledger.now();
    let changed = update(&manage, caller, id, move |subscription| {
        may_change(&registry, caller, subscription)?;
        if_match.check(&shown(subscription))?;
        subscription.rotate(key, overlap, now);
        Ok(())
    });
    let subscription = changed.await?;
    let etag = Representation::of(&shown(&subscription))?.etag()?;
    let body = axum::Json(shown_with_secret(&subscription, secret));
    Ok(([(header::ETAG, etag)], body).into_response())
}

fn read_rotation(body: &Value) -> Result<(Option<(String, SigningKey)>, Duration), Problem> {
    let mut fields = Fields::of(body, &["SecretKey", "OverlapSeconds"], &[])?;
    let secret = fields.secret();
    let overlap = fields.seconds("OverlapSeconds", MAX_OVERLAP);
    fields.finish(Some((secret, overlap)))
}
