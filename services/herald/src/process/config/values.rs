//! Values of settings, whether they come as text, as from the environment, or as what a file has.

use herald_domain::message::Source;
use herald_domain::retention::Days;
use herald_domain::trace::SampleRatio;
use ipnet::IpNet;
use serde::{Deserialize, Deserializer};
use std::net::{IpAddr, SocketAddr};

/// Where name servers listen, RFC 1035.
const DNS_PORT: u16 = 53;

/// A text, or the number that a file has without quotes.
struct Text(String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected a text or a whole number")]
        enum Either {
            Number(i64),
            Text(String),
        }
        Ok(match Either::deserialize(deserializer)? {
            Either::Number(number) => Self(number.to_string()),
            Either::Text(text) => Self(text),
        })
    }
}

/// A list, or its elements in one text, separated by commas.
pub(super) fn names<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected texts, in a list or separated by commas")]
    enum Names {
        List(Vec<String>),
        Text(String),
    }
    Ok(match Names::deserialize(deserializer)? {
        Names::List(texts) => texts,
        Names::Text(text) => text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(str::to_owned)
            .collect(),
    })
}

/// Reads an address and a port to listen at.
pub(super) fn listen<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = Text::deserialize(deserializer)?.0;
    text.parse().map_err(|_not_an_address| {
        let meant = match text.parse::<u16>() {
            Ok(port) => format!("127.0.0.1:{port} for this machine alone, or [::]:{port} for every address"),
            Err(_not_a_port) => "an address with a port, such as 127.0.0.1:8080, or [::]:8080 for every one".to_owned(),
        };
        serde::de::Error::custom(format!("{text} is not where to listen; give {meant}"))
    })
}

/// Reads the source of CloudEvents.
pub(super) fn source<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Source, D::Error> {
    let text = String::deserialize(deserializer)?;
    Source::parse(&text).map_err(serde::de::Error::custom)
}

/// Reads a list of networks.
pub(super) fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    let read = |text: String| {
        // A single address is a network of one.
        let network = text
            .parse::<IpNet>()
            .or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        network.map_err(|_neither| serde::de::Error::custom(format!("{text} is not a network such as 10.0.0.0/8")))
    };
    names(deserializer)?.into_iter().map(read).collect()
}

/// Name servers; without a port it is that of RFC 1035.
pub(super) fn name_servers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<SocketAddr>, D::Error> {
    let read = |text: String| {
        let address = text
            .parse::<SocketAddr>()
            .or_else(|_| text.parse::<IpAddr>().map(|address| SocketAddr::new(address, DNS_PORT)));
        address.map_err(|_neither| {
            serde::de::Error::custom(format!("{text} is not an address such as 10.0.0.53 or 10.0.0.53:5353"))
        })
    };
    names(deserializer)?.into_iter().map(read).collect()
}

/// A number of days; 0 is for ever.
pub(super) fn days<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Days>, D::Error> {
    let text = Text::deserialize(deserializer)?.0;
    match text.parse::<u32>().ok().map(|days| (days, Days::new(days))) {
        Some((0, _)) => Ok(None),
        Some((_, Some(days))) => Ok(Some(days)),
        Some((_, None)) | None => Err(serde::de::Error::custom(format!(
            "{text} is not a number of days from {} to {}, nor 0 for ever",
            Days::MIN,
            Days::MAX
        ))),
    }
}

/// A number from 0 to 1.
pub(super) fn ratio<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SampleRatio, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a number")]
    enum Number {
        Number(f64),
        Text(String),
    }
    let (number, text) = match Number::deserialize(deserializer)? {
        Number::Number(number) => (Some(number), number.to_string()),
        Number::Text(text) => (text.parse().ok(), text),
    };
    number
        .and_then(SampleRatio::new)
        .ok_or_else(|| serde::de::Error::custom(format!("{text} is not a number from 0 to 1")))
}
