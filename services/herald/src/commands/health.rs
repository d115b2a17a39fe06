//! `herald health`: whether the process that listens here can serve, for whom HTTP is out of reach, such as the
//! health check of a container without a shell.

use crate::causes;
use crate::process::config::Config;
use crate::process::listener::reachable;
use anyhow::Context;
use std::time::Duration;

/// How long the answer may take: less than the 5 s after which a container's health check is given up, so that it is
/// said what was missing.
const PATIENCE: Duration = Duration::from_secs(4);

/// What the process said of itself.
#[derive(Debug)]
pub(crate) struct Report {
    /// Each part with `ok` or what is wrong.
    pub(crate) json: String,
    /// Whether every part serves.
    pub(crate) ready: bool,
}

/// Asks the process that listens where the settings say.
pub(crate) async fn ask(config: &Config) -> anyhow::Result<Report> {
    let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build()?;
    let mut silent = String::new();
    for address in reachable(config.listen) {
        match client.get(format!("http://{address}/health/ready")).send().await {
            Ok(answer) => return report(answer).await,
            Err(error) => {
                silent = format!("no Herald answers at {address}: {}", causes::innermost(&error));
                if !error.is_connect() {
                    break;
                }
            }
        }
    }
    Err(anyhow::Error::msg(silent))
}

async fn report(answer: reqwest::Response) -> anyhow::Result<Report> {
    let ready = answer.status().is_success();
    let json = answer.text().await.context("the answer broke off")?;
    Ok(Report { json, ready })
}
