//! Recording of events: each once, with the deliveries that follow from it.
//!
//! One transaction per batch inserts the events that are new, their open deliveries and `matched_count`. It
//! reads the registry's version under a lock that keeps changes out. If subscriptions have changed since the batch
//! was matched, the transaction brings the matches up to date. So a batch is recorded at the first or second try,
//! however often subscriptions change. An event that matches more than [`CHUNK`] subscriptions gets the first
//! [`CHUNK`] deliveries in that transaction and the others in further ones. Each of these moves the event's cursor on,
//! and only if it still has its old value. So each chunk is recorded once, be it by the dispatcher or by a sweep
//! after a crash.

mod postgres;
mod transaction;
mod trial;

use crate::shards::ShardLeases;
use crate::sql::{corrupt, get, one, optional_timestamp, timestamp, trace_context, uuid};
use crate::{Error, Ledger, catalogue};
use herald_domain::catalogue::{EventType, Webhook};
use herald_domain::delivery::Delivery;
use herald_domain::event::Objects;
use herald_domain::id::{DeliveryId, EventId, EventUid, SubscriptionId};
use herald_domain::time::Timestamp;
use herald_domain::trace::TraceContext;
use sea_orm::Value;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// The most deliveries that one transaction inserts for one event.
pub const CHUNK: usize = 4096;

/// How long a repeated `Id` is recognised.
pub const IDEMPOTENCY_WINDOW: Duration = Duration::from_hours(7 * 24);

/// The columns of [`event_record`].
pub(crate) const EVENT_COLUMNS: &str = "uid, id, type, occurred_at, objects, data, accepted_at, traceparent, \
    CASE WHEN type >= 1000 THEN (SELECT name FROM event_types WHERE code = type) END AS type_name";

/// A recorded event: what messages are made of, shared by all deliveries of the event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventRecord {
    /// Its identity in the ledger.
    pub uid: EventUid,
    /// The producer's `Id`.
    pub id: EventId,
    /// Its `Type`.
    pub kind: EventType,
    /// When it happened, if the producer said.
    pub occurred_at: Option<Timestamp>,
    /// Its `Objects`: what it is about.
    pub objects: Objects,
    /// `Data`, to the byte.
    pub data: String,
    /// When ingest accepted it.
    pub accepted_at: Timestamp,
    /// The parent span of its attempts: that of its dispatch, or the producer's, if there is one.
    pub traceparent: Option<TraceContext>,
}

/// An event to be recorded, matched against the registry.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// The event; its uid counts only if it is new.
    pub record: Arc<EventRecord>,
    /// The account in whose scope its `Id` is unique.
    pub account: Arc<str>,
    /// A hash that tells apart two bodies with one `Id`.
    pub body_hash: i64,
    /// The subscriptions that it matches, ordered by GUID.
    pub matches: Vec<(SubscriptionId, Webhook)>,
}

/// The most changed subscriptions with which a transaction brings a batch's matches up to date. If more have changed,
/// the registry must be refreshed first, which leaves fewer.
pub const MAX_AMENDED: u64 = 512;

/// The result of recording a batch of events.
#[derive(Debug)]
pub enum BatchResult {
    /// Nothing was written: since the batch was matched, more than [`MAX_AMENDED`] subscriptions have changed.
    Stale,
    /// Everything is in the ledger: the events, with what they match by the registry's present version, and
    /// the result of each, in order.
    Done(Vec<NewEvent>, Vec<EventResult>),
}

/// The result of recording the next chunk of a large fan-out.
#[derive(Debug)]
pub enum Extended {
    /// Nothing was written, as with [`BatchResult::Stale`].
    Stale,
    /// Another process or task has recorded this chunk.
    Overtaken,
    /// The chunk is in the ledger.
    Done {
        /// The matches of the chunk.
        recorded: Vec<(SubscriptionId, Webhook)>,
        /// The deliveries among them that this process may send at once, as in [`EventResult::New`].
        mine: Vec<Delivery>,
        /// If there are more matches: the last one recorded.
        cursor: Option<SubscriptionId>,
    },
}

/// The result of recording one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventResult {
    /// The event was new, and is recorded.
    New {
        /// The deliveries that this process may send at once: their shards are its own. For the
        /// others a wake-up was written.
        mine: Vec<Delivery>,
        /// If there are more matches than [`CHUNK`]: the last one recorded.
        cursor: Option<SubscriptionId>,
    },
    /// An event with that `Id` was there already.
    Repeated {
        /// Whether it came with another body, which was discarded.
        differs: bool,
    },
}

/// An event whose fan-out is not complete.
#[derive(Debug, Clone)]
pub struct Incomplete {
    /// The event, as it is recorded.
    pub record: Arc<EventRecord>,
    /// The last subscription recorded.
    pub cursor: SubscriptionId,
}

impl Ledger {
    /// Records a batch that was matched by the registry's `version`.
    pub async fn record(&self, events: Vec<NewEvent>, version: i64, owner: ShardLeases) -> Result<BatchResult, Error> {
        let mut events = events;
        let mut at_once = None;
        if self.store.is_shared() {
            at_once = postgres::record(self, &events, version, &owner).await?;
        }
        let results = if let Some(results) = at_once {
            results
        } else {
            let record = self
                .store
                .write(move |txn, now| Box::pin(transaction::record(txn, events, version, owner, now)));
            let Some((as_recorded, results)) = record.await? else {
                return Ok(BatchResult::Stale);
            };
            events = as_recorded;
            results
        };
        let new = events
            .iter()
            .zip(&results)
            .filter(|(_, d)| matches!(d, EventResult::New { .. }));
        let opened = new.map(|(event, _)| first_chunk(&event.matches).0.len()).sum();
        self.signals.opened(opened);
        Ok(BatchResult::Done(events, results))
    }

    /// Continues an event's fan-out with the next of `matches` behind `cursor`. `matches` are ordered, and are
    /// everything that the event matches by the registry's `version`.
    pub async fn extend(
        &self,
        event: Arc<EventRecord>,
        cursor: SubscriptionId,
        matches: Vec<(SubscriptionId, Webhook)>,
        version: i64,
        owner: ShardLeases,
    ) -> Result<Extended, Error> {
        let extended = self
            .store
            .write(move |txn, now| Box::pin(transaction::extend(txn, event, cursor, matches, version, owner, now)))
            .await?;
        if let Extended::Done { recorded, .. } = &extended {
            self.signals.opened(recorded.len());
        }
        Ok(extended)
    }

    /// Events whose fan-out is not complete, oldest first, at most `limit`.
    pub async fn incomplete(&self, limit: u64) -> Result<Vec<Incomplete>, Error> {
        let rows = self
            .ask(
                &format!("SELECT {EVENT_COLUMNS}, cursor FROM events WHERE cursor IS NOT NULL ORDER BY uid LIMIT $1"),
                [limit.into()],
            )
            .await?;
        rows.iter()
            .map(|row| {
                let cursor = SubscriptionId(uuid(row, "cursor")?);
                Ok(Incomplete {
                    record: Arc::new(event_record(row)?),
                    cursor,
                })
            })
            .collect()
    }

    /// How many deliveries an event has in the ledger so far; for tests and the sweep's log.
    pub async fn matched_count(&self, event: EventUid) -> Result<Option<i64>, Error> {
        let row = one(
            self.store.read(),
            "SELECT matched_count FROM events WHERE uid = $1",
            [event.0.into()],
        )
        .await?;
        row.map(|row| get(&row, "matched_count")).transpose()
    }
}

/// The first matches, and the last of them if there are more.
fn first_chunk(matches: &[(SubscriptionId, Webhook)]) -> (&[(SubscriptionId, Webhook)], Option<SubscriptionId>) {
    match matches.split_at_checked(CHUNK) {
        Some((chunk, rest)) if !rest.is_empty() => (chunk, chunk.last().map(|(id, _)| *id)),
        _ => (matches, None),
    }
}

fn deliveries_of(
    event: &EventRecord,
    matches: &[(SubscriptionId, Webhook)],
    (version, now): (i64, Timestamp),
) -> Vec<Delivery> {
    let delivery = |(subscription, webhook): &(SubscriptionId, Webhook)| Delivery {
        id: DeliveryId::derive(event.uid, *subscription, Uuid::nil()),
        subscription: *subscription,
        webhook: *webhook,
        attempts: 0,
        due_at: now,
        created_at: now,
        opened_at: now,
        opened_version: version,
    };
    matches.iter().map(delivery).collect()
}

fn count(n: usize) -> Value {
    i64::try_from(n).unwrap_or(i64::MAX).into()
}

pub(crate) fn event_record(row: &sea_orm::QueryResult) -> Result<EventRecord, Error> {
    let objects: String = get(row, "objects")?;
    Ok(EventRecord {
        uid: EventUid(uuid(row, "uid")?),
        id: EventId(uuid(row, "id")?),
        kind: catalogue::event_type(row)?,
        occurred_at: optional_timestamp(row, "occurred_at")?,
        objects: Objects::from_json(&objects).map_err(|_faults| corrupt("malformed objects"))?,
        data: get(row, "data")?,
        accepted_at: timestamp(row, "accepted_at")?,
        traceparent: trace_context(row, "traceparent")?,
    })
}
