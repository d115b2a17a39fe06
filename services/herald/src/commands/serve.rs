//! `herald up`, and the commands that run one role.

use super::greeting;
use crate::process::config::{self, Config, Flags};
use crate::process::roles::Role;
use crate::process::{signals, start};
use std::pin::pin;

/// Runs a process for that role until it is stopped; also when that is before what it waits for is there.
pub(super) async fn run(role: Role, flags: &Flags) -> anyhow::Result<()> {
    let config = Config::load(flags)?;
    for remark in config::remarks(&config) {
        tracing::warn!("{remark}");
    }
    let mut ending = pin!(signals::next());
    let running = tokio::select! {
        started = start::start(config.clone(), role) => started?,
        signal = &mut ending => {
            tracing::info!(signal = signal?, "stopped while starting");
            return Ok(());
        }
    };
    greeting::greet(&running, role, &config, flags);
    running.until_stopped(ending).await
}
