//! A rendered overlay.

use crate::tools::{deploy, items, output, reader};
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;

/// The overlays that there are.
pub(crate) const OVERLAYS: [&str; 2] = ["small", "production"];

/// The oldest version that understands all that is used (the kubelet's own sleep at the end of a pod), and the newest
/// that there are schemas of.
pub(crate) const VERSIONS: [&str; 2] = ["1.30", "1.37"];

/// An object, and whether there was a schema to check it by.
pub(crate) struct Object {
    pub(crate) checked: bool,
    pub(crate) json: Value,
}

/// All objects of one overlay.
pub(crate) struct Overlay(pub(crate) Vec<Object>);

impl Overlay {
    /// One of [`OVERLAYS`], rendered once for all tests.
    pub(crate) fn of(name: &str) -> &'static Self {
        static RENDERED: LazyLock<[Overlay; OVERLAYS.len()]> =
            LazyLock::new(|| OVERLAYS.map(|name| Overlay::render(name, VERSIONS[0])));
        let position = OVERLAYS.iter().position(|overlay| *overlay == name);
        &RENDERED[position.expect("one that there is")]
    }

    /// Renders it, and refuses what Kubernetes would refuse.
    pub(crate) fn render(name: &str, version: &str) -> Self {
        Self::in_folder(&deploy("kubernetes/overlays").join(name), version)
    }

    /// The same for an overlay anywhere.
    pub(crate) fn in_folder(folder: &Path, version: &str) -> Self {
        let yaml = output(Command::new("kubectl").arg("kustomize").arg(folder));
        let lines = reader(&["kubernetes", version], &yaml);
        let read = |line: &str| {
            let mut line: Value = serde_json::from_str(line).expect("JSON");
            Object {
                checked: line["Checked"] == true,
                json: line["Object"].take(),
            }
        };
        Self(lines.lines().map(read).collect())
    }

    /// All of some kind.
    pub(crate) fn of_kind(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.0
            .iter()
            .map(|object| &object.json)
            .filter(move |object| object["kind"] == kind)
    }

    /// Whether there is one of that kind and name.
    pub(crate) fn has(&self, kind: &str, name: &Value) -> bool {
        self.of_kind(kind).any(|object| &object["metadata"]["name"] == name)
    }

    /// Whatever runs pods of Herald's.
    pub(crate) fn workloads(&self) -> impl Iterator<Item = &Value> {
        ["Deployment", "StatefulSet", "Job"]
            .into_iter()
            .flat_map(|kind| self.of_kind(kind))
    }

    /// The pods of Herald's that a selector means, by their labels.
    pub(crate) fn selected(&self, selector: &Value) -> Vec<&Value> {
        let meant = |workload: &&Value| selects(selector, labels(workload));
        self.workloads().filter(meant).collect()
    }
}

/// The labels of a workload's pods.
pub(crate) fn labels(workload: &Value) -> &Value {
    &workload["spec"]["template"]["metadata"]["labels"]
}

/// The one container of a workload's pods.
pub(crate) fn container(workload: &Value) -> &Value {
    let containers = items(&workload["spec"]["template"]["spec"]["containers"]);
    assert!(containers.len() == 1, "one process, one container: {workload}");
    &containers[0]
}

/// Whether a label selector means these labels.
fn selects(selector: &Value, labels: &Value) -> bool {
    let equal = selector["matchLabels"]
        .as_object()
        .is_none_or(|wanted| wanted.iter().all(|(key, value)| &labels[key] == value));
    let express = items(&selector["matchExpressions"]).iter().all(|expression| {
        let label = &labels[expression["key"].as_str().expect("a key")];
        let listed = items(&expression["values"]).contains(label);
        match expression["operator"].as_str() {
            Some("In") => listed,
            Some("NotIn") => !listed,
            other => panic!("{other:?} is not used here yet"),
        }
    });
    equal && express
}

#[test]
fn selectors_mean_what_kubernetes_has_them_mean() {
    let labels = serde_json::json!({ "app": "herald", "role": "up" });
    let means = |selector: Value| selects(&selector, &labels);
    assert!(means(serde_json::json!({})));
    assert!(means(serde_json::json!({ "matchLabels": { "app": "herald" } })));
    assert!(!means(
        serde_json::json!({ "matchLabels": { "app": "herald", "role": "worker" } })
    ));
    let role = |operator: &str| {
        serde_json::json!({ "matchExpressions": [
        { "key": "role", "operator": operator, "values": ["up", "worker"] }] })
    };
    assert!(means(role("In")) && !means(role("NotIn")));
}
