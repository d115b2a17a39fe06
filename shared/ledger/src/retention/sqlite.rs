//! Rows that are deleted in small batches, on SQLite.

use super::{BATCH, Removed, column, first_uuid, pause};
use crate::sql::{all, corrupt, execute, for_rows, for_values, get, uuid};
use crate::{Error, Ledger};
use herald_domain::delivery::Closed;
use herald_domain::retention::Limits;
use herald_domain::time::Timestamp;
use sea_orm::{DatabaseTransaction, Value};
use std::collections::BTreeMap;
use tokio::time::Instant;
use uuid::Uuid;

/// The condition for events to remove: all of their deliveries are gone. An event that does not add up stays.
const EVENT_IS_OVER: &str = "expired_count = matched_count AND cursor IS NULL";

impl Ledger {
    /// Removes what has expired of the events before that time, the oldest first.
    pub(super) async fn remove_rows(
        &self,
        before: Timestamp,
        limits: Limits,
        removed: &mut Removed,
    ) -> Result<(), Error> {
        let expired = format!(
            "closed_at < CASE status WHEN {} THEN {} ELSE {} END",
            Closed::Dead.code(),
            limits.dead.as_micros(),
            limits.ended.as_micros()
        );
        let deliveries = format!(
            "SELECT id FROM deliveries_closed WHERE id > $1 AND id < $2 AND {expired} ORDER BY id LIMIT {BATCH}"
        );
        self.in_batches(&deliveries, before, removed, move |ids| {
            let expired = expired.clone();
            Box::new(move |txn| Box::pin(async move { remove_deliveries(txn, ids, &expired).await }))
        })
        .await?;
        // Also events that never had any deliveries.
        let events = format!(
            "SELECT uid AS id FROM events WHERE uid > $1 AND uid < $2 AND recorded_at < {} AND {EVENT_IS_OVER} \
             ORDER BY uid LIMIT {BATCH}",
            limits.ended.as_micros()
        );
        self.in_batches(&events, before, removed, |ids| {
            Box::new(move |txn| Box::pin(async move { remove_events(txn, ids).await }))
        })
        .await
    }

    /// Looks for ids without a lock, and hands them to a write, until there are no more.
    async fn in_batches(
        &self,
        find: &str,
        before: Timestamp,
        removed: &mut Removed,
        write: impl Fn(Vec<Value>) -> Removal + Send,
    ) -> Result<(), Error> {
        let mut after = Uuid::nil();
        loop {
            let began = Instant::now();
            let rows = all(self.store.queries(), find, [after.into(), first_uuid(before).into()]).await?;
            let ids: Vec<Uuid> = rows.iter().map(|row| uuid(row, "id")).collect::<Result<_, _>>()?;
            let Some(last) = ids.last() else { return Ok(()) };
            after = *last;
            let gone = self.remove(write(ids.into_iter().map(Value::from).collect())).await?;
            removed.events += gone.events;
            removed.deliveries += gone.deliveries;
            pause(began).await;
        }
    }
}

type Removal = Box<
    dyn for<'t> FnOnce(&'t DatabaseTransaction) -> futures_util::future::BoxFuture<'t, Result<Removed, Error>> + Send,
>;

/// Deletes the deliveries that are still there and expired, and the events that have no others.
async fn remove_deliveries(txn: &DatabaseTransaction, ids: Vec<Value>, expired: &str) -> Result<Removed, Error> {
    let gone = for_values(
        txn,
        &format!("DELETE FROM deliveries_closed WHERE {expired} AND id"),
        ids,
        "RETURNING id, event, status",
    )
    .await?;
    let (mut ids, mut by_event, mut by_end) = (Vec::with_capacity(gone.len()), BTreeMap::new(), BTreeMap::new());
    for row in &gone {
        ids.push(uuid(row, "id")?.into());
        *by_event.entry(uuid(row, "event")?).or_insert(0_i64) += 1;
        *by_end.entry(get::<i16>(row, "status")?).or_insert(0_i64) += 1;
    }
    for_values(txn, "DELETE FROM attempts WHERE delivery", ids, "").await?;
    let events: Vec<Value> = by_event.keys().copied().map(Value::from).collect();
    for_rows(
        txn,
        "WITH gone (uid, n) AS (",
        by_event
            .into_iter()
            .map(|(event, n)| [event.into(), n.into()])
            .collect(),
        ") UPDATE events SET expired_count = expired_count + gone.n FROM gone WHERE events.uid = gone.uid",
    )
    .await?;
    for (code, n) in by_end {
        let column = column(Closed::coded(code).ok_or_else(|| corrupt("an unknown status"))?);
        execute(txn, &format!("UPDATE expired SET {column} = {column} + $1"), [n.into()]).await?;
    }
    let removed = remove_events(txn, events).await?;
    Ok(Removed {
        deliveries: gone.len() as u64,
        ..removed
    })
}

async fn remove_events(txn: &DatabaseTransaction, uids: Vec<Value>) -> Result<Removed, Error> {
    let gone = for_values(
        txn,
        &format!("DELETE FROM events WHERE {EVENT_IS_OVER} AND uid"),
        uids,
        "RETURNING uid",
    )
    .await?;
    let count = i64::try_from(gone.len()).unwrap_or(i64::MAX);
    execute(txn, "UPDATE expired SET events = events + $1", [count.into()]).await?;
    Ok(Removed {
        events: gone.len() as u64,
        ..Removed::default()
    })
}
