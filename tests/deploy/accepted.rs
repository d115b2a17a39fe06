//! The objects, by Kubernetes' schemas and by each other.

use crate::overlay::{OVERLAYS, Overlay, VERSIONS, container, labels};
use crate::tools::{items, read, repository};
use herald_tests::sandbox::Sandbox;
use serde_json::{Value, json};

/// What the operators bring, whose schemas come with them: these kinds are all that is used, in these versions.
const OF_OPERATORS: [(&str, &str); 5] = [
    ("keda.sh/v1alpha1", "ScaledObject"),
    ("keda.sh/v1alpha1", "TriggerAuthentication"),
    ("monitoring.coreos.com/v1", "PodMonitor"),
    ("monitoring.coreos.com/v1", "PrometheusRule"),
    ("rabbitmq.com/v1beta1", "RabbitmqCluster"),
];

#[test]
fn kubernetes_accepts_every_object() {
    for overlay in OVERLAYS {
        for version in VERSIONS {
            let objects = Overlay::render(overlay, version).0;
            assert!(objects.len() > 5, "{overlay} is more than that");
            for object in objects.iter().filter(|object| !object.checked) {
                let kind = (object.json["apiVersion"].as_str(), object.json["kind"].as_str());
                let known = OF_OPERATORS.iter().any(|(api, of)| kind == (Some(api), Some(of)));
                assert!(known, "{overlay}: {kind:?} is unknown to Kubernetes {version}");
            }
        }
    }
}

#[test]
fn everything_is_in_one_namespace_that_is_restricted() {
    for name in OVERLAYS {
        let overlay = Overlay::of(name);
        let namespace: Vec<_> = overlay.of_kind("Namespace").collect();
        let enforced = &namespace[0]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"];
        assert!(
            namespace.len() == 1 && enforced == "restricted",
            "{name}: {namespace:?}"
        );
        for object in overlay.0.iter().filter(|object| object.json["kind"] != "Namespace") {
            assert_eq!(
                object.json["metadata"]["namespace"], "herald",
                "{name}: {}",
                object.json
            );
        }
    }
}

/// A selector that means nothing is how a policy protects nothing and a budget budgets nothing.
#[test]
fn every_selector_means_something() {
    for name in OVERLAYS {
        let overlay = Overlay::of(name);
        for kind in ["Deployment", "StatefulSet", "PodDisruptionBudget"] {
            for object in overlay.of_kind(kind) {
                assert_eq!(
                    overlay.selected(&object["spec"]["selector"]).len(),
                    1,
                    "{name}: {object}"
                );
            }
        }
        for policy in overlay.of_kind("NetworkPolicy") {
            assert!(
                !overlay.selected(&policy["spec"]["podSelector"]).is_empty(),
                "{name}: {policy}"
            );
        }
        let monitors = overlay.of_kind("PodMonitor");
        let scraped: Vec<_> = monitors
            .flat_map(|monitor| overlay.selected(&monitor["spec"]["selector"]))
            .collect();
        if name == "production" {
            let roles: Vec<_> = scraped
                .iter()
                .map(|pods| &labels(pods)["app.kubernetes.io/component"])
                .collect();
            assert_eq!(roles, ["ingest", "manage", "worker"]);
        }
    }
}

#[test]
fn every_reference_leads_somewhere() {
    for name in OVERLAYS {
        let overlay = Overlay::of(name);
        for kind in ["HorizontalPodAutoscaler", "ScaledObject"] {
            for object in overlay.of_kind(kind) {
                let target = &object["spec"]["scaleTargetRef"]["name"];
                assert!(overlay.has("Deployment", target), "{name}: {kind} of {target}");
            }
        }
        for service in overlay.of_kind("Service") {
            let pods = overlay.selected(&json!({ "matchLabels": service["spec"]["selector"] }));
            assert_eq!(pods.len(), 1, "{name}: {service}");
            let named = |port: &Value| {
                items(&container(pods[0])["ports"])
                    .iter()
                    .any(|own| own["name"] == *port)
            };
            let ports = items(&service["spec"]["ports"]);
            assert!(ports.iter().all(|port| named(&port["targetPort"])), "{name}: {service}");
        }
        for ingress in overlay.of_kind("Ingress") {
            let rules = items(&ingress["spec"]["rules"]);
            let paths: Vec<_> = rules.iter().flat_map(|rule| items(&rule["http"]["paths"])).collect();
            assert!(!paths.is_empty(), "{name}: {ingress}");
            for path in paths {
                let service = &path["backend"]["service"]["name"];
                assert!(overlay.has("Service", service), "{name}: {path}");
                let shown = path["path"].as_str().is_some_and(|path| !path.starts_with("/metrics"));
                assert!(
                    shown && path["path"] != "/",
                    "{name}: what needs no key stays inside: {path}"
                );
            }
        }
    }
}

/// Two that scale one thing undo each other.
#[test]
fn one_thing_scales_each_deployment() {
    let overlay = Overlay::of("production");
    let scalers = ["HorizontalPodAutoscaler", "ScaledObject"].map(|kind| overlay.of_kind(kind));
    let mut targets: Vec<_> = scalers
        .into_iter()
        .flatten()
        .map(|scaler| scaler["spec"]["scaleTargetRef"]["name"].as_str().expect("a name"))
        .collect();
    targets.sort_unstable();
    assert_eq!(targets, ["herald-ingest", "herald-worker"]);
    for deployment in overlay.of_kind("Deployment") {
        let scaled = targets.iter().any(|target| deployment["metadata"]["name"] == *target);
        assert_eq!(
            deployment["spec"]["replicas"].is_null(),
            scaled,
            "one of the two says how many: {deployment}"
        );
    }
}

/// The overlay that a reader is told to write, where that reader has the repository beside it.
#[test]
fn the_overlay_in_the_readme_renders() {
    let readme = read("README.md");
    let (_, block) = readme.split_once("```yaml\n").expect("an overlay");
    let (overlay, _) = block.split_once("```").expect("its end");
    let sandbox = Sandbox::new("overlay-");
    sandbox.file("kustomization.yaml", overlay);
    std::os::unix::fs::symlink(repository(), sandbox.path().join("herald")).unwrap();
    let overlay = Overlay::in_folder(sandbox.path(), VERSIONS[0]);
    let images: Vec<_> = overlay
        .workloads()
        .map(|workload| &container(workload)["image"])
        .collect();
    assert_eq!(images, ["registry.mine.example/herald:0.1.0"]);
    let ingress = overlay.of_kind("Ingress").next().expect("one");
    assert_eq!(ingress["spec"]["rules"][0]["host"], "herald.mine.example");
    assert_eq!(ingress["spec"]["tls"][0]["hosts"], json!(["herald.mine.example"]));
}
