//! What happened: events, deliveries and attempts as the API shows them.
//!
//! A delivery's id begins with the time of its event, so lists are newest first by id, and a cursor is
//! an id.

use crate::rows::{SHOWN_CLOSED, SHOWN_OPEN};
use crate::sql::{all, corrupt, for_values, get, history, optional_timestamp, timestamp, uuid};
use crate::{Error, Ledger};
use herald_domain::catalogue::{EventType, Webhook};
use herald_domain::delivery::{Closed, Status};
use herald_domain::event::Objects;
use herald_domain::id::{DeliveryId, EventId, EventUid, SubscriptionId};
use herald_domain::time::Timestamp;
use sea_orm::{ConnectionTrait, QueryResult, Value};
use std::collections::HashMap;
use std::time::Duration;
use uuid::Uuid;

/// An event as it was recorded.
#[derive(Debug, Clone)]
pub struct EventView {
    /// Its identity in the ledger.
    pub uid: EventUid,
    /// In whose scope its `Id` is unique.
    pub account: String,
    /// The producer's `Id`.
    pub id: EventId,
    /// What happened.
    pub kind: EventType,
    /// When it happened, if the producer said.
    pub occurred_at: Option<Timestamp>,
    /// When ingest accepted it.
    pub accepted_at: Timestamp,
    /// When it was recorded.
    pub recorded_at: Timestamp,
    /// What it concerns.
    pub objects: Objects,
    /// `Data`, to the byte.
    pub data: String,
    /// How many subscriptions it matched, of those up to the cursor.
    pub matched_count: i64,
    /// Whether all that it matched are recorded.
    pub complete: bool,
}

/// A delivery as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryView {
    /// Its id.
    pub id: DeliveryId,
    /// Its event's identity in the ledger.
    pub event: EventUid,
    /// Its event's `Id`.
    pub event_id: EventId,
    /// To whom.
    pub subscription: SubscriptionId,
    /// What the subscription asked for.
    pub webhook: Webhook,
    /// Where it stands.
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
    /// From 1.
    pub number: i64,
    /// When it began.
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

    /// One delivery.
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
                // An outcome that was told twice, because the first answer was lost, is one attempt.
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

    /// The events with that `Id`; several where several accounts used the same one.
    pub async fn events(&self, id: EventId) -> Result<Vec<EventView>, Error> {
        let read = all(
            self.store.api(),
            "SELECT * FROM events WHERE id = $1 ORDER BY uid DESC",
            [id.0.into()],
        );
        let rows = self.store.ask(read).await?;
        rows.iter().map(event_view).collect()
    }

    /// The event of that identity.
    pub async fn event(&self, uid: EventUid) -> Result<Option<EventView>, Error> {
        let read = all(self.store.api(), "SELECT * FROM events WHERE uid = $1", [uid.0.into()]);
        let rows = self.store.ask(read).await?;
        rows.first().map(event_view).transpose()
    }

    /// Messages that were no events, newest first, those before `before`; one scope's only, if one is
    /// given.
    pub async fn rejected(
        &self,
        account: Option<&str>,
        before: Option<Uuid>,
        limit: u64,
    ) -> Result<Vec<RejectedView>, Error> {
        let before = before.unwrap_or(Uuid::max());
        // Two texts, so that each finds its index.
        let of_account = account.map_or("", |_| "AND account = $3");
        let mut values = vec![before.into(), limit.into()];
        values.extend(account.map(|account| account.to_owned().into()));
        let sql = format!("SELECT * FROM rejected_events WHERE id < $1 {of_account} ORDER BY id DESC LIMIT $2");
        let rows = self.store.ask(all(self.store.api(), &sql, values)).await?;
        rows.iter()
            .map(|row| {
                Ok(RejectedView {
                    id: uuid(row, "id")?,
                    account: get(row, "account")?,
                    received_at: timestamp(row, "received_at")?,
                    faults: get(row, "faults")?,
                    body: get(row, "body")?,
                    body_bytes: get(row, "body_bytes")?,
                })
            })
            .collect()
    }
}

/// A message that was no event.
#[derive(Debug, Clone)]
pub struct RejectedView {
    /// Its id.
    pub id: Uuid,
    /// In whose scope it came.
    pub account: String,
    /// When it was rejected.
    pub received_at: Timestamp,
    /// Why, as JSON: the `errors` of a problem answer.
    pub faults: String,
    /// What came, up to 1 MiB.
    pub body: Vec<u8>,
    /// How long it was.
    pub body_bytes: i64,
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
        // Written out, so that the planner sees that the partial index serves.
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
            // The index of open deliveries begins with it.
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

/// How much older an event may be than its deliveries, for those that a list looks at: an event gets its time
/// when it is read, and may wait for a ledger that is away. Deliveries that are matched later still, as those of
/// a large fan-out after a longer outage, are not in a list that begins in between.
const LATE: Duration = Duration::from_hours(24);

/// How much younger it may be: a process's clock may have been ahead of the ledger's.
const EARLY: Duration = Duration::from_hours(1);

/// The least id of a delivery whose event was read at that time or later. What `created_at` says decides; this
/// keeps a list from reading all that is older or younger.
fn first_id_at(time: Timestamp) -> Uuid {
    uuid::Builder::from_unix_timestamp_millis(time.as_unix_millis(), &[0; 10]).into_uuid()
}

fn webhook(row: &QueryResult) -> Result<Webhook, Error> {
    Webhook::coded(get(row, "webhook")?).ok_or_else(|| corrupt("an unknown webhook"))
}

pub(crate) fn closed_status(row: &QueryResult) -> Result<Closed, Error> {
    Closed::coded(get(row, "status")?).ok_or_else(|| corrupt("an unknown status"))
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

fn event_view(row: &QueryResult) -> Result<EventView, Error> {
    let objects: String = get(row, "objects")?;
    Ok(EventView {
        uid: EventUid(uuid(row, "uid")?),
        account: get(row, "account")?,
        id: EventId(uuid(row, "id")?),
        kind: EventType::coded(get(row, "type")?).ok_or_else(|| corrupt("an unknown event type"))?,
        occurred_at: optional_timestamp(row, "occurred_at")?,
        accepted_at: timestamp(row, "accepted_at")?,
        recorded_at: timestamp(row, "recorded_at")?,
        objects: Objects::from_json(&objects).map_err(|_faults| corrupt("malformed objects"))?,
        data: get(row, "data")?,
        matched_count: get(row, "matched_count")?,
        complete: get::<Option<Uuid>>(row, "cursor")?.is_none(),
    })
}
