//! Messages into events: what is malformed is set aside whole, with the reason, and never loops.
//!
//! What a producer publishes itself is judged here. What ingest has accepted was judged there, before its producer was
//! told 202; a message may have waited in the queue since an earlier version, whose rules were others, so it is taken
//! as it is.

use crate::metrics::Rejection;
use herald_domain::catalogue::Catalogue;
use herald_domain::event::{self, Batch, Event, MAX_EVENT_BYTES};
use herald_domain::id::{EventId, EventUid};
use herald_domain::problem::Fault;
use herald_domain::text;
use herald_domain::trace::{SpanPlace, Step, TraceContext};
use herald_ledger::dispatching::{EventRecord, NewEvent};
use herald_ledger::ids::Ids;
use herald_ledger::rejected::{MAX_REJECTED_BYTES, Rejected};
use herald_queue::{MAX_MESSAGE_BYTES, Origin, Received};
use herald_telemetry::traces::Traces;
use sha2::{Digest, Sha256};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use uuid::Uuid;

/// How often a message may be handed out again before it is taken alone.
const MAX_REDELIVERIES: u64 = 20;

/// Splits a batch so that the last message's acknowledgement is one of all in its group, and so that each
/// message that was handed out over and over is alone: it may be what keeps ending the process, and then
/// takes no other with it. The number alone is no reason to reject it: a process that is killed again and
/// again, for whatever reason, hands out good events as often.
pub(crate) fn groups(batch: Vec<Received>) -> Vec<Vec<Received>> {
    let mut groups: Vec<Vec<Received>> = Vec::with_capacity(1);
    let mut alone = true;
    for received in batch {
        let doubtful = is_doubtful(&received);
        match groups.last_mut() {
            Some(group) if !alone && !doubtful && group.last().is_some_and(|it| it.tag.goes_with(received.tag)) => {
                group.push(received);
            }
            _ => groups.push(vec![received]),
        }
        alone = doubtful;
    }
    groups
}

/// Whether it was handed out over and over.
pub(crate) fn is_doubtful(received: &Received) -> bool {
    received.redeliveries > MAX_REDELIVERIES
}

/// The spans of those events that are recorded as such.
pub(crate) type Spans = HashMap<EventUid, SpanPlace>;

/// What a batch of messages holds.
#[derive(Debug, Default)]
pub(crate) struct Read {
    /// Its events, not yet matched.
    pub(crate) events: Vec<NewEvent>,
    /// What are none.
    pub(crate) rejected: VecDeque<Refused>,
    /// Each event is recorded by itself: one of them may be what keeps ending the process.
    pub(crate) one_by_one: bool,
    /// Where its events stand in their traces.
    pub(crate) spans: Spans,
    /// Something was rejected for its type, which the catalogue does not have.
    pub(crate) has_unknown_type: bool,
}

/// What is no event, or none that the ledger can hold.
#[derive(Debug, Clone)]
pub(crate) struct Refused {
    /// Why.
    pub(crate) why: Rejection,
    /// As it is kept.
    pub(crate) kept: Rejected,
    /// By which it is kept: made before it is first written, and the same when that is tried again.
    pub(crate) kept_as: Uuid,
    /// Its `Id`, as far as it is known.
    pub(crate) id: Option<EventId>,
    /// Where its dispatch stands in its trace.
    pub(crate) step: Step,
}

struct Reader<'a> {
    read: Read,
    traces: &'a Traces,
    ids: &'a Ids,
    catalogue: &'a Catalogue,
}

/// Reads messages; the uids of their events, and what those that are none are kept by, are made by `ids`.
pub(crate) fn events(batch: &[Received], traces: &Traces, ids: &Ids, catalogue: &Catalogue) -> Read {
    let mut reader = Reader {
        read: Read::default(),
        traces,
        ids,
        catalogue,
    };
    let mut most = 0;
    for received in batch {
        most = most.max(received.redeliveries);
        reader.message(received);
    }
    let mut read = reader.read;
    if most > MAX_REDELIVERIES {
        read.take_turns(most);
    }
    read
}

/// An event that the ledger refuses, to be kept as what it is; `span` is its dispatch's, if that is recorded.
pub(crate) fn unrecordable(event: &NewEvent, span: Option<SpanPlace>) -> Refused {
    let record = &event.record;
    let fault = Fault::new(
        "",
        "unrecordable",
        "the ledger cannot hold this event; its log says why",
    );
    let occurred_at = record.occurred_at.map(|at| format!(r#""OccurredAt":"{at}","#));
    // What came is gone; this is what was read from it.
    let body = format!(
        r#"{{"Id":"{}",{}"Type":"{}","Objects":{},"Data":{}}}"#,
        record.id,
        occurred_at.unwrap_or_default(),
        record.kind.name(),
        record.objects.to_json(),
        record.data
    );
    Refused {
        why: Rejection::Unrecordable,
        kept: rejected(&event.account, body.as_bytes(), body.len(), &[fault]),
        // Nothing else is kept by it.
        kept_as: record.uid.0,
        id: Some(record.id),
        step: span.map_or(Step::Unrecorded(record.traceparent), Step::Recorded),
    }
}

fn rejected(account: &Arc<str>, body: &[u8], body_bytes: usize, faults: &[Fault]) -> Rejected {
    // Faults are text and numbers; they always serialise.
    let faults = serde_json::to_string(faults).unwrap_or_else(|error| format!("[\"{error}\"]"));
    Rejected {
        account: Arc::clone(account),
        faults,
        body: body.get(..MAX_REJECTED_BYTES).unwrap_or(body).to_vec(),
        body_bytes,
    }
}

impl Read {
    /// Has each event recorded by itself, and another one first each time that they are handed out: what ends the
    /// process then keeps no other event from being recorded.
    fn take_turns(&mut self, turn: u64) {
        self.one_by_one = true;
        let events = u64::try_from(self.events.len()).unwrap_or(u64::MAX).max(1);
        self.events
            .rotate_left(usize::try_from(turn % events).unwrap_or_default());
    }

    /// Gives the events other uids, after the ledger had no day for theirs: the clock by which they were made may
    /// have been set right since. None of them is recorded under the former one.
    pub(crate) fn date_anew(&mut self, ids: &Ids) {
        for event in &mut self.events {
            let record = Arc::make_mut(&mut event.record);
            let former = std::mem::replace(&mut record.uid, EventUid(ids.next()));
            if let Some(place) = self.spans.remove(&former) {
                self.spans.insert(record.uid, place);
            }
        }
    }
}

impl Reader<'_> {
    /// Judges a message by what costs least first: its length, whether its publisher may send an array, and
    /// only then its text.
    fn message(&mut self, received: &Received) {
        let (body, first) = (&received.body, &received.origins.first);
        if let Some(bytes) = received.cut {
            return self.reject(
                Rejection::TooLarge,
                received,
                first,
                body,
                &[too_large(received.trusted, bytes)],
            );
        }
        // A batch is accepted whole or not at all, which only ingest sees to.
        if !received.trusted && body.trim_ascii_start().starts_with(b"[") {
            let fault = Fault::new(
                "",
                "array",
                "a message is one event; only Herald itself publishes arrays",
            );
            return self.reject(Rejection::Array, received, first, body, &[fault]);
        }
        let text = match text::read(body) {
            Ok(text) => text,
            Err(fault) => {
                let fault = encoded(received).unwrap_or(fault);
                return self.reject(Rejection::Utf8, received, first, body, &[fault]);
            }
        };
        match event::split_json(text) {
            Ok(Batch::One(text)) => self.event(received, first, text, || id_of(received)),
            Ok(Batch::Many(texts)) => {
                for (text, origin) in texts.into_iter().zip(received.origins.of_each()) {
                    self.event(received, origin, text, || Ok(None));
                }
            }
            Err(fault) => self.reject(Rejection::Json, received, first, body, &[fault]),
        }
    }

    /// Takes an event; `fallback` is its `Id` where it has none.
    fn event(
        &mut self,
        received: &Received,
        origin: &Origin,
        text: &str,
        fallback: impl FnOnce() -> Result<Option<EventId>, Fault>,
    ) {
        if !received.accepted && text.len() > MAX_EVENT_BYTES {
            let fault = Fault::new(
                "",
                "max_bytes",
                format!("an event may have at most {MAX_EVENT_BYTES} bytes"),
            );
            return self.reject(Rejection::TooLarge, received, origin, text.as_bytes(), &[fault]);
        }
        let parsed = if received.accepted {
            event::parse_accepted(text, self.catalogue)
        } else {
            event::parse(text, self.catalogue)
        };
        let event = match parsed {
            Ok(event) => event,
            Err(faults) => {
                self.read.has_unknown_type |= event::has_unknown_type(&faults);
                let mut faults = faults.into_listed();
                if faults.iter().any(|fault| fault.pointer.is_empty()) {
                    faults.extend(encoded(received));
                }
                return self.reject(Rejection::Invalid, received, origin, text.as_bytes(), &faults);
            }
        };
        let id = match event.id.map_or_else(fallback, |id| Ok(Some(id))) {
            Ok(Some(id)) => id,
            Ok(None) => {
                let fault = Fault::new(
                    "/Id",
                    "required",
                    "Id is required of what comes by the queue, or message_id",
                );
                return self.reject(Rejection::Id, received, origin, text.as_bytes(), &[fault]);
            }
            Err(fault) => return self.reject(Rejection::Id, received, origin, text.as_bytes(), &[fault]),
        };
        let step = self.step(origin);
        let uid = EventUid(self.ids.next());
        let event = new_event(origin, uid, id, &event, step.context());
        if let Some(place) = step.recorded() {
            self.read.spans.insert(event.record.uid, place);
        }
        self.read.events.push(event);
    }

    fn reject(&mut self, why: Rejection, received: &Received, origin: &Origin, body: &[u8], faults: &[Fault]) {
        let body_bytes = received.cut.unwrap_or(body.len());
        let refused = Refused {
            why,
            kept: rejected(&origin.account, body, body_bytes, faults),
            kept_as: self.ids.next(),
            id: id_of(received).ok().flatten(),
            step: self.step(origin),
        };
        self.read.rejected.push_back(refused);
    }

    /// Each event has a span of its own: those of a batch follow from one message, and lead to different places.
    fn step(&self, origin: &Origin) -> Step {
        self.traces.random_step(origin.traceparent)
    }
}

fn too_large(trusted: bool, bytes: usize) -> Fault {
    let detail = if trusted {
        format!("a message of Herald's own may have at most {MAX_MESSAGE_BYTES} bytes, not {bytes}")
    } else {
        format!("an event may have at most {MAX_EVENT_BYTES} bytes, not {bytes}")
    };
    Fault::new("", "max_bytes", detail)
}

/// What is wrong with a body that is no JSON text because, as its publisher says, it is encoded otherwise. What its publisher calls it
/// is no fault where it can be read: some name the character set there.
fn encoded(received: &Received) -> Option<Fault> {
    let plain = |name: &&str| {
        ["identity", "utf-8", "utf8"]
            .iter()
            .any(|it| it.eq_ignore_ascii_case(name))
    };
    let encoding = received.encoding.as_deref().filter(|name| !plain(name))?;
    let detail = format!("the body is encoded ({encoding}); publish the JSON text itself, without a content_encoding");
    Some(Fault::new("", "content_encoding", detail))
}

/// The `Id` that the message itself gives its event, if it gives one.
fn id_of(received: &Received) -> Result<Option<EventId>, Fault> {
    let Some(id) = received.message_id.as_deref().filter(|id| !id.is_empty()) else {
        return Ok(None);
    };
    match id.parse::<EventId>() {
        Ok(id) if !id.0.is_nil() => Ok(Some(id)),
        Ok(_) | Err(_) => {
            let detail =
                "message_id must be a UUID in its hyphenated form, and not all zeros, where the event has no Id";
            Err(Fault::new("", "message_id", detail))
        }
    }
}

fn new_event(
    origin: &Origin,
    uid: EventUid,
    id: EventId,
    event: &Event<'_>,
    traceparent: Option<TraceContext>,
) -> NewEvent {
    let record = EventRecord {
        uid,
        id,
        kind: event.kind.clone(),
        occurred_at: event.occurred_at,
        objects: event.objects.clone(),
        data: event.data.to_owned(),
        accepted_at: origin.accepted_at,
        traceparent,
    };
    NewEvent {
        body_hash: hash(&record),
        record: Arc::new(record),
        account: Arc::clone(&origin.account),
        matches: Vec::new(),
    }
}

/// Tells apart two bodies with one `Id`: what is sent and to whom.
fn hash(record: &EventRecord) -> i64 {
    let mut hash = Sha256::new();
    hash.update(record.kind.code().to_be_bytes());
    hash.update(record.objects.to_json());
    hash.update(&record.data);
    let digest = hash.finalize();
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    i64::from_be_bytes(first)
}

#[cfg(test)]
mod tests;
