//! A real Prometheus of one's own, on loopback, in a temporary folder.

use herald_tests::binary::free_port;
use herald_tests::sandbox::Sandbox;
use herald_tests::tls::install_crypto;
use herald_tests::{PATIENCE, wait_until};
use serde_json::Value;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// The label `job` of all that it scrapes.
pub(crate) const JOB: &str = "herald";

/// One that scrapes and evaluates every second; dropping it ends it.
#[derive(Debug)]
pub(crate) struct Prometheus {
    url: String,
    client: reqwest::Client,
    child: Child,
    _sandbox: Sandbox,
}

impl Prometheus {
    /// Starts it with these targets and rules, and waits until it answers.
    pub(crate) async fn start(targets: &[String], rules: impl Iterator<Item = PathBuf>) -> Self {
        let sandbox = Sandbox::new("prometheus-");
        let mut config = "global: { scrape_interval: 1s, evaluation_interval: 1s }\nrule_files:\n".to_owned();
        for rules in rules {
            let rules = rules.canonicalize().expect("a file of rules");
            writeln!(config, "  - {}", rules.display()).expect("a text takes all");
        }
        let targets = targets.join(", ");
        writeln!(
            config,
            "scrape_configs:\n  - job_name: {JOB}\n    static_configs:\n      - targets: [{targets}]"
        )
        .expect("a text takes all");
        let config = sandbox.file("prometheus.yaml", &config);
        let address = format!("127.0.0.1:{}", free_port());
        let child = Command::new("prometheus")
            .current_dir(sandbox.path())
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", sandbox.folder("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=warn")
            .stdin(Stdio::null())
            .spawn()
            .expect("prometheus is installed; tests/install installs it or says what to install");
        install_crypto();
        let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build();
        let prometheus = Self {
            url: format!("http://{address}"),
            client: client.expect("a client"),
            child,
            _sandbox: sandbox,
        };
        wait_until("Prometheus is ready", PATIENCE, async || {
            let ready = prometheus.client.get(format!("{}/-/ready", prometheus.url));
            ready.send().await.ok()?.status().is_success().then_some(())
        })
        .await;
        prometheus
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The numbers that an expression comes to now; an expression that it cannot evaluate is an error.
    pub(crate) async fn values(&self, expression: &str) -> Result<Vec<f64>, String> {
        let mut url = reqwest::Url::parse(&format!("{}/api/v1/query", self.url)).expect("a URL");
        url.query_pairs_mut().append_pair("query", expression);
        let answer = self.get(url).await;
        if answer["status"] != "success" {
            return Err(answer["error"].to_string());
        }
        let result = &answer["data"]["result"];
        let samples = result.as_array().ok_or_else(|| format!("{result} is no vector"))?;
        let value = |sample: &Value| sample["value"][1].as_str()?.parse().ok();
        Ok(samples.iter().filter_map(value).collect())
    }

    /// Every rule that it evaluates, as it describes them.
    pub(crate) async fn rules(&self) -> Vec<Value> {
        let url = reqwest::Url::parse(&format!("{}/api/v1/rules", self.url)).expect("a URL");
        let answer = self.get(url).await;
        let groups = answer["data"]["groups"].as_array().cloned().unwrap_or_default();
        let rules = groups
            .into_iter()
            .filter_map(|group| group["rules"].as_array().cloned());
        rules.flatten().collect()
    }

    async fn get(&self, url: reqwest::Url) -> Value {
        let answer = self.client.get(url).send().await.expect("Prometheus answers");
        let text = answer.text().await.expect("Prometheus answers to the end");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a child can be waited for");
    }
}
