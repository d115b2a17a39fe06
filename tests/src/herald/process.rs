//! One process of Herald.

use crate::api::Reply;
use crate::wait::{PATIENCE, wait_until};
use rustix::process::{Pid, Signal, kill_process};
#[cfg(target_os = "linux")]
use rustix::process::{Resource, Rlimit, getrlimit, prlimit};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// What a process does, by the subcommand of that name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Up,
    Ingest,
    Worker,
    Dispatch,
    Deliver,
    /// Serves the rest of the API.
    Manage,
}

impl Role {
    pub(super) fn subcommand(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Ingest => "ingest",
            Self::Worker => "worker",
            Self::Dispatch => "dispatch",
            Self::Deliver => "deliver",
            Self::Manage => "manage",
        }
    }
}

/// Where a process's stderr goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Stderr {
    /// Into a file, see [`Herald::stderr`](super::Herald::stderr).
    #[default]
    File,
    /// Into a pipe that nobody reads.
    Unread,
    /// Where nothing can be written, because there is no room.
    Full,
}

/// A process that is running, or was and may again, on the same port.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) role: Role,
    /// Which of those with this role, from 0.
    pub(super) number: usize,
    pub(super) port: u16,
    pub(super) starts: usize,
    stderr: Stderr,
    folder: PathBuf,
    child: Option<Child>,
}

impl Process {
    pub(super) fn new(role: Role, number: usize, port: u16, stderr: Stderr, folder: &Path) -> Self {
        Self {
            role,
            number,
            port,
            starts: 0,
            stderr,
            folder: folder.to_owned(),
            child: None,
        }
    }

    pub(super) fn name(&self) -> String {
        format!("{} {}", self.role.subcommand(), self.number)
    }

    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(super) fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// Starts it and does not wait.
    pub(super) fn spawn(&mut self, mut command: Command) {
        assert!(self.child.is_none(), "{} is still running", self.name());
        self.starts += 1;
        let child = command
            .stdin(Stdio::null())
            .stdout(self.log("stdout"))
            .stderr(match self.stderr {
                Stderr::File => self.log("stderr").into(),
                // The child's end stays with the child, and is never read.
                Stderr::Unread => Stdio::piped(),
                Stderr::Full => File::create("/dev/full").expect("Linux").into(),
            })
            .spawn();
        self.child = Some(child.unwrap_or_else(|error| panic!("{}: {error}", command.get_program().display())));
    }

    /// Waits until it is ready; false if its port was taken by somebody else.
    pub(super) async fn ready(&mut self, client: &reqwest::Client) -> bool {
        let url = format!("{}/health/ready", self.url());
        let what = format!("/health/ready of {} answers 200", self.name());
        let ended = wait_until(&what, PATIENCE, async || {
            if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten()) {
                return Some(Some(status));
            }
            let reply = Reply::of(client.get(&url)).await.ok()?;
            (reply.status == 200).then_some(None)
        });
        let Some(status) = ended.await else {
            return true;
        };
        self.child = None;
        let stderr = self.output("stderr");
        assert!(
            stderr.to_lowercase().contains("address already in use"),
            "{} ended with {status} at its start:\n{stderr}",
            self.name()
        );
        false
    }

    pub(super) fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("it is running");
        // The process is our child and was not waited for, so its id cannot be somebody else's.
        kill_process(Pid::from_child(child), signal).expect("a child can be signalled");
    }

    /// Lets it have no more than that many descriptors, until it is let have others.
    #[cfg(target_os = "linux")]
    pub(super) fn limit_descriptors(&self, most: u64) {
        self.limit(Resource::Nofile, most);
    }

    /// Lets it have no file grow beyond that many bytes, until it is let again.
    #[cfg(target_os = "linux")]
    pub(super) fn limit_file_size(&self, most: u64) {
        self.limit(Resource::Fsize, most);
    }

    #[cfg(target_os = "linux")]
    fn limit(&self, resource: Resource, most: u64) {
        let child = self.child.as_ref().expect("it is running");
        let limit = Rlimit {
            current: Some(most),
            maximum: getrlimit(resource).maximum,
        };
        prlimit(Some(Pid::from_child(child)), resource, limit).expect("a child can be limited");
    }

    /// Waits for its end, by itself or by a signal sent before.
    pub(super) async fn wait_for_exit(&mut self, within: Duration) -> ExitStatus {
        let what = format!("{} has ended", self.name());
        let child = self.child.as_mut().expect("it is running");
        let status = wait_until(&what, within, async || {
            child.try_wait().expect("a child can be waited for")
        });
        let status = status.await;
        self.child = None;
        status
    }

    /// SIGKILL, without a runtime to wait with.
    pub(super) fn end(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("a child can be killed");
            child.wait().expect("a child can be waited for");
        }
    }
    /// All that it wrote, all starts together.
    pub(super) fn output(&self, stream: &str) -> String {
        let logs = (1..=self.starts).map(|start| self.log_path(stream, start));
        logs.filter_map(|path| std::fs::read(path).ok())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .collect()
    }

    fn log(&self, stream: &str) -> File {
        File::create(self.log_path(stream, self.starts)).expect("a writable folder")
    }

    fn log_path(&self, stream: &str, start: usize) -> PathBuf {
        let (role, number) = (self.role.subcommand(), self.number);
        self.folder.join(format!("{role}{number}.{stream}.{start}"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}
