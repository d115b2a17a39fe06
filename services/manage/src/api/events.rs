//! Events as they were recorded.

use crate::Manage;
use crate::api::deliveries::Delivery;
use crate::api::path::At;
use crate::api::refusals::{Missing, SharedAnswers};
use crate::operations::events;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use herald_access::Caller;
use herald_access::problem::Problem;
use herald_domain::id::EventId;
use herald_domain::time::Timestamp;
use herald_ledger::history::{DeliveryView, EventView};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

/// What happened, and what became of it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct RecordedEvent {
    /// As the producer gave it or was given it.
    #[schema(value_type = Uuid)]
    id: EventId,
    /// In whose scope the `Id` is unique: an account's id, or the AMQP user.
    account: String,
    #[schema(example = "PacketCreated")]
    r#type: String,
    /// When it happened, if the producer said.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    occurred_at: Option<Timestamp>,
    /// When it was accepted.
    #[schema(value_type = String, format = DateTime)]
    accepted_at: Timestamp,
    /// When it was recorded and matched.
    #[schema(value_type = String, format = DateTime)]
    recorded_at: Timestamp,
    /// The GUIDs of what it concerns.
    #[schema(value_type = Object, example = json!({"Packet": "6a1f0f5e-55a5-4f0c-9c39-0d5e2e0c1a05"}))]
    objects: Box<RawValue>,
    /// To the byte as it was accepted.
    #[schema(value_type = Object)]
    data: Box<RawValue>,
    /// How many subscriptions it matched, other accounts' included.
    matched_count: i64,
    /// The newest 500 of its deliveries that the caller sees: those to its own subscriptions, for an
    /// operator all. `/v1/deliveries?Event=` lists the rest.
    deliveries: Vec<Delivery>,
    /// Other accounts' events with the same `Id`, newest first; only for an operator, and only where
    /// there are any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(no_recursion)]
    others: Vec<Self>,
}

/// Look at an event
///
/// An account sees the events that it published; an operator sees all. An event that was accepted a
/// moment ago may still be in the queue.
#[utoipa::path(
    get, path = "/v1/events/{id}", operation_id = "get_event", tag = "Events", security(("key" = [])),
    params(("id" = Uuid, Path, description = "The event's `Id`.")),
    responses(
        (status = 200, description = "The event with its deliveries.", body = RecordedEvent),
        SharedAnswers, Missing,
    ),
)]
pub(crate) async fn show(
    State(manage): State<Manage>,
    caller: Caller,
    At(id): At<EventId>,
) -> Result<Json<RecordedEvent>, Problem> {
    let found = events::find(&manage, caller, id).await?;
    let shown: Vec<_> = found.into_iter().map(shown).collect::<Result<_, _>>()?;
    let mut shown = shown.into_iter();
    let Some(mut newest) = shown.next() else {
        let detail = "there is no such event; if it was accepted a moment ago, it may still be in the queue";
        return Err(Problem::new(StatusCode::NOT_FOUND, detail));
    };
    newest.others = shown.collect();
    Ok(Json(newest))
}

fn shown((view, deliveries): (EventView, Vec<DeliveryView>)) -> Result<RecordedEvent, Problem> {
    let raw = |json: String| RawValue::from_string(json).map_err(|error| Problem::unavailable("event", &error));
    Ok(RecordedEvent {
        id: view.id,
        account: view.account,
        r#type: view.kind.name().to_owned(),
        occurred_at: view.occurred_at,
        accepted_at: view.accepted_at,
        recorded_at: view.recorded_at,
        objects: raw(view.objects.to_json())?,
        data: raw(view.data)?,
        matched_count: view.matched_count,
        deliveries: deliveries.into_iter().map(Delivery::from).collect(),
        others: Vec::new(),
    })
}
