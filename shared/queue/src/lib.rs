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
mod metrics;
pub mod rabbitmq;

pub use embedded::Embedded;
use herald_domain::catalogue::EventType;
use herald_domain::id::EventId;
use herald_domain::time::Timestamp;
use herald_domain::trace::TraceContext;
pub use metrics::Direction;
pub use rabbitmq::Rabbit;
use std::sync::Arc;

/// The name of the queue, and of the exchange before it.
pub const NAME: &str = "herald.events";

/// The most bytes of a message that Herald itself publishes: a request of ingest's, with an `Id` put into each
/// of its events.
pub const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// Where events come from that were accepted together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The publishing account: the scope of the events' `Id`s.
    pub account: Arc<str>,
    /// When ingest accepted them.
    pub accepted_at: Timestamp,
    /// What they follow from: the span in which they were published, or the producer's, if there is one.
    pub traceparent: Option<TraceContext>,
    /// How many they are; at least 1.
    pub events: usize,
}

/// What is published at a time: an event, or a JSON array of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Where its events come from.
    pub origin: Origin,
    /// The JSON text.
    pub body: Vec<u8>,
}

/// What a message is, for consumers beside Herald: it makes the routing key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// One event, of that type and with that `Id`.
    Event(EventType, EventId),
    /// An array, which no other consumer is promised to understand.
    Batch,
}

impl Route {
    /// The routing key.
    pub fn key(&self) -> &str {
        match self {
            Self::Event(kind, _) => kind.routing_key(),
            Self::Batch => "batch",
        }
    }
}

/// A message handed out, to be acknowledged.
#[derive(Debug)]
pub struct Received {
    /// Its place in the queue.
    pub tag: Tag,
    /// It was put into the queue by Herald itself, so it may be an array.
    pub trusted: bool,
    /// Ingest accepted its events, as it says by the time at which it did. A producer that publishes as Herald's own
    /// user does not say so.
    pub accepted: bool,
    /// The publisher's id for it: the event's `Id`, if the event has none.
    pub message_id: Option<String>,
    /// How often it was handed out before.
    pub redeliveries: u64,
    /// How its body is encoded, if the publisher said so.
    pub encoding: Option<String>,
    /// How long its body was, if that is more than it may be; then only the beginning is here.
    pub cut: Option<usize>,
    /// Where its events come from: of the first ones, of those behind them, and so on.
    pub origins: Origins,
    /// The JSON text.
    pub body: Vec<u8>,
}

/// Where the events of one message come from; there is at least one origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origins {
    /// Of the first events.
    pub first: Origin,
    /// Of those behind them, in their order.
    pub others: Vec<Origin>,
}

impl Origins {
    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Origin> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// How many events the message has.
    pub fn events(&self) -> usize {
        self.iter().map(|origin| origin.events).sum()
    }

    /// The origin of each event. Should there be more events than are counted, the last one's is theirs.
    pub fn of_each(&self) -> impl Iterator<Item = &Origin> {
        let last = self.others.last().unwrap_or(&self.first);
        let counted = self
            .iter()
            .flat_map(|origin| std::iter::repeat_n(origin, origin.events));
        counted.chain(std::iter::repeat(last))
    }
}

impl From<Origin> for Origins {
    fn from(first: Origin) -> Self {
        Self {
            first,
            others: Vec::new(),
        }
    }
}

/// A message's place in the queue; the default one is before all of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tag {
    /// Which of the consumer's connections, or of the embedded queue's ways, handed it out; a place means
    /// nothing to another.
    generation: u64,
    place: i64,
}

impl Tag {
    /// Whether acknowledging `later` acknowledges this too, if it was handed out before it.
    pub fn goes_with(self, later: Self) -> bool {
        self.generation == later.generation
    }
}

/// Why the queue could not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The file below failed. Whether a message being published was kept is unknown.
    #[error("the event queue failed")]
    Storage(#[from] herald_ledger::Error),
    /// There is no connection to RabbitMQ.
    #[error("RabbitMQ is not available: {0}")]
    Away(Arc<str>),
    /// RabbitMQ takes nothing for the time being.
    #[error("RabbitMQ blocks publishers: it is low on memory or disk")]
    Blocked,
    /// RabbitMQ takes too long; whether the message was kept is unknown.
    #[error("RabbitMQ did not confirm in time")]
    Slow,
    /// Whether the message was kept is unknown.
    #[error("RabbitMQ did not confirm: {0}")]
    Unconfirmed(Arc<str>),
    /// Somebody has to change something: the URL, the user's rights, what is declared.
    #[error("{0}")]
    Setup(Arc<str>),
}

impl Error {
    pub(crate) fn away(why: impl AsRef<str>) -> Self {
        Self::Away(why.as_ref().into())
    }

    pub(crate) fn unconfirmed(why: impl AsRef<str>) -> Self {
        Self::Unconfirmed(why.as_ref().into())
    }

    pub(crate) fn setup(why: impl AsRef<str>) -> Self {
        Self::Setup(why.as_ref().into())
    }
}

/// The event queue.
#[derive(Debug, Clone)]
pub enum Queue {
    /// In the ledger's own file.
    Embedded(Embedded),
    /// In RabbitMQ.
    Rabbit(Rabbit),
}

impl Queue {
    /// What the queue is, as OpenTelemetry's `messaging.system` has it.
    pub const fn system(&self) -> &'static str {
        match self {
            Self::Embedded(_) => "herald",
            Self::Rabbit(_) => "rabbitmq",
        }
    }

    /// Puts a message into the queue, durably. After an error nobody knows whether it is there.
    pub async fn publish(&self, message: Message, route: Route) -> Result<(), Error> {
        match self {
            Self::Embedded(queue) => queue.publish(message, &route).await,
            Self::Rabbit(queue) => queue.publish(message, &route).await,
        }
    }

    /// A reader of everything that is not acknowledged, from the oldest on; there is one at a time.
    pub fn consumer(&self) -> Consumer {
        match self {
            Self::Embedded(queue) => Consumer::Embedded(Box::new(queue.consumer())),
            Self::Rabbit(queue) => Consumer::Rabbit(queue.consumer()),
        }
    }

    /// Acknowledges this message and every one handed out before it. Of a message that was handed out
    /// before the consumer lost its connection it is void: that message comes again.
    pub async fn acknowledge(&self, up_to: Tag) -> Result<(), Error> {
        match self {
            Self::Embedded(queue) => queue.acknowledge(up_to).await,
            Self::Rabbit(queue) => {
                queue.acknowledge(up_to).await;
                Ok(())
            }
        }
    }

    /// Takes nothing more, and gives back what is not acknowledged: while the ledger is away others may be
    /// able to record it, and the broker does not wait for ever for what it has handed out. Of the embedded
    /// queue, whose ledger is the same file, there is nothing to give back.
    pub fn pause(&self) {
        match self {
            Self::Embedded(_) => {}
            Self::Rabbit(queue) => queue.pause(true),
        }
    }

    /// Takes again.
    pub fn resume(&self) {
        match self {
            Self::Embedded(_) => {}
            Self::Rabbit(queue) => queue.pause(false),
        }
    }

    /// How much is in the queue: of the embedded one, the events that are not acknowledged; of
    /// RabbitMQ, the messages that no consumer holds (see [`Rabbit::held`] for those).
    pub async fn in_transit(&self) -> Result<u64, Error> {
        match self {
            Self::Embedded(queue) => queue.in_transit().await,
            Self::Rabbit(queue) => queue.in_transit().await,
        }
    }

    /// Registers what is counted of one side of the queue: of publishing the connection, if there is one;
    /// of consuming also what the queue holds.
    pub fn register_metrics(
        &self,
        direction: Direction,
        registry: &prometheus::Registry,
    ) -> Result<(), prometheus::Error> {
        match self {
            Self::Embedded(queue) => queue.register_metrics(direction, registry),
            Self::Rabbit(queue) => queue.register_metrics(direction, registry),
        }
    }

    /// Looks again and again what the queue holds, for its metrics. Of RabbitMQ the consumer's connection
    /// does that.
    pub async fn watch(&self) {
        match self {
            Self::Embedded(queue) => queue.watch().await,
            Self::Rabbit(_) => std::future::pending().await,
        }
    }
}

/// Reads the queue; there is one per process.
#[derive(Debug)]
pub enum Consumer {
    /// Of the embedded queue.
    Embedded(Box<embedded::Consumer>),
    /// Of RabbitMQ.
    Rabbit(rabbitmq::Consumer),
}

impl Consumer {
    /// The next messages: waits for the first, and takes what else has arrived, as long as the
    /// messages together stay near `max_events` and `max_bytes`. Safe to cancel.
    pub async fn next(&mut self, max_events: usize, max_bytes: usize) -> Result<Vec<Received>, Error> {
        match self {
            Self::Embedded(consumer) => consumer.next(max_events, max_bytes).await,
            Self::Rabbit(consumer) => consumer.next(max_events, max_bytes).await,
        }
    }
}

#[cfg(test)]
mod tests;
