//! The pods, by the binary and by what every pod of Herald must be.

use crate::overlay::{OVERLAYS, Overlay, container};
use crate::tools::{commands, items, settings, strings};
use herald_tests::Herald;
use herald_tests::samples::{guid, packets_of};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// SIGTERM ends within that many seconds.
const TERMINATION: u64 = 20;

/// The longest that a subscription's `TimeoutSeconds` may be.
const LONGEST_ATTEMPT: u64 = 30;

/// What may stand in a secret, by the name of the variable that it comes to.
fn example_of_secret(variable: &str) -> &'static str {
    match variable {
        // As RabbitMQ's operator writes it.
        "HERALD_BROKER_URL" => "amqp://user:password@herald-rabbitmq.herald.svc:5672/",
        "HERALD_DATABASE_URL" => "postgres://herald:password@postgres.example.com/herald",
        "HERALD_OPERATOR_KEY" => "a-key-of-the-operator",
        other => panic!("{other} is no secret that Herald has"),
    }
}

/// The environment of a container.
fn environment(overlay: &Overlay, container: &Value) -> BTreeMap<String, String> {
    let mut environment = BTreeMap::new();
    for source in items(&container["envFrom"]) {
        let name = &source["configMapRef"]["name"];
        let mut maps = overlay.of_kind("ConfigMap");
        let map = maps.find(|map| &map["metadata"]["name"] == name);
        let map = map.unwrap_or_else(|| panic!("there is no config map {name}"));
        for (name, value) in map["data"].as_object().expect("some settings") {
            environment.insert(name.clone(), value.as_str().expect("text").to_owned());
        }
    }
    for variable in items(&container["env"]) {
        let name = variable["name"].as_str().expect("a name");
        let value = match variable["value"].as_str() {
            Some(value) => value,
            None => example_of_secret(name),
        };
        environment.insert(name.to_owned(), value.to_owned());
    }
    environment
}

/// The binary takes each pod's command line and environment, and they say what the rest of the pod says.
#[test]
fn the_binary_takes_every_command_and_setting() {
    let commands = commands();
    for name in OVERLAYS {
        let overlay = Overlay::of(name);
        for workload in overlay.workloads() {
            let container = container(workload);
            let arguments = strings(&container["args"]);
            let (role, flags) = arguments.split_first().expect("the image runs a role");
            assert!(commands.iter().any(|command| command == role), "{name}: herald {role}");
            let settings = settings(flags, &environment(overlay, container));
            let port = settings["listen"]
                .rsplit(':')
                .next()
                .and_then(|port| port.parse::<u16>().ok());
            for own in items(&container["ports"]) {
                assert_eq!(
                    own["containerPort"],
                    json!(port),
                    "{name}: {role} listens on {settings:?}"
                );
            }
            let shared = settings["broker"] != "not" && settings["database"] != "not";
            assert_eq!(shared, *role != "up", "{name}: {role} {settings:?}");
            let writable = items(&container["volumeMounts"]);
            let has_data = writable.iter().any(|mount| mount["mountPath"] == *settings["data"]);
            assert_eq!(has_data, *role == "up", "{name}: {role}");
        }
    }
}

/// As the cluster enforces it, and a read-only file system besides.
#[test]
fn every_pod_is_restricted() {
    for name in OVERLAYS {
        let overlay = Overlay::of(name);
        for workload in overlay.workloads() {
            let pod = &workload["spec"]["template"]["spec"];
            let container = container(workload);
            let said = [
                (&pod["securityContext"]["runAsNonRoot"], json!(true)),
                (
                    &pod["securityContext"]["seccompProfile"]["type"],
                    json!("RuntimeDefault"),
                ),
                (&pod["automountServiceAccountToken"], json!(false)),
                (&container["securityContext"]["allowPrivilegeEscalation"], json!(false)),
                (&container["securityContext"]["readOnlyRootFilesystem"], json!(true)),
                (&container["securityContext"]["capabilities"]["drop"], json!(["ALL"])),
            ];
            for (is, must) in said {
                assert_eq!(*is, must, "{name}: {workload}");
            }
            let resources = &container["resources"];
            for (kind, resource) in [("requests", "cpu"), ("requests", "memory"), ("limits", "memory")] {
                assert!(
                    resources[kind][resource].is_string(),
                    "{name}: {kind}.{resource} of {workload}"
                );
            }
        }
    }
}

/// A process may end as it must before it is killed, and nothing is sent to it that it would refuse.
#[test]
fn every_server_has_the_time_to_end() {
    for name in OVERLAYS {
        let overlay = Overlay::of(name);
        for workload in overlay.workloads().filter(|workload| workload["kind"] != "Job") {
            let pod = &workload["spec"]["template"]["spec"];
            let sleep = container(workload)["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64();
            let sleep = sleep.filter(|seconds| *seconds > 0);
            let sleep = sleep.unwrap_or_else(|| panic!("{name}: no preStop in {workload}"));
            let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap_or(30);
            assert!(
                grace >= sleep + TERMINATION && grace > LONGEST_ATTEMPT,
                "{name}: {grace} s"
            );
        }
    }
}

/// The paths of the probes and of the scrapes answer, without a key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_probed_and_scraped_answers() {
    let mut paths = Vec::new();
    for name in OVERLAYS {
        let overlay = Overlay::of(name);
        for workload in overlay.workloads().filter(|workload| workload["kind"] != "Job") {
            for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
                let asked = &container(workload)[probe]["httpGet"];
                assert_eq!(asked["port"], "http", "{name}: {probe} of {workload}");
                paths.push(asked["path"].as_str().expect("a path").to_owned());
            }
        }
        for monitor in overlay
            .of_kind("PodMonitor")
            .filter(|monitor| monitor["metadata"]["name"] == "herald")
        {
            for endpoint in items(&monitor["spec"]["podMetricsEndpoints"]) {
                assert_eq!(endpoint["port"], "http", "{monitor}");
                paths.push(endpoint["path"].as_str().expect("a path").to_owned());
            }
        }
    }
    paths.sort_unstable();
    paths.dedup();
    assert_eq!(paths, ["/health/live", "/health/ready", "/metrics"]);
    let herald = Herald::start().await;
    for path in paths {
        let _answer = herald.api().without_key().get(&path).await.expect(200);
    }
}

/// Some address in a network, as a URL has it.
fn host_in(network: &str) -> String {
    let (first, _) = network.split_once('/').expect("an address and a length");
    match first.parse().expect("an address") {
        IpAddr::V4(first) => std::net::Ipv4Addr::from(u32::from(first) | 1).to_string(),
        IpAddr::V6(first) => format!("[{}]", std::net::Ipv6Addr::from(u128::from(first) | 1)),
    }
}

/// The fence around the pods and the one in the binary are the same: what the policy leaves out, Herald refuses by
/// itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_network_policy_leaves_out_is_refused_by_the_binary_too() {
    let herald = Herald::builder().public_only().start().await;
    for name in OVERLAYS {
        let policies = Overlay::of(name).of_kind("NetworkPolicy");
        let policy = policies
            .into_iter()
            .find(|policy| policy["metadata"]["name"] == "herald-subscribers");
        let rules = items(&policy.expect("the policy for subscribers")["spec"]["egress"]);
        let blocks: Vec<_> = rules.iter().flat_map(|rule| items(&rule["to"])).collect();
        assert_eq!(blocks.len(), 2, "{name}: one for each version of IP");
        for block in blocks {
            let excepted = strings(&block["ipBlock"]["except"]);
            assert!(!excepted.is_empty(), "{name}: {block}");
            for network in excepted {
                let url = format!("http://{}/hook", host_in(network));
                let reply = herald.api().post("/v1/subscriptions", &packets_of(guid(), &url)).await;
                assert_eq!(
                    reply.status, 400,
                    "{name}: {network} is left out, and Herald takes {url}"
                );
            }
        }
    }
}
