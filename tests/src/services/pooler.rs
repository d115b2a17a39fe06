//! A pooler of one's own, `PgBouncer`.

use super::find_program;
use super::postgres::another_user;
use super::program::Program;
use crate::PATIENCE;
use crate::binary::free_port;
use crate::sandbox::Sandbox;
use crate::wait::wait_for;
use std::net::TcpStream;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// A pooler in front of a database; dropping it kills it.
#[derive(Debug)]
pub struct PgBouncer {
    url: String,
    _program: Program,
    _sandbox: Sandbox,
}

impl PgBouncer {
    /// Starts one in that pool mode in front of the database at that URL, and waits until it serves.
    pub async fn start(database: &str, pool_mode: &str) -> Self {
        let sandbox = Sandbox::new("pgbouncer-");
        let home = sandbox.folder("home");
        let (_scheme, rest) = database.split_once("://").expect("a URL");
        let (user, place) = rest.split_once('@').expect("a URL with a user");
        let (server, name) = place.split_once('/').expect("a URL with a database");
        let (host, server_port) = server.split_once(':').expect("a URL with a port");
        let port = free_port();
        let settings = format!(
            "[databases]\n* = host={host} port={server_port}\n[pgbouncer]\nlisten_addr=127.0.0.1\nlisten_port={port}\n\
             unix_socket_dir=\nauth_type=trust\nauth_file={}\npool_mode={pool_mode}\n",
            home.join("users").display()
        );
        let written = [("settings", settings), ("users", format!("\"{user}\" \"\"\n"))];
        for (file, text) in written {
            std::fs::write(home.join(file), text).expect("a writable folder");
        }
        let mut command = Command::new(find_program("pgbouncer", &["/usr/sbin"]));
        if let Some((user, group)) = another_user() {
            for path in [home.clone(), home.join("settings"), home.join("users")] {
                chown(path, Some(user), Some(group)).expect("root may do that");
            }
            command.uid(user).gid(group);
        }
        command
            .arg("--quiet")
            .arg(home.join("settings"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut program = Program::start(&mut command);
        wait_for("PgBouncer serves", PATIENCE, async || {
            assert!(program.ended().is_none(), "PgBouncer ended at its start");
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        })
        .await;
        Self {
            url: format!("postgres://{user}@127.0.0.1:{port}/{name}"),
            _program: program,
            _sandbox: sandbox,
        }
    }

    /// The URL of the database through it.
    pub fn url(&self) -> &str {
        &self.url
    }
}
