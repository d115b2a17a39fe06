//! Publishes for a producer that is not Herald: what `herald send --amqp` uses.

use super::connection::{Objection, Settings, words};
use super::publisher::MAX_IN_FLIGHT;
use super::{Error, topology, wire};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use herald_domain::id::EventId;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{Channel, Confirmation, Connection};
use std::borrow::Cow;

/// An event to publish.
#[derive(Debug, Clone)]
pub struct Outgoing<'a> {
    /// The event's `Id`.
    pub id: EventId,
    /// The routing key of the event's type.
    pub key: Cow<'a, str>,
    /// The event as JSON text.
    pub text: &'a str,
}

/// A connection to publish events over, each as a message of its own, in the user's own name.
#[derive(Debug)]
pub struct Client {
    user: String,
    channel: Channel,
    _connection: Connection,
}

impl Client {
    /// Connects to RabbitMQ as a producer does.
    pub async fn connect(settings: &Settings) -> Result<Self, Error> {
        let connection = settings.connect("herald send").await?;
        let open = async {
            let channel = connection.create_channel().await?;
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            Ok(channel)
        };
        let channel = open.await.map_err(|error: lapin::Error| Error::away(words(&error)))?;
        Ok(Self {
            user: settings.user().to_owned(),
            channel,
            _connection: connection,
        })
    }

    /// Publishes all, many at a time, and returns when every one is confirmed. After an error some may
    /// have been kept, and the client is to be dropped.
    pub async fn publish(&mut self, events: &[Outgoing<'_>]) -> Result<(), Error> {
        let this = &*self;
        stream::iter(events)
            .map(|event| this.publish_one(event))
            .buffer_unordered(MAX_IN_FLIGHT)
            .try_collect()
            .await
    }

    async fn publish_one(&self, event: &Outgoing<'_>) -> Result<(), Error> {
        let publish = async {
            let confirm = self.channel.basic_publish(
                topology::EVENTS.into(),
                wire::short(&event.key),
                BasicPublishOptions::default(),
                event.text.as_bytes(),
                wire::of_event(event.id, &self.user),
            );
            confirm.await?.await
        };
        match publish.await {
            Ok(Confirmation::Ack(_)) => Ok(()),
            Ok(_) => Err(Error::unconfirmed("RabbitMQ did not take it")),
            Err(error) => Err(match Objection::of(&error) {
                Objection::NotFound => Error::setup(format!(
                    "there is no exchange {}: has Herald been started on this vhost?",
                    topology::EVENTS
                )),
                Objection::AccessRefused => Error::setup(words(&error)),
                Objection::PreconditionFailed | Objection::Other => Error::unconfirmed(words(&error)),
            }),
        }
    }
}
