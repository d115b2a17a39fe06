//! The command line as its help shows it: of the settings that all commands take, each shows those that it uses.

use super::Arguments;
use super::listen::print_line;
use clap::{Command, CommandFactory as _};
use clap_complete::Shell;

/// The settings that a command uses. The others are accepted as well, so that all processes can be given the same.
fn used(command: &str) -> Option<&'static [&'static str]> {
    Some(match command {
        "ingest" => &[
            "listen",
            "database",
            "broker",
            "broker_ca",
            "otlp_endpoint",
            "trace_sample_ratio",
            "config",
        ],
        "worker" => &[
            "listen",
            "database",
            "broker",
            "broker_ca",
            "broker_users",
            "source",
            "egress_allow",
            "egress_ca",
            "egress_dns",
            "otlp_endpoint",
            "trace_sample_ratio",
            "config",
        ],
        "dispatch" => &[
            "listen",
            "database",
            "broker",
            "broker_ca",
            "broker_users",
            "otlp_endpoint",
            "trace_sample_ratio",
            "config",
        ],
        "deliver" => &[
            "listen",
            "database",
            "broker",
            "broker_ca",
            "source",
            "egress_allow",
            "egress_ca",
            "egress_dns",
            "otlp_endpoint",
            "trace_sample_ratio",
            "config",
        ],
        "manage" => &[
            "listen",
            "database",
            "broker",
            "broker_ca",
            "egress_allow",
            "retain_days",
            "retain_dead_days",
            "retain_audit_log_days",
            "config",
        ],
        "audit" => &["data", "database", "broker", "broker_ca", "config", "ids"],
        "migrate" => &["data", "database", "broker", "broker_ca", "config"],
        "health" => &["listen", "config"],
        _ => return None,
    })
}

/// The command line, with the help of every command.
pub(crate) fn command() -> Command {
    let mut command = Arguments::command();
    let names: Vec<_> = command.get_subcommands().map(|of| of.get_name().to_owned()).collect();
    for name in names {
        if let Some(used) = used(&name) {
            command = command.mut_subcommand(&name, |of| {
                of.mut_args(|arg| {
                    let unused = !used.contains(&arg.get_id().as_str());
                    arg.hide(unused)
                })
            });
        }
    }
    command
}

/// Prints completions for a shell.
pub(super) fn complete(shell: Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command(), "herald", &mut script);
    print_line(String::from_utf8(script)?.trim_end())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn help(name: &str) -> String {
        let mut command = command();
        let of = command.find_subcommand_mut(name).unwrap();
        of.render_long_help().to_string()
    }

    #[test]
    fn a_command_shows_the_settings_that_it_uses() {
        for (name, shown, hidden) in [
            ("up", "--retain-days", "--nothing"),
            ("health", "--listen", "--egress-allow"),
            ("ingest", "--otlp-endpoint", "--retain-days"),
            ("worker", "--egress-ca", "--data <"),
            ("audit", "--ids", "--listen"),
            ("manage", "--retain-days", "--egress-ca"),
            ("check-config", "--egress-dns", "--nothing"),
        ] {
            let help = help(name);
            assert!(help.contains(shown) && !help.contains(hidden), "{name}:\n{help}");
        }
    }

    #[test]
    fn every_name_is_one_of_a_setting_and_every_setting_is_still_accepted() {
        let command = command();
        for of in command.get_subcommands() {
            let ids: Vec<_> = of.get_arguments().map(|arg| arg.get_id().as_str()).collect();
            for name in used(of.get_name()).unwrap_or_default() {
                assert!(ids.contains(name), "{} has no {name}", of.get_name());
            }
        }
        let given = command.try_get_matches_from(["herald", "ingest", "--retain-days", "30"]);
        assert!(given.is_ok(), "{given:?}");
    }
}
