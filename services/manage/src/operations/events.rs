//! Events, as they were recorded and with what became of them.

use super::sight::Sight;
use crate::{Manage, ledger_away};
use herald_access::Caller;
use herald_access::problem::Problem;
use herald_domain::id::EventId;
use herald_ledger::history::{DeliveryFilter, DeliveryView, EventView};

/// The most deliveries that an event is shown with.
const MAX_DELIVERIES: usize = 500;

/// The events of that `Id` that the caller sees, newest first, each with the newest of its deliveries that the caller
/// sees.
pub(crate) async fn find(
    manage: &Manage,
    caller: Caller,
    id: EventId,
) -> Result<Vec<(EventView, Vec<DeliveryView>)>, Problem> {
    let sight = Sight::of(caller);
    let scope = sight.account().map(|account| account.to_string());
    let found = manage.ledger.events(id).await.map_err(ledger_away)?;
    let mut seen = Vec::with_capacity(1);
    for view in found {
        if scope.as_ref().is_none_or(|scope| *scope == view.account) {
            let filter = DeliveryFilter {
                owner: sight.account(),
                events: Some(vec![view.uid]),
                ..DeliveryFilter::default()
            };
            let deliveries = manage.ledger.deliveries(&filter, MAX_DELIVERIES).await;
            seen.push((view, deliveries.map_err(ledger_away)?));
        }
    }
    Ok(seen)
}
