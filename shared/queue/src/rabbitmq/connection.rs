//! Connecting, and what goes wrong with it in words.

use super::transport::{self, Valve};
use super::{Error, hello};
use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};
use lapin::tcp::OwnedTLSConfig;
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{Connection, ConnectionProperties, ErrorKind};
use std::fmt;
use std::time::Duration;

/// A broker that died without a word is noticed after two of these.
const HEARTBEAT_SECONDS: u16 = 10;

/// How long connecting may take: a broker that is stopped accepts connections and says nothing.
const CONNECT: Duration = Duration::from_secs(10);

/// How old a queue must be before it is relied on: one younger than a second can be lost with a killed
/// node, and those a little older were once seen to be.
const SETTLE: Duration = Duration::from_secs(5);

/// How many bytes are received ahead: seven of the largest requests that ingest takes. Twice as many and the largest
/// message are 128 MiB, which is the most that is in hand.
const BUDGET: usize = 56 << 20;

/// Where RabbitMQ is, and who Herald is there.
#[derive(Clone)]
pub struct Settings {
    uri: AMQPUri,
    ca: Option<String>,
    /// Users whose messages may be arrays and may say in whose name they come: Herald's own.
    pub trusted_users: Vec<String>,
    /// How old the queues must be before the first message is accepted.
    pub settle: Duration,
    /// How many bytes are received ahead of what is recorded; at most twice as many, and one message more, are held.
    pub budget: usize,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URL has a password.
        write!(f, "{self}")
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authority = &self.uri.authority;
        let user = &authority.userinfo.username;
        write!(f, "{}://{user}@{}:{}", self.uri.scheme, authority.host, authority.port)?;
        match self.uri.vhost.as_str() {
            "/" => Ok(()),
            vhost => write!(f, "/{vhost}"),
        }
    }
}

impl Settings {
    /// Reads `amqp://user:password@host:port/vhost` or `amqps://…`. The URL's user is the trusted one.
    pub fn new(url: &str) -> Result<Self, Error> {
        let invalid = |why: &str| Error::setup(format!("the broker's URL {why}"));
        // The parser's own words would repeat the URL, and with it the password.
        let mut uri: AMQPUri = url
            .parse()
            .map_err(|_says_the_url: String| invalid("must be amqp://user:password@host:port/vhost, or amqps://"))?;
        if url.contains("@[") || url.contains("//[") {
            // The client takes it for localhost.
            return Err(invalid("has an IPv6 address, which needs a host name instead"));
        }
        if uri.vhost.is_empty() {
            // A final slash is meant as the default, hardly ever as a vhost without a name.
            "/".clone_into(&mut uri.vhost);
        }
        if uri.authority.userinfo.username.len() > 255 {
            return Err(invalid("has too long a user name"));
        }
        uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
        Ok(Self {
            trusted_users: vec![uri.authority.userinfo.username.clone()],
            settle: SETTLE,
            budget: BUDGET,
            uri,
            ca: None,
        })
    }

    /// Trusts, beside the system's, the authorities in that PEM file for `amqps://`.
    pub fn with_ca(mut self, pem: Vec<u8>) -> Result<Self, Error> {
        let pem = String::from_utf8(pem).ok().filter(|pem| pem.contains("-----BEGIN"));
        self.ca = Some(pem.ok_or_else(|| Error::setup("the broker's CA is not a PEM file of certificates"))?);
        if self.uri.scheme == AMQPScheme::AMQP {
            return Err(Error::setup("a CA for the broker needs a URL with amqps://"));
        }
        Ok(self)
    }

    /// The user that Herald connects as.
    pub fn user(&self) -> &str {
        &self.uri.authority.userinfo.username
    }

    /// Connects; `name` is shown in RabbitMQ's own console.
    pub(crate) async fn connect(&self, name: &str) -> Result<Connection, Error> {
        self.connect_through(&Valve::default(), name).await
    }

    /// The same, with a valve to end it by.
    pub(super) async fn connect_through(&self, valve: &Valve, name: &str) -> Result<Connection, Error> {
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let connecting = transport::connect(valve.clone(), self.uri.clone(), properties, self.tls());
        let connected = self.in_time(connecting).await?;
        connected.map_err(|error| self.explain(&error))
    }

    /// The server's major version, if it says one.
    pub(super) async fn major_version(&self) -> Result<Option<u32>, Error> {
        let tls = self.tls();
        let version = self.in_time(hello::major_version(&self.uri, &tls)).await?;
        version.map_err(|error| Error::away(format!("{self}: {error}")))
    }

    fn tls(&self) -> OwnedTLSConfig {
        OwnedTLSConfig {
            identity: None,
            cert_chain: self.ca.clone(),
        }
    }

    async fn in_time<T>(&self, connecting: impl Future<Output = T>) -> Result<T, Error> {
        let connected = tokio::time::timeout(CONNECT, connecting).await;
        connected.map_err(|_elapsed| Error::away(format!("no answer from {self} within {} s", CONNECT.as_secs())))
    }

    fn explain(&self, error: &lapin::Error) -> Error {
        let user = self.user();
        let vhost = &self.uri.vhost;
        match error.kind() {
            ErrorKind::ProtocolError(refusal) => match refusal.kind() {
                AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) => {
                    Error::setup(format!("{self} refuses the user {user}: wrong name or password"))
                }
                AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) => Error::setup(format!(
                    "{self}: there is no vhost {vhost}, or the user {user} may not use it"
                )),
                _ => Error::away(format!("{self}: {}", refusal.get_message())),
            },
            _ => Error::away(format!("{self}: {error}")),
        }
    }
}

/// What RabbitMQ objected to on a channel, which it then closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Objection {
    NotFound,
    AccessRefused,
    PreconditionFailed,
    Other,
}

impl Objection {
    pub(super) fn of(error: &lapin::Error) -> Self {
        let ErrorKind::ProtocolError(error) = error.kind() else {
            return Self::Other;
        };
        match error.kind() {
            AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND) => Self::NotFound,
            AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) => Self::AccessRefused,
            AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED) => Self::PreconditionFailed,
            _ => Self::Other,
        }
    }
}

/// RabbitMQ's or the client's own words.
pub(super) fn words(error: &lapin::Error) -> String {
    match error.kind() {
        ErrorKind::ProtocolError(error) => error.get_message().to_string(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_read_and_its_password_never_shown() {
        let settings = Settings::new("amqps://us%65r:s3cret@mq.example:5673/v%2f1").unwrap();
        assert_eq!(settings.to_string(), "amqps://user@mq.example:5673/v/1");
        assert!(!format!("{settings:?}").contains("s3cret"));
        assert_eq!(settings.trusted_users, ["user"]);
        assert_eq!(settings.uri.query.heartbeat, Some(10));
        for (url, shown) in [
            ("amqp://h", "amqp://guest@h:5672"),
            ("amqp://h/", "amqp://guest@h:5672"),
            ("amqp://h/%2f", "amqp://guest@h:5672"),
        ] {
            assert_eq!(Settings::new(url).unwrap().to_string(), shown);
        }
        let settings = Settings::new("amqp://h?heartbeat=3").unwrap();
        assert_eq!(settings.uri.query.heartbeat, Some(3));
    }

    #[test]
    fn what_is_no_url_is_refused_without_repeating_it() {
        for url in [
            "",
            "mq",
            "http://u:s3cret@h",
            "amqp://u:s3cret@h:port",
            "amqp://u:s3cret@[::1]:5672",
        ] {
            let error = Settings::new(url).unwrap_err().to_string();
            assert!(!error.contains("s3cret"), "{error}");
        }
        let settings = || Settings::new("amqps://h").unwrap();
        assert!(settings().with_ca(b"no".to_vec()).is_err());
        assert!(settings().with_ca(b"-----BEGIN CERTIFICATE-----".to_vec()).is_ok());
        let plain = Settings::new("amqp://h").unwrap();
        assert!(plain.with_ca(b"-----BEGIN CERTIFICATE-----".to_vec()).is_err());
    }
}
