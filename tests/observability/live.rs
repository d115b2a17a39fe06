//! Every expression of every dashboard and rule, asked of a real Prometheus that scrapes a real Herald under
//! a load with failures.

use crate::dashboards::{Query, queries};
use crate::prometheus::{JOB, Prometheus};
use crate::{builder, deploy, files};
use herald_tests::samples::{merged, packet_of, packets_of};
use herald_tests::{Answer, Api, Herald, Receiver, Stack};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// How long it may take until everything that is asked for has been seen.
const PATIENCE: Duration = Duration::from_mins(3);

/// Where pictures of the dashboards are to be drawn, if they are.
const PICTURES: &str = "DRAW_INTO";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_shown_of_one_process_has_data() {
    let ask = |query: &Query| !query.expression.contains("herald_broker_");
    check(Stack::Embedded, ask).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_shown_of_a_cluster_has_data() {
    check(Stack::Cluster, |_| true).await;
}

async fn check(stack: Stack, asked: impl Fn(&Query) -> bool) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let herald = builder(stack, folder.path()).start().await;
    let receiver = Receiver::start().await;
    let load = Load::prepare(&herald, &receiver).await;
    let rules = files("prometheus/rules", "yaml").into_iter().map(|(path, _)| path);
    let prometheus = Prometheus::start(&herald.addresses(), rules).await;
    let mut expressions: Vec<_> = queries().into_iter().filter(asked).map(substituted).collect();
    expressions.extend(rule_expressions(&prometheus.rules().await, stack));
    let seen = async {
        let began = Instant::now();
        while !expressions.is_empty() {
            let mut without = Vec::new();
            let mut why = BTreeMap::new();
            for query in expressions {
                match has_data(&prometheus, &query).await {
                    Ok(()) => {}
                    Err(error) => {
                        why.insert(query.place.clone(), (query.expression.clone(), error));
                        without.push(query);
                    }
                }
            }
            assert!(began.elapsed() < PATIENCE, "no data: {why:#?}");
            expressions = without;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        draw(stack, &prometheus).await;
    };
    tokio::select! {
        () = seen => {}
        () = load.run() => {}
    }
    rules_are_evaluated(&prometheus).await;
}

/// A finite number at least: a ratio of nothing is data for nobody.
async fn has_data(prometheus: &Prometheus, query: &Query) -> Result<(), String> {
    let values = prometheus.values(&query.expression).await?;
    if values.iter().any(|value| value.is_finite()) {
        return Ok(());
    }
    Err(format!("{values:?}"))
}

/// As Grafana would ask.
fn substituted(query: Query) -> Query {
    let expression = query.expression;
    let expression = expression.replace("$__rate_interval", "30s").replace("$job", JOB);
    let expression = expression.replace("$instance", ".*");
    assert!(
        !expression.contains('$'),
        "{}: a variable is unknown: {expression}",
        query.place
    );
    Query { expression, ..query }
}

/// What the rules need: of a recording rule that it has a value; of an alert, whose comparison is empty as
/// long as all is well, that every series is there which it speaks of.
fn rule_expressions(rules: &[Value], stack: Stack) -> Vec<Query> {
    let mut queries = Vec::new();
    for rule in rules {
        let name = rule["name"].as_str().expect("a rule has a name");
        let place = format!("rule {name}");
        if rule["type"] == "recording" {
            let expression = name.to_owned();
            queries.push(Query { place, expression });
            continue;
        }
        let expression = rule["query"].as_str().expect("a rule has an expression");
        let spoken_of = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':');
        let series = |word: &&str| word.starts_with("herald_") || word.starts_with("job:") || *word == "up";
        for word in spoken_of.filter(series) {
            let of_a_cluster = ["herald_broker_", "herald_ledger_partitions_"];
            if stack == Stack::Embedded && of_a_cluster.iter().any(|prefix| word.starts_with(prefix)) {
                continue;
            }
            queries.push(Query {
                place: place.clone(),
                expression: format!("count({word})"),
            });
        }
    }
    assert!(queries.len() > 30, "there are rules: {rules:#?}");
    queries
}

async fn rules_are_evaluated(prometheus: &Prometheus) {
    for rule in prometheus.rules().await {
        assert_eq!(rule["health"], "ok", "{rule:#}");
    }
}

/// A producer and its subscribers, of which some fail in every way.
struct Load {
    api: Api,
    company: Uuid,
}

impl Load {
    async fn prepare(herald: &Herald, receiver: &Receiver) -> Self {
        let load = Self {
            api: herald.api(),
            company: Uuid::new_v4(),
        };
        receiver.script("/bad", |_| Answer::status(500));
        receiver.script("/hang", |_| Answer::hang());
        receiver.script("/flaky", |request| {
            Answer::status(if request.header("webhook-attempt") == "1" {
                503
            } else {
                200
            })
        });
        let once = json!({ "Retry": { "MaxAttempts": 1 } });
        let subscribers = [
            ("/good", json!({})),
            ("/bad", once.clone()),
            ("/hang", merged(once, json!({ "TimeoutSeconds": 0.2 }))),
            (
                "/flaky",
                json!({ "Retry": { "InitialSeconds": 0.2, "MaxSeconds": 0.4 } }),
            ),
        ];
        for (path, settings) in subscribers {
            let subscription = merged(packets_of(load.company, &receiver.url(path)), settings);
            load.api.subscribe(&subscription).await;
        }
        load
    }

    /// Publishes a little of everything, for as long as it is let.
    async fn run(&self) {
        loop {
            let event = packet_of(self.company);
            self.api.publish(&event).await;
            let again = merged(event, json!({ "Data": { "CustomerName": "Another" } }));
            self.api.publish(&again).await;
            let several: Vec<_> = (0..5).map(|_| packet_of(self.company)).collect();
            self.api.publish_all(&several).await;
            self.api.publish(&packet_of(Uuid::new_v4())).await;
            let _refused = self.api.post("/v1/events", &json!({})).await.problem(400);
            let _unknown = self
                .api
                .with_key("nobody")
                .post("/v1/events", &json!({}))
                .await
                .problem(401);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Draws what the dashboards show, where somebody wants to look at it: `deploy/grafana/draw`.
async fn draw(stack: Stack, prometheus: &Prometheus) {
    let Some(folder) = std::env::var_os(PICTURES) else {
        return;
    };
    // So that there is a line to draw, and not a dot.
    tokio::time::sleep(Duration::from_mins(1)).await;
    let mut draw = Command::new(deploy("grafana/draw"));
    draw.arg(Path::new(&folder).join(format!("{stack:?}").to_lowercase()))
        .arg(prometheus.url());
    let drawn = tokio::task::spawn_blocking(move || draw.status());
    let status = drawn.await.expect("it was not cancelled").expect("deploy/grafana/draw");
    assert!(status.success(), "deploy/grafana/draw ended with {status}");
}
