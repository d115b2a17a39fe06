//! The schema is brought up to date beside those who use it, after those who wrote before, and after an interruption.

use crate::environment::run;
use crate::rig::{Database, Rig};
use herald_ledger::dispatching::Rejected;
use herald_ledger::sql::{get, one};
use herald_ledger::{Error, Ledger};
use sea_orm::{ConnectionTrait, DatabaseConnection, TransactionTrait};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use uuid::Uuid;

const INDEX: &str = "0011_rejected_by_account";

/// A ledger on PostgreSQL that lacks that index still, and a connection of the test's own.
async fn without_the_index() -> (Rig, DatabaseConnection) {
    let rig = Rig::new(Database::Postgres).await;
    let forget = format!("DELETE FROM herald_migrations WHERE version = '{INDEX}'");
    run(rig.url(), &[&forget, "DROP INDEX rejected_events_by_account"]).await;
    let connection = rig.connection().await;
    (rig, connection)
}

fn migrate(rig: &Rig) -> JoinHandle<Result<(), Error>> {
    let url = rig.url().to_owned();
    tokio::spawn(async move { Ledger::migrate(&url).await })
}

/// What a migration came to; one that waits for itself would wait for ever.
async fn end_of(migration: JoinHandle<Result<(), Error>>) -> Result<(), Error> {
    let end = tokio::time::timeout(Duration::from_secs(30), migration).await;
    end.expect("it ends").unwrap()
}

/// Waits until that query finds a number.
async fn wait_for(connection: &DatabaseConnection, query: &str) -> i32 {
    let began = Instant::now();
    loop {
        if let Some(row) = one(connection, query, []).await.unwrap() {
            return get(&row, "n").unwrap();
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{query}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The process that makes the index and waits for others.
const MAKING: &str = "SELECT pid AS n FROM pg_stat_activity WHERE datname = current_database() \
                      AND query LIKE '%CREATE INDEX CONCURRENTLY%' AND wait_event_type = 'Lock' \
                      AND pid <> pg_backend_pid()";

/// Whether the index is there and can be used.
async fn is_made(connection: &DatabaseConnection) -> Option<bool> {
    let sql = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('rejected_events_by_account')";
    let row = one(connection, sql, []).await.unwrap();
    row.map(|row| get(&row, "indisvalid").unwrap())
}

async fn reject(rig: &Rig) {
    let rejected = Rejected {
        account: "a".into(),
        faults: "[]".to_owned(),
        body: vec![1],
        body_bytes: 1,
    };
    rig.ledger.reject(Uuid::now_v7(), rejected).await.unwrap();
}

const A_ROW: &str = "INSERT INTO rejected_events (id, account, received_at, faults, body, body_bytes) \
                     VALUES (gen_random_uuid(), 'a', 1, '[]', '', 0)";

#[tokio::test]
async fn an_index_is_made_beside_those_who_write_its_table() {
    let (rig, connection) = without_the_index().await;
    let open = connection.begin().await.unwrap();
    open.execute_unprepared(A_ROW).await.unwrap();
    // Each role does it at its start, so several do at once.
    let migrations = [migrate(&rig), migrate(&rig), migrate(&rig)];
    let look = rig.connection().await;
    wait_for(&look, MAKING).await;
    let began = Instant::now();
    reject(&rig).await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(is_made(&look).await, Some(false));
    open.commit().await.unwrap();
    for migration in migrations {
        end_of(migration).await.unwrap();
    }
    assert_eq!(is_made(&look).await, Some(true));
}

#[tokio::test]
async fn an_index_whose_making_was_interrupted_is_made_anew() {
    let (rig, connection) = without_the_index().await;
    let open = connection.begin().await.unwrap();
    open.execute_unprepared(A_ROW).await.unwrap();
    let interrupted = migrate(&rig);
    let look = rig.connection().await;
    let process = wait_for(&look, MAKING).await;
    let end = format!("SELECT pg_terminate_backend({process})");
    look.execute_unprepared(&end).await.unwrap();
    assert!(end_of(interrupted).await.is_err());
    assert_eq!(is_made(&look).await, Some(false));
    open.commit().await.unwrap();
    end_of(migrate(&rig)).await.unwrap();
    assert_eq!(is_made(&look).await, Some(true));
    Ledger::connect(rig.url()).await.unwrap();
}

/// Whoever wants a table waits behind a change of it that waits.
#[tokio::test]
async fn a_change_of_a_table_that_is_used_for_long_lets_others_pass_and_is_made_in_the_end() {
    let rig = Rig::new(Database::Postgres).await;
    let take_back = [
        "DELETE FROM herald_migrations WHERE version = '0013_noted_versions'",
        "DROP TRIGGER herald_note_version ON subscriptions",
        "DROP FUNCTION herald_note_version()",
    ];
    run(rig.url(), &take_back).await;
    let connection = rig.connection().await;
    let open = connection.begin().await.unwrap();
    open.execute_unprepared("LOCK TABLE subscriptions IN ROW EXCLUSIVE MODE")
        .await
        .unwrap();
    let migration = migrate(&rig);
    let look = rig.connection().await;
    let waiting = "SELECT pid AS n FROM pg_locks WHERE relation = 'subscriptions'::regclass AND NOT granted";
    wait_for(&look, waiting).await;
    let began = Instant::now();
    rig.subscribe(1).await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(!migration.is_finished());
    open.commit().await.unwrap();
    end_of(migration).await.unwrap();
    let made = "SELECT 1 AS n FROM pg_trigger WHERE tgname = 'herald_note_version'";
    wait_for(&look, made).await;
}
