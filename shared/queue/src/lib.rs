//! The durable event queue between ingest and dispatch.
//!
//! The queue promises, in RabbitMQ and in a file alike:
//! - [`Queue::publish`] returns only when the message survives a crash of the machine;
//! - a message is handed out again, after a restart of the consumer, until it is acknowledged;
//! - messages come in the order in which they were published, except those that are handed out again.
//!
//! The queue takes whole messages. A batch of events is one message, so it is accepted whole or not at all.
#![warn(missing_docs)]

mod embedded;
mod metrics;
pub mod rabbitmq;

pub use embedded::Embedded;
use herald_domain::catalogue::EventType;
use herald_domain::event::cloud_events::Mode;
use herald_domain::id::EventId;
use herald_domain::time::Timestamp;
use herald_domain::trace::TraceContext;
pub use metrics::QueueUse;
pub use rabbitmq::Rabbit;
use std::sync::Arc;

/// The name of the queue, and of the exchange before it.
pub const NAME: &str = "herald.events";

/// The most bytes of a message that Herald itself publishes: a request to ingest, with an `Id` put into each of its
/// events.
pub const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// The origin of events that were accepted together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The publishing account: the scope of the events' `Id`s.
    pub account: Arc<str>,
    /// When ingest accepted them.
    pub accepted_at: Timestamp,
    /// Their parent span: that in which they were published, or the producer's, if there is one.
    pub traceparent: Option<TraceContext>,
    /// How many they are; at least 1.
    pub events: usize,
}

/// A message to publish: one event, or a JSON array of events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The origin of its events.
    pub origin: Origin,
    /// The events as JSON text.
    pub body: Vec<u8>,
}

/// What a message holds. Other consumers than Herald see it in the routing key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// One event, of that type and with that `Id`.
    Event(EventType, EventId),
    /// An array, which no other consumer is promised to understand.
    Batch,
}

impl Route {
    /// The routing key, which names what is in the message.
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
    /// Its position in the queue.
    pub tag: Tag,
    /// Whether Herald itself put it into the queue, so that it may be an array.
    pub trusted: bool,
    /// Whether ingest accepted its events, which the message says by naming the time. A producer that publishes as
    /// Herald's own user does not name it.
    pub accepted: bool,
    /// The publisher's id for it: the event's `Id`, if the event has none.
    pub message_id: Option<String>,
    /// How often it was handed out before.
    pub redeliveries: u64,
    /// How its body is encoded, if the publisher said so.
    pub encoding: Option<String>,
    /// How it carries a CloudEvent, if its publisher said so.
    pub cloud_event: Option<Mode>,
    /// The length of its body, if it was too long; then only the beginning is here.
    pub cut: Option<usize>,
    /// The origins of its events, in their order.
    pub origins: Origins,
    /// The events as JSON text.
    pub body: Vec<u8>,
}

/// The origins of the events of one message; there is at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origins {
    /// The origin of the first events.
    pub first: Origin,
    /// The origins of the events behind them, in their order.
    pub others: Vec<Origin>,
}

impl Origins {
    /// The origins of the events, in their order.
    pub fn iter(&self) -> impl Iterator<Item = &Origin> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// How many events the message has.
    pub fn events(&self) -> usize {
        self.iter().map(|origin| origin.events).sum()
    }

    /// The origin of each event. Events beyond the number that is counted have the last origin.
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

/// A message's position in the queue. The default one is before all messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tag {
    /// The connection of the consumer, or the way of the embedded queue, that handed the message out. A tag means
    /// nothing to another one.
    generation: u64,
    place: i64,
}

impl Tag {
    /// Whether acknowledging `later` acknowledges this message too, if this was handed out first.
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
    /// The setup is wrong: somebody must change the URL, the user's rights, or what is declared.
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
    /// A queue of RabbitMQ.
    Rabbit(Rabbit),
}

impl Queue {
    /// The kind of queue, as OpenTelemetry's `messaging.system` names it.
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

    /// Acknowledges this message and every one handed out before it. For a message that was handed out before the
    /// consumer lost its connection this does nothing: that message comes again.
    pub async fn acknowledge(&self, up_to: Tag) -> Result<(), Error> {
        match self {
            Self::Embedded(queue) => queue.acknowledge(up_to).await,
            Self::Rabbit(queue) => {
                queue.acknowledge(up_to).await;
                Ok(())
            }
        }
    }

    /// Takes no more messages, and gives back those that are not acknowledged. While the ledger is away, another
    /// process may be able to record them, and the broker does not wait for ever for what it has handed out. The
    /// embedded queue has nothing to give back, because its ledger is the same file.
    pub fn pause(&self) {
        match self {
            Self::Embedded(_) => {}
            Self::Rabbit(queue) => queue.pause(true),
        }
    }

    /// Takes messages again after a pause.
    pub fn resume(&self) {
        match self {
            Self::Embedded(_) => {}
            Self::Rabbit(queue) => queue.pause(false),
        }
    }

    /// How much is in the queue: in the embedded one, the events that are not acknowledged; in RabbitMQ, the
    /// messages that are not handed out (see [`Rabbit::in_hand`] for those that are).
    pub async fn in_transit(&self) -> Result<u64, Error> {
        match self {
            Self::Embedded(queue) => queue.in_transit().await,
            Self::Rabbit(queue) => queue.in_transit().await,
        }
    }

    /// Registers the metrics of one side of the queue: for publishing the connection, if there is one; for
    /// consuming also what the queue holds.
    pub fn register_metrics(
        &self,
        queue_use: QueueUse,
        registry: &prometheus::Registry,
    ) -> Result<(), prometheus::Error> {
        match self {
            Self::Embedded(queue) => queue.register_metrics(queue_use, registry),
            Self::Rabbit(queue) => queue.register_metrics(queue_use, registry),
        }
    }

    /// Keeps the metrics of what the queue holds up to date. With RabbitMQ the consumer's connection does that.
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
    /// The consumer of the embedded queue.
    Embedded(Box<embedded::Consumer>),
    /// The consumer of RabbitMQ.
    Rabbit(rabbitmq::Consumer),
}

impl Consumer {
    /// The next messages. Waits for the first, and takes further ones that have arrived while together they stay near
    /// `max_events` and `max_bytes`. Safe to cancel.
    pub async fn next(&mut self, max_events: usize, max_bytes: usize) -> Result<Vec<Received>, Error> {
        match self {
            Self::Embedded(consumer) => consumer.next(max_events, max_bytes).await,
            Self::Rabbit(consumer) => consumer.next(max_events, max_bytes).await,
        }
    }
}

#[cfg(test)]
mod tests;
