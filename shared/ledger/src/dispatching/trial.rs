//! A trial that tells whether the ledger refuses one event, or every event.

use super::{EventRecord, NewEvent, postgres, transaction};
use crate::shards::ShardLeases;
use crate::{Error, Ledger};
use herald_domain::id::{EventId, EventUid};
use sea_orm::{ConnectionTrait, DbBackend};
use std::sync::Arc;
use uuid::Uuid;

impl Ledger {
    /// Tries to record an event like this one, without what its producer wrote, and undoes that. If the trial succeeds
    /// while this event is refused for a reason that the database's code does not tell, the event itself is the reason.
    ///
    /// # Errors
    /// If the trial is refused too, which says nothing about the event, or if its result is not known.
    pub async fn records_the_like(&self, event: &NewEvent, version: i64, owner: ShardLeases) -> Result<(), Error> {
        let like = NewEvent {
            record: Arc::new(EventRecord {
                uid: EventUid(self.ids().next()),
                id: EventId(Uuid::new_v4()),
                data: "{}".to_owned(),
                occurred_at: None,
                traceparent: None,
                ..(*event.record).clone()
            }),
            account: "herald".into(),
            body_hash: 0,
            matches: event.matches.clone(),
        };
        let tried = self.store.write(move |txn, now| {
            Box::pin(async move {
                let events = vec![like];
                // The trial goes the same way as the event itself.
                let recorded = if txn.get_database_backend() == DbBackend::Postgres {
                    postgres::record_in(txn, &events, version, &owner).await?.is_some()
                } else {
                    transaction::record(txn, events, version, owner, now).await?.is_some()
                };
                Err::<(), _>(if recorded { Error::Undone } else { Error::Busy })
            })
        });
        match tried.await {
            Ok(()) | Err(Error::Undone) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
