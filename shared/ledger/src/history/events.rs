//! Events as the API shows them.

use crate::catalogue::{TYPE_NAME, event_type};
use crate::sql::{all, corrupt, get, optional_timestamp, timestamp, uuid};
use crate::{Error, Ledger};
use herald_domain::catalogue::EventType;
use herald_domain::event::Objects;
use herald_domain::id::{EventId, EventUid};
use herald_domain::time::Timestamp;
use sea_orm::QueryResult;
use uuid::Uuid;

/// An event as it was recorded.
#[derive(Debug, Clone)]
pub struct EventView {
    /// Its identity in the ledger.
    pub uid: EventUid,
    /// In whose scope its `Id` is unique.
    pub account: String,
    /// The producer's `Id`.
    pub id: EventId,
    /// Its `Type`.
    pub kind: EventType,
    /// When it happened, if the producer said.
    pub occurred_at: Option<Timestamp>,
    /// When ingest accepted it.
    pub accepted_at: Timestamp,
    /// When it was recorded.
    pub recorded_at: Timestamp,
    /// Its `Objects`: what it is about.
    pub objects: Objects,
    /// `Data`, to the byte.
    pub data: String,
    /// How many subscriptions it matched, of those up to the cursor.
    pub matched_count: i64,
    /// Whether all that it matched are recorded.
    pub complete: bool,
}

impl Ledger {
    /// The events with that `Id`; several where several accounts used the same one.
    pub async fn events(&self, id: EventId) -> Result<Vec<EventView>, Error> {
        let sql = format!("SELECT *, {TYPE_NAME} FROM events WHERE id = $1 ORDER BY uid DESC");
        let rows = self.store.ask(all(self.store.api(), &sql, [id.0.into()])).await?;
        rows.iter().map(event_view).collect()
    }

    /// The event of that identity.
    pub async fn event(&self, uid: EventUid) -> Result<Option<EventView>, Error> {
        let sql = format!("SELECT *, {TYPE_NAME} FROM events WHERE uid = $1");
        let rows = self.store.ask(all(self.store.api(), &sql, [uid.0.into()])).await?;
        rows.first().map(event_view).transpose()
    }
}

fn event_view(row: &QueryResult) -> Result<EventView, Error> {
    let objects: String = get(row, "objects")?;
    Ok(EventView {
        uid: EventUid(uuid(row, "uid")?),
        account: get(row, "account")?,
        id: EventId(uuid(row, "id")?),
        kind: event_type(row)?,
        occurred_at: optional_timestamp(row, "occurred_at")?,
        accepted_at: timestamp(row, "accepted_at")?,
        recorded_at: timestamp(row, "recorded_at")?,
        objects: Objects::from_json(&objects).map_err(|_faults| corrupt("malformed objects"))?,
        data: get(row, "data")?,
        matched_count: get(row, "matched_count")?,
        complete: get::<Option<Uuid>>(row, "cursor")?.is_none(),
    })
}
