//! How much memory processes hold, as the operating system counts it: resident, in bytes.

use anyhow::Context;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often a [`Watch`] looks.
const INTERVAL: Duration = Duration::from_millis(100);

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

/// Looks at a process again and again, on a thread of its own.
#[derive(Debug)]
pub(crate) struct Watch {
    over: Arc<AtomicBool>,
    looking: JoinHandle<Vec<u64>>,
}

impl Watch {
    /// Begins now; a process that has ended is no longer looked at.
    pub(crate) fn start(process: u32) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&over);
        let looking = std::thread::spawn(move || {
            let mut seen = Vec::new();
            while let Ok(resident) = resident(process) {
                seen.push(resident);
                if told.load(Ordering::Relaxed) {
                    break;
                }
                std::thread::sleep(INTERVAL);
            }
            seen
        });
        Self { over, looking }
    }

    /// Ends it; what it saw, in order.
    pub(crate) fn end(self) -> Course {
        self.over.store(true, Ordering::Relaxed);
        Course(self.looking.join().expect("looking does not panic"))
    }
}

/// What a process held over a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Course(Vec<u64>);

impl Course {
    /// The most of the second half as a multiple of the most of the first: 1 where nothing grows.
    pub(crate) fn growth(&self) -> f64 {
        let (first, second) = self.0.split_at(self.0.len().div_ceil(2));
        let most = |half: &[u64]| half.iter().copied().max().map_or(f64::NAN, megabytes);
        most(second) / most(first)
    }
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
        let course = Watch::start(own).end();
        let least = course.0.into_iter().min().unwrap();
        assert!(least > 100_000 && least <= peak(own).unwrap());
    }

    #[test]
    fn growth_is_of_the_second_half_over_the_first() {
        assert!((Course(vec![1, 4, 2, 6, 3, 3]).growth() - 1.5).abs() < 1e-9);
        assert!((Course(vec![5, 4, 3]).growth() - 0.6).abs() < 1e-9);
        assert!(Course(vec![5]).growth().is_nan());
        assert!(Course(Vec::new()).growth().is_nan());
    }
}
