//! Removing a day of many rows delays no delivery by much, and the size levels off.
//!
//! `HERALD_LONG=yes` makes it a million deliveries in all, with as many events and keys.

use crate::expiring::retention;
use crate::rig::{Database, Rig, delivered};
use herald_domain::id::SubscriptionId;
use herald_domain::time::Timestamp;
use herald_ledger::retention::Removed;
use herald_ledger::sql::{get, one};
use sea_orm::ConnectionTrait;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

const DAY: Duration = Duration::from_hours(24);

/// Days that come and go.
const DAYS: u32 = 5;

fn rows() -> u32 {
    if std::env::var_os("HERALD_LONG").is_some() {
        200_000
    } else {
        5_000
    }
}

/// Fills a day with events that have one delivery each. One of a thousand deliveries is dead, the others delivered.
async fn fill(rig: &Rig, day: Timestamp, subscription: SubscriptionId) {
    let (rows, micros, millis) = (rows(), day.as_micros(), day.as_unix_millis());
    let (numbers, id, to) = match rig.database() {
        Database::Sqlite => (
            format!(
                "(WITH RECURSIVE r (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < {rows}) SELECT n FROM r) AS r"
            ),
            "unhex(printf('%016x%016x', random(), random()))",
            format!("x'{}'", subscription.0.simple()),
        ),
        Database::Postgres => (
            format!("generate_series(1, {rows}) AS n"),
            "gen_random_uuid()",
            format!("'{subscription}'"),
        ),
    };
    let of_day = |version: u8| {
        let prefix = format!("{millis:012x}{version}0008");
        match rig.database() {
            Database::Sqlite => format!("unhex('{prefix}' || printf('%015x', n))"),
            Database::Postgres => format!("('{prefix}' || lpad(to_hex(n), 15, '0'))::uuid"),
        }
    };
    let (uid, delivery) = (of_day(7), of_day(8));
    let data = "x".repeat(500);
    for sql in [
        format!(
            "INSERT INTO events (uid, account, id, type, accepted_at, recorded_at, objects, data, matched_count) \
             SELECT {uid}, 'filled', {id}, 2, {micros}, {micros}, '{{}}', '{data}', 1 FROM {numbers}"
        ),
        format!(
            "INSERT INTO event_keys (id, account, uid, recorded_at, body_hash) \
             SELECT id, account, uid, recorded_at, 1 FROM events WHERE recorded_at = {micros}"
        ),
        format!(
            "INSERT INTO deliveries_closed (id, event, subscription, webhook, status, reason, attempts, created_at, \
             closed_at, last_status_code) SELECT {delivery}, {uid}, {to}, 2, CASE n % 1000 WHEN 0 THEN 2 ELSE 1 END, \
             CASE n % 1000 WHEN 0 THEN 'gave_up' END, 1, {micros}, {micros}, 200 FROM {numbers}"
        ),
    ] {
        match rig.database() {
            Database::Sqlite => rig.execute(sql).await.map(drop),
            // Not bounded in time.
            Database::Postgres => rig
                .ledger
                .store()
                .queries()
                .execute_unprepared(&sql)
                .await
                .map(drop)
                .map_err(Into::into),
        }
        .unwrap();
    }
}

/// What the ledger takes on disk.
async fn bytes(rig: &Rig) -> i64 {
    let sql = match rig.database() {
        Database::Sqlite => "SELECT page_count * page_size AS n FROM pragma_page_count(), pragma_page_size()",
        Database::Postgres => {
            // What the server does by itself in time.
            let vacuum = "VACUUM event_keys";
            rig.ledger.store().queries().execute_unprepared(vacuum).await.unwrap();
            "SELECT sum(pg_total_relation_size(oid))::bigint AS n FROM pg_class WHERE relkind = 'r' \
             AND relname ~ '^(events_|event_keys|deliveries_|attempts_)'"
        }
    };
    let row = one(rig.ledger.store().queries(), sql, []).await.unwrap();
    get(&row.unwrap(), "n").unwrap()
}

/// Records and delivers one event after the other; how long each took.
async fn deliver_until(rig: &Rig, subscription: SubscriptionId, stop: CancellationToken) -> Vec<Duration> {
    let mut took = Vec::new();
    while !stop.is_cancelled() {
        let began = Instant::now();
        let (uid, deliveries) = rig.deliveries(&[subscription]).await;
        rig.finish(delivered(deliveries[0], uid)).await;
        took.push(began.elapsed());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    took.sort_unstable();
    took
}

async fn days_come_and_go_beside_deliveries(database: Database) {
    let rig = Rig::new(database).await;
    let subscription = rig.subscribe(1).await;
    // Where nothing is removed: a disk that stalls, stalls it too.
    let other = Rig::new(database).await;
    let to_other = other.subscribe(1).await;
    if database == Database::Postgres {
        // By the owner of the tables, who alone makes more days than Herald needs, and has the time for it.
        let days = "SELECT herald_make_partitions_as_caller(70, 7)";
        rig.ledger.store().queries().execute_unprepared(days).await.unwrap();
    }
    // Noon, sixty days ago.
    let midnight = rig.ledger.now().as_micros() / 86_400_000_000 * 86_400_000_000;
    let first = Timestamp::from_micros(midnight).minus(DAY * 60).plus(DAY / 2);
    let (mut sizes, mut beside) = (Vec::new(), Vec::new());
    for n in 0..DAYS {
        let day = first.plus(DAY * n);
        fill(&rig, day, subscription).await;
        let stop = CancellationToken::new();
        let began = Instant::now();
        let pass = async {
            let mut removed = Removed::default();
            // A second before the idempotency window of the next day is over.
            let now = day.plus(DAY * 8).minus(Duration::from_secs(1));
            let ended = rig.ledger.remove_expired(&retention(7, 90), now, &mut removed).await;
            stop.cancel();
            ended.map(|()| removed).unwrap()
        };
        let (removed, took, of_other) = tokio::join!(
            pass,
            deliver_until(&rig, subscription, stop.clone()),
            deliver_until(&other, to_other, stop.clone())
        );
        let dead = u64::from(rows() / 1000);
        assert_eq!(removed.events, u64::from(rows()) - dead);
        assert_eq!((removed.deliveries, removed.keys), (removed.events, u64::from(rows())));
        let (longest, without) = (took[took.len() - 1], of_other[of_other.len() - 1]);
        assert!(
            longest < without * 2 + Duration::from_secs(3),
            "a delivery waited for {longest:?}, and {without:?} where nothing is removed"
        );
        sizes.push(bytes(&rig).await);
        beside.push(i64::try_from(took.len()).unwrap());
        report(&format!(
            "{database:?}, day {n}: {} deliveries gone in {:?}, {} delivered beside, p50 {:?}, p99 {:?}, longest \
             {longest:?} (without: {without:?}); {} MiB",
            removed.deliveries,
            began.elapsed(),
            took.len(),
            took[took.len() / 2],
            took[took.len() * 99 / 100],
            sizes[sizes.len() - 1] >> 20
        ));
    }
    rig.assert_exact().await;
    // What was delivered beside is there to stay, and with its indexes no larger than that.
    let stays = 2048 * beside[2..].iter().sum::<i64>();
    assert!(
        sizes[4] < sizes[1] + sizes[1] / 20 + stays,
        "the size levels off: {sizes:?}, {beside:?}"
    );
}

#[expect(clippy::print_stdout, reason = "who runs the long tests wants to see it")]
fn report(line: &str) {
    println!("{line}");
}

on_both!(days_come_and_go_beside_deliveries);
