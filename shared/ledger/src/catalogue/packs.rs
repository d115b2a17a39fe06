//! The packs of event types that come with Herald: rows like those that an operator registers, but for `built_in`.

use super::{event_type_spec, new_kind, save_event_type};
use crate::sql::for_values;
use crate::{Error, Ledger, locks, version};
use herald_domain::catalogue::{EventTypeSpec, PackType, packs};
use herald_domain::time::Timestamp;
use sea_orm::{ConnectionTrait, DatabaseTransaction};
use std::collections::HashMap;

/// An event type of a pack whose row is to be written, and the row that there is.
type Due = (&'static PackType, Option<EventTypeSpec>);

impl Ledger {
    /// Registers the event types of the packs, and changes those that an earlier version registered otherwise. A type that
    /// an operator registered under the name of one stays as it is, until the operator deletes it.
    pub async fn register_packs(&self) -> Result<(), Error> {
        // Nearly always there is nothing to do, and a change has dispatch wait.
        if self.store.soon(due(self.store.registry())).await?.is_empty() {
            return Ok(());
        }
        let write = self
            .store
            .write(|txn, now| Box::pin(async move { register(txn, now).await }));
        write.await?;
        self.signals.registry.notify_waiters();
        Ok(())
    }
}

async fn due<C: ConnectionTrait>(connection: &C) -> Result<Vec<Due>, Error> {
    let names = packs().map(|kind| kind.name.into()).collect();
    let rows = for_values(connection, "SELECT * FROM event_types WHERE name", names, "").await?;
    let mut there = HashMap::new();
    for row in &rows {
        let spec = event_type_spec(row)?;
        there.insert(spec.kind.name().to_owned(), spec);
    }
    let with_row = packs().map(|kind| (kind, there.remove(kind.name)));
    let is_due = |(kind, there): &Due| match there {
        None => true,
        Some(spec) => spec.deleted || (spec.built_in && spec.draft != kind.draft()),
    };
    Ok(with_row.filter(is_due).collect())
}

async fn register(txn: &DatabaseTransaction, now: Timestamp) -> Result<(), Error> {
    let now = locks::change(txn, now).await?;
    // Another process may have done it since.
    let due = due(txn).await?;
    if due.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = due.iter().map(|(kind, _)| kind.name).collect();
    let version = version::bump(txn).await?;
    for (kind, there) in due {
        let (number, created_at) = match there {
            Some(spec) => (Some(spec.kind), spec.created_at),
            None => (new_kind(txn, kind.name).await?, now),
        };
        let Some(number) = number else {
            tracing::warn!(
                event_type = kind.name,
                "there is no number left for an event type of a pack"
            );
            continue;
        };
        let spec = EventTypeSpec {
            kind: number,
            draft: kind.draft(),
            built_in: true,
            deleted: false,
            created_at,
            updated_at: now,
        };
        save_event_type(txn, &spec, version).await?;
    }
    version::log_all(txn, "event-type.put", names.into_iter(), now).await
}
