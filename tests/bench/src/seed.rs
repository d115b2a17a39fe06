//! Fills a ledger in which nothing runs with copies of what is in it.
//!
//! A million subscriptions or deliveries take hours through the API. So one of each is made there, and
//! copied in SQL with the few columns replaced in which they differ: whatever columns there are besides
//! are as Herald wrote them.

use anyhow::{Context, ensure};
use herald_tests::services::try_query;
use sea_orm::{ConnectOptions, ConnectionTrait, Database, DbBackend, Statement};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Where the ledger is.
#[derive(Debug, Clone)]
pub(crate) enum Ledger {
    /// SQLite's file.
    File(PathBuf),
    /// PostgreSQL's URL.
    Server(String),
}

/// What copies of a subscription filter by; never the object of the original.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Copies {
    /// Each another object.
    OfAnObjectEach,
    /// All the same object.
    OfOneObject,
}

/// A delivery that waits for its retry.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waiting {
    pub(crate) delivery: Uuid,
    /// The `Id` of its event.
    pub(crate) event: Uuid,
}

/// When deliveries fall due: the same moment on two clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Due {
    /// On this process's clock.
    pub(crate) at: Instant,
    /// On the ledger's, in microseconds since 1970.
    micros: u64,
}

impl Due {
    /// So long from now.
    pub(crate) fn after(delay: Duration) -> Self {
        let micros = now_millis() * 1_000 + u64::try_from(delay.as_micros()).expect("centuries fit");
        Self {
            at: Instant::now() + delay,
            micros,
        }
    }
}

fn now_millis() -> u64 {
    let time = Uuid::now_v7().get_timestamp().expect("a UUIDv7 has a time");
    let (seconds, nanos) = time.to_unix();
    seconds * 1_000 + u64::from(nanos / 1_000_000)
}

impl Ledger {
    /// Makes `count` copies of a subscription, each with an address of its own.
    pub(crate) async fn copy_subscription(&self, subscription: Uuid, count: u32, copies: Copies) -> anyhow::Result<()> {
        let random = self.random_id();
        let object = match copies {
            Copies::OfAnObjectEach => random.to_owned(),
            Copies::OfOneObject => self.id(Uuid::now_v7()),
        };
        let replaced = [
            ("id", random.to_owned()),
            ("object", object),
            (
                "url",
                "'https://customer-' || numbers.n || '.hooks.example/packets/created'".to_owned(),
            ),
        ];
        let found = format!("original.id = {}", self.id(subscription));
        let copy = self
            .copy("subscriptions", &replaced, &self.numbers(count), &found)
            .await?;
        self.run(vec![copy]).await?;
        self.expect("subscriptions", count).await
    }

    /// Makes `count` copies of an open delivery of a subscription, each of an event of its own, due after
    /// `delay` from when the events are there.
    pub(crate) async fn copy_delivery(&self, waiting: Waiting, count: u32, delay: Duration) -> anyhow::Result<Due> {
        let event = [("uid", self.new_uid()), ("id", self.random_id().to_owned())];
        let found = format!("original.id = {}", self.id(waiting.event));
        let events = self.copy("events", &event, &self.numbers(count), &found).await?;
        let key = ["id", "uid"].map(|column| (column, format!("copy.{column}")));
        let copied = format!("{found} AND copy.uid <> original.uid");
        let keys = self.copy("event_keys", &key, "events AS copy", &copied).await?;
        self.run(vec![events, keys]).await?;
        self.expect("events", count).await?;
        let due = Due::after(delay);
        let open = [
            ("id", self.delivery_of("copy.uid")),
            ("event", "copy.uid".to_owned()),
            ("due_at", due.micros.to_string()),
        ];
        let copied = format!(
            "original.id = {} AND copy.uid <> original.event",
            self.id(waiting.delivery)
        );
        let open = self.copy("deliveries_open", &open, "events AS copy", &copied).await?;
        self.run(vec![open]).await?;
        self.expect("deliveries_open", count).await?;
        Ok(due)
    }

    /// `INSERT … SELECT` of a table's row `original`, once for each row of `times`.
    async fn copy(
        &self,
        table: &str,
        replaced: &[(&str, String)],
        times: &str,
        condition: &str,
    ) -> anyhow::Result<String> {
        let columns = self.columns(table).await?;
        for (name, _) in replaced {
            ensure!(columns.iter().any(|column| column == name), "{table} has no {name}");
        }
        let values = columns.iter().map(|column| {
            let other = replaced.iter().find(|(name, _)| column == name);
            other.map_or_else(|| format!("original.\"{column}\""), |(_, value)| value.clone())
        });
        let values: Vec<_> = values.collect();
        Ok(format!(
            "INSERT INTO {table} (\"{}\") SELECT {} FROM {table} AS original, {times} WHERE {condition}",
            columns.join("\", \""),
            values.join(", ")
        ))
    }

    async fn columns(&self, table: &str) -> anyhow::Result<Vec<String>> {
        let listed = match self {
            Self::File(_) => format!("SELECT group_concat(name, ' ') FROM pragma_table_info('{table}')"),
            Self::Server(_) => format!(
                "SELECT string_agg(column_name, ' ' ORDER BY ordinal_position) FROM information_schema.columns \
                 WHERE table_name = '{table}' AND is_generated = 'NEVER'"
            ),
        };
        let names = self.ask(listed).await?;
        Ok(names.split_whitespace().map(str::to_owned).collect())
    }

    /// Rows `numbers.n` from 1.
    fn numbers(&self, count: u32) -> String {
        match self {
            Self::File(_) => format!(
                "(WITH RECURSIVE counting (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counting WHERE n < {count}) \
                 SELECT n FROM counting) AS numbers"
            ),
            Self::Server(_) => format!("generate_series(1, {count}) AS numbers (n)"),
        }
    }

    fn id(&self, id: Uuid) -> String {
        match self {
            Self::File(_) => format!("x'{}'", id.simple()),
            Self::Server(_) => format!("'{id}'::uuid"),
        }
    }

    fn random_id(&self) -> &'static str {
        match self {
            Self::File(_) => "randomblob(16)",
            Self::Server(_) => "gen_random_uuid()",
        }
    }

    /// A UUIDv7 of about now, growing with `numbers.n`: a thousand in every millisecond.
    fn new_uid(&self) -> String {
        let now = now_millis();
        match self {
            Self::File(_) => {
                format!("unhex(printf('%012x7%03x8%015x', {now} + numbers.n / 1000, numbers.n % 1000, numbers.n))")
            }
            Self::Server(_) => format!(
                "(lpad(to_hex({now} + numbers.n / 1000), 12, '0') || '7' || lpad(to_hex(numbers.n % 1000), 3, '0') \
                 || '8' || lpad(to_hex(numbers.n), 15, '0'))::uuid"
            ),
        }
    }

    /// An id for the one delivery of an event: the event's with another version, so in its range.
    fn delivery_of(&self, uid: &str) -> String {
        match self {
            Self::File(_) => format!("unhex(substr(hex({uid}), 1, 12) || '8' || substr(hex({uid}), 14))"),
            Self::Server(_) => format!("overlay({uid}::text PLACING '8' FROM 15 FOR 1)::uuid"),
        }
    }

    async fn expect(&self, table: &str, at_least: u32) -> anyhow::Result<()> {
        let rows = self.ask(format!("SELECT CAST(count(*) AS text) FROM {table}")).await?;
        let rows: u64 = rows.parse().with_context(|| rows.clone())?;
        ensure!(
            rows > u64::from(at_least),
            "{table} has {rows} rows: nothing was copied"
        );
        Ok(())
    }

    /// Asks the database for a single text.
    async fn ask(&self, sql: String) -> anyhow::Result<String> {
        match self {
            Self::File(_) => {
                let connection = self.open().await?;
                let statement = Statement::from_string(DbBackend::Sqlite, sql);
                let row = connection.query_one_raw(statement).await?.context("a row")?;
                let answer = row.try_get_by_index(0)?;
                connection.close().await?;
                Ok(answer)
            }
            Self::Server(url) => psql(url, sql).await,
        }
    }

    /// Runs statements, and leaves nothing to be done later on account of them.
    async fn run(&self, statements: Vec<String>) -> anyhow::Result<()> {
        match self {
            Self::File(_) => {
                let connection = self.open().await?;
                for statement in statements {
                    connection.execute_unprepared(&statement).await?;
                }
                // The last connection that is closed empties the log.
                connection.close().await?;
            }
            Self::Server(url) => {
                for statement in statements {
                    psql(url, statement).await?;
                }
                // What autovacuum would otherwise do while it is measured.
                psql(url, "VACUUM ANALYZE".to_owned()).await?;
                psql(url, "CHECKPOINT".to_owned()).await?;
            }
        }
        Ok(())
    }

    async fn open(&self) -> anyhow::Result<sea_orm::DatabaseConnection> {
        let Self::File(path) = self else {
            anyhow::bail!("PostgreSQL is asked through psql")
        };
        let mut options = ConnectOptions::new(format!("sqlite://{}?mode=rw", path.display()));
        options.max_connections(1).sqlx_logging(false);
        Ok(Box::pin(Database::connect(options)).await?)
    }
}

async fn psql(url: &str, sql: String) -> anyhow::Result<String> {
    let url = url.to_owned();
    let asked = tokio::task::spawn_blocking(move || try_query(&url, &sql).map_err(|error| format!("{sql}: {error}")));
    asked.await?.map_err(anyhow::Error::msg)
}

#[cfg(test)]
mod tests {
    use super::*;
    use herald_tests::sandbox::Sandbox;

    const EVENT: Uuid = Uuid::from_u128(1);
    const DELIVERY: Uuid = Uuid::from_u128(2);
    const SUBSCRIPTION: Uuid = Uuid::from_u128(3);

    /// A ledger of few columns in which there is one of each.
    async fn ledger(sandbox: &Sandbox) -> Ledger {
        let ledger = Ledger::File(sandbox.file("herald.db", ""));
        let made = [
            "CREATE TABLE subscriptions (id BLOB PRIMARY KEY, object BLOB, url TEXT UNIQUE, name TEXT)",
            "CREATE TABLE events (uid BLOB PRIMARY KEY, id BLOB UNIQUE, data TEXT)",
            "CREATE TABLE event_keys (id BLOB PRIMARY KEY, uid BLOB UNIQUE, account TEXT)",
            "CREATE TABLE deliveries_open (id BLOB PRIMARY KEY, event BLOB UNIQUE, due_at INTEGER, attempts INTEGER)",
        ];
        let id = |id| ledger.id(id);
        let filled = [
            format!(
                "INSERT INTO subscriptions VALUES ({}, x'00', 'url', 'kept')",
                id(SUBSCRIPTION)
            ),
            format!("INSERT INTO events VALUES (x'07', {}, 'kept')", id(EVENT)),
            format!("INSERT INTO event_keys VALUES ({}, x'07', 'kept')", id(EVENT)),
            format!("INSERT INTO deliveries_open VALUES ({}, x'07', 5, 1)", id(DELIVERY)),
        ];
        let statements = made.map(str::to_owned).into_iter().chain(filled).collect();
        ledger.run(statements).await.unwrap();
        ledger
    }

    #[tokio::test]
    async fn copies_of_a_subscription_differ_in_what_they_must_and_nothing_else() {
        let sandbox = Sandbox::new("herald-bench-");
        let ledger = ledger(&sandbox).await;
        let copy = |subscription, count, copies| ledger.copy_subscription(subscription, count, copies);
        copy(SUBSCRIPTION, 2_500, Copies::OfAnObjectEach).await.unwrap();
        let copied = "SELECT count(*) || ' ' || sum(length(id) = 16 AND length(object) = 16) || ' ' \
                      || count(DISTINCT object) FROM subscriptions WHERE name = 'kept' AND url LIKE 'https://customer-%'";
        assert_eq!(ledger.ask(copied.to_owned()).await.unwrap(), "2500 2500 2500");
        assert!(copy(Uuid::nil(), 2_501, Copies::OfAnObjectEach).await.is_err());
    }

    #[tokio::test]
    async fn copies_of_a_subscription_may_share_an_object_which_is_not_the_originals() {
        let sandbox = Sandbox::new("herald-bench-");
        let ledger = ledger(&sandbox).await;
        let copied = ledger.copy_subscription(SUBSCRIPTION, 2_500, Copies::OfOneObject);
        copied.await.unwrap();
        let objects = "SELECT group_concat(n, ' ') FROM \
                       (SELECT count(*) AS n FROM subscriptions GROUP BY object ORDER BY count(*))";
        assert_eq!(ledger.ask(objects.to_owned()).await.unwrap(), "1 2500");
    }

    #[tokio::test]
    async fn each_copy_of_a_delivery_has_an_event_of_its_own() {
        let sandbox = Sandbox::new("herald-bench-");
        let ledger = ledger(&sandbox).await;
        let waiting = Waiting {
            delivery: DELIVERY,
            event: EVENT,
        };
        let delay = Duration::from_mins(1);
        let due = ledger.copy_delivery(waiting, 2_500, delay).await.unwrap();
        assert!(due.at > Instant::now());
        let copied = format!(
            "SELECT count(*) || ' ' || min(substr(hex(e.uid), 13, 1) || substr(hex(d.id), 13, 1)) || ' ' \
             || sum(substr(hex(d.id), 1, 12) = substr(hex(e.uid), 1, 12) AND d.attempts = 1) \
             FROM deliveries_open d JOIN events e ON e.uid = d.event JOIN event_keys k ON k.uid = e.uid AND k.id = e.id \
             WHERE d.due_at = {} AND e.data = 'kept' AND k.account = 'kept'",
            due.micros
        );
        assert_eq!(ledger.ask(copied).await.unwrap(), "2500 78 2500");
    }
}
