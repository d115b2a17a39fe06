//! The durable event queue between ingest and dispatch.
//!
//! What it promises, whichever it is:
//! - [`Queue::publish`] returns only when the message survives a crash of the machine;
//! - a message is handed out again, after a restart of the consumer, until it is acknowledged;
//! - messages come in the order in which they were published, but for those handed out again.
//!
//! It takes whole messages; a batch of events is one, so it is accepted whole or not at all.
#![warn(missing_docs)]

mod embedded;

pub use embedded::Embedded;
use herald_domain::time::Timestamp;
use std::sync::Arc;

/// One message: an event, or a JSON array of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The publishing account: the scope of the events' `Id`s.
    pub account: Arc<str>,
    /// When ingest accepted it.
    pub accepted_at: Timestamp,
    /// The producer's trace context, if it gave one.
    pub traceparent: Option<String>,
    /// How many events it has; at least 1.
    pub events: usize,
    /// The JSON text.
    pub body: Vec<u8>,
}

/// A message handed out, to be acknowledged.
#[derive(Debug)]
pub struct Received {
    /// Its place in the queue.
    pub tag: Tag,
    /// The message.
    pub message: Message,
}

/// A message's place in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tag(i64);

/// Why the queue could not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The file below failed. Whether a message being published was kept is unknown.
    #[error("the event queue failed")]
    Storage(#[from] herald_ledger::Error),
}

/// The event queue.
#[derive(Debug, Clone)]
pub enum Queue {
    /// In the ledger's own file.
    Embedded(Embedded),
}

impl Queue {
    /// Puts a message into the queue, durably.
    pub async fn publish(&self, message: Message) -> Result<(), Error> {
        match self {
            Self::Embedded(queue) => queue.publish(message).await,
        }
    }

    /// A reader of everything that is not acknowledged, from the oldest on.
    pub fn consumer(&self) -> Consumer {
        match self {
            Self::Embedded(queue) => Consumer::Embedded(queue.consumer()),
        }
    }

    /// Acknowledges this message and every one handed out before it.
    pub async fn acknowledge(&self, up_to: Tag) -> Result<(), Error> {
        match self {
            Self::Embedded(queue) => queue.acknowledge(up_to).await,
        }
    }

    /// How many events are in the queue and not acknowledged.
    pub async fn in_transit(&self) -> Result<u64, Error> {
        match self {
            Self::Embedded(queue) => queue.in_transit().await,
        }
    }
}

/// Reads the queue; there is one per process.
#[derive(Debug)]
pub enum Consumer {
    /// Of the embedded queue.
    Embedded(embedded::Consumer),
}

impl Consumer {
    /// The next messages: waits for the first, and takes what else has arrived, as long as the
    /// messages together stay near `max_events` and `max_bytes`. Safe to cancel.
    pub async fn next(&mut self, max_events: usize, max_bytes: usize) -> Result<Vec<Received>, Error> {
        match self {
            Self::Embedded(consumer) => consumer.next(max_events, max_bytes).await,
        }
    }
}

#[cfg(test)]
mod tests;
