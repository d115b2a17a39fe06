//! Accounts, for operators.

use crate::api::callers::Operator;
use crate::api::etag::{IfMatch, IfNoneMatch, Representation};
use crate::api::fields::Fields;
use crate::api::grants::GrantJson;
use crate::api::json::Json;
use crate::api::keys::{Key, role_names};
use crate::api::paging::{List, PageParams, Paging};
use crate::api::path::At;
use crate::api::query::Query;
use crate::api::refusals::{BodyAnswers, Conflict, Forbidden, Malformed, Missing, SharedAnswers};
use crate::api::schemas::RoleName;
use crate::operations::accounts as operations;
use crate::{Manage, fresh_id};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use herald_access::problem::Problem;
use herald_domain::access::{Account as Record, Role, Roles};
use herald_domain::id::AccountId;
use herald_domain::problem::{Faults, pointer_to};
use herald_domain::subscription::merge_patch;
use herald_domain::time::Timestamp;
use herald_ledger::accounts::AccountRecord;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

/// Who publishes or subscribes.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Account {
    #[schema(value_type = Uuid)]
    id: AccountId,
    #[schema(example = "Human resources")]
    name: String,
    /// What its keys may do at most.
    #[schema(value_type = Vec<RoleName>, example = json!(["Producer", "ProcessBuilder"]))]
    roles: Vec<&'static str>,
    /// An inactive account's keys are refused, and nothing is sent for its subscriptions.
    active: bool,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
}

/// An account with its keys and grants.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct AccountWithAll {
    #[serde(flatten)]
    account: Account,
    /// Newest first.
    keys: Vec<Key>,
    grants: Vec<GrantJson>,
}

/// An account to be made.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "PascalCase", example = json!({"Name": "Human resources", "Roles": ["Producer", "ProcessBuilder"]}))]
#[expect(dead_code, reason = "describes what read reads")]
pub(crate) struct AccountRequest {
    /// 1 to 100 characters.
    #[schema(min_length = 1, max_length = 100)]
    name: String,
    /// `Producer` and `ProcessBuilder` where it is absent.
    #[schema(value_type = Option<Vec<RoleName>>)]
    roles: Option<Vec<String>>,
    #[schema(default = true)]
    active: Option<bool>,
}

/// Fields of an account to change.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "PascalCase", example = json!({"Active": false}))]
#[expect(dead_code, reason = "describes what read reads")]
pub(crate) struct AccountPatch {
    #[schema(value_type = String, required = false, min_length = 1, max_length = 100)]
    name: Option<String>,
    /// All of them: those that are left out here are taken away.
    #[schema(value_type = Vec<RoleName>, required = false)]
    roles: Option<Vec<String>>,
    #[schema(value_type = bool, required = false)]
    active: Option<bool>,
}

/// Create an account
///
/// It has no key and no grant yet.
#[utoipa::path(
    post, path = "/v1/accounts", operation_id = "create_account", tag = "Accounts", security(("key" = [])),
    request_body = AccountRequest,
    responses(
        (status = 201, description = "It is there.", body = Account,
            headers(("Location" = String, description = "Its address."))),
        SharedAnswers, Forbidden, Malformed, BodyAnswers,
    ),
)]
pub(crate) async fn create(
    State(manage): State<Manage>,
    Operator(by): Operator,
    Json(body): Json,
) -> Result<Response, Problem> {
    let account = read(AccountId(fresh_id()), &body, None)?;
    let created_at = operations::create(&manage, by, account.clone()).await?;
    let location = format!("/v1/accounts/{}", account.id);
    let body = axum::Json(shown(account, created_at));
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], body).into_response())
}

/// List accounts
///
/// The operator's own comes first, then the newest.
#[utoipa::path(
    get, path = "/v1/accounts", operation_id = "list_accounts", tag = "Accounts", security(("key" = [])),
    params(PageParams),
    responses((status = 200, description = "A page.", body = List<Account>), SharedAnswers, Forbidden, Malformed),
)]
pub(crate) async fn list(
    State(manage): State<Manage>,
    _operator: Operator,
    query: Query,
) -> Result<axum::Json<List<Account>>, Problem> {
    let paging = Paging::only(query)?;
    let found = operations::list(&manage, paging.before, paging.ask()).await?;
    let page = List::page(found, paging.limit, |record| record.account.id);
    Ok(axum::Json(page.map(|record| shown(record.account, record.created_at))))
}

/// Look at an account
#[utoipa::path(
    get, path = "/v1/accounts/{id}", operation_id = "get_account", tag = "Accounts", security(("key" = [])),
    params(("id" = Uuid, Path, description = "The account's `Id`.")),
    responses(
        (status = 200, description = "The account with its keys and grants.", body = AccountWithAll),
        SharedAnswers, Forbidden, Missing,
    ),
)]
pub(crate) async fn show(
    State(manage): State<Manage>,
    _operator: Operator,
    At(id): At<AccountId>,
    if_none_match: IfNoneMatch,
) -> Result<Response, Problem> {
    let record = operations::find(&manage, id).await?;
    Representation::of(&with_all(record))?.unless(&if_none_match)
}

/// Change an account
///
/// A JSON merge patch (RFC 7396), in which no field may be null: what is left out stays as it is. The operator's own
/// account stays active and an operator's.
#[utoipa::path(
    patch, path = "/v1/accounts/{id}", operation_id = "change_account", tag = "Accounts", security(("key" = [])),
    params(("id" = Uuid, Path, description = "The account's `Id`.")),
    request_body(content((AccountPatch = "application/merge-patch+json"))),
    responses(
        (status = 200, description = "The account as it is now.", body = AccountWithAll),
        SharedAnswers, Forbidden, Missing, Conflict, Malformed, BodyAnswers,
    ),
)]
pub(crate) async fn patch(
    State(manage): State<Manage>,
    Operator(by): Operator,
    At(id): At<AccountId>,
    if_match: IfMatch,
    Json(body): Json,
) -> Result<Response, Problem> {
    let changed = operations::set(&manage, by, id, move |present| {
        if_match.check(&with_all(present.clone()))?;
        refuse_nulls(&body)?;
        let mut merged = json!({
            "Name": present.account.name,
            "Roles": role_names(present.account.roles),
            "Active": present.account.active,
        });
        merge_patch(&mut merged, &body);
        read(id, &merged, Some(&present.account.name))
    });
    Representation::of(&with_all(changed.await?))?.answer()
}

/// Refuses null for a field, which would give it its default: a role that was taken away, or the activity.
fn refuse_nulls(patch: &Value) -> Result<(), Problem> {
    let mut faults = Faults::default();
    for name in ["Name", "Roles", "Active"] {
        if patch.get(name).is_some_and(Value::is_null) {
            let detail = format!("{name} may not be null; leave it out to keep it, or give its new value");
            faults.add(pointer_to(name), "required", detail);
        }
    }
    faults.into_result(()).map_err(Problem::faults)
}

/// Reads an account; of one that there is, its `present` name is not judged again.
fn read(id: AccountId, body: &Value, present: Option<&str>) -> Result<Record, Problem> {
    let mut fields = Fields::of(
        body,
        &["Name", "Roles", "Active"],
        &["Id", "CreatedAt", "Keys", "Grants"],
    )?;
    let name = fields.name(present);
    let roles = fields.roles(Roles::NONE.with(Role::Producer).with(Role::ProcessBuilder));
    let active = fields.active();
    fields.finish(name.map(|name| Record {
        id,
        name,
        active,
        roles,
        grants: Vec::new(),
    }))
}

fn shown(account: Record, created_at: Timestamp) -> Account {
    let roles = role_names(account.roles);
    Account {
        id: account.id,
        name: account.name,
        roles,
        active: account.active,
        created_at,
    }
}

fn with_all(record: AccountRecord) -> AccountWithAll {
    let keys = record.keys.into_iter().map(Key::from).collect();
    let grants = record.account.grants.iter().copied().map(GrantJson::from).collect();
    AccountWithAll {
        account: shown(record.account, record.created_at),
        keys,
        grants,
    }
}
