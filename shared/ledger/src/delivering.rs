//! The delivery queue: what is due, and what came of it.
//!
//! A delivery is closed by deleting its row from `deliveries_open`; that delete is the only gate, and
//! what it finds goes to `deliveries_closed` in the same transaction. A success counts whoever reports
//! it, and whenever it comes (see [`late`]); a failure counts only from the shard's present owner.

mod at_once;
mod due;
mod former;
mod late;
mod search;

use crate::rows::{LAST, Last, attempt_row, closed_row, insert_attempts, insert_closed};
use crate::sql::{for_rows, for_values, get, uuid};
use crate::{Error, Ledger, locks, outbox, shards, subscriptions, wakeups};
pub(crate) use due::SharedEvents;
use former::Former;
use herald_domain::delivery::{Attempt, Closed, Delivery, Reason};
use herald_domain::id::{DeliveryId, EventUid, Shard, SubscriptionId};
use herald_domain::time::Timestamp;
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend, QueryResult, Value};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;

/// What is to be recorded about a delivery.
#[derive(Debug, Clone)]
pub struct Finish {
    /// The delivery, as it was before the attempt.
    pub delivery: Delivery,
    /// Its event.
    pub event: EventUid,
    /// The epoch of its shard at which it was taken up.
    pub epoch: i64,
    /// The attempt; none when it was closed without one.
    pub attempt: Option<Attempt>,
    /// What follows.
    pub then: Then,
}

/// What follows from an attempt, or from the look before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// It is closed.
    Close {
        /// How.
        status: Closed,
        /// Why, unless it was delivered.
        reason: Option<Reason>,
        /// The subscriber wants no more (410): its subscription is deactivated too, if it is still as it
        /// was when the attempt began, last changed at this time.
        deactivate: Option<Timestamp>,
    },
    /// It stays open and is due then.
    Retry(Timestamp),
}

/// What became of a [`Finish`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finished {
    /// As it asked.
    Done,
    /// The delivery had ended without success. The success counts, and it is Delivered now.
    Corrected,
    /// Somebody else had closed the delivery; the attempt is kept.
    Late,
    /// The shard has another owner by now; nothing was written.
    Stale,
}

/// What became of a batch of outcomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// What became of each, in order.
    pub finished: Vec<Finished>,
    /// Subscriptions that were deactivated because their subscribers answered 410.
    pub deactivated: Vec<SubscriptionId>,
}

impl Finish {
    /// Whose subscription is deactivated by this, if it was last changed then.
    fn deactivates(&self) -> Option<(SubscriptionId, Timestamp)> {
        match self.then {
            Then::Close { deactivate, .. } => Some((self.delivery.subscription, deactivate?)),
            Then::Retry(_) => None,
        }
    }

    fn is_success(&self) -> bool {
        matches!(
            self.then,
            Then::Close {
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
    pub async fn finish(&self, batch: Vec<Finish>) -> Result<Recorded, Error> {
        if !self.store.is_shared() {
            return self.finish_in_transaction(batch).await;
        }
        let mut recorded = Recorded {
            finished: vec![Finished::Done; batch.len()],
            deactivated: Vec::new(),
        };
        let closed = at_once::close(self, &batch).await?;
        let (places, rest): (Vec<_>, Vec<_>) = batch
            .into_iter()
            .enumerate()
            .filter(|(_, finish)| !closed.contains(&finish.delivery.id))
            .unzip();
        if !rest.is_empty() {
            let rest = self.finish_in_transaction(rest).await?;
            for (place, came) in places.into_iter().zip(rest.finished) {
                recorded.finished[place] = came;
            }
            recorded.deactivated = rest.deactivated;
        }
        Ok(recorded)
    }

    async fn finish_in_transaction(&self, batch: Vec<Finish>) -> Result<Recorded, Error> {
        let closing: Vec<bool> = batch
            .iter()
            .map(|finish| matches!(finish.then, Then::Close { .. }))
            .collect();
        let (finished, deactivated) = self
            .store
            .write(move |txn, now| Box::pin(finish(txn, batch, now)))
            .await?;
        let closed = finished
            .iter()
            .zip(closing)
            .filter(|(finished, closing)| *closing && **finished == Finished::Done);
        self.signals.closed(closed.count());
        if !deactivated.is_empty() {
            self.signals.registry.notify_waiters();
            self.signals.outbox.notify_one();
        }
        Ok(Recorded { finished, deactivated })
    }
}

async fn finish(
    txn: &DatabaseTransaction,
    batch: Vec<Finish>,
    now: Timestamp,
) -> Result<(Vec<Finished>, Vec<SubscriptionId>), Error> {
    let mut finished = vec![Finished::Stale; batch.len()];
    // Before any row is locked, as everybody does who takes both.
    let gone = subscriptions::still_active(txn, batch.iter().filter_map(Finish::deactivates)).await?;
    let now = if !gone.is_empty() {
        locks::change(txn, now).await?
    } else if batch.iter().all(Finish::is_success) {
        now
    } else {
        locks::hold(txn, now).await?.1
    };
    let former = former::outcomes(txn, &batch, now).await?;
    let counted: Vec<(usize, Finish)> = batch
        .into_iter()
        .enumerate()
        .filter(|(_, finish)| former.get(&finish.delivery.id) != Some(&Former::Void))
        .collect();
    let (closings, retries): (Vec<_>, Vec<_>) = counted
        .into_iter()
        .partition(|(_, finish)| matches!(finish.then, Then::Close { .. }));
    let mut closed = delete_open(txn, closings.iter().map(|(_, finish)| finish)).await?;
    let reopened = reopen(txn, &retries).await?;
    let is_open = |finish: &Finish| closed.contains_key(&finish.delivery.id) || reopened.contains(&finish.delivery.id);
    let late = closings.iter().chain(&retries).map(|(_, finish)| finish);
    let late: Vec<&Finish> = late.filter(|finish| !is_open(finish)).collect();
    let corrected = late::correct(txn, &late, now).await?;
    // A manual retry may have opened one of them again in between, where the success counts as well.
    let missed = late
        .into_iter()
        .filter(|finish| finish.is_success() && !corrected.contains(&finish.delivery.id));
    closed.extend(delete_open(txn, missed).await?);
    let mut rows = Vec::with_capacity(closings.len());
    let mut attempts = Vec::new();
    for (position, finish) in closings.iter().chain(&retries) {
        let Finish {
            delivery,
            event,
            attempt,
            then,
            ..
        } = finish;
        let done = closed.contains_key(&delivery.id) || reopened.contains(&delivery.id);
        finished[*position] = match done {
            true => Finished::Done,
            false if corrected.contains(&delivery.id) && finish.is_success() => Finished::Corrected,
            false => Finished::Late,
        };
        match then {
            Then::Close { status, reason, .. } if done => {
                let last = match (attempt, closed.get(&delivery.id)) {
                    (Some(attempt), _) => Last::of(attempt),
                    (None, earlier) => earlier.cloned().unwrap_or_default(),
                };
                rows.push(closed_row(
                    delivery,
                    *event,
                    (*status, *reason),
                    last,
                    attempt.as_ref(),
                    now,
                ));
            }
            Then::Retry(due_at) if done => {
                attempts.extend(
                    attempt
                        .as_ref()
                        .map(|attempt| attempt_row(delivery.id, attempt, Some(*due_at))),
                );
            }
            Then::Close { .. } | Then::Retry(_) => {
                attempts.extend(attempt.as_ref().map(|attempt| attempt_row(delivery.id, attempt, None)));
            }
        }
    }
    insert_closed(txn, rows).await?;
    insert_attempts(txn, attempts).await?;
    dead_letters(txn, &closings, &finished, now).await?;
    let handed_over: Vec<Delivery> = retries
        .iter()
        .filter(|(_, finish)| former.contains_key(&finish.delivery.id))
        .filter_map(|(_, finish)| match finish.then {
            Then::Retry(due_at) => Some(Delivery {
                due_at,
                ..finish.delivery
            }),
            Then::Close { .. } => None,
        })
        .collect();
    wakeups::wake(txn, &handed_over).await?;
    let gone = closings
        .iter()
        .filter(|(position, finish)| {
            finished[*position] == Finished::Done && gone.contains(&finish.delivery.subscription)
        })
        .filter_map(|(_, finish)| finish.deactivates());
    let deactivated = subscriptions::deactivate_gone(txn, gone.collect(), now).await?;
    Ok((finished, deactivated))
}

/// Leaves a job for each delivery that this batch closed as dead: others want a copy.
async fn dead_letters(
    txn: &DatabaseTransaction,
    closings: &[(usize, Finish)],
    finished: &[Finished],
    now: Timestamp,
) -> Result<(), Error> {
    let dead = closings.iter().filter(|(position, finish)| {
        let dead = matches!(
            finish.then,
            Then::Close {
                status: Closed::Dead,
                ..
            }
        );
        dead && finished[*position] == Finished::Done
    });
    outbox::copy_dead_letters(txn, dead.map(|(_, finish)| finish.delivery.id), now).await
}

/// Sets the next `due_at` of what failed and is still open; which it was.
async fn reopen(txn: &DatabaseTransaction, retries: &[(usize, Finish)]) -> Result<HashSet<DeliveryId>, Error> {
    let mut rows: Vec<(DeliveryId, [Value; 4])> = Vec::with_capacity(retries.len());
    for (
        _,
        Finish {
            delivery,
            attempt,
            then,
            ..
        },
    ) in retries
    {
        if let (Then::Retry(due_at), Some(attempt)) = (then, attempt) {
            let row = [
                due_at.as_micros().into(),
                i64::from(attempt.number).into(),
                attempt.outcome.status_code().map(i32::from).into(),
                attempt.outcome.error().map(|error| error.name().to_owned()).into(),
            ];
            rows.push((delivery.id, row));
        }
    }
    if txn.get_database_backend() == DbBackend::Postgres {
        return at_once::reopen(txn, rows).await;
    }
    let rows = rows
        .into_iter()
        .map(|(id, [due_at, attempts, status_code, error])| [id.0.into(), due_at, attempts, status_code, error])
        .collect();
    let updated = for_rows(
        txn,
        "WITH failed (id, due_at, attempts, status_code, error) AS (",
        rows,
        ") UPDATE deliveries_open SET due_at = failed.due_at, attempts = failed.attempts, busy_until = 0, \
         last_status_code = failed.status_code, last_error = failed.error FROM failed \
         WHERE deliveries_open.id = failed.id AND deliveries_open.attempts < failed.attempts RETURNING deliveries_open.id",
    )
    .await?;
    returned_ids(&updated)
}

/// The gate: whoever's delete finds the row closes the delivery.
async fn delete_open(
    txn: &DatabaseTransaction,
    finishes: impl Iterator<Item = &Finish>,
) -> Result<HashMap<DeliveryId, Last>, Error> {
    let ids = finishes.map(|finish| finish.delivery.id.0.into()).collect();
    let returning = format!("RETURNING id, {LAST}");
    let rows = for_values(txn, "DELETE FROM deliveries_open WHERE id", ids, &returning).await?;
    rows.iter()
        .map(|row| Ok((DeliveryId(uuid(row, "id")?), Last::read(row)?)))
        .collect()
}

fn returned_ids(rows: &[QueryResult]) -> Result<HashSet<DeliveryId>, Error> {
    rows.iter().map(|row| Ok(DeliveryId(uuid(row, "id")?))).collect()
}
