//! The binary under test, as an operator would run it: started, killed, terminated, restarted.

use crate::api::Api;
use crate::audit::Audit;
use crate::binary::{binary, command, free_port};
use crate::wait::{PATIENCE, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use uuid::Uuid;

/// SIGTERM ends within 20 s; a little more for the process to be seen as gone.
pub const TERMINATION: Duration = Duration::from_secs(21);

/// What Herald runs on. A second stack is a second variant: [`Stack::arguments`] and, where roles are
/// separate processes, [`Builder::start`] are what it changes; the scenarios stay as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stack {
    /// One process on one SQLite file.
    #[default]
    Embedded,
}

impl Stack {
    fn arguments(self, data: &Path) -> Vec<OsString> {
        match self {
            Self::Embedded => vec!["up".into(), "--data".into(), data.into()],
        }
    }
}

/// How to start one.
#[derive(Debug)]
pub struct Builder {
    stack: Stack,
    egress_allow: Option<String>,
    arguments: Vec<OsString>,
    environment: Vec<(String, OsString)>,
    key_given: bool,
    audited: bool,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            stack: Stack::default(),
            egress_allow: Some("127.0.0.0/8".to_owned()),
            arguments: Vec::new(),
            environment: Vec::new(),
            key_given: true,
            audited: true,
        }
    }
}

impl Builder {
    /// On another stack.
    #[must_use]
    pub fn stack(self, stack: Stack) -> Self {
        Self { stack, ..self }
    }

    /// Only public addresses may be sent to, as an operator has it who says nothing.
    #[must_use]
    pub fn public_only(self) -> Self {
        Self {
            egress_allow: None,
            ..self
        }
    }

    /// One more argument.
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

    /// Without the audit at the end, for tests that destroy the ledger.
    #[must_use]
    pub fn unaudited(self) -> Self {
        Self { audited: false, ..self }
    }

    /// Starts it on a free port and a fresh data folder, and waits until it is ready.
    pub async fn start(self) -> Herald {
        let folder = tempfile::Builder::new()
            .prefix("herald-test-")
            .tempdir()
            .expect("a temporary folder");
        let mut herald = Herald {
            binary: binary(),
            operator_key: format!("test-{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple()),
            data: folder.path().join("data"),
            folder,
            port: free_port(),
            builder: self,
            child: None,
            starts: 0,
        };
        while !herald.try_start().await {
            herald.port = free_port();
        }
        herald
    }
}

/// A running Herald; dropping it kills it and checks its accounts.
#[derive(Debug)]
pub struct Herald {
    binary: PathBuf,
    operator_key: String,
    folder: TempDir,
    data: PathBuf,
    port: u16,
    builder: Builder,
    child: Option<Child>,
    starts: usize,
}

impl Herald {
    /// Starts the default: loopback subscribers allowed.
    pub async fn start() -> Self {
        Self::builder().start().await
    }

    /// Starts something else.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// A client with the operator's key.
    pub fn api(&self) -> Api {
        Api::new(&format!("http://127.0.0.1:{}", self.port), &self.operator_key)
    }

    /// The operator's key.
    pub fn operator_key(&self) -> &str {
        &self.operator_key
    }

    /// The port that it listens on; the same after a restart.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its data folder.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// A folder that goes when it goes, outside the data folder.
    pub fn scratch(&self) -> &Path {
        self.folder.path()
    }

    /// Everything that it wrote on stderr, all starts together.
    pub fn stderr(&self) -> String {
        self.output("stderr")
    }

    /// Everything that it wrote on stdout, all starts together.
    pub fn stdout(&self) -> String {
        self.output("stdout")
    }

    /// The processor time that it has taken since its start, to the hundredth of a second.
    pub fn cpu_time(&self) -> Duration {
        let child = self.child.as_ref().expect("it is running");
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).expect("Linux");
        // After the name in parentheses come state and ten more; then user and system time, in ticks of 10 ms.
        let (_, fields) = stat.rsplit_once(')').expect("a name");
        let ticks = fields
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(|field| field.parse::<u64>().expect("a number"));
        Duration::from_millis(ticks.sum::<u64>() * 10)
    }

    /// The account of its data folder.
    pub fn audit(&self) -> Audit {
        Audit::run(&self.binary, &self.data, None)
    }

    /// The account, asked for these `Id`s.
    pub fn audit_ids<'a>(&self, ids: impl IntoIterator<Item = &'a str>) -> Audit {
        let file = self.folder.path().join("ids");
        let ids: Vec<_> = ids.into_iter().collect();
        std::fs::write(&file, ids.join("\n") + "\n").expect("a writable folder");
        Audit::run(&self.binary, &self.data, Some(&file))
    }

    /// Waits until nothing is on its way, and gives that account.
    pub async fn settled(&self, within: Duration) -> Audit {
        wait_until("nothing in transit and nothing open", within, async || {
            Some(self.audit()).filter(Audit::settled)
        })
        .await
    }

    /// SIGKILL, and waits for the end.
    pub async fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.wait_for_exit(PATIENCE).await;
    }

    /// SIGTERM, and gives the exit code.
    pub async fn terminate(&mut self) -> Option<i32> {
        self.signal(Signal::TERM);
        self.wait_for_exit(TERMINATION).await.code()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("it is running");
        // The process is our child and was not waited for, so its id cannot be somebody else's.
        kill_process(Pid::from_child(child), signal).expect("a child can be signalled");
    }

    /// Waits for the process to end by itself or by a signal sent before.
    pub async fn wait_for_exit(&mut self, within: Duration) -> ExitStatus {
        let child = self.child.as_mut().expect("it is running");
        let status = wait_until("the process has ended", within, async || {
            child.try_wait().expect("a child can be waited for")
        });
        let status = status.await;
        self.child = None;
        status
    }

    /// Starts it again on the same port and data folder, and waits until it is ready.
    pub async fn restart(&mut self) {
        assert!(self.child.is_none(), "it is still running");
        // The port is outside the range that the kernel gives away, so it is only ever ours.
        assert!(
            self.try_start().await,
            "port {} was taken between two starts:\n{}",
            self.port,
            self.stderr()
        );
    }

    /// A command line of its binary, with an environment as clean as its own.
    pub fn command(&self) -> Command {
        command(&self.binary)
    }

    /// False if the port was taken by somebody else.
    async fn try_start(&mut self) -> bool {
        self.starts += 1;
        let mut command = command(&self.binary);
        command
            .args(self.builder.stack.arguments(&self.data))
            .arg("--listen")
            .arg(format!("127.0.0.1:{}", self.port))
            .envs(self.builder.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(self.log("stdout"))
            .stderr(self.log("stderr"));
        if self.builder.key_given {
            command.env("HERALD_OPERATOR_KEY", &self.operator_key);
        }
        if let Some(networks) = &self.builder.egress_allow {
            command.arg("--egress-allow").arg(networks);
        }
        command.args(&self.builder.arguments);
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", self.binary.display()));
        self.child = Some(child);
        let api = self.api();
        let ended = wait_until("/health/ready answers 200", PATIENCE, async || {
            if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten()) {
                return Some(Some(status));
            }
            let reply = api.try_get("/health/ready").await.ok()?;
            (reply.status == 200).then_some(None)
        });
        let Some(status) = ended.await else {
            return true;
        };
        self.child = None;
        let stderr = self.stderr();
        assert!(
            stderr.to_lowercase().contains("address already in use"),
            "it ended with {status} at its start:\n{stderr}"
        );
        false
    }

    fn log(&self, stream: &str) -> File {
        let path = self.folder.path().join(format!("{stream}.{}", self.starts));
        File::create(path).expect("a writable folder")
    }

    fn output(&self, stream: &str) -> String {
        let logs = (1..=self.starts).map(|start| self.folder.path().join(format!("{stream}.{start}")));
        logs.filter_map(|path| std::fs::read(path).ok())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .collect()
    }
}

impl Drop for Herald {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("a child can be killed");
            child.wait().expect("a child can be waited for");
        }
        if std::thread::panicking() {
            #[expect(
                clippy::print_stderr,
                reason = "what the server said belongs into a failed test's output"
            )]
            {
                eprintln!(
                    "--- herald's stdout\n{}\n--- herald's stderr\n{}",
                    self.stdout(),
                    self.stderr()
                );
            }
        } else if self.builder.audited {
            drop(self.audit().exact());
        }
    }
}
