//! The audit: every event's `matched_count` is compared with its rows, in one snapshot.
//!
//! Expired records are summed apart, see [`crate::retention`]: each removed record is counted there, or in its event
//! if that stays. For records that are kept the proof is the same as without any removal.

use crate::sql::{all, corrupt, for_values, get, history, one, uuid};
use crate::{Error, Ledger, retention};
use herald_domain::delivery::{Closed, Status};
use herald_domain::id::EventId;
use sea_orm::ConnectionTrait;
use std::collections::HashSet;

/// What an audit found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Events recorded and kept.
    pub events: i64,
    /// The sum of what they matched, without deliveries that have expired.
    pub matched: i64,
    /// Deliveries by status, every status present.
    pub deliveries: Vec<(Status, i64)>,
    /// Messages that were no events.
    pub rejected: i64,
    /// Records that have expired and were removed.
    pub expired: Expired,
    /// What does not add up, at most [`MAX_DIFFERENCES`].
    pub differences: Vec<String>,
}

/// The records that have expired and were removed since the ledger began. Together with those that are kept they are
/// everything that was ever recorded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expired {
    /// Events, with all their deliveries.
    pub events: i64,
    /// Deliveries by how they ended, also of events that are kept.
    pub deliveries: Vec<(Closed, i64)>,
    /// Messages that were no events.
    pub rejected: i64,
}

impl Expired {
    /// Whether anything has expired.
    pub fn is_some(&self) -> bool {
        let deliveries: i64 = self.deliveries.iter().map(|(_, count)| count).sum();
        self.events + deliveries + self.rejected > 0
    }
}

/// The most differences that one audit names.
pub const MAX_DIFFERENCES: usize = 1000;

/// Queries that find differences. Their rows have `what` (a blob) and two numbers.
const CHECKS: [(&str, &str); 5] = [
    (
        "event {what} matched {a} subscriptions but has {b} deliveries",
        "SELECT e.uid AS what, e.matched_count AS a, e.expired_count + coalesce(d.n, 0) AS b FROM events e LEFT JOIN \
         (SELECT event, count(*) AS n FROM (SELECT event FROM deliveries_open UNION ALL SELECT event FROM deliveries_closed) \
          AS every GROUP BY event) d ON d.event = e.uid WHERE e.matched_count <> e.expired_count + coalesce(d.n, 0) LIMIT 1000",
    ),
    (
        "open delivery {what} belongs to no event",
        "SELECT id AS what, CAST(0 AS bigint) AS a, CAST(0 AS bigint) AS b FROM deliveries_open d \
         WHERE NOT EXISTS (SELECT 1 FROM events WHERE uid = d.event) LIMIT 1000",
    ),
    (
        "closed delivery {what} belongs to no event",
        "SELECT id AS what, CAST(0 AS bigint) AS a, CAST(0 AS bigint) AS b FROM deliveries_closed d \
         WHERE NOT EXISTS (SELECT 1 FROM events WHERE uid = d.event) LIMIT 1000",
    ),
    (
        "delivery {what} is both open and closed",
        "SELECT id AS what, CAST(0 AS bigint) AS a, CAST(0 AS bigint) AS b FROM deliveries_open \
         WHERE id IN (SELECT id FROM deliveries_closed) LIMIT 1000",
    ),
    (
        "delivery {what} counts {a} attempts but has {b}",
        "SELECT d.id AS what, d.attempts AS a, count(DISTINCT t.number) AS b FROM deliveries_open d \
         LEFT JOIN attempts t ON t.delivery = d.id WHERE d.attempts > 0 GROUP BY d.id, d.attempts \
         HAVING d.attempts > count(DISTINCT t.number) LIMIT 1000",
    ),
];

impl Ledger {
    /// Adds everything up, in one snapshot.
    pub async fn audit(&self) -> Result<Account, Error> {
        let snapshot = history(self.store.queries()).await?;
        let number = async |sql: &str| -> Result<i64, Error> {
            let rows = all(&snapshot, sql, []).await?;
            rows.first().map_or(Ok(0), |row| get(row, "n"))
        };
        let mut deliveries = Vec::new();
        for status in Status::ALL {
            let count = match status {
                Status::Open => number("SELECT count(*) AS n FROM deliveries_open").await?,
                Status::Held => 0,
                Status::Closed(end) => closed(&snapshot, end).await?,
            };
            deliveries.push((status, count));
        }
        let mut differences = Vec::new();
        for (text, sql) in CHECKS {
            for row in all(&snapshot, sql, []).await? {
                let (a, b): (i64, i64) = (get(&row, "a")?, get(&row, "b")?);
                let what = uuid(&row, "what")?.to_string();
                differences.push(
                    text.replace("{what}", &what)
                        .replace("{a}", &a.to_string())
                        .replace("{b}", &b.to_string()),
                );
            }
        }
        differences.truncate(MAX_DIFFERENCES);
        Ok(Account {
            events: number("SELECT count(*) AS n FROM events").await?,
            matched: number("SELECT CAST(coalesce(sum(matched_count - expired_count), 0) AS bigint) AS n FROM events")
                .await?,
            expired: expired(&snapshot).await?,
            rejected: number("SELECT count(*) AS n FROM rejected_events").await?,
            deliveries,
            differences,
        })
    }

    /// The ones of these `Id`s for which no account has an event.
    pub async fn without_event(&self, ids: &[EventId]) -> Result<Vec<EventId>, Error> {
        let mut found = HashSet::new();
        let values = ids.iter().map(|id| id.0.into()).collect();
        for row in for_values(self.store.queries(), "SELECT id FROM events WHERE id", values, "").await? {
            found.insert(EventId(uuid(&row, "id")?));
        }
        Ok(ids.iter().copied().filter(|id| !found.contains(id)).collect())
    }
}

async fn expired<C: ConnectionTrait>(snapshot: &C) -> Result<Expired, Error> {
    let row = one(snapshot, "SELECT * FROM expired", []).await?;
    let row = row.ok_or_else(|| corrupt("no account of what has expired"))?;
    let mut deliveries = Vec::with_capacity(Closed::ALL.len());
    for end in Closed::ALL {
        deliveries.push((end, get(&row, retention::column(end))?));
    }
    Ok(Expired {
        events: get(&row, "events")?,
        deliveries,
        rejected: get(&row, "rejected")?,
    })
}

async fn closed<C: ConnectionTrait>(snapshot: &C, end: Closed) -> Result<i64, Error> {
    let rows = all(
        snapshot,
        "SELECT count(*) AS n FROM deliveries_closed WHERE status = $1",
        [end.code().into()],
    )
    .await?;
    rows.first().map_or(Ok(0), |row| get(row, "n"))
}
