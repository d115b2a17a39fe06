//! How much memory processes hold, as the operating system counts it: resident, in bytes.

use anyhow::Context;

/// What a process holds now.
pub(crate) fn resident(process: u32) -> anyhow::Result<u64> {
    read(process, "VmRSS:")
}

/// The most that a process has held since it started.
pub(crate) fn peak(process: u32) -> anyhow::Result<u64> {
    read(process, "VmHWM:")
}

/// The most that processes have held together, if they did so at the same time.
pub(crate) fn peaks(processes: &[(&'static str, u32)]) -> anyhow::Result<u64> {
    processes.iter().map(|(_, process)| peak(*process)).sum()
}

fn read(process: u32, name: &str) -> anyhow::Result<u64> {
    let path = format!("/proc/{process}/status");
    let status = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    bytes(&status, name).with_context(|| format!("{path} without {name}"))
}

fn bytes(status: &str, name: &str) -> Option<u64> {
    let mut lines = status.lines();
    let value = lines.find_map(|line| line.strip_prefix(name))?;
    let kibibytes: u64 = value.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1024)
}

/// In the unit of the targets, 10⁶ bytes.
#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
pub(crate) fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_read_in_bytes() {
        let status = "Name:\tVmRSS: 5 kB\nVmHWM:\t    2048 kB\nVmRSS:\t    1000 kB\n";
        assert_eq!(bytes(status, "VmRSS:"), Some(1_024_000));
        assert_eq!(bytes(status, "VmHWM:"), Some(2_097_152));
        assert_eq!(bytes(status, "VmSwap:"), None);
    }

    #[test]
    fn this_process_is_seen() {
        let own = std::process::id();
        let now = resident(own).unwrap();
        assert!(now > 100_000 && now <= peak(own).unwrap());
    }
}
