//! The binary under test, as an operator would run it: started, killed, terminated, restarted.

mod builder;
mod process;

pub use builder::{Builder, Stack};
pub use process::{Role, Stderr};

use crate::api::{Api, Reply};
use crate::audit::Audit;
use crate::binary::{command, free_port};
use crate::metrics::Metrics;
use crate::sandbox::Sandbox;
use crate::services::Ground;
use crate::tls::install_crypto;
use crate::wait::{PATIENCE, wait_for};
use process::Process;
use rustix::process::Signal;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

/// SIGTERM ends within 20 s; a little more for the process to be seen as gone.
pub const TERMINATION: Duration = Duration::from_secs(21);

/// Where the ledger and the event queue are.
#[derive(Debug)]
enum Place {
    Folder(PathBuf),
    Servers { broker: String, database: String },
}

impl Place {
    fn servers(broker: &str, database: &str) -> Self {
        Self::Servers {
            broker: broker.to_owned(),
            database: database.to_owned(),
        }
    }

    fn arguments(&self) -> Vec<OsString> {
        match self {
            Self::Folder(data) => vec!["--data".into(), data.into()],
            Self::Servers { broker, database } => {
                vec!["--broker".into(), broker.into(), "--database".into(), database.into()]
            }
        }
    }
}

/// A running Herald, one process or several; dropping it kills it and checks its accounts.
///
/// What is said of "it" is meant of all its processes, where there are several.
#[derive(Debug)]
pub struct Herald {
    binary: PathBuf,
    operator_key: String,
    place: Place,
    processes: Vec<Process>,
    builder: Builder,
    sandbox: Sandbox,
    ground: Option<Ground>,
}

impl Herald {
    /// Starts the default: loopback subscribers allowed.
    pub async fn start() -> Self {
        Self::builder().start().await
    }

    /// A builder, for a Herald that differs from the usual one.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// What it runs on.
    pub fn stack(&self) -> Stack {
        self.builder.stack
    }

    /// A client with the operator's key, that finds for each request the process that serves it.
    pub fn api(&self) -> Api {
        let manage = self.serving(Role::Manage);
        Api::new(&manage.url(), &self.operator_key).with_events_at(&self.serving(Role::Ingest).url())
    }

    /// The broker's URL, where it has one.
    pub fn broker(&self) -> Option<&str> {
        match &self.place {
            Place::Folder(_) => None,
            Place::Servers { broker, .. } => Some(broker),
        }
    }

    pub fn operator_key(&self) -> &str {
        &self.operator_key
    }

    /// The port that takes events; the same after a restart.
    pub fn port(&self) -> u16 {
        self.serving(Role::Ingest).port
    }

    /// Its data folder, on the embedded stack.
    pub fn data(&self) -> &Path {
        match &self.place {
            Place::Folder(data) => data,
            Place::Servers { .. } => panic!("on servers there is no data folder; ask for Stack::Embedded"),
        }
    }

    /// The vhost and database that were taken for it from the shared servers.
    pub fn ground(&self) -> &Ground {
        self.ground.as_ref().expect("it is a cluster on the shared servers")
    }

    /// A folder that goes when it goes, outside the data folder.
    pub fn scratch(&self) -> &Path {
        self.sandbox.path()
    }

    /// Everything that it wrote on stderr, all starts together.
    pub fn stderr(&self) -> String {
        self.processes.iter().map(|process| process.output("stderr")).collect()
    }

    /// Everything that it wrote on stdout, all starts together.
    pub fn stdout(&self) -> String {
        self.processes.iter().map(|process| process.output("stdout")).collect()
    }

    /// The metrics, summed over all running processes.
    pub async fn metrics(&self) -> Metrics {
        let mut metrics = Metrics::default();
        for process in self.running() {
            let reply = Api::new(&process.url(), "").without_key().get("/metrics").await;
            metrics.add(&reply.expect(200));
        }
        metrics
    }

    /// Where each running process listens, as host and port.
    pub fn addresses(&self) -> Vec<String> {
        self.running()
            .map(|process| format!("127.0.0.1:{}", process.port))
            .collect()
    }

    /// What `herald audit` prints.
    pub fn audit(&self) -> Audit {
        Audit::run(&self.binary, &self.place.arguments(), None)
    }

    /// The account, asked for these `Id`s.
    pub fn audit_ids<'a>(&self, ids: impl IntoIterator<Item = &'a str>) -> Audit {
        let ids: Vec<_> = ids.into_iter().collect();
        let file = self.sandbox.file("ids", &(ids.join("\n") + "\n"));
        Audit::run(&self.binary, &self.place.arguments(), Some(&file))
    }

    /// Waits until nothing is on its way, and gives that account. Panics when nothing has moved for that long.
    pub async fn settled(&self, standstill: Duration) -> Audit {
        let mut last = self.audit();
        let mut moved = Instant::now();
        while !last.settled() {
            // An audit reads the whole ledger, which must not be in the way of what is waited for.
            tokio::time::sleep(Duration::from_millis(500)).await;
            let audit = self.audit();
            if audit.account != last.account {
                moved = Instant::now();
            }
            let stands = moved.elapsed();
            assert!(stands < standstill, "nothing moves for {stands:?}: {}", audit.output);
            last = audit;
        }
        last
    }

    /// SIGKILL, and waits for the end.
    pub async fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.wait_for_exit(PATIENCE).await;
    }

    /// SIGTERM, and gives the exit code: 0 if it is that of every process.
    pub async fn terminate(&mut self) -> Option<i32> {
        self.signal(Signal::TERM);
        self.wait_for_exit(TERMINATION).await.code()
    }

    pub fn signal(&self, signal: Signal) {
        self.running().for_each(|process| process.signal(signal));
    }

    /// Lets each process have no more than that many descriptors, until it is let have others.
    #[cfg(target_os = "linux")]
    pub fn limit_descriptors(&self, most: u64) {
        self.running().for_each(|process| process.limit_descriptors(most));
    }

    /// Lets no process have a file grow beyond that many bytes, until it is let again.
    #[cfg(target_os = "linux")]
    pub fn limit_file_size(&self, most: u64) {
        self.running().for_each(|process| process.limit_file_size(most));
    }

    /// Waits until some process says that it is not ready, because it finishes what it has begun.
    pub async fn draining(&self) {
        let client = client();
        wait_for("/health/ready is 503 while draining", PATIENCE, async || {
            for process in self.running() {
                let reply = Reply::of(client.get(format!("{}/health/ready", process.url()))).await;
                if reply.is_ok_and(|reply| reply.status == 503) {
                    return true;
                }
            }
            false
        })
        .await;
    }

    /// Waits for it to end by itself or by a signal sent before. Of several processes it gives the status
    /// of one that failed, if any did.
    pub async fn wait_for_exit(&mut self, within: Duration) -> ExitStatus {
        let mut worst = ExitStatus::default();
        for process in self.processes.iter_mut().filter(|process| process.is_running()) {
            let status = process.wait_for_exit(within).await;
            if worst.success() {
                worst = status;
            }
        }
        worst
    }

    /// Starts it again on the same ports and data, and waits until it is ready.
    pub async fn restart(&mut self) {
        assert!(self.running().next().is_none(), "it is still running");
        self.start_all().await;
    }

    /// SIGKILL for one process, and waits for its end.
    pub async fn kill_role(&mut self, role: Role, number: usize) {
        let process = self.process(role, number);
        process.signal(Signal::KILL);
        process.wait_for_exit(PATIENCE).await;
    }

    /// SIGTERM for one process; gives its exit code.
    pub async fn terminate_role(&mut self, role: Role, number: usize) -> Option<i32> {
        let process = self.process(role, number);
        process.signal(Signal::TERM);
        process.wait_for_exit(TERMINATION).await.code()
    }

    /// Stops one process, as a machine that hangs.
    pub fn freeze_role(&mut self, role: Role, number: usize) {
        self.process(role, number).signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn thaw_role(&mut self, role: Role, number: usize) {
        self.process(role, number).signal(Signal::CONT);
    }

    /// Starts one process again, and waits until all of Herald is ready.
    pub async fn restart_role(&mut self, role: Role, number: usize) {
        let process = self.process(role, number);
        assert!(!process.is_running(), "{} is still running", process.name());
        self.start_all().await;
    }

    /// Starts another build from now on.
    pub fn replace_binary(&mut self, binary: PathBuf) {
        self.binary = binary;
    }

    /// A command line of its binary, with an environment as clean as its own.
    pub fn command(&self) -> Command {
        command(&self.binary)
    }

    fn process(&mut self, role: Role, number: usize) -> &mut Process {
        let mut processes = self.processes.iter_mut();
        let found = processes.find(|process| process.role == role && process.number == number);
        found.unwrap_or_else(|| panic!("there is no {role:?} {number}"))
    }

    fn running(&self) -> impl Iterator<Item = &Process> {
        self.processes.iter().filter(|process| process.is_running())
    }

    /// The process that serves what is that role's.
    fn serving(&self, role: Role) -> &Process {
        let mut processes = self.processes.iter();
        let found = processes.find(|process| process.role == role || process.role == Role::Up);
        // A Herald without that role has no API of that kind, and any address shows it.
        found.unwrap_or(&self.processes[0])
    }

    /// Starts what is not running, and waits until all of it is ready.
    async fn start_all(&mut self) {
        let client = client();
        let commands: Vec<_> = self.processes.iter().map(|process| self.command_of(process)).collect();
        let mut started = Vec::new();
        for (position, command) in commands.into_iter().enumerate() {
            if !self.processes[position].is_running() {
                self.processes[position].spawn(command);
                started.push(position);
            }
        }
        for position in started {
            while !self.processes[position].ready(&client).await {
                let process = &mut self.processes[position];
                // The port is outside the range that the kernel gives away, so it is only ever ours.
                assert_eq!(process.starts, 1, "a port was taken between two starts");
                process.port = free_port();
                let command = self.command_of(&self.processes[position]);
                self.processes[position].starts = 0;
                self.processes[position].spawn(command);
            }
        }
    }

    fn command_of(&self, process: &Process) -> Command {
        let builder = &self.builder;
        let mut command = command(&self.binary);
        command.current_dir(self.sandbox.path()).arg(process.role.subcommand());
        let other = builder.brokers.iter().find(|(role, _)| *role == process.role);
        match (&self.place, other) {
            (Place::Servers { database, .. }, Some((_, broker))) => {
                command.args(Place::servers(broker, database).arguments());
            }
            _ => {
                command.args(self.place.arguments());
            }
        }
        command
            .args(["--listen", &format!("127.0.0.1:{}", process.port)])
            .envs(builder.environment.iter().map(|(name, value)| (name, value)));
        if builder.key_given {
            command.env("HERALD_OPERATOR_KEY", &self.operator_key);
        }
        if let Some(networks) = &builder.egress_allow {
            command.arg("--egress-allow").arg(networks);
        }
        command.args(&builder.arguments);
        command
    }
}

fn client() -> reqwest::Client {
    install_crypto();
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5));
    client.build().expect("a client")
}

impl Drop for Herald {
    fn drop(&mut self) {
        self.processes.iter_mut().for_each(Process::end);
        if std::thread::panicking() {
            #[expect(
                clippy::print_stderr,
                reason = "what the server said belongs into a failed test's output"
            )]
            {
                let (stdout, stderr) = (self.stdout(), self.stderr());
                eprintln!("--- herald's stdout\n{stdout}\n--- herald's stderr\n{stderr}");
            }
        } else if self.builder.audited {
            drop(self.audit().exact());
        }
        // Dropping a database takes a second, which the next test need not wait for.
        let ground = self.ground.take();
        std::thread::spawn(|| drop(ground));
    }
}
