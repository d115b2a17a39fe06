//! The Compose file, by its specification, the binary, and the files that it mounts.

use crate::tools::{commands, deploy, items, settings, strings, yaml};
use serde_json::Value;
use std::collections::BTreeMap;

/// The port of the image's listener.
const PORT: &str = "8080";

fn services() -> Vec<(String, Value)> {
    let compose = yaml("compose", "compose.yaml");
    let services = compose["services"].as_object().expect("services");
    services
        .iter()
        .map(|(name, service)| (name.clone(), service.clone()))
        .collect()
}

fn of_herald() -> Vec<(String, Value)> {
    let of_herald: Vec<_> = services()
        .into_iter()
        .filter(|(_, service)| service["image"] == "herald")
        .collect();
    assert!(of_herald.len() >= 4, "ingest, worker, manage, migrate");
    of_herald
}

/// What a value is where nobody has set its variables: `${NAME:-default}` is the default.
fn interpolated(value: &str) -> String {
    let mut text = String::new();
    let mut rest = value;
    while let Some((before, variable)) = rest.split_once("${") {
        let (variable, after) = variable.split_once('}').expect("an end of the variable");
        let (_, default) = variable.split_once(":-").expect("every variable has a default");
        text.push_str(before);
        text.push_str(default);
        rest = after;
    }
    text + rest
}

#[test]
fn variables_fall_back_to_their_defaults() {
    assert_eq!(interpolated("a${B:-c}d${E:-}"), "acd");
}

#[test]
fn the_binary_takes_every_command_and_setting() {
    let commands = commands();
    for (name, service) in of_herald() {
        let arguments = strings(&service["command"]);
        let (role, flags) = arguments.split_first().expect("the image runs a role");
        assert!(*role == name && commands.contains(&name), "{name}: herald {role}");
        let environment = service["environment"].as_object().expect("settings");
        let environment: BTreeMap<_, _> = environment
            .iter()
            .map(|(variable, value)| (variable.clone(), interpolated(value.as_str().expect("text"))))
            .collect();
        let settings = settings(flags, &environment);
        assert!(settings["broker"].contains("@rabbitmq"), "{name}: {settings:?}");
        assert!(settings["database"].contains("@postgres"), "{name}: {settings:?}");
        for port in strings(&service["ports"]) {
            assert_eq!(port.rsplit(':').next(), Some(PORT), "{name}: {port}");
        }
    }
}

#[test]
fn nothing_of_herald_is_privileged_and_nothing_listens_for_others() {
    for (name, service) in of_herald() {
        assert_eq!(service["read_only"], true, "{name}");
        assert_eq!(strings(&service["cap_drop"]), ["ALL"], "{name}");
    }
    for (name, service) in services() {
        for port in strings(&service["ports"]) {
            assert!(port.starts_with("127.0.0.1:"), "{name}: {port}");
        }
    }
}

#[test]
fn what_is_mounted_and_waited_for_is_there() {
    let services = services();
    for (name, service) in &services {
        for volume in strings(&service["volumes"]) {
            if let Some((path, _)) = volume.strip_prefix("./").and_then(|volume| volume.split_once(':')) {
                assert!(deploy(path).exists(), "{name}: {volume}");
            }
        }
        for waited in service["depends_on"].as_object().into_iter().flatten() {
            assert!(
                services.iter().any(|(other, _)| other == waited.0),
                "{name} waits for {}",
                waited.0
            );
        }
    }
}

/// Prometheus finds every role where Compose has it.
#[test]
fn every_role_is_scraped() {
    let prometheus = yaml("plain", "prometheus/prometheus.yaml");
    let mut jobs = items(&prometheus["scrape_configs"]).iter();
    let herald = jobs.find(|job| job["job_name"] == "herald").expect("a job herald");
    let discovery = &herald["dns_sd_configs"][0];
    assert_eq!(discovery["port"].to_string(), PORT);
    let roles: Vec<_> = of_herald()
        .into_iter()
        .map(|(name, _)| name)
        .filter(|name| name != "migrate")
        .collect();
    let mut scraped = strings(&discovery["names"]);
    scraped.sort_unstable();
    let mut expected: Vec<_> = roles.iter().map(String::as_str).collect();
    expected.sort_unstable();
    assert_eq!(scraped, expected);
}
