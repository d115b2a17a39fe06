//! An account's API keys, for operators.

use crate::accounts::{find, role_names};
use crate::callers::Operator;
use crate::fields::Fields;
use crate::json::OptionalJson;
use crate::openapi::{BodyRefused, Forbidden, Malformed, Missing, Refused};
use crate::paging::List;
use crate::path::At;
use crate::{Manage, fresh_id, ledger_away, secrets};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use herald_access::hash_key;
use herald_access::problem::Problem;
use herald_domain::access::Roles;
use herald_domain::id::{AccountId, KeyId};
use herald_domain::time::Timestamp;
use herald_ledger::accounts::ApiKey;
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
    #[schema(example = json!(["Producer"]))]
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
    /// `Producer`, `ProcessBuilder`, `Operator`; the account's where it is absent.
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
        Refused, Forbidden, Missing, Malformed, BodyRefused,
    ),
)]
pub(crate) async fn create(
    State(manage): State<Manage>,
    _operator: Operator,
    At(account): At<AccountId>,
    OptionalJson(body): OptionalJson,
) -> Result<(StatusCode, Json<NewKey>), Problem> {
    let record = find(&manage, account).await?;
    let (name, roles) = read(&body.unwrap_or_else(|| json!({})), record.account.roles)?;
    let secret = secrets::api_key(secrets::system)?;
    let key = ApiKey {
        id: KeyId(fresh_id()),
        account,
        name,
        hash: hash_key(&secret),
        roles,
        created_at: manage.ledger.now(),
    };
    if !manage.ledger.create_key(key.clone()).await.map_err(ledger_away)? {
        return Err(Problem::not_found("account"));
    }
    manage.refresh().await;
    Ok((
        StatusCode::CREATED,
        Json(NewKey {
            key: key.into(),
            secret,
        }),
    ))
}

/// List keys
///
/// All on one page, newest first.
#[utoipa::path(
    get, path = "/v1/accounts/{id}/keys", operation_id = "list_keys", tag = "Accounts", security(("key" = [])),
    params(("id" = Uuid, Path, description = "The account's `Id`.")),
    responses((status = 200, description = "Every key.", body = List<Key>), Refused, Forbidden, Missing),
)]
pub(crate) async fn list(
    State(manage): State<Manage>,
    _operator: Operator,
    At(account): At<AccountId>,
) -> Result<Json<List<Key>>, Problem> {
    let record = find(&manage, account).await?;
    Ok(Json(List::whole(record.keys).map(Key::from)))
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
    responses((status = 204, description = "It is gone."), Refused, Forbidden, Missing),
)]
pub(crate) async fn remove(
    State(manage): State<Manage>,
    _operator: Operator,
    At(account): At<AccountId>,
    At(key): At<KeyId>,
) -> Result<StatusCode, Problem> {
    let found = manage.ledger.delete_key(account, key).await.map_err(ledger_away)?;
    manage.refresh().await;
    if found {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Problem::not_found("key"))
    }
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
