//! What the demo says.

use crate::commands::listen::{Received, Terminal, Tone, clock_time, print_line};
use crate::commands::samples::BROKEN_ATTEMPTS;
use herald_domain::catalogue::{EnateEvent, FieldKind};
use herald_domain::delivery::{Closed, Status};
use herald_domain::time::Timestamp;
use herald_ledger::audit::Account;
use serde_json::Value;

/// The longest name of a webhook.
const WEBHOOK_WIDTH: usize = 29;

/// Writes the demo's lines.
#[derive(Debug, Clone, Copy)]
pub(super) struct Words(pub(super) Terminal);

impl Words {
    pub(super) fn heading(self, text: &str) -> anyhow::Result<()> {
        say("")?;
        say(&self.0.tint(Tone::Strong, text).to_string())
    }

    pub(super) fn published(self, at: Timestamp, event: &Value, matched: usize) -> anyhow::Result<()> {
        let kind = event["Type"].as_str().unwrap_or_default();
        let unmatched = if matched == 0 {
            ", which nobody subscribed to"
        } else {
            ""
        };
        let what = about(&event["Data"]);
        let text = format!(
            "{}  published  {kind:<WEBHOOK_WIDTH$}  {what}{unmatched}",
            clock_time(at)
        );
        say(&self.0.tint(Tone::Quiet, text).to_string())
    }

    /// One line for every message, and one more where it was not simply taken.
    pub(super) fn arrived(self, received: &Received, right: bool) -> anyhow::Result<()> {
        let body: Value = serde_json::from_slice(&received.body).unwrap_or_default();
        let webhook = received.header("webhook-type").unwrap_or("message");
        let attempt = received.attempt();
        let verdict = if right {
            self.0.tint(Tone::Good, "verified")
        } else {
            self.0.tint(Tone::Bad, "WRONG")
        };
        say(&format!(
            "{}    arrived  {webhook:<WEBHOOK_WIDTH$}  {}, at {}, attempt {attempt}, {verdict}",
            clock_time(received.at),
            about(&body),
            received.path
        ))?;
        let (tone, what) = match (received.answer, attempt) {
            (answer, 1) if answer.is_success() => return Ok(()),
            (answer, _) if answer.is_success() => (Tone::Good, "it failed before, and now it is delivered".to_owned()),
            (answer, BROKEN_ATTEMPTS) => (
                Tone::Bad,
                format!("the receiver answered {answer} again, the last time: it is dead"),
            ),
            (answer, _) => (
                Tone::Notable,
                format!("the receiver answered {answer}; Herald will try again"),
            ),
        };
        say(&format!("{:23}{}", "", self.0.tint(tone, what)))
    }

    pub(super) fn dead_letter(self, dead_letter: &Value) -> anyhow::Result<()> {
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        say(&format!(
            "  {} of event {}: {} after {} attempts ({})",
            text(&dead_letter["Webhook"]),
            text(&dead_letter["EventId"]),
            self.0.tint(Tone::Bad, text(&dead_letter["Status"])),
            dead_letter["AttemptCount"],
            text(&dead_letter["Reason"]),
        ))?;
        say(&format!(
            "  last attempt at {}: {}",
            text(&dead_letter["LastAttempt"]["At"]),
            text(&dead_letter["LastAttempt"]["Detail"])
        ))?;
        say(&format!(
            "  once the receiver is mended: POST /v1/deliveries/{}/retry",
            text(&dead_letter["Id"])
        ))
    }

    pub(super) fn next(self) -> anyhow::Result<()> {
        let herald = std::env::args().next().unwrap_or_else(|| "herald".to_owned());
        self.heading("Next")?;
        let lines = [
            (
                format!("{herald} up"),
                "Herald for good: it prints its address, a key, and lines to try",
            ),
            (format!("{herald} listen"), "a receiver to try it with"),
            (format!("{herald} --help"), "all commands"),
            ("README.md".to_owned(), "how it works, and what it promises"),
        ];
        let width = lines.iter().map(|(command, _)| command.len()).max().unwrap_or_default();
        for (command, what) in lines {
            say(&format!("  {command:<width$}  {what}"))?;
        }
        Ok(())
    }
}

/// Writes a line; if nobody reads it, the demo goes on all the same.
pub(super) fn say(line: &str) -> anyhow::Result<()> {
    print_line(line).map(drop)
}

/// Tells of an event type that was registered.
pub(super) fn registered(name: &str, kind: &Value) -> anyhow::Result<()> {
    let description = kind["Description"].as_str().unwrap_or_default();
    say(&format!(
        "  {name:<WEBHOOK_WIDTH$}  a type that Enate does not have: {description}"
    ))
}

/// Tells of a subscription.
pub(super) fn subscribed(request: &Value, path: &str) -> anyhow::Result<()> {
    let text = |name: &str| request[name].as_str().unwrap_or_default();
    let names = request["EventTypes"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str);
    let listens = match text("Webhook") {
        "" => names.collect::<Vec<_>>().join(", "),
        webhook => webhook.to_owned(),
    };
    let header = match (text("CustomHeader"), text("CustomHeaderValue")) {
        ("", _) => String::new(),
        (name, value) => format!(", with {name}: {value}"),
    };
    say(&format!(
        "  {listens:<WEBHOOK_WIDTH$}  {}, to {path}{header}",
        text("Name")
    ))
}

/// The audit as `herald audit` prints it, and what it proves.
pub(super) fn account(account: &Account, in_transit: u64) -> anyhow::Result<()> {
    let count = |status| super::expectations::count(account, status);
    say(&format!(
        "  {}",
        crate::commands::audit::to_json(account, in_transit, None)
    ))?;
    say(&format!(
        "  Nothing is lost and nothing is made up: {} events matched {} times = {} delivered + {} dead + {} open; in \
         transit {in_transit}; differences {}.",
        account.events,
        account.matched,
        count(Status::Closed(Closed::Delivered)),
        count(Status::Closed(Closed::Dead)),
        count(Status::Open),
        if account.differences.is_empty() {
            "none".to_owned()
        } else {
            account.differences.len().to_string()
        },
    ))
}

/// What an event or message is about, by the fields of its kind.
fn about(data: &Value) -> String {
    let text = |name: &str| data[name].as_str();
    // In the format of Standard Webhooks it is one deeper.
    if data["data"].is_object() {
        return about(&data["data"]);
    }
    if let Some(number) = text("Number") {
        return format!("invoice {number}");
    }
    if let Some(reference) = text("Reference") {
        let process = text("ProcessTypeName").unwrap_or_default();
        return format!(
            "{reference} {process} is {}",
            meaning(EnateEvent::PacketCreated, "Status", data)
        );
    }
    if data["CommunicationType"].is_number() {
        let kind = meaning(EnateEvent::NewCommunication, "CommunicationType", data);
        return match text("Subject") {
            Some(subject) => format!("{kind} \"{subject}\""),
            None => kind.to_owned(),
        };
    }
    text("Name").unwrap_or("?").to_owned()
}

/// The word for a number in a field of codes.
fn meaning(kind: EnateEvent, name: &str, data: &Value) -> &'static str {
    let field = kind.fields().iter().find(|field| field.name == name);
    let codes = field.and_then(|field| {
        if let FieldKind::Code(codes) = field.kind {
            Some(codes)
        } else {
            None
        }
    });
    let code = data[name].as_i64();
    codes
        .unwrap_or_default()
        .iter()
        .find(|(number, _)| Some(*number) == code)
        .map_or("?", |(_, meaning)| meaning)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::samples::events;

    #[test]
    fn every_sample_is_told_in_a_few_words() {
        let told: Vec<_> = events().iter().map(|event| about(&event["Data"])).collect();
        assert_eq!(
            told.first().map(String::as_str),
            Some("202234-C Start Employee is ToDo")
        );
        assert!(
            told.contains(&"PhoneIncoming".to_owned()) && told.contains(&"2022 Schedule".to_owned()),
            "{told:?}"
        );
        assert!(told.iter().all(|words| !words.contains('?')), "{told:?}");
    }
}
