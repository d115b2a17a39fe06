//! Settings: embedded defaults, a file, the environment, flags; each wins over the one before.

mod explain;
mod remarks;
mod values;

pub(crate) use explain::explain;
pub(crate) use remarks::remarks;

use crate::process::roles::Role;
use anyhow::{Context, bail};
use clap::Args;
use figment::error::Kind;
use figment::providers::{Format, Serialized, Toml};
use figment::value::{Dict, Map};
use figment::{Figment, Metadata, Profile, Provider};
use herald_domain::message::Source;
use herald_domain::retention::{Days, Retention};
use herald_domain::trace::SampleRatio;
use herald_telemetry::traces::Settings;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;

/// The defaults, which are also the reference of all settings.
const DEFAULTS: &str = include_str!("defaults.toml");

/// The settings and the variables of the environment that set them.
const VARIABLES: [(&str, &str); 16] = [
    ("listen", "HERALD_LISTEN"),
    ("data", "HERALD_DATA"),
    ("database", "HERALD_DATABASE_URL"),
    ("broker", "HERALD_BROKER_URL"),
    ("broker_ca", "HERALD_BROKER_CA"),
    ("broker_users", "HERALD_BROKER_USERS"),
    ("operator_key", "HERALD_OPERATOR_KEY"),
    ("source", "HERALD_SOURCE"),
    ("egress_allow", "HERALD_EGRESS_ALLOW"),
    ("egress_ca", "HERALD_EGRESS_CA"),
    ("egress_dns", "HERALD_EGRESS_DNS"),
    ("retain_days", "HERALD_RETAIN_DAYS"),
    ("retain_dead_days", "HERALD_RETAIN_DEAD_DAYS"),
    ("retain_audit_log_days", "HERALD_RETAIN_AUDIT_LOG_DAYS"),
    ("otlp_endpoint", "HERALD_OTLP_ENDPOINT"),
    ("trace_sample_ratio", "HERALD_TRACE_SAMPLE_RATIO"),
];

/// The flags that set something.
#[derive(Debug, Clone, Default, Args, Serialize)]
#[expect(clippy::doc_markdown, reason = "the comments are the help on the terminal")]
pub(crate) struct Flags {
    /// Where the HTTP entrances listen [env: HERALD_LISTEN] [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) listen: Option<String>,
    /// The folder of the ledger and the event queue [env: HERALD_DATA] [default: ./herald-data]
    #[arg(long, value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) data: Option<PathBuf>,
    /// The ledger's database, with --broker [env: HERALD_DATABASE_URL] [default: a file in the data folder]
    #[arg(long, value_name = "URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) database: Option<String>,
    /// The event queue's broker, with --database [env: HERALD_BROKER_URL] [default: the embedded queue]
    #[arg(long, value_name = "URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) broker: Option<String>,
    /// A PEM file of the certificates that the broker's must be signed by, for amqps with a CA of one's own
    /// [env: HERALD_BROKER_CA] [default: the system's]
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) broker_ca: Option<PathBuf>,
    /// The broker's users that Herald's own processes publish as, comma-separated: what they say of an event's
    /// account is believed [env: HERALD_BROKER_USERS] [default: the user of --broker]
    #[arg(long, value_name = "USER,...")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) broker_users: Option<String>,
    /// The source of the CloudEvents that Herald sends, a URI-reference [env: HERALD_SOURCE] [default: urn:herald]
    #[arg(long, value_name = "URI")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) source: Option<String>,
    /// Networks that subscribers may be in besides the public ones, comma-separated [env: HERALD_EGRESS_ALLOW]
    #[arg(long, value_name = "CIDR,...")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) egress_allow: Option<String>,
    /// A PEM file of certificates that are trusted besides the system's [env: HERALD_EGRESS_CA]
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) egress_ca: Option<PathBuf>,
    /// The name servers that subscribers' names are looked up at, comma-separated, port 53 unless given
    /// [env: HERALD_EGRESS_DNS] [default: the system's]
    #[arg(long, value_name = "ADDR,...")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) egress_dns: Option<String>,
    /// How many days events, deliveries that have ended and rejected messages are kept: 7 to 3650, or 0 for ever
    /// [env: HERALD_RETAIN_DAYS] [default: 30]
    #[arg(long, value_name = "DAYS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) retain_days: Option<u32>,
    /// The same for dead deliveries and their events, never shorter than --retain-days
    /// [env: HERALD_RETAIN_DEAD_DAYS] [default: 90]
    #[arg(long, value_name = "DAYS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) retain_dead_days: Option<u32>,
    /// The same for the log of who changed what [env: HERALD_RETAIN_AUDIT_LOG_DAYS] [default: 365]
    #[arg(long, value_name = "DAYS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) retain_audit_log_days: Option<u32>,
    /// The OpenTelemetry collector that traces are sent to, over HTTP [env: HERALD_OTLP_ENDPOINT]
    /// [default: no traces]
    #[arg(long, value_name = "URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) otlp_endpoint: Option<String>,
    /// Of the events that come without a trace, how many are traced, 0 to 1 [env: HERALD_TRACE_SAMPLE_RATIO]
    /// [default: 1]
    #[arg(long, value_name = "RATIO")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) trace_sample_ratio: Option<String>,
    /// A file of settings, TOML
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub(crate) config: Option<PathBuf>,
}

/// The effective settings: what flags, variables, the file and the defaults make together.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    #[serde(deserialize_with = "values::listen")]
    pub(crate) listen: SocketAddr,
    pub(crate) data: PathBuf,
    pub(crate) database: Option<String>,
    pub(crate) broker: Option<String>,
    pub(crate) broker_ca: Option<PathBuf>,
    #[serde(default, deserialize_with = "values::names")]
    pub(crate) broker_users: Vec<String>,
    pub(crate) operator_key: Option<String>,
    #[serde(deserialize_with = "values::source")]
    pub(crate) source: Source,
    #[serde(deserialize_with = "values::networks")]
    pub(crate) egress_allow: Vec<IpNet>,
    pub(crate) egress_ca: Option<PathBuf>,
    #[serde(default, deserialize_with = "values::name_servers")]
    pub(crate) egress_dns: Vec<SocketAddr>,
    #[serde(deserialize_with = "values::days")]
    pub(crate) retain_days: Option<Days>,
    #[serde(deserialize_with = "values::days")]
    pub(crate) retain_dead_days: Option<Days>,
    #[serde(deserialize_with = "values::days")]
    pub(crate) retain_audit_log_days: Option<Days>,
    pub(crate) otlp_endpoint: Option<String>,
    #[serde(deserialize_with = "values::ratio")]
    pub(crate) trace_sample_ratio: SampleRatio,
}

impl Config {
    /// Reads all layers. The error says which setting is wrong, why, and where it came from.
    pub(crate) fn load(flags: &Flags) -> anyhow::Result<Self> {
        let figment = figment(flags)?;
        let config: Self = figment.extract().map_err(|errors| in_words(errors, &figment))?;
        if let Some(endpoint) = &config.otlp_endpoint {
            expect_scheme("--otlp-endpoint", endpoint, &["http", "https"])?;
        }
        match (&config.broker, &config.database) {
            (Some(_), None) => bail!(
                "--broker is given without --database: with RabbitMQ the ledger must be PostgreSQL, because several \
                 processes share it; give both, or neither for the embedded default"
            ),
            (None, Some(_)) => bail!(
                "--database is given without --broker: with PostgreSQL the event queue must be RabbitMQ, because several \
                 processes share it; give both, or neither for the embedded default"
            ),
            (Some(broker), Some(database)) => {
                expect_scheme("--broker", broker, &["amqp", "amqps"])?;
                herald_ledger::Ledger::read_url(database).context("--database")?;
                Ok(config)
            }
            (None, None) => Ok(config),
        }
    }

    /// How long what is over is kept.
    pub(crate) fn retention(&self) -> Retention {
        Retention {
            events: self.retain_days,
            dead: self.retain_dead_days,
            audit_log: self.retain_audit_log_days,
        }
    }

    /// Where traces go and how many, if they go anywhere.
    pub(crate) fn traces(&self, role: Role) -> anyhow::Result<Option<Settings>> {
        let Some(endpoint) = &self.otlp_endpoint else {
            return Ok(None);
        };
        Ok(Some(Settings {
            endpoint: endpoint.parse().context("--otlp-endpoint is not a URL")?,
            ratio: self.trace_sample_ratio,
            version: env!("CARGO_PKG_VERSION"),
            role: role.name(),
        }))
    }

    /// The broker and the database, where several processes share them.
    pub(crate) fn shared(&self) -> Option<(&str, &str)> {
        self.broker.as_deref().zip(self.database.as_deref())
    }
}

fn expect_scheme(flag: &str, url: &str, schemes: &[&str]) -> anyhow::Result<()> {
    // The text itself may hold a password.
    let meant = schemes.join(":// or ");
    match url::Url::parse(url) {
        Ok(url) if schemes.contains(&url.scheme()) => Ok(()),
        // host:port looks like a scheme with something behind it.
        Ok(parsed) if url.contains("://") => {
            bail!("{flag} begins with {}://, and must with {meant}://", parsed.scheme())
        }
        _ => bail!("{flag} is not a URL, which begins with {meant}://"),
    }
}

fn figment(flags: &Flags) -> anyhow::Result<Figment> {
    let mut figment = Figment::from(Named("the defaults", Toml::string(DEFAULTS)));
    if let Some(file) = &flags.config {
        // A file that was named must be there, and be TOML; what else is wrong is told by setting.
        let text = crate::text::read_settings(file).context("--config")?;
        let settings = Toml::string(&text);
        let told = |error: figment::Error| anyhow::anyhow!("--config {} is not TOML: {}", file.display(), error.kind);
        settings.data().map_err(told)?;
        figment = figment.merge(Named("the file given with --config", settings));
    }
    for (name, variable) in VARIABLES {
        // An empty variable is one that somebody left unset: `${X:-}` in a compose file.
        if let Some(value) = std::env::var(variable).ok().filter(|value| !value.trim().is_empty()) {
            figment = figment.merge(Named(variable, Serialized::default(name, value.trim())));
        }
    }
    Ok(figment.merge(Named("a flag", Serialized::defaults(flags))))
}

fn in_words(errors: figment::Error, figment: &Figment) -> anyhow::Error {
    let lines: Vec<_> = errors
        .into_iter()
        .map(|error| {
            let setting = error.path.join(".");
            let source = error
                .metadata
                .as_ref()
                .map(|metadata| metadata.name.to_string())
                .unwrap_or_default();
            let value = figment
                .find_value(&setting)
                .ok()
                .and_then(figment::value::Value::into_string);
            let value = value.map(|value| format!(" = {value:?}")).unwrap_or_default();
            match &error.kind {
                Kind::UnknownField(name, settings) => {
                    let meant = remarks::closest(name, settings.iter().copied());
                    let meant = meant.map_or_else(String::new, |meant| format!("; did you mean {meant}?"));
                    format!("there is no setting {name} (from {source}){meant}")
                }
                kind => format!("{setting}{value} (from {source}): {kind}"),
            }
        })
        .collect();
    anyhow::anyhow!("settings are wrong: {}", lines.join("; "))
}

/// A layer under a name that people know.
struct Named<P>(&'static str, P);

impl<P: Provider> Provider for Named<P> {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.0)
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        self.1.data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_complete_and_flags_win() {
        let flags = Flags {
            listen: Some("127.0.0.1:1".to_owned()),
            egress_allow: Some("127.0.0.0/8, ::1".to_owned()),
            egress_dns: Some("10.0.0.53, [fd00::53]:5353".to_owned()),
            ..Flags::default()
        };
        let config = Config::load(&flags).unwrap();
        assert_eq!(config.listen.port(), 1);
        assert_eq!(config.data, PathBuf::from("./herald-data"));
        assert_eq!(config.egress_allow.len(), 2);
        let servers = ["10.0.0.53:53", "[fd00::53]:5353"].map(|server| server.parse().unwrap());
        assert_eq!(config.egress_dns, servers);
    }

    #[test]
    fn a_fault_names_the_setting_and_where_it_came_from() {
        let flags = Flags {
            listen: Some("8080".to_owned()),
            ..Flags::default()
        };
        let error = Config::load(&flags).unwrap_err().to_string();
        assert!(error.contains("listen") && error.contains("a flag"), "{error}");
        let flags = Flags {
            egress_allow: Some("here".to_owned()),
            ..Flags::default()
        };
        let error = Config::load(&flags).unwrap_err().to_string();
        assert!(
            error.contains("egress_allow") && error.contains("here is not a network"),
            "{error}"
        );
    }

    #[test]
    fn a_source_is_a_uri_reference() {
        assert_eq!(Config::load(&Flags::default()).unwrap().source, Source::default());
        let of = |source: &str| {
            let source = Some(source.to_owned());
            Config::load(&Flags {
                source,
                ..Flags::default()
            })
            .map(|config| config.source)
        };
        assert_eq!(of("https://a.example/").unwrap().as_str(), "https://a.example/");
        let error = of("my herald").unwrap_err().to_string();
        assert!(error.contains("source") && error.contains("URI-reference"), "{error}");
    }

    #[test]
    fn retention_is_a_month_unless_said_otherwise_and_0_is_for_ever() {
        let retention = Config::load(&Flags::default()).unwrap().retention();
        assert_eq!((retention.events, retention.dead), (Days::new(30), Days::new(90)));
        assert_eq!(retention.audit_log, Days::new(365));
        let flags = Flags {
            retain_days: Some(7),
            retain_dead_days: Some(0),
            ..Flags::default()
        };
        let retention = Config::load(&flags).unwrap().retention();
        assert_eq!((retention.events, retention.dead), (Days::new(7), None));
        let flags = Flags {
            retain_days: Some(6),
            ..Flags::default()
        };
        let error = Config::load(&flags).unwrap_err().to_string();
        assert!(
            error.contains("retain_days") && error.contains("6 is not a number of days from 7"),
            "{error}"
        );
        let shown = explain(&Flags::default()).unwrap();
        assert!(
            shown
                .iter()
                .any(|(name, value, _)| (*name, &**value) == ("retain_days", "30")),
            "{shown:?}"
        );
        let shown = explain(&flags).unwrap();
        assert!(
            shown
                .iter()
                .any(|(name, value, _)| (*name, &**value) == ("retain_days", "6")),
            "{shown:?}"
        );
    }

    #[test]
    fn traces_go_nowhere_unless_said_and_then_all_of_them() {
        let config = Config::load(&Flags::default()).unwrap();
        assert!(config.traces(Role::Up).unwrap().is_none());
        assert_eq!(Some(config.trace_sample_ratio), SampleRatio::new(1.0));
        let with = |endpoint: &str, ratio: &str| Flags {
            otlp_endpoint: Some(endpoint.to_owned()),
            trace_sample_ratio: Some(ratio.to_owned()),
            ..Flags::default()
        };
        let flags = with("http://me:secret@127.0.0.1:4318", "0.25");
        let settings = Config::load(&flags).unwrap().traces(Role::Up).unwrap().unwrap();
        assert_eq!(Some(settings.ratio), SampleRatio::new(0.25));
        let shown = format!("{:?}", explain(&flags).unwrap());
        assert!(
            shown.contains("http://me:***@127.0.0.1:4318") && !shown.contains("secret@"),
            "{shown}"
        );
        assert!(shown.contains(r#""trace_sample_ratio", "0.25""#), "{shown}");
        let shown = format!("{:?}", explain(&Flags::default()).unwrap());
        assert!(shown.contains(r#""trace_sample_ratio", "1""#), "{shown}");
        for (endpoint, ratio, fault) in [
            ("http://127.0.0.1:4318", "1.5", "1.5 is not a number from 0 to 1"),
            ("http://127.0.0.1:4318", "all", "all is not a number from 0 to 1"),
            ("127.0.0.1:4318", "1", "--otlp-endpoint is not a URL"),
            ("grpc://127.0.0.1:4317", "1", "--otlp-endpoint begins with grpc://"),
        ] {
            let error = format!("{:#}", Config::load(&with(endpoint, ratio)).unwrap_err());
            assert!(error.contains(fault), "{error}");
        }
    }

    #[test]
    fn broker_and_database_go_together() {
        let flags = Flags {
            broker: Some("amqp://localhost".to_owned()),
            ..Flags::default()
        };
        assert!(
            Config::load(&flags)
                .unwrap_err()
                .to_string()
                .contains("without --database")
        );
        let flags = Flags {
            database: Some("postgres://localhost".to_owned()),
            ..Flags::default()
        };
        assert!(
            Config::load(&flags)
                .unwrap_err()
                .to_string()
                .contains("without --broker")
        );
    }
}
