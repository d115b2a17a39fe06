//! Event types: what may happen. Some come with Herald; an operator registers others.

use crate::api::callers::Operator;
use crate::api::etag::{IfMatch, IfNoneMatch, PutConditions, Representation};
use crate::api::json::Json;
use crate::api::paging::{List, PageParams, Paging};
use crate::api::path::{Addressed, At};
use crate::api::query::Query;
use crate::api::refusals::{BodyAnswers, Conflict, Forbidden, Malformed, Missing, SharedAnswers};
use crate::{Manage, ledger_away};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use herald_access::Caller;
use herald_access::problem::Problem;
use herald_domain::catalogue::{
    Catalogue, EnateEvent, EventType, EventTypeDraft, EventTypeSpec, ObjectRule, RegisteredType, read_event_type,
};
use herald_domain::problem::{Fault, Faults};
use herald_domain::time::Timestamp;
use herald_ledger::catalogue::{Conflict as TypeConflict, StoredEvent};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use std::convert::Infallible;
use std::str::FromStr;
use std::sync::Arc;
use utoipa::ToSchema;

/// How many bytes of schemas and examples a page of the list has, before it ends early.
const PAGE_BYTES: usize = 4 << 20;

/// How many stored events a dry run looks at, and how many bytes of them.
const CHECKED: usize = 1000;
const CHECKED_BYTES: usize = 32 << 20;

/// How many failing events a dry run shows.
const SAMPLES: usize = 10;

/// A kind of event.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct EventTypeView {
    /// As in an event's `Type`.
    #[schema(example = "InvoicePaid")]
    name: String,
    /// What it is, for people.
    #[schema(required)]
    description: Option<String>,
    /// The object types of which each event names one object; it may name others too.
    #[schema(example = json!(["Company"]))]
    objects: Vec<String>,
    /// The JSON Schema (draft 2020-12) of `Data`; null for any object. Enate's events have rules of their own, which
    /// `/v1/webhooks` lists.
    #[schema(required, value_type = Option<Object>)]
    schema: Option<Box<RawValue>>,
    /// A `Data` by its rules.
    #[schema(required, value_type = Option<Object>)]
    example: Option<Value>,
    /// Its events are accepted, and no new subscriptions to it.
    archived: bool,
    /// It came with Herald, and cannot be changed.
    built_in: bool,
    /// When it was registered; null where it is built in.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    created_at: Option<Timestamp>,
    /// When it was last changed; null where it is built in.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    updated_at: Option<Timestamp>,
}

/// An event type to be registered. What `GET` gave is taken; `BuiltIn` and the times are passed over.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "PascalCase", example = json!({
    "Description": "An invoice was paid in full.", "Objects": ["Company"],
    "Schema": {"type": "object", "required": ["Number"], "properties": {"Number": {"type": "string"}}},
    "Example": {"Number": "2026-0117"}
}))]
#[expect(dead_code, reason = "describes what read_event_type reads")]
pub(crate) struct EventTypeRequest {
    /// As in the path, or absent.
    name: Option<String>,
    /// At most 2,000 characters.
    #[schema(max_length = 2000)]
    description: Option<String>,
    /// Names of object types, at most 20.
    #[schema(max_items = 20)]
    objects: Option<Vec<String>>,
    /// A JSON Schema (draft 2020-12) of at most 64 KiB. References lead to parts of it; nothing is fetched.
    #[schema(value_type = Option<Object>)]
    schema: Option<Value>,
    /// It must fit the schema.
    #[schema(value_type = Option<Object>)]
    example: Option<Value>,
    #[schema(default = false)]
    archived: Option<bool>,
}

/// What a schema would do to the events that are stored.
#[derive(Debug, Default, Serialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct DryRun {
    /// How many of the newest events were looked at: at most 1,000.
    checked: usize,
    /// How many of them do not fit.
    failing: usize,
    /// The newest ten of those.
    samples: Vec<Sample>,
}

/// A stored event that does not fit.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Sample {
    /// Its `Id`.
    #[serde(rename = "EventId")]
    #[schema(value_type = Uuid)]
    event_id: herald_domain::id::EventId,
    /// What does not fit.
    #[schema(value_type = Vec<Object>)]
    errors: Vec<Fault>,
}

/// What `PUT` answers.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes answers")]
pub(crate) enum PutAnswer {
    /// The type as it is now.
    Changed(EventTypeView),
    /// What the dry run found.
    Tried(DryRun),
}

/// The name in the path. What is no name is looked for in vain, or refused where it is to be registered.
#[derive(Debug, Clone)]
pub(crate) struct TypeName(pub(crate) String);

impl FromStr for TypeName {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

impl Addressed for TypeName {
    const PARAMETER: &str = "name";
    const WHAT: &str = "type";
}

/// List event types
///
/// Newest first, and Enate's last.
#[utoipa::path(
    get, path = "/v1/event-types", operation_id = "list_event_types", tag = "Catalogue", security(("key" = [])),
    params(PageParams),
    responses((status = 200, description = "A page.", body = List<EventTypeView>), SharedAnswers, Malformed),
)]
pub(crate) async fn list(
    State(manage): State<Manage>,
    _caller: Caller,
    query: Query,
) -> Result<axum::Json<List<EventTypeView>>, Problem> {
    let paging = Paging::<i16>::only(query)?;
    let catalogue = manage.catalogue().await;
    let mut kinds: Vec<EventType> = catalogue.all_registered().map(|spec| spec.kind.clone()).collect();
    kinds.extend(EnateEvent::ALL.map(EventType::Enate));
    kinds.retain(|kind| paging.before.is_none_or(|before| kind.code() < before));
    kinds.sort_unstable_by_key(|kind| std::cmp::Reverse(kind.code()));
    let (mut limit, mut bytes) = (0, 0);
    for kind in kinds.iter().take(paging.limit) {
        bytes += catalogue.registered(kind.name()).map_or(0, |spec| weight(spec));
        if limit > 0 && bytes > PAGE_BYTES {
            break;
        }
        limit += 1;
    }
    kinds.truncate(limit + 1);
    let page = List::page(kinds, limit, EventType::code);
    let items = page.items.iter().map(|kind| shown(kind, &catalogue));
    let items = items.collect::<Result<_, _>>()?;
    Ok(axum::Json(List {
        items,
        next_cursor: page.next_cursor,
    }))
}

fn weight(spec: &EventTypeSpec) -> usize {
    let schema = spec.draft.schema.as_ref().map_or(0, |schema| schema.text().len());
    schema
        + spec
            .draft
            .example
            .as_ref()
            .map_or(0, |example| example.to_string().len())
}

/// Look at an event type
#[utoipa::path(
    get, path = "/v1/event-types/{name}", operation_id = "get_event_type", tag = "Catalogue", security(("key" = [])),
    params(("name" = String, Path, description = "The type's name.", example = "PacketCreated")),
    responses((status = 200, description = "The type.", body = EventTypeView), SharedAnswers, Missing),
)]
pub(crate) async fn show(
    State(manage): State<Manage>,
    _caller: Caller,
    At(TypeName(name)): At<TypeName>,
    if_none_match: IfNoneMatch,
) -> Result<Response, Problem> {
    let catalogue = manage.catalogue().await;
    let kind = catalogue.event_type(&name);
    let kind = kind.ok_or_else(|| Problem::not_found("event type"))?;
    Representation::of(&shown(&kind, &catalogue)?)?.unless(&if_none_match)
}

/// Register an event type
///
/// Or change one. Every process goes by it at once. With `DryRun=true` nothing is changed: the answer says which of the
/// newest 1,000 stored events of the type would not fit the schema.
#[utoipa::path(
    put, path = "/v1/event-types/{name}", operation_id = "put_event_type", tag = "Catalogue", security(("key" = [])),
    params(
        ("name" = String, Path, pattern = "^[A-Za-z][A-Za-z0-9._-]{0,99}$",
            description = "A letter, and up to 99 letters, digits, dots, hyphens and underscores."),
        ("DryRun" = Option<bool>, Query,
            description = "Change nothing, and say what would not fit. Without a value it is 400."),
    ),
    request_body = EventTypeRequest,
    responses(
        (status = 200, description = "It was there and is changed; or what the dry run found.", body = PutAnswer),
        (status = 201, description = "It is new.", body = EventTypeView,
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
    query.only(&["DryRun"]);
    let dry_run = query.switch("DryRun");
    query.finish(())?;
    let catalogue = manage.catalogue().await;
    if is_built_in(&catalogue, &name) {
        return Err(conflict(&name, TypeConflict::BuiltIn));
    }
    let draft = read_event_type(&name, &body, &catalogue).map_err(Problem::faults)?;
    if dry_run {
        return Ok(axum::Json(try_out(&manage, &catalogue, &name, draft).await?).into_response());
    }
    let check = move |present: Option<&EventTypeSpec>| -> Result<(), Refusal> {
        let present = present.map(registered).transpose()?;
        conditions.check(present.as_ref())?;
        Ok(())
    };
    let put = manage
        .ledger
        .put_event_type(name.clone(), draft, by.account(), check)
        .await;
    let (spec, is_new) = put.map_err(ledger_away)?.map_err(|refusal| refusal.told(&name))?;
    manage.refresh().await;
    let body = Representation::of(&registered(&spec)?)?;
    if !is_new {
        return body.answer();
    }
    let location = format!("/v1/event-types/{name}");
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], body.answer()?).into_response())
}

/// Delete an event type
///
/// Its events stay, and their deliveries go on. The name may be registered again.
#[utoipa::path(
    delete, path = "/v1/event-types/{name}", operation_id = "delete_event_type", tag = "Catalogue",
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
    let catalogue = manage.catalogue().await;
    if is_built_in(&catalogue, &name) {
        return Err(conflict(&name, TypeConflict::BuiltIn));
    }
    let check = move |present: &EventTypeSpec| -> Result<(), Refusal> {
        if_match.check(&registered(present)?)?;
        Ok(())
    };
    let deleted = manage.ledger.delete_event_type(name.clone(), by.account(), check).await;
    deleted
        .map_err(ledger_away)?
        .ok_or_else(|| Problem::not_found("event type"))?
        .map_err(|refusal| refusal.told(&name))?;
    manage.refresh().await;
    Ok(StatusCode::NO_CONTENT)
}

fn is_built_in(catalogue: &Catalogue, name: &str) -> bool {
    EnateEvent::named(name).is_some() || catalogue.registered(name).is_some_and(|spec| spec.built_in)
}

/// Why a type is not registered, changed or deleted.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// By what is in the catalogue.
    Conflict(TypeConflict),
    /// By the conditions of the request.
    Condition(Problem),
}

impl Refusal {
    /// The answer.
    pub(crate) fn told(self, name: &str) -> Problem {
        match self {
            Self::Conflict(why) => conflict(name, why),
            Self::Condition(problem) => problem,
        }
    }
}

impl From<TypeConflict> for Refusal {
    fn from(conflict: TypeConflict) -> Self {
        Self::Conflict(conflict)
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self::Condition(problem)
    }
}

/// Why the catalogue is not changed, in words.
pub(crate) fn conflict(name: &str, conflict: TypeConflict) -> Problem {
    Problem::conflict(match conflict {
        TypeConflict::BuiltIn => {
            format!("{name} came with Herald and cannot be changed; register a type of another name")
        }
        TypeConflict::Subscribed => format!("a subscription names {name}; change or delete the subscription first"),
        TypeConflict::Asked(kind) => {
            format!("the event type {kind} asks for objects of the type {name}; change that first")
        }
        TypeConflict::Numbered(number) => format!("{name} has the number {number}, which it keeps; leave Number out"),
        TypeConflict::Taken(other) => {
            format!("that Number is, or was, that of {other}; leave Number out to be given one")
        }
        TypeConflict::Unknown(object) => format!("there is no object type {object} any more; register it first"),
        TypeConflict::Full(most) => {
            format!("there are {most} already, which is as many as may be registered; delete one that is not needed")
        }
        TypeConflict::Spent => {
            "every number was given already, also to what was deleted since; register something under a name that was \
             deleted, which has its number still"
                .to_owned()
        }
    })
}

/// Which of the newest stored events would not fit.
async fn try_out(manage: &Manage, catalogue: &Catalogue, name: &str, draft: EventTypeDraft) -> Result<DryRun, Problem> {
    let mut found = DryRun::default();
    let Some(kind) = catalogue.former_event_type(name) else {
        return Ok(found);
    };
    let draft = Arc::new(draft);
    let (mut before, mut bytes) = (None, 0);
    while found.checked < CHECKED && bytes < CHECKED_BYTES {
        let page = manage.ledger.newest_events(&kind, before).await.map_err(ledger_away)?;
        let Some(last) = page.last() else { break };
        before = Some(last.uid);
        bytes += page.iter().map(|event| event.data.len()).sum::<usize>();
        let draft = Arc::clone(&draft);
        // Large events take a while, and requests of others are on this thread.
        let judged = tokio::task::spawn_blocking(move || {
            let judge = |event: &StoredEvent| {
                let mut faults = Faults::default();
                for name in draft.objects.iter().filter(|name| event.objects.get(name).is_none()) {
                    faults.add(
                        format!("/Objects/{name}"),
                        "required",
                        format!("the event names no {name}"),
                    );
                }
                draft.check_data(&event.data, "/Data", &mut faults);
                faults
            };
            page.iter().map(|event| (event.id, judge(event))).collect::<Vec<_>>()
        });
        for (event_id, faults) in judged.await.map_err(|error| Problem::unavailable("dry run", &error))? {
            if found.checked == CHECKED {
                break;
            }
            found.checked += 1;
            if faults.count() > 0 {
                found.failing += 1;
                if found.samples.len() < SAMPLES {
                    let errors = faults.into_listed();
                    found.samples.push(Sample { event_id, errors });
                }
            }
        }
    }
    Ok(found)
}

fn shown(kind: &EventType, catalogue: &Catalogue) -> Result<EventTypeView, Problem> {
    match kind {
        EventType::Enate(event) => Ok(enate(*event)),
        EventType::Registered(kind) => match catalogue.registered(&kind.name) {
            Some(spec) => registered(spec),
            None => Err(gone(kind)),
        },
    }
}

fn gone(kind: &RegisteredType) -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        format!("the event type {} was deleted", kind.name),
    )
}

fn enate(event: EnateEvent) -> EventTypeView {
    let (objects, more) = match event.objects() {
        ObjectRule::All(names) => (names, String::new()),
        ObjectRule::ExactlyOne(names) => (&[][..], format!(" It names exactly one of {}.", names.join(" and "))),
    };
    EventTypeView {
        name: event.name().to_owned(),
        description: Some(format!("{}{more}", event.description())),
        objects: objects.iter().map(|name| (*name).to_owned()).collect(),
        schema: None,
        example: serde_json::from_str(event.example()).ok(),
        archived: false,
        built_in: true,
        created_at: None,
        updated_at: None,
    }
}

fn registered(spec: &EventTypeSpec) -> Result<EventTypeView, Problem> {
    let draft = &spec.draft;
    let schema = draft.schema.as_ref().map(|schema| raw(schema.text().to_owned()));
    Ok(EventTypeView {
        name: spec.kind.name().to_owned(),
        description: draft.description.clone(),
        objects: draft.objects.iter().map(ToString::to_string).collect(),
        schema: schema.transpose()?,
        example: draft.example.clone(),
        archived: draft.archived,
        built_in: spec.built_in,
        created_at: Some(spec.created_at).filter(|_| !spec.built_in),
        updated_at: Some(spec.updated_at).filter(|_| !spec.built_in),
    })
}

fn raw(json: String) -> Result<Box<RawValue>, Problem> {
    RawValue::from_string(json).map_err(|error| Problem::unavailable("catalogue", &error))
}
