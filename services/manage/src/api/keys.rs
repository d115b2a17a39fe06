//! An account's API keys, for operators.

use crate::Manage;
use crate::api::callers::Operator;
use crate::api::etag::{IfMatch, IfNoneMatch, Representation};
use crate::api::fields::Fields;
use crate::api::json::OptionalJson;
use crate::api::paging::List;
use crate::api::path::At;
use crate::api::refusals::{BodyAnswers, Forbidden, Malformed, Missing, SharedAnswers};
use crate::api::schemas::RoleName;
use crate::operations::accounts as operations;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use herald_access::problem::Problem;
use herald_domain::access::{Role, Roles};
use herald_domain::id::{AccountId, KeyId};
use herald_domain::time::Timestamp;
use herald_ledger::accounts::{AccountRecord, ApiKey};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

/// An API key, without what is secret.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Key {
    #[schema(value_type = Uuid)]
    id: KeyId,
    /// A name for people.
    #[schema(required)]
    name: Option<String>,
    /// What it may do, if its account may too.
    #[schema(value_type = Vec<RoleName>, example = json!(["Producer"]))]
    roles: Vec<&'static str>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
}

/// A key that was just made.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct NewKey {
    #[serde(flatten)]
    key: Key,
    /// The key itself, for `Authorization: Bearer`. No other answer shows it; only its hash is kept.
    #[serde(rename = "Key")]
    #[schema(example = "herald_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8")]
    secret: String,
}

/// A key to be made.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "PascalCase", example = json!({"Name": "Ticket system", "Roles": ["Producer"]}))]
#[expect(dead_code, reason = "describes what read reads")]
pub(crate) struct KeyRequest {
    /// 1 to 100 characters.
    name: Option<String>,
    /// The account's where it is absent.
    #[schema(value_type = Option<Vec<RoleName>>)]
    roles: Option<Vec<String>>,
}

/// Create a key
///
/// It works as soon as it is shown, which is here and nowhere else.
#[utoipa::path(
    post, path = "/v1/accounts/{id}/keys", operation_id = "create_key", tag = "Accounts", security(("key" = [])),
    params(("id" = Uuid, Path, description = "The account's `Id`.")),
    request_body = Option<KeyRequest>,
    responses(
        (status = 201, description = "The key.", body = NewKey),
        SharedAnswers, Forbidden, Missing, Malformed, BodyAnswers,
    ),
)]
pub(crate) async fn create(
    State(manage): State<Manage>,
    Operator(by): Operator,
    At(account): At<AccountId>,
    if_match: IfMatch,
    OptionalJson(body): OptionalJson,
) -> Result<(StatusCode, Json<NewKey>), Problem> {
    let made = operations::add_key(&manage, by, account, move |present| {
        if_match.check(&listed(present))?;
        read(&body.unwrap_or_else(|| json!({})), present.account.roles)
    });
    let (key, secret) = made.await?;
    let key = key.into();
    Ok((StatusCode::CREATED, Json(NewKey { key, secret })))
}

/// List keys
///
/// All on one page, newest first.
#[utoipa::path(
    get, path = "/v1/accounts/{id}/keys", operation_id = "list_keys", tag = "Accounts", security(("key" = [])),
    params(("id" = Uuid, Path, description = "The account's `Id`.")),
    responses((status = 200, description = "Every key.", body = List<Key>), SharedAnswers, Forbidden, Missing),
)]
pub(crate) async fn list(
    State(manage): State<Manage>,
    _operator: Operator,
    At(account): At<AccountId>,
    if_none_match: IfNoneMatch,
) -> Result<Response, Problem> {
    let record = operations::find(&manage, account).await?;
    Representation::of(&listed(&record))?.unless(&if_none_match)
}

/// Look at a key
#[utoipa::path(
    get, path = "/v1/accounts/{id}/keys/{keyId}", operation_id = "get_key",
    tag = "Accounts", security(("key" = [])),
    params(
        ("id" = Uuid, Path, description = "The account's `Id`."),
        ("keyId" = Uuid, Path, description = "The key's `Id`."),
    ),
    responses((status = 200, description = "The key, without what is secret.", body = Key), SharedAnswers, Forbidden, Missing),
)]
pub(crate) async fn show(
    State(manage): State<Manage>,
    _operator: Operator,
    At(account): At<AccountId>,
    At(id): At<KeyId>,
    if_none_match: IfNoneMatch,
) -> Result<Response, Problem> {
    let record = operations::find(&manage, account).await?;
    Representation::of(&shown(operations::key(&record, id)?))?.unless(&if_none_match)
}

/// Delete a key
///
/// It stops working at once.
#[utoipa::path(
    delete, path = "/v1/accounts/{id}/keys/{keyId}", operation_id = "delete_key",
    tag = "Accounts", security(("key" = [])),
    params(
        ("id" = Uuid, Path, description = "The account's `Id`."),
        ("keyId" = Uuid, Path, description = "The key's `Id`."),
    ),
    responses((status = 204, description = "It is gone."), SharedAnswers, Forbidden, Missing),
)]
pub(crate) async fn remove(
    State(manage): State<Manage>,
    Operator(by): Operator,
    At(account): At<AccountId>,
    At(id): At<KeyId>,
    if_match: IfMatch,
) -> Result<StatusCode, Problem> {
    let check = move |present: &ApiKey| if_match.check(&shown(present));
    operations::remove_key(&manage, by, account, id, check).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The names of roles, as they are shown.
pub(crate) fn role_names(roles: Roles) -> Vec<&'static str> {
    roles.iter().map(Role::name).collect()
}

fn listed(record: &AccountRecord) -> List<Key> {
    List::whole(record.keys.clone()).map(Key::from)
}

fn shown(key: &ApiKey) -> Key {
    key.clone().into()
}

fn read(body: &Value, default: Roles) -> Result<(Option<String>, Roles), Problem> {
    let mut fields = Fields::of(body, &["Name", "Roles"], &[])?;
    let name = fields.optional_name();
    let roles = fields.roles(default);
    fields.finish(Some((name, roles)))
}

impl From<ApiKey> for Key {
    fn from(key: ApiKey) -> Self {
        Self {
            id: key.id,
            name: key.name,
            roles: role_names(key.roles),
            created_at: key.created_at,
        }
    }
}
