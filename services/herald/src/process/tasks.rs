//! The long-lived tasks of a process.

use tokio::task::JoinSet;

/// Tasks that end when they are told to, and not before.
#[derive(Debug, Default)]
pub(crate) struct Tasks(pub(crate) JoinSet<&'static str>);

impl Tasks {
    /// Runs a task under a name.
    pub(crate) fn supervise(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.0.spawn(async move {
            task.await;
            name
        });
    }
}
