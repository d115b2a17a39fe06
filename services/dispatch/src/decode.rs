//! Decoding of messages into events. A malformed message is kept whole, with the reason, and never comes again.
//!
//! A message that a producer published itself is checked here. A message from ingest was checked there, before its
//! producer was told 202. It may have waited in the queue since an earlier version with other rules, so it is taken as
//! it is.

use crate::metrics::Rejection;
use herald_domain::catalogue::Catalogue;
use herald_domain::event::cloud_events::{CloudEvent, Mode};
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
use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use uuid::Uuid;

/// How often a message may be handed out again before it is recorded alone.
const MAX_REDELIVERIES: u64 = 20;

/// Splits a batch into groups, in which the last message's acknowledgement counts for all. A message that was handed
/// out over and over gets a group of its own: it may be the reason why the process keeps ending, and must not take
/// other messages with it. The number alone is no reason to reject it: a process that is killed again and again, for
/// any reason, hands out good events as often.
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

/// Whether the message was handed out over and over.
pub(crate) fn is_doubtful(received: &Received) -> bool {
    received.redeliveries > MAX_REDELIVERIES
}

/// The spans of the events whose traces are recorded.
pub(crate) type Spans = HashMap<EventUid, SpanPlace>;

/// The content of a batch of messages.
#[derive(Debug, Default)]
pub(crate) struct Decoded {
    /// Its events, not yet matched.
    pub(crate) events: Vec<NewEvent>,
    /// Messages that are no events.
    pub(crate) rejected: VecDeque<RejectedMessage>,
    /// Whether each event is recorded by itself, because one of them may be the reason why the process keeps ending.
    pub(crate) one_by_one: bool,
    /// The places of the events in their traces.
    pub(crate) spans: Spans,
    /// Whether an event was rejected for a type that the catalogue does not have.
    pub(crate) may_be_outdated: bool,
}

/// A message that is no event, or an event that the ledger cannot hold.
#[derive(Debug, Clone)]
pub(crate) struct RejectedMessage {
    /// Why it is rejected.
    pub(crate) why: Rejection,
    /// The record that is kept of it.
    pub(crate) record: Rejected,
    /// The id of that record. It is made before the first write, and stays the same when that is tried again.
    pub(crate) record_id: Uuid,
    /// The event's `Id`, if it is known.
    pub(crate) id: Option<EventId>,
    /// The place of its dispatch in its trace.
    pub(crate) step: Step,
}

struct Decoder<'a> {
    decoded: Decoded,
    traces: &'a Traces,
    ids: &'a Ids,
    catalogue: &'a Catalogue,
}

/// Decodes messages. `ids` makes the uids of their events, and the ids of the records of rejected messages.
pub(crate) fn events(batch: &[Received], traces: &Traces, ids: &Ids, catalogue: &Catalogue) -> Decoded {
    let mut decoder = Decoder {
        decoded: Decoded::default(),
        traces,
        ids,
        catalogue,
    };
    let mut most = 0;
    for received in batch {
        most = most.max(received.redeliveries);
        decoder.message(received);
    }
    let mut decoded = decoder.decoded;
    if most > MAX_REDELIVERIES {
        decoded.take_turns(most);
    }
    decoded
}

/// The record of an event that the ledger refuses. `span` is that of its dispatch, if its trace is recorded.
pub(crate) fn unrecordable(event: &NewEvent, span: Option<SpanPlace>) -> RejectedMessage {
    let record = &event.record;
    let fault = Fault::new(
        "",
        "unrecordable",
        "the ledger cannot hold this event; its log says why",
    );
    let occurred_at = record.occurred_at.map(|at| format!(r#""OccurredAt":"{at}","#));
    // The message itself is gone; this is made from what was read.
    let body = format!(
        r#"{{"Id":"{}",{}"Type":"{}","Objects":{},"Data":{}}}"#,
        record.id,
        occurred_at.unwrap_or_default(),
        record.kind.name(),
        record.objects.to_json(),
        record.data
    );
    RejectedMessage {
        why: Rejection::Unrecordable,
        record: rejected(&event.account, body.as_bytes(), body.len(), &[fault]),
        // No other record has this id.
        record_id: record.uid.0,
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

impl Decoded {
    /// Has each event recorded by itself, and another one first each time that they are handed out. So an event that
    /// ends the process keeps no other from being recorded.
    fn take_turns(&mut self, turn: u64) {
        self.one_by_one = true;
        let events = u64::try_from(self.events.len()).unwrap_or(u64::MAX).max(1);
        self.events
            .rotate_left(usize::try_from(turn % events).unwrap_or_default());
    }

    /// Gives the events new uids, because the ledger had no partition for the day of the old ones: the clock by which
    /// these were made may have been set right since. No event is recorded under its old uid.
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

impl Decoder<'_> {
    /// Checks a message, the cheapest rule first: its length, then whether its publisher may send an array, and
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
        // In binary mode the body is the data of one CloudEvent, whatever it looks like.
        let binary = matches!(received.cloud_event, Some(Mode::Binary(_)));
        // A batch must be accepted whole or not at all, and only ingest ensures that.
        if !received.trusted && !binary && body.trim_ascii_start().starts_with(b"[") {
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
                let unreadable = received.cloud_event.as_ref().and_then(Mode::unreadable);
                let fault = unreadable.or_else(|| encoded(received)).unwrap_or(fault);
                return self.reject(Rejection::Utf8, received, first, body, &[fault]);
            }
        };
        let texts = if binary {
            Ok(Batch::One(text.trim_ascii()))
        } else {
            event::split_json(text)
        };
        match texts {
            Ok(Batch::One(text)) => self.event(received, first, text, || id_of(received)),
            Ok(Batch::Many(texts)) => {
                for (text, origin) in texts.into_iter().zip(received.origins.of_each()) {
                    self.event(received, origin, text, || Ok(None));
                }
            }
            Err(fault) => self.reject(Rejection::Json, received, first, body, &[fault]),
        }
    }

    /// Takes an event. `fallback` becomes its `Id` if it has none.
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
        let cloud_event = received.cloud_event.as_ref();
        let cloud_event = cloud_event
            .map(|mode| CloudEvent::read(mode, text, self.catalogue))
            .transpose();
        let parsed = match &cloud_event {
            Err(faults) => Err(faults.clone()),
            Ok(Some(cloud_event)) => cloud_event.parse(self.catalogue),
            Ok(None) if received.accepted => event::parse_accepted(text, self.catalogue),
            Ok(None) => event::parse(text, self.catalogue),
        };
        let event = match parsed {
            Ok(event) => event,
            Err(faults) => {
                self.decoded.may_be_outdated |= faults.may_be_outdated();
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
            self.decoded.spans.insert(event.record.uid, place);
        }
        self.decoded.events.push(event);
    }

    fn reject(&mut self, why: Rejection, received: &Received, origin: &Origin, body: &[u8], faults: &[Fault]) {
        // In binary mode the attributes of a CloudEvent stand beside the body; they are kept with it.
        let whole = match &received.cloud_event {
            Some(Mode::Binary(attributes)) => Cow::Owned(attributes.with_body(body).into_bytes()),
            _ => Cow::Borrowed(body),
        };
        let lacking = received.cut.map_or(0, |bytes| bytes.saturating_sub(body.len()));
        let rejected = RejectedMessage {
            why,
            record: rejected(&origin.account, &whole, whole.len() + lacking, faults),
            record_id: self.ids.next(),
            id: id_of(received).ok().flatten(),
            step: self.step(origin),
        };
        self.decoded.rejected.push_back(rejected);
    }

    /// Begins the span of an event. Each event of a batch has its own: they come from one message, and go to different
    /// places.
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

/// The fault of a body that is no JSON text and that, by its publisher's word, has another encoding. If the body can be
/// read, an encoding is no fault: some publishers name the character set there.
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

/// A hash that tells apart two bodies with one `Id`, made of what is sent and to whom.
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
