//! What an account's subscriptions may filter by, for operators.

use crate::Manage;
use crate::api::callers::Operator;
use crate::api::etag::{IfMatch, IfNoneMatch, Representation};
use crate::api::fields::Fields;
use crate::api::json::{Json, OptionalJson};
use crate::api::paging::List;
use crate::api::path::At;
use crate::api::query::Query;
use crate::api::refusals::{BodyAnswers, Forbidden, Malformed, Missing, SharedAnswers};
use crate::api::schemas;
use crate::operations::accounts as operations;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use herald_access::problem::Problem;
use herald_domain::access::Grant;
use herald_domain::catalogue::ObjectType;
use herald_domain::id::{AccountId, ObjectGuid};
use herald_ledger::accounts::AccountRecord;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use uuid::Uuid;

/// Permission on one object, or on every object of a type.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
#[schema(as = Grant)]
pub(crate) struct GrantJson {
    /// The number of the object type.
    #[schema(example = 31)]
    object_type: i16,
    /// Null for every object of the type.
    #[serde(rename = "ObjectGUID")]
    #[schema(required, value_type = Option<Uuid>)]
    object_guid: Option<ObjectGuid>,
}

/// A permission to give or to take.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "PascalCase", example = json!({"ObjectType": "Company", "ObjectGUID": "6a1f0f5e-55a5-4f0c-9c39-0d5e2e0c1a01"}))]
#[expect(dead_code, reason = "describes what read reads")]
pub(crate) struct GrantRequest {
    #[schema(value_type = schemas::ObjectTypeInput)]
    object_type: i16,
    /// Absent, null, `""` or all zeros for every object of the type.
    #[schema(rename = "ObjectGUID")]
    object_guid: Option<Uuid>,
}

/// The same as query parameters, for clients that cannot send a body with DELETE.
#[derive(Debug, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes what remove reads")]
pub(crate) struct GrantParams {
    /// Number or name.
    #[param(rename = "ObjectType")]
    object_type: Option<String>,
    /// Absent for the permission on every object of the type.
    #[param(rename = "ObjectGUID")]
    object_guid: Option<String>,
}

/// Give a permission
///
/// Giving it twice is giving it once.
#[utoipa::path(
    post, path = "/v1/accounts/{id}/grants", operation_id = "create_grant", tag = "Accounts", security(("key" = [])),
    params(("id" = Uuid, Path, description = "The account's `Id`.")),
    request_body = GrantRequest,
    responses(
        (status = 201, description = "The account has it.", body = GrantJson),
        SharedAnswers, Forbidden, Missing, Malformed, BodyAnswers,
    ),
)]
pub(crate) async fn create(
    State(manage): State<Manage>,
    Operator(by): Operator,
    At(account): At<AccountId>,
    if_match: IfMatch,
    Json(body): Json,
) -> Result<(StatusCode, axum::Json<GrantJson>), Problem> {
    let catalogue = manage.catalogue().await;
    let grant = read(&body, |fields| fields.object_type(&catalogue))?;
    let check = move |present: &AccountRecord| if_match.check(&listed(present));
    operations::add_grant(&manage, by, account, grant, check).await?;
    Ok((StatusCode::CREATED, axum::Json(grant.into())))
}

/// List permissions
///
/// All on one page.
#[utoipa::path(
    get, path = "/v1/accounts/{id}/grants", operation_id = "list_grants", tag = "Accounts", security(("key" = [])),
    params(("id" = Uuid, Path, description = "The account's `Id`.")),
    responses((status = 200, description = "Every permission.", body = List<GrantJson>), SharedAnswers, Forbidden, Missing),
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

/// Take a permission
///
/// Named in the body or in the query. Open deliveries that needed it are refused when they are next
/// attempted. The object type may be deleted already: its permissions stay, and count again once it is registered
/// again, with the same number.
#[utoipa::path(
    delete, path = "/v1/accounts/{id}/grants", operation_id = "delete_grant", tag = "Accounts", security(("key" = [])),
    params(("id" = Uuid, Path, description = "The account's `Id`."), GrantParams),
    request_body = Option<GrantRequest>,
    responses(
        (status = 204, description = "The account has it no more."),
        SharedAnswers, Forbidden, Missing, Malformed, BodyAnswers,
    ),
)]
pub(crate) async fn remove(
    State(manage): State<Manage>,
    Operator(by): Operator,
    At(account): At<AccountId>,
    if_match: IfMatch,
    query: Query,
    OptionalJson(body): OptionalJson,
) -> Result<StatusCode, Problem> {
    let catalogue = manage.catalogue().await;
    let named = match body {
        Some(body) if query.is_empty() => body,
        Some(_) | None => named_in(query)?,
    };
    let grant = read(&named, |fields| fields.former_object_type(&catalogue))?;
    let check = move |present: &AccountRecord| if_match.check(&listed(present));
    operations::remove_grant(&manage, by, account, grant, check).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn listed(record: &AccountRecord) -> List<GrantJson> {
    List::whole(record.account.grants.clone()).map(GrantJson::from)
}

/// The body that the query parameters stand for.
fn named_in(mut query: Query) -> Result<Value, Problem> {
    query.only(&["ObjectType", "ObjectGUID"]);
    let mut fields = Map::new();
    if let Some(text) = query.get("ObjectType") {
        let number = text.parse::<i64>().map(Value::from);
        fields.insert("ObjectType".to_owned(), number.unwrap_or_else(|_name| text.into()));
    }
    if let Some(text) = query.get("ObjectGUID") {
        fields.insert("ObjectGUID".to_owned(), text.into());
    }
    query.finish(Value::Object(fields))
}

/// Reads a permission, on objects of the type that `object_type` reads.
fn read(body: &Value, object_type: impl FnOnce(&mut Fields<'_>) -> Option<ObjectType>) -> Result<Grant, Problem> {
    let mut fields = Fields::of(body, &["ObjectType", "ObjectGUID"], &[])?;
    let object_type = object_type(&mut fields);
    let object = fields.object();
    fields.finish(object_type.map(|object_type| Grant { object_type, object }))
}

impl From<Grant> for GrantJson {
    fn from(grant: Grant) -> Self {
        Self {
            object_type: grant.object_type.number(),
            object_guid: grant.object,
        }
    }
}
