//! Over RabbitMQ, past Herald's own entrance: each event as a message of its own, confirmed.
//!
//! Nobody answers there what is wrong with an event, so that is said here.

use super::{Answer, Item};
use anyhow::Context;
use herald_domain::catalogue::EnateEvent;
use herald_domain::event::{Outline, outline};
use herald_domain::problem::{Fault, MAX_FAULTS};
use herald_queue::Error;
use herald_queue::rabbitmq::{Client, Outgoing, Settings};
use std::path::Path;
use std::time::Duration;
use tokio::sync::Mutex;

/// Publishes to the exchange of one RabbitMQ.
#[derive(Debug)]
pub(in crate::commands::send) struct Amqp {
    settings: Settings,
    /// Connected at the first batch, and again after a failure.
    client: Mutex<Option<Client>>,
}

impl Amqp {
    pub(super) fn new(url: &str, ca: Option<&Path>) -> anyhow::Result<Self> {
        let mut settings = Settings::new(url).context("--amqp")?;
        if let Some(ca) = ca {
            let pem = crate::text::read_settings(ca).context("--amqp-ca")?;
            settings = settings.with_ca(pem.into_bytes()).context("--amqp-ca")?;
        }
        Ok(Self {
            settings,
            client: Mutex::new(None),
        })
    }

    pub(super) async fn attempt(&self, batch: &[Item], timeout: Duration) -> Answer {
        let outgoing = match outgoing(batch) {
            Ok(outgoing) => outgoing,
            Err(why) => return Answer::Refused(why),
        };
        match tokio::time::timeout(timeout, self.publish(&outgoing)).await {
            Ok(Ok(())) => Answer::Accepted(outgoing.iter().map(|event| event.id).collect()),
            Ok(Err(error @ Error::Setup(_))) => Answer::Refused(error.to_string()),
            Ok(Err(error)) => Answer::TryAgain {
                reason: error.to_string(),
                after: None,
            },
            Err(_elapsed) => Answer::TryAgain {
                reason: format!("{} did not confirm in time", self.settings),
                after: None,
            },
        }
    }

    async fn publish(&self, events: &[Outgoing<'_>]) -> Result<(), Error> {
        let mut client = self.client.lock().await;
        // It is put back only when all went well.
        let mut connected = match client.take() {
            Some(connected) => connected,
            None => Client::connect(&self.settings).await?,
        };
        connected.publish(events).await?;
        *client = Some(connected);
        Ok(())
    }
}

/// The batch as messages; or its faults, in the words that Herald has over HTTP.
fn outgoing(batch: &[Item]) -> Result<Vec<Outgoing<'_>>, String> {
    let mut events = Vec::with_capacity(batch.len());
    let mut faults = Vec::new();
    for item in batch {
        match outline(&item.text) {
            // Of a registered type only workers know the rest.
            Ok(Outline { id: Some(id), kind }) => events.push(Outgoing {
                id,
                key: EnateEvent::named(&kind).map_or(kind, |event| event.routing_key().into()),
                text: &item.text,
            }),
            // The input gives every event an Id that can be read at all.
            Ok(_) => faults.push(super::fault_line(Some(item), "/Id", "required", "Id is required")),
            Err(of_event) => faults.extend(
                of_event
                    .iter()
                    .map(|Fault { pointer, rule, detail }| super::fault_line(Some(item), pointer, rule, detail)),
            ),
        }
    }
    if faults.is_empty() {
        return Ok(events);
    }
    let count = faults.len();
    faults.truncate(MAX_FAULTS);
    let plural = if count == 1 { "" } else { "s" };
    Err(format!(
        "refused: the events have {count} fault{plural}{}",
        faults.concat()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::send::input::Item;
    use uuid::Uuid;

    fn item(line: u64, text: &str) -> Item {
        Item {
            text: text.to_owned(),
            id: None,
            line,
            end: 0,
        }
    }

    #[test]
    fn faults_are_told_with_their_lines_and_nothing_is_sent() {
        let good = crate::commands::samples::events()[0].to_string();
        let id = Uuid::from_u128(1);
        let good = good.replacen('{', &format!("{{\"Id\":\"{id}\","), 1);
        let sent = [item(1, &good)];
        let outgoing_events = outgoing(&sent).unwrap();
        assert_eq!(outgoing_events[0].id.0, id);
        let bad = [
            item(1, &good),
            item(4, "[]"),
            item(6, r#"{"Type":"X Y","Objects":{},"Data":{}}"#),
        ];
        let why = outgoing(&bad).unwrap_err();
        assert!(
            why.starts_with("refused: the events have 2 faults\n  line 4: (object)"),
            "{why}"
        );
        assert!(why.contains("\n  line 6: /Type (one_of)"), "{why}");
    }

    #[test]
    fn the_password_is_not_repeated() {
        let error = Amqp::new("http://u:s3cret@h", None).unwrap_err();
        assert!(!format!("{error:#}").contains("s3cret"), "{error:#}");
        assert!(Amqp::new("amqp://h", Some(Path::new("/nowhere"))).is_err());
    }
}
