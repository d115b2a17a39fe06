//! One connection that fills an inbox.
//!
//! A task receives, so that what is wrong with the connection is seen however long dispatch is busy;
//! dispatch takes from the inbox. With each connection a generation begins: tags of an earlier one
//! mean nothing to the broker any more, which hands their messages out again, so the inbox is emptied
//! and acknowledgements of them are void.

use super::connection::{Settings, words};
use super::{CONSUMER, Error, Rabbit, topology, wire};
use crate::metrics::{Depths, LOOK_EVERY, Links};
use crate::{Received, Tag};
use futures_util::{FutureExt, StreamExt};
use herald_domain::time::Clock;
use herald_ledger::reconnect::Delays;
use herald_telemetry::health::Health;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

/// How many messages the broker hands out ahead of their acknowledgement: about a batch of dispatch's.
const PREFETCH: u16 = 500;

/// How long an acknowledgement may take to be written; what does not take it is dead.
const ACKNOWLEDGE: Duration = Duration::from_secs(5);

/// What has arrived and was not acknowledged; where dispatch and the connection's task meet.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    state: Mutex<State>,
    arrived: Notify,
    /// An acknowledgement could not be sent.
    broken: Notify,
}

#[derive(Debug, Default)]
struct State {
    generation: u64,
    channel: Option<Channel>,
    arrived: VecDeque<Received>,
    /// Tags count from 1 with each generation, so these are also how many.
    received: i64,
    acknowledged: i64,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, channel: Channel) -> u64 {
        // What a former connection may have left behind.
        let _former = self.broken.notified().now_or_never();
        let mut state = self.lock();
        state.channel = Some(channel);
        state.generation
    }

    /// The connection is gone: what came over it comes again.
    fn end(&self) {
        let mut state = self.lock();
        *state = State {
            generation: state.generation + 1,
            ..State::default()
        };
    }

    fn put(&self, received: Received) {
        let mut state = self.lock();
        state.received = received.tag.place;
        state.arrived.push_back(received);
        drop(state);
        self.arrived.notify_one();
    }

    fn take(&self, max_events: usize, max_bytes: usize) -> Vec<Received> {
        let mut state = self.lock();
        let (mut events, mut bytes) = (0, 0);
        let mut fits = 0;
        for received in &state.arrived {
            events += received.message.events;
            bytes += received.message.body.len();
            if fits > 0 && (events > max_events || bytes > max_bytes) {
                break;
            }
            fits += 1;
        }
        state.arrived.drain(..fits).collect()
    }

    pub(super) fn held(&self) -> u64 {
        let state = self.lock();
        u64::try_from(state.received - state.acknowledged).unwrap_or(0)
    }

    pub(super) async fn acknowledge(&self, up_to: Tag) {
        let Some(channel) = self.acknowledging(up_to) else {
            return;
        };
        let multiple = BasicAckOptions { multiple: true };
        let tag = u64::try_from(up_to.place).unwrap_or(0);
        let sent = tokio::time::timeout(ACKNOWLEDGE, channel.basic_ack(tag, multiple)).await;
        if !matches!(sent, Ok(Ok(()))) && self.lock().generation == up_to.generation {
            self.broken.notify_one();
        }
    }

    /// The channel to acknowledge on, if the tag is one of its own.
    fn acknowledging(&self, up_to: Tag) -> Option<Channel> {
        let mut state = self.lock();
        if state.generation != up_to.generation || up_to.place <= state.acknowledged {
            return None;
        }
        state.acknowledged = up_to.place;
        state.channel.clone()
    }
}

/// Reads the queue in RabbitMQ.
#[derive(Debug)]
pub struct Consumer {
    inbox: Arc<Inbox>,
    receiving: JoinHandle<()>,
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.receiving.abort();
        self.inbox.end();
    }
}

impl Consumer {
    pub(super) fn start(rabbit: &Rabbit) -> Self {
        let receiver = Receiver {
            settings: Arc::clone(&rabbit.settings),
            clock: Arc::clone(&rabbit.clock),
            health: rabbit.health.clone(),
            links: Arc::clone(&rabbit.links),
            depths: Arc::clone(&rabbit.depths),
            inbox: Arc::clone(&rabbit.inbox),
        };
        receiver.health.failing(CONSUMER, "connecting");
        Self {
            inbox: Arc::clone(&rabbit.inbox),
            receiving: tokio::spawn(receiver.run()),
        }
    }

    /// What has arrived, within those bounds, but at least one message; waits for it, also while the
    /// broker is away.
    pub(crate) async fn next(&mut self, max_events: usize, max_bytes: usize) -> Result<Vec<Received>, Error> {
        loop {
            let taken = self.inbox.take(max_events, max_bytes);
            if !taken.is_empty() {
                return Ok(taken);
            }
            let died = || Error::away("the task that receives has died");
            if self.receiving.is_finished() {
                return Err(died());
            }
            tokio::select! {
                () = self.inbox.arrived.notified() => {}
                _ended = &mut self.receiving => return Err(died()),
            }
        }
    }
}

struct Receiver {
    settings: Arc<Settings>,
    clock: Arc<dyn Clock>,
    health: Health,
    links: Arc<Links>,
    depths: Arc<Depths>,
    inbox: Arc<Inbox>,
}

impl Receiver {
    /// Connects and receives, again and again.
    async fn run(self) {
        let mut delays = Delays::default();
        loop {
            let why = match self.connect().await {
                Ok((connection, stream)) => {
                    delays.reset();
                    self.links.consume.up();
                    self.health.ok(CONSUMER);
                    tracing::info!("connected to RabbitMQ to consume");
                    let why = tokio::select! {
                        why = self.receive(stream) => why,
                        never = self.watch(&connection) => match never {},
                    };
                    drop(connection);
                    why
                }
                Err(why) => why,
            };
            self.inbox.end();
            self.links.consume.down();
            self.health.failing(CONSUMER, why.to_string());
            tracing::warn!(%why, "cannot consume from RabbitMQ; trying again");
            tokio::time::sleep(delays.next_delay()).await;
        }
    }

    async fn connect(&self) -> Result<(Connection, Stream), Error> {
        let connection = self.settings.connect("herald consume").await?;
        topology::ensure(&connection, &self.settings, |what| {
            self.health.failing(CONSUMER, what);
        })
        .await?;
        let consume = async {
            let channel = connection.create_channel().await?;
            channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
            let deliveries = channel.basic_consume(
                topology::EVENTS.into(),
                "".into(),
                BasicConsumeOptions::default(),
                FieldTable::default(),
            );
            let deliveries = deliveries.await?;
            let generation = self.inbox.begin(channel);
            Ok(Stream { deliveries, generation })
        };
        let stream = consume
            .await
            .map_err(|error: lapin::Error| Error::away(words(&error)))?;
        Ok((connection, stream))
    }

    /// Looks again and again what the queues hold.
    async fn watch(&self, connection: &Connection) -> Infallible {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut channel = None;
        loop {
            looks.tick().await;
            self.depths.hold(self.inbox.held());
            // On a channel of its own: one that asks for a queue that somebody deleted is closed.
            channel = match self.look(connection, channel).await {
                Ok(channel) => Some(channel),
                Err(error) => {
                    tracing::debug!(why = words(&error), "the queues' depth could not be looked at");
                    None
                }
            };
        }
    }

    async fn look(&self, connection: &Connection, channel: Option<Channel>) -> Result<Channel, lapin::Error> {
        let channel = match channel {
            Some(channel) => channel,
            None => connection.create_channel().await?,
        };
        for name in topology::QUEUES {
            let queue = topology::ask_queue(&channel, name).await?;
            self.depths
                .set(name, queue.message_count().into(), queue.consumer_count().into());
        }
        Ok(channel)
    }

    /// Receives until it cannot; why.
    async fn receive(&self, stream: Stream) -> Error {
        let Stream {
            mut deliveries,
            generation,
        } = stream;
        loop {
            let delivery = tokio::select! {
                delivery = deliveries.next() => delivery,
                () = self.inbox.broken.notified() => return Error::away("an acknowledgement could not be sent"),
            };
            match delivery {
                Some(Ok(delivery)) => {
                    let now = self.clock.now();
                    let trusted = &self.settings.trusted_users;
                    self.inbox.put(wire::read(delivery, generation, trusted, now));
                }
                Some(Err(error)) => return Error::away(words(&error)),
                // No error comes when the queue is deleted.
                None => return Error::away(format!("the queue {} is gone", topology::EVENTS)),
            }
        }
    }
}

struct Stream {
    deliveries: lapin::Consumer,
    generation: u64,
}
