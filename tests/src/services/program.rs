//! A server and all the processes that it started, as one thing that can be killed or frozen.

use rustix::process::{Pid, Signal, kill_process};
use std::collections::HashMap;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};

/// A started server; dropping it kills all of it.
#[derive(Debug)]
pub(super) struct Program {
    child: Child,
}

impl Program {
    /// Starts it, in a process group of its own, so that Ctrl-C on the terminal reaches the test alone.
    pub(super) fn start(command: &mut Command) -> Self {
        let child = command
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", command.get_program().display()));
        Self { child }
    }

    /// The id of the first process.
    pub(super) fn process(&self) -> u32 {
        self.child.id()
    }

    /// Its exit status, if it has ended.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// Sends a signal to the first process, which was not waited for, so that its id is still its own.
    pub(super) fn signal(&self, signal: Signal) {
        send(Pid::from_child(&self.child), signal);
    }

    /// SIGKILL for all of it at once.
    pub(super) fn kill(&mut self) {
        if self.ended().is_none() {
            // Stopped first: what cannot run starts nothing while its children are counted.
            self.signal_all(Signal::STOP);
            self.signal_all(Signal::KILL);
            self.child.wait().expect("a child can be waited for");
        }
    }

    /// Stops all of it, as a machine that hangs.
    pub(super) fn freeze(&self) {
        self.signal_all(Signal::STOP);
    }

    /// Lets it go on.
    pub(super) fn thaw(&self) {
        self.signal_all(Signal::CONT);
    }

    fn signal_all(&self, signal: Signal) {
        for process in self.tree() {
            send(process, signal);
        }
    }

    /// The first process and all below it, parents first.
    fn tree(&self) -> Vec<Pid> {
        let mut children = HashMap::<Pid, Vec<Pid>>::new();
        for (process, parent) in processes() {
            children.entry(parent).or_default().push(process);
        }
        let mut tree = vec![Pid::from_child(&self.child)];
        let mut next = 0;
        while let Some(process) = tree.get(next) {
            tree.extend(children.remove(process).unwrap_or_default());
            next += 1;
        }
        tree
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}

fn send(process: Pid, signal: Signal) {
    match kill_process(process, signal) {
        // A process may end between being seen and being signalled.
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => panic!("{signal:?} to {process:?}: {error}"),
    }
}

/// Every process and its parent.
fn processes() -> Vec<(Pid, Pid)> {
    let entries = std::fs::read_dir("/proc").expect("Linux");
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    numbers.filter_map(with_parent).collect()
}

fn with_parent(process: i32) -> Option<(Pid, Pid)> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // After the name in parentheses, which may hold anything, come the state and the parent.
    let (_, fields) = stat.rsplit_once(')')?;
    let parent = fields.split_whitespace().nth(1)?.parse().ok()?;
    Some((Pid::from_raw(process)?, Pid::from_raw(parent)?))
}
