//! Whether the ledger refuses an event, or any.

use super::{EventRecord, NewEvent, postgres, transaction};
use crate::shards::Ownership;
use crate::{Error, Ledger};
use herald_domain::id::{EventId, EventUid};
use sea_orm::{ConnectionTrait, DbBackend};
use std::sync::Arc;
use uuid::Uuid;

impl Ledger {
    /// Whether an event is recorded that is like this one but for what its producer wrote; nothing of it stays. Where
    /// this one is refused at the same time, for a reason that the database's code does not tell, it is the event.
    ///
    /// # Errors
    /// If the like is refused too, which then says nothing of the event, or if it is not known.
    pub async fn records_the_like(&self, event: &NewEvent, version: i64, owner: Ownership) -> Result<(), Error> {
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
                // By the same way as the event itself.
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
