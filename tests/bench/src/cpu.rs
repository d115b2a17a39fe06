//! Processor time, as the operating system counts it.

use anyhow::{Context, ensure};
use std::collections::HashMap;
use std::time::Duration;

/// What the processes of a tree have taken since they started: the process, all below it that live, and
/// those that ended and were waited for.
pub(crate) fn of_tree(root: u32) -> anyhow::Result<Duration> {
    let entries = std::fs::read_dir("/proc").context("Linux's /proc")?;
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    // A process may end between being listed and being read; its parent has its time then.
    let all: HashMap<u32, Stat> = numbers
        .filter_map(|process| Some((process, Stat::of(process)?)))
        .collect();
    ensure!(all.contains_key(&root), "the process {root} has ended");
    let within = |process: &u32| {
        let mut above = Some(*process);
        while let Some(process) = above.filter(|process| *process != root) {
            above = all.get(&process).map(|stat| stat.parent);
        }
        above.is_some()
    };
    let tree = all.iter().filter(|(process, _)| within(process));
    Ok(ticks(tree.map(|(_, stat)| stat.own + stat.ended).sum()))
}

/// What this process has taken since it started, without its children.
pub(crate) fn of_this_process() -> anyhow::Result<Duration> {
    let stat = Stat::of(std::process::id()).context("Linux's /proc")?;
    Ok(ticks(stat.own))
}

fn ticks(count: u64) -> Duration {
    Duration::from_secs(count) / u32::try_from(rustix::param::clock_ticks_per_second()).expect("it is 100 on Linux")
}

/// A line of `/proc/PID/stat`.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    parent: u32,
    /// User and system time of its own.
    own: u64,
    /// The same of its children that ended and were waited for.
    ended: u64,
}

impl Stat {
    fn of(process: u32) -> Option<Self> {
        Self::read(&std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?)
    }

    fn read(line: &str) -> Option<Self> {
        // The name in parentheses may hold anything; after it come the state and the parent, and as the
        // twelfth to the fifteenth field utime, stime, cutime and cstime.
        let (_, fields) = line.rsplit_once(')')?;
        let mut fields = fields.split_whitespace();
        let parent = fields.nth(1)?.parse().ok()?;
        let mut times = fields.skip(9).map(|field| field.parse::<u64>().ok());
        let mut both = || Some(times.next()?? + times.next()??);
        Some(Self {
            parent,
            own: both()?,
            ended: both()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};
    use std::time::Instant;

    #[test]
    fn a_line_is_read_behind_whatever_name() {
        let line = "4 (a) b) S 1 4 4 0 -1 4194304 1 2 3 4 50 6 700 8 20 0 1 0 33 1000 200\n";
        let read = Stat {
            parent: 1,
            own: 56,
            ended: 708,
        };
        assert_eq!(Stat::read(line), Some(read));
    }

    #[test]
    fn a_tree_has_the_time_of_its_children_while_they_live_and_when_they_are_gone() {
        let busy = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done";
        // The inner shell works, ends and is waited for; the outer one says so and waits to be killed.
        let mut shell = Command::new("sh")
            .args(["-c", &format!("sh -c '{busy}; :'; echo; read line")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let some = Duration::from_millis(20);
        let taken = || of_tree(shell.id()).unwrap();
        let deadline = Instant::now() + Duration::from_mins(1);
        while taken() < some && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        let before = taken();
        assert!(before >= some);
        let mut said = String::new();
        BufReader::new(shell.stdout.take().unwrap())
            .read_line(&mut said)
            .unwrap();
        assert!(of_tree(shell.id()).unwrap() >= before);
        shell.kill().unwrap();
        shell.wait().unwrap();
        assert!(of_tree(shell.id()).is_err());
    }
}
