//! `herald up`: every role in one process, on one file.
//!
//! Start: lock the data folder, open and migrate the ledger, load the registry, take the shards, listen,
//! and only then say so. Every long-lived task is supervised: one that ends by itself ends the process.
//!
//! Stop: readiness goes red and ingest answers 503; attempts in flight may end; what is recorded is
//! recorded; then the listener closes, the writer commits what it has, and the process ends.

use crate::config::Config;
use crate::data::DataFolder;
use anyhow::Context;
use axum::Router;
use herald_deliver::Deliver;
use herald_dispatch::Dispatch;
use herald_domain::access::OPERATOR;
use herald_domain::address::EgressPolicy;
use herald_domain::id::KeyId;
use herald_domain::time::{Clock, SystemClock};
use herald_ingest::Ingest;
use herald_ledger::Ledger;
use herald_ledger::accounts::ApiKey;
use herald_ledger::handover::HandOver;
use herald_manage::Manage;
use herald_queue::{Embedded, Queue};
use herald_registry::Registry;
use herald_telemetry::health::Health;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How long attempts in flight may take after a stop was asked for. With what comes after it, the
/// process ends within the 20 s that the contract gives it.
const DRAIN: Duration = Duration::from_secs(12);

/// How long open HTTP connections may take at the end.
const CLOSE: Duration = Duration::from_secs(2);

/// How long a client may take to send a request's headers; it is held a connection for no longer.
const HEADERS: Duration = Duration::from_secs(15);

/// Herald, running.
#[derive(Debug)]
pub(crate) struct Running {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// The operator's key, where it was configured or has just been made.
    pub(crate) operator_key: Option<String>,
    /// Whether the key has just been made.
    pub(crate) first_start: bool,
    /// The ledger.
    pub(crate) ledger: Ledger,
    stop: Stop,
    health: Health,
    /// What works until told to drain.
    workers: JoinSet<&'static str>,
    /// What must outlive the workers: the HTTP server, the registry, then the queue and the writer.
    base: JoinSet<&'static str>,
    _data: DataFolder,
}

#[derive(Debug, Clone, Default)]
struct Stop {
    /// No new work.
    soft: CancellationToken,
    /// No more waiting for attempts.
    hard: CancellationToken,
    /// The listener closes.
    listener: CancellationToken,
}

/// Starts every role.
pub(crate) async fn start(config: Config) -> anyhow::Result<Running> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let data = DataFolder::open(&config.data)?;
    let trusted = match &config.egress_ca {
        None => Vec::new(),
        Some(file) => read_certificates(file)?,
    };
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("cannot listen on {}", config.listen))?;
    let address = listener.local_addr()?;

    let (ledger, writer) = Ledger::open(&herald_ledger::file_in(data.path()), Arc::clone(&clock))
        .await
        .with_context(|| format!("cannot open the ledger in {}", data.path().display()))?;
    let mut base = JoinSet::new();
    supervise(&mut base, "ledger writer", writer.run());
    let (queue, publisher) = Embedded::open(ledger.store().clone());
    supervise(&mut base, "queue publisher", publisher);
    let queue = Queue::Embedded(queue);
    let (operator_key, first_start) = operator_key(&ledger, config.operator_key.as_deref(), &*clock).await?;
    let configured = config.operator_key.as_deref().map(herald_access::hash_key);
    let registry = Arc::new(Registry::load(ledger.clone(), configured).await?);
    let owned = ledger.take_all_shards(Uuid::now_v7()).await?;

    let (stop, health, metrics) = (Stop::default(), Health::default(), prometheus::Registry::new());
    health.failing("deliver", "looking up what is open");
    let hand_over = HandOver::default();
    let egress = Arc::new(EgressPolicy::new(config.egress_allow));
    let dispatch = Dispatch::new(
        herald_dispatch::Parts {
            queue: queue.clone(),
            ledger: ledger.clone(),
            registry: Arc::clone(&registry),
            owned: owned.clone(),
            hand_over: hand_over.clone(),
            health: health.clone(),
        },
        &metrics,
    )?;
    let deliver = Deliver::new(
        herald_deliver::Parts {
            ledger: ledger.clone(),
            registry: Arc::clone(&registry),
            owned,
            hand_over,
            clock: Arc::clone(&clock),
            health: health.clone(),
            egress: Arc::clone(&egress),
            trusted,
        },
        &metrics,
    )?;
    let ingest = Ingest::new(queue, Arc::clone(&registry), clock, &metrics)?;
    let manage = Manage {
        ledger: ledger.clone(),
        registry: Arc::clone(&registry),
        egress,
    };
    crate::metrics::register(&metrics, &ledger)?;
    let app = crate::http::router(ingest, manage, health.clone(), metrics, stop.soft.clone());

    let mut workers = JoinSet::new();
    supervise(&mut workers, "dispatch", dispatch.run(stop.soft.clone()));
    supervise(
        &mut workers,
        "deliver",
        deliver.run(stop.soft.clone(), stop.hard.clone()),
    );
    let refreshing = stop.listener.clone();
    supervise(&mut base, "registry", async move { registry.run(refreshing).await });
    supervise(&mut base, "HTTP server", serve(listener, app, stop.listener.clone()));
    health.ok("process");
    Ok(Running {
        address,
        operator_key,
        first_start,
        ledger,
        stop,
        health,
        workers,
        base,
        _data: data,
    })
}

fn supervise(tasks: &mut JoinSet<&'static str>, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
    tasks.spawn(async move {
        task.await;
        name
    });
}

/// Serves until `close`; then open connections have a moment to end what they are at.
async fn serve(listener: TcpListener, app: Router, close: CancellationToken) {
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADERS);
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors, mostly; those in use come free again.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            Some(_ended) = connections.join_next() => continue,
            () = close.cancelled() => break,
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection is gone already");
        }
        let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(app.clone()));
        let close = close.clone();
        connections.spawn(async move {
            let mut connection = std::pin::pin!(connection);
            // How a client breaks off is its own affair.
            tokio::select! {
                ended = &mut connection => drop(ended),
                () = close.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    drop(connection.await);
                }
            }
        });
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(CLOSE, ended).await.is_err() {
        connections.shutdown().await;
    }
}

impl Running {
    /// Runs until a signal asks for the end, or a task ends by itself, which is an error.
    pub(crate) async fn until_stopped(mut self) -> anyhow::Result<()> {
        let died = tokio::select! {
            signal = crate::signals::next() => {
                tracing::info!(signal = signal?, "stopping");
                None
            }
            Some(ended) = self.workers.join_next() => Some(ended),
            Some(ended) = self.base.join_next() => Some(ended),
        };
        let stopped = self.stop().await;
        match died {
            None => stopped,
            Some(Ok(name)) => Err(anyhow::anyhow!("{name} ended by itself")),
            Some(Err(error)) => Err(anyhow::anyhow!("a task died: {error}")),
        }
    }

    /// Drains and ends.
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
        drop(self.ledger);
        let closed = join_all(&mut self.base, CLOSE * 2).await;
        finished.and(closed)
    }
}

/// Waits for all, but no longer than that: what is then cut off lies in the ledger or the queue as it was.
async fn join_all(tasks: &mut JoinSet<&'static str>, at_most: Duration) -> anyhow::Result<()> {
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

/// The operator's key: the configured one, or one made now if there is none yet.
async fn operator_key(
    ledger: &Ledger,
    configured: Option<&str>,
    clock: &dyn Clock,
) -> anyhow::Result<(Option<String>, bool)> {
    if let Some(key) = configured {
        ledger.ensure_operator(None).await?;
        return Ok((Some(key.to_owned()), false));
    }
    let key = crate::data::random_key()?;
    let row = ApiKey {
        id: KeyId(Uuid::now_v7()),
        account: OPERATOR,
        name: Some("first start".to_owned()),
        hash: herald_access::hash_key(&key),
        roles: herald_domain::access::Roles::OPERATOR,
        created_at: clock.now(),
    };
    let made = ledger.ensure_operator(Some(row)).await?;
    Ok((made.then_some(key), made))
}

fn read_certificates(file: &std::path::Path) -> anyhow::Result<Vec<reqwest::Certificate>> {
    let pem = std::fs::read(file).with_context(|| format!("--egress-ca {}", file.display()))?;
    let certificates = herald_deliver::parse_certificates(&pem)
        .with_context(|| format!("--egress-ca {}: not a PEM file of certificates", file.display()))?;
    anyhow::ensure!(
        !certificates.is_empty(),
        "--egress-ca {}: no certificate in it",
        file.display()
    );
    Ok(certificates)
}
