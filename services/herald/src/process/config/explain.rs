//! Every setting in words, for `herald check-config`.

use super::{Config, Flags, VARIABLES, figment};
use ::figment::value::Value;

/// Every setting with its effective value and where it came from.
pub(crate) fn explain(flags: &Flags) -> anyhow::Result<Vec<(&'static str, String, String)>> {
    let figment = figment(flags)?;
    let mut settings: Vec<_> = VARIABLES
        .into_iter()
        .map(|(name, variable)| match figment.find_value(name) {
            Err(_) => (name, "not set".to_owned(), format!("default; set it with {variable}")),
            Ok(value) => {
                let source = figment.find_metadata(name);
                let source = source.map(|metadata| metadata.name.to_string()).unwrap_or_default();
                (name, shown(name, value), source)
            }
        })
        .collect();
    // What is wrong is told elsewhere.
    if let Ok(config) = Config::load(flags) {
        longer_for_dead(&config, &mut settings);
    }
    Ok(settings)
}

fn shown(name: &str, value: Value) -> String {
    match name {
        "operator_key" => "(secret)".to_owned(),
        "broker" | "database" | "otlp_endpoint" => without_password(text(value)),
        _ => text(value),
    }
}

/// A value as a flag has it.
fn text(value: Value) -> String {
    // A file's numbers have a sign, a flag's have none.
    let signed = value.to_i128().map(|number| number.to_string());
    let number = signed.or_else(|| Some(value.to_u128()?.to_string()));
    let number = number.or_else(|| Some(value.to_f64()?.to_string()));
    match value {
        Value::String(_, text) => text,
        Value::Array(_, values) if values.is_empty() => "[]".to_owned(),
        Value::Array(_, values) => values.into_iter().map(text).collect::<Vec<_>>().join(","),
        Value::Bool(_, truth) => truth.to_string(),
        Value::Dict(..) => "(a table)".to_owned(),
        Value::Empty(..) => "not set".to_owned(),
        Value::Char(_, character) => character.to_string(),
        Value::Num(..) => number.unwrap_or_default(),
    }
}

/// Dead deliveries are never kept for a shorter time than the others, whatever their own setting says.
fn longer_for_dead(config: &Config, settings: &mut [(&'static str, String, String)]) {
    let given = config.retention();
    let effective = given.effective();
    if given.dead == effective.dead {
        return;
    }
    if let Some((_, value, source)) = settings.iter_mut().find(|(name, ..)| *name == "retain_dead_days") {
        *source = format!("retain_days, because {value} ({source}) is shorter");
        *value = effective
            .dead
            .map_or(0, herald_domain::retention::Days::get)
            .to_string();
    }
}

/// A URL without its passwords.
fn without_password(url: String) -> String {
    let Ok(mut parsed) = url::Url::parse(&url) else {
        return "(not a URL)".to_owned();
    };
    let secret = |name: &str| matches!(name, "password" | "sslpassword");
    let pairs: Vec<(String, String)> = parsed.query_pairs().into_owned().collect();
    let in_query = pairs.iter().any(|(name, _)| secret(name));
    if !in_query && parsed.password().is_none() {
        return url;
    }
    if in_query {
        let shown = pairs.into_iter().map(|(name, value)| {
            let value = if secret(&name) { "***".to_owned() } else { value };
            (name, value)
        });
        parsed.query_pairs_mut().clear().extend_pairs(shown);
    }
    if parsed.password().is_some() && parsed.set_password(Some("***")).is_err() {
        return "(secret)".to_owned();
    }
    parsed.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn of_file(text: &str) -> anyhow::Result<Vec<(&'static str, String, String)>> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        explain(&Flags {
            config: Some(file.path().to_owned()),
            ..Flags::default()
        })
    }

    fn value(settings: &[(&'static str, String, String)], name: &str) -> String {
        let found = settings.iter().find(|(setting, ..)| *setting == name);
        found.map(|(_, value, _)| value.clone()).unwrap()
    }

    #[test]
    fn a_list_of_a_file_is_shown() {
        let shown = of_file(
            "\u{feff}egress_allow = [\"10.0.0.0/8\", \"::1\"]\r\negress_dns = [\"10.0.0.53\"]\r\n\
             broker_users = [\"one\", \"two\"]\r\nretain_days = 0\r\n",
        )
        .unwrap();
        assert_eq!(value(&shown, "egress_allow"), "10.0.0.0/8,::1");
        assert_eq!(value(&shown, "egress_dns"), "10.0.0.53");
        assert_eq!(value(&shown, "broker_users"), "one,two");
        let shown = of_file("").unwrap();
        assert_eq!(value(&shown, "egress_allow"), "[]");
    }

    #[test]
    fn what_is_no_toml_is_told_alone_and_with_its_line() {
        let error = format!("{:#}", of_file("listen = \"127.0.0.1:1\"\ndata = oops\n").unwrap_err());
        assert!(error.contains("is not TOML") && error.contains("line 2"), "{error}");
    }

    #[test]
    fn a_misspelt_setting_of_a_file_is_named_with_what_was_meant() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"egres_allow = []").unwrap();
        let flags = Flags {
            config: Some(file.path().to_owned()),
            ..Flags::default()
        };
        let error = format!("{:#}", Config::load(&flags).unwrap_err());
        let expected =
            "there is no setting egres_allow (from the file given with --config); did you mean egress_allow?";
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn dead_deliveries_are_shown_to_be_kept_as_long_as_the_others() {
        let dead = |text: &str| value(&of_file(text).unwrap(), "retain_dead_days");
        assert_eq!(dead("retain_days = 100"), "100");
        assert_eq!(dead("retain_days = 0"), "0");
        assert_eq!(dead("retain_days = 100\nretain_dead_days = 200"), "200");
        assert_eq!(dead("retain_dead_days = 0"), "0");
        assert_eq!(dead(""), "90");
    }

    #[test]
    fn no_password_of_a_url_is_shown() {
        for url in [
            "postgres://u:s3cret@h/db",
            "postgres://u@h/db?password=s3cret",
            "postgres://u:s3cret@h/db?sslmode=require&sslpassword=s3cret",
        ] {
            let shown = without_password(url.to_owned());
            assert!(shown.contains("***") && !shown.contains("s3cret"), "{shown}");
        }
        assert_eq!(
            without_password("amqp://h/v?heartbeat=5".to_owned()),
            "amqp://h/v?heartbeat=5"
        );
    }
}
