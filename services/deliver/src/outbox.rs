//! The worker on the outbox, which does its jobs, oldest first, a part at a time.
//!
//! Deliveries are cancelled by the process that has their shard. Only that process knows which of them are in flight,
//! and it leaves those until their outcome is recorded. So a delivery whose message was received becomes Delivered,
//! also if its subscription was deactivated meanwhile.
//!
//! Copies of dead deliveries are published by the process that has the first shard, so one process does that at a time without
//! a lock. For a moment after a takeover there may be two. That is harmless, because a copy that is published twice has
//! the same id.

use crate::dead_letters::{self, DeadLetters, PublishError};
use crate::lease_keeper::{self, Question};
use crate::metrics::{Metrics, OutboxJob};
use futures_util::stream::{self, StreamExt};
use herald_domain::delivery::Closed;
use herald_domain::id::{DeliveryId, Shard};
use herald_domain::time::Timestamp;
use herald_ledger::outbox::CancelJob;
use herald_ledger::shards::{ShardLeases, uptime};
use herald_ledger::{Error, Ledger};
use herald_registry::Registry;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// How often to look without a hint.
const INTERVAL: Duration = Duration::from_secs(1);

/// The most jobs to cancel deliveries that are worked on at a time.
const JOBS: usize = 4096;

/// How many dead letters are read at a time, and how many of them are being published at a time.
const DEAD_LETTERS: u64 = 100;
const DEAD_LETTERS_AT_A_TIME: usize = 16;

/// How long a broker may take to confirm a dead letter.
const CONFIRM: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct Outbox {
    pub(crate) ledger: Ledger,
    pub(crate) registry: Arc<Registry>,
    pub(crate) leases: watch::Receiver<ShardLeases>,
    /// The way to ask the worker what is in flight.
    pub(crate) questions: mpsc::Sender<Question>,
    pub(crate) metrics: Metrics,
}

impl Outbox {
    fn is_ours(&self) -> bool {
        let leases = self.leases.borrow();
        leases.epoch(Shard(0)).is_some() && leases.run_at(uptime())
    }

    /// Cancels open deliveries of subscriptions that are inactive or deleted, until shutdown.
    pub(crate) async fn cancel_deliveries(&self, shutdown: &CancellationToken) {
        while !shutdown.is_cancelled() {
            match self.cancel_some().await {
                Ok(true) => continue,
                Ok(false) => {}
                Err(error) => {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "the outbox could not be worked on; it is tried again"
                    );
                }
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.ledger.signals().outbox.notified() => {}
                () = tokio::time::sleep(INTERVAL) => {}
            }
        }
    }

    /// Does a part of each of this process's jobs. Returns whether there is more to do at once.
    async fn cancel_some(&self) -> Result<bool, Error> {
        let leases = self.leases.borrow().clone();
        let jobs = if leases.run_at(uptime()) {
            self.ledger.cancel_jobs(&leases, JOBS).await?
        } else {
            Vec::new()
        };
        self.note_oldest(OutboxJob::CancelDeliveries, jobs.first().map(CancelJob::created_at));
        if jobs.is_empty() {
            return Ok(false);
        }
        // After this refresh the lanes begin nothing that the jobs cancel. What they have begun is asked for next.
        self.registry.refresh().await?;
        let shards = jobs.iter().map(CancelJob::shard).collect();
        let Some(in_flight) = lease_keeper::ask(&self.questions, shards).await else {
            return Ok(false);
        };
        let in_flight = in_flight.iter().map(|busy| busy.delivery).collect();
        let mut more = false;
        for job in jobs {
            let cancelled = self.ledger.work_on(job, &leases, &in_flight).await?;
            for webhook in &cancelled.webhooks {
                self.metrics.closed_as(Closed::Cancelled, *webhook, 1);
            }
            if !cancelled.webhooks.is_empty() {
                let deliveries = cancelled.webhooks.len();
                tracing::info!(subscription = %job.subscription, cancelled = deliveries, "open deliveries were cancelled");
            }
            more |= cancelled.more;
        }
        Ok(more)
    }

    /// Publishes copies of dead deliveries, until shutdown. This is separate from the other jobs, which need no broker.
    pub(crate) async fn publish_dead_letters(
        &self,
        publisher: Option<Arc<dyn DeadLetters>>,
        shutdown: &CancellationToken,
    ) {
        let Some(publisher) = publisher else { return };
        loop {
            let published = tokio::select! {
                () = shutdown.cancelled() => return,
                published = self.publish_some(&*publisher) => published,
            };
            match published {
                Ok(true) => continue,
                Ok(false) => {}
                Err(error) => {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "dead letters could not be read; they are tried again"
                    );
                }
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(INTERVAL) => {}
            }
        }
    }

    /// Publishes the oldest dead letters. Returns whether there may be more that can be published.
    async fn publish_some(&self, publisher: &dyn DeadLetters) -> Result<bool, Error> {
        if !self.is_ours() {
            self.metrics.dead_letters(0, 0);
            self.note_oldest(OutboxJob::DeadLetter, None);
            return Ok(false);
        }
        let jobs = self.ledger.dead_letter_jobs(DEAD_LETTERS).await?;
        self.note_oldest(OutboxJob::DeadLetter, jobs.first().map(|job| job.created_at));
        let read = jobs.len();
        let done: Vec<i64> = stream::iter(jobs)
            .map(|job| async move { self.publish(publisher, job.delivery).await.then_some(job.id) })
            .buffer_unordered(DEAD_LETTERS_AT_A_TIME)
            .filter_map(std::future::ready)
            .collect()
            .await;
        let published = done.len();
        if published > 0 {
            self.ledger.jobs_done(done).await?;
        }
        self.metrics.dead_letters(published, read - published);
        Ok(published == read && u64::try_from(read).is_ok_and(|read| read == DEAD_LETTERS))
    }

    fn note_oldest(&self, job: OutboxJob, written: Option<Timestamp>) {
        let age = written.map(|at| self.ledger.now().since(at));
        self.metrics.outbox(job, age.unwrap_or_default());
    }

    /// Publishes the copy of a delivery. Returns whether the job is done, also if there is nothing to publish.
    async fn publish(&self, publisher: &dyn DeadLetters, delivery: DeliveryId) -> bool {
        match self.try_publish(publisher, delivery).await {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(error = &*error as &dyn std::error::Error, %delivery, "a dead letter could not be published; it is tried again");
                false
            }
        }
    }

    async fn try_publish(&self, publisher: &dyn DeadLetters, id: DeliveryId) -> Result<(), PublishError> {
        // A manual retry in between does not undo that the delivery was dead.
        let Some(delivery) = self.ledger.delivery(id).await? else {
            return Ok(());
        };
        let Some(event) = self.ledger.event(delivery.event).await? else {
            return Ok(());
        };
        match dead_letters::body(&delivery, &event) {
            Ok(body) => timeout(CONFIRM, publisher.publish(id, event.kind, body)).await?,
            Err(error) => {
                tracing::error!(%error, delivery = %id, "a dead letter's event cannot be written; it is left out");
                Ok(())
            }
        }
    }
}
