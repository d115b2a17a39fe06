//! Deliveries: listed, read with their attempts, and retried.

use super::sight::Sight;
use super::subscriptions;
use crate::{Manage, ledger_away};
use axum::http::StatusCode;
use herald_access::Caller;
use herald_access::problem::Problem;
use herald_domain::delivery::{Closed, Status};
use herald_domain::id::{DeliveryId, EventId};
use herald_ledger::history::retrying::Retried;
use herald_ledger::history::{AttemptView, DeliveryFilter, DeliveryView};
use std::collections::HashMap;

/// The deliveries that the caller sees of those that are wanted, of the events of that `Id` if one is given; newest
/// first, at most `limit`.
pub(crate) async fn list(
    manage: &Manage,
    caller: Caller,
    wanted: DeliveryFilter,
    event: Option<EventId>,
    limit: usize,
) -> Result<Vec<DeliveryView>, Problem> {
    let mut wanted = DeliveryFilter {
        owner: Sight::of(caller).account(),
        ..wanted
    };
    if let Some(event) = event {
        let events = manage.ledger.events(event).await.map_err(ledger_away)?;
        wanted.events = Some(events.iter().map(|event| event.uid).collect());
    }
    manage.ledger.deliveries(&wanted, limit).await.map_err(ledger_away)
}

/// The attempts of deliveries, each one's in order.
pub(crate) async fn attempts(
    manage: &Manage,
    deliveries: &[DeliveryView],
) -> Result<HashMap<DeliveryId, Vec<AttemptView>>, Problem> {
    manage.ledger.attempts(deliveries).await.map_err(ledger_away)
}

/// The delivery, if the caller may see it.
pub(crate) async fn find(manage: &Manage, caller: Caller, id: DeliveryId) -> Result<DeliveryView, Problem> {
    let (sight, missing) = (Sight::of(caller), || Problem::not_found("delivery"));
    let view = manage
        .ledger
        .delivery(id)
        .await
        .map_err(ledger_away)?
        .ok_or_else(missing)?;
    if sight != Sight::Everything {
        let owner = manage
            .ledger
            .subscription_owner(view.subscription)
            .await
            .map_err(ledger_away)?;
        owner.filter(|owner| sight.includes(*owner)).ok_or_else(missing)?;
    }
    Ok(view)
}

/// Opens a delivery again that has ended without success; it, as it is then.
pub(crate) async fn retry(manage: &Manage, caller: Caller, id: DeliveryId) -> Result<DeliveryView, Problem> {
    let delivery = find(manage, caller, id).await?;
    if delivery.status == Status::Closed(Closed::Refused) {
        // Else it would be refused again at once.
        let permitted = subscriptions::permit_owner(manage, delivery.subscription).await;
        permitted.map_err(|missing| missing.with_status(StatusCode::CONFLICT))?;
    }
    match manage.ledger.retry(id).await.map_err(ledger_away)? {
        Retried::Done => find(manage, caller, id).await,
        Retried::Missing => Err(Problem::not_found("delivery")),
        Retried::NotPossible(status) => Err(Problem::conflict(format!(
            "the delivery is {}; only one that is Dead, Cancelled or Refused can be retried",
            status.name()
        ))),
        Retried::Unwanted => Err(Problem::conflict(
            "the delivery's subscription is inactive or deleted, so it would be cancelled at once; activate the \
             subscription first",
        )),
    }
}
