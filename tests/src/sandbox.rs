//! A temporary folder that takes its processes with it.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const SWEEP: &str = include_str!("../sweep");

/// A temporary folder. When it is dropped, or the test process ends in whatever way, SIGKILL included,
/// every process that works in it is killed and the folder removed.
///
/// A shell waits for the end of a pipe that only this process holds: that end comes by itself.
#[derive(Debug)]
pub struct Sandbox {
    path: PathBuf,
    guardian: Child,
}

impl Sandbox {
    /// Makes one below the temporary folder of the environment.
    pub fn new(prefix: &str) -> Self {
        let path = tempfile::Builder::new()
            .prefix(prefix)
            .tempdir()
            .expect("a temporary folder")
            .keep();
        // As the kernel will show it.
        let path = path.canonicalize().expect("it was just made");
        // A server that runs as another user must get through to its own folder, and see nothing else.
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o711)).expect("it is ours");
        let guardian = Command::new("sh")
            .args(["-c", &format!("cat >/dev/null\n{SWEEP}"), "sweep"])
            .arg(&path)
            .current_dir("/")
            // Not in the terminal's group, so that Ctrl-C ends the tests and leaves it its work.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh is everywhere");
        Self { path, guardian }
    }

    /// The path of the folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A folder inside, made now.
    pub fn folder(&self, name: &str) -> PathBuf {
        let folder = self.path.join(name);
        std::fs::create_dir_all(&folder).expect("a writable folder");
        folder
    }

    /// A file inside, written now.
    pub fn file(&self, name: &str, content: &str) -> PathBuf {
        let file = self.path.join(name);
        std::fs::write(&file, content).expect("a writable folder");
        file
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        drop(self.guardian.stdin.take());
        self.guardian.wait().expect("a child can be waited for");
    }
}
