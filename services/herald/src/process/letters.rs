//! Copies of dead deliveries go to RabbitMQ, for whoever consumes them.

use futures_util::future::BoxFuture;
use herald_deliver::{DeadLetters, PublishError};
use herald_domain::catalogue::EventType;
use herald_domain::id::DeliveryId;
use herald_queue::rabbitmq::Rabbit;

/// Publishes them; the routing key is that of the event.
#[derive(Debug)]
pub(crate) struct Letters(pub(crate) Rabbit);

impl DeadLetters for Letters {
    fn publish(&self, delivery: DeliveryId, kind: EventType, body: Vec<u8>) -> BoxFuture<'_, Result<(), PublishError>> {
        Box::pin(async move {
            let key = kind.routing_key();
            Ok(self.0.publish_dead_letter(key, delivery.0, body).await?)
        })
    }
}
