//! Reading a PostgreSQL URL. The driver knows fewer parameters than others do, and would say their values when it
//! leaves one out. Here they are named, without their values; and what would lead elsewhere if it were left out is
//! refused.

use crate::Error;
use sea_orm::sqlx::ConnectOptions;
use sea_orm::sqlx::postgres::PgConnectOptions;
use url::Url;

/// What the driver knows.
const KNOWN: [&str; 16] = [
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "password",
    "port",
    "ssl-ca",
    "ssl-cert",
    "ssl-key",
    "ssl-mode",
    "ssl-root-cert",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
];

/// What would lead elsewhere, or over an open line, and what to write instead.
const REFUSED: [(&str, &str); 5] = [
    ("currentSchema", "write options=-csearch_path%3DNAME"),
    ("schema", "write options=-csearch_path%3DNAME"),
    ("search_path", "write options=-csearch_path%3DNAME"),
    ("service", "service files are not read: write what it stands for"),
    ("ssl", "write sslmode=require, or sslmode=verify-full"),
];

/// Where a database is.
#[derive(Debug, Clone)]
pub(crate) struct Address {
    pub(super) options: PgConnectOptions,
    /// The parameters of the URL that nobody here knows.
    pub(crate) ignored: Vec<String>,
}

impl Address {
    /// Reads a URL.
    ///
    /// # Errors
    /// If it is none, or asks for what there is not; the words contain nothing secret.
    pub(crate) fn read(url: &str) -> Result<Self, Error> {
        let refuse = |why: String| Error::Unfit(format!("the database's URL cannot be used: {why}"));
        let authority = url.split_once("://").map_or("", |(_, rest)| rest);
        let authority = authority.split(['/', '?', '#']).next().unwrap_or_default();
        if authority.rsplit('@').next().is_some_and(|hosts| hosts.contains(',')) {
            return Err(refuse(SEVERAL_HOSTS.to_owned()));
        }
        let mut parsed = Url::parse(url).map_err(|error| refuse(format!("{error}; {ENCODED}")))?;
        if !matches!(parsed.scheme(), "postgres" | "postgresql") {
            return Err(refuse(format!(
                "it must begin with postgres:// or postgresql://, and not with {}://",
                parsed.scheme()
            )));
        }
        if parsed.fragment().is_some() {
            return Err(refuse(format!("there is a # in it; {ENCODED}")));
        }
        let given: Vec<(String, String)> = parsed.query_pairs().into_owned().collect();
        let mut ignored = Vec::new();
        let mut kept = Vec::new();
        let verified = given.iter().any(|(name, _)| matches!(&**name, "sslmode" | "ssl-mode"));
        for (name, value) in given {
            if let Some((_, instead)) = REFUSED.iter().find(|(refused, _)| *refused == name) {
                return Err(refuse(format!("{name} is not known; {instead}")));
            }
            match &*name {
                "host" | "hostaddr" if value.contains(',') => return Err(refuse(SEVERAL_HOSTS.to_owned())),
                // One that only reads is of no use to Herald in any case.
                "target_session_attrs" if matches!(&*value, "any" | "read-write" | "primary") => {}
                "target_session_attrs" => {
                    return Err(refuse(format!(
                        "target_session_attrs={value}: Herald needs a server that writes"
                    )));
                }
                // Those that the driver brings.
                "sslrootcert" if value == "system" => {
                    if !verified {
                        kept.push(("sslmode".to_owned(), "verify-full".to_owned()));
                    }
                }
                known if KNOWN.contains(&known) || known.starts_with("options[") => kept.push((name, value)),
                _ => ignored.push(name),
            }
        }
        parsed.set_query(None);
        if !kept.is_empty() {
            parsed.query_pairs_mut().extend_pairs(kept);
        }
        ignored.sort_unstable();
        ignored.dedup();
        let options = PgConnectOptions::from_url(&parsed).map_err(|error| refuse(error.to_string()))?;
        Ok(Self { options, ignored })
    }
}

const SEVERAL_HOSTS: &str = "it names several hosts, and Herald takes one: give a name or an address that always leads \
                             to the server that writes";

const ENCODED: &str = "in a user and a password : / ? # @ % are written %3A %2F %3F %23 %40 %25";

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> Address {
        Address::read(url).unwrap_or_else(|error| panic!("{url}: {error}"))
    }

    #[test]
    fn what_services_hand_out_is_read() {
        let address = read(
            "postgres://u:p@h:6432/db?sslmode=require&channel_binding=require&connect_timeout=5&sslpassword=s3cret",
        );
        assert_eq!(address.ignored, ["channel_binding", "connect_timeout", "sslpassword"]);
        let options = &address.options;
        assert_eq!((options.get_host(), options.get_port()), ("h", 6432));
        assert_eq!(options.get_database(), Some("db"));
        assert!(matches!(
            options.get_ssl_mode(),
            sea_orm::sqlx::postgres::PgSslMode::Require
        ));
        let system = read("postgresql://u@h/db?sslrootcert=system&target_session_attrs=read-write");
        assert!(matches!(
            system.options.get_ssl_mode(),
            sea_orm::sqlx::postgres::PgSslMode::VerifyFull
        ));
        assert_eq!(system.ignored, Vec::<String>::new());
        let socket = read("postgres:///db?host=/run/postgresql&user=u");
        assert_eq!(
            socket
                .options
                .get_socket()
                .map(|path| path.display().to_string())
                .as_deref(),
            Some("/run/postgresql")
        );
        let encoded = read("postgres://u:a%40%3A%2F%25%23b@h/db");
        assert_eq!(encoded.options.get_username(), "u");
        let options = read("postgres://u@h/db?options=-csearch_path%3Dherald&options[statement_timeout]=5s");
        let given = options.options.get_options().unwrap_or_default();
        assert!(
            given.contains("-csearch_path=herald") && given.contains("statement_timeout=5s"),
            "{given}"
        );
    }

    #[test]
    fn what_would_lead_elsewhere_is_refused_in_words_that_tell_no_secret() {
        for (url, word) in [
            ("postgres://u:s3cret@a,b/db", "several hosts"),
            ("postgres://u:s3cret@a:1,b:2/db", "several hosts"),
            ("postgres:///db?user=u&password=s3cret&host=a,b", "several hosts"),
            ("postgresql+asyncpg://u:s3cret@h/db", "postgresql+asyncpg"),
            ("postgres://u:s3cret#x@h/db", "%23"),
            ("postgres://u:s3cret/x@h/db", "%2F"),
            ("postgres://u:s3cret@h/db?currentSchema=x", "options=-csearch_path"),
            ("postgres://u:s3cret@h/db?ssl=true", "sslmode"),
            ("postgres://u:s3cret@h/db?target_session_attrs=standby", "writes"),
            ("postgres://u:s3cret@h/db?sslmode=always", "always"),
            ("s3cret", "URL"),
        ] {
            let error = Address::read(url).map(drop).expect_err(url).to_string();
            assert!(error.contains(word) && !error.contains("s3cret"), "{url}: {error}");
        }
    }
}
