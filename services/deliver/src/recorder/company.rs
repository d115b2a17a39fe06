//! Batches of outcomes that come one by one.

use super::MAX_BATCH;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Makes batches of what comes within a short time.
#[derive(Debug)]
pub(super) struct Company<T> {
    coming: mpsc::UnboundedReceiver<T>,
    batch: Vec<T>,
    /// How long the first of a batch waits for others.
    wait: Duration,
    /// When the first of the present batch has waited that long.
    until: Instant,
}

impl<T> Company<T> {
    pub(super) fn new(coming: mpsc::UnboundedReceiver<T>, wait: Duration) -> Self {
        Self {
            coming,
            batch: Vec::new(),
            wait,
            until: Instant::now(),
        }
    }

    /// The next batch. It ends when its first has waited long enough, when it is full, or when nothing more will come;
    /// an empty batch is the last. Nothing is lost if this future is dropped before it is done.
    pub(super) async fn next(&mut self) -> Vec<T> {
        while self.batch.len() < MAX_BATCH {
            let room = MAX_BATCH - self.batch.len();
            let is_first = self.batch.is_empty();
            let read = tokio::select! {
                biased;
                read = self.coming.recv_many(&mut self.batch, room) => read,
                () = tokio::time::sleep_until(self.until), if !is_first => break,
            };
            if read == 0 {
                break;
            }
            if is_first {
                self.until = Instant::now() + self.wait;
            }
        }
        std::mem::take(&mut self.batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    const FOR_EVER: Duration = Duration::from_hours(1);

    #[tokio::test]
    async fn one_waits_for_others_until_the_batch_is_full() {
        let (sender, coming) = mpsc::unbounded_channel();
        let mut company = Company::new(coming, FOR_EVER);
        sender.send(0).unwrap();
        assert_eq!(company.next().now_or_never(), None);
        for n in 1..=MAX_BATCH {
            sender.send(n).unwrap();
        }
        let all: Vec<_> = (0..=MAX_BATCH).collect();
        assert_eq!(company.next().await, all[..MAX_BATCH]);
        assert_eq!(company.next().now_or_never(), None);
        drop(sender);
        assert_eq!(company.next().await, all[MAX_BATCH..]);
        assert!(company.next().await.is_empty());
    }

    #[tokio::test]
    async fn one_that_stays_alone_goes_when_it_has_waited() {
        let (sender, coming) = mpsc::unbounded_channel();
        let mut company = Company::new(coming, Duration::from_millis(1));
        sender.send(0).unwrap();
        assert_eq!(company.next().await, [0]);
    }
}
