//! A process that runs, and how it stops.
//!
//! Readiness goes red and ingest answers 503; attempts in flight may end; what is recorded is recorded; then the
//! listener closes, the last spans are exported, the writer commits what it has, and the process ends.

use super::data::DataFolder;
use super::server::CLOSE;
use super::tasks::Tasks;
use anyhow::Context;
use axum::Router;
use herald_ledger::Ledger;
use herald_telemetry::health::Health;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How long attempts in flight may take after a stop was asked for. With what comes after it, the
/// process ends within the 20 s that the contract gives it.
const DRAIN: Duration = Duration::from_secs(12);

/// Herald, running.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    /// The operator's key, where it was configured or has just been made.
    pub(crate) operator_key: Option<String>,
    /// Whether the key has just been made.
    pub(crate) first_start: bool,
    pub(crate) ledger: Ledger,
    pub(super) stop: Stop,
    pub(super) health: Health,
    /// What works until told to drain.
    pub(super) workers: Tasks,
    /// What must outlive the workers: the HTTP server, the registry, the span exporter, then the queue and the writer.
    pub(super) base: Tasks,
    /// The routes, which hold handles to the ledger.
    pub(super) routes: watch::Sender<Router>,
    /// The lock on the folder, where there is one.
    pub(super) _data: Option<DataFolder>,
}

/// How a process is told to stop, step by step.
#[derive(Debug, Clone, Default)]
pub(super) struct Stop {
    /// Cancelled when no new work may begin.
    pub(super) soft: CancellationToken,
    /// No more waiting for attempts.
    pub(super) hard: CancellationToken,
    /// Cancelled when the listener is to close.
    pub(super) listener: CancellationToken,
}

impl Running {
    /// Runs until a signal asks for the end, or a task ends by itself, which is an error.
    pub(crate) async fn until_stopped(
        mut self,
        ending: impl Future<Output = anyhow::Result<&'static str>>,
    ) -> anyhow::Result<()> {
        let died = tokio::select! {
            signal = ending => {
                tracing::info!(signal = signal?, "stopping");
                None
            }
            Some(ended) = self.workers.0.join_next() => Some(ended),
            Some(ended) = self.base.0.join_next() => Some(ended),
        };
        let stopped = self.stop().await;
        match died {
            None => stopped,
            Some(Ok(name)) => Err(anyhow::anyhow!("{name} ended by itself")),
            Some(Err(error)) => Err(anyhow::anyhow!("a task died: {error}")),
        }
    }

    /// Ends what is under way, and then the process.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        self.health.failing("process", "stopping");
        self.stop.soft.cancel();
        let hard = self.stop.hard.clone();
        let overdue = async move {
            tokio::time::sleep(DRAIN).await;
            hard.cancel();
            std::future::pending().await
        };
        let finished = tokio::select! {
            finished = join_all(&mut self.workers, DRAIN + CLOSE) => finished,
            finished = overdue => finished,
        };
        self.stop.listener.cancel();
        // With the last handle the queue's publisher and the writer come to their end.
        drop((self.ledger, self.routes));
        let closed = join_all(&mut self.base, CLOSE * 2).await;
        finished.and(closed)
    }
}

/// Waits for all, but no longer than that: what is then cut off lies in the ledger or the queue as it was.
async fn join_all(Tasks(tasks): &mut Tasks, at_most: Duration) -> anyhow::Result<()> {
    let all = async {
        while let Some(ended) = tasks.join_next().await {
            ended.context("a task died while stopping")?;
        }
        Ok(())
    };
    match tokio::time::timeout(at_most, all).await {
        Ok(ended) => ended,
        Err(_elapsed) => {
            tasks.shutdown().await;
            Err(anyhow::anyhow!(
                "stopping took too long and was cut short; nothing accepted is lost"
            ))
        }
    }
}
