//! The queue in RabbitMQ: a quorum queue behind a topic exchange, published to with confirms.
//!
//! | module | what it does |
//! |---|---|
//! | `connection` | connects, and says in words why not |
//! | `transport` | the connection's bytes, made readable for the client whatever a producer put into a message |
//! | `hello` | asks for the server's version |
//! | `topology` | declares exchanges and queues, and waits until they are safe to use |
//! | `wire` | messages as properties and headers, both ways |
//! | `publisher` | one task, one connection, one channel: publishes, and answers when confirmed |
//! | `group` | which requests go together in one message |
//! | `pulse` | whether confirms keep coming |
//! | `consumer` | one connection that fills an inbox |
//! | `inbox` | what is received and not acknowledged |
//! | `window` | how much is received ahead, in bytes |
//! | `client` | publishes for a producer that is not Herald |
//!
//! Publishing and consuming have a connection each: when RabbitMQ is low on memory or disk, it blocks every
//! connection that publishes, with its acknowledgements. Neither connection uses the client's own recovery, which
//! lets confirms hang until the broker is back. Instead any error drops the connection, the messages in flight are
//! answered with "unknown", and a new connection is made after a while.

mod client;
mod connection;
mod consumer;
mod group;
mod hello;
mod inbox;
mod publisher;
mod pulse;
mod topology;
mod transport;
mod window;
mod wire;

use crate::metrics::{Depths, Links, QueueUse};
use crate::{Error, Message, Route, Tag};
pub use client::{Client, Outgoing};
pub use connection::Settings;
pub use consumer::Consumer;
use herald_domain::time::Clock;
use herald_telemetry::health::Health;
use inbox::Inbox;
use publisher::Publisher;
use std::sync::Arc;
use std::time::Duration;
use topology::Standing;
use uuid::Uuid;

/// The names of the parts under which the connections report their health.
const PUBLISHER: &str = "queue publisher";
const CONSUMER: &str = "queue consumer";

/// How long a caller waits for its confirm. A broker that needs longer is in trouble, and a caller that is told so
/// can try again.
const MAX_WAIT: Duration = Duration::from_secs(2);

/// The queue in one RabbitMQ; cheap to clone.
#[derive(Debug, Clone)]
pub struct Rabbit {
    settings: Arc<Settings>,
    clock: Arc<dyn Clock>,
    health: Health,
    publisher: Publisher,
    inbox: Arc<Inbox>,
    links: Arc<Links>,
    depths: Arc<Depths>,
}

/// The state of the connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// Messages can be published.
    pub publisher_connected: bool,
    /// Whether messages are received.
    pub consumer_connected: bool,
    /// How often the publisher's connection was made again.
    pub publisher_reconnections: u64,
    /// How often the consumer's connection was made again.
    pub consumer_reconnections: u64,
    /// Messages received and not acknowledged, which [`depth`] does not see.
    pub in_hand: u64,
    /// The bytes of their bodies.
    pub in_hand_bytes: u64,
}

/// The content of a queue, as RabbitMQ tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depth {
    /// Messages that are not handed out to a consumer.
    pub ready: u64,
    /// Consumers, in any process.
    pub consumers: u64,
}

impl Rabbit {
    /// The queue in that RabbitMQ, and its publisher, which the caller runs. The publisher connects, and connects
    /// again, by itself, and ends when the last handle is gone. Both connections report to `health`.
    pub fn open(
        settings: Settings,
        clock: Arc<dyn Clock>,
        health: Health,
    ) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (settings, links) = (Arc::new(settings), Arc::new(Links::default()));
        let (publisher, task) = publisher::open(Arc::clone(&settings), health.clone(), Arc::clone(&links));
        let rabbit = Self {
            settings,
            clock,
            health,
            publisher,
            inbox: Arc::default(),
            links,
            depths: Arc::new(Depths::of(&topology::QUEUES)),
        };
        (rabbit, task.run())
    }

    pub(crate) async fn publish(&self, message: Message, route: &Route) -> Result<(), Error> {
        self.publisher.publish(message, route.clone()).await
    }

    /// Publishes a copy of a dead letter, durably.
    pub async fn publish_dead_letter(&self, key: &str, message_id: Uuid, body: Vec<u8>) -> Result<(), Error> {
        let properties = wire::plain(self.settings.user()).with_message_id(wire::short(&message_id.to_string()));
        self.publisher
            .publish_copy(topology::DEAD_LETTERS, wire::short(key), properties, body)
            .await
    }

    pub(crate) fn consumer(&self) -> Consumer {
        Consumer::start(self)
    }

    pub(crate) async fn acknowledge(&self, up_to: Tag) {
        self.inbox.acknowledge(up_to).await;
    }

    pub(crate) fn pause(&self, paused: bool) {
        self.inbox.pause(paused);
    }

    pub(crate) async fn in_transit(&self) -> Result<u64, Error> {
        depth(&self.settings).await.map(|depth| depth.ready)
    }

    /// The state of the connections.
    pub fn status(&self) -> Status {
        let Links { publish, consume, .. } = &*self.links;
        let in_hand = self.inbox.in_hand();
        Status {
            publisher_connected: publish.is_connected(),
            consumer_connected: consume.is_connected(),
            publisher_reconnections: publish.reconnections(),
            consumer_reconnections: consume.reconnections(),
            in_hand: in_hand.messages,
            in_hand_bytes: in_hand.bytes,
        }
    }

    /// How many messages this process has received and not acknowledged.
    pub fn in_hand(&self) -> u64 {
        self.inbox.in_hand().messages
    }

    /// Registers the metrics of one connection; with the one that consumes, those of what the queues hold too.
    pub(crate) fn register_metrics(
        &self,
        queue_use: QueueUse,
        registry: &prometheus::Registry,
    ) -> Result<(), prometheus::Error> {
        self.links.register(queue_use, registry)?;
        match queue_use {
            QueueUse::Publish => Ok(()),
            QueueUse::Consume => self.depths.register(registry),
        }
    }
}

/// Declares exchanges and queues, and returns when they are safe to use. If they are not there and the user may not
/// declare them, that is an error.
pub async fn declare(settings: &Settings) -> Result<(), Error> {
    let connection = settings.connect("herald migrate").await?;
    let standing = topology::try_ensure(&connection, settings, |what| tracing::info!("{what}")).await?;
    match standing {
        Standing::Settled => Ok(()),
        Standing::MayNotDeclare(why) => Err(Error::setup(why)),
    }
}

/// What the event queue holds, over a connection of its own.
pub async fn depth(settings: &Settings) -> Result<Depth, Error> {
    let connection = settings.connect("herald audit").await?;
    let ask = async {
        let channel = connection.create_channel().await?;
        topology::ask_queue(&channel, topology::EVENTS).await
    };
    let queue = ask.await.map_err(|error| {
        let words = connection::words(&error);
        Error::away(format!("the queue {} cannot be looked at: {words}", topology::EVENTS))
    })?;
    Ok(Depth {
        ready: queue.message_count().into(),
        consumers: queue.consumer_count().into(),
    })
}
