//! The delivery queue: due deliveries, and the outcomes of their attempts.
//!
//! A delivery is closed by deleting its row from `deliveries_open`. Only the transaction whose delete finds the row
//! closes the delivery; it inserts the row into `deliveries_closed`. A success counts from every process and at any
//! time (see [`late`]). A failure counts only from the shard's present owner, or from the former owner while the
//! delivery is reserved for it (see [`former`]).

mod due;
mod former;
mod late;
mod postgres;
mod search;
mod sqlite;
mod transaction;

use crate::sql::{for_values, get, uuid};
use crate::{Error, Ledger, shards};
pub(crate) use due::SharedEvents;
use herald_domain::delivery::{Attempt, Closed, Delivery};
use herald_domain::id::{DeliveryId, EventUid, Shard, SubscriptionId};
use herald_domain::time::Timestamp;
pub use herald_domain::worker::{NextStep, RecordResult};
use sea_orm::{QueryResult, Value};
use std::collections::HashSet;
use std::sync::atomic::Ordering;

/// An outcome to be recorded for a delivery.
#[derive(Debug, Clone)]
pub struct OutcomeRecord {
    /// The delivery, as it was before the attempt.
    pub delivery: Delivery,
    /// The event that the delivery carries.
    pub event: EventUid,
    /// The epoch of its shard when it was taken up.
    pub epoch: i64,
    /// The attempt; none when it was closed without one.
    pub attempt: Option<Attempt>,
    /// What follows from the outcome.
    pub next: NextStep,
}

/// The result of recording a batch of outcomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedOutcomes {
    /// The result of each outcome, in order.
    pub results: Vec<RecordResult>,
    /// Subscriptions that were deactivated because their subscribers answered 410.
    pub deactivated: Vec<SubscriptionId>,
}

impl OutcomeRecord {
    /// The subscription that this deactivates, if any, and the time at which it must have been changed last.
    fn deactivates(&self) -> Option<(SubscriptionId, Timestamp)> {
        match self.next {
            NextStep::Close { deactivate, .. } => Some((self.delivery.subscription, deactivate?)),
            NextStep::Retry(_) => None,
        }
    }

    fn is_success(&self) -> bool {
        matches!(
            self.next,
            NextStep::Close {
                status: Closed::Delivered,
                ..
            }
        )
    }
}

impl Ledger {
    /// Counts how many deliveries are open in these shards, for [`crate::Signals::open_deliveries`].
    pub async fn count_open(&self, shards: impl IntoIterator<Item = Shard>) -> Result<(), Error> {
        let rows = for_values(
            self.store.queries(),
            "SELECT count(*) AS n FROM deliveries_open WHERE shard",
            shards::numbers(shards),
            "",
        )
        .await?;
        let open: i64 = rows.first().map_or(Ok(0), |row| get(row, "n"))?;
        self.signals.open_deliveries.store(open, Ordering::Relaxed);
        Ok(())
    }

    /// Records a batch of outcomes, each whole or not at all.
    pub async fn record_outcomes(&self, batch: Vec<OutcomeRecord>) -> Result<RecordedOutcomes, Error> {
        if !self.store.is_shared() {
            return self.record_in_transaction(batch).await;
        }
        let mut recorded = RecordedOutcomes {
            results: vec![RecordResult::Done; batch.len()],
            deactivated: Vec::new(),
        };
        let closed = postgres::close(self, &batch).await?;
        let (places, rest): (Vec<_>, Vec<_>) = batch
            .into_iter()
            .enumerate()
            .filter(|(_, outcome)| !closed.contains(&outcome.delivery.id))
            .unzip();
        if !rest.is_empty() {
            let rest = self.record_in_transaction(rest).await?;
            for (place, came) in places.into_iter().zip(rest.results) {
                recorded.results[place] = came;
            }
            recorded.deactivated = rest.deactivated;
        }
        Ok(recorded)
    }

    async fn record_in_transaction(&self, batch: Vec<OutcomeRecord>) -> Result<RecordedOutcomes, Error> {
        let closing: Vec<bool> = batch
            .iter()
            .map(|outcome| matches!(outcome.next, NextStep::Close { .. }))
            .collect();
        let (results, deactivated) = self
            .store
            .write(move |txn, now| Box::pin(transaction::record(txn, batch, now)))
            .await?;
        let closed = results
            .iter()
            .zip(closing)
            .filter(|(result, closing)| *closing && **result == RecordResult::Done);
        self.signals.closed(closed.count());
        if !deactivated.is_empty() {
            self.signals.registry.notify_waiters();
            self.signals.outbox.notify_one();
        }
        Ok(RecordedOutcomes { results, deactivated })
    }
}

fn returned_ids(rows: &[QueryResult]) -> Result<HashSet<DeliveryId>, Error> {
    rows.iter().map(|row| Ok(DeliveryId(uuid(row, "id")?))).collect()
}

/// What a failed attempt sets in its delivery's row: `due_at`, `attempts`, `last_status_code`, `last_error`.
type Reopening = (DeliveryId, [Value; 4]);
