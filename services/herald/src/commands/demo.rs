//! `herald up --demo`: the whole of it, seen in ten seconds.
//!
//! It is Herald as `herald up` runs it, in a temporary folder, and everything goes over HTTP as it would
//! for anybody: subscriptions, events, messages. Whether all went well is judged by what arrived and by
//! the audit, against what should have been; the demo fails loudly where they differ.

mod api;
mod expectations;
mod words;

use crate::commands::listen::{Receiver, Terminal};
use crate::commands::samples;
use crate::process::config::Config;
use crate::process::roles::Role;
use crate::process::stop::Running;
use anyhow::{Context, bail};
use api::Api;
use axum::http::StatusCode;
use expectations::Expectations;
use herald_domain::address::EgressPolicy;
use herald_domain::message::Source;
use herald_domain::time::{Clock, SystemClock};
use herald_domain::trace::SampleRatio;
use herald_ledger::Ledger;
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Duration;
use tokio::time::{interval, sleep};
use words::Words;

/// Between two events, so that one can follow.
const PACE: Duration = Duration::from_millis(200);
/// How often to look whether all is done.
const LOOK: Duration = Duration::from_millis(50);
/// When to stop waiting; it should take a quarter of that.
const DEADLINE: Duration = Duration::from_secs(20);

/// Runs the demo; a signal ends it early.
pub(crate) async fn run() -> anyhow::Result<()> {
    let folder = tempfile::Builder::new()
        .prefix("herald-demo-")
        .tempdir()
        .context("cannot make a temporary folder")?;
    let key = crate::process::data::random_key()?;
    let mut ending = std::pin::pin!(crate::process::signals::next());
    let running = tokio::select! {
        running = crate::process::start::start(config(folder.path(), &key), Role::Up) => running?,
        signal = &mut ending => return signal.map(drop),
    };
    let shown = tokio::select! {
        shown = show(&running, &key) => shown,
        signal = &mut ending => signal.map(drop),
    };
    let stopped = running.stop().await.context("Herald did not stop as it should");
    let removed = folder.close().context("cannot remove the temporary folder");
    shown.and(stopped).and(removed)
}

fn config(folder: &Path, key: &str) -> Config {
    Config {
        listen: (Ipv4Addr::LOCALHOST, 0).into(),
        data: folder.to_owned(),
        database: None,
        broker: None,
        broker_ca: None,
        broker_users: Vec::new(),
        operator_key: Some(key.to_owned()),
        source: Source::default(),
        egress_allow: loopback(),
        egress_ca: None,
        egress_dns: Vec::new(),
        // A folder that is gone in seconds.
        retain_days: None,
        retain_dead_days: None,
        retain_audit_log_days: None,
        otlp_endpoint: None,
        trace_sample_ratio: SampleRatio::ALL,
    }
}

/// The receiver is on this machine, which Herald does not send to unless it is told to.
fn loopback() -> Vec<IpNet> {
    vec![IpAddr::from(Ipv4Addr::LOCALHOST).into()]
}

async fn show(running: &Running, key: &str) -> anyhow::Result<()> {
    let words = Words(Terminal::stdout());
    let mut receiver = Receiver::start(0, expectations::answer).await?;
    words::say(&format!(
        "Herald {} on http://{} and a receiver on http://{}, in a temporary folder; it all ends with the demo.",
        env!("CARGO_PKG_VERSION"),
        running.address,
        receiver.address()
    ))?;
    let api = Api::new(running.address, key)?;
    let mut expected = Expectations::default();

    words.heading("An event type of one's own, and subscriptions")?;
    subscribe(&api, &receiver, &mut expected).await?;
    words.heading("Events as they are published, messages as they arrive")?;
    tokio::select! {
        outcome = publish_and_receive(&running.ledger, &api, &mut receiver, &mut expected, words) => outcome?,
        () = sleep(DEADLINE) => bail!("not everything was delivered within {} s: {:?}", DEADLINE.as_secs(), running.ledger.audit().await?),
    }

    words.heading("The dead letter, from GET /v1/dead-letters")?;
    let dead_letters = api.get("/v1/dead-letters").await?;
    for dead_letter in dead_letters["Items"]
        .as_array()
        .context("the dead letters have no Items")?
    {
        words.dead_letter(dead_letter)?;
    }
    words.heading("The account, as herald audit prints it")?;
    let in_transit = in_transit(&running.ledger).await?;
    let account = running.ledger.audit().await.context("the audit failed")?;
    words::account(&account, in_transit)?;
    let faults = expected.faults(&account, in_transit);
    if !faults.is_empty() {
        bail!("the demo FAILED:\n  {}", faults.join("\n  "));
    }
    words.next()
}

async fn subscribe(api: &Api, receiver: &Receiver, expected: &mut Expectations) -> anyhow::Result<()> {
    let egress = EgressPolicy::new(loopback());
    let base = format!("http://{}", receiver.address());
    let (name, kind) = (samples::INVOICE_PAID, samples::invoice_paid());
    api.put(&format!("/v1/event-types/{name}"), &kind, StatusCode::CREATED)
        .await?;
    expected.registered(name, &kind)?;
    words::registered(name, &kind)?;
    let requests = samples::subscriptions(&base).into_iter();
    for request in requests.chain([samples::invoices(&base)]) {
        let created = api.post("/v1/subscriptions", &request, StatusCode::CREATED).await?;
        expected.subscribed(&request, &created, &egress)?;
        let url = request["SubscriberURL"].as_str().unwrap_or_default();
        words::subscribed(&request, url.strip_prefix(&base).unwrap_or(url))?;
    }
    Ok(())
}

/// Until every event is published and nothing is open any more.
async fn publish_and_receive(
    ledger: &Ledger,
    api: &Api,
    receiver: &mut Receiver,
    expected: &mut Expectations,
    words: Words,
) -> anyhow::Result<()> {
    let events = samples::events().into_iter();
    let mut events = events.chain([samples::invoice()]).peekable();
    let (mut pace, mut look) = (interval(PACE), interval(LOOK));
    loop {
        tokio::select! {
            received = receiver.next() => {
                let received = received.context("the receiver ended by itself")?;
                words.arrived(&received, expected.arrived(&received))?;
            }
            _ = pace.tick(), if events.peek().is_some() => {
                if let Some(event) = events.next() {
                    let answer = api.post("/v1/events", &event, StatusCode::ACCEPTED).await?;
                    let id = answer["Id"].as_str().context("the answer has no Id")?.parse()?;
                    let matched = expected.published(&event, id)?;
                    words.published(SystemClock.now(), &event, matched)?;
                }
            }
            _ = look.tick(), if events.peek().is_none() => {
                if expected.settled(&ledger.audit().await.context("the audit failed")?) {
                    break;
                }
            }
        }
    }
    // A message is in the channel before it is answered, so nothing comes after this.
    while let Some(received) = receiver.waiting() {
        words.arrived(&received, expected.arrived(&received))?;
    }
    Ok(())
}

/// How many accepted events dispatch has not seen yet.
async fn in_transit(ledger: &Ledger) -> anyhow::Result<u64> {
    let mut events = 0;
    let queue = herald_queue::Embedded::read_only(ledger.store().clone());
    queue
        .scan(|received| events += received.origins.events() as u64)
        .await
        .context("the event queue cannot be read")?;
    Ok(events)
}
