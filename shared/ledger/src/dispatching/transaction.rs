//! Recording of events in a transaction, on either database.

use super::{
    EventRecord, EventResult, Extended, IDEMPOTENCY_WINDOW, MAX_AMENDED, NewEvent, count, deliveries_of, first_chunk,
};
use crate::rows::insert_open;
use crate::shards::ShardLeases;
use crate::sql::{execute, for_repeatable_rows, for_values, get, insert_rows, uuid};
use crate::{Error, locks, subscriptions, wakeups};
use herald_domain::catalogue::Webhook;
use herald_domain::id::{EventUid, SubscriptionId};
use herald_domain::index::Amendment;
use herald_domain::time::Timestamp;
use sea_orm::{DatabaseTransaction, Value};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use uuid::Uuid;

/// Keeps changes of the registry out until the transaction ends. Returns what has changed since `version`, the present
/// version and the time; nothing if too much has changed.
async fn fence(
    txn: &DatabaseTransaction,
    version: i64,
    now: Timestamp,
) -> Result<Option<(Amendment, (i64, Timestamp))>, Error> {
    let (current, now) = locks::fence(txn, now).await?;
    let amendment = if current == version {
        Some(Amendment::default())
    } else {
        subscriptions::amendment_since(txn, version, MAX_AMENDED).await?
    };
    Ok(amendment.map(|amendment| (amendment, (current, now))))
}

/// Records the next chunk of an event's deliveries.
pub(super) async fn extend(
    txn: &DatabaseTransaction,
    event: Arc<EventRecord>,
    cursor: SubscriptionId,
    mut matches: Vec<(SubscriptionId, Webhook)>,
    version: i64,
    owner: ShardLeases,
    now: Timestamp,
) -> Result<Extended, Error> {
    let Some((amendment, opening)) = fence(txn, version, now).await? else {
        return Ok(Extended::Stale);
    };
    amendment.apply(&event.kind, &event.objects, &mut matches);
    // Subscriptions up to the cursor are not matched again.
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

/// Records a batch in a transaction. Returns nothing if too much has changed since `version`.
pub(super) async fn record(
    txn: &DatabaseTransaction,
    mut events: Vec<NewEvent>,
    version: i64,
    owner: ShardLeases,
    now: Timestamp,
) -> Result<Option<(Vec<NewEvent>, Vec<EventResult>)>, Error> {
    let Some((amendment, (version, now))) = fence(txn, version, now).await? else {
        return Ok(None);
    };
    for event in &mut events {
        amendment.apply(&event.record.kind, &event.record.objects, &mut event.matches);
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
    let mut results = Vec::with_capacity(events.len());
    let mut deliveries = Vec::new();
    for (position, event) in events.iter().enumerate() {
        if new.contains(&event.record.uid) {
            let (chunk, cursor) = first_chunk(&event.matches);
            deliveries.extend(
                deliveries_of(&event.record, chunk, (version, now))
                    .into_iter()
                    .map(|delivery| (position, delivery)),
            );
            results.push(EventResult::New {
                mine: Vec::new(),
                cursor,
            });
        } else {
            let differs = differing.contains(&event.record.uid);
            results.push(EventResult::Repeated { differs });
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
        if let EventResult::New { mine, .. } = &mut results[position] {
            mine.push(delivery);
        }
    }
    Ok(Some((events, results)))
}

/// Takes the keys that are free, or whose window is over. Returns the events that got their key.
async fn insert_keys(
    txn: &DatabaseTransaction,
    events: &[NewEvent],
    now: Timestamp,
) -> Result<HashSet<EventUid>, Error> {
    // If a key comes twice in a batch, the first event counts. All keys are taken in one order, so two transactions
    // with the same events wait for one another but never in a circle.
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

/// The repeated events whose body differs from the first one's.
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
        record.occurred_at.map(Timestamp::as_micros).into(),
        record.accepted_at.as_micros().into(),
        now.as_micros().into(),
        record.objects.to_json().into(),
        record.data.as_str().into(),
        record.traceparent.map(|context| context.to_string()).into(),
        count(matched),
        cursor.map(|id| id.0).into(),
    ]
}
