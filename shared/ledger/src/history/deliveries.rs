//! Deliveries and their attempts as the API shows them.
//!
//! A delivery's id begins with the time of its event, so lists are newest first by id, and a cursor is
//! an id.

use super::closed_status;
use crate::rows::{SHOWN_CLOSED, SHOWN_OPEN};
use crate::sql::{all, corrupt, for_values, get, history, optional_timestamp, timestamp, uuid};
use crate::{Error, Ledger};
use herald_domain::catalogue::Webhook;
use herald_domain::delivery::{Closed, Status};
use herald_domain::id::{DeliveryId, EventId, EventUid, SubscriptionId};
use herald_domain::time::Timestamp;
use sea_orm::{ConnectionTrait, QueryResult, Value};
use std::collections::HashMap;
use std::time::Duration;
use uuid::Uuid;

/// A delivery as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryView {
    /// The delivery's id, which receivers get as `webhook-id`.
    pub id: DeliveryId,
    /// Its event's identity in the ledger.
    pub event: EventUid,
    /// Its event's `Id`.
    pub event_id: EventId,
    /// The subscription to which it goes.
    pub subscription: SubscriptionId,
    /// What the subscription asked for.
    pub webhook: Webhook,
    /// The delivery's status, as the API names it.
    pub status: Status,
    /// Why it was closed without success.
    pub reason: Option<String>,
    /// How many attempts were made.
    pub attempts: i64,
    /// When the next is due; only while it is open.
    pub due_at: Option<Timestamp>,
    /// When it was matched.
    pub created_at: Timestamp,
    /// When it was closed.
    pub closed_at: Option<Timestamp>,
    /// The last attempt's status code.
    pub last_status_code: Option<i32>,
    /// The last attempt's error.
    pub last_error: Option<String>,
    /// The last attempt, where it stands in the delivery's own row.
    pub inline: Option<AttemptView>,
}

/// An attempt as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptView {
    /// The attempt's number, from 1.
    pub number: i64,
    /// When the attempt began.
    pub at: Timestamp,
    /// How long it took.
    pub duration: Duration,
    /// The status code, if there was an answer.
    pub status_code: Option<i32>,
    /// The error, if it failed.
    pub error: Option<String>,
    /// The error in words.
    pub detail: Option<String>,
    /// When the next attempt was due, if there was to be one.
    pub next_due_at: Option<Timestamp>,
}

/// Which deliveries to list.
#[derive(Debug, Clone, Default)]
pub struct DeliveryFilter {
    /// Only in this status.
    pub status: Option<Status>,
    /// Only to this subscription.
    pub subscription: Option<SubscriptionId>,
    /// Only to this account's subscriptions.
    pub owner: Option<herald_domain::id::AccountId>,
    /// Only of these events.
    pub events: Option<Vec<EventUid>>,
    /// Only those matched at or after this.
    pub since: Option<Timestamp>,
    /// Only those matched before this.
    pub until: Option<Timestamp>,
    /// Only those before this one: the cursor.
    pub before: Option<DeliveryId>,
}

impl Ledger {
    /// Deliveries, newest first, at most `limit`.
    pub async fn deliveries(&self, filter: &DeliveryFilter, limit: usize) -> Result<Vec<DeliveryView>, Error> {
        self.store.ask(self.select_deliveries(filter, limit)).await
    }

    async fn select_deliveries(&self, filter: &DeliveryFilter, limit: usize) -> Result<Vec<DeliveryView>, Error> {
        let snapshot = history(self.store.api()).await?;
        let mut found = Vec::new();
        let (open, closed) = match filter.status {
            None => (true, true),
            Some(Status::Open) => (true, false),
            Some(Status::Closed(_)) => (false, true),
            Some(Status::Held) => (false, false),
        };
        if open {
            found.extend(select(&snapshot, SHOWN_OPEN, filter, limit).await?);
        }
        if closed {
            found.extend(select(&snapshot, SHOWN_CLOSED, filter, limit).await?);
        }
        found.sort_unstable_by_key(|delivery| std::cmp::Reverse(delivery.id));
        found.truncate(limit);
        Ok(found)
    }

    /// A delivery, whether it is open or closed.
    pub async fn delivery(&self, id: DeliveryId) -> Result<Option<DeliveryView>, Error> {
        let read = async {
            let snapshot = history(self.store.api()).await?;
            for table in [SHOWN_OPEN, SHOWN_CLOSED] {
                let rows = all(&snapshot, &format!("{table} WHERE d.id = $1"), [id.0.into()]).await?;
                if let Some(row) = rows.first() {
                    return delivery_view(row).map(Some);
                }
            }
            Ok(None)
        };
        self.store.ask(read).await
    }

    /// The attempts of these deliveries, each one's in order.
    pub async fn attempts(&self, deliveries: &[DeliveryView]) -> Result<HashMap<DeliveryId, Vec<AttemptView>>, Error> {
        let ids = deliveries.iter().map(|delivery| delivery.id.0.into()).collect();
        let read = for_values(
            self.store.api(),
            "SELECT * FROM attempts WHERE delivery",
            ids,
            "ORDER BY delivery, number, at",
        );
        let rows = self.store.ask(read).await?;
        let mut attempts: HashMap<DeliveryId, Vec<AttemptView>> = HashMap::new();
        for row in &rows {
            attempts
                .entry(DeliveryId(uuid(row, "delivery")?))
                .or_default()
                .push(attempt_view(row)?);
        }
        for delivery in deliveries {
            if let Some(inline) = &delivery.inline {
                let of_delivery = attempts.entry(delivery.id).or_default();
                // An outcome that was recorded twice, because the first answer was lost, is one attempt.
                if !of_delivery
                    .iter()
                    .any(|it| (it.number, it.at) == (inline.number, inline.at))
                {
                    of_delivery.push(inline.clone());
                }
                of_delivery.sort_by_key(|attempt| (attempt.number, attempt.at));
            }
        }
        Ok(attempts)
    }
}

async fn select<C: ConnectionTrait>(
    connection: &C,
    table: &str,
    filter: &DeliveryFilter,
    limit: usize,
) -> Result<Vec<DeliveryView>, Error> {
    let mut values: Vec<Value> = Vec::new();
    let mut conditions = Vec::new();
    let mut condition = |sql: &str, value: Value| {
        values.push(value);
        conditions.push(sql.replace('?', &format!("${}", values.len())));
    };
    if let Some(Status::Closed(status)) = filter.status {
        // The condition of the partial index is repeated, so that the planner uses it.
        condition(
            if status == Closed::Delivered {
                "d.status = ?"
            } else {
                "d.status <> 1 AND d.status = ?"
            },
            status.code().into(),
        );
    }
    if let Some(subscription) = filter.subscription {
        condition("d.subscription = ?", subscription.0.into());
        if table == SHOWN_OPEN {
            // The index of open deliveries begins with the shard.
            let shard = herald_domain::id::Shard::of(subscription);
            condition("d.shard = ?", i16::from(shard.0).into());
        }
    }
    if let Some(owner) = filter.owner {
        condition(
            "d.subscription IN (SELECT id FROM subscriptions WHERE owner = ?)",
            owner.0.into(),
        );
    }
    if let Some(since) = filter.since {
        condition("d.created_at >= ?", since.as_micros().into());
        condition("d.id >= ?", first_id_at(since.minus(LATE)).into());
    }
    if let Some(until) = filter.until {
        condition("d.created_at < ?", until.as_micros().into());
        condition("d.id < ?", first_id_at(until.plus(EARLY)).into());
    }
    if let Some(before) = filter.before {
        condition("d.id < ?", before.0.into());
    }
    if let Some(events) = &filter.events {
        let ranges: Vec<_> = events
            .iter()
            .map(|event| {
                let (low, high) = DeliveryId::range_of(*event);
                values.extend([low.0.into(), high.0.into(), event.0.into()]);
                let n = values.len();
                format!("(d.id BETWEEN ${} AND ${} AND d.event = ${n})", n - 2, n - 1)
            })
            .collect();
        conditions.push(if ranges.is_empty() {
            "1 = 0".to_owned()
        } else {
            format!("({})", ranges.join(" OR "))
        });
    }
    let filtered = if conditions.is_empty() {
        String::new()
    } else {
        format!("WHERE {}", conditions.join(" AND "))
    };
    let rows = all(
        connection,
        &format!("{table} {filtered} ORDER BY d.id DESC LIMIT {limit}"),
        values,
    )
    .await?;
    rows.iter().map(delivery_view).collect()
}

/// How much older an event may be than its deliveries for a list to find them: an event gets its time when it is read,
/// and may wait for a ledger that is away. Deliveries that are matched still later, such as those of a large fan-out
/// after a longer outage, are missing in a list that begins in between.
const LATE: Duration = Duration::from_hours(24);

/// How much younger an event may be than its deliveries: a process's clock may have been ahead of the ledger's.
const EARLY: Duration = Duration::from_hours(1);

/// The least id of a delivery whose event was read at that time or later. `created_at` decides what is listed; this id
/// only keeps a list from reading everything that is older or younger.
fn first_id_at(time: Timestamp) -> Uuid {
    uuid::Builder::from_unix_timestamp_millis(time.as_unix_millis(), &[0; 10]).into_uuid()
}

fn webhook(row: &QueryResult) -> Result<Webhook, Error> {
    Webhook::coded(get(row, "webhook")?).ok_or_else(|| corrupt("an unknown webhook"))
}

fn delivery_view(row: &QueryResult) -> Result<DeliveryView, Error> {
    let status: i16 = get(row, "status")?;
    let attempts: i64 = get(row, "attempts")?;
    let last_status_code: Option<i32> = get(row, "last_status_code")?;
    let last_error: Option<String> = get(row, "last_error")?;
    let inline = match optional_timestamp(row, "attempt_at")? {
        None => None,
        Some(at) => Some(AttemptView {
            number: attempts,
            at,
            duration: duration(row, "attempt_duration_us")?,
            status_code: last_status_code,
            error: last_error.clone(),
            detail: get(row, "attempt_detail")?,
            next_due_at: None,
        }),
    };
    Ok(DeliveryView {
        id: DeliveryId(uuid(row, "id")?),
        event: EventUid(uuid(row, "event")?),
        event_id: EventId(uuid(row, "event_id")?),
        subscription: SubscriptionId(uuid(row, "subscription")?),
        webhook: webhook(row)?,
        status: if status == 0 {
            Status::Open
        } else {
            Status::Closed(closed_status(row)?)
        },
        reason: get(row, "reason")?,
        attempts,
        due_at: optional_timestamp(row, "due_at")?,
        created_at: timestamp(row, "created_at")?,
        closed_at: optional_timestamp(row, "closed_at")?,
        last_status_code,
        last_error,
        inline,
    })
}

fn attempt_view(row: &QueryResult) -> Result<AttemptView, Error> {
    Ok(AttemptView {
        number: get(row, "number")?,
        at: timestamp(row, "at")?,
        duration: duration(row, "duration_us")?,
        status_code: get(row, "status_code")?,
        error: get(row, "error")?,
        detail: get(row, "detail")?,
        next_due_at: optional_timestamp(row, "next_due_at")?,
    })
}

fn duration(row: &QueryResult, column: &str) -> Result<Duration, Error> {
    let micros: i64 = get(row, column)?;
    Ok(Duration::from_micros(u64::try_from(micros).unwrap_or(0)))
}
