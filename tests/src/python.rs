//! Programs from the Python package index, in environments that go with the test.

use crate::sandbox::Sandbox;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// A virtual environment with some packages in it, made once for all tests of this process.
#[derive(Debug)]
pub struct Environment {
    packages: &'static [&'static str],
    made: OnceLock<Sandbox>,
}

impl Environment {
    /// One with these packages, each as pip names it.
    pub const fn with(packages: &'static [&'static str]) -> Self {
        Self {
            packages,
            made: OnceLock::new(),
        }
    }

    /// The path of a program in it, such as `python`.
    pub fn program(&self, name: &str) -> PathBuf {
        let sandbox = self.made.get_or_init(|| self.make());
        sandbox.path().join("venv/bin").join(name)
    }

    fn make(&self) -> Sandbox {
        let sandbox = Sandbox::new("python-");
        let folder = sandbox.path().join("venv");
        run(Command::new("python3").args(["-m", "venv"]).arg(&folder));
        run(Command::new(folder.join("bin/python"))
            .args(["-m", "pip", "install", "--quiet"])
            .args(self.packages));
        sandbox
    }
}

fn run(command: &mut Command) {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}; tests/install installs it or says what to install"));
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
