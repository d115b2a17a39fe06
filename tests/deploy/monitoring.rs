//! Rules and dashboards: each is a file of its own, and comes into the cluster as it is.

use crate::overlay::Overlay;
use crate::tools::{deploy, output, read, yaml};
use serde_json::Value;
use std::collections::BTreeSet;
use std::process::Command;

/// The names of the files of some kind in a folder.
fn files(folder: &str, extension: &str) -> BTreeSet<String> {
    let Ok(entries) = std::fs::read_dir(deploy(folder)) else {
        return BTreeSet::new();
    };
    let paths = entries.map(|entry| entry.expect("a readable folder").path());
    let meant = paths.filter(|path| path.extension().is_some_and(|own| own == extension));
    meant
        .map(|path| path.file_name().expect("a file").to_string_lossy().into_owned())
        .collect()
}

#[test]
fn the_operators_objects_are_the_rules() {
    let written = output(&mut Command::new(deploy("prometheus/objects")));
    let same = written == read("prometheus/objects.yaml");
    assert!(
        same,
        "the rules have changed: deploy/prometheus/objects > deploy/prometheus/objects.yaml"
    );
}

#[test]
fn every_rule_and_every_dashboard_comes_into_the_cluster() {
    let production = Overlay::of("production");
    let rules: BTreeSet<_> = production
        .of_kind("PrometheusRule")
        .map(|rule| rule["metadata"]["name"].as_str().expect("a name").to_owned())
        .collect();
    let expected = files("prometheus/rules", "yaml");
    let expected = expected
        .iter()
        .map(|file| format!("herald-{}", file.trim_end_matches(".yaml")));
    assert_eq!(rules, expected.collect());
    for rule in production.of_kind("PrometheusRule") {
        let name = rule["metadata"]["name"]
            .as_str()
            .expect("a name")
            .trim_start_matches("herald-");
        assert_eq!(rule["spec"], yaml("plain", &format!("prometheus/rules/{name}.yaml")));
    }
    let mut maps = production.of_kind("ConfigMap");
    let dashboards = maps
        .find(|map| map["metadata"]["name"] == "herald-dashboards")
        .expect("the dashboards");
    assert_eq!(dashboards["metadata"]["labels"]["grafana_dashboard"], "1");
    let data = dashboards["data"].as_object();
    let listed: BTreeSet<_> = data.into_iter().flatten().map(|(file, _)| file.clone()).collect();
    assert_eq!(
        listed,
        files("grafana/dashboards", "json"),
        "deploy/grafana/kustomization.yaml lists every one"
    );
}

/// The same labels under Compose and on Kubernetes, so that an expression means the same.
#[test]
fn a_role_is_called_the_same_everywhere() {
    let relabelled = |settings: &Value, from: &str| {
        let text = settings.to_string();
        text.contains(from) && text.contains("role")
    };
    let prometheus = yaml("plain", "prometheus/prometheus.yaml");
    assert!(relabelled(
        &prometheus["scrape_configs"][0]["relabel_configs"],
        "__meta_dns_name"
    ));
    assert_eq!(prometheus["scrape_configs"][0]["job_name"], "herald");
    let production = Overlay::of("production");
    let mut monitors = production.of_kind("PodMonitor");
    let monitor = monitors
        .find(|monitor| monitor["metadata"]["name"] == "herald")
        .expect("a monitor");
    let relabelings = &monitor["spec"]["podMetricsEndpoints"][0]["relabelings"];
    assert!(relabelled(
        relabelings,
        "__meta_kubernetes_pod_label_app_kubernetes_io_component"
    ));
    assert_eq!(
        monitor["spec"]["jobLabel"], "app.kubernetes.io/name",
        "whose value is herald"
    );
}
