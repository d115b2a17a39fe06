//! What is started: the stack, its roles, their settings.

use super::process::{Process, Role, Stderr};
use super::{Herald, Place};
use crate::binary::{binary, free_port};
use crate::sandbox::Sandbox;
use crate::services::{Ground, migrate};
use std::ffi::OsString;
use std::path::PathBuf;
use uuid::Uuid;

/// What Herald runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stack {
    /// One process on one SQLite file.
    Embedded,
    /// Each role a process, one with a twin, on RabbitMQ and PostgreSQL.
    Cluster,
}

impl Default for Stack {
    /// What `HERALD_TEST_STACK` says, so that all scenarios can be run on either.
    fn default() -> Self {
        match std::env::var("HERALD_TEST_STACK").as_deref() {
            Err(_) | Ok("embedded") => Self::Embedded,
            Ok("cluster") => Self::Cluster,
            Ok(other) => panic!("HERALD_TEST_STACK={other} is neither embedded nor cluster"),
        }
    }
}

/// Two workers, so that what they share is shared in every scenario.
const CLUSTER: [Role; 4] = [Role::Ingest, Role::Worker, Role::Worker, Role::Manage];

/// How to start one.
#[derive(Debug)]
pub struct Builder {
    pub(super) stack: Stack,
    binary: PathBuf,
    servers: Option<(String, String)>,
    data: Option<PathBuf>,
    roles: Option<Vec<Role>>,
    pub(super) brokers: Vec<(Role, String)>,
    pub(super) egress_allow: Option<String>,
    pub(super) arguments: Vec<OsString>,
    pub(super) environment: Vec<(String, OsString)>,
    pub(super) key_given: bool,
    pub(super) audited: bool,
    stderr: Stderr,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            stack: Stack::default(),
            binary: binary(),
            servers: None,
            data: None,
            roles: None,
            brokers: Vec::new(),
            egress_allow: Some("127.0.0.0/8".to_owned()),
            arguments: Vec::new(),
            environment: Vec::new(),
            key_given: true,
            audited: true,
            stderr: Stderr::default(),
        }
    }
}

impl Builder {
    /// Takes another stack.
    #[must_use]
    pub fn stack(self, stack: Stack) -> Self {
        Self { stack, ..self }
    }

    /// As a cluster on that broker and that empty database, instead of a place on the shared servers.
    #[must_use]
    pub fn on(self, broker: &str, database: &str) -> Self {
        Self {
            stack: Stack::Cluster,
            servers: Some((broker.to_owned(), database.to_owned())),
            ..self
        }
    }

    /// Another build than the one under test.
    #[must_use]
    pub fn binary(self, binary: PathBuf) -> Self {
        Self { binary, ..self }
    }

    /// With its data folder there, on the embedded stack.
    #[must_use]
    pub fn data(self, folder: PathBuf) -> Self {
        Self {
            data: Some(folder),
            ..self
        }
    }

    /// As a cluster of other roles than one ingest, two workers and one manage.
    #[must_use]
    pub fn roles(self, roles: &[Role]) -> Self {
        Self {
            stack: Stack::Cluster,
            roles: Some(roles.to_vec()),
            ..self
        }
    }

    /// With another URL of the broker for one role, such as that of a user with fewer rights.
    #[must_use]
    pub fn broker_of(mut self, role: Role, url: &str) -> Self {
        self.brokers.push((role, url.to_owned()));
        self
    }

    /// Only public addresses may be sent to, as an operator has it who says nothing.
    #[must_use]
    pub fn public_only(self) -> Self {
        Self {
            egress_allow: None,
            ..self
        }
    }

    /// Adds an argument to the command line.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// One more variable in its environment, which has else only `PATH`, `HOME` and `TMPDIR`.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// Without an operator's key, so that it makes one and shows it.
    #[must_use]
    pub fn making_its_key(self) -> Self {
        Self {
            key_given: false,
            ..self
        }
    }

    /// With its stderr going there.
    #[must_use]
    pub fn stderr(self, stderr: Stderr) -> Self {
        Self { stderr, ..self }
    }

    /// Without the audit at the end, for tests that destroy the ledger.
    #[must_use]
    pub fn unaudited(self) -> Self {
        Self { audited: false, ..self }
    }

    /// Starts it on free ports and a fresh place, and waits until all of it is ready.
    pub async fn start(self) -> Herald {
        let sandbox = Sandbox::new("herald-test-");
        let (place, ground) = match (&self.stack, &self.servers) {
            (Stack::Embedded, _) => {
                let data = self.data.clone().unwrap_or_else(|| sandbox.path().join("data"));
                (Place::Folder(data), None)
            }
            (Stack::Cluster, Some((broker, database))) => {
                migrate(&self.binary, broker, database);
                (Place::servers(broker, database), None)
            }
            (Stack::Cluster, None) => {
                let ground = Ground::take().await;
                (Place::servers(ground.vhost.url(), &ground.database.url()), Some(ground))
            }
        };
        let roles = match (self.stack, &self.roles) {
            (Stack::Embedded, _) => vec![Role::Up],
            (Stack::Cluster, Some(roles)) => roles.clone(),
            (Stack::Cluster, None) => CLUSTER.to_vec(),
        };
        let processes = roles.iter().enumerate().map(|(position, role)| {
            let twins = roles.iter().take(position).filter(|other| *other == role).count();
            Process::new(*role, twins, free_port(), self.stderr, sandbox.path())
        });
        let mut herald = Herald {
            binary: self.binary.clone(),
            operator_key: format!("test-{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple()),
            place,
            processes: processes.collect(),
            builder: self,
            sandbox,
            ground,
        };
        herald.start_all().await;
        herald
    }
}
