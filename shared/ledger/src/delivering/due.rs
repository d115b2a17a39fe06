//! What is due, read for its lane.

use super::delivery;
use crate::dispatching::{EventRecord, event_record};
use crate::sql::{for_values, uuid};
use crate::{Error, Ledger};
use herald_domain::delivery::Delivery;
use herald_domain::id::{EventUid, Shard, SubscriptionId};
use herald_domain::lanes::Scope;
use std::collections::HashMap;
use std::sync::Arc;

/// How many events are read at a time. One may have 256 KiB.
const PART: usize = 32;

/// Those events that were read, or looked for in vain.
type Events = HashMap<EventUid, Option<Arc<EventRecord>>>;

impl Ledger {
    /// The open deliveries of a subscription that are due and the one that is due next, in that order; at most
    /// `limit`, and with their events as the scope has it. Those that a former owner still has in flight are
    /// due when it has them no more.
    pub async fn open_deliveries(
        &self,
        subscription: SubscriptionId,
        limit: usize,
        scope: &Scope,
    ) -> Result<Vec<(Delivery, Option<Arc<EventRecord>>)>, Error> {
        let rows = self.ask("SELECT d.id AS delivery, d.subscription, d.webhook, d.attempts, d.due, d.created_at, d.opened_at, \
             d.opened_version, d.event \
             FROM (SELECT * FROM (SELECT *, due_at AS due FROM deliveries_open \
                   WHERE shard = $1 AND subscription = $2 AND busy_until <= $4 AND due_at <= $4 \
                   ORDER BY due_at LIMIT $3) free \
                   UNION ALL \
                   SELECT * FROM (SELECT *, due_at AS due FROM deliveries_open \
                   WHERE shard = $1 AND subscription = $2 AND busy_until <= $4 AND due_at > $4 \
                   ORDER BY due_at LIMIT 1) next \
                   UNION ALL \
                   SELECT * FROM (SELECT *, CASE WHEN busy_until > due_at THEN busy_until ELSE due_at END AS due \
                   FROM deliveries_open WHERE shard = $1 AND subscription = $2 AND busy_until > 0 AND busy_until > $4) busy) d \
             ORDER BY due LIMIT $3",
            [
                i16::from(Shard::of(subscription).0).into(),
                subscription.0.into(),
                u64::try_from(limit).unwrap_or(u64::MAX).into(),
                self.now().as_micros().into(),
            ],
        )
        .await?;
        let rows: Vec<(Delivery, EventUid)> = rows
            .iter()
            .map(|row| Ok((delivery(row)?, EventUid(uuid(row, "event")?))))
            .collect::<Result<_, Error>>()?;
        let wanted = rows.iter().filter(|(delivery, _)| !scope.known.contains(&delivery.id));
        let wanted: Vec<EventUid> = wanted.map(|(_, event)| *event).collect();
        let events = self.store.soon(self.read_events(&wanted, scope.bytes)).await?;
        let with_event = |(delivery, event): (Delivery, EventUid)| match events.get(&event) {
            Some(Some(read)) if !scope.known.contains(&delivery.id) => Ok((delivery, Some(Arc::clone(read)))),
            // An event outlives its deliveries, whatever expires.
            Some(None) => Err(Error::Corrupt("an open delivery without its event")),
            Some(Some(_)) | None => Ok((delivery, None)),
        };
        rows.into_iter().map(with_event).collect()
    }

    /// Reads these events, in this order, until they have so many bytes.
    async fn read_events(&self, wanted: &[EventUid], bytes: usize) -> Result<Events, Error> {
        let mut events = Events::new();
        let mut read = 0;
        for part in wanted.chunks(PART) {
            if read >= bytes {
                break;
            }
            let values = part.iter().map(|event| event.0.into()).collect();
            let select = "SELECT uid, id, type, objects, data, accepted_at, traceparent FROM events WHERE uid";
            let rows = for_values(self.store.read(), select, values, "").await?;
            events.extend(part.iter().map(|event| (*event, None)));
            for row in &rows {
                let event = event_record(row)?;
                read += event.data.len();
                events.insert(event.uid, Some(Arc::new(event)));
            }
        }
        Ok(events)
    }
}
