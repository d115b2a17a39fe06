//! What is measured: the floor, and Herald in each of its forms, started fresh for every run.

mod place;
mod process;

use crate::seed::Ledger;
use anyhow::Context;
use clap::ValueEnum;
use futures_util::{TryStreamExt, stream};
use herald_tests::api::Api;
use herald_tests::binary::{binary, command, free_port};
use herald_tests::sandbox::Sandbox;
use herald_tests::services::{Servers, migrate};
use herald_tests::tls::Authority;
use place::Place;
use process::Process;
use serde_json::Value;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use uuid::Uuid;

/// How many subscriptions are made at a time.
const SUBSCRIBING: usize = 32;

/// The forms of Herald that are measured.
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

/// What a process of a stack is called, and the subcommand that it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Role {
    /// Its name in tables.
    pub(crate) name: &'static str,
    command: &'static str,
}

impl Role {
    const fn new(name: &'static str, command: &'static str) -> Self {
        Self { name, command }
    }

    fn takes_events(self) -> bool {
        matches!(self.command, "floor" | "up" | "ingest")
    }

    fn takes_subscriptions(self) -> bool {
        matches!(self.command, "up" | "manage")
    }
}

/// What takes events and subscriptions, and delivers nothing.
pub(crate) const FRONT: [Role; 2] = [Role::new("ingest", "ingest"), Role::new("manage", "manage")];

/// What delivers, beside the [`FRONT`].
pub(crate) const WORKERS: [Role; 2] = [Role::new("worker 1", "worker"), Role::new("worker 2", "worker")];

impl Kind {
    /// Its processes, in the order in which they are started.
    fn roles(self) -> &'static [Role] {
        const FLOOR: [Role; 1] = [Role::new("floor", "floor")];
        const UP: [Role; 1] = [Role::new("herald", "up")];
        const ALL: [Role; 4] = [FRONT[0], WORKERS[0], WORKERS[1], FRONT[1]];
        match self {
            Self::Floor => &FLOOR,
            Self::Embedded | Self::Shared => &UP,
            Self::Roles => &ALL,
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

/// A stack; dropping it kills its processes.
#[derive(Debug)]
pub(crate) struct Stack {
    kind: Kind,
    processes: Vec<Process>,
    place: Place,
    key: String,
    target: String,
    /// The authority of receivers over TLS, as PEM.
    trusted: Option<PathBuf>,
    // Last, because its end kills what still works in it.
    sandbox: Sandbox,
}

impl Stack {
    /// Makes the place for one, in which nothing runs yet. Where it is the floor, it sends to `target`.
    pub(crate) async fn prepare(kind: Kind, servers: &Servers, target: &str) -> Self {
        let place = Place::make(kind, servers).await;
        if kind.stores() == (true, true) {
            // As it is deployed; it returns when the queues are old enough to be relied on.
            migrate(&binary(), &place.broker, &place.database);
        }
        Self {
            kind,
            processes: Vec::new(),
            place,
            key: format!("bench-{}", Uuid::new_v4().simple()),
            target: target.to_owned(),
            trusted: None,
            sandbox: Sandbox::new("herald-bench-"),
        }
    }

    /// Has what is started from now on trust receivers of that authority.
    pub(crate) fn trust(&mut self, authority: &Authority) {
        self.trusted = Some(authority.write_pem(self.sandbox.path()));
    }

    /// Starts all its processes and waits until they are ready; how long the slowest took.
    pub(crate) async fn launch(&mut self) -> anyhow::Result<Duration> {
        self.launch_only(self.kind.roles()).await
    }

    /// [`launch`](Self::launch), for some processes, which need not be its own.
    pub(crate) async fn launch_only(&mut self, roles: &[Role]) -> anyhow::Result<Duration> {
        let running = self.processes.len();
        for role in roles {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
            let process = Process::spawn(*role, self.command(*role)?, address, self.sandbox.path())?;
            self.processes.push(process);
        }
        let mut slowest = Duration::ZERO;
        for process in self.processes.iter_mut().skip(running) {
            slowest = slowest.max(process.ready(&self.key).await?);
        }
        Ok(slowest)
    }

    fn command(&self, role: Role) -> anyhow::Result<Command> {
        if self.kind == Kind::Floor {
            let mut command = command(&std::env::current_exe()?);
            command.args([role.command, "--broker", &self.place.broker, "--target", &self.target]);
            if let Some(file) = &self.trusted {
                command.arg("--trust").arg(file);
            }
            return Ok(command);
        }
        let mut command = command(&binary());
        command
            .args([role.command, "--egress-allow", "127.0.0.0/8"])
            .env("HERALD_OPERATOR_KEY", &self.key);
        if let Some(file) = &self.trusted {
            // Of all roles alike, as it would be set in a deployment.
            command.env("HERALD_EGRESS_CA", file);
        }
        if self.kind == Kind::Embedded {
            command.arg("--data").arg(self.data());
        } else {
            command.args(["--broker", &self.place.broker, "--database", &self.place.database]);
        }
        Ok(command)
    }

    fn data(&self) -> PathBuf {
        self.sandbox.path().join("data")
    }

    /// Ends its processes in order; what they have stays.
    pub(crate) async fn halt(&mut self) -> anyhow::Result<()> {
        for process in &mut self.processes {
            process.terminate()?;
        }
        for process in &mut self.processes {
            process.end().await?;
        }
        self.processes.clear();
        Ok(())
    }

    /// Makes a subscription, if it is a stack that has any; its GUID.
    pub(crate) async fn subscribe(&self, body: &Value) -> anyhow::Result<Uuid> {
        if self.kind == Kind::Floor {
            return Ok(Uuid::nil());
        }
        let subscription = self.api()?.subscribe(body).await;
        subscription.guid().parse().context("a GUID")
    }

    /// Makes many subscriptions, several at a time.
    pub(crate) async fn subscribe_all(&self, bodies: impl IntoIterator<Item = Value>) -> anyhow::Result<()> {
        let bodies = stream::iter(bodies.into_iter().map(Ok));
        bodies
            .try_for_each_concurrent(SUBSCRIBING, async |body| self.subscribe(&body).await.map(drop))
            .await
    }

    /// The API, with the operator's key.
    pub(crate) fn api(&self) -> anyhow::Result<Api> {
        let process = self.one(Role::takes_subscriptions)?;
        let events = self.one(Role::takes_events)?.address;
        Ok(Api::new(&format!("http://{}", process.address), &self.key).with_events_at(&format!("http://{events}")))
    }

    fn one(&self, does: fn(Role) -> bool) -> anyhow::Result<&Process> {
        let mut processes = self.processes.iter();
        processes
            .find(|process| does(process.role))
            .context("the process for it does not run")
    }

    /// Where events go, and the key for it.
    pub(crate) fn entrance(&self) -> anyhow::Result<(SocketAddr, &str)> {
        Ok((self.one(Role::takes_events)?.address, &self.key))
    }

    /// Its ledger, to be written to while nothing runs.
    pub(crate) fn ledger(&self) -> Ledger {
        match self.kind {
            Kind::Floor | Kind::Embedded => Ledger::File(self.data().join("herald.db")),
            Kind::Shared | Kind::Roles => Ledger::Server(self.place.database.clone()),
        }
    }

    /// Its own processes, without the stores.
    pub(crate) fn processes(&self) -> Vec<(&'static str, u32)> {
        let processes = self.processes.iter();
        processes.map(|process| (process.role.name, process.id())).collect()
    }

    /// Its processes and its stores, each with the process that the others of it come from.
    pub(crate) fn parts(&self, servers: &Servers) -> Vec<(&'static str, u32)> {
        let (broker, database) = self.kind.stores();
        let broker = broker.then(|| ("RabbitMQ", servers.rabbitmq.process()));
        let database = database.then(|| ("PostgreSQL", servers.postgres.process()));
        self.processes().into_iter().chain(broker).chain(database).collect()
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
