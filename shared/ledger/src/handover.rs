//! The hand-over of deliveries from dispatch to deliver within a process: a short cut, not a queue.
//!
//! A delivery that is handed over is in the ledger already, open and due. So one that does not fit, or is lost, is
//! found there, and [`HandOver`] only has to remember which lanes to look into.

use crate::dispatching::EventRecord;
use herald_domain::delivery::Delivery;
use herald_domain::lanes::{LaneId, ReadMark};
use herald_domain::time::Timestamp;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;

/// The most deliveries that wait here.
const MAX_WAITING: usize = 4096;

/// The short cut; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct HandOver {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    waiting: Mutex<Waiting>,
    /// The last mark that the lanes have set.
    mark: Mutex<ReadMark>,
    arrived: Notify,
}

/// What was handed over and waits to be taken.
#[derive(Debug, Default)]
pub struct Waiting {
    /// Deliveries with their events, in the order of recording, and the mark of each.
    pub fresh: Vec<(Delivery, Arc<EventRecord>, ReadMark)>,
    /// Lanes that have more in the ledger, each with the earliest due time.
    pub behind: HashMap<LaneId, Timestamp>,
    /// Whether deliveries may have been recorded but not handed over, and it is not known which: every lane must be
    /// looked up.
    pub look_everywhere: bool,
}

impl HandOver {
    /// The lanes' mark. It is drawn before the transaction that records deliveries, and shown when they are
    /// offered. So the lanes can tell whether they may have read them from the ledger in between.
    pub fn mark(&self) -> ReadMark {
        *self.inner.mark.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the lanes' mark. An older one is safe: more is then looked up in the ledger.
    pub fn set_mark(&self, mark: ReadMark) {
        *self.inner.mark.lock().unwrap_or_else(PoisonError::into_inner) = mark;
    }

    /// Hands over the deliveries of an event that were just recorded.
    pub fn offer(&self, event: &Arc<EventRecord>, deliveries: Vec<Delivery>, mark: ReadMark) {
        if deliveries.is_empty() {
            return;
        }
        let mut waiting = self.inner.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        for delivery in deliveries {
            if waiting.fresh.len() < MAX_WAITING {
                waiting.fresh.push((delivery, Arc::clone(event), mark));
            } else {
                let due_at = waiting.behind.entry(delivery.lane()).or_insert(delivery.due_at);
                *due_at = delivery.due_at.min(*due_at);
            }
        }
        drop(waiting);
        self.inner.arrived.notify_one();
    }

    /// Has every lane looked up, because a transaction may have recorded deliveries although its answer was lost. When
    /// it is tried again it finds its events there, and hands over none.
    pub fn look_everywhere(&self) {
        self.inner
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .look_everywhere = true;
        self.inner.arrived.notify_one();
    }

    /// Takes all that waits.
    pub fn take(&self) -> Waiting {
        std::mem::take(&mut *self.inner.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns when something may wait.
    pub async fn arrived(&self) {
        self.inner.arrived.notified().await;
    }
}
