//! `herald health`: whether the process that listens here can serve, for whom HTTP is out of reach, such as the
//! health check of a container without a shell.

use crate::config::Config;
use anyhow::Context;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// How long the answer may take: less than the 5 s after which a container's health check is given up, so that it is
/// said what was missing.
const PATIENCE: Duration = Duration::from_secs(4);

/// What the process said of itself.
#[derive(Debug)]
pub(crate) struct Report {
    /// Each part with `ok` or what is wrong.
    pub(crate) json: String,
    /// Every part serves.
    pub(crate) ready: bool,
}

/// Asks the process that listens where the settings say.
pub(crate) async fn ask(config: &Config) -> anyhow::Result<Report> {
    let address = reachable(config.listen);
    let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build()?;
    let answer = client
        .get(format!("http://{address}/health/ready"))
        .send()
        .await
        .with_context(|| format!("no Herald answers at {address}"))?;
    let ready = answer.status().is_success();
    let json = answer.text().await.context("the answer broke off")?;
    Ok(Report { json, ready })
}

/// Where a listener can be reached from its own machine: one that takes every address is not at the one that means so.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let address = match listen.ip() {
        IpAddr::V4(address) if address.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(address) if address.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        address => address,
    };
    SocketAddr::new(address, listen.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_every_address_is_asked_at_loopback() {
        for (listen, asked) in [
            ("0.0.0.0:8080", "127.0.0.1:8080"),
            ("[::]:8080", "[::1]:8080"),
            ("10.1.2.3:80", "10.1.2.3:80"),
        ] {
            assert_eq!(reachable(listen.parse().unwrap()), asked.parse().unwrap());
        }
    }
}
