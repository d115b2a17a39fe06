//! The consumer: one connection that fills an inbox.
//!
//! A task of its own receives, so that a fault of the connection is seen however long dispatch is busy. Dispatch takes
//! messages from the inbox. The bytes that are received ahead are bounded, see [`super::window`].

use super::connection::{Settings, words};
use super::inbox::Inbox;
use super::transport::Valve;
use super::window::{Advice, Window};
use super::{CONSUMER, Error, Rabbit, topology, wire};
use crate::Received;
use crate::metrics::{Depths, LOOK_EVERY, Links};
use futures_util::StreamExt;
use herald_domain::time::Clock;
use herald_ledger::reconnect::Delays;
use herald_telemetry::health::Health;
use lapin::message::Delivery;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection};
use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

/// How often to look whether an idle connection is still there.
const LOOK: Duration = Duration::from_millis(200);

/// How long giving back may take. If it takes longer, the end of the connection gives back.
const GIVE_BACK: Duration = Duration::from_secs(5);

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

    /// Messages that have arrived, within those bounds, but at least one. Waits for the first, also while the broker is
    /// away.
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
                () = self.inbox.arrived() => {}
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
        let mut window = Window::new(self.settings.budget);
        loop {
            let why = match self.connect().await {
                Ok((connection, valve)) => {
                    delays.reset();
                    self.links.consume.up();
                    self.health.ok(CONSUMER);
                    tracing::info!("connected to RabbitMQ to consume");
                    let why = tokio::select! {
                        why = self.receive(&connection, &mut window) => why,
                        never = self.watch(&connection) => match never {},
                    };
                    // Otherwise the client would read everything that RabbitMQ has sent before it notices the end.
                    valve.close();
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

    async fn connect(&self) -> Result<(Connection, Valve), Error> {
        let valve = Valve::default();
        let connection = self.settings.connect_through(&valve, "herald consume").await?;
        topology::ensure(&connection, &self.settings, |what| {
            self.health.failing(CONSUMER, what);
        })
        .await?;
        Ok((connection, valve))
    }

    /// Receives until that fails. Returns the reason.
    async fn receive(&self, connection: &Connection, window: &mut Window) -> Error {
        loop {
            tokio::select! {
                () = self.inbox.wanted() => {}
                why = lost(|| connection.status().connected()) => return why,
            }
            if let Err(why) = self.receive_on_a_channel(connection, window).await {
                return why;
            }
            tracing::info!("consuming is paused; what is not recorded was given back to RabbitMQ");
        }
    }

    /// Receives until no messages are wanted, and gives back those in hand by ending the channel.
    async fn receive_on_a_channel(&self, connection: &Connection, window: &mut Window) -> Result<(), Error> {
        let channel = connection.create_channel().await.map_err(away)?;
        let generation = self.inbox.begin(channel.clone());
        loop {
            let mut deliveries = subscribe(&channel, window.subscribe()).await.map_err(away)?;
            self.take(&mut deliveries, generation, window).await?;
            self.stop(&channel, &mut deliveries, generation, window).await?;
            tokio::select! {
                biased;
                () = self.inbox.unwanted() => break,
                () = self.inbox.broken() => return Err(unsent()),
                () = self.inbox.room(window.room()) => {}
                why = lost(|| channel.status().connected()) => return Err(why),
            }
        }
        let closed = tokio::time::timeout(GIVE_BACK, channel.close(200, "OK".into())).await;
        self.inbox.end();
        let in_time = closed.map_err(|_elapsed| Error::away("RabbitMQ does not take back what it handed out"))?;
        in_time.map_err(away)
    }

    /// Takes what comes until the subscription is to end.
    async fn take(&self, deliveries: &mut lapin::Consumer, generation: u64, window: &mut Window) -> Result<(), Error> {
        loop {
            let delivery = tokio::select! {
                delivery = deliveries.next() => delivery,
                () = self.inbox.broken() => return Err(unsent()),
                () = self.inbox.unwanted() => return Ok(()),
            };
            // No error comes when the queue is deleted.
            let gone = || Error::away(format!("the queue {} is gone", topology::EVENTS));
            match self.put(delivery.ok_or_else(gone)?, generation, window)? {
                Advice::GoOn => {}
                Advice::Anew => return Ok(()),
                Advice::GiveBack => return Err(too_much()),
            }
        }
    }

    /// Ends a subscription, and takes what was on its way.
    async fn stop(
        &self,
        channel: &Channel,
        deliveries: &mut lapin::Consumer,
        generation: u64,
        window: &mut Window,
    ) -> Result<(), Error> {
        let mut cancelling = pin!(channel.basic_cancel(deliveries.tag(), BasicCancelOptions::default()));
        let mut cancelled = false;
        loop {
            tokio::select! {
                done = &mut cancelling, if !cancelled => {
                    done.map_err(away)?;
                    cancelled = true;
                }
                delivery = deliveries.next() => match delivery {
                    None => return Ok(()),
                    Some(delivery) => {
                        if self.put(delivery, generation, window)? == Advice::GiveBack {
                            return Err(too_much());
                        }
                    }
                },
            }
        }
    }

    fn put(&self, delivery: lapin::Result<Delivery>, generation: u64, window: &mut Window) -> Result<Advice, Error> {
        let trusted = &self.settings.trusted_users;
        let received = wire::read(delivery.map_err(away)?, generation, trusted, self.clock.now());
        let bytes = received.body.len();
        let in_hand = self.inbox.put(received);
        Ok(window.received(bytes, in_hand))
    }

    /// Keeps the metrics of what the queues hold up to date.
    async fn watch(&self, connection: &Connection) -> Infallible {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut channel = None;
        loop {
            looks.tick().await;
            self.depths.set_in_hand(self.inbox.in_hand());
            // On a channel of its own: RabbitMQ closes the channel if somebody has deleted the queue.
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
            let ready = queue.message_count().into();
            self.depths.set(name, ready, queue.consumer_count().into());
            if name == topology::EVENTS {
                self.depths.estimate(ready, self.inbox.mean_events());
            }
        }
        Ok(channel)
    }
}

async fn subscribe(channel: &Channel, prefetch: u16) -> Result<lapin::Consumer, lapin::Error> {
    channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
    let consumer = channel.basic_consume(
        topology::EVENTS.into(),
        "".into(),
        BasicConsumeOptions::default(),
        FieldTable::default(),
    );
    consumer.await
}

/// Returns when the connection is lost.
async fn lost(connected: impl Fn() -> bool) -> Error {
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        if !connected() {
            return Error::away("the connection was lost");
        }
    }
}

fn too_much() -> Error {
    Error::away("more came at once than is kept in memory; it is received again in smaller portions")
}

fn unsent() -> Error {
    Error::away("an acknowledgement could not be sent")
}

#[expect(clippy::needless_pass_by_value, reason = "it is given to map_err")]
fn away(error: lapin::Error) -> Error {
    Error::away(words(&error))
}
