//! Starting a process: `herald up` with every role, or one role of several processes.
//!
//! It listens, and says what is still missing; opens the ledger and the event queue; loads the registry; then serves.
//! Every long-lived task is supervised: one that ends by itself ends the process.

use super::clocks::Clocks;
use super::config::Config;
use super::dead_letters::DeadLetterPublisher;
use super::http::{self, App};
use super::retention::Removal;
use super::roles::Role;
use super::server::{Places, most_connections, serve};
use super::stop::{Running, Stop};
use super::stores::{self, Stores};
use super::tasks::Tasks;
use super::{data, in_hand, limits, listener, metrics};
use crate::{causes, text};
use anyhow::Context;
use axum::Router;
use herald_deliver::{DeadLetters, Deliver, LeaseKeeper};
use herald_dispatch::Dispatch;
use herald_domain::access::OPERATOR;
use herald_domain::address::EgressPolicy;
use herald_domain::id::KeyId;
use herald_domain::time::Clock;
use herald_egress::Client;
use herald_ingest::Ingest;
use herald_ledger::Ledger;
use herald_ledger::accounts::ApiKey;
use herald_ledger::handover::HandOver;
use herald_ledger::partitions::Days;
use herald_ledger::reconnect::Delays;
use herald_ledger::shards::ShardLeases;
use herald_manage::Manage;
use herald_queue::rabbitmq::Rabbit;
use herald_queue::{Queue, QueueUse};
use herald_registry::Registry;
use herald_telemetry::health::Health;
use herald_telemetry::traces::Traces;
use rustls::pki_types::CertificateDer;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::watch;
use uuid::Uuid;

/// Starts a process for that role.
pub(crate) async fn start(config: Config, role: Role) -> anyhow::Result<Running> {
    let mut process = Starting::new(config, role)?;
    let (address, routes) = process.listen()?;
    let Stores {
        ledger,
        queue,
        rabbit,
        data,
    } = stores::open(&process.config, role, &process.health, &mut process.base).await?;
    let (key, registry) = process.load(&ledger, rabbit.is_some()).await?;
    let (keeper, owned) = shards(&ledger, rabbit.is_some(), role).await?;
    let shared = Shared {
        registry,
        ledger,
        queue,
        rabbit,
        owned,
        hand_over: HandOver::default(),
        egress: Arc::new(EgressPolicy::new(process.config.egress_allow.clone())),
    };
    if role.publishes() {
        shared.queue.register_metrics(QueueUse::Publish, &process.metrics)?;
    }
    if role.delivers() {
        process.deliver(&shared, keeper)?;
    }
    if role.dispatches() {
        process.dispatch(&shared)?;
    }
    let app = process.routes(&shared)?;
    process.keep_up(&shared)?;
    drop(routes.send_replace(app.finish()));
    process.health.ok("process");
    Ok(Running {
        address,
        operator_key: key.key,
        first_start: key.is_new,
        ledger: shared.ledger,
        stop: process.stop,
        health: process.health,
        workers: process.workers,
        base: process.base,
        routes,
        _data: data,
    })
}

/// A process that is being started.
struct Starting {
    config: Config,
    role: Role,
    stop: Stop,
    health: Health,
    metrics: prometheus::Registry,
    traces: Traces,
    /// The authorities that subscribers' certificates may come from, beside the system's.
    trusted: Vec<CertificateDer<'static>>,
    workers: Tasks,
    base: Tasks,
}

/// What the services share.
struct Shared {
    ledger: Ledger,
    queue: Queue,
    rabbit: Option<Rabbit>,
    registry: Arc<Registry>,
    owned: watch::Receiver<ShardLeases>,
    hand_over: HandOver,
    egress: Arc<EgressPolicy>,
}

/// The operator's key, where it is known.
struct OperatorKey {
    key: Option<String>,
    /// It has just been made.
    is_new: bool,
}

impl Starting {
    /// What a process has from the start: its settings, its metrics and the export of its spans.
    fn new(config: Config, role: Role) -> anyhow::Result<Self> {
        let (stop, metrics, mut base) = (Stop::default(), prometheus::Registry::new(), Tasks::default());
        let trusted = match &config.egress_ca {
            None => Vec::new(),
            Some(file) => read_certificates(file)?,
        };
        metrics::register(&metrics, role)?;
        metrics::register_certificates(&metrics, &config)?;
        let (traces, exporter) = Traces::new(config.traces(role)?, &metrics).context("--otlp-endpoint")?;
        if let Some(exporter) = exporter {
            base.supervise("span exporter", exporter.run(stop.listener.clone()));
        }
        Ok(Self {
            config,
            role,
            stop,
            health: Health::default(),
            metrics,
            traces,
            trusted,
            workers: Tasks::default(),
            base,
        })
    }

    /// Listens, and says there that the process is starting; where it listens, and what is to be served instead.
    fn listen(&mut self) -> anyhow::Result<(SocketAddr, watch::Sender<Router>)> {
        self.health.failing("process", "starting");
        let listener = listener::bind(self.config.listen)?;
        let address = listener.local_addr()?;
        let places = Places::new(most_connections(limits::descriptors()))?;
        places.register(&self.metrics)?;
        let (routes, app) = watch::channel(http::starting(self.health.clone(), self.metrics.clone()));
        let serving = serve(listener, places, app, self.stop.listener.clone());
        self.base.supervise("HTTP server", serving);
        Ok((address, routes))
    }

    /// The operator's key and the registry, which are waited for where the ledger is reached over a network.
    async fn load(&self, ledger: &Ledger, over_network: bool) -> anyhow::Result<(OperatorKey, Arc<Registry>)> {
        let given = self.config.operator_key.as_deref();
        let hash = given.map(herald_access::hash_key);
        loop_until(&self.health, over_network, async || {
            let key = operator_key(ledger, given, self.role.manages(), &*ledger.clock()).await?;
            let registry = Registry::load(ledger.clone(), hash).await?;
            Ok((key, Arc::new(registry)))
        })
        .await
    }

    /// Starts deliver.
    fn deliver(&mut self, shared: &Shared, keeper: Option<LeaseKeeper>) -> anyhow::Result<()> {
        limits::check_descriptors(herald_deliver::MAX_DESCRIPTORS);
        self.health.failing("deliver", "looking up what is open");
        let publisher = |rabbit: &Rabbit| Arc::new(DeadLetterPublisher(rabbit.clone())) as Arc<dyn DeadLetters>;
        let parts = herald_deliver::Parts {
            ledger: shared.ledger.clone(),
            registry: Arc::clone(&shared.registry),
            leases: shared.owned.clone(),
            keeper,
            dead_letters: shared.rabbit.as_ref().map(publisher),
            hand_over: shared.hand_over.clone(),
            health: self.health.clone(),
            traces: self.traces.clone(),
            client: self.client(&shared.egress)?,
            source: self.config.source.clone(),
        };
        let deliver = Deliver::new(parts, &self.metrics)?;
        let (soft, hard) = (self.stop.soft.clone(), self.stop.hard.clone());
        self.workers.supervise("deliver", deliver.run(soft.clone(), hard));
        metrics::register_open(&self.metrics, &shared.ledger)?;
        if shared.rabbit.is_some() {
            let counting = metrics::count_open(shared.ledger.clone(), shared.owned.clone(), soft);
            self.workers.supervise("open deliveries", counting);
        }
        Ok(())
    }

    /// The client for requests to subscribers, whose idle connections are closed from now on.
    fn client(&mut self, policy: &Arc<EgressPolicy>) -> anyhow::Result<Arc<Client>> {
        let client = Arc::new(Client::new(Arc::clone(policy), &self.trusted, &self.config.egress_dns)?);
        let (sweeping, until) = (Arc::clone(&client), self.stop.soft.clone());
        self.workers.supervise(
            "connections to subscribers",
            async move { sweeping.sweep(&until).await },
        );
        Ok(client)
    }

    fn dispatch(&mut self, shared: &Shared) -> anyhow::Result<()> {
        let parts = herald_dispatch::Parts {
            queue: shared.queue.clone(),
            ledger: shared.ledger.clone(),
            registry: Arc::clone(&shared.registry),
            owned: shared.owned.clone(),
            hand_over: shared.hand_over.clone(),
            health: self.health.clone(),
            traces: self.traces.clone(),
        };
        let dispatch = Dispatch::new(parts, &self.metrics)?;
        self.workers.supervise("dispatch", dispatch.run(self.stop.soft.clone()));
        if let Some(rabbit) = &shared.rabbit {
            let reporting = in_hand::report(shared.ledger.clone(), rabbit.clone(), self.stop.soft.clone());
            self.workers.supervise("reports of messages in hand", reporting);
        }
        Ok(())
    }

    /// The routes of the roles that have some.
    fn routes(&self, shared: &Shared) -> anyhow::Result<App> {
        let mut app = App::new(self.health.clone(), self.metrics.clone());
        if self.role.ingests() {
            let (queue, registry) = (shared.queue.clone(), Arc::clone(&shared.registry));
            let ingest = Ingest::new(
                queue,
                registry,
                shared.ledger.clock(),
                self.traces.clone(),
                &self.metrics,
            )?;
            app.ingest(ingest, self.stop.soft.clone());
        }
        if self.role.manages() {
            app.manage(Manage {
                ledger: shared.ledger.clone(),
                registry: Arc::clone(&shared.registry),
                egress: Arc::clone(&shared.egress),
            });
        }
        Ok(app)
    }

    /// Starts what keeps the ledger and the registry up, which outlives the services.
    fn keep_up(&mut self, shared: &Shared) -> anyhow::Result<()> {
        metrics::register_live(&self.metrics, &shared.registry)?;
        shared.ledger.register_metrics(&self.metrics)?;
        let (until, ledger) = (self.stop.listener.clone(), shared.ledger.clone());
        self.base
            .supervise("notices", async move { ledger.listen(until).await });
        if self.role.manages() {
            let removal = Removal::new(self.config.retention(), &self.metrics)?;
            let (until, ledger) = (self.stop.listener.clone(), shared.ledger.clone());
            self.base
                .supervise("retention", async move { removal.run(ledger, until).await });
        }
        if self.role != Role::Ingest && shared.ledger.is_shared() {
            self.keep_partitions(&shared.ledger)?;
        }
        let clocks = Clocks::new(&self.metrics)?;
        let watching = clocks.watch(shared.ledger.clone(), self.stop.listener.clone());
        self.base.supervise("clocks", watching);
        // Ingest goes on with the rights that it knows while the ledger is away, so it stays ready.
        let reported = (self.role != Role::Ingest).then(|| self.health.clone());
        let (until, registry) = (self.stop.listener.clone(), Arc::clone(&shared.registry));
        self.base
            .supervise("registry", async move { registry.run(until, reported).await });
        Ok(())
    }

    fn keep_partitions(&mut self, ledger: &Ledger) -> anyhow::Result<()> {
        let days = Days::new(&self.metrics)?;
        let (until, ledger, told) = (self.stop.listener.clone(), ledger.clone(), self.health.clone());
        let tell = move |too_few: Option<String>| match too_few {
            None => told.ok("partitions"),
            Some(why) => told.degraded("partitions", why),
        };
        self.health
            .failing("partitions", "the ledger's partitions have not been counted yet");
        self.base.supervise("partitions", async move {
            ledger.keep_partitions(days, tell, until).await;
        });
        Ok(())
    }
}

/// The shards that the process has: all for good where it has its ledger to itself, those that it keeps where it
/// delivers, and else none.
async fn shards(
    ledger: &Ledger,
    is_shared: bool,
    role: Role,
) -> anyhow::Result<(Option<LeaseKeeper>, watch::Receiver<ShardLeases>)> {
    if !is_shared {
        let all = ledger.take_all_shards(Uuid::now_v7()).await?;
        return Ok((None, watch::channel(all).1));
    }
    if !role.delivers() {
        return Ok((None, watch::channel(ShardLeases::none()).1));
    }
    let (keeper, owned) = LeaseKeeper::new(ledger.clone(), Uuid::now_v7());
    Ok((Some(keeper), owned))
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
                let error = causes::of(&error);
                tracing::warn!(error, "the ledger cannot be read; it is tried again");
                health.failing("process", format!("starting: {error}"));
            }
            done => return done,
        }
        tokio::time::sleep(delays.next_delay()).await;
    }
}

/// The operator's key: the configured one, or one made now if there is none yet and this process may.
async fn operator_key(
    ledger: &Ledger,
    configured: Option<&str>,
    may_make: bool,
    clock: &dyn Clock,
) -> anyhow::Result<OperatorKey> {
    if configured.is_some() || !may_make {
        ledger.ensure_operator(None).await?;
        return Ok(OperatorKey {
            key: configured.map(str::to_owned),
            is_new: false,
        });
    }
    let key = data::random_key()?;
    let row = ApiKey {
        id: KeyId(Uuid::now_v7()),
        account: OPERATOR,
        name: Some("first start".to_owned()),
        hash: herald_access::hash_key(&key),
        roles: herald_domain::access::Roles::OPERATOR,
        created_at: clock.now(),
    };
    let made = ledger.ensure_operator(Some(row)).await?;
    Ok(OperatorKey {
        key: made.then_some(key),
        is_new: made,
    })
}

fn read_certificates(file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let pem = text::read_settings(file).context("--egress-ca")?;
    let certificates = herald_egress::parse_certificates(pem.as_bytes())
        .with_context(|| format!("--egress-ca {}: not a PEM file of certificates", file.display()))?;
    anyhow::ensure!(
        !certificates.is_empty(),
        "--egress-ca {}: no certificate in it",
        file.display()
    );
    Ok(certificates)
}
