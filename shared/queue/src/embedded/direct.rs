//! The short way through the embedded queue: an event whose publisher is still waiting goes straight to
//! the consumer, and is answered for when it is in the ledger.
//!
//! Queue and ledger are one file, so what is recorded is as durable as what is queued, and the row in
//! between would be written, read and deleted for nothing. Only single events go this way: a batch is
//! accepted whole or not at all, and may take several transactions to record. Whatever does not fit here,
//! or comes while recording stands still, goes the long way, through the table.

use super::Publication;
use crate::{Error, Received, Tag};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How much may wait for the consumer.
const MAX_WAITING: usize = 1024;
const MAX_BYTES: usize = 4 << 20;

/// Recording stands still if what the consumer took first is not recorded after that.
const STANDSTILL: Duration = Duration::from_millis(500);

/// Marks a tag as one of these.
const GENERATION: u64 = 1;

/// What goes the short way; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Direct(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    /// Somebody takes what waits.
    attached: bool,
    waiting: VecDeque<Publication>,
    bytes: usize,
    taken: VecDeque<Taken>,
    last: i64,
}

/// What the consumer has taken, and who waits to hear that it is recorded.
#[derive(Debug)]
struct Taken {
    place: i64,
    at: Instant,
    answer: oneshot::Sender<Result<(), Error>>,
}

impl Direct {
    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes it, or gives it back for the long way.
    pub(super) fn offer(&self, publication: Publication) -> Result<(), Publication> {
        let mut inner = self.inner();
        let bytes = publication.message.body.len();
        let stands = inner.taken.front().is_some_and(|taken| taken.at.elapsed() > STANDSTILL);
        if !inner.attached || stands || inner.waiting.len() >= MAX_WAITING || inner.bytes + bytes > MAX_BYTES {
            return Err(publication);
        }
        inner.bytes += bytes;
        inner.waiting.push_back(publication);
        Ok(())
    }

    /// From now on somebody takes what waits.
    pub(super) fn attach(&self) {
        self.inner().attached = true;
    }

    /// Nobody takes it any more; who waits hears that nobody knows.
    pub(super) fn detach(&self) {
        let mut inner = self.inner();
        *inner = Inner {
            last: inner.last,
            ..Inner::default()
        };
    }

    /// What waits, as far as it fits; always the first.
    pub(super) fn take(&self, max_events: usize, max_bytes: usize) -> Vec<Received> {
        let mut inner = self.inner();
        let at = Instant::now();
        let mut received = Vec::with_capacity(inner.waiting.len().min(max_events));
        let mut bytes = 0;
        while let Some(first) = inner.waiting.front() {
            bytes += first.message.body.len();
            if !received.is_empty() && (received.len() >= max_events || bytes > max_bytes) {
                break;
            }
            let Some(Publication { message, answer }) = inner.waiting.pop_front() else {
                break;
            };
            inner.bytes -= message.body.len();
            inner.last += 1;
            let place = inner.last;
            inner.taken.push_back(Taken { place, at, answer });
            received.push(Received {
                tag: Tag {
                    generation: GENERATION,
                    place,
                },
                trusted: true,
                accepted: true,
                message_id: None,
                redeliveries: 0,
                encoding: None,
                cloud_event: None,
                cut: None,
                origins: message.origin.into(),
                body: message.body,
            });
        }
        received
    }

    /// Whether the tag is of something that went this way; if so its publisher hears of it, and those
    /// of all that was taken before.
    pub(super) fn acknowledge(&self, up_to: Tag) -> bool {
        if up_to.generation != GENERATION {
            return false;
        }
        let mut inner = self.inner();
        while inner.taken.front().is_some_and(|taken| taken.place <= up_to.place) {
            if let Some(Taken { answer, .. }) = inner.taken.pop_front() {
                // A request that has gone away does not want the answer; the event stands all the same.
                drop(answer.send(Ok(())));
            }
        }
        true
    }
}
