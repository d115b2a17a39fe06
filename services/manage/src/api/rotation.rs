//! New secrets for subscriptions.

use crate::Manage;
use crate::api::callers::Builder;
use crate::api::etag::{IfMatch, Representation};
use crate::api::fields::Fields;
use crate::api::json::OptionalJson;
use crate::api::path::At;
use crate::api::refusals::{BodyAnswers, Forbidden, Malformed, Missing, SharedAnswers};
use crate::api::schemas;
use crate::api::subscriptions::{shown, shown_with_secret};
use crate::operations::subscriptions::{self, Secret};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use herald_access::problem::Problem;
use herald_domain::id::SubscriptionId;
use herald_domain::subscription::{MAX_OVERLAP, Subscription};
use serde_json::Value;
use std::time::Duration;

/// Give a subscription a new secret
///
/// The one given, or 32 random bytes. Every attempt from now on is signed with it, also of messages
/// that are waiting to be sent again. For `OverlapSeconds` the former secret signs as well:
/// `webhook-signature` has both signatures, the new one first, and a receiver that knows either secret
/// verifies. Without it a receiver has to know the new secret before, or refuses messages until it does.
/// Where `Signatures` has `v1a`, a new `PublicKey` replaces the former one in the same way.
#[utoipa::path(
    post, path = "/v1/subscriptions/{guid}/rotate-secret", operation_id = "rotate_subscription_secret",
    tag = "Subscriptions", security(("key" = [])),
    params(("guid" = uuid::Uuid, Path, description = "The subscription's `GUID`.")),
    request_body = Option<schemas::NewSecret>,
    responses(
        (status = 200, description = "The subscription with its new secret.", body = schemas::SubscriptionWithSecret),
        SharedAnswers, Forbidden, Missing, Malformed, BodyAnswers,
    ),
)]
pub(crate) async fn rotate_secret(
    State(manage): State<Manage>,
    Builder(caller): Builder,
    At(id): At<SubscriptionId>,
    if_match: IfMatch,
    OptionalJson(body): OptionalJson,
) -> Result<Response, Problem> {
    let given = body.as_ref().map_or(Ok((None, Duration::ZERO)), read_rotation)?;
    let check = move |present: &Subscription| if_match.check(&shown(present));
    let (subscription, secret) = subscriptions::rotate(&manage, caller, id, check, given).await?;
    let etag = Representation::of(&shown(&subscription))?.etag()?;
    let body = axum::Json(shown_with_secret(&subscription, secret));
    Ok(([(header::ETAG, etag)], body).into_response())
}

fn read_rotation(body: &Value) -> Result<(Option<Secret>, Duration), Problem> {
    let mut fields = Fields::of(body, &["SecretKey", "OverlapSeconds"], &[])?;
    let secret = fields.secret();
    let overlap = fields.seconds("OverlapSeconds", MAX_OVERLAP);
    fields.finish(Some((secret, overlap)))
}
