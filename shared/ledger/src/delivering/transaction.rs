//! Recording outcomes in a transaction, on either database.

use super::former::{self, Former};
use super::{NextStep, OutcomeRecord, RecordResult, Reopening, late, postgres, sqlite};
use crate::rows::{AttemptRow, ClosedRow, LAST, Last, attempt_row, closed_row, insert_attempts, insert_closed};
use crate::sql::{for_update, for_values, timestamp, uuid};
use crate::{Error, locks, outbox, subscriptions, wakeups};
use herald_domain::delivery::{Closed, Delivery};
use herald_domain::id::{DeliveryId, SubscriptionId};
use herald_domain::time::Timestamp;
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend};
use std::collections::{HashMap, HashSet};

/// Outcomes that count, each with its position in its batch: those that close their delivery, and those after which
/// it is due again.
struct Counted {
    closings: Vec<(usize, OutcomeRecord)>,
    retries: Vec<(usize, OutcomeRecord)>,
}

/// Where a batch found its deliveries.
struct Found {
    /// Those that were open and are closed now, with the outcome of their attempt before.
    closed: HashMap<DeliveryId, Last>,
    /// Those that were open and are due again.
    reopened: HashSet<DeliveryId>,
    /// Those that had ended without success, and are Delivered now.
    corrected: HashSet<DeliveryId>,
}

/// Records a batch of outcomes. Returns the result of each, and the subscriptions that were deactivated.
pub(super) async fn record(
    txn: &DatabaseTransaction,
    batch: Vec<OutcomeRecord>,
    now: Timestamp,
) -> Result<(Vec<RecordResult>, Vec<SubscriptionId>), Error> {
    let mut results = vec![RecordResult::Stale; batch.len()];
    // The registry is locked before any row, as in every transaction that locks both.
    let gone = subscriptions::still_active(txn, batch.iter().filter_map(OutcomeRecord::deactivates)).await?;
    let now = if !gone.is_empty() {
        locks::change(txn, now).await?
    } else if batch.iter().all(OutcomeRecord::is_success) {
        now
    } else {
        locks::fence(txn, now).await?.1
    };
    let former = former::outcomes(txn, &batch, now).await?;
    let counted = Counted::of(batch, &former);
    let found = Found::by(txn, &counted, now).await?;
    for (position, outcome) in counted.all() {
        results[*position] = found.result_of(outcome);
    }
    let (rows, attempts) = found.rows(&counted, now);
    insert_closed(txn, rows).await?;
    insert_attempts(txn, attempts).await?;
    copy_dead_letters(txn, &counted, &results, now).await?;
    wake_next_owners(txn, &counted, &former).await?;
    let gone = counted.closings.iter().filter(|(position, outcome)| {
        results[*position] == RecordResult::Done && gone.contains(&outcome.delivery.subscription)
    });
    let gone = gone.filter_map(|(_, outcome)| outcome.deactivates()).collect();
    let deactivated = subscriptions::deactivate_gone(txn, gone, now).await?;
    Ok((results, deactivated))
}

impl Counted {
    /// The outcomes of the batch that count: those that are void because of a new owner are left out.
    fn of(batch: Vec<OutcomeRecord>, former: &HashMap<DeliveryId, Former>) -> Self {
        let counts = |outcome: &OutcomeRecord| former.get(&outcome.delivery.id) != Some(&Former::Void);
        let (closings, retries) = batch
            .into_iter()
            .enumerate()
            .filter(|(_, outcome)| counts(outcome))
            .partition(|(_, outcome)| matches!(outcome.next, NextStep::Close { .. }));
        Self { closings, retries }
    }

    fn all(&self) -> impl Iterator<Item = &(usize, OutcomeRecord)> {
        self.closings.iter().chain(&self.retries)
    }
}

impl Found {
    /// Takes the deliveries out of the open ones or sets when they are due, and corrects those that had ended.
    async fn by(txn: &DatabaseTransaction, counted: &Counted, now: Timestamp) -> Result<Self, Error> {
        let mut found = Self {
            closed: close(txn, &counted.closings).await?,
            reopened: reopen(txn, &counted.retries).await?,
            corrected: HashSet::new(),
        };
        let all = counted.all().map(|(_, outcome)| outcome);
        let late: Vec<&OutcomeRecord> = all.filter(|outcome| !found.was_open(outcome)).collect();
        found.corrected = late::correct(txn, &late, now).await?;
        // A manual retry may have opened one of them again in between. A success counts there too, another end does not.
        let missed = late
            .into_iter()
            .filter(|outcome| outcome.is_success() && !found.corrected.contains(&outcome.delivery.id));
        let missed = delete_open(txn, missed).await?;
        found.closed.extend(missed);
        Ok(found)
    }

    fn was_open(&self, outcome: &OutcomeRecord) -> bool {
        self.closed.contains_key(&outcome.delivery.id) || self.reopened.contains(&outcome.delivery.id)
    }

    fn result_of(&self, outcome: &OutcomeRecord) -> RecordResult {
        if self.was_open(outcome) {
            RecordResult::Done
        } else if self.corrected.contains(&outcome.delivery.id) && outcome.is_success() {
            RecordResult::Corrected
        } else {
            RecordResult::Late
        }
    }

    /// The rows of the deliveries that were closed, and of the attempts that have rows of their own.
    fn rows(&self, counted: &Counted, now: Timestamp) -> (Vec<ClosedRow>, Vec<AttemptRow>) {
        let (mut rows, mut attempts) = (Vec::with_capacity(counted.closings.len()), Vec::new());
        for (_, outcome) in counted.all() {
            let (delivery, attempt) = (&outcome.delivery, outcome.attempt.as_ref());
            let next_due_at = match outcome.next {
                NextStep::Close { status, reason, .. } if self.was_open(outcome) => {
                    let earlier = || self.closed.get(&delivery.id).cloned().unwrap_or_default();
                    let last = attempt.map_or_else(earlier, Last::of);
                    let ended = (status, reason);
                    rows.push(closed_row(delivery, outcome.event, ended, last, attempt, now));
                    continue;
                }
                NextStep::Retry(due_at) if self.was_open(outcome) => Some(due_at),
                NextStep::Close { .. } | NextStep::Retry(_) => None,
            };
            attempts.extend(attempt.map(|attempt| attempt_row(delivery.id, attempt, next_due_at)));
        }
        (rows, attempts)
    }
}

/// Writes a job for each delivery that this batch closed as dead, to publish a copy of it.
async fn copy_dead_letters(
    txn: &DatabaseTransaction,
    counted: &Counted,
    results: &[RecordResult],
    now: Timestamp,
) -> Result<(), Error> {
    let dead = counted.closings.iter().filter(|(position, outcome)| {
        let dead = matches!(
            outcome.next,
            NextStep::Close {
                status: Closed::Dead,
                ..
            }
        );
        dead && results[*position] == RecordResult::Done
    });
    outbox::copy_dead_letters(txn, dead.map(|(_, outcome)| outcome.delivery.id), now).await
}

/// Wakes the present owners of deliveries that are due again after an outcome of the former owner.
async fn wake_next_owners(
    txn: &DatabaseTransaction,
    counted: &Counted,
    former: &HashMap<DeliveryId, Former>,
) -> Result<(), Error> {
    let handed_over: Vec<Delivery> = counted
        .retries
        .iter()
        .filter(|(_, outcome)| former.contains_key(&outcome.delivery.id))
        .filter_map(|(_, outcome)| match outcome.next {
            NextStep::Retry(due_at) => Some(Delivery {
                due_at,
                ..outcome.delivery
            }),
            NextStep::Close { .. } => None,
        })
        .collect();
    wakeups::wake(txn, &handed_over).await
}

/// Sets the next `due_at` of deliveries whose attempt failed and that are still open. Returns these.
async fn reopen(txn: &DatabaseTransaction, retries: &[(usize, OutcomeRecord)]) -> Result<HashSet<DeliveryId>, Error> {
    let mut rows: Vec<Reopening> = Vec::with_capacity(retries.len());
    for (_, outcome) in retries {
        if let (NextStep::Retry(due_at), Some(attempt)) = (outcome.next, &outcome.attempt) {
            let row = [
                due_at.as_micros().into(),
                i64::from(attempt.number).into(),
                attempt.outcome.status_code().map(i32::from).into(),
                attempt.outcome.error().map(|error| error.name().to_owned()).into(),
            ];
            rows.push((outcome.delivery.id, row));
        }
    }
    match txn.get_database_backend() {
        DbBackend::Postgres => postgres::reopen(txn, rows).await,
        _ => sqlite::reopen(txn, rows).await,
    }
}

/// Closes open deliveries. A success closes its delivery whenever it comes. Any other end closes the delivery as it was
/// when its worker took it up: if that end was recorded before and its answer lost, a manual retry may have opened the
/// delivery again since.
async fn close(
    txn: &DatabaseTransaction,
    closings: &[(usize, OutcomeRecord)],
) -> Result<HashMap<DeliveryId, Last>, Error> {
    let outcomes = closings.iter().map(|(_, outcome)| outcome);
    let (delivered, ended): (Vec<_>, Vec<_>) = outcomes.partition(|outcome| outcome.is_success());
    let opened = opened_at(txn, &ended).await?;
    let as_it_was = |outcome: &&OutcomeRecord| opened.get(&outcome.delivery.id) == Some(&outcome.delivery.opened_at);
    delete_open(txn, delivered.into_iter().chain(ended.into_iter().filter(as_it_was))).await
}

/// When these deliveries were opened, as far as they are open. Their rows are locked until the end of the transaction.
async fn opened_at(
    txn: &DatabaseTransaction,
    outcomes: &[&OutcomeRecord],
) -> Result<HashMap<DeliveryId, Timestamp>, Error> {
    let mut ids: Vec<_> = outcomes.iter().map(|outcome| outcome.delivery.id).collect();
    ids.sort_unstable();
    let ids = ids.into_iter().map(|id| id.0.into()).collect();
    let lock = format!("ORDER BY id{}", for_update(txn));
    let rows = for_values(txn, "SELECT id, opened_at FROM deliveries_open WHERE id", ids, &lock).await?;
    rows.iter()
        .map(|row| Ok((DeliveryId(uuid(row, "id")?), timestamp(row, "opened_at")?)))
        .collect()
}

/// Deletes the open rows. Only the transaction whose delete finds the row closes the delivery.
async fn delete_open(
    txn: &DatabaseTransaction,
    outcomes: impl Iterator<Item = &OutcomeRecord>,
) -> Result<HashMap<DeliveryId, Last>, Error> {
    let ids = outcomes.map(|outcome| outcome.delivery.id.0.into()).collect();
    let returning = format!("RETURNING id, {LAST}");
    let rows = for_values(txn, "DELETE FROM deliveries_open WHERE id", ids, &returning).await?;
    rows.iter()
        .map(|row| Ok((DeliveryId(uuid(row, "id")?), Last::read(row)?)))
        .collect()
}
