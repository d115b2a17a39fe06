//! Copies of dead deliveries for RabbitMQ, where other programs may consume them.

use futures_util::future::BoxFuture;
use herald_deliver::{DeadLetters, PublishError};
use herald_domain::catalogue::EventType;
use herald_domain::id::DeliveryId;
use herald_queue::rabbitmq::Rabbit;

/// Publishes copies of dead deliveries. The routing key is that of the event.
#[derive(Debug)]
pub(crate) struct DeadLetterPublisher(pub(crate) Rabbit);

impl DeadLetters for DeadLetterPublisher {
    fn publish(&self, delivery: DeliveryId, kind: EventType, body: Vec<u8>) -> BoxFuture<'_, Result<(), PublishError>> {
        Box::pin(async move {
            let key = kind.routing_key();
            Ok(self.0.publish_dead_letter(key, delivery.0, body).await?)
        })
    }
}
