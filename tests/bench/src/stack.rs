//! What is measured: the floor, and Herald in each of its forms, started fresh for every run.

use crate::receiver::Receiver;
use anyhow::{Context, bail};
use clap::ValueEnum;
use herald_tests::api::Api;
use herald_tests::binary::{binary, command, free_port};
use herald_tests::sandbox::Sandbox;
use herald_tests::services::{Management, Servers, migrate, query};
use herald_tests::{PATIENCE, samples, wait_until};
use serde_json::json;
use std::fmt;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use uuid::Uuid;

/// One form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Kind {
    /// Without Herald: what everything else is compared to
    #[value(skip)]
    Floor,
    /// `herald up` on a file
    Embedded,
    /// `herald up` on RabbitMQ and PostgreSQL
    Shared,
    /// ingest, two workers and manage as processes, on RabbitMQ and PostgreSQL
    Roles,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Floor => "floor",
            Self::Embedded => "embedded",
            Self::Shared => "shared",
            Self::Roles => "roles",
        })
    }
}

impl Kind {
    /// Its processes: what they are called, and the subcommand. The first one takes events, the last
    /// one subscriptions.
    fn processes(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Floor => &[("floor", "floor")],
            Self::Embedded | Self::Shared => &[("herald", "up")],
            Self::Roles => &[
                ("ingest", "ingest"),
                ("worker 1", "worker"),
                ("worker 2", "worker"),
                ("manage", "manage"),
            ],
        }
    }

    /// Whether it uses RabbitMQ and PostgreSQL.
    fn stores(self) -> (bool, bool) {
        match self {
            Self::Floor => (true, false),
            Self::Embedded => (false, false),
            Self::Shared | Self::Roles => (true, true),
        }
    }
}

/// Who subscribes to what happens in a company.
#[derive(Debug)]
pub(crate) struct Subscribers {
    /// The company.
    pub(crate) company: Uuid,
    /// How many they are.
    pub(crate) count: u32,
    /// Their `MaxInFlight`, if not the default.
    pub(crate) max_in_flight: Option<u32>,
}

/// A running stack; dropping it kills its processes.
#[derive(Debug)]
pub(crate) struct Stack {
    kind: Kind,
    processes: Vec<Process>,
    place: Place,
    key: String,
    // Last, because its end kills what still works in it.
    sandbox: Sandbox,
}

#[derive(Debug)]
struct Process {
    name: &'static str,
    address: SocketAddr,
    child: Child,
    log: PathBuf,
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a child can be waited for");
    }
}

/// A vhost and a database of its own.
#[derive(Debug)]
struct Place {
    name: String,
    management: Management,
    broker: String,
    server: String,
    database: String,
}

impl Place {
    async fn make(kind: Kind, servers: &Servers) -> Self {
        let name = format!("bench_{}", Uuid::new_v4().simple());
        let within = |url: &str| {
            let (server, _default) = url.rsplit_once('/').expect("a URL with a path");
            format!("{server}/{name}")
        };
        let (broker, server) = (within(&servers.rabbitmq.url()), servers.postgres.url());
        let (database, management) = (within(&server), servers.rabbitmq.management());
        let (vhost, ledger) = kind.stores();
        if vhost {
            management.make_vhost(&name).await;
        }
        if ledger {
            query(&server, &format!("CREATE DATABASE {name}"));
        }
        Self {
            name,
            management,
            broker,
            server,
            database,
        }
    }

    async fn remove(self, kind: Kind) {
        let (vhost, ledger) = kind.stores();
        if vhost {
            self.management.remove_vhost(&self.name).await;
        }
        if ledger {
            query(&self.server, &format!("DROP DATABASE {} WITH (FORCE)", self.name));
        }
    }
}

impl Stack {
    /// Starts one, waits until it is ready, and makes the subscriptions.
    pub(crate) async fn start(
        kind: Kind,
        servers: &Servers,
        receiver: &Receiver,
        subscribers: &Subscribers,
    ) -> anyhow::Result<Self> {
        let mut stack = Self {
            kind,
            processes: Vec::new(),
            place: Place::make(kind, servers).await,
            key: format!("bench-{}", Uuid::new_v4().simple()),
            sandbox: Sandbox::new("herald-bench-"),
        };
        if kind.stores() == (true, true) {
            // As it is deployed; it returns when the queues are old enough to be relied on.
            migrate(&stack.place.broker, &stack.place.database);
        }
        for (name, role) in kind.processes() {
            stack.spawn(name, role, receiver)?;
        }
        for process in &mut stack.processes {
            process.ready(&stack.key).await?;
        }
        if kind != Kind::Floor {
            let manage = stack.processes.last().context("there are processes")?;
            let api = Api::new(&format!("http://{}", manage.address), &stack.key);
            for subscription in 0..subscribers.count {
                let mut body = samples::packets_of(subscribers.company, &receiver.url(subscription));
                if let Some(limit) = subscribers.max_in_flight {
                    body = samples::merged(body, json!({ "MaxInFlight": limit }));
                }
                api.subscribe(&body).await;
            }
        }
        Ok(stack)
    }

    fn spawn(&mut self, name: &'static str, role: &str, receiver: &Receiver) -> anyhow::Result<()> {
        let folder = self.sandbox.path();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let log = folder.join(name);
        let mut command = if self.kind == Kind::Floor {
            let mut command = command(&std::env::current_exe()?);
            command.args([role, "--broker", &self.place.broker, "--target", &receiver.url(0)]);
            command
        } else {
            self.herald(role)
        };
        let child = command
            .args(["--listen", &address.to_string()])
            // The sandbox ends what works in it, also when this process is killed.
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()
            .with_context(|| format!("{} cannot be started", command.get_program().display()))?;
        self.processes.push(Process {
            name,
            address,
            child,
            log,
        });
        Ok(())
    }

    fn herald(&self, role: &str) -> Command {
        let mut command = command(&binary());
        command
            .args([role, "--egress-allow", "127.0.0.0/8"])
            .env("HERALD_OPERATOR_KEY", &self.key);
        if self.kind == Kind::Embedded {
            command.arg("--data").arg(self.sandbox.path().join("data"));
        } else {
            command.args(["--broker", &self.place.broker, "--database", &self.place.database]);
        }
        command
    }

    /// Where events go, and the key for it.
    pub(crate) fn entrance(&self) -> (SocketAddr, &str) {
        let first = self.processes.first().expect("there are processes");
        (first.address, &self.key)
    }

    /// Its processes and its stores, each with the process that the others of it come from.
    pub(crate) fn parts(&self, servers: &Servers) -> Vec<(&'static str, u32)> {
        let own = self.processes.iter().map(|process| (process.name, process.child.id()));
        let (broker, database) = self.kind.stores();
        let broker = broker.then(|| ("RabbitMQ", servers.rabbitmq.process()));
        let database = database.then(|| ("PostgreSQL", servers.postgres.process()));
        own.chain(broker).chain(database).collect()
    }

    /// An error with its last words if a process has ended.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        self.processes.iter_mut().try_for_each(Process::check)
    }

    /// Ends it and removes what it left.
    pub(crate) async fn stop(mut self) {
        self.processes.clear();
        self.place.remove(self.kind).await;
    }
}

impl Process {
    async fn ready(&mut self, key: &str) -> anyhow::Result<()> {
        let api = Api::new(&format!("http://{}", self.address), key);
        let what = format!("{} is ready", self.name);
        wait_until(&what, PATIENCE, async || {
            if let Err(ended) = self.check() {
                return Some(Err(ended));
            }
            let reply = api.try_get("/health/ready").await.ok()?;
            (reply.status == 200).then_some(Ok(()))
        })
        .await
    }

    fn check(&mut self) -> anyhow::Result<()> {
        let Some(status) = self.child.try_wait()? else {
            return Ok(());
        };
        bail!(
            "{} ended with {status}:\n{}",
            self.name,
            std::fs::read_to_string(&self.log)?
        )
    }
}
