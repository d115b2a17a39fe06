//! Events, deliveries and attempts as the API shows them, and the manual retry. Deliveries wait for none of these
//! reads, which have connections of their own.
//!
//! | module | what it does |
//! |---|---|
//! | `deliveries` | lists deliveries, reads one, reads attempts |
//! | `events` | reads events |
//! | [`retrying`] | opens deliveries again that have ended without success |

mod deliveries;
mod events;
pub mod retrying;

use crate::Error;
use crate::sql::{corrupt, get};
pub use deliveries::{AttemptView, DeliveryFilter, DeliveryView};
pub use events::EventView;
use herald_domain::delivery::Closed;
use sea_orm::QueryResult;

fn closed_status(row: &QueryResult) -> Result<Closed, Error> {
    Closed::coded(get(row, "status")?).ok_or_else(|| corrupt("an unknown status"))
}
