//! Does the outbox's jobs, oldest first, a part at a time.
//!
//! Of several processes the owner of the first shard does them, so there is one at a time without a lock.
//! For a moment after a takeover there may be two, which is harmless: a part that is cancelled twice finds
//! nothing, and a copy that is published twice has the same id.

use crate::letters::{self, DeadLetters, PublishError};
use crate::metrics::{self, Metrics};
use futures_util::stream::{self, StreamExt};
use herald_domain::delivery::Closed;
use herald_domain::id::{DeliveryId, Shard};
use herald_domain::time::Timestamp;
use herald_ledger::shards::Ownership;
use herald_ledger::{Error, Ledger};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// How often to look without a hint.
const INTERVAL: Duration = Duration::from_secs(1);

/// How many dead letters are read at a time, and how many of them are on their way at a time.
const LETTERS: u64 = 100;
const LETTERS_AT_A_TIME: usize = 16;

/// How long a broker may take to confirm one.
const CONFIRM: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct Outbox {
    pub(crate) ledger: Ledger,
    pub(crate) owned: watch::Receiver<Ownership>,
    pub(crate) metrics: Metrics,
}

impl Outbox {
    fn is_ours(&self) -> bool {
        let owned = self.owned.borrow();
        owned.epoch(Shard(0)).is_some() && owned.holds(Instant::now())
    }

    /// Cancels what is open of subscriptions that are inactive or deleted, until shutdown.
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

    /// Does a part of the oldest job; whether there was one.
    async fn cancel_some(&self) -> Result<bool, Error> {
        if !self.is_ours() {
            self.note_oldest(metrics::Job::CancelDeliveries, None);
            return Ok(false);
        }
        let job = self.ledger.next_job().await?;
        self.note_oldest(metrics::Job::CancelDeliveries, job.map(|job| job.created_at()));
        let Some(job) = job else {
            return Ok(false);
        };
        let webhooks = self.ledger.work_on(job).await?;
        for webhook in &webhooks {
            self.metrics.closed_as(Closed::Cancelled, *webhook, 1);
        }
        tracing::info!(subscription = %job.subscription, cancelled = webhooks.len(), "open deliveries were cancelled");
        Ok(true)
    }

    /// Publishes copies of dead deliveries, until shutdown. Apart from the other jobs, which need no broker.
    pub(crate) async fn publish_dead_letters(
        &self,
        letters: Option<Arc<dyn DeadLetters>>,
        shutdown: &CancellationToken,
    ) {
        let Some(letters) = letters else { return };
        loop {
            let published = tokio::select! {
                () = shutdown.cancelled() => return,
                published = self.publish_some(&*letters) => published,
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

    /// Publishes the oldest; whether there may be more that can be published.
    async fn publish_some(&self, letters: &dyn DeadLetters) -> Result<bool, Error> {
        if !self.is_ours() {
            self.metrics.dead_letters(0, 0);
            self.note_oldest(metrics::Job::DeadLetter, None);
            return Ok(false);
        }
        let jobs = self.ledger.dead_letter_jobs(LETTERS).await?;
        self.note_oldest(metrics::Job::DeadLetter, jobs.first().map(|job| job.created_at));
        let read = jobs.len();
        let done: Vec<i64> = stream::iter(jobs)
            .map(|job| async move { self.publish(letters, job.delivery).await.then_some(job.id) })
            .buffer_unordered(LETTERS_AT_A_TIME)
            .filter_map(std::future::ready)
            .collect()
            .await;
        let published = done.len();
        if published > 0 {
            self.ledger.jobs_done(done).await?;
        }
        self.metrics.dead_letters(published, read - published);
        Ok(published == read && u64::try_from(read).is_ok_and(|read| read == LETTERS))
    }

    fn note_oldest(&self, job: metrics::Job, written: Option<Timestamp>) {
        let age = written.map(|at| self.ledger.now().since(at));
        self.metrics.outbox(job, age.unwrap_or_default());
    }

    /// Whether that job is done: published, or without anything to publish.
    async fn publish(&self, letters: &dyn DeadLetters, delivery: DeliveryId) -> bool {
        match self.try_publish(letters, delivery).await {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(error = &*error as &dyn std::error::Error, %delivery, "a dead letter could not be published; it is tried again");
                false
            }
        }
    }

    async fn try_publish(&self, letters: &dyn DeadLetters, id: DeliveryId) -> Result<(), PublishError> {
        // Whoever retried it by hand meanwhile has not undone that it was dead.
        let Some(delivery) = self.ledger.delivery(id).await? else {
            return Ok(());
        };
        let Some(event) = self.ledger.event(delivery.event).await? else {
            return Ok(());
        };
        match letters::body(&delivery, &event) {
            Ok(body) => timeout(CONFIRM, letters.publish(id, event.kind, body)).await?,
            Err(error) => {
                tracing::error!(%error, delivery = %id, "a dead letter's event cannot be written; it is left out");
                Ok(())
            }
        }
    }
}
