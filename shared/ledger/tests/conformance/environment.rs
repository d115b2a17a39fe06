//! What PostgreSQL is like around the ledger: settings of a role, rights, schemas, encodings, a server that only reads,
//! a network that swallows what is sent.

use crate::expiring::retention;
use crate::rig::{Database, Rig, event, own_database, server};
use herald_ledger::dispatching::BatchResult;
use herald_ledger::partitions::Days;
use herald_ledger::shards::ShardLeases;
use herald_ledger::sql::{all, execute, get, one};
use herald_ledger::{Error, Ledger};
use sea_orm::ConnectionTrait;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Runs statements one by one as the server's superuser.
pub(crate) async fn run(url: &str, statements: &[&str]) {
    let connection = Box::pin(sea_orm::Database::connect(url)).await.unwrap();
    for sql in statements {
        connection
            .execute_unprepared(sql)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
    connection.close().await.unwrap();
}

/// A role of one's own, which goes with the server; and the URL with which it comes.
async fn own_role(url: &str) -> (String, String) {
    let role = format!("r{}", Uuid::new_v4().simple());
    run(url, &[&format!("CREATE ROLE {role} LOGIN")]).await;
    let (scheme, rest) = url.split_once("://").unwrap();
    let (_user, place) = rest.split_once('@').unwrap();
    (role.clone(), format!("{scheme}://{role}@{place}"))
}

/// An empty database, made with those options.
async fn empty_database(options: &str) -> String {
    let server = server();
    let name = format!("t{}", Uuid::new_v4().simple());
    run(&server, &[&format!("CREATE DATABASE {name} {options}")]).await;
    let (base, _database) = server.rsplit_once('/').unwrap();
    format!("{base}/{name}")
}

async fn record_one(ledger: &Ledger) -> Result<BatchResult, Error> {
    let version = ledger.registry_version().await?;
    let new = event(Uuid::now_v7(), "a", &[]);
    ledger.record(vec![new], version, ShardLeases::none()).await
}

#[tokio::test]
async fn what_is_set_for_a_role_does_not_change_what_herald_relies_on() {
    let url = own_database().await;
    let (role, as_role) = own_role(&url).await;
    let settings = [
        ("default_transaction_isolation", "serializable", "read committed"),
        ("synchronous_commit", "off", "on"),
        ("idle_session_timeout", "900ms", "0"),
        ("lock_timeout", "5ms", "0"),
        ("statement_timeout", "2s", "8s"),
    ];
    let set: Vec<_> = settings
        .iter()
        .map(|(name, value, _)| format!("ALTER ROLE {role} SET {name} = '{value}'"))
        .collect();
    run(&url, &[&format!("ALTER ROLE {role} SUPERUSER")]).await;
    run(&url, &set.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let ledger = Ledger::connect(&as_role).await.unwrap();
    for (name, _, wanted) in settings {
        let asked = format!("SELECT current_setting('{name}') AS value");
        let write = ledger.store().write({
            let asked = asked.clone();
            move |txn, _now| Box::pin(async move { get::<String>(&one(txn, &asked, []).await?.unwrap(), "value") })
        });
        assert_eq!(write.await.unwrap(), wanted, "{name}");
        if name != "statement_timeout" {
            let row = one(ledger.store().queries(), &asked, []).await.unwrap().unwrap();
            assert_eq!(
                get::<String>(&row, "value").unwrap(),
                wanted,
                "{name} of the API's connections"
            );
        }
    }
    run(
        &url,
        &[&format!("ALTER ROLE {role} SET synchronous_commit = 'remote_apply'")],
    )
    .await;
    let stricter = Ledger::connect(&as_role).await.unwrap();
    let row = one(
        stricter.store().read(),
        "SELECT current_setting('synchronous_commit') AS value",
        [],
    );
    assert_eq!(
        get::<String>(&row.await.unwrap().unwrap(), "value").unwrap(),
        "remote_apply"
    );
}

#[tokio::test]
async fn a_database_that_is_not_utf8_is_refused_in_words() {
    for encoding in ["LATIN1", "SQL_ASCII"] {
        let url = empty_database(&format!("ENCODING '{encoding}' TEMPLATE template0")).await;
        for refused in [Ledger::migrate(&url).await, Ledger::connect(&url).await.map(drop)] {
            let error = refused.unwrap_err();
            assert!(matches!(error, Error::Unfit(_)), "{error:?}");
            let words = error.to_string();
            assert!(words.contains(encoding) && words.contains("UTF8"), "{words}");
        }
    }
}

#[tokio::test]
async fn a_role_that_only_reads_and_writes_rows_makes_the_days_to_come() {
    let url = own_database().await;
    let (role, as_role) = own_role(&url).await;
    let (stranger, as_stranger) = own_role(&url).await;
    let database = url.rsplit_once('/').unwrap().1;
    run(
        &url,
        &[
            &format!("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}"),
            &format!("GRANT SELECT ON ALL TABLES IN SCHEMA public TO {stranger}"),
            &format!("REVOKE TEMP ON DATABASE {database} FROM PUBLIC"),
            "DO $$ DECLARE t text; BEGIN FOR t IN SELECT relname FROM pg_class WHERE relkind = 'r' \
             AND relname ~ '_\\d{8}$' AND right(relname, 8) > to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD') \
             LOOP EXECUTE 'DROP TABLE ' || t; END LOOP; END $$",
        ],
    )
    .await;
    let ledger = Ledger::connect(&as_role).await.unwrap();
    assert_eq!(kept(&ledger).await, (7.0, None));
    assert!(matches!(record_one(&ledger).await.unwrap(), BatchResult::Done(..)));
    let removed = &mut herald_ledger::retention::Removed::default();
    ledger
        .remove_expired(&retention(7, 7), ledger.now(), removed)
        .await
        .unwrap();

    let ledger = Ledger::connect(&as_stranger).await.unwrap();
    let (days, told) = kept(&ledger).await;
    assert_eq!(
        (days, told),
        (7.0, None),
        "it cannot make any, and sees those that there are"
    );
    let refused = all(ledger.store().read(), "SELECT herald_make_partitions(2, 7)", []).await;
    assert!(format!("{refused:?}").contains("may not insert"), "{refused:?}");
}

/// Days are made and dropped with the rights of the tables' owner.
#[tokio::test]
async fn nothing_that_others_made_in_the_schema_runs_with_the_owners_rights() {
    let url = own_database().await;
    let (role, as_role) = own_role(&url).await;
    let grant = format!("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}");
    run(&url, &[&grant, &format!("GRANT CREATE ON SCHEMA public TO {role}")]).await;
    // Both fit what they are called with exactly, which PostgreSQL's own do not.
    let shadows = [
        "CREATE TABLE called (what text, by text)",
        "GRANT INSERT ON called TO PUBLIC",
        "CREATE FUNCTION right(name, integer) RETURNS text LANGUAGE plpgsql AS $$ BEGIN \
         INSERT INTO public.called VALUES ('right', current_user); RETURN pg_catalog.right($1::text, $2); END $$",
        "CREATE FUNCTION times(bigint, interval) RETURNS interval LANGUAGE plpgsql AS $$ BEGIN \
         INSERT INTO public.called VALUES ('times', current_user); RETURN $1::double precision * $2; END $$",
        "CREATE OPERATOR public.* (LEFTARG = bigint, RIGHTARG = interval, FUNCTION = times)",
        // As anybody would call them.
        "SELECT right('shadow'::name, 1), 1::bigint * interval '1 day'",
    ];
    run(&as_role, &shadows).await;
    let ledger = Ledger::connect(&as_role).await.unwrap();
    let days = "SELECT herald_make_partitions(2, 7)";
    ledger.store().queries().execute_unprepared(days).await.unwrap();
    let dropped = "SELECT herald_drop_day(0, 0, 0)";
    ledger.store().queries().execute_unprepared(dropped).await.unwrap();
    let called = format!("SELECT DISTINCT what, by = '{role}' AS by_role FROM called ORDER BY what");
    let called = all(ledger.store().queries(), &called, []).await.unwrap();
    let called: Vec<(String, bool)> = called
        .iter()
        .map(|row| (get(row, "what").unwrap(), get(row, "by_role").unwrap()))
        .collect();
    assert_eq!(called, [("right".to_owned(), true), ("times".to_owned(), true)]);

    let searching = "SELECT count(*) AS n FROM pg_proc WHERE prosecdef AND pronamespace = 'public'::regnamespace \
                     AND proconfig IS DISTINCT FROM '{\"search_path=pg_catalog, pg_temp\"}'";
    let searching = one(ledger.store().queries(), searching, []).await.unwrap().unwrap();
    assert_eq!(
        get::<i64>(&searching, "n").unwrap(),
        0,
        "each finds PostgreSQL's own alone"
    );
}

/// What is told of the days by a keeper of partitions, the first time: the metric, and whether they are too few.
async fn kept(ledger: &Ledger) -> (f64, Option<String>) {
    let registry = prometheus::Registry::new();
    let days = Days::new(&registry).unwrap();
    let shutdown = CancellationToken::new();
    let told = Mutex::new(None);
    let tell = |words: Option<String>| {
        *told.lock().unwrap() = Some(words);
        shutdown.cancel();
    };
    tokio::time::timeout(
        Duration::from_secs(20),
        ledger.keep_partitions(days, tell, shutdown.clone()),
    )
    .await
    .unwrap();
    let words = told.lock().unwrap().take().unwrap();
    (registry.gather()[0].get_metric()[0].get_gauge().get_value(), words)
}

#[tokio::test]
async fn few_days_ahead_are_told_where_none_can_be_made() {
    let url = own_database().await;
    let (role, as_role) = own_role(&url).await;
    run(
        &url,
        &[
            &format!("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}"),
            &format!("REVOKE INSERT ON events FROM {role}"),
            "DO $$ BEGIN EXECUTE 'DROP TABLE attempts_' || to_char(now() AT TIME ZONE 'UTC' + interval '48 hours', \
             'YYYYMMDD'); END $$",
        ],
    )
    .await;
    let ledger = Ledger::connect(&as_role).await.unwrap();
    let (days, told) = kept(&ledger).await;
    assert!((days - 1.0).abs() < 0.1, "{days}");
    assert!(told.is_some_and(|words| words.contains("tomorrow")));
}

#[tokio::test]
async fn a_schema_of_ones_own_is_where_search_path_says() {
    let url = empty_database("").await;
    let (role, as_role) = own_role(&url).await;
    run(
        &url,
        &[
            "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
            &format!("CREATE SCHEMA apart AUTHORIZATION {role}"),
        ],
    )
    .await;
    let refused = Ledger::migrate(&as_role).await.unwrap_err();
    let words = format!("{refused:?}");
    assert!(words.contains("permission denied for schema public"), "{words}");
    let apart = format!("{as_role}?options=-csearch_path%3Dapart");
    Ledger::migrate(&apart).await.unwrap();
    let ledger = Ledger::connect(&apart).await.unwrap();
    assert!(matches!(record_one(&ledger).await.unwrap(), BatchResult::Done(..)));
    assert_eq!(kept(&ledger).await, (7.0, None));
    let rows = all(ledger.store().read(), "SELECT count(*) AS n FROM apart.events", [])
        .await
        .unwrap();
    assert_eq!(get::<i64>(&rows[0], "n").unwrap(), 1);
}

/// After a failover connections may lead to a server that takes no writes, also when new ones lead to one that does.
#[tokio::test]
async fn connections_to_a_server_that_only_reads_are_thrown_away() {
    let url = own_database().await;
    let (role, as_role) = own_role(&url).await;
    run(
        &url,
        &[
            &format!("ALTER ROLE {role} SUPERUSER"),
            &format!("ALTER ROLE {role} SET default_transaction_read_only = on"),
        ],
    )
    .await;
    let ledger = Ledger::connect(&as_role).await.unwrap();
    let refused = ledger.registry_version().await.unwrap_err();
    assert!(matches!(refused, Error::ReadOnly), "{refused:?}");
    let write = || {
        ledger.store().write(|txn, _now| {
            let sql = "INSERT INTO audit_log (at, action, subject) VALUES (0, 'a', '')";
            Box::pin(async move { execute(txn, sql, []).await })
        })
    };
    assert!(write().await.is_err());
    run(
        &url,
        &[&format!("ALTER ROLE {role} RESET default_transaction_read_only")],
    )
    .await;
    // Only what is connected anew takes writes, and after the first refusal nothing else is used.
    let began = Instant::now();
    while write().await.is_err() {
        assert!(
            began.elapsed() < Duration::from_secs(8),
            "the former connections are used still"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    ledger.registry_version().await.unwrap();
}

/// Passes on to the server what comes, until it is told to swallow what goes over the connections that there are.
struct Network {
    url: String,
    swallows: Arc<Mutex<Arc<AtomicBool>>>,
    passing: tokio::task::JoinHandle<()>,
}

impl Network {
    async fn to(url: &str) -> Self {
        let (scheme, rest) = url.split_once("://").unwrap();
        let (user, place) = rest.split_once('@').unwrap();
        let (server, database) = place.split_once('/').unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("{scheme}://{user}@{}/{database}", listener.local_addr().unwrap());
        let swallows = Arc::new(Mutex::new(Arc::new(AtomicBool::new(false))));
        let (server, now) = (server.to_owned(), Arc::clone(&swallows));
        let passing = tokio::spawn(async move {
            // They end with this task.
            let mut ways = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&server).await.unwrap();
                let swallow = Arc::clone(&now.lock().unwrap());
                let (client_in, client_out) = client.into_split();
                let (server_in, server_out) = server.into_split();
                ways.spawn(pass_on(client_in, server_out, Arc::clone(&swallow)));
                ways.spawn(pass_on(server_in, client_out, swallow));
            }
        });
        Self { url, swallows, passing }
    }

    /// From now on nobody is there: what was connected is closed, and new connections are refused.
    fn refuse(&self) {
        self.passing.abort();
    }

    /// From now on nothing arrives any more over the connections that there are, and nobody is told.
    fn swallow(&self) {
        let former = std::mem::take(&mut *self.swallows.lock().unwrap());
        former.store(true, Ordering::Relaxed);
    }
}

async fn pass_on(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    swallow: Arc<AtomicBool>,
) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut buffer = vec![0; 1 << 16];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if swallow.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

/// A machine that is gone says nothing, and the kernel waits for it for a quarter of an hour.
#[tokio::test]
async fn connections_that_swallow_what_is_sent_are_given_up_soon() {
    let url = own_database().await;
    let network = Network::to(&url).await;
    let ledger = Ledger::connect(&network.url).await.unwrap();
    let (asked, written) = tokio::join!(ledger.registry_version(), record_one(&ledger));
    asked.unwrap();
    written.unwrap();
    // Long enough that they are asked whether they are alive before they are used.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    network.swallow();
    let began = Instant::now();
    let (asked, written) = tokio::join!(ledger.registry_version(), record_one(&ledger));
    asked.unwrap();
    written.unwrap();
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

/// A pool that waits for a connection says no more than that it has waited.
#[tokio::test]
async fn a_server_that_refuses_connections_is_told_as_one() {
    let network = Network::to(&own_database().await).await;
    let ledger = Ledger::connect(&network.url).await.unwrap();
    network.refuse();
    let subscription = herald_domain::id::SubscriptionId(Uuid::nil());
    let told = async {
        loop {
            // What was connected before breaks off, and is not told as if nobody were there.
            let (read, written) = tokio::join!(ledger.subscription(subscription), record_one(&ledger));
            match (read.unwrap_err(), written.unwrap_err()) {
                (Error::Unreachable(read), Error::Unreachable(written)) => return [read, written],
                _ => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    for why in tokio::time::timeout(Duration::from_secs(40), told).await.unwrap() {
        assert!(why.contains("refused"), "{why}");
    }
}

/// Runs a test of this program again by itself, in a process that may have so few descriptors; false in that process.
fn is_run_with_descriptors(most: u32, test: &str) -> bool {
    const AGAIN: &str = "HERALD_TEST_WITH_FEW_DESCRIPTORS";
    if std::env::var_os(AGAIN).is_some() {
        return false;
    }
    let program = std::env::current_exe().unwrap();
    let limited = format!("ulimit -n {most} && exec \"$0\" --exact \"$1\" --nocapture");
    let mut shell = std::process::Command::new("sh");
    let ended = shell
        .arg("-c")
        .arg(limited)
        .arg(program)
        .arg(test)
        .env(AGAIN, "1")
        .output();
    let output = ended.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{output:?}");
    true
}

#[tokio::test]
async fn a_want_of_descriptors_is_told_as_one() {
    if is_run_with_descriptors(64, "environment::a_want_of_descriptors_is_told_as_one") {
        return;
    }
    let rig = Rig::new(Database::Sqlite).await;
    let mut open_files = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        open_files.push(file);
    }
    // More than the connections that there are already.
    let subscription = herald_domain::id::SubscriptionId(Uuid::nil());
    let reads = (0..6).map(|_| rig.ledger.subscription(subscription));
    let mut wants = 0;
    for read in futures_util::future::join_all(reads).await {
        match read {
            Ok(none) => assert!(none.is_none()),
            Err(error) => {
                assert!(error.to_string().contains("ulimit -n"), "{error:?}");
                wants += 1;
            }
        }
    }
    assert!(wants > 0, "there were connections enough");
    drop(open_files);
    rig.ledger.subscription(subscription).await.unwrap();
}
