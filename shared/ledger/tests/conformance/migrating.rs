//! The schema is brought up to date beside those who use it, after those who wrote before, and after an interruption.

use crate::cancelling::cancelled;
use crate::environment::run;
use crate::rig::{Database, Rig};
use herald_domain::id::{DeliveryId, EventUid, Shard, SubscriptionId};
use herald_domain::time::SystemClock;
use herald_ledger::rejected::Rejected;
use herald_ledger::sql::{all, get, one};
use herald_ledger::{Error, Ledger};
use herald_migrations::Migrator;
use sea_orm::sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sea_orm::{ConnectionTrait, DatabaseConnection, SqlxSqliteConnector, TransactionTrait};
use sea_orm_migration::MigratorTrait;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
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

/// What a version of before `0005_openings.sql` wrote into its file, where it noted no versions: of two deliveries the first
/// was opened before a deactivation that is not worked off yet, the second after it.
#[tokio::test]
async fn what_an_earlier_version_deactivated_in_its_file_stays_cancelled_and_nothing_else() {
    // The machine's clock was set back since.
    const OPENED: i64 = 1_900_000_000_000_000;
    let subscription = SubscriptionId(Uuid::from_u128(1));
    let shard = Shard::of(subscription).0;
    let blob = |id: Uuid| format!("x'{}'", id.simple());
    let mut written = format!(
        "INSERT INTO subscriptions (id, owner, webhook, object_type, object, url, active, signing_key, timeout_ms, \
         retry_initial_ms, retry_multiplier, retry_max_ms, retry_give_up_ms, max_in_flight, created_at, updated_at, \
         open_from, deleted, version) VALUES ({}, {}, 2, 81, {0}, 'https://example.com', 1, x'01', 15000, 5000, 3, \
         21600000, 259200000, 64, 1, {3}, {2}, 0, 2); UPDATE registry_version SET version = 2; \
         INSERT INTO outbox (kind, subscription, opened_before, created_at) VALUES ('cancel_deliveries', {0}, {2}, {2}); \
         INSERT INTO audit_log (at, action, subject) VALUES ({3}, 'subscription.update', '');",
        blob(subscription.0),
        blob(Uuid::max()),
        OPENED + 1000,
        OPENED + 2000,
    );
    let mut deliveries = Vec::new();
    for at in [OPENED, OPENED + 3000] {
        let event = EventUid(Uuid::now_v7());
        let delivery = DeliveryId::derive(event, subscription, Uuid::nil());
        let rows = format!(
            "INSERT INTO events (uid, account, id, type, accepted_at, recorded_at, objects, data, matched_count) \
             VALUES ({0}, 'a', {0}, 2, {at}, {at}, '{{}}', '{{}}', 1); \
             INSERT INTO deliveries_open (id, event, subscription, shard, webhook, attempts, due_at, created_at, opened_at) \
             VALUES ({1}, {0}, {2}, {shard}, 2, 0, {at}, {at}, {at});",
            blob(event.0),
            blob(delivery.0),
            blob(subscription.0),
        );
        written.push_str(&rows);
        deliveries.push(delivery);
    }
    // Those that there were.
    let rig = Rig::after(4, &written).await;
    let (_, new) = rig.deliveries(&[subscription]).await;
    assert_eq!(cancelled(&rig, subscription).await, deliveries[..1]);
    assert_eq!(rig.cancel(&[]).await, 1);
    let mut left: Vec<_> = rig.open(subscription, 10).await.iter().map(|(it, _)| it.id).collect();
    left.sort_unstable();
    let mut wanted = vec![deliveries[1], new[0].id];
    wanted.sort_unstable();
    assert_eq!(left, wanted);
    rig.assert_exact().await;
}

/// The file that a process of the test below makes, and the commit that it does not come to.
const FILE: &str = "HERALD_TEST_INTERRUPTED_FILE";
const COMMIT: &str = "HERALD_TEST_INTERRUPTED_COMMIT";

/// A file holds what was committed and nothing else, so that one process for each commit is every moment at which one may
/// be killed.
#[tokio::test]
async fn a_file_is_whole_after_its_making_was_interrupted_anywhere() {
    const SELF: &str = "migrating::a_file_is_whole_after_its_making_was_interrupted_anywhere";
    if let (Some(file), Ok(commit)) = (std::env::var_os(FILE), std::env::var(COMMIT)) {
        return make_until(Path::new(&file), commit.parse().unwrap()).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let whole = contents(&herald_ledger::file_in(folder.path())).await;
    for commit in 1.. {
        let folder = tempfile::tempdir().unwrap();
        let file = herald_ledger::file_in(folder.path());
        let ended = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", SELF])
            .env(FILE, &file)
            .env(COMMIT, commit.to_string())
            .output()
            .unwrap();
        assert_eq!(contents(&file).await, whole, "before commit {commit}");
        if ended.status.success() {
            assert!(commit > Migrator::migrations().len(), "each is a commit at least");
            return;
        }
        assert_eq!(ended.status.code(), None, "it ended otherwise: {ended:?}");
    }
}

/// Makes a file until that commit, which it ends before.
async fn make_until(file: &Path, commit: usize) {
    let options = SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full);
    let pool = SqlitePoolOptions::new()
        .max_connections(1)
        .after_connect(move |connection, _| {
            Box::pin(async move {
                let mut commits = 0;
                connection.lock_handle().await?.set_commit_hook(move || {
                    commits += 1;
                    if commits == commit {
                        std::process::abort();
                    }
                    true
                });
                Ok(())
            })
        });
    let pool = pool.connect_with(options).await.unwrap();
    Migrator::up(&SqlxSqliteConnector::from_sqlx_sqlite_pool(pool), None)
        .await
        .unwrap();
}

/// Opens the ledger in that file, made or completed if need be; its tables, the rows that they are made with, and the
/// migrations.
async fn contents(file: &Path) -> Vec<String> {
    let (ledger, _writer) = Ledger::open(file, Arc::new(SystemClock)).await.unwrap();
    let queries = [
        "SELECT type || ' ' || name || ' ' || coalesce(sql, '') AS line FROM sqlite_master ORDER BY name",
        "SELECT version AS line FROM herald_migrations ORDER BY version",
        "SELECT count(*) || ' shards' AS line FROM shards",
        "SELECT version || ' of the registry' AS line FROM registry_version",
        "SELECT events || ' expired' AS line FROM expired",
    ];
    let mut lines: Vec<String> = Vec::new();
    for sql in queries {
        let rows = all(ledger.store().queries(), sql, []).await.unwrap();
        lines.extend(rows.iter().map(|row| get::<String>(row, "line").unwrap()));
    }
    lines
}
