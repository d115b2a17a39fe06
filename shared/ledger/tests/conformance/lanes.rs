//! What the lanes read: quickly, however much else is read, and in pieces.

use crate::rig::{Database, Rig, open_lanes};
use herald_domain::id::Shard;
use herald_domain::lanes::Scope;
use herald_domain::time::Timestamp;
use herald_ledger::wakeups::MOST_WAKEUPS;
use sea_orm::TransactionTrait;
use std::time::Duration;
use tokio::time::timeout;

async fn the_registry_is_compared_though_every_other_connection_is_in_use(database: Database) {
    let rig = Rig::new(database).await;
    let read = rig.ledger.store().read();
    let mut in_use = Vec::new();
    while let Ok(transaction) = timeout(Duration::from_millis(500), read.begin()).await {
        in_use.push(transaction.unwrap());
    }
    assert!(in_use.len() > 1);
    let version = timeout(Duration::from_secs(5), rig.ledger.registry_version()).await;
    let version = version.expect("it does not wait for them").unwrap();
    let mut heard = version;
    let changes = rig.ledger.changes_since(-1, |changes| heard = changes.version);
    timeout(Duration::from_secs(5), changes)
        .await
        .expect("nor does a load")
        .unwrap();
    assert_eq!(heard, version);
}

async fn lanes_are_found_in_pages_of_any_size_and_wake_ups_taken_a_number_at_a_time(database: Database) {
    let rig = Rig::new(database).await;
    let mut subscriptions = Vec::new();
    for n in 1..=40 {
        subscriptions.push(rig.subscribe(n).await);
    }
    for _ in 0..3 {
        rig.deliveries(&subscriptions).await;
    }
    for limit in [1, 2, 7, 50, 1000] {
        let mut found = open_lanes(&rig.ledger, Shard::all(), limit).await;
        found.sort_unstable();
        let earliest: Vec<_> = found.iter().map(|(lane, _)| *lane).collect();
        assert_eq!(earliest, subscriptions, "in pages of {limit}");
        for (lane, due_at) in found {
            assert_eq!(rig.open(lane, 10).await[0].0.due_at, due_at);
        }
    }
    let of_one = open_lanes(&rig.ledger, [Shard::of(subscriptions[0])], 1).await;
    assert!(
        of_one
            .iter()
            .all(|(lane, _)| Shard::of(*lane) == Shard::of(subscriptions[0]))
    );

    let more = 100;
    let wakeups = format!(
        "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {}) \
         INSERT INTO wakeups (shard, subscription, due_at) SELECT n % 256, {}, 1 FROM n",
        MOST_WAKEUPS + more,
        match database {
            Database::Postgres => "lpad(to_hex(n), 32, '0')::uuid",
            Database::Sqlite => "unhex(printf('%032x', n))",
        }
    );
    rig.execute(wakeups).await.unwrap();
    for expected in [MOST_WAKEUPS, more, 0] {
        assert_eq!(rig.ledger.take_wakeups(&rig.owned).await.unwrap().len(), expected);
    }
}

async fn a_lane_is_read_from_a_time_on_and_what_was_handed_over_whenever_it_is_due(database: Database) {
    let rig = Rig::new(database).await;
    let subscription = rig.subscribe(1).await;
    let mut due = Vec::new();
    for n in 0..4 {
        let (_, deliveries) = rig.deliveries(&[subscription]).await;
        rig.execute(format!(
            "UPDATE deliveries_open SET due_at = {} WHERE due_at > 1000",
            100 + n
        ))
        .await
        .unwrap();
        due.push(deliveries[0].id);
    }
    let read = async |from: i64| {
        let from = Timestamp::from_micros(from);
        let rows = rig
            .ledger
            .open_deliveries(subscription.into(), from, 10, &Scope::all())
            .await;
        rows.unwrap().iter().map(|(row, _)| row.id).collect::<Vec<_>>()
    };
    assert_eq!(read(i64::MIN).await, due);
    assert_eq!(read(102).await, due[2..]);
    assert_eq!(read(104).await, []);
    for busy_until in [50, 105] {
        // In flight at a former owner until then.
        let handed_over = format!("UPDATE deliveries_open SET busy_until = {busy_until} WHERE due_at = 100");
        rig.execute(handed_over).await.unwrap();
        let mut found = read(102).await;
        found.sort_unstable();
        let mut expected = vec![due[0], due[2], due[3]];
        expected.sort_unstable();
        assert_eq!(found, expected);
    }
}

on_both!(
    a_lane_is_read_from_a_time_on_and_what_was_handed_over_whenever_it_is_due,
    the_registry_is_compared_though_every_other_connection_is_in_use,
    lanes_are_found_in_pages_of_any_size_and_wake_ups_taken_a_number_at_a_time,
);
