//! The ways of messages to the publisher's task, and of the answers back to their callers.

use super::MAX_IN_FLIGHT;
use crate::Error;
use crate::rabbitmq::MAX_WAIT;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

/// A way to the task, with room for so many bytes.
#[derive(Debug)]
pub(super) struct Way<T> {
    room: Arc<Semaphore>,
    publications: mpsc::Sender<Publication<T>>,
}

impl<T> Clone for Way<T> {
    fn clone(&self) -> Self {
        Self {
            room: Arc::clone(&self.room),
            publications: self.publications.clone(),
        }
    }
}

#[derive(Debug)]
pub(super) struct Publication<T> {
    pub(super) what: T,
    pub(super) bytes: usize,
    pub(super) caller: Caller,
}

/// The caller that waits for a confirm.
#[derive(Debug)]
pub(super) struct Caller {
    answer: oneshot::Sender<Result<(), Error>>,
    _room: OwnedSemaphorePermit,
}

impl<T> Way<T> {
    pub(super) fn new(room: usize) -> (Self, mpsc::Receiver<Publication<T>>) {
        let (publications, taken) = mpsc::channel(MAX_IN_FLIGHT);
        let room = Arc::new(Semaphore::new(room));
        (Self { room, publications }, taken)
    }

    /// Publishes a message, and returns when it is confirmed.
    pub(super) async fn publish(&self, what: T, bytes: usize) -> Result<(), Error> {
        let ended = || Error::away("the publisher has ended");
        let (answer, answered) = oneshot::channel();
        let confirmed = async {
            let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
            let room = Arc::clone(&self.room).acquire_many_owned(permits).await;
            let caller = Caller {
                answer,
                _room: room.map_err(|_closed| ended())?,
            };
            let publication = Publication { what, bytes, caller };
            let sent = self.publications.send(publication).await;
            sent.map_err(|_returned| ended())?;
            answered
                .await
                .map_err(|_dropped| Error::unconfirmed("the connection was lost"))?
        };
        // After this time the message still goes on its way, so the error means that its fate is unknown.
        tokio::time::timeout(MAX_WAIT, confirmed)
            .await
            .unwrap_or(Err(Error::Slow))
    }
}

impl Caller {
    pub(super) fn tell(self, told: Result<(), Error>) {
        // A caller that has gone away, or has waited long enough, does not want the answer.
        drop(self.answer.send(told));
    }

    /// Whether the caller still waits. One that waited too long for its turn has been told so.
    pub(super) fn waits(&self) -> bool {
        !self.answer.is_closed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A caller that has given up leaves its message, which still takes up its room.
    #[tokio::test]
    async fn a_way_holds_no_more_than_it_has_room_for() {
        let (way, mut taken) = Way::new(100);
        let publish = |n: usize| way.publish(n, 40);
        let answers = tokio::join!(publish(0), publish(1), publish(2), publish(3));
        for answer in [answers.0, answers.1, answers.2, answers.3] {
            assert!(matches!(answer, Err(Error::Slow)), "{answer:?}");
        }
        assert_eq!(way.room.available_permits(), 20);
        for n in 0..2 {
            let publication = taken.recv().await.unwrap();
            assert_eq!(publication.what, n);
            assert!(!publication.caller.waits());
        }
        assert_eq!(way.room.available_permits(), 100);
        assert!(taken.try_recv().is_err());
    }
}
