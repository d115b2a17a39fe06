//! `herald audit`: the account, and what the exit code says of it.

use serde_json::Value;
use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

/// What one audit said.
#[derive(Debug)]
pub struct Audit {
    /// 0 exact, 1 differs, 2 could not run; nothing if a signal ended it.
    pub exit_code: Option<i32>,
    /// The account; null where stdout was not JSON.
    pub account: Value,
    /// All that it wrote, for messages.
    pub output: String,
}

impl Audit {
    /// Runs it where those arguments say, beside a running instance or on a stopped one.
    pub fn run(binary: &Path, place: &[OsString], ids: Option<&Path>) -> Self {
        let mut command = Command::new(binary);
        command.arg("audit").args(place);
        if let Some(ids) = ids {
            command.arg("--ids").arg(ids);
        }
        let output = command
            .env_remove("RUST_LOG")
            .output()
            .expect("the binary can be started");
        let stdout = String::from_utf8_lossy(&output.stdout);
        Self {
            exit_code: output.status.code(),
            account: serde_json::from_str(&stdout).unwrap_or_default(),
            output: format!("stdout: {stdout}\nstderr: {}", String::from_utf8_lossy(&output.stderr)),
        }
    }

    /// Panics unless the account is exact.
    #[must_use]
    pub fn exact(self) -> Self {
        assert_eq!(self.exit_code, Some(0), "the audit is not exact: {}", self.output);
        assert_eq!(self.account["Differences"], serde_json::json!([]), "{}", self.output);
        self
    }

    /// A number of the account, such as `Events`.
    pub fn count(&self, name: &str) -> u64 {
        self.account[name]
            .as_u64()
            .unwrap_or_else(|| panic!("the audit has no {name}: {}", self.output))
    }

    /// How many deliveries have that status.
    pub fn deliveries(&self, status: &str) -> u64 {
        self.account["Deliveries"][status]
            .as_u64()
            .unwrap_or_else(|| panic!("the audit has no Deliveries.{status}: {}", self.output))
    }

    /// Whether nothing is on its way: nothing in the queue, no delivery open or held.
    pub fn settled(&self) -> bool {
        self.count("InTransit") == 0 && self.deliveries("Open") == 0 && self.deliveries("Held") == 0
    }
}
