//! `herald trigger`: publishes a sample event of a type.

use super::input::Item;
use super::{Progress, Target};
use crate::commands::listen::print_line;
use crate::commands::samples;
use clap::builder::PossibleValuesParser;
use herald_domain::catalogue::{EnateEvent, packs};
use herald_domain::id::parse_guid;
use serde_json::{Value, json};

/// The options of `herald trigger`.
#[derive(Debug, clap::Args)]
pub(crate) struct Trigger {
    /// The event's type
    #[arg(value_name = "TYPE", value_parser = PossibleValuesParser::new(kinds()))]
    kind: String,
    #[command(flatten)]
    target: Target,
    #[arg(
        long = "object",
        value_name = "TYPE=GUID",
        help = "What the event concerns, instead of the sample's object of that type, such as Company=6a1f0f5e-55a5-4f0c-9c39-0d5e2e0c1a01; several times for several",
        value_parser = object
    )]
    objects: Vec<(String, String)>,
}

/// The event types that come with Herald.
fn kinds() -> impl Iterator<Item = &'static str> {
    let enate = EnateEvent::ALL.into_iter().map(EnateEvent::name);
    enate.chain(packs().map(|kind| kind.name))
}

fn object(text: &str) -> Result<(String, String), String> {
    let (name, guid) = text.split_once('=').ok_or("must be TYPE=GUID")?;
    let guid = parse_guid(guid).map_err(|error| format!("after = it {error}"))?;
    Ok((name.to_owned(), guid.to_string()))
}

/// Publishes the sample and prints its Id.
pub(crate) async fn trigger(options: Trigger) -> anyhow::Result<()> {
    let producer = options.target.producer()?;
    let event = sample(&options.kind, &options.objects);
    let item = Item::new(&event.to_string(), 1, 0)?;
    let progress = Progress::default();
    let accepted = producer.publish(&[item], |reason| progress.note(reason)).await;
    for id in accepted.map_err(anyhow::Error::msg)? {
        print_line(id)?;
    }
    Ok(())
}

/// The first of the samples that has that type, or the example of a pack's, with those objects.
fn sample(kind: &str, objects: &[(String, String)]) -> Value {
    let of_kind = |event: &Value| event["Type"] == kind;
    let of_pack = || {
        let of_pack = packs().find(|of_pack| of_pack.name == kind)?;
        Some(json!({"Type": kind, "Objects": {}, "Data": of_pack.draft().example}))
    };
    let event = samples::events().into_iter().find(of_kind);
    let mut event = event.or_else(of_pack).unwrap_or_default();
    if kind.starts_with("BusinessObject") && !objects.is_empty() {
        // Such an event concerns one object.
        event["Objects"] = json!({});
    }
    for (name, guid) in objects {
        event["Objects"][name] = guid.as_str().into();
    }
    event
}

#[cfg(test)]
mod tests {
    use super::*;
    use herald_domain::event::outline;

    const GUID: &str = "0193f1a0-7c1e-7d1a-b1f0-3a5c7e9d1b2f";

    #[test]
    fn every_type_has_a_sample_and_takes_objects() {
        for kind in EnateEvent::ALL {
            let plain = sample(kind.name(), &[]);
            assert_eq!(outline(&plain.to_string()).unwrap().kind, kind.name());
            let name = match kind {
                EnateEvent::NewCommunication => "Packet",
                _ => "Company",
            };
            let given = sample(kind.name(), &[(name.to_owned(), GUID.to_owned())]);
            assert_eq!(given["Objects"][name], GUID);
            assert_eq!(outline(&given.to_string()).unwrap().kind, kind.name());
        }
        let ticket = sample("Autotask.Ticket.Create", &[("Company".to_owned(), GUID.to_owned())]);
        assert_eq!(ticket["Objects"], json!({"Company": GUID}));
        for kind in kinds() {
            assert_eq!(outline(&sample(kind, &[]).to_string()).unwrap().kind, kind);
        }
    }

    #[test]
    fn an_object_is_a_type_and_a_guid() {
        assert_eq!(
            object(&format!("Company={}", GUID.to_uppercase())),
            Ok(("Company".to_owned(), GUID.to_owned()))
        );
        assert!(object("Company").unwrap_err().contains("TYPE=GUID"));
        assert!(object("Company=1").unwrap_err().contains("must be a GUID"));
    }
}
