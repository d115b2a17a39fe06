//! Recording rules and alerts: `promtool` runs their tests, and none is without tests or runbook.

use crate::{deploy, files};
use std::path::PathBuf;
use std::process::Command;

#[test]
fn every_rule_is_well_formed() {
    promtool(&["check", "rules"], files("prometheus/rules", "yaml"));
}

#[test]
fn every_alert_fires_when_it_should_and_only_then() {
    promtool(&["test", "rules"], files("prometheus/tests", "yaml"));
}

fn promtool(arguments: &[&str], files: Vec<(PathBuf, String)>) {
    let mut promtool = Command::new("promtool");
    promtool
        .args(arguments)
        .args(files.into_iter().map(|(path, _text)| path));
    let output = promtool
        .output()
        .expect("promtool is installed; tests/install installs it or says what to install");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success(), "{promtool:?}: {said}");
}

#[test]
fn every_alert_is_tested_both_ways() {
    let tests: String = files("prometheus/tests", "yaml")
        .into_iter()
        .map(|(_, text)| text)
        .collect();
    for Alert { name, .. } in alerts() {
        let quiet = format!("- alertname: {name}\n");
        let (_, after) = tests
            .split_once(&quiet)
            .unwrap_or_else(|| panic!("{name} is never quiet"));
        let expected = after.lines().find(|line| line.trim_start().starts_with("exp_alerts:"));
        assert_eq!(expected.map(str::trim), Some("exp_alerts: []"), "{name}");
        let fires = format!("- labels: 'ALERTS{{alertname=\"{name}\", alertstate=\"firing\", ");
        assert!(tests.contains(&fires), "{name} never fires");
    }
}

#[test]
fn every_alert_says_how_urgent_it_is_and_leads_to_the_runbook() {
    let runbook = std::fs::read_to_string(deploy("runbook.md")).expect("deploy/runbook.md");
    let entries: Vec<_> = runbook.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    let alerts = alerts();
    let names: Vec<_> = alerts.iter().map(|alert| alert.name.as_str()).collect();
    for entry in &entries {
        assert!(
            names.contains(entry),
            "the runbook speaks of {entry}, which is no alert"
        );
    }
    for Alert { name, text } in &alerts {
        assert!(entries.contains(&name.as_str()), "{name} has no entry in the runbook");
        let anchor = format!("runbook_url: deploy/runbook.md#{}", name.to_lowercase());
        for wanted in ["summary: ", "description: ", anchor.as_str()] {
            assert!(text.contains(wanted), "{name} has no {wanted}");
        }
        let severities = ["severity: page", "severity: ticket"].into_iter();
        let severity: Vec<_> = severities.filter(|severity| text.contains(severity)).collect();
        let [severity] = severity[..] else {
            panic!("{name} is neither page nor ticket")
        };
        let urgency = severity.trim_start_matches("severity: ");
        let (_, entry) = runbook.split_once(&format!("## {name}\n")).expect("its entry");
        let entry = entry.split("\n## ").next().unwrap_or_default();
        let means = format!("**Means** ({urgency})");
        for wanted in [means.as_str(), "**Look** at", "**Do**"] {
            assert!(entry.contains(wanted), "the entry of {name} has no {wanted}");
        }
    }
    for link in runbook.split("](#").skip(1) {
        let anchor = link.split(')').next().unwrap_or_default();
        assert!(
            names.iter().any(|name| name.to_lowercase() == anchor),
            "#{anchor} is nowhere"
        );
    }
}

/// An alert, with the text of its rule.
struct Alert {
    name: String,
    text: String,
}

fn alerts() -> Vec<Alert> {
    let mut alerts = Vec::new();
    for (_, text) in files("prometheus/rules", "yaml") {
        let rules = text.split("\n      - alert: ").skip(1);
        alerts.extend(rules.map(|rule| {
            let (name, text) = rule.split_once('\n').expect("a rule has more than a name");
            // What comes after it is another rule, or another group.
            let text = text.split("\n      - ").next().unwrap_or_default();
            Alert {
                name: name.trim().to_owned(),
                text: text.to_owned(),
            }
        }));
    }
    assert!(alerts.len() > 10, "alerts are found by their indentation");
    alerts
}
