//! What PostgreSQL says of the plans of a process's statements, while they run: `auto_explain` sends it to the client as
//! notices, and the client tells them to whoever listens to its traces.

use crate::rig::Rig;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Metadata, Subscriber};

/// The tables whose rows come and go with events.
pub(crate) const GROWING: [&str; 7] = [
    "events",
    "event_keys",
    "deliveries_open",
    "deliveries_closed",
    "attempts",
    "wakeups",
    "outbox",
];

/// The most rows that a scan may leave out.
const MOST_LEFT_OUT: f64 = 100.0;

/// The most pages that a scan may touch each time that it is begun and for each row that it finds: a path through an index
/// of a million entries, and the row.
const PAGES_EACH: f64 = 4.0;

/// What was heard of plans, each fault once.
#[derive(Default)]
pub(crate) struct Heard {
    /// How many plans there were.
    pub(crate) plans: usize,
    /// Scans that do not find their rows by an index.
    pub(crate) wrong: BTreeSet<String>,
    /// Scans that touched more pages than they may once dead rows are marked in the indexes.
    pub(crate) costly: BTreeSet<String>,
}

/// The most pages that a scan may touch besides [`PAGES_EACH`], of tables that were filled with so many rows some times over.
///
/// A page of an index has at least a hundred entries, so to pass all that are dead is to touch a page for every hundred.
/// To look at the rows themselves is to touch a page for every one.
fn most_pages(rows: u32) -> f64 {
    f64::from(rows) / 20.0
}

/// Has every process that is connected from now on say how its statements are planned.
pub(crate) async fn explain(rig: &Rig, plan_cache_mode: &str) {
    let settings = [
        ("session_preload_libraries", "auto_explain"),
        ("auto_explain.log_min_duration", "0"),
        ("auto_explain.log_level", "notice"),
        ("auto_explain.log_format", "json"),
        ("auto_explain.log_analyze", "on"),
        ("auto_explain.log_buffers", "on"),
        ("auto_explain.log_timing", "off"),
        ("auto_explain.log_nested_statements", "on"),
        ("plan_cache_mode", plan_cache_mode),
    ];
    for (name, value) in settings {
        let set = format!("EXECUTE format('ALTER DATABASE %I SET {name} = %L', current_database(), '{value}')");
        rig.execute(format!("DO $$ BEGIN {set}; END $$")).await.unwrap();
    }
}

/// Listens to the notices of connections that work on this thread.
pub(crate) struct Plans {
    heard: Arc<Mutex<Vec<Value>>>,
    _listening: DefaultGuard,
}

impl Plans {
    pub(crate) fn listen() -> Self {
        let heard = Arc::default();
        let notices = Notices(Arc::clone(&heard));
        Self {
            heard,
            _listening: tracing::subscriber::set_default(notices),
        }
    }

    /// Forgets what was heard.
    pub(crate) fn forget(&self) {
        self.heard.lock().unwrap().clear();
    }

    /// What was heard since this was asked last, of tables that were filled with so many rows.
    pub(crate) fn heard(&self, rows: u32) -> Heard {
        let plans = std::mem::take(&mut *self.heard.lock().unwrap());
        let mut heard = Heard {
            plans: plans.len(),
            ..Heard::default()
        };
        for plan in &plans {
            let text: Vec<_> = text(plan, "Query Text").split_whitespace().collect();
            let text: String = text.join(" ").chars().take(160).collect();
            look(&plan["Plan"], rows, &text, &mut heard);
        }
        heard
    }
}

/// Looks at a node of a plan and all below it.
fn look(node: &Value, rows: u32, query: &str, heard: &mut Heard) {
    let (kind, table, index) = (
        text(node, "Node Type"),
        text(node, "Relation Name"),
        text(node, "Index Name"),
    );
    let grows = GROWING.iter().any(|name| {
        let partition = table.strip_prefix(name);
        partition.is_some_and(|rest| rest.is_empty() || rest.starts_with("_2") || rest.starts_with("_past"))
    });
    let begun = number(node, "Actual Loops");
    if grows && kind != "ModifyTable" && begun > 0.0 {
        let scan = format!("{kind} of {table} {index}");
        let by_index = matches!(kind, "Index Scan" | "Index Only Scan") && !text(node, "Index Cond").is_empty();
        if !(by_index || kind == "Tid Scan" || is_whole(index)) {
            heard.wrong.insert(format!("{scan}: {query}"));
        }
        let left_out = number(node, "Rows Removed by Filter") * begun;
        if left_out > MOST_LEFT_OUT {
            heard
                .wrong
                .insert(format!("{scan} leaves out {left_out} rows: {query}"));
        }
        let found = number(node, "Actual Rows") * begun;
        let pages = number(node, "Shared Hit Blocks") + number(node, "Shared Read Blocks");
        // A scan by where rows lie counts the pages of what tells that, which is looked at by itself.
        if kind != "Tid Scan" && pages > most_pages(rows) + PAGES_EACH * (found + begun) {
            let of = format!("{found} rows in {begun} scans");
            heard
                .costly
                .insert(format!("{scan} touches {pages} pages for {of}: {query}"));
        }
    }
    for below in node["Plans"].as_array().into_iter().flatten() {
        look(below, rows, query, heard);
    }
}

/// The index of incomplete events holds no more than is wanted, and is read from its beginning.
fn is_whole(index: &str) -> bool {
    index.ends_with("_uid_idx")
}

fn text<'a>(node: &'a Value, name: &str) -> &'a str {
    node[name].as_str().unwrap_or_default()
}

fn number(node: &Value, name: &str) -> f64 {
    node[name].as_f64().unwrap_or_default()
}

/// Keeps the plans among the client's traces.
struct Notices(Arc<Mutex<Vec<Value>>>);

impl Subscriber for Notices {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "sqlx::postgres::notice"
    }

    fn event(&self, event: &Event<'_>) {
        event.record(&mut Keep(&self.0));
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

struct Keep<'a>(&'a Mutex<Vec<Value>>);

impl Visit for Keep<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() != "message" {
            return;
        }
        if let Some((_, plan)) = value.split_once("plan:\n") {
            self.0.lock().unwrap().push(serde_json::from_str(plan).unwrap());
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}
