//! Statements on the way of an event find their rows by an index, however empty, full or bloated the tables were when
//! they were planned, and are when they run.

use crate::explained::{GROWING, Plans, explain};
use crate::rig::{Database, EARLIEST, Rig, dead, delivered, event, open_lanes, retried, under};
use herald_domain::delivery::Delivery;
use herald_domain::id::{EventUid, Shard, SubscriptionId};
use herald_domain::lanes::Scope;
use herald_domain::time::Timestamp;
use herald_ledger::Ledger;
use herald_ledger::delivering::OutcomeRecord;
use herald_ledger::dispatching::{BatchResult, EventResult};
use herald_ledger::shards::ShardLeases;
use sea_orm::ConnectionTrait;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Events at a time.
const BATCH: usize = 40;

/// For how long dead rows may stay unmarked in an index, because somebody on the server still writes what began before
/// they died.
const MARKED_WITHIN: Duration = Duration::from_mins(1);

/// How many rows fill a table; a million with `HERALD_LONG`.
fn rows() -> u32 {
    if std::env::var_os("HERALD_LONG").is_some() {
        1_000_000
    } else {
        10_000
    }
}

/// The subscription whose deliveries come and go, and the one whose deliveries wait.
struct Lanes {
    fresh: SubscriptionId,
    waiting: SubscriptionId,
}

/// What a table is filled with, and emptied of.
struct Tables {
    fill: Vec<String>,
    empty: Vec<String>,
}

impl Tables {
    /// Rows of the waiting subscription, and of the fresh one, that are due long after everything else.
    fn new(rig: &Rig, lanes: &Lanes) -> Self {
        let rows = rows();
        let millis = rig.ledger.now().as_micros() / 1000;
        let id = |variant: &str| format!("('{millis:012x}7000{variant}' || lpad(to_hex(n), 12, '0'))::uuid");
        let open = |variant: &str, to: SubscriptionId, due: i64| {
            format!(
                "INSERT INTO deliveries_open (id, event, subscription, shard, webhook, attempts, due_at, created_at, \
                 opened_at) SELECT {}, {}, '{to}', {}, 2, 1, {due}, 1, 1 FROM generate_series(1, {rows}) AS n",
                id(variant),
                id("8000"),
                Shard::of(to).0
            )
        };
        let fill = vec![
            format!(
                "INSERT INTO events (uid, account, id, type, accepted_at, recorded_at, objects, data, matched_count) \
                 SELECT {uid}, 'filled', {uid}, 2, 1, 1, '{{}}', '{{}}', 0 FROM generate_series(1, {rows}) AS n",
                uid = id("8000")
            ),
            format!(
                "INSERT INTO event_keys SELECT {uid}, 'filled', {uid}, 1, 1 FROM generate_series(1, {rows}) AS n",
                uid = id("8000")
            ),
            format!(
                "INSERT INTO deliveries_closed (id, event, subscription, webhook, status, attempts, created_at, closed_at, \
                 last_status_code) SELECT {}, {}, gen_random_uuid(), 2, 1, 1, 1, 1, 200 FROM generate_series(1, {rows}) AS n",
                id("8001"),
                id("8000")
            ),
            open("8002", lanes.waiting, 9_000_000_000_000_000),
            open("8003", lanes.fresh, 1),
            format!(
                "INSERT INTO outbox (kind, delivery, created_at) \
                 SELECT 'dead_letter', {}, 1 FROM generate_series(1, {rows}) AS n",
                id("8004")
            ),
            format!(
                "INSERT INTO wakeups (shard, subscription, due_at) \
                 SELECT n % 256, {}, 1 FROM generate_series(1, {rows}) AS n",
                id("8005")
            ),
        ];
        // What is closed and an event's stays.
        let empty = ["deliveries_open", "outbox", "wakeups", "event_keys"];
        Self {
            fill,
            empty: empty.map(|table| format!("DELETE FROM {table}")).to_vec(),
        }
    }
}

/// One state of the tables after the other; what brings them there.
fn states(tables: &Tables, lanes: &Lanes) -> Vec<(&'static str, Vec<String>)> {
    let due_and_gone = vec![
        format!("DELETE FROM deliveries_open WHERE subscription = '{}'", lanes.fresh),
        "DELETE FROM outbox".to_owned(),
        "DELETE FROM wakeups".to_owned(),
    ];
    // What has the same ids twice.
    let again: Vec<_> = tables.fill[3..].to_vec();
    vec![
        ("empty", Vec::new()),
        (
            "one lane full, another full of dead rows",
            [tables.fill.clone(), due_and_gone].concat(),
        ),
        ("emptied", tables.empty.clone()),
        ("vacuumed", vec![format!("VACUUM ANALYZE {}", GROWING.join(", "))]),
        ("emptied again", [again.clone(), tables.empty.clone()].concat()),
        (
            "filled again",
            [
                again,
                vec![format!(
                    "DELETE FROM deliveries_open WHERE subscription = '{}'",
                    lanes.fresh
                )],
            ]
            .concat(),
        ),
    ]
}

/// What a process does on the way of events, once.
struct Walk<'a> {
    ledger: &'a Ledger,
    owned: &'a ShardLeases,
    lanes: &'a Lanes,
}

impl Walk<'_> {
    async fn run(&self) {
        let (ledger, owned, fresh) = (self.ledger, self.owned, self.lanes.fresh);
        let open = self.record(owned, fresh).await;
        let (failing, rest) = open.split_at(BATCH / 4);
        let (dying, succeeding) = rest.split_at(BATCH / 4);
        let outcome = |part: &[(EventUid, Delivery)], finish: fn(Delivery, EventUid) -> OutcomeRecord| -> Vec<_> {
            part.iter()
                .map(|(uid, delivery)| under(owned, finish(*delivery, *uid)))
                .collect()
        };
        let fails: fn(_, _) -> _ = |delivery, uid| retried(delivery, uid, Timestamp::from_micros(2));
        let outcomes = [
            outcome(failing, fails),
            outcome(dying, dead),
            outcome(succeeding, delivered),
        ];
        ledger.record_outcomes(outcomes.concat()).await.unwrap();
        // Those that are dead were delivered after all, and then fail late.
        ledger.record_outcomes(outcome(dying, delivered)).await.unwrap();
        ledger.record_outcomes(outcome(dying, fails)).await.unwrap();
        let jobs = ledger.dead_letter_jobs(100).await.unwrap();
        ledger.jobs_done(jobs.iter().map(|job| job.id).collect()).await.unwrap();
        ledger.cancel_jobs(owned, 10).await.unwrap();
        // Recorded by a process that owns nothing.
        self.record(&ShardLeases::none(), fresh).await;
        ledger.take_wakeups(owned).await.unwrap();
        open_lanes(ledger, owned.shards(), 1000).await;
        ledger.incomplete(10).await.unwrap();
        let without_events = Scope {
            rows: 0,
            ..Scope::all()
        };
        let waiting = ledger.open_deliveries(self.lanes.waiting.into(), EARLIEST, 100, &without_events);
        assert!(waiting.await.unwrap().len() <= 1, "none of them is due");
        let busy = failing.iter().map(|(_, delivery)| (delivery.id, ledger.now()));
        ledger
            .release(owned.worker(), Vec::new(), busy.collect())
            .await
            .unwrap();
        let left = ledger
            .open_deliveries(fresh.into(), EARLIEST, 2 * BATCH, &Scope::all())
            .await
            .unwrap();
        assert_eq!(left.len(), BATCH + BATCH / 4);
        let left: Vec<_> = left
            .into_iter()
            .map(|(delivery, event)| (event.unwrap().uid, delivery))
            .collect();
        ledger.record_outcomes(outcome(&left, delivered)).await.unwrap();
    }

    /// Records some events, twice; what of it is the process's.
    async fn record(&self, owned: &ShardLeases, to: SubscriptionId) -> Vec<(EventUid, Delivery)> {
        let events: Vec<_> = (0..BATCH).map(|_| event(Uuid::now_v7(), "a", &[to])).collect();
        let version = self.ledger.registry_version().await.unwrap();
        let mut open = Vec::new();
        for _ in 0..2 {
            let recorded = self
                .ledger
                .record(events.clone(), version, owned.clone())
                .await
                .unwrap();
            let BatchResult::Done(events, results) = recorded else {
                panic!("the registry did not change")
            };
            for (event, result) in events.iter().zip(results) {
                if let EventResult::New { mine, .. } = result {
                    open.extend(mine.into_iter().map(|delivery| (event.record.uid, delivery)));
                }
            }
        }
        open
    }
}

/// Takes the tables from state to state, and looks at the plans of a process that was there from the beginning and of
/// one that is new.
async fn plans_find_their_rows(plan_cache_mode: &str, analyze: bool) {
    let rig = Rig::new(Database::Postgres).await;
    let lanes = Lanes {
        fresh: rig.subscribe(1).await,
        waiting: rig.subscribe(2).await,
    };
    // By whatever PostgreSQL finds out by itself the test would be another one each time.
    let off = "SELECT format('ALTER TABLE %s SET (autovacuum_enabled = off)', oid::regclass) FROM pg_class \
               WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace";
    rig.execute(format!(
        "DO $$ DECLARE off text; BEGIN FOR off IN {off} LOOP EXECUTE off; END LOOP; END $$"
    ))
    .await
    .unwrap();
    explain(&rig, plan_cache_mode).await;
    let plans = Plans::listen();
    let first = rig.another().await;
    let tables = Tables::new(&rig, &lanes);
    let analyze = analyze.then(|| format!("ANALYZE {}", GROWING.join(", ")));
    for (state, statements) in states(&tables, &lanes) {
        for sql in statements.into_iter().chain(analyze.clone()) {
            // Not in a transaction, and not bounded in time.
            rig.ledger.store().queries().execute_unprepared(&sql).await.unwrap();
        }
        // What brought the tables there is not on the way of an event.
        plans.forget();
        let new = rig.another().await;
        for (process, ledger) in [("old", &first), ("new", &new)] {
            let walk = Walk {
                ledger,
                owned: &rig.owned,
                lanes: &lanes,
            };
            let began = Instant::now();
            // The first to come upon dead rows marks them in the index, once for all.
            loop {
                walk.run().await;
                let heard = plans.heard(rows());
                assert!(heard.plans > 30, "{} plans are not all", heard.plans);
                let of = format!(
                    "{plan_cache_mode}, analyze {}, {state}, {process} process",
                    analyze.is_some()
                );
                assert!(heard.wrong.is_empty(), "{of}: {:#?}", heard.wrong);
                if heard.costly.is_empty() {
                    break;
                }
                assert!(began.elapsed() < MARKED_WITHIN, "{of}: {:#?}", heard.costly);
            }
        }
    }
}

#[tokio::test]
async fn generic_plans_find_their_rows_without_statistics() {
    plans_find_their_rows("force_generic_plan", false).await;
}

#[tokio::test]
async fn generic_plans_find_their_rows_with_statistics() {
    plans_find_their_rows("force_generic_plan", true).await;
}

#[tokio::test]
async fn custom_plans_find_their_rows_without_statistics() {
    plans_find_their_rows("force_custom_plan", false).await;
}

#[tokio::test]
async fn custom_plans_find_their_rows_with_statistics() {
    plans_find_their_rows("force_custom_plan", true).await;
}
