//! One process of a stack.

use super::Role;
use anyhow::{Context, bail, ensure};
use herald_tests::api::Api;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long a start may take: a million subscriptions are loaded in it.
const START: Duration = Duration::from_mins(5);

/// How long an end in order may take; Herald promises 20 s.
const STOP: Duration = Duration::from_secs(30);

const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// A running process; dropping it kills it.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) role: Role,
    pub(super) address: SocketAddr,
    began: Instant,
    child: Child,
    log: PathBuf,
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a child can be waited for");
    }
}

impl Process {
    /// Starts it in `folder`, which ends what works in it, also when this process is killed.
    pub(super) fn spawn(role: Role, mut command: Command, address: SocketAddr, folder: &Path) -> anyhow::Result<Self> {
        let log = folder.join(role.name);
        let child = command
            .args(["--listen", &address.to_string()])
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()
            .with_context(|| format!("{} cannot be started", command.get_program().display()))?;
        Ok(Self {
            role,
            address,
            began: Instant::now(),
            child,
            log,
        })
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it is ready; how long that was after its start.
    pub(super) async fn ready(&mut self, key: &str) -> anyhow::Result<Duration> {
        let api = Api::new(&format!("http://{}", self.address), key);
        loop {
            self.check()?;
            let reply = api.try_get("/health/ready").await;
            if reply.is_ok_and(|reply| reply.status == 200) {
                return Ok(self.began.elapsed());
            }
            ensure!(
                self.began.elapsed() < START,
                "{} is not ready after {} s",
                self.role.name,
                START.as_secs()
            );
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// An error with its last words if it has ended.
    pub(super) fn check(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            Some(status) => Err(self.ended(status)),
            None => Ok(()),
        }
    }

    fn ended(&self, status: ExitStatus) -> anyhow::Error {
        let said = std::fs::read_to_string(&self.log).unwrap_or_else(|error| error.to_string());
        anyhow::anyhow!("{} ended with {status}:\n{said}", self.role.name)
    }

    /// Asks it to end.
    pub(super) fn terminate(&mut self) -> anyhow::Result<()> {
        self.check()?;
        Ok(kill_process(Pid::from_child(&self.child), Signal::TERM)?)
    }

    /// Waits for the end that it was asked for.
    pub(super) async fn end(&mut self) -> anyhow::Result<()> {
        let given_up = Instant::now() + STOP;
        while Instant::now() < given_up {
            match self.child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(self.ended(status)),
                None => tokio::time::sleep(LOOK_AGAIN).await,
            }
        }
        bail!("{} goes on {} s after SIGTERM", self.role.name, STOP.as_secs())
    }
}
