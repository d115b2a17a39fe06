//! Recording events: each once, with the deliveries that follow from it.
//!
//! One transaction per batch inserts the events that are new, their open deliveries and
//! `matched_count`. It reads the registry's version under a lock that keeps changes out. If subscriptions have
//! changed since the batch was matched, its matches are brought up to date there and then: however often
//! subscriptions change, a batch is recorded at the first or second try. An event that matches more than [`CHUNK`] subscriptions gets the first of them
//! there and the others in further transactions, each of which moves the event's cursor on; the
//! cursor's old value is the gate, so whoever continues (the dispatcher, or a sweep after a crash)
//! does so once.

mod at_once;
mod trial;

use crate::rows::insert_open;
use crate::shards::Ownership;
use crate::sql::{
    corrupt, execute, for_repeatable_rows, for_values, get, insert_rows, one, timestamp, trace_context, uuid,
};
use crate::{Error, Ledger, locks, subscriptions, wakeups};
use herald_domain::catalogue::{EventType, Webhook};
use herald_domain::delivery::Delivery;
use herald_domain::event::Objects;
use herald_domain::id::{DeliveryId, EventId, EventUid, SubscriptionId};
use herald_domain::index::Amendment;
use herald_domain::time::Timestamp;
use herald_domain::trace::TraceContext;
use sea_orm::{DatabaseTransaction, Value};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// The most deliveries that one transaction inserts for one event.
pub const CHUNK: usize = 4096;

/// How long a repeated `Id` is recognised.
pub const IDEMPOTENCY_WINDOW: Duration = Duration::from_hours(7 * 24);

/// What a delivery's message is made of; shared by all deliveries of the event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventRecord {
    /// Its identity in the ledger.
    pub uid: EventUid,
    /// The producer's `Id`.
    pub id: EventId,
    /// What happened.
    pub kind: EventType,
    /// What it concerns.
    pub objects: Objects,
    /// `Data`, to the byte.
    pub data: String,
    /// When ingest accepted it.
    pub accepted_at: Timestamp,
    /// What its attempts follow from: the span in which it was dispatched, or the producer's, if there is one.
    pub traceparent: Option<TraceContext>,
}

/// An event to be recorded, matched against the registry.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// The event; its uid counts only if it is new.
    pub record: Arc<EventRecord>,
    /// In whose scope its `Id` is unique.
    pub account: Arc<str>,
    /// When it happened, if the producer said.
    pub occurred_at: Option<Timestamp>,
    /// Tells apart two bodies with one `Id`.
    pub body_hash: i64,
    /// The subscriptions that it matches, ordered by GUID.
    pub matches: Vec<(SubscriptionId, Webhook)>,
}

/// The most changed subscriptions that a batch's matches are brought up to date with. Beyond it the registry is
/// to be refreshed first, which leaves fewer.
pub const MAX_AMENDED: u64 = 512;

/// What became of a batch.
#[derive(Debug)]
pub enum Recorded {
    /// More has changed in the registry since the batch was matched than can be made up for in the transaction;
    /// nothing was written.
    Stale,
    /// All is in the ledger: the events, with what they match by the registry's present version, and one
    /// disposition for each, in order.
    Done(Vec<NewEvent>, Vec<Disposition>),
}

/// What became of the next chunk of a large fan-out.
#[derive(Debug)]
pub enum Extended {
    /// As [`Recorded::Stale`].
    Stale,
    /// Somebody else went on from that cursor.
    Overtaken,
    /// The chunk is in the ledger.
    Done {
        /// Its matches.
        recorded: Vec<(SubscriptionId, Webhook)>,
        /// Of their deliveries those that this process may send at once, as in [`Disposition::New`].
        mine: Vec<Delivery>,
        /// If there are more matches: the last one recorded.
        cursor: Option<SubscriptionId>,
    },
}

/// What became of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Disposition {
    /// It was new.
    New {
        /// The deliveries that this process may send at once: their shards are its own. For the
        /// others a wake-up was written.
        mine: Vec<Delivery>,
        /// If there are more matches than [`CHUNK`]: the last one recorded.
        cursor: Option<SubscriptionId>,
    },
    /// An event with that `Id` was there already.
    Repeated {
        /// It came with another body, which was discarded.
        differs: bool,
    },
}

/// An event whose fan-out is not complete.
#[derive(Debug, Clone)]
pub struct Incomplete {
    /// The event.
    pub record: Arc<EventRecord>,
    /// The last subscription recorded.
    pub cursor: SubscriptionId,
}

impl Ledger {
    /// Records a batch that was matched by the registry's `version`.
    pub async fn record(&self, events: Vec<NewEvent>, version: i64, owner: Ownership) -> Result<Recorded, Error> {
        let mut events = events;
        let mut at_once = None;
        if self.store.is_shared() {
            at_once = at_once::record(self, &events, version, &owner).await?;
        }
        let dispositions = if let Some(dispositions) = at_once {
            dispositions
        } else {
            let record = self
                .store
                .write(move |txn, now| Box::pin(record(txn, events, version, owner, now)));
            let Some((as_recorded, dispositions)) = record.await? else {
                return Ok(Recorded::Stale);
            };
            events = as_recorded;
            dispositions
        };
        let new = events
            .iter()
            .zip(&dispositions)
            .filter(|(_, d)| matches!(d, Disposition::New { .. }));
        let opened = new.map(|(event, _)| first_chunk(&event.matches).0.len()).sum();
        self.signals.opened(opened);
        Ok(Recorded::Done(events, dispositions))
    }

    /// Continues an event's fan-out with the next of `matches` behind `cursor`. They are in order, and all that the
    /// event matches by the registry's `version`.
    pub async fn extend(
        &self,
        event: Arc<EventRecord>,
        cursor: SubscriptionId,
        matches: Vec<(SubscriptionId, Webhook)>,
        version: i64,
        owner: Ownership,
    ) -> Result<Extended, Error> {
        let extended = self
            .store
            .write(move |txn, now| Box::pin(extend(txn, event, cursor, matches, version, owner, now)))
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
                "SELECT uid, id, type, objects, data, accepted_at, traceparent, cursor FROM events \
             WHERE cursor IS NOT NULL ORDER BY uid LIMIT $1",
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

/// Keeps changes of the registry out until the transaction ends; what changed since `version`, unless that is too
/// much, the version, and the time.
async fn hold(
    txn: &DatabaseTransaction,
    version: i64,
    now: Timestamp,
) -> Result<Option<(Amendment, (i64, Timestamp))>, Error> {
    let (current, now) = locks::hold(txn, now).await?;
    let amendment = if current == version {
        Some(Amendment::default())
    } else {
        subscriptions::amendment_since(txn, version, MAX_AMENDED).await?
    };
    Ok(amendment.map(|amendment| (amendment, (current, now))))
}

async fn extend(
    txn: &DatabaseTransaction,
    event: Arc<EventRecord>,
    cursor: SubscriptionId,
    mut matches: Vec<(SubscriptionId, Webhook)>,
    version: i64,
    owner: Ownership,
    now: Timestamp,
) -> Result<Extended, Error> {
    let Some((amendment, opening)) = hold(txn, version, now).await? else {
        return Ok(Extended::Stale);
    };
    amendment.apply(event.kind, &event.objects, &mut matches);
    // Nothing up to the cursor is matched again.
    matches.retain(|(subscription, _)| *subscription > cursor);
    let (chunk, next) = first_chunk(&matches);
    let moved = execute(
        txn,
        "UPDATE events SET cursor = $1, matched_count = matched_count + $2 WHERE uid = $3 AND cursor = $4",
        [
            next.map(|id| id.0).into(),
            count(chunk.len()),
            event.uid.0.into(),
            cursor.0.into(),
        ],
    )
    .await?;
    if moved == 0 {
        return Ok(Extended::Overtaken);
    }
    let deliveries = deliveries_of(&event, chunk, opening);
    insert_open(txn, deliveries.iter().map(|delivery| (event.uid, delivery))).await?;
    let deliveries = deliveries.into_iter().map(|delivery| ((), delivery)).collect();
    let mine = wakeups::keep_mine(&owner, txn, deliveries).await?;
    let recorded = chunk.len();
    matches.truncate(recorded);
    Ok(Extended::Done {
        recorded: matches,
        mine: mine.into_iter().map(|((), delivery)| delivery).collect(),
        cursor: next,
    })
}

/// Records a batch in a transaction; none where more has changed since `version` than can be made up for.
async fn record(
    txn: &DatabaseTransaction,
    mut events: Vec<NewEvent>,
    version: i64,
    owner: Ownership,
    now: Timestamp,
) -> Result<Option<(Vec<NewEvent>, Vec<Disposition>)>, Error> {
    let Some((amendment, (version, now))) = hold(txn, version, now).await? else {
        return Ok(None);
    };
    for event in &mut events {
        amendment.apply(event.record.kind, &event.record.objects, &mut event.matches);
    }
    let new = insert_keys(txn, &events, now).await?;
    let differing = differing_repeats(txn, &events, &new).await?;
    let rows = events
        .iter()
        .filter(|event| new.contains(&event.record.uid))
        .map(|event| {
            let (chunk, cursor) = first_chunk(&event.matches);
            event_row(event, chunk.len(), cursor, now)
        });
    insert_rows(
        txn,
        "INSERT INTO events (uid, account, id, type, occurred_at, accepted_at, recorded_at, objects, data, traceparent, \
         matched_count, cursor)",
        rows.collect(),
    )
    .await?;
    let mut dispositions = Vec::with_capacity(events.len());
    let mut deliveries = Vec::new();
    for (position, event) in events.iter().enumerate() {
        if new.contains(&event.record.uid) {
            let (chunk, cursor) = first_chunk(&event.matches);
            deliveries.extend(
                deliveries_of(&event.record, chunk, (version, now))
                    .into_iter()
                    .map(|delivery| (position, delivery)),
            );
            dispositions.push(Disposition::New {
                mine: Vec::new(),
                cursor,
            });
        } else {
            let differs = differing.contains(&event.record.uid);
            dispositions.push(Disposition::Repeated { differs });
        }
    }
    insert_open(
        txn,
        deliveries
            .iter()
            .map(|(position, delivery)| (events[*position].record.uid, delivery)),
    )
    .await?;
    for (position, delivery) in wakeups::keep_mine(&owner, txn, deliveries).await? {
        if let Disposition::New { mine, .. } = &mut dispositions[position] {
            mine.push(delivery);
        }
    }
    Ok(Some((events, dispositions)))
}

/// Takes the keys that are free, or whose window is over; which events got theirs.
async fn insert_keys(
    txn: &DatabaseTransaction,
    events: &[NewEvent],
    now: Timestamp,
) -> Result<HashSet<EventUid>, Error> {
    // Of one that comes twice in a batch the first counts; and all in one order, so that two who have the
    // same events in hand wait for one another and never in a circle.
    let mut keys = BTreeMap::new();
    for event in events {
        keys.entry((event.record.id.0, &*event.account)).or_insert(event);
    }
    let rows = keys.into_values().map(|event| {
        let record = &event.record;
        let account = Value::from(&*event.account);
        [
            record.id.0.into(),
            account,
            record.uid.0.into(),
            now.as_micros().into(),
            event.body_hash.into(),
        ]
    });
    let taken = for_repeatable_rows(
        txn,
        "INSERT INTO event_keys (id, account, uid, recorded_at, body_hash)",
        rows.collect(),
        &format!(
            "ON CONFLICT (id, account) DO UPDATE SET uid = excluded.uid, recorded_at = excluded.recorded_at, \
             body_hash = excluded.body_hash WHERE event_keys.recorded_at < excluded.recorded_at - {} RETURNING uid",
            IDEMPOTENCY_WINDOW.as_micros()
        ),
    )
    .await?;
    taken.iter().map(|row| Ok(EventUid(uuid(row, "uid")?))).collect()
}

/// Of the events that are not new, those whose body is not the first one's.
async fn differing_repeats(
    txn: &DatabaseTransaction,
    events: &[NewEvent],
    new: &HashSet<EventUid>,
) -> Result<HashSet<EventUid>, Error> {
    let repeats: Vec<_> = events.iter().filter(|event| !new.contains(&event.record.uid)).collect();
    if repeats.is_empty() {
        return Ok(HashSet::new());
    }
    let ids = repeats.iter().map(|event| event.record.id.0.into()).collect();
    let rows = for_values(txn, "SELECT id, account, body_hash FROM event_keys WHERE id", ids, "").await?;
    let mut first: HashMap<(Uuid, String), i64> = HashMap::new();
    for row in &rows {
        first.insert((uuid(row, "id")?, get(row, "account")?), get(row, "body_hash")?);
    }
    let differs =
        |event: &&NewEvent| first.get(&(event.record.id.0, (*event.account).to_owned())) != Some(&event.body_hash);
    Ok(repeats
        .into_iter()
        .filter(differs)
        .map(|event| event.record.uid)
        .collect())
}

fn event_row(event: &NewEvent, matched: usize, cursor: Option<SubscriptionId>, now: Timestamp) -> [Value; 12] {
    let record = &event.record;
    [
        record.uid.0.into(),
        (*event.account).into(),
        record.id.0.into(),
        record.kind.code().into(),
        event.occurred_at.map(Timestamp::as_micros).into(),
        record.accepted_at.as_micros().into(),
        now.as_micros().into(),
        record.objects.to_json().into(),
        record.data.as_str().into(),
        record.traceparent.map(|context| context.to_string()).into(),
        count(matched),
        cursor.map(|id| id.0).into(),
    ]
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
        kind: EventType::coded(get(row, "type")?).ok_or_else(|| corrupt("an unknown event type"))?,
        objects: Objects::from_json(&objects).map_err(|_faults| corrupt("malformed objects"))?,
        data: get(row, "data")?,
        accepted_at: timestamp(row, "accepted_at")?,
        traceparent: trace_context(row, "traceparent")?,
    })
}
