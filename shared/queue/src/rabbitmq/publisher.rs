//! One task that owns one connection and one confirm channel.
//!
//! The channel is never shared: with the client, confirms of a channel that several tasks publish on
//! go to the wrong ones, refusals as acceptances among them. So callers hand their messages to the
//! task, which keeps many in flight and answers each when its own confirm comes.

use super::connection::{Settings, words};
use super::pulse::Pulse;
use super::{Error, PUBLISHER, topology};
use crate::metrics::Links;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use herald_ledger::reconnect::Delays;
use herald_telemetry::health::Health;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionStatus};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::MissedTickBehavior;

/// More in flight does not go faster, and makes every answer of the broker slower to take.
pub(super) const MAX_IN_FLIGHT: usize = 500;

/// How long a caller waits for its confirm. A broker that needs longer is in trouble, and a caller who
/// knows so can try again.
pub(super) const MAX_WAIT: Duration = Duration::from_secs(2);

/// How long closing may take; a broker that hangs says nothing.
const CLOSE: Duration = Duration::from_secs(1);

/// How often to look whether the connection is alive and not blocked: it may die while nobody publishes.
const LOOK: Duration = Duration::from_millis(200);

/// Hands messages to the task; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Publisher {
    publications: mpsc::Sender<Publication>,
    state: watch::Receiver<State>,
}

#[derive(Debug)]
enum State {
    Away(Error),
    Up(ConnectionStatus),
}

#[derive(Debug)]
struct Publication {
    exchange: &'static str,
    key: ShortString,
    properties: BasicProperties,
    body: Vec<u8>,
    answer: oneshot::Sender<Result<(), Error>>,
}

pub(super) fn open(settings: Arc<Settings>, health: Health, links: Arc<Links>) -> (Publisher, Task) {
    let connecting = "connecting";
    let (publications, taken) = mpsc::channel(MAX_IN_FLIGHT);
    let (announce, state) = watch::channel(State::Away(Error::away(connecting)));
    let task = Task {
        settings,
        publications: taken,
        face: Face {
            health,
            links,
            state: announce,
        },
    };
    (Publisher { publications, state }, task)
}

impl Publisher {
    /// Returns when the message is confirmed; an error says that it is not, or that nobody knows.
    pub(super) async fn publish(
        &self,
        exchange: &'static str,
        key: ShortString,
        properties: BasicProperties,
        body: Vec<u8>,
    ) -> Result<(), Error> {
        match &*self.state.borrow() {
            State::Away(why) => return Err(why.clone()),
            State::Up(status) if status.blocked() => return Err(Error::Blocked),
            State::Up(_) => {}
        }
        let (answer, answered) = oneshot::channel();
        let publication = Publication {
            exchange,
            key,
            properties,
            body,
            answer,
        };
        let confirmed = async {
            let sent = self.publications.send(publication).await;
            sent.map_err(|_returned| Error::away("the publisher has ended"))?;
            answered
                .await
                .map_err(|_dropped| Error::unconfirmed("the connection was lost"))?
        };
        // Whatever comes of it, the message goes on its way: the error means unknown.
        tokio::time::timeout(MAX_WAIT, confirmed)
            .await
            .unwrap_or(Err(Error::Slow))
    }
}

/// What the outside sees of the task.
#[derive(Debug)]
struct Face {
    health: Health,
    links: Arc<Links>,
    state: watch::Sender<State>,
}

impl Face {
    fn up(&self, status: ConnectionStatus) {
        self.links.publish.up();
        self.state.send_replace(State::Up(status));
        self.health.ok(PUBLISHER);
        tracing::info!("connected to RabbitMQ to publish");
    }

    fn away(&self, why: &Error) {
        self.links.publish.down();
        self.links.blocked.set(0);
        self.state.send_replace(State::Away(why.clone()));
        self.health.failing(PUBLISHER, why.to_string());
        tracing::warn!(%why, "cannot publish to RabbitMQ; trying again");
    }
}

/// The task.
#[derive(Debug)]
pub(super) struct Task {
    settings: Arc<Settings>,
    publications: mpsc::Receiver<Publication>,
    face: Face,
}

impl Task {
    /// Runs until the last [`Publisher`] is gone.
    pub(super) async fn run(self) {
        let Self {
            settings,
            mut publications,
            face,
        } = self;
        let mut delays = Delays::default();
        // Said here and not before: a process that publishes nothing does not run this.
        face.health.failing(PUBLISHER, "connecting");
        let mut why = Error::away("connecting");
        let mut wait = Duration::ZERO;
        loop {
            let connecting = async {
                tokio::time::sleep(wait).await;
                connect(&settings, &face.health).await
            };
            let connected = tokio::select! {
                connected = connecting => connected,
                () = refuse(&mut publications, &why) => return,
            };
            let lost = match connected {
                Err(error) => Err(error),
                Ok((connection, channel)) => {
                    delays.reset();
                    face.up(connection.status().clone());
                    serve(&connection, &channel, &mut publications, &face).await
                }
            };
            match lost {
                Ok(()) => return,
                Err(error) => why = error,
            }
            face.away(&why);
            wait = delays.next_delay();
        }
    }
}

async fn connect(settings: &Settings, health: &Health) -> Result<(Connection, Channel), Error> {
    let connection = settings.connect("herald publish").await?;
    topology::ensure(&connection, settings, |what| {
        health.failing(PUBLISHER, what);
        tracing::info!("{what}");
    })
    .await?;
    let open = async {
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(channel)
    };
    let channel = open.await.map_err(|error: lapin::Error| Error::away(words(&error)))?;
    Ok((connection, channel))
}

/// Refuses what comes, until nothing can come any more.
async fn refuse(publications: &mut mpsc::Receiver<Publication>, why: &Error) {
    while let Some(publication) = publications.recv().await {
        // Who has gone away does not want the answer.
        drop(publication.answer.send(Err(why.clone())));
    }
}

/// Publishes until the connection fails, which is an error, or nothing can come any more. What is in
/// flight at an error is told so by its answer being dropped.
async fn serve(
    connection: &Connection,
    channel: &Channel,
    publications: &mut mpsc::Receiver<Publication>,
    face: &Face,
) -> Result<(), Error> {
    let mut in_flight = FuturesUnordered::new();
    let mut pulse = Pulse::new(&face.health);
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut open = true;
    while open || !in_flight.is_empty() {
        tokio::select! {
            Some((answer, confirmed)) = in_flight.next(), if !in_flight.is_empty() => {
                pulse.beat();
                settle(answer, confirmed)?;
            }
            publication = publications.recv(), if open && in_flight.len() < MAX_IN_FLIGHT => match publication {
                // Whoever waited too long for his turn has been told so.
                Some(publication) if publication.answer.is_closed() => {}
                Some(publication) => {
                    if in_flight.is_empty() {
                        pulse.beat();
                    }
                    in_flight.push(send(channel, publication));
                }
                None => open = false,
            },
            _ = look.tick() => {
                if !channel.status().connected() {
                    return Err(Error::away("the connection was lost"));
                }
                let blocked = connection.status().blocked();
                face.links.blocked.set(blocked.into());
                pulse.look(blocked, in_flight.is_empty());
                if !open && pulse.stopped {
                    return Err(Error::away("ended before everything was confirmed"));
                }
            }
        }
    }
    // The broker's books are closed in order; at the worst they are closed by the socket's end.
    drop(tokio::time::timeout(CLOSE, connection.close(200, "OK".into())).await);
    Ok(())
}

async fn send(
    channel: &Channel,
    publication: Publication,
) -> (oneshot::Sender<Result<(), Error>>, lapin::Result<Confirmation>) {
    let Publication {
        exchange,
        key,
        properties,
        body,
        answer,
    } = publication;
    let sent = channel.basic_publish(exchange.into(), key, BasicPublishOptions::default(), &body, properties);
    let confirmed = match sent.await {
        Ok(confirm) => {
            drop(body);
            confirm.await
        }
        Err(error) => Err(error),
    };
    (answer, confirmed)
}

/// Answers; an error is of the whole channel.
fn settle(answer: oneshot::Sender<Result<(), Error>>, confirmed: lapin::Result<Confirmation>) -> Result<(), Error> {
    let (told, channel) = match confirmed {
        Ok(Confirmation::Ack(_)) => (Ok(()), Ok(())),
        Ok(Confirmation::Nack(_)) => (Err(Error::unconfirmed("RabbitMQ did not take it")), Ok(())),
        Ok(Confirmation::NotRequested) => {
            let error = Error::unconfirmed("the channel does not confirm");
            (Err(error.clone()), Err(error))
        }
        Err(error) => {
            let error = Error::unconfirmed(words(&error));
            (Err(error.clone()), Err(error))
        }
    };
    // Who has gone away, or has waited long enough, does not want the answer.
    drop(answer.send(told));
    channel
}
