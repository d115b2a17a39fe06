//! What is counted and known of the queue and the connections to it.

use prometheus::{Error, IntCounter, IntGauge, IntGaugeVec, Opts, Registry};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often the depth of queues is looked at.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What a process does with the queue. RabbitMQ has a connection for either.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueUse {
    /// Publishing, as ingest does.
    Publish,
    /// Consuming, as dispatch does.
    Consume,
}

/// What the queues hold, as of the last look.
#[derive(Debug)]
pub(crate) struct Depths {
    ready: IntGaugeVec,
    events_ready: IntGauge,
    consumers: IntGaugeVec,
    unacknowledged: IntGauge,
    unacknowledged_events: IntGauge,
    unacknowledged_bytes: IntGauge,
}

impl Depths {
    /// Of these queues, which are there with 0 from the start.
    pub(crate) fn of(queues: &[&'static str]) -> Self {
        let vector = |name: &str, help: &str| {
            IntGaugeVec::new(Opts::new(name, help), &["queue"]).expect("the metric's name and label are well formed")
        };
        let depths = Self {
            ready: vector(
                "herald_queue_messages_ready",
                "Messages in the queue that are not handed out to a consumer, as the broker says; of the embedded \
                 queue, those that are not acknowledged.",
            ),
            events_ready: IntGauge::new(
                "herald_queue_events_ready",
                "Events in the messages that wait in the queue herald.events: their number times the mean of the events \
                 in those that came out of it last.",
            )
            .expect("the metric's name is well formed"),
            consumers: vector(
                "herald_queue_consumers",
                "Consumers of the queue in any process, as the broker says.",
            ),
            unacknowledged: IntGauge::new(
                "herald_queue_messages_unacknowledged",
                "Messages that this process has received and not acknowledged.",
            )
            .expect("the metric's name is well formed"),
            unacknowledged_events: IntGauge::new(
                "herald_queue_events_unacknowledged",
                "Events in the messages that this process has received and not acknowledged.",
            )
            .expect("the metric's name is well formed"),
            unacknowledged_bytes: IntGauge::new(
                "herald_queue_unacknowledged_bytes",
                "Bytes of the messages that this process has received and not acknowledged.",
            )
            .expect("the metric's name is well formed"),
        };
        for queue in queues {
            depths.set(queue, 0, 0);
        }
        depths
    }

    pub(crate) fn set(&self, queue: &str, ready: u64, consumers: u64) {
        self.ready.with_label_values(&[queue]).set(gauge(ready));
        self.consumers.with_label_values(&[queue]).set(gauge(consumers));
    }

    /// So many messages wait, of so many events each in the mean.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "it is an estimate"
    )]
    pub(crate) fn estimate(&self, ready: u64, mean: f64) {
        self.events_ready.set((ready as f64 * mean).round() as i64);
    }

    pub(crate) fn set_in_hand(&self, in_hand: InHand) {
        self.unacknowledged.set(gauge(in_hand.messages));
        self.unacknowledged_events.set(gauge(in_hand.events));
        self.unacknowledged_bytes.set(gauge(in_hand.bytes));
    }

    pub(crate) fn register(&self, registry: &Registry) -> Result<(), Error> {
        registry.register(Box::new(self.ready.clone()))?;
        registry.register(Box::new(self.events_ready.clone()))?;
        registry.register(Box::new(self.consumers.clone()))?;
        registry.register(Box::new(self.unacknowledged.clone()))?;
        registry.register(Box::new(self.unacknowledged_events.clone()))?;
        registry.register(Box::new(self.unacknowledged_bytes.clone()))
    }
}

/// What a process has received and not acknowledged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct InHand {
    pub(crate) messages: u64,
    pub(crate) events: u64,
    pub(crate) bytes: u64,
}

fn gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The two connections to RabbitMQ.
#[derive(Debug)]
pub(crate) struct Links {
    pub(crate) publish: Link,
    pub(crate) consume: Link,
    /// Whether the broker takes nothing from publishers.
    pub(crate) blocked: IntGauge,
    published_messages: IntCounter,
    published_events: IntCounter,
}

impl Default for Links {
    fn default() -> Self {
        let counter = |name: &str, help: &str| IntCounter::new(name, help).expect("the metric's name is well formed");
        Self {
            publish: Link::new("publish"),
            consume: Link::new("consume"),
            blocked: IntGauge::new(
                "herald_broker_blocked",
                "1 while RabbitMQ takes nothing from publishers because it is low on memory or disk.",
            )
            .expect("the metric's name is well formed"),
            published_messages: counter(
                "herald_queue_messages_published_total",
                "Messages of events that RabbitMQ has confirmed; requests that arrive together share one.",
            ),
            published_events: counter(
                "herald_queue_events_published_total",
                "Events in messages that RabbitMQ has confirmed.",
            ),
        }
    }
}

impl Links {
    /// RabbitMQ has confirmed a message of that many events.
    pub(crate) fn published(&self, events: usize) {
        if events > 0 {
            self.published_messages.inc();
            self.published_events.inc_by(u64::try_from(events).unwrap_or(u64::MAX));
        }
    }

    pub(crate) fn register(&self, queue_use: QueueUse, registry: &Registry) -> Result<(), Error> {
        match queue_use {
            QueueUse::Publish => {
                registry.register(Box::new(self.blocked.clone()))?;
                registry.register(Box::new(self.published_messages.clone()))?;
                registry.register(Box::new(self.published_events.clone()))?;
                self.publish.register(registry)
            }
            QueueUse::Consume => self.consume.register(registry),
        }
    }
}

/// What is known of one connection to RabbitMQ.
#[derive(Debug)]
pub(crate) struct Link {
    connected: IntGauge,
    /// It has been connected before.
    known: AtomicBool,
    reconnections: IntCounter,
}

impl Link {
    fn new(name: &str) -> Self {
        let options = |metric: &str, help: &str| Opts::new(metric, help).const_label("connection", name);
        let connected = options(
            "herald_broker_connected",
            "1 while the connection to RabbitMQ is there and in use.",
        );
        let reconnections = options(
            "herald_broker_reconnections_total",
            "Connections to RabbitMQ made again after one was lost.",
        );
        let well_formed = "the metric's name and label are well formed";
        Self {
            connected: IntGauge::with_opts(connected).expect(well_formed),
            known: AtomicBool::new(false),
            reconnections: IntCounter::with_opts(reconnections).expect(well_formed),
        }
    }

    pub(crate) fn up(&self) {
        if self.known.swap(true, Ordering::Relaxed) {
            self.reconnections.inc();
        }
        self.connected.set(1);
    }

    pub(crate) fn down(&self) {
        self.connected.set(0);
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.connected.get() != 0
    }

    pub(crate) fn reconnections(&self) -> u64 {
        self.reconnections.get()
    }

    fn register(&self, registry: &Registry) -> Result<(), Error> {
        registry.register(Box::new(self.connected.clone()))?;
        registry.register(Box::new(self.reconnections.clone()))
    }
}
