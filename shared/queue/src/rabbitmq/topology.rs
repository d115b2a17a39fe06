//! The exchanges and queues, which are declared at deployment or start.
//!
//! ```text
//! herald.events (topic) ──#──▶ herald.events (quorum)
//!   └─ whatever no binding takes ─▶ herald.unrouted (fanout) ─▶ herald.unrouted (quorum)
//! herald.dead-letters (topic) ──#──▶ herald.dead-letters (quorum, bounded, drops the oldest)
//! herald.settled (fanout), without a queue: says that the queues are old enough
//! ```
//!
//! A quorum queue is lost, with the messages that were confirmed into it, if its node is killed within moments of the
//! declaration. So nothing is accepted before the queues are some seconds old. The broker itself tells when they are:
//! the exchange `herald.settled` is declared that long after them.

use super::Error;
use super::connection::{Objection, Settings, words};
use lapin::options::{ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, Connection, ExchangeKind};
use std::time::Duration;

/// The exchange that producers publish to, and the queue that dispatch reads.
pub(super) const EVENTS: &str = crate::NAME;

/// The exchange and the queue for copies of dead letters.
pub(super) const DEAD_LETTERS: &str = "herald.dead-letters";

/// The exchange that catches messages which would be lost without a word if somebody changed the bindings. The flag
/// `mandatory` is not used for that: the client attributes returns to the wrong message when several are on their way.
const UNROUTED: &str = "herald.unrouted";

pub(super) const QUEUES: [&str; 3] = [EVENTS, UNROUTED, DEAD_LETTERS];

/// The exchange that marks the queues as old enough.
const SETTLED: &str = "herald.settled";

const MAX_DEAD_LETTERS: i32 = 100_000;
const MAX_DEAD_LETTER_BYTES: i64 = 1 << 30;

/// How soon a process that may not declare looks again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Declares exchanges and queues if need be, and returns when they are old enough. A user who may not declare them
/// waits for one who may. `waiting` is told what is waited for.
pub(super) async fn ensure(connection: &Connection, settings: &Settings, waiting: impl Fn(&str)) -> Result<(), Error> {
    loop {
        match try_ensure(connection, settings, &waiting).await? {
            Standing::Settled => return Ok(()),
            Standing::MayNotDeclare(why) => waiting(&why),
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// The state of exchanges and queues.
#[derive(Debug)]
pub(super) enum Standing {
    Settled,
    /// They are not there, or too young, and this user may not declare them.
    MayNotDeclare(String),
}

/// Declares what is missing, and waits until it has settled.
pub(super) async fn try_ensure(
    connection: &Connection,
    settings: &Settings,
    waiting: impl Fn(&str),
) -> Result<Standing, Error> {
    let there = queues_are_there(connection).await?;
    let settled = there && exists(connection, Thing::Exchange(SETTLED)).await?;
    let version = settings.major_version().await?;
    // Also if everything is there: a binding that somebody removed is mended, and a queue is reported that was
    // declared before an update of the server and now would have a delivery limit.
    match declare(connection, there, version).await {
        Ok(()) if settled => Ok(Standing::Settled),
        Ok(()) => {
            waiting("waiting until the new queues have settled");
            tokio::time::sleep(settings.settle).await;
            let channel = open(connection).await?;
            let declared = declare_exchange(&channel, SETTLED, ExchangeKind::Fanout, FieldTable::default());
            declared.await.map_err(|error| refused(SETTLED, &error))?;
            Ok(Standing::Settled)
        }
        // A user who may declare them has done so.
        Err((_, error)) if settled && Objection::of(&error) == Objection::AccessRefused => Ok(Standing::Settled),
        Err((_, error)) if Objection::of(&error) == Objection::AccessRefused => Ok(Standing::MayNotDeclare(format!(
            "the queues are not declared yet, or not settled, and the user {} may not declare them: run herald migrate \
             as one who may",
            settings.user()
        ))),
        Err((name, error)) => Err(refused(name, &error)),
    }
}

type RefusedDeclaration = (&'static str, lapin::Error);

/// Declares everything but the marker.
async fn declare(
    connection: &Connection,
    queues_are_there: bool,
    version: Option<u32>,
) -> Result<(), RefusedDeclaration> {
    let channel = connection.create_channel().await.map_err(|error| (EVENTS, error))?;
    if !queues_are_there {
        // The marker was made for queues that are gone.
        let deleted = channel.exchange_delete(SETTLED.into(), ExchangeDeleteOptions::default());
        deleted.await.map_err(|error| (SETTLED, error))?;
    }
    let exchange = async |name: &'static str, kind, arguments| {
        let declared = declare_exchange(&channel, name, kind, arguments).await;
        declared.map_err(|error| (name, error))
    };
    let alternate = table([("alternate-exchange", text(UNROUTED))]);
    exchange(UNROUTED, ExchangeKind::Fanout, FieldTable::default()).await?;
    exchange(EVENTS, ExchangeKind::Topic, alternate).await?;
    exchange(DEAD_LETTERS, ExchangeKind::Topic, FieldTable::default()).await?;
    let bounded = [
        ("x-max-length", AMQPValue::LongInt(MAX_DEAD_LETTERS)),
        ("x-max-length-bytes", AMQPValue::LongLongInt(MAX_DEAD_LETTER_BYTES)),
        ("x-overflow", text("drop-head")),
    ];
    for (name, arguments) in [
        (UNROUTED, unlimited(version)),
        (EVENTS, unlimited(version)),
        (DEAD_LETTERS, table(bounded)),
    ] {
        let declared = declare_queue(&channel, name, arguments).await;
        declared.map_err(|error| (name, error))?;
    }
    for (name, key) in [(UNROUTED, ""), (EVENTS, "#"), (DEAD_LETTERS, "#")] {
        let bound = channel.queue_bind(
            name.into(),
            name.into(),
            key.into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        );
        bound.await.map_err(|error| (name, error))?;
    }
    Ok(())
}

/// The arguments of a queue without a delivery limit: an outage of the ledger must not use up an event's deliveries.
/// RabbitMQ 4 sets a limit unless it is told to set none. RabbitMQ 3 sets none, and must not be told: it accepts -1,
/// and then drops messages that are delivered a second time.
fn unlimited(major_version: Option<u32>) -> FieldTable {
    match major_version {
        Some(4..) => table([("x-delivery-limit", AMQPValue::LongInt(-1))]),
        Some(..4) | None => FieldTable::default(),
    }
}

async fn declare_queue(channel: &Channel, name: &'static str, mut arguments: FieldTable) -> Result<(), lapin::Error> {
    arguments.insert("x-queue-type".into(), text("quorum"));
    let declared = channel.queue_declare(name.into(), QueueDeclareOptions::durable(), arguments);
    declared.await.map(drop)
}

async fn declare_exchange(
    channel: &Channel,
    name: &'static str,
    kind: ExchangeKind,
    arguments: FieldTable,
) -> Result<(), lapin::Error> {
    let durable = ExchangeDeclareOptions {
        durable: true,
        ..ExchangeDeclareOptions::default()
    };
    channel.exchange_declare(name.into(), kind, durable, arguments).await
}

async fn queues_are_there(connection: &Connection) -> Result<bool, Error> {
    for queue in QUEUES {
        if !exists(connection, Thing::Queue(queue)).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

#[derive(Debug, Clone, Copy)]
enum Thing {
    Exchange(&'static str),
    Queue(&'static str),
}

/// Whether the exchange or queue exists. The question has a channel of its own, because RabbitMQ closes the channel if
/// it does not.
async fn exists(connection: &Connection, thing: Thing) -> Result<bool, Error> {
    let channel = open(connection).await?;
    let asked = match thing {
        Thing::Exchange(name) => {
            let passive = ExchangeDeclareOptions {
                passive: true,
                ..ExchangeDeclareOptions::default()
            };
            let asked = channel.exchange_declare(name.into(), ExchangeKind::Fanout, passive, FieldTable::default());
            asked.await
        }
        Thing::Queue(name) => ask_queue(&channel, name).await.map(drop),
    };
    match asked {
        Ok(()) => Ok(true),
        Err(error) if Objection::of(&error) == Objection::NotFound => Ok(false),
        Err(error) => Err(Error::away(words(&error))),
    }
}

/// What RabbitMQ tells of a queue that must be there.
pub(super) async fn ask_queue(channel: &Channel, name: &'static str) -> Result<lapin::Queue, lapin::Error> {
    let passive = QueueDeclareOptions::default().passive();
    channel.queue_declare(name.into(), passive, FieldTable::default()).await
}

async fn open(connection: &Connection) -> Result<Channel, Error> {
    connection
        .create_channel()
        .await
        .map_err(|error| Error::away(words(&error)))
}

fn refused(name: &str, error: &lapin::Error) -> Error {
    let words = words(error);
    match Objection::of(error) {
        Objection::PreconditionFailed => Error::setup(format!(
            "{name} is there, but declared otherwise than Herald needs it: {words}; when what is in it has been \
             dispatched, delete it and start again"
        )),
        Objection::AccessRefused => Error::setup(format!("the user may not declare {name}: {words}")),
        Objection::NotFound | Objection::Other => Error::away(format!("{name} could not be declared: {words}")),
    }
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

fn table<const N: usize>(entries: [(&str, AMQPValue); N]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in entries {
        table.insert(ShortString::from(name), value);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_server_that_knows_it_is_told_of_no_limit() {
        assert!(unlimited(Some(3)).inner().is_empty());
        assert!(unlimited(None).inner().is_empty());
        assert!(unlimited(Some(4)).contains_key("x-delivery-limit"));
    }
}
