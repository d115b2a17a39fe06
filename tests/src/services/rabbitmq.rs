//! A private RabbitMQ: one node, or three that are one cluster.

use super::management::Management;
use super::program::Program;
use super::{find_program, log_of, output_of};
use crate::binary::free_port;
use crate::sandbox::Sandbox;
use crate::tls::Authority;
use crate::wait::{PATIENCE, wait_until};
use rustix::process::Signal;
use std::fmt::Write as _;
use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// On Debian the `rabbitmq-server` in `PATH` is a wrapper that changes the user; the real one is here.
const FOLDERS: [&str; 3] = ["/usr/lib/rabbitmq/bin", "/opt/rabbitmq/sbin", "/usr/local/sbin"];
const EPMD_FOLDERS: [&str; 2] = ["/usr/lib/erlang/bin", "/usr/local/lib/erlang/bin"];

/// One node in a folder of its own, on loopback ports of its own; dropping it kills it.
#[derive(Debug)]
pub struct RabbitMq {
    name: String,
    ports: Ports,
    sandbox: Sandbox,
    server: Option<Program>,
    // Erlang's port mapper. Started here and not by the node, because that would make it a daemon.
    _epmd: Option<Program>,
    epmd_port: u16,
}

#[derive(Debug)]
struct Ports {
    amqp: u16,
    amqps: u16,
    management: u16,
    distribution: u16,
    tool: u16,
}

impl RabbitMq {
    /// Starts a node and waits until it serves.
    pub async fn start() -> Self {
        let mut node = Self::prepare("herald", None, "");
        node.restart().await;
        node
    }

    /// Starts a node that serves TLS as well, with a certificate of that authority.
    pub async fn start_tls(authority: &Authority) -> Self {
        let mut node = Self::prepare("herald", None, "");
        let folder = node.sandbox.path();
        let (certificate, key) = authority.write_server_pem(folder);
        let tls = format!(
            "listeners.ssl.1 = 127.0.0.1:{}\nssl_options.cacertfile = {}\nssl_options.certfile = {}\n\
             ssl_options.keyfile = {}\nssl_options.verify = verify_none\nssl_options.fail_if_no_peer_cert = false\n",
            node.ports.amqps,
            authority.write_pem(folder).display(),
            certificate.display(),
            key.display()
        );
        let path = folder.join("rabbitmq.conf");
        let configuration = std::fs::read_to_string(&path).expect("it was just written");
        node.sandbox.file("rabbitmq.conf", &(configuration + &tls));
        node.restart().await;
        node
    }

    /// Starts three nodes that are one cluster, and waits until all serve.
    pub async fn start_cluster() -> Vec<Self> {
        let names: Vec<_> = (1..=3).map(|number| format!("herald{number}")).collect();
        let mut formation = "cluster_formation.peer_discovery_backend = classic_config\n\
                             cluster_partition_handling = pause_minority\n"
            .to_owned();
        for (number, name) in (1..).zip(&names) {
            writeln!(
                formation,
                "cluster_formation.classic_config.nodes.{number} = {name}@localhost"
            )
            .expect("a String can be written to");
        }
        let mut nodes: Vec<Self> = Vec::new();
        for name in &names {
            let epmd_port = nodes.first().map(|node| node.epmd_port);
            let mut node = Self::prepare(name, epmd_port, &formation);
            node.spawn();
            nodes.push(node);
        }
        for node in &mut nodes {
            node.ready().await;
        }
        nodes
    }

    fn prepare(name: &str, epmd_port: Option<u16>, more: &str) -> Self {
        let sandbox = Sandbox::new("rabbitmq-");
        let ports = Ports {
            amqp: free_port(),
            amqps: free_port(),
            management: free_port(),
            distribution: free_port(),
            tool: free_port(),
        };
        // The same for all, so that the nodes of a cluster know each other; it only guards loopback.
        let cookie = sandbox.folder("home").join(".erlang.cookie");
        std::fs::write(&cookie, "heraldtests").expect("a writable folder");
        std::fs::set_permissions(&cookie, Permissions::from_mode(0o400)).expect("it is ours");
        for folder in ["data", "log", "generated"] {
            sandbox.folder(folder);
        }
        sandbox.file("enabled_plugins", "[rabbitmq_management].");
        sandbox.file(
            "rabbitmq.conf",
            &format!(
                "loopback_users.guest = true\nlog.file.level = info\nmanagement.tcp.ip = 127.0.0.1\n\
                 max_message_size = 16777216\nmanagement.tcp.port = {}\n{more}",
                ports.management
            ),
        );
        // Else a dead-letter worker that found no target at boot sleeps for three minutes.
        sandbox.file(
            "advanced.config",
            "[{rabbit,[{dead_letter_worker_publisher_confirm_timeout,5000}]}].",
        );
        let port = epmd_port.unwrap_or_else(free_port);
        let epmd = epmd_port.is_none().then(|| start_epmd(&sandbox, port));
        Self {
            name: name.to_owned(),
            ports,
            sandbox,
            server: None,
            _epmd: epmd,
            epmd_port: port,
        }
    }

    /// Its AMQP URL, vhost `/`.
    pub fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.ports.amqp)
    }

    /// Its URL with TLS; the certificate names `localhost` and the loopback address.
    pub fn tls_url(&self) -> String {
        format!("amqps://guest:guest@localhost:{}/%2f", self.ports.amqps)
    }

    /// The URL of its management API, with the user.
    pub fn api_url(&self) -> String {
        format!("http://guest:guest@127.0.0.1:{}", self.ports.management)
    }

    pub fn management(&self) -> Management {
        Management::new(&self.api_url())
    }

    /// The process that all others of it come from.
    pub fn process(&self) -> u32 {
        self.server.as_ref().expect("it is running").process()
    }

    /// SIGKILL for the whole node. Never within seconds of a declaration: a quorum queue younger than
    /// that may be dead afterwards.
    pub fn kill(&mut self) {
        self.server.take().expect("it is running").kill();
    }

    /// Stops it in order.
    pub async fn stop(&mut self) {
        let mut server = self.server.take().expect("it is running");
        server.signal(Signal::TERM);
        wait_until("RabbitMQ has stopped", PATIENCE, async || server.ended()).await;
    }

    /// Starts it on the same data and ports, and waits until it serves.
    pub async fn restart(&mut self) {
        self.spawn();
        self.ready().await;
    }

    /// Stops all its processes, as a machine that hangs.
    pub fn freeze(&self) {
        self.server.as_ref().expect("it is running").freeze();
    }

    /// Lets them go on.
    pub fn thaw(&self) {
        self.server.as_ref().expect("it is running").thaw();
    }

    /// Kills it, if it runs, and starts it with empty data, as after the loss of its disk.
    pub async fn wipe(&mut self) {
        if self.server.is_some() {
            self.kill();
        }
        let data = self.sandbox.path().join("data");
        std::fs::remove_dir_all(&data).expect("its data folder is there");
        self.sandbox.folder("data");
        self.restart().await;
    }

    /// Raises the memory alarm: publishers are blocked from now on.
    pub async fn raise_memory_alarm(&self) {
        self.set_watermark("0").await;
        self.wait_for_alarms(|alarms| alarms > 0).await;
    }

    /// Clears the memory alarm.
    pub async fn clear_memory_alarm(&self) {
        self.set_watermark("0.4").await;
        self.wait_for_alarms(|alarms| alarms == 0).await;
    }

    async fn set_watermark(&self, fraction: &str) {
        let mut command = self.command("rabbitmqctl");
        command
            .args(["set_vm_memory_high_watermark", fraction])
            .stdin(Stdio::null());
        let output = tokio::task::spawn_blocking(move || command.output());
        let output = output.await.expect("it does not panic").expect("rabbitmqctl is there");
        assert!(output.status.success(), "{}", output_of(&output));
    }

    async fn wait_for_alarms(&self, holds: impl Fn(usize) -> bool) {
        let management = self.management();
        wait_until("the memory alarm is as it should be", PATIENCE, async || {
            // The overview of nodes follows with a delay of seconds; the health check asks the node.
            let healthy = management.try_get("/health/checks/local-alarms").await;
            holds(usize::from(healthy.is_none())).then_some(())
        })
        .await;
    }

    fn spawn(&mut self) {
        assert!(self.server.is_none(), "it is still running");
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.output())
            .expect("a writable folder");
        let mut command = self.command("rabbitmq-server");
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file can be had twice"))
            .stderr(log);
        self.server = Some(Program::start(&mut command));
    }

    async fn ready(&mut self) {
        let (output, management, port) = (self.output(), self.management(), self.ports.amqp);
        let server = self.server.as_mut().expect("it was started");
        wait_until("RabbitMQ serves", 2 * PATIENCE, async || {
            if let Some(status) = server.ended() {
                panic!("RabbitMQ ended with {status} at its start:\n{}", log_of(&output));
            }
            greets(port).await.then_some(())?;
            management.try_get("/overview").await
        })
        .await;
    }

    fn output(&self) -> PathBuf {
        self.sandbox.path().join("log/output")
    }

    /// A program of RabbitMQ's, for this node and nothing of the machine's own.
    fn command(&self, program: &str) -> Command {
        let folder = self.sandbox.path();
        let mut command = clean_command(&find_program(program, &FOLDERS), folder);
        for (name, path) in [
            ("MNESIA_BASE", "data"),
            ("MNESIA_DIR", "data/node"),
            ("FEATURE_FLAGS_FILE", "data/feature_flags"),
            ("LOG_BASE", "log"),
            ("GENERATED_CONFIG_DIR", "generated"),
            ("PID_FILE", "pid"),
            ("ENABLED_PLUGINS_FILE", "enabled_plugins"),
            ("CONFIG_FILE", "rabbitmq.conf"),
            ("ADVANCED_CONFIG_FILE", "advanced.config"),
        ] {
            command.env(format!("RABBITMQ_{name}"), folder.join(path));
        }
        command
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
            .env("RABBITMQ_NODENAME", format!("{}@localhost", self.name))
            .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODE_PORT", self.ports.amqp.to_string())
            .env("RABBITMQ_DIST_PORT", self.ports.distribution.to_string())
            .env("RABBITMQ_CTL_DIST_PORT_MIN", self.ports.tool.to_string())
            .env("RABBITMQ_CTL_DIST_PORT_MAX", self.ports.tool.to_string())
            .env("ERL_EPMD_PORT", self.epmd_port.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            // Else the distribution listens on every address of the machine.
            .env(
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                "-kernel inet_dist_use_interface {127,0,0,1}",
            );
        command
    }
}

fn start_epmd(sandbox: &Sandbox, port: u16) -> Program {
    let mut command = clean_command(&find_program("epmd", &EPMD_FOLDERS), sandbox.path());
    command
        .args(["-port", &port.to_string(), "-address", "127.0.0.1"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    Program::start(&mut command)
}

fn clean_command(program: &Path, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", folder.join("home"))
        .env("LANG", "C.UTF-8")
        .current_dir(folder);
    command
}

/// Whether somebody at that port answers AMQP's greeting with Connection.Start.
async fn greets(port: u16) -> bool {
    let greeting = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(b"AMQP\0\0\x09\x01").await?;
        let mut start = [0; 11];
        stream.read_exact(&mut start).await?;
        Ok::<_, std::io::Error>(start)
    };
    let start = tokio::time::timeout(Duration::from_secs(2), greeting).await;
    // A method frame on channel 0: type, channel, length, then class 10 and method 10.
    matches!(start, Ok(Ok([1, 0, 0, _, _, _, _, 0, 10, 0, 10])))
}
