//! What a process prints at its start: where it listens, and at the first start the operator's key and lines to try.

use crate::commands::listen::print_line;
use crate::commands::samples;
use crate::process::config::{Config, Flags};
use crate::process::listener::reachable;
use crate::process::roles::Role;
use crate::process::stop::Running;
use std::net::{IpAddr, Ipv4Addr};

/// The variable that the lines to try have the key in, which `herald send` and `herald trigger` take it from too.
const KEY: &str = "HERALD_KEY";

/// Prints the greeting. Nobody waits for it: whoever reads stdout may be away.
pub(crate) fn greet(running: &Running, role: Role, config: &Config, flags: &Flags) {
    let text = words(running, role, config, flags);
    let key_is_lost = running.first_start;
    let print = move || {
        let why = match print_line(text) {
            Ok(true) => return,
            Ok(false) => "nobody reads stdout".to_owned(),
            Err(error) => error.to_string(),
        };
        if key_is_lost {
            tracing::error!(
                why,
                "the operator's key was made and could not be printed; start again with a key in HERALD_OPERATOR_KEY"
            );
        } else {
            tracing::warn!(why, "the greeting could not be printed");
        }
    };
    if let Err(error) = std::thread::Builder::new().name("greeting".to_owned()).spawn(print) {
        tracing::error!(%error, "no thread for the greeting");
    }
}

fn words(running: &Running, role: Role, config: &Config, flags: &Flags) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let here = reachable(running.address).into_iter().next().unwrap_or(running.address);
    let url = format!("http://{here}");
    let made = running.operator_key.as_deref().filter(|_| running.first_start);
    if role != Role::Up {
        let listens = format!("Herald {version} {} listens on http://{}", role.name(), running.address);
        return match made {
            Some(key) => format!("{listens}\nThe operator's key, shown this once: {key}"),
            None => listens,
        };
    }
    let key = match made {
        Some(key) => format!("export {KEY}={key}  # the operator's key, shown this once"),
        None => {
            format!("export {KEY}=...  # the operator's key (who lost it starts with a new one in HERALD_OPERATOR_KEY)")
        }
    };
    let herald = std::env::args().next().unwrap_or_else(|| "herald".to_owned());
    let mut lines = vec![key];
    let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
    let local = config.egress_allow.iter().any(|network| network.contains(&loopback));
    if local {
        let subscription = samples::subscription("http://127.0.0.1:9000/");
        lines.push(format!("{herald} listen --port 9000 &"));
        lines.push(format!(
            "curl -s {url}/v1/subscriptions -H \"Authorization: Bearer ${KEY}\" -H 'Content-Type: application/json' -d '{subscription}'"
        ));
        lines.push(format!("{herald} trigger PacketCreated --url {url}"));
    } else {
        lines.push(format!("curl -s {url}/v1/webhooks -H \"Authorization: Bearer ${KEY}\""));
    }
    lines.push(format!("{herald} audit{}", given(flags)));
    let note = if local {
        ""
    } else {
        "\nMessages go to public addresses only. With --egress-allow 127.0.0.1 they go to this machine as well, and these \
         lines\nend in a message that is received."
    };
    format!(
        "Herald {version} listens on http://{}\nTry next, in another terminal:\n  {}{note}",
        running.address,
        lines.join("\n  ")
    )
}

/// The flags that lead another command to the same ledger.
fn given(flags: &Flags) -> String {
    let given = [
        ("--data", flags.data.as_ref().map(|data| data.display().to_string())),
        (
            "--broker",
            flags.broker.as_deref().map(|url| shown(url, "HERALD_BROKER_URL")),
        ),
        (
            "--database",
            flags.database.as_deref().map(|url| shown(url, "HERALD_DATABASE_URL")),
        ),
    ];
    let given = given.into_iter();
    given
        .filter_map(|(flag, value)| value.map(|value| format!(" {flag} {value}")))
        .collect()
}

/// A URL to be printed; one that may have a password in it under the name of a variable.
fn shown(url: &str, variable: &str) -> String {
    match url::Url::parse(url) {
        Ok(parsed) if parsed.password().is_none() && parsed.query().is_none() => url.to_owned(),
        _ => format!("\"${variable}\""),
    }
}
