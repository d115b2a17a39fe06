//! The publisher: one task that owns one connection and one confirm channel.
//!
//! No other task publishes on the channel. If several did, the client would give confirms to the wrong ones, and
//! report refusals as acceptances. So callers hand their messages to the task, which keeps several under way and
//! answers each when its own confirm comes.
//!
//! There are two ways to the task. Small requests go together, see [`super::group`], with a few groups under way. A
//! message that is large, or goes to another exchange, goes alone, and only few bytes of such messages are under
//! way, so that small requests do not wait long behind them. Each way has room for so many bytes. A message takes up
//! its room until it is confirmed or given up, however long its caller waits.

mod way;

use super::connection::{Settings, words};
use super::group;
use super::pulse::Pulse;
use super::{Error, PUBLISHER, topology, wire};
use crate::metrics::Links;
use crate::{Message, Route};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use herald_ledger::reconnect::Delays;
use herald_telemetry::health::Health;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionStatus};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;
use way::{Caller, Publication, Way};

/// The most messages in flight. More would not go faster, and would delay every answer of the broker.
pub(super) const MAX_IN_FLIGHT: usize = 500;

/// The most groups of small requests that are under way.
const MAX_GROUPS: usize = 4;

/// The number of bytes under way at which no more messages are sent that go alone.
const MAX_ALONE_BYTES: usize = 16 << 20;

/// Room for small requests and for messages that go alone, in bytes. The latter is more than twice the largest message.
const SMALL_ROOM: usize = 16 << 20;
const ALONE_ROOM: usize = 64 << 20;

/// How long closing may take. A broker that hangs does not answer.
const CLOSE: Duration = Duration::from_secs(1);

/// How often to look whether the connection is alive and not blocked: it may die while nobody publishes.
const LOOK: Duration = Duration::from_millis(200);

/// Hands messages to the task; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Publisher {
    small: Way<(Message, Route)>,
    alone: Way<Parcel>,
    state: watch::Receiver<State>,
    user: Arc<str>,
}

#[derive(Debug)]
enum State {
    Away(Error),
    Up(ConnectionStatus),
}

/// A message as it is sent.
#[derive(Debug)]
struct Parcel {
    exchange: &'static str,
    key: ShortString,
    properties: BasicProperties,
    body: Vec<u8>,
    /// How many events it has; 0 for a copy of a dead letter.
    events: usize,
}

pub(super) fn open(settings: Arc<Settings>, health: Health, links: Arc<Links>) -> (Publisher, Task) {
    let connecting = "connecting";
    let (small, small_taken) = Way::new(SMALL_ROOM);
    let (alone, alone_taken) = Way::new(ALONE_ROOM);
    let (announce, state) = watch::channel(State::Away(Error::away(connecting)));
    let user = settings.user().into();
    let task = Task {
        settings,
        taken: Taken {
            small: small_taken,
            alone: alone_taken,
        },
        face: Face {
            health,
            links,
            state: announce,
        },
    };
    let publisher = Publisher {
        small,
        alone,
        state,
        user,
    };
    (publisher, task)
}

impl Publisher {
    /// Publishes a message, and returns when it is confirmed. After an error it is refused, or its fate is unknown.
    pub(super) async fn publish(&self, message: Message, route: Route) -> Result<(), Error> {
        self.takes()?;
        let bytes = message.body.len();
        if bytes <= group::MAX_SMALL_BYTES {
            return self.small.publish((message, route), bytes).await;
        }
        let parcel = Parcel {
            exchange: topology::EVENTS,
            key: wire::short(route.key()),
            properties: wire::properties(&message.origin, &route, &self.user),
            body: message.body,
            events: message.origin.events,
        };
        self.alone.publish(parcel, bytes).await
    }

    /// Publishes a message to another exchange in the same way.
    pub(super) async fn publish_copy(
        &self,
        exchange: &'static str,
        key: ShortString,
        properties: BasicProperties,
        body: Vec<u8>,
    ) -> Result<(), Error> {
        self.takes()?;
        let bytes = body.len();
        let parcel = Parcel {
            exchange,
            key,
            properties,
            body,
            events: 0,
        };
        self.alone.publish(parcel, bytes).await
    }

    fn takes(&self) -> Result<(), Error> {
        match &*self.state.borrow() {
            State::Away(why) => Err(why.clone()),
            State::Up(status) if status.blocked() => Err(Error::Blocked),
            State::Up(_) => Ok(()),
        }
    }
}

/// The state of the task, as other parts see it.
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

/// The task that publishes.
#[derive(Debug)]
pub(super) struct Task {
    settings: Arc<Settings>,
    taken: Taken,
    face: Face,
}

/// The ends of both ways in the task.
#[derive(Debug)]
struct Taken {
    small: mpsc::Receiver<Publication<(Message, Route)>>,
    alone: mpsc::Receiver<Publication<Parcel>>,
}

impl Taken {
    /// Refuses all messages, until no more can come.
    async fn refuse(&mut self, why: &Error) {
        loop {
            let caller = tokio::select! {
                Some(publication) = self.small.recv() => publication.caller,
                Some(publication) = self.alone.recv() => publication.caller,
                else => return,
            };
            caller.tell(Err(why.clone()));
        }
    }
}

impl Task {
    /// Runs until the last [`Publisher`] is gone.
    pub(super) async fn run(self) {
        let Self {
            settings,
            mut taken,
            face,
        } = self;
        let mut delays = Delays::default();
        // Reported here and not before, because a process that publishes nothing does not run this.
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
                () = taken.refuse(&why) => return,
            };
            let lost = match connected {
                Err(error) => Err(error),
                Ok((connection, channel)) => {
                    delays.reset();
                    face.up(connection.status().clone());
                    let line = Line::new(&connection, &channel, settings.user());
                    serve(&line, &mut taken, &face).await
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

/// The connection to send over.
struct Line<'a> {
    connection: &'a Connection,
    channel: &'a Channel,
    user: &'a str,
    /// How many requests a group may have.
    most_requests: usize,
}

/// A message that was confirmed or refused, and the callers that wait to hear of it.
struct Settled {
    callers: Vec<Caller>,
    events: usize,
    way: UnderWay,
    confirmed: lapin::Result<Confirmation>,
}

/// How much is under way.
#[derive(Debug, Clone, Copy, Default)]
struct UnderWay {
    groups: usize,
    alone: usize,
    alone_bytes: usize,
}

impl UnderWay {
    fn add(&mut self, other: Self) {
        self.groups += other.groups;
        self.alone += other.alone;
        self.alone_bytes += other.alone_bytes;
    }

    fn take(&mut self, other: Self) {
        self.groups -= other.groups;
        self.alone -= other.alone;
        self.alone_bytes -= other.alone_bytes;
    }

    fn takes_groups(self) -> bool {
        self.groups < MAX_GROUPS
    }

    fn takes_alone(self) -> bool {
        self.alone < MAX_IN_FLIGHT && self.alone_bytes < MAX_ALONE_BYTES
    }
}

/// Publishes until the connection fails, which is an error, or no more messages can come. At an error the callers of
/// messages in flight are told by dropping their answers.
async fn serve(line: &Line<'_>, taken: &mut Taken, face: &Face) -> Result<(), Error> {
    let mut in_flight = FuturesUnordered::new();
    let mut under_way = UnderWay::default();
    let mut waiting = VecDeque::new();
    let mut arrived = Vec::new();
    let mut pulse = Pulse::new(&face.health);
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut small_open, mut alone_open) = (true, true);
    while small_open || alone_open || !in_flight.is_empty() {
        let was_idle = in_flight.is_empty();
        tokio::select! {
            Some(settled) = in_flight.next(), if !in_flight.is_empty() => {
                pulse.beat();
                let Settled { callers, events, way, confirmed } = settled;
                under_way.take(way);
                if matches!(confirmed, Ok(Confirmation::Ack(_))) {
                    face.links.published(events);
                }
                settle(callers, confirmed)?;
            }
            count = taken.small.recv_many(&mut arrived, MAX_IN_FLIGHT),
                if small_open && waiting.is_empty() && under_way.takes_groups() =>
            {
                small_open = count > 0;
                waiting.extend(arrived.drain(..).filter(|publication: &Publication<_>| publication.caller.waits()));
            }
            publication = taken.alone.recv(), if alone_open && under_way.takes_alone() => match publication {
                Some(publication) if !publication.caller.waits() => {}
                Some(Publication { what, bytes, caller }) => {
                    let way = UnderWay { alone: 1, alone_bytes: bytes, ..UnderWay::default() };
                    under_way.add(way);
                    in_flight.push(line.send(what, vec![caller], way));
                }
                None => alone_open = false,
            },
            _ = look.tick() => {
                if !line.channel.status().connected() {
                    return Err(Error::away("the connection was lost"));
                }
                let blocked = line.connection.status().blocked();
                face.links.blocked.set(blocked.into());
                pulse.look(blocked, in_flight.is_empty());
                if !small_open && !alone_open && pulse.stopped {
                    return Err(Error::away("ended before everything was confirmed"));
                }
            }
        }
        while under_way.takes_groups() && !waiting.is_empty() {
            let group = group::take(&mut waiting, line.most_requests, |publication| &publication.what.0);
            let way = UnderWay {
                groups: 1,
                ..UnderWay::default()
            };
            if let Some((parcel, callers)) = line.together(group) {
                under_way.add(way);
                in_flight.push(line.send(parcel, callers, way));
            }
        }
        if was_idle && !in_flight.is_empty() {
            pulse.beat();
        }
    }
    // A clean close. If it fails, the end of the socket closes the connection.
    drop(tokio::time::timeout(CLOSE, line.connection.close(200, "OK".into())).await);
    Ok(())
}

impl<'a> Line<'a> {
    fn new(connection: &'a Connection, channel: &'a Channel, user: &'a str) -> Self {
        Self {
            connection,
            channel,
            user,
            most_requests: group::most_requests(connection.configuration().frame_max()),
        }
    }

    /// A group as one message.
    fn together(&self, group: Vec<Publication<(Message, Route)>>) -> Option<(Parcel, Vec<Caller>)> {
        let mut callers = Vec::with_capacity(group.len());
        let mut requests = Vec::with_capacity(group.len());
        let mut events = 0;
        for Publication { what, caller, .. } in group {
            events += what.0.origin.events;
            requests.push(what);
            callers.push(caller);
        }
        let (key, properties, body) = group::message(requests, self.user)?;
        let parcel = Parcel {
            exchange: topology::EVENTS,
            key,
            properties,
            body,
            events,
        };
        Some((parcel, callers))
    }

    async fn send(&self, parcel: Parcel, callers: Vec<Caller>, way: UnderWay) -> Settled {
        let Parcel {
            exchange,
            key,
            properties,
            body,
            events,
        } = parcel;
        let sent = self
            .channel
            .basic_publish(exchange.into(), key, BasicPublishOptions::default(), &body, properties);
        let confirmed = match sent.await {
            Ok(confirm) => {
                drop(body);
                confirm.await
            }
            Err(error) => Err(error),
        };
        Settled {
            callers,
            events,
            way,
            confirmed,
        }
    }
}

/// Answers the callers of a message. An error concerns the whole channel.
fn settle(callers: Vec<Caller>, confirmed: lapin::Result<Confirmation>) -> Result<(), Error> {
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
    for caller in callers {
        caller.tell(told.clone());
    }
    channel
}
