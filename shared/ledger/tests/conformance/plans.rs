//! On PostgreSQL nothing on the way of an event reads a table from end to end, however much is in it.

use crate::rig::{Database, EARLIEST, Rig, delivered, event, open_lanes, retried};
use herald_domain::id::Shard;
use herald_domain::lanes::Scope;
use herald_domain::time::Timestamp;
use herald_ledger::dispatching::EventResult;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Rows in each of the tables that grow; a million with `HERALD_LONG`.
fn rows() -> u32 {
    if std::env::var_os("HERALD_LONG").is_some() {
        1_000_000
    } else {
        50_000
    }
}

/// Fills every table that grows: events long delivered, and as many deliveries of one subscriber that wait
/// for a retry.
async fn fill(rig: &Rig, waiting: Uuid) {
    let rows = rows();
    // A UUIDv7 of this moment, and its neighbours.
    let millis = rig.ledger.now().as_micros() / 1000;
    let id = |variant: &str| format!("('{millis:012x}7000{variant}' || lpad(to_hex(n), 12, '0'))::uuid");
    let (uid, shard) = (id("8000"), Shard::of(herald_domain::id::SubscriptionId(waiting)).0);
    let fill = [
        format!(
            "INSERT INTO events (uid, account, id, type, accepted_at, recorded_at, objects, data, matched_count) \
             SELECT {uid}, 'filled', {uid}, 2, 1, 1, '{{}}', '{{}}', 2 FROM generate_series(1, {rows}) AS n"
        ),
        format!("INSERT INTO event_keys SELECT {uid}, 'filled', {uid}, 1, 1 FROM generate_series(1, {rows}) AS n"),
        format!(
            "INSERT INTO deliveries_closed (id, event, subscription, webhook, status, attempts, created_at, closed_at, \
             last_status_code) SELECT {}, {uid}, gen_random_uuid(), 2, 1, 1, 1, 1, 200 FROM generate_series(1, {rows}) AS n",
            id("8001")
        ),
        format!(
            "INSERT INTO deliveries_open (id, event, subscription, shard, webhook, attempts, due_at, created_at, opened_at) \
             SELECT {}, {uid}, '{waiting}', {shard}, 2, 1, 9000000000000000, 1, 1 FROM generate_series(1, {rows}) AS n",
            id("8002")
        ),
        "ANALYZE".to_owned(),
    ];
    for sql in fill {
        rig.execute(sql).await.unwrap();
    }
}

/// How often a table that grows was read from end to end, and by an index.
async fn scans(rig: &Rig) -> Vec<(String, i64, i64)> {
    let sql = "SELECT relname, seq_scan, idx_scan FROM pg_stat_user_tables WHERE relname ~ \
               '^(events_\\d|event_keys|deliveries_closed_\\d|deliveries_open)' AND n_live_tup > 1000 ORDER BY relname";
    let rows = herald_ledger::sql::all(rig.ledger.store().read(), sql, [])
        .await
        .unwrap();
    rows.iter()
        .map(|row| {
            (
                row.try_get("", "relname").unwrap(),
                row.try_get("", "seq_scan").unwrap(),
                row.try_get("", "idx_scan").unwrap(),
            )
        })
        .collect()
}

#[tokio::test]
async fn nothing_on_an_events_way_reads_a_table_from_end_to_end() {
    let rig = Rig::new(Database::Postgres).await;
    let fresh = rig.subscribe(1).await;
    let waiting = rig.subscribe(2).await;
    fill(&rig, waiting.0).await;
    let before = scans(&rig).await;
    assert_eq!(before.len(), 4, "{before:?}");

    // A process whose end makes its counts known.
    let walker = rig.another().await;
    let version = walker.registry_version().await.unwrap();
    let events = (0..100)
        .map(|_| event(Uuid::now_v7(), "a", &[fresh]))
        .collect::<Vec<_>>();
    let uids: Vec<_> = events.iter().map(|event| event.record.uid).collect();
    let recorded = walker.record(events.clone(), version, rig.owned.clone()).await.unwrap();
    let herald_ledger::dispatching::BatchResult::Done(_, results) = recorded else {
        panic!("the registry did not change")
    };
    // Once more, as a producer that heard nothing does.
    walker.record(events, version, rig.owned.clone()).await.unwrap();
    let mut outcomes = Vec::new();
    for (place, (result, uid)) in results.into_iter().zip(&uids).enumerate() {
        let EventResult::New { mine, .. } = result else {
            panic!("it is new")
        };
        for delivery in mine {
            let finish = if place % 2 == 0 {
                delivered(delivery, *uid)
            } else {
                retried(delivery, *uid, Timestamp::from_micros(2))
            };
            outcomes.push(crate::rig::under(&rig.owned, finish));
        }
    }
    walker.record_outcomes(outcomes).await.unwrap();
    assert_eq!(
        walker
            .open_deliveries(fresh.into(), EARLIEST, 100, &Scope::all())
            .await
            .unwrap()
            .len(),
        50
    );
    // None is due, and that is seen by the first.
    assert_eq!(
        walker
            .open_deliveries(waiting.into(), EARLIEST, 100, &Scope::all())
            .await
            .unwrap()
            .len(),
        1
    );
    assert_eq!(open_lanes(&walker, rig.owned.shards(), 1000).await.len(), 2);
    assert!(walker.incomplete(10).await.unwrap().is_empty());
    walker.take_wakeups(&rig.owned).await.unwrap();
    walker.store().read().clone().close().await.unwrap();
    drop(walker);

    let deadline = Instant::now() + Duration::from_mins(1);
    let after = loop {
        let after = scans(&rig).await;
        // What is closed is only written.
        let read = |name: &str| !name.starts_with("deliveries_closed");
        if after
            .iter()
            .zip(&before)
            .all(|(now, then)| now.2 > then.2 || !read(&now.0))
        {
            break after;
        }
        assert!(Instant::now() < deadline, "an index is not used: {before:?} {after:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    let seq_scans = |scans: &[(String, i64, i64)]| {
        scans
            .iter()
            .map(|(name, seq, _)| (name.clone(), *seq))
            .collect::<Vec<_>>()
    };
    assert_eq!(seq_scans(&after), seq_scans(&before));
}
