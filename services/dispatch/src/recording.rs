//! Recording of what was decoded, tried again until it succeeds.
//!
//! Recording waits for a ledger that is away, and for one that lacks a right or a table: its refusal says nothing of
//! the events. An event whose data the ledger refuses is found by halving the batch, so that it delays no other. It is
//! kept as rejected.

use crate::decode::{self, Decoded, RejectedMessage, Spans};
use crate::{Dispatch, PART, RETRY_AFTER, spans};
use herald_domain::lanes::ReadMark;
use herald_domain::time::Timestamp;
use herald_ledger::dispatching::{BatchResult, CHUNK, EventRecord, EventResult, NewEvent};
use herald_ledger::{Cause, Error};
use herald_queue::Received;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;
use tokio_util::sync::CancellationToken;

impl Dispatch {
    /// Records a batch, with as many tries as it takes. Returns false if shutdown came first.
    pub(crate) async fn record_until_done(&self, batch: Vec<Received>, shutdown: &CancellationToken) -> bool {
        for received in &batch {
            self.metrics.received(received);
        }
        let began = self.ledger.now();
        let mut decoded = None;
        let mut failed = false;
        loop {
            match self.record_batch(&batch, &mut decoded, began).await {
                Ok(()) => {
                    self.health.ok(PART);
                    if self.outage.ended() {
                        self.queue.resume();
                    }
                    if failed {
                        self.hand_over.look_everywhere();
                    }
                    return true;
                }
                Err(error) => {
                    failed = true;
                    self.health.failing(PART, "the ledger cannot be written");
                    if self.outage.failed(Instant::now()) {
                        self.queue.pause();
                    }
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "a batch could not be recorded; it is tried again"
                    );
                    if let (true, Some(decoded)) = (error.lacks_a_day(), &mut decoded) {
                        decoded.date_anew(&self.ledger.ids());
                    }
                }
            }
            tokio::select! {
                () = shutdown.cancelled() => return false,
                () = tokio::time::sleep(RETRY_AFTER) => {}
            }
        }
    }

    /// Decodes a batch, unless that was done before, and writes what is left of it.
    async fn record_batch(
        &self,
        batch: &[Received],
        decoded: &mut Option<Decoded>,
        began: Timestamp,
    ) -> Result<(), Error> {
        let decoded = match decoded {
            Some(decoded) => decoded,
            none => none.insert(self.decode(batch).await?),
        };
        self.record_all(decoded, began).await
    }

    /// Decodes a batch by the catalogue. A type that this process does not know may have been registered at another
    /// process a moment ago, so the ledger is asked before an event is rejected for its type.
    async fn decode(&self, batch: &[Received]) -> Result<Decoded, Error> {
        let decode = || {
            let catalogue = Arc::clone(self.registry.view().catalogue());
            decode::events(batch, &self.traces, &self.ledger.ids(), &catalogue)
        };
        let first = decode();
        if !first.may_be_outdated {
            return Ok(first);
        }
        self.registry.refresh().await?;
        Ok(decode())
    }

    /// Writes what is left in `decoded`, and takes out what is written, so that the next try goes on from there. Events
    /// and rejected messages do not wait for each other. The batch came out of the queue at `began`.
    async fn record_all(&self, decoded: &mut Decoded, began: Timestamp) -> Result<(), Error> {
        let Decoded {
            events,
            rejected,
            one_by_one,
            spans,
            may_be_outdated: _,
        } = decoded;
        let most = if *one_by_one { 1 } else { usize::MAX };
        let mut unrecordable = VecDeque::new();
        let (recorded, rejected_kept) = tokio::join!(
            self.record_events(events, most, spans, &mut unrecordable, began),
            self.keep_rejected(rejected, began)
        );
        rejected.append(&mut unrecordable);
        recorded.and(rejected_kept)?;
        self.keep_rejected(rejected, began).await
    }

    /// Records events, at most `most` at a time. Events whose content the ledger refuses go to `unrecordable`.
    async fn record_events(
        &self,
        events: &mut Vec<NewEvent>,
        most: usize,
        spans: &Spans,
        unrecordable: &mut VecDeque<RejectedMessage>,
        began: Timestamp,
    ) -> Result<(), Error> {
        let mut limit = most;
        // The event that was refused while its like was recorded. If it happens twice, the event is the reason.
        let mut suspected = None;
        while !events.is_empty() {
            let (matched, version) = self.match_some(events, limit);
            let taken = matched.len();
            let mark = self.hand_over.mark();
            let owned = self.owned.borrow().clone();
            match self.ledger.record(matched, version, owned).await {
                Ok(BatchResult::Stale) => self.registry.refresh().await?,
                Ok(BatchResult::Done(matched, results)) => {
                    self.metrics.batch(taken);
                    self.record_spans(&matched, &results, spans, began);
                    self.hand_over(&matched, results, mark);
                    events.drain(..taken);
                    limit = limit.saturating_mul(2).min(most);
                }
                Err(error) => {
                    let Some(event) = events.first() else {
                        return Err(error);
                    };
                    if !self.is_to_blame(events, &error).await {
                        return Err(error);
                    }
                    if taken > 1 {
                        limit = taken / 2;
                    } else if error.cause() == Cause::Data
                        || suspected.replace(event.record.id) == Some(event.record.id)
                    {
                        say_unrecordable(&event.record, &error);
                        let span = spans.get(&event.record.uid).copied();
                        unrecordable.push_back(decode::unrecordable(event, span));
                        events.drain(..taken);
                        limit = 1;
                    }
                }
            }
        }
        Ok(())
    }

    /// Writes rejected messages to the ledger, and takes out those that are written.
    async fn keep_rejected(&self, rejected: &mut VecDeque<RejectedMessage>, began: Timestamp) -> Result<(), Error> {
        while let Some(message) = rejected.front() {
            self.reject(message.clone(), began).await?;
            rejected.pop_front();
        }
        Ok(())
    }

    /// Whether the first events were refused for their content, so that another try is of no use. If the ledger's
    /// error code does not tell, the proof is that the ledger records the like of the first event.
    async fn is_to_blame(&self, events: &[NewEvent], error: &Error) -> bool {
        match error.cause() {
            Cause::Data => true,
            Cause::Away => false,
            Cause::Unknown => {
                let (first, version) = self.match_some(events, 1);
                let Some(event) = first.first() else { return false };
                let owned = self.owned.borrow().clone();
                let like = self.ledger.records_the_like(event, version, owned).await;
                if let Err(refusal) = &like {
                    tracing::debug!(
                        error = refusal as &dyn std::error::Error,
                        "the like of an event that was refused was refused too"
                    );
                }
                like.is_ok()
            }
        }
    }

    /// Matches events until their deliveries fill a transaction; at least one, at most `limit`.
    fn match_some(&self, events: &[NewEvent], limit: usize) -> (Vec<NewEvent>, i64) {
        let view = self.registry.view();
        let mut deliveries = 0;
        let mut matched = Vec::with_capacity(events.len().min(limit));
        for event in events.iter().take(limit) {
            if deliveries >= CHUNK {
                break;
            }
            let matches = view.index().matches(&event.record.kind, &event.record.objects);
            deliveries += matches.len();
            matched.push(NewEvent {
                matches,
                ..event.clone()
            });
        }
        (matched, view.version())
    }

    fn hand_over(&self, events: &[NewEvent], results: Vec<EventResult>, mark: ReadMark) {
        let now = self.ledger.now();
        for (event, result) in events.iter().zip(results) {
            match result {
                EventResult::New { mine, cursor } => {
                    self.metrics.dispatched(event, now);
                    self.hand_over.offer(&event.record, mine, mark);
                    if cursor.is_some() {
                        self.incomplete.notify_one();
                    }
                }
                EventResult::Repeated { differs } => self.metrics.repeated(differs),
            }
        }
    }

    fn record_spans(&self, events: &[NewEvent], results: &[EventResult], spans: &Spans, began: Timestamp) {
        if spans.is_empty() {
            return;
        }
        let (system, ended) = (self.queue.system(), self.ledger.now());
        for (event, result) in events.iter().zip(results) {
            if let Some(place) = spans.get(&event.record.uid) {
                let span = spans::dispatched(*place, (began, ended), system, event, result);
                self.traces.record(span);
            }
        }
    }

    async fn reject(&self, message: RejectedMessage, began: Timestamp) -> Result<(), Error> {
        let RejectedMessage {
            why,
            record,
            record_id,
            id,
            step,
        } = message;
        let account = Arc::clone(&record.account);
        self.ledger.reject(record_id, record).await?;
        self.metrics.rejected(why);
        tracing::info!(
            account = &*account,
            reason = why.label(),
            event = id.map(display),
            trace_id = step.context().map(|context| display(context.trace_id)),
            "a message was rejected; it is kept"
        );
        if let Some(place) = step.recorded() {
            let times = (began, self.ledger.now());
            self.traces
                .record(spans::rejected(place, times, self.queue.system(), id, why));
        }
        Ok(())
    }
}

fn say_unrecordable(record: &EventRecord, error: &Error) {
    tracing::warn!(
        error = error as &dyn std::error::Error,
        event = %record.id,
        trace_id = record.traceparent.map(|context| display(context.trace_id)),
        "an event cannot be recorded; it is kept as rejected"
    );
}

#[cfg(test)]
mod tests;
