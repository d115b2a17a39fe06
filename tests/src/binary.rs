//! Where the binary under test is, and a clean environment for it.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use uuid::Uuid;

/// Runs the binary to its end, without a server.
pub fn command(binary: &Path) -> Command {
    let mut command = Command::new(binary);
    command.env_clear().env("RUST_BACKTRACE", "1");
    for name in ["PATH", "HOME", "TMPDIR"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}

/// The binary under test.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("HERALD_BIN") {
        // Absolute, because it is started in other folders than this one.
        return std::path::absolute(path).expect("a working folder");
    }
    let own = std::env::current_exe().expect("the program's own path");
    // Commands are beside it, tests a folder deeper.
    let beside = own.ancestors().skip(1).take(2).map(|folder| folder.join("herald"));
    let release = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/herald");
    let found = beside.chain([release]).find(|path| path.is_file());
    found.expect("the binary: cargo build --release, or its path in HERALD_BIN")
}

/// A port that was free a moment ago. From below the range of ephemeral ports, so that no outgoing
/// connection and no other listener on port 0 takes it before Herald does, or while it is down.
pub fn free_port() -> u16 {
    loop {
        let (random, _) = Uuid::new_v4().as_u64_pair();
        let port = 10_000 + u16::try_from(random % 20_000).expect("less than 20,000");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
