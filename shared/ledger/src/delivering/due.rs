//! Reads of due deliveries for their lanes.

use crate::dispatching::{EVENT_COLUMNS, EventRecord, event_record};
use crate::rows::{self, delivery};
use crate::sql::{for_values, uuid};
use crate::{Error, Ledger};
use herald_domain::delivery::Delivery;
use herald_domain::event::MAX_EVENT_BYTES;
use herald_domain::id::EventUid;
use herald_domain::lanes::{LaneId, Scope};
use herald_domain::time::Timestamp;
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, Weak};

/// The most events that are read at a time.
const PART: usize = 32;

/// Events that were read; `None` for those that were not found.
type Events = HashMap<EventUid, Option<Arc<EventRecord>>>;

/// The events of the deliveries in memory. Lanes with the same event share it, and it is read once.
#[derive(Debug, Default)]
pub(crate) struct SharedEvents {
    events: HashMap<EventUid, Weak<EventRecord>>,
    /// The number of entries at which events that no delivery has any more are forgotten.
    most: usize,
}

impl SharedEvents {
    /// The wanted events that some delivery still has.
    fn find(&self, wanted: &[EventUid]) -> HashMap<EventUid, Arc<EventRecord>> {
        let found = |uid: &EventUid| Some((*uid, self.events.get(uid)?.upgrade()?));
        wanted.iter().filter_map(found).collect()
    }

    /// The event that all deliveries share: this one, unless another read has brought it meanwhile.
    fn share(&mut self, event: EventRecord) -> Arc<EventRecord> {
        if let Some(shared) = self.events.get(&event.uid).and_then(Weak::upgrade) {
            return shared;
        }
        if self.events.len() >= self.most {
            self.events.retain(|_, event| event.strong_count() > 0);
            self.most = 1024.max(2 * self.events.len());
        }
        let event = Arc::new(event);
        self.events.insert(event.uid, Arc::downgrade(&event));
        event
    }
}

impl Ledger {
    /// The open deliveries of a lane that are due, and after them the one that is due next. There are at
    /// most `limit`, with their events as the scope says. Rows due before `from` are left out, so that closed ones
    /// need not be read past. Deliveries that a former owner had in flight come whenever they are due, which is not
    /// before its reservation ends.
    pub async fn open_deliveries(
        &self,
        lane: LaneId,
        from: Timestamp,
        limit: usize,
        scope: &Scope,
    ) -> Result<Vec<(Delivery, Option<Arc<EventRecord>>)>, Error> {
        // What is due, what is due next, and what a former owner has in flight.
        let sql = format!(
            "SELECT {} FROM (\
             SELECT * FROM (SELECT *, due_at AS due FROM deliveries_open \
             WHERE shard = $1 AND subscription = $2 AND busy_until <= 0 AND due_at >= $5 AND due_at <= $4 \
             ORDER BY due_at LIMIT $3) free \
             UNION ALL \
             SELECT * FROM (SELECT *, due_at AS due FROM deliveries_open \
             WHERE shard = $1 AND subscription = $2 AND busy_until <= 0 AND due_at >= $5 AND due_at > $4 \
             ORDER BY due_at LIMIT 1) next \
             UNION ALL \
             SELECT * FROM (SELECT *, CASE WHEN busy_until > due_at THEN busy_until ELSE due_at END AS due \
             FROM deliveries_open WHERE shard = $1 AND subscription = $2 AND busy_until > 0 \
             ORDER BY busy_until) handed_over) d \
             ORDER BY due LIMIT $3",
            rows::selected("due")
        );
        let values = [
            i16::from(lane.shard().0).into(),
            lane.subscription().0.into(),
            u64::try_from(limit).unwrap_or(u64::MAX).into(),
            self.now().as_micros().into(),
            from.as_micros().into(),
        ];
        let rows = self.ask(&sql, values).await?;
        let rows: Vec<(Delivery, EventUid)> = rows
            .iter()
            .map(|row| Ok((delivery(row)?, EventUid(uuid(row, "event")?))))
            .collect::<Result<_, Error>>()?;
        let wanted = rows.iter().filter(|(delivery, _)| !scope.known.contains(&delivery.id));
        let wanted: Vec<EventUid> = wanted.map(|(_, event)| *event).take(scope.rows).collect();
        let events = self.store.soon(self.read_events(&wanted, scope.bytes)).await?;
        let mut whole = scope.rows;
        let with_event = |(delivery, event): (Delivery, EventUid)| {
            if scope.known.contains(&delivery.id) || whole == 0 {
                return Ok((delivery, None));
            }
            match events.get(&event) {
                Some(Some(read)) => {
                    whole -= 1;
                    Ok((delivery, Some(Arc::clone(read))))
                }
                // An event outlives its deliveries, whatever expires.
                Some(None) => Err(Error::Corrupt("an open delivery without its event")),
                None => Ok((delivery, None)),
            }
        };
        rows.into_iter().map(with_event).collect()
    }

    /// Reads these events, in this order, until they have so many bytes; those that are in memory are not read
    /// again.
    async fn read_events(&self, wanted: &[EventUid], bytes: usize) -> Result<Events, Error> {
        let shared = self.events.lock().unwrap_or_else(PoisonError::into_inner).find(wanted);
        let mut wanted = wanted.iter().copied().peekable();
        let (mut events, mut read, mut largest) = (Events::new(), 0_usize, MAX_EVENT_BYTES);
        while read < bytes && wanted.peek().is_some() {
            // So few that they are not far more than there is room for.
            let most = PART.min((bytes - read) / largest).max(1);
            let mut part = Vec::with_capacity(most);
            while part.len() < most
                && read < bytes
                && let Some(uid) = wanted.next()
            {
                if let Some(event) = shared.get(&uid) {
                    read += event.data.len();
                    events.insert(uid, Some(Arc::clone(event)));
                } else {
                    part.push(uid);
                }
            }
            let values = part.iter().map(|uid| uid.0.into()).collect();
            let select = format!("SELECT {EVENT_COLUMNS} FROM events WHERE uid");
            let rows = for_values(self.store.read(), &select, values, "").await?;
            largest = 1;
            events.extend(part.into_iter().map(|uid| (uid, None)));
            for row in &rows {
                let event = event_record(row)?;
                let event = self.events.lock().unwrap_or_else(PoisonError::into_inner).share(event);
                read += event.data.len();
                largest = largest.max(event.data.len());
                events.insert(event.uid, Some(event));
            }
        }
        Ok(events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use herald_domain::catalogue::EnateEvent;
    use herald_domain::event::Objects;
    use herald_domain::id::EventId;

    fn event(n: u128) -> EventRecord {
        EventRecord {
            uid: EventUid(uuid::Uuid::from_u128(n)),
            data: "{}".to_owned(),
            id: EventId(uuid::Uuid::from_u128(n)),
            kind: EnateEvent::PacketCreated.into(),
            occurred_at: None,
            objects: Objects::default(),
            accepted_at: Timestamp::from_micros(0),
            traceparent: None,
        }
    }

    #[test]
    fn an_event_is_shared_while_somebody_has_it_and_then_forgotten() {
        let mut shared = SharedEvents::default();
        let first = shared.share(event(1));
        assert!(Arc::ptr_eq(&first, &shared.share(event(1))));
        assert!(Arc::ptr_eq(&first, &shared.find(&[first.uid])[&first.uid]));
        for n in 2..100_000 {
            drop(shared.share(event(n)));
            assert!(shared.events.len() <= 1025);
        }
        assert!(shared.find(&[EventUid(uuid::Uuid::from_u128(2))]).is_empty());
        assert_eq!(shared.find(&[first.uid]).len(), 1);
    }
}
