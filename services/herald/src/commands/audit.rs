//! `herald audit`: whether the accounts add up, beside a running instance or on a stopped one.

use crate::process::config::Config;
use anyhow::Context;
use herald_domain::delivery::Status;
use herald_domain::event::{Batch, id_of, split_json};
use herald_domain::id::EventId;
use herald_domain::time::SystemClock;
use herald_ledger::Ledger;
use herald_ledger::audit::{Account, Expired};
use herald_queue::{Embedded, Received};
use serde_json::{Map, Value, json};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The options of `herald audit`.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Audit {
    /// A file of event Ids, one a line, that a producer was told 202 for: which of them are nowhere?
    /// - for standard input
    #[arg(long, value_name = "FILE")]
    ids: Option<PathBuf>,
}

/// What an audit says.
#[derive(Debug)]
pub(crate) struct Report {
    /// As it is printed.
    pub(crate) json: Value,
    /// Nothing differs and nothing is missing.
    pub(crate) exact: bool,
}

pub(crate) async fn run(config: &Config, options: &Audit) -> anyhow::Result<Report> {
    let ids = options.ids.as_deref().map(read_ids).transpose()?;
    // What is in transit first: what dispatch moves to the ledger meanwhile is then in both, not in neither.
    let (ledger, in_transit, queued) = match config.shared() {
        None => look_into_file(config).await?,
        Some((broker, database)) => {
            let ledger = Ledger::connect(database).await.context("--database")?;
            let in_transit = look_at_broker(config, broker, &ledger).await?;
            (ledger, in_transit, HashSet::new())
        }
    };
    let account = ledger.audit().await.context("the ledger cannot be read")?;
    let missing = match ids {
        None => None,
        Some(mut ids) => {
            ids.retain(|id| !queued.contains(id));
            Some(ledger.without_event(&ids).await?)
        }
    };
    let exact = account.differences.is_empty() && missing.as_ref().is_none_or(Vec::is_empty);
    Ok(Report {
        json: to_json(&account, in_transit, missing.as_deref()),
        exact,
    })
}

/// The ledger in the data folder, how many events are in the embedded queue, and which.
async fn look_into_file(config: &Config) -> anyhow::Result<(Ledger, u64, HashSet<EventId>)> {
    let file = herald_ledger::file_in(&config.data);
    let ledger = Ledger::open_read_only(&file, Arc::new(SystemClock)).await?;
    let queue = Embedded::read_only(ledger.store().clone());
    let (mut in_transit, mut queued) = (0, HashSet::new());
    let note = |received: &Received| {
        in_transit += received.origins.events() as u64;
        queued.extend(ids_of(&received.body));
    };
    queue.scan(note).await.context("the event queue cannot be read")?;
    Ok((ledger, in_transit, queued))
}

/// How long consumers have to say what they have in hand; they do so every second.
const PATIENCE: Duration = Duration::from_secs(10);

/// How many messages were in RabbitMQ when this began: those that were ready, and those that consumers
/// then had in hand or have since. 0 is conclusive: nothing was on its way any more.
async fn look_at_broker(config: &Config, broker: &str, ledger: &Ledger) -> anyhow::Result<u64> {
    let settings = crate::process::stores::broker_settings(config, broker)?;
    let depth = herald_queue::rabbitmq::depth(&settings).await.context("--broker")?;
    // After that: what was ready then is counted, whoever has it now.
    let began = ledger.database_time().await.context("--database")?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let reports = ledger.reports_since(began).await.context("--database")?;
        let silent = depth.consumers.saturating_sub(reports.consumers);
        if silent == 0 || Instant::now() > deadline {
            if silent > 0 {
                tracing::warn!(
                    silent,
                    "consumers did not say what they have in hand; each counts as one message"
                );
            }
            return Ok(depth.ready + reports.in_hand + silent);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The audit as the contract prints it.
pub(crate) fn to_json(account: &Account, in_transit: u64, missing: Option<&[EventId]>) -> Value {
    let deliveries: Map<String, Value> = account
        .deliveries
        .iter()
        .map(|(status, count)| (status.name().to_owned(), (*count).into()))
        .collect();
    let mut json = json!({
        "Events": account.events,
        "Matched": account.matched,
        "Deliveries": deliveries,
        "InTransit": in_transit,
        "Rejected": account.rejected,
        "Differences": account.differences,
    });
    if let Some(missing) = missing {
        json["Missing"] = missing.iter().map(ToString::to_string).collect();
    }
    if account.expired.is_some() {
        json["Expired"] = expired_to_json(&account.expired);
    }
    json
}

fn expired_to_json(expired: &Expired) -> Value {
    let deliveries = expired.deliveries.iter();
    let deliveries: Map<String, Value> = deliveries
        .map(|(end, count)| (Status::Closed(*end).name().to_owned(), (*count).into()))
        .collect();
    json!({ "Events": expired.events, "Deliveries": deliveries, "Rejected": expired.rejected })
}

fn read_ids(file: &Path) -> anyhow::Result<Vec<EventId>> {
    let text = crate::text::read(file).context("--ids")?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(number, line)| {
            let id = line.trim();
            // As .NET and Windows' registry write it.
            let bare = id.strip_prefix('{').and_then(|id| id.strip_suffix('}')).unwrap_or(id);
            let line = || format!("--ids {}, line {}: {}", file.display(), number + 1, id.escape_debug());
            bare.parse().with_context(line)
        })
        .collect()
}

fn ids_of(body: &[u8]) -> Vec<EventId> {
    let text = std::str::from_utf8(body).unwrap_or_default();
    let texts = match split_json(text) {
        Ok(Batch::One(text)) => vec![text],
        Ok(Batch::Many(texts)) => texts,
        Err(_malformed) => Vec::new(),
    };
    texts.into_iter().filter_map(id_of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use herald_domain::delivery::Closed;

    fn ids(bytes: &[u8]) -> anyhow::Result<Vec<String>> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ids");
        std::fs::write(&file, bytes).unwrap();
        Ok(read_ids(&file)?.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn ids_are_read_as_windows_writes_them() {
        let id = "0193f1a0-7c1e-7d1a-b1f0-3a5c7e9d1b2f";
        let text = format!("\u{feff}{}\r\n\r\n{{{id}}}\r\n  {id}", id.to_uppercase());
        assert_eq!(ids(text.as_bytes()).unwrap(), [id; 3]);
        let wide: Vec<_> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(ids(&wide).unwrap(), [id; 3]);
        assert!(ids(b"").unwrap().is_empty());
    }

    #[test]
    fn what_is_no_id_is_named_with_its_line() {
        for wrong in [
            "{0193f1a0-7c1e-7d1a-b1f0-3a5c7e9d1b2f",
            "Id",
            "0193f1a07c1e7d1ab1f03a5c7e9d1b2f",
        ] {
            let error = format!("{:#}", ids(format!("\n{wrong}\n").as_bytes()).unwrap_err());
            assert!(error.contains("line 2") && error.contains("must be a GUID"), "{error}");
        }
        assert!(ids(b"\xff\x00").is_err());
    }

    #[test]
    fn what_has_expired_is_said_once_there_is_any() {
        let mut account = Account {
            events: 1,
            matched: 0,
            deliveries: vec![(Status::Open, 0)],
            rejected: 0,
            expired: Expired::default(),
            differences: Vec::new(),
        };
        assert_eq!(to_json(&account, 0, None).get("Expired"), None);
        account.expired.deliveries = vec![(Closed::Delivered, 2), (Closed::Dead, 0)];
        let expected = json!({ "Events": 0, "Deliveries": { "Delivered": 2, "Dead": 0 }, "Rejected": 0 });
        assert_eq!(to_json(&account, 0, None)["Expired"], expected);
    }
}
