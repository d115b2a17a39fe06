//! The keeper of the leases: this process's share of the shards of a ledger that several processes share.
//!
//! ```text
//!  every 5 s   renew ─▶ which shards are still ours, and how many we are
//!  every 1 s   look whether any is free: below the share, take them; else count again who we are
//!              above the share: tell the worker, then release the surplus
//!  at the end  tell the worker, release all at once, leave
//! ```
//! To give a shard back, the keeper first publishes [`ShardLeases`] without it. Then it asks the worker which of its
//! deliveries are in flight, and until when. The worker follows the change before it answers, so no attempt begins any
//! more. Only then is the shard released in the ledger.

use crate::fair_share::{Change, change, share, to_give};
use crate::metrics::{Metrics, ShardMove};
use herald_domain::id::{SHARDS, Shard};
use herald_domain::worker::{Busy, Uptime};
use herald_ledger::shards::{Look, Renewal, ShardLeases, Taken, uptime};
use herald_ledger::{Error, Ledger};
use herald_telemetry::health::Health;
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How long a lease holds. Others take over from a dead process after that.
const LEASE: Duration = Duration::from_secs(15);

/// How often the lease is renewed. Two renewals may fail, and one may hang, before the lease is over.
const RENEW_EVERY: Duration = Duration::from_secs(5);

/// How often the number of shards is looked at, and how soon a failed renewal is tried again.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long the ledger may take to answer: short enough to try again before the lease is over.
const PATIENCE: Duration = Duration::from_secs(4);

const PART: &str = "shards";

/// A question to the worker: which deliveries of these shards are in flight, or not known to be recorded.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) shards: HashSet<Shard>,
    pub(crate) answer: oneshot::Sender<Vec<Busy>>,
}

/// Keeps this process's share of the shards.
#[derive(Debug)]
pub struct LeaseKeeper {
    ledger: Ledger,
    worker: Uuid,
    leases: watch::Sender<ShardLeases>,
    epochs: HashMap<Shard, i64>,
    /// When the leases end.
    until: Uptime,
    /// When the next renewal is due.
    renew_at: Instant,
    workers: usize,
    /// Shards that are given up here, and perhaps not yet in the ledger.
    giving: HashSet<Shard>,
}

impl LeaseKeeper {
    /// The keeper of a process with this fresh id, and a view of what the process has: nothing yet.
    pub fn new(ledger: Ledger, worker: Uuid) -> (Self, watch::Receiver<ShardLeases>) {
        let until = uptime();
        let (leases, receiver) = watch::channel(ShardLeases::until(worker, HashMap::new(), until));
        let keeper = Self {
            ledger,
            worker,
            leases,
            epochs: HashMap::new(),
            until,
            renew_at: until.instant,
            workers: 1,
            giving: HashSet::new(),
        };
        (keeper, receiver)
    }

    /// Keeps the share until shutdown, then gives everything back, unless `hard` comes first.
    pub(crate) async fn run(
        mut self,
        questions: mpsc::Sender<Question>,
        health: &Health,
        metrics: &Metrics,
        shutdown: &CancellationToken,
        hard: &CancellationToken,
    ) {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                _ = ticks.tick() => {}
            }
            if let Err(error) = self.keep(&questions, metrics).await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "shards could not be kept or shared out; it is tried again"
                );
            }
            let runs = self.runs();
            if !runs {
                // The shards may have another worker by now, and nothing of them is sent here.
                metrics.shards_owned(0);
            }
            match ailment(self.epochs.len(), runs, self.workers) {
                None => health.ok(PART),
                Some(why) => health.failing(PART, why),
            }
        }
        tokio::select! {
            () = hard.cancelled() => tracing::warn!("shards were not given back; others take them when the lease is over"),
            () = self.leave(&questions, metrics) => {}
        }
    }

    async fn keep(&mut self, questions: &mpsc::Sender<Question>, metrics: &Metrics) -> Result<(), Error> {
        if Instant::now() >= self.renew_at || !self.runs() {
            self.renew(metrics).await?;
        }
        // A release that failed before is tried again.
        self.release(questions, metrics).await?;
        let Look { free, workers } = limited(self.ledger.look_at_shards(LEASE)).await?;
        // This process counts, also when its own lease is over.
        self.workers = workers.max(1);
        match change(self.epochs.len(), self.workers) {
            Change::Take(most) if free > 0 => self.take(most, metrics).await,
            Change::None | Change::Take(_) => Ok(()),
            Change::Give(surplus) => {
                let all = self.epochs.keys().copied().collect();
                let mut busy = HashMap::new();
                for Busy { shard, .. } in ask(questions, all).await.unwrap_or_default() {
                    *busy.entry(shard).or_default() += 1;
                }
                let given = to_give(self.epochs.keys().copied(), &busy, surplus);
                tracing::info!(shards = given.len(), self.workers, "giving shards back");
                self.give_up(given, metrics);
                self.release(questions, metrics).await
            }
        }
    }

    async fn renew(&mut self, metrics: &Metrics) -> Result<(), Error> {
        // The lease is counted from before the renewal was sent, so it never holds longer here than in the ledger.
        let began = uptime();
        let Renewal { epochs, workers } = limited(self.ledger.renew(self.worker, LEASE)).await?;
        let before = self.epochs.len();
        self.epochs = epochs;
        self.epochs.retain(|shard, _| !self.giving.contains(shard));
        if self.epochs.len() < before {
            tracing::warn!(
                lost = before - self.epochs.len(),
                "shards were taken by others, because the lease was over"
            );
        }
        self.workers = workers;
        self.until = began.plus(LEASE);
        self.renew_at = began.instant + RENEW_EVERY;
        self.publish(metrics);
        Ok(())
    }

    async fn take(&mut self, most: usize, metrics: &Metrics) -> Result<(), Error> {
        let Taken { epochs, from_dead } = limited(self.ledger.take_free(self.worker, most, LEASE)).await?;
        if epochs.is_empty() {
            return Ok(());
        }
        tracing::info!(shards = epochs.len(), from_dead, self.workers, "took shards");
        metrics.shards_moved(epochs.len(), ShardMove::Taken);
        metrics.shards_taken_over(from_dead);
        self.epochs.extend(epochs);
        self.publish(metrics);
        Ok(())
    }

    fn give_up(&mut self, shards: impl IntoIterator<Item = Shard>, metrics: &Metrics) {
        for shard in shards {
            self.epochs.remove(&shard);
            self.giving.insert(shard);
        }
        self.publish(metrics);
    }

    async fn release(&mut self, questions: &mpsc::Sender<Question>, metrics: &Metrics) -> Result<(), Error> {
        if self.giving.is_empty() {
            return Ok(());
        }
        let busy = ask(questions, self.giving.clone()).await.unwrap_or_default();
        let busy = busy.iter().map(|busy| (busy.delivery, busy.until)).collect();
        let shards = self.giving.iter().copied().collect();
        limited(self.ledger.release(self.worker, shards, busy)).await?;
        metrics.shards_moved(self.giving.len(), ShardMove::Given);
        self.giving.clear();
        Ok(())
    }

    /// Gives all shards back at once, and then leaves the workers, so that the shares of the others grow.
    async fn leave(&mut self, questions: &mpsc::Sender<Question>, metrics: &Metrics) {
        let all: Vec<_> = self.epochs.keys().copied().collect();
        self.give_up(all, metrics);
        loop {
            let left = match self.release(questions, metrics).await {
                Ok(()) => limited(self.ledger.leave(self.worker)).await,
                Err(error) => Err(error),
            };
            match left {
                Ok(()) | Err(Error::Closed) => return,
                // The lease is over, so the others take the shards anyway.
                Err(_) if !self.runs() => return,
                Err(error) => tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "shards could not be given back; it is tried again"
                ),
            }
            sleep(INTERVAL).await;
        }
    }

    fn publish(&self, metrics: &Metrics) {
        metrics.shards_owned(self.epochs.len());
        self.leases
            .send_replace(ShardLeases::until(self.worker, self.epochs.clone(), self.until));
    }

    /// Whether the leases still run.
    fn runs(&self) -> bool {
        uptime().is_before(self.until)
    }
}

/// Asks the worker. Returns `None` if it is gone, and with it everything that was in flight.
pub(crate) async fn ask(questions: &mpsc::Sender<Question>, shards: HashSet<Shard>) -> Option<Vec<Busy>> {
    let (answer, answered) = oneshot::channel();
    questions.send(Question { shards, answer }).await.ok()?;
    answered.await.ok()
}

async fn limited<T>(asked: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    match timeout(PATIENCE, asked).await {
        Ok(answered) => answered,
        Err(_elapsed) => Err(Error::Slow(PATIENCE)),
    }
}

/// Why a process cannot deliver, if it cannot.
fn ailment(shards: usize, runs: bool, workers: usize) -> Option<String> {
    if !runs {
        return Some("the ledger cannot be reached".to_owned());
    }
    // The least share is one shard. With more workers than shards, some have none until another dies.
    let surplus = share(workers) * (workers.saturating_sub(1)) >= usize::from(SHARDS);
    (shards == 0 && !surplus).then(|| format!("no shard is free yet; {workers} workers share {SHARDS}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_should_have_shards_and_has_none_is_not_ready() {
        assert_eq!(ailment(128, true, 2), None);
        assert_eq!(
            ailment(0, true, 2).as_deref(),
            Some("no shard is free yet; 2 workers share 256")
        );
        assert_eq!(ailment(0, true, 300), None, "the others have them all");
        assert_eq!(
            ailment(0, true, 0).as_deref(),
            Some("no shard is free yet; 0 workers share 256")
        );
        assert_eq!(ailment(5, false, 2).as_deref(), Some("the ledger cannot be reached"));
    }
}
