//! What the operating system lets the process do.

use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit, umask};

/// How many files and connections the process may have open.
pub(crate) fn descriptors() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Takes as many descriptors as it may have, no more memory than it uses, and keeps what it writes to its
/// owner. To be called before there are threads that write files.
///
/// The usual soft limit of 1,024 descriptors is for programs that use select(2); connections to
/// subscribers alone may be more.
pub(crate) fn prepare() {
    // Signing keys and payloads are in the data folder, which somebody else may have made.
    umask(Mode::RWXG | Mode::RWXO);
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, ?limit, "the limit of descriptors could not be raised");
    }
    // The allocator asks for pages of 2 MiB, of which a process at rest uses a little each: 32 MB of 57.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!(%error, "huge pages stay on, and take more memory");
    }
}

/// Warns where the process may have fewer descriptors than it may come to need.
pub(crate) fn check_descriptors(needed: u64) {
    let limit = descriptors();
    if limit < needed {
        tracing::warn!(
            limit,
            needed,
            "the limit of open files is low: with many subscribers attempts may have to wait for descriptors. Raise \
             it (ulimit -n, LimitNOFILE= of a systemd unit, --ulimit nofile= of a container)"
        );
    }
}
