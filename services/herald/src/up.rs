//! Starting and stopping a process: `herald up` with every role, or one role of several processes.
//!
//! Start: listen, and say what is still missing; open the ledger and the event queue; load the registry;
//! then serve. Every long-lived task is supervised: one that ends by itself ends the process.
//!
//! Stop: readiness goes red and ingest answers 503; attempts in flight may end; what is recorded is
//! recorded; then the listener closes, the last spans are exported, the writer commits what it has, and the
//! process ends.

use crate::config::Config;
use crate::data::DataFolder;
use crate::letters::Letters;
use crate::roles::Role;
use crate::server::{CLOSE, Places, most_connections, serve};
use crate::stores::{self, Stores};
use crate::tasks::Tasks;
use anyhow::Context;
use axum::Router;
use herald_deliver::{DeadLetters, Deliver, Keeper};
use herald_dispatch::Dispatch;
use herald_domain::access::OPERATOR;
use herald_domain::address::EgressPolicy;
use herald_domain::id::KeyId;
use herald_domain::time::Clock;
use herald_ingest::Ingest;
use herald_ledger::Ledger;
use herald_ledger::accounts::ApiKey;
use herald_ledger::handover::HandOver;
use herald_ledger::partitions::Days;
use herald_ledger::reconnect::Delays;
use herald_ledger::shards::Ownership;
use herald_manage::Manage;
use herald_queue::Direction;
use herald_registry::Registry;
use herald_telemetry::health::Health;
use herald_telemetry::traces::Traces;
use rustls::pki_types::CertificateDer;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How long attempts in flight may take after a stop was asked for. With what comes after it, the
/// process ends within the 20 s that the contract gives it.
const DRAIN: Duration = Duration::from_secs(12);

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
    workers: Tasks,
    /// What must outlive the workers: the HTTP server, the registry, the span exporter, then the queue and the writer.
    base: Tasks,
    /// The routes, which hold handles to the ledger.
    routes: watch::Sender<Router>,
    _data: Option<DataFolder>,
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

/// Starts a process for that role.
pub(crate) async fn start(config: Config, role: Role) -> anyhow::Result<Running> {
    let (stop, health, metrics) = (Stop::default(), Health::default(), prometheus::Registry::new());
    let (mut workers, mut base) = (Tasks::default(), Tasks::default());
    let trusted = match &config.egress_ca {
        None => Vec::new(),
        Some(file) => read_certificates(file)?,
    };
    crate::metrics::register(&metrics, role)?;
    crate::metrics::register_certificates(&metrics, &config)?;
    let (traces, exporter) = Traces::new(config.traces(role)?, &metrics).context("--otlp-endpoint")?;
    if let Some(exporter) = exporter {
        base.supervise("span exporter", exporter.run(stop.listener.clone()));
    }
    health.failing("process", "starting");
    let listener = crate::listener::bind(config.listen)?;
    let address = listener.local_addr()?;
    let places = Places::new(most_connections(crate::process::descriptors()))?;
    places.register(&metrics)?;
    let (routes, app) = watch::channel(crate::http::starting(health.clone(), metrics.clone()));
    base.supervise("HTTP server", serve(listener, places, app, stop.listener.clone()));

    let Stores {
        ledger,
        queue,
        rabbit,
        data,
    } = stores::open(&config, role, &health, &mut base).await?;
    let clock = ledger.clock();
    let configured = config.operator_key.as_deref().map(herald_access::hash_key);
    let (operator_key, first_start, registry) = loop_until(&health, rabbit.is_some(), async || {
        let key = operator_key(&ledger, config.operator_key.as_deref(), role.manages(), &*clock).await?;
        let registry = Registry::load(ledger.clone(), configured).await?;
        Ok((key.0, key.1, Arc::new(registry)))
    })
    .await?;
    let hand_over = HandOver::default();
    let egress = Arc::new(EgressPolicy::new(config.egress_allow.clone()));
    let mut app = crate::http::App::new(health.clone(), metrics.clone());
    let (keeper, owned) = match (&rabbit, role.delivers()) {
        (None, _) => (None, watch::channel(ledger.take_all_shards(Uuid::now_v7()).await?).1),
        (Some(_), true) => {
            let (keeper, owned) = Keeper::new(ledger.clone(), Uuid::now_v7());
            (Some(keeper), owned)
        }
        (Some(_), false) => (None, watch::channel(Ownership::none()).1),
    };
    if role.publishes() {
        queue.register_metrics(Direction::Publish, &metrics)?;
    }
    if role.delivers() {
        crate::process::check_descriptors(herald_deliver::MAX_DESCRIPTORS);
        health.failing("deliver", "looking up what is open");
        let deliver = Deliver::new(
            herald_deliver::Parts {
                ledger: ledger.clone(),
                registry: Arc::clone(&registry),
                owned: owned.clone(),
                keeper,
                dead_letters: rabbit
                    .clone()
                    .map(|rabbit| Arc::new(Letters(rabbit)) as Arc<dyn DeadLetters>),
                hand_over: hand_over.clone(),
                health: health.clone(),
                traces: traces.clone(),
                egress: Arc::clone(&egress),
                trusted,
                dns: config.egress_dns.clone(),
            },
            &metrics,
        )?;
        workers.supervise("deliver", deliver.run(stop.soft.clone(), stop.hard.clone()));
        crate::metrics::register_open(&metrics, &ledger)?;
        if rabbit.is_some() {
            let counting = crate::metrics::count_open(ledger.clone(), owned.clone(), stop.soft.clone());
            workers.supervise("open deliveries", counting);
        }
    }
    if role.dispatches() {
        let dispatch = Dispatch::new(
            herald_dispatch::Parts {
                queue: queue.clone(),
                ledger: ledger.clone(),
                registry: Arc::clone(&registry),
                owned,
                hand_over,
                health: health.clone(),
                traces: traces.clone(),
            },
            &metrics,
        )?;
        workers.supervise("dispatch", dispatch.run(stop.soft.clone()));
        if let Some(rabbit) = rabbit {
            workers.supervise("held", crate::held::tell(ledger.clone(), rabbit, stop.soft.clone()));
        }
    }
    if role.ingests() {
        app.ingest(
            Ingest::new(queue, Arc::clone(&registry), clock, traces, &metrics)?,
            stop.soft.clone(),
        );
    }
    if role.manages() {
        app.manage(Manage {
            ledger: ledger.clone(),
            registry: Arc::clone(&registry),
            egress,
        });
    }
    crate::metrics::register_live(&metrics, &registry)?;
    ledger.register_metrics(&metrics)?;
    let (until, of_ledger) = (stop.listener.clone(), ledger.clone());
    base.supervise("notices", async move { of_ledger.listen(until).await });
    if role.manages() {
        let removal = crate::retention::Removal::new(config.retention(), &metrics)?;
        let (until, of_ledger) = (stop.listener.clone(), ledger.clone());
        base.supervise("retention", async move { removal.run(of_ledger, until).await });
    }
    if role != Role::Ingest && ledger.is_shared() {
        let days = Days::new(&metrics)?;
        let (until, of_ledger, told) = (stop.listener.clone(), ledger.clone(), health.clone());
        let tell = move |too_few: Option<String>| match too_few {
            None => told.ok("partitions"),
            Some(why) => told.degraded("partitions", why),
        };
        health.failing("partitions", "the ledger's partitions have not been counted yet");
        base.supervise("partitions", async move {
            of_ledger.keep_partitions(days, tell, until).await;
        });
    }
    let clocks = crate::clocks::Clocks::new(&metrics)?;
    base.supervise("clocks", clocks.watch(ledger.clone(), stop.listener.clone()));
    // Ingest goes on with the rights that it knows while the ledger is away, so it stays ready.
    let reported = (role != Role::Ingest).then(|| health.clone());
    let until = stop.listener.clone();
    base.supervise("registry", async move { registry.run(until, reported).await });
    drop(routes.send_replace(app.finish()));
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
        routes,
        _data: data,
    })
}

/// Tries until it succeeds where what it needs is reached over a network; else once.
async fn loop_until<T>(
    health: &Health,
    again: bool,
    mut attempt: impl AsyncFnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let mut delays = Delays::default();
    loop {
        match attempt().await {
            Err(error) if again => {
                let error = crate::causes::of(&error);
                tracing::warn!(error, "the ledger cannot be read; it is tried again");
                health.failing("process", format!("starting: {error}"));
            }
            done => return done,
        }
        tokio::time::sleep(delays.next_delay()).await;
    }
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

/// The operator's key: the configured one, or one made now if there is none yet and this process may.
async fn operator_key(
    ledger: &Ledger,
    configured: Option<&str>,
    may_make: bool,
    clock: &dyn Clock,
) -> anyhow::Result<(Option<String>, bool)> {
    if configured.is_some() || !may_make {
        ledger.ensure_operator(None).await?;
        return Ok((configured.map(str::to_owned), false));
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

fn read_certificates(file: &std::path::Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let pem = crate::text::read_settings(file).context("--egress-ca")?;
    let certificates = herald_deliver::parse_certificates(pem.as_bytes())
        .with_context(|| format!("--egress-ca {}: not a PEM file of certificates", file.display()))?;
    anyhow::ensure!(
        !certificates.is_empty(),
        "--egress-ca {}: no certificate in it",
        file.display()
    );
    Ok(certificates)
}
