//! A private PostgreSQL.

use super::program::Program;
use super::{find_program, log_of, output_of};
use crate::binary::free_port;
use crate::sandbox::Sandbox;
use crate::wait::{PATIENCE, wait_until};
use rustix::process::Signal;
use std::fs::File;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// One server in a folder of its own, on a loopback port of its own; dropping it kills it.
#[derive(Debug)]
pub struct Postgres {
    port: u16,
    sandbox: Sandbox,
    server: Option<Program>,
    fsync: &'static str,
}

impl Postgres {
    /// Makes a cluster of databases, starts it and waits until it serves.
    pub async fn start() -> Self {
        Self::make("on").await
    }

    /// [`Self::start`], where what is committed need not outlive the machine, only every process. What is
    /// measured is measured with [`Self::start`].
    pub async fn start_volatile() -> Self {
        Self::make("off").await
    }

    async fn make(fsync: &'static str) -> Self {
        let sandbox = Sandbox::new("postgres-");
        let home = sandbox.folder("home");
        if let Some((user, group)) = another_user() {
            chown(&home, Some(user), Some(group)).expect("root may do that");
        }
        let mut initialise = command("initdb", &home);
        initialise
            .args(["--username=herald", "--auth=trust", "--encoding=UTF8", "--no-locale"])
            .args(["--no-sync", "--pgdata"])
            .arg(home.join("data"));
        let output = initialise.output().expect("initdb can be started");
        assert!(output.status.success(), "initdb: {}", output_of(&output));
        let mut server = Self {
            port: free_port(),
            sandbox,
            server: None,
            fsync,
        };
        server.restart().await;
        server
    }

    /// The URL of its database `postgres`, as a superuser.
    pub fn url(&self) -> String {
        format!("postgres://herald@127.0.0.1:{}/postgres", self.port)
    }

    /// The process that all others of it come from.
    pub fn process(&self) -> u32 {
        self.server.as_ref().expect("it is running").process()
    }

    /// SIGKILL for the whole server.
    pub fn kill(&mut self) {
        self.server.take().expect("it is running").kill();
    }

    /// Stops it in order, ending its connections.
    pub async fn stop(&mut self) {
        let mut server = self.server.take().expect("it is running");
        server.signal(Signal::INT);
        wait_until("PostgreSQL has stopped", PATIENCE, async || server.ended()).await;
    }

    /// Stops all its processes, as a machine that hangs.
    pub fn freeze(&self) {
        self.server.as_ref().expect("it is running").freeze();
    }

    /// Lets them go on.
    pub fn thaw(&self) {
        self.server.as_ref().expect("it is running").thaw();
    }

    /// Starts it on the same data and port, and waits until it serves.
    pub async fn restart(&mut self) {
        assert!(self.server.is_none(), "it is still running");
        let (home, output) = (self.sandbox.path().join("home"), self.sandbox.path().join("output"));
        let log = File::options()
            .create(true)
            .append(true)
            .open(&output)
            .expect("a writable folder");
        let mut command = command("postgres", &home);
        command
            .arg("-D")
            .arg(home.join("data"))
            .args(["-p", &self.port.to_string()])
            // No Unix socket: its path would have to be short, and nobody needs it.
            .args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="])
            .args(["-c", "max_connections=300", "-c"])
            .arg(format!("fsync={}", self.fsync))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file can be had twice"))
            .stderr(log);
        let mut server = Program::start(&mut command);
        let url = self.url();
        wait_until("PostgreSQL serves", PATIENCE, async || {
            if let Some(status) = server.ended() {
                panic!("PostgreSQL ended with {status} at its start:\n{}", log_of(&output));
            }
            try_query(&url, "SELECT 1").ok()
        })
        .await;
        self.server = Some(server);
    }
}

/// Runs SQL through `psql`, and gives what it printed: rows by line, columns by `|`.
pub fn query(url: &str, sql: &str) -> String {
    try_query(url, sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
}

/// [`query`], where the server may be away.
pub fn try_query(url: &str, sql: &str) -> Result<String, String> {
    let output = Command::new(find("psql"))
        .args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align"])
        .args(["--set=ON_ERROR_STOP=1", "--dbname", url, "--command", sql])
        .env("PGCONNECT_TIMEOUT", "5")
        .stdin(Stdio::null())
        .output()
        .expect("psql can be started");
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    } else {
        Err(output_of(&output))
    }
}

/// Writes all of a database, as it is at one moment, into a file.
pub fn dump(url: &str, file: &Path) {
    let mut dump = Command::new(find("pg_dump"));
    dump.args(["--no-owner", "--dbname", url, "--file"]).arg(file);
    succeed(&mut dump);
}

/// Fills an empty database with what [`dump`] wrote.
pub fn restore(url: &str, file: &Path) {
    let mut psql = Command::new(find("psql"));
    psql.args([
        "--no-psqlrc",
        "--quiet",
        "--set=ON_ERROR_STOP=1",
        "--dbname",
        url,
        "--file",
    ])
    .arg(file);
    succeed(&mut psql);
}

fn succeed(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().expect("it can be started");
    assert!(output.status.success(), "{command:?}: {}", output_of(&output));
}

/// A program of PostgreSQL's, working in `home` as a user that it agrees to work for.
fn command(program: &str, home: &Path) -> Command {
    let mut command = Command::new(find(program));
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("LANG", "C.UTF-8")
        .current_dir(home);
    if let Some((user, group)) = another_user() {
        command.uid(user).gid(group);
    }
    command
}

fn find(program: &str) -> PathBuf {
    // Debian keeps the servers outside of PATH, a folder for each version; the newest will do.
    let folders = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let mut versions: Vec<_> = folders
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .collect();
    versions.sort_unstable_by(|one, other| other.cmp(one));
    let folders: Vec<_> = versions
        .iter()
        .map(|version| format!("/usr/lib/postgresql/{version}/bin"))
        .collect();
    let folders: Vec<_> = folders.iter().map(String::as_str).collect();
    find_program(program, &folders)
}

/// Whom to work as instead of root, for whom PostgreSQL does not start.
pub(super) fn another_user() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").expect("the list of users");
    let named = |name: &str| {
        let mut fields = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let fields = fields.find(|fields| fields.first() == Some(&name))?;
        Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?))
    };
    let found = named("postgres").or_else(|| named("nobody"));
    Some(found.expect("a user postgres or nobody, because PostgreSQL does not start as root"))
}
