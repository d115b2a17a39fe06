//! Object types: what events are about. Enate's are always there; an operator registers others.

use crate::api::callers::Operator;
use crate::api::etag::{IfMatch, IfNoneMatch, PutConditions, Representation};
use crate::api::event_types::{Refusal, TypeName, conflict};
use crate::api::json::Json;
use crate::api::paging::{List, PageParams, Paging};
use crate::api::path::At;
use crate::api::query::Query;
use crate::api::refusals::{BodyAnswers, Conflict, Forbidden, Malformed, Missing, SharedAnswers};
use crate::{Manage, ledger_away};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use herald_access::Caller;
use herald_access::problem::Problem;
use herald_domain::catalogue::{ObjectType, ObjectTypeSpec, read_object_type};
use herald_ledger::catalogue::Conflict as TypeConflict;
use serde::Serialize;
use utoipa::ToSchema;

/// A kind of object.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ObjectTypeView {
    /// As in an event's `Objects`.
    #[schema(example = "Ticket")]
    name: String,
    /// As in `FilterObjectType`.
    #[schema(example = 1001)]
    number: i16,
    /// It came with Herald, and cannot be changed.
    built_in: bool,
}

/// An object type to be registered.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "PascalCase", example = json!({"Number": 1001}))]
#[expect(dead_code, reason = "describes what read_object_type reads")]
pub(crate) struct ObjectTypeRequest {
    /// As in the path, or absent.
    name: Option<String>,
    /// From 1000; given by Herald where it is absent. It does not change.
    #[schema(minimum = 1000, maximum = 32767)]
    number: Option<i16>,
}

impl ObjectTypeView {
    fn of(name: &str, kind: ObjectType) -> Self {
        Self {
            name: name.to_owned(),
            number: kind.number(),
            built_in: kind.enate_name().is_some(),
        }
    }
}

/// List object types
///
/// The registered ones, the greatest number first, and behind them those that are built in.
#[utoipa::path(
    get, path = "/v1/object-types", operation_id = "list_object_types", tag = "Catalogue", security(("key" = [])),
    params(PageParams),
    responses((status = 200, description = "A page.", body = List<ObjectTypeView>), SharedAnswers, Malformed),
)]
pub(crate) async fn list(
    State(manage): State<Manage>,
    _caller: Caller,
    query: Query,
) -> Result<axum::Json<List<ObjectTypeView>>, Problem> {
    let paging = Paging::<i16>::only(query)?;
    let catalogue = manage.catalogue().await;
    let mut all = catalogue.registered_objects();
    all.extend(ObjectType::ENATE);
    all.retain(|(kind, _)| paging.before.is_none_or(|before| kind.number() < before));
    all.sort_unstable_by_key(|(kind, _)| std::cmp::Reverse(*kind));
    all.truncate(paging.ask());
    let page = List::page(all, paging.limit, |(kind, _)| kind.number());
    Ok(axum::Json(page.map(|(kind, name)| ObjectTypeView::of(name, kind))))
}

/// Look at an object type
#[utoipa::path(
    get, path = "/v1/object-types/{name}", operation_id = "get_object_type", tag = "Catalogue", security(("key" = [])),
    params(("name" = String, Path, description = "The type's name.", example = "Company")),
    responses((status = 200, description = "The type.", body = ObjectTypeView), SharedAnswers, Missing),
)]
pub(crate) async fn show(
    State(manage): State<Manage>,
    _caller: Caller,
    At(TypeName(name)): At<TypeName>,
    if_none_match: IfNoneMatch,
) -> Result<Response, Problem> {
    let kind = manage.catalogue().await.object_type(&name);
    let kind = kind.ok_or_else(|| Problem::not_found("object type"))?;
    Representation::of(&ObjectTypeView::of(&name, kind))?.unless(&if_none_match)
}

/// Register an object type
///
/// Events may then name an object of it in `Objects`, subscriptions to event types filter by it, and permissions be given
/// on it.
#[utoipa::path(
    put, path = "/v1/object-types/{name}", operation_id = "put_object_type", tag = "Catalogue", security(("key" = [])),
    params(("name" = String, Path, pattern = "^[A-Za-z][A-Za-z0-9._-]{0,99}$",
        description = "A letter, and up to 99 letters, digits, dots, hyphens and underscores.")),
    request_body = ObjectTypeRequest,
    responses(
        (status = 200, description = "It was there.", body = ObjectTypeView),
        (status = 201, description = "It is new.", body = ObjectTypeView,
            headers(("Location" = String, description = "Its address."))),
        SharedAnswers, Forbidden, Conflict, Malformed, BodyAnswers,
    ),
)]
pub(crate) async fn put(
    State(manage): State<Manage>,
    Operator(by): Operator,
    At(TypeName(name)): At<TypeName>,
    conditions: PutConditions,
    mut query: Query,
    Json(body): Json,
) -> Result<Response, Problem> {
    query.only(&[]);
    query.finish(())?;
    if ObjectType::enate_named(&name).is_some() {
        return Err(conflict(&name, TypeConflict::BuiltIn));
    }
    let kind = read_object_type(&name, &body).map_err(Problem::faults)?;
    let check = move |present: Option<&ObjectTypeSpec>| -> Result<(), Refusal> {
        let present = present.map(registered);
        conditions.check(present.as_ref())?;
        Ok(())
    };
    let put = manage
        .ledger
        .put_object_type(name.clone(), kind, by.account(), check)
        .await;
    let (spec, is_new) = put.map_err(ledger_away)?.map_err(|refusal| refusal.told(&name))?;
    manage.refresh().await;
    let body = Representation::of(&registered(&spec))?;
    if !is_new {
        return body.answer();
    }
    let location = format!("/v1/object-types/{name}");
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], body.answer()?).into_response())
}

/// Delete an object type
#[utoipa::path(
    delete, path = "/v1/object-types/{name}", operation_id = "delete_object_type", tag = "Catalogue",
    security(("key" = [])),
    params(("name" = String, Path, description = "The type's name.")),
    responses((status = 204, description = "It is gone."), SharedAnswers, Forbidden, Missing, Conflict, Malformed),
)]
pub(crate) async fn remove(
    State(manage): State<Manage>,
    Operator(by): Operator,
    At(TypeName(name)): At<TypeName>,
    if_match: IfMatch,
    mut query: Query,
) -> Result<StatusCode, Problem> {
    query.only(&[]);
    query.finish(())?;
    if ObjectType::enate_named(&name).is_some() {
        return Err(conflict(&name, TypeConflict::BuiltIn));
    }
    let check = move |present: &ObjectTypeSpec| -> Result<(), Refusal> {
        if_match.check(&registered(present))?;
        Ok(())
    };
    let deleted = manage
        .ledger
        .delete_object_type(name.clone(), by.account(), check)
        .await;
    deleted
        .map_err(ledger_away)?
        .ok_or_else(|| Problem::not_found("object type"))?
        .map_err(|refusal| refusal.told(&name))?;
    manage.refresh().await;
    Ok(StatusCode::NO_CONTENT)
}

fn registered(spec: &ObjectTypeSpec) -> ObjectTypeView {
    ObjectTypeView::of(&spec.name, spec.kind)
}
