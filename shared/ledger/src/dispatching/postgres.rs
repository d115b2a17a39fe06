//! Recording a batch on PostgreSQL: one call, see `migrations/src/postgres/0003_at_once.sql`.

use super::{EventResult, IDEMPOTENCY_WINDOW, NewEvent, count, deliveries_of, first_chunk};
use crate::shards::ShardLeases;
use crate::sql::{all, array, corrupt, get, uuid};
use crate::{Error, Ledger};
use herald_domain::delivery::Delivery;
use herald_domain::id::{EventUid, Shard};
use herald_domain::time::Timestamp;
use sea_orm::sea_query::ArrayType;
use sea_orm::{DatabaseTransaction, QueryResult, Value};
use std::collections::{BTreeSet, HashMap, HashSet};

const RECORD: &str = "SELECT what, event, number FROM herald_record($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, \
                      $13, $14, $15, $16, $17, $18, $19, $20, $21, $22)";

/// Records a batch. Returns nothing if the registry's version is no longer `version`.
pub(super) async fn record(
    ledger: &Ledger,
    events: &[NewEvent],
    version: i64,
    owner: &ShardLeases,
) -> Result<Option<Vec<EventResult>>, Error> {
    let deliveries = not_yet_opened(events, version);
    let arguments = arguments(events, version, owner, &deliveries);
    let rows = ledger.store.run(RECORD, arguments).await?;
    recorded(events, deliveries, &rows)
}

/// [`record`] as a part of a transaction.
pub(super) async fn record_in(
    txn: &DatabaseTransaction,
    events: &[NewEvent],
    version: i64,
    owner: &ShardLeases,
) -> Result<Option<Vec<EventResult>>, Error> {
    let deliveries = not_yet_opened(events, version);
    let rows = all(txn, RECORD, arguments(events, version, owner, &deliveries)).await?;
    recorded(events, deliveries, &rows)
}

/// The deliveries of each event. The call tells when they were opened.
fn not_yet_opened(events: &[NewEvent], version: i64) -> Vec<Vec<Delivery>> {
    let before = Timestamp::from_micros(0);
    let of = |event: &NewEvent| deliveries_of(&event.record, first_chunk(&event.matches).0, (version, before));
    events.iter().map(of).collect()
}

fn recorded(
    events: &[NewEvent],
    deliveries: Vec<Vec<Delivery>>,
    rows: &[QueryResult],
) -> Result<Option<Vec<EventResult>>, Error> {
    let Some(answer) = Answer::read(rows)? else {
        return Ok(None);
    };
    let results = events.iter().zip(deliveries).map(|(event, deliveries)| {
        if let Some(differs) = answer.repeated.get(&event.record.uid) {
            return EventResult::Repeated { differs: *differs };
        }
        let mine = deliveries
            .into_iter()
            .filter(|delivery| !answer.others.contains(&Shard::of(delivery.subscription)))
            .map(|delivery| Delivery {
                due_at: answer.now,
                created_at: answer.now,
                opened_at: answer.now,
                ..delivery
            });
        EventResult::New {
            mine: mine.collect(),
            cursor: first_chunk(&event.matches).1,
        }
    });
    Ok(Some(results.collect()))
}

/// The call's arguments, in its order.
fn arguments(events: &[NewEvent], version: i64, owner: &ShardLeases, deliveries: &[Vec<Delivery>]) -> Vec<Value> {
    let of_events = |kind, value: fn(&NewEvent) -> Value| array(kind, events.iter().map(value));
    let all = || {
        events
            .iter()
            .zip(deliveries)
            .flat_map(|(event, deliveries)| deliveries.iter().map(move |it| (event, it)))
    };
    let of_deliveries = |kind, value: fn(&NewEvent, &Delivery) -> Value| {
        array(kind, all().map(|(event, delivery)| value(event, delivery)))
    };
    let shards: BTreeSet<u8> = all().map(|(_, delivery)| Shard::of(delivery.subscription).0).collect();
    // Where this process does not own the shard: an epoch that no shard has.
    let epochs = shards
        .iter()
        .map(|shard| owner.epoch(Shard(*shard)).unwrap_or(-1).into());
    vec![
        version.into(),
        of_events(ArrayType::Uuid, |event| event.record.uid.0.into()),
        of_events(ArrayType::Uuid, |event| event.record.id.0.into()),
        of_events(ArrayType::String, |event| (*event.account).into()),
        of_events(ArrayType::SmallInt, |event| event.record.kind.code().into()),
        of_events(ArrayType::BigInt, |event| {
            event.record.occurred_at.map(Timestamp::as_micros).into()
        }),
        of_events(ArrayType::BigInt, |event| event.record.accepted_at.as_micros().into()),
        of_events(ArrayType::String, |event| event.record.objects.to_json().into()),
        of_events(ArrayType::String, |event| event.record.data.as_str().into()),
        of_events(ArrayType::String, |event| {
            event.record.traceparent.map(|context| context.to_string()).into()
        }),
        of_events(ArrayType::BigInt, |event| event.body_hash.into()),
        of_events(ArrayType::BigInt, |event| count(first_chunk(&event.matches).0.len())),
        of_events(ArrayType::Uuid, |event| {
            first_chunk(&event.matches).1.map(|id| id.0).into()
        }),
        of_deliveries(ArrayType::Uuid, |_, delivery| delivery.id.0.into()),
        of_deliveries(ArrayType::Uuid, |event, _| event.record.uid.0.into()),
        of_deliveries(ArrayType::Uuid, |_, delivery| delivery.subscription.0.into()),
        of_deliveries(ArrayType::SmallInt, |_, delivery| {
            i16::from(Shard::of(delivery.subscription).0).into()
        }),
        of_deliveries(ArrayType::SmallInt, |_, delivery| delivery.webhook.code().into()),
        owner.worker().into(),
        array(ArrayType::SmallInt, shards.iter().map(|shard| i16::from(*shard).into())),
        array(ArrayType::BigInt, epochs),
        i64::try_from(IDEMPOTENCY_WINDOW.as_micros()).unwrap_or(i64::MAX).into(),
    ]
}

/// The answer of the call.
struct Answer {
    now: Timestamp,
    /// For each event that was there before: whether it came with another body.
    repeated: HashMap<EventUid, bool>,
    /// The shards that are not this process's.
    others: HashSet<Shard>,
}

impl Answer {
    /// Nothing if the registry has another version.
    fn read(rows: &[QueryResult]) -> Result<Option<Self>, Error> {
        let mut answer = Self {
            now: Timestamp::from_micros(0),
            repeated: HashMap::new(),
            others: HashSet::new(),
        };
        for row in rows {
            let what: i16 = get(row, "what")?;
            match what {
                0 => return Ok(None),
                1 => answer.now = Timestamp::from_micros(get(row, "number")?),
                2 => {
                    let differs: i64 = get(row, "number")?;
                    answer.repeated.insert(EventUid(uuid(row, "event")?), differs != 0);
                }
                3 => {
                    let shard: i64 = get(row, "number")?;
                    let shard = u8::try_from(shard).map_err(|_out_of_range| corrupt("a shard above 255"))?;
                    answer.others.insert(Shard(shard));
                }
                _ => return Err(corrupt("an answer of herald_record")),
            }
        }
        Ok(Some(answer))
    }
}
