//! Messages into events: what is malformed is set aside whole, with the reason, and never loops.

use herald_domain::event::{self, Batch, Event, MAX_EVENT_BYTES};
use herald_domain::id::EventUid;
use herald_domain::problem::Fault;
use herald_ledger::dispatching::{EventRecord, NewEvent, Rejected};
use herald_queue::{Message, Received};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use uuid::Uuid;

/// What a batch of messages holds.
#[derive(Debug, Default)]
pub(crate) struct Read {
    /// Its events, not yet matched.
    pub(crate) events: Vec<NewEvent>,
    /// What are none.
    pub(crate) rejected: Vec<Rejected>,
}

/// Reads messages.
pub(crate) fn events(batch: Vec<Received>) -> Read {
    let mut read = Read::default();
    for Received { message, .. } in batch {
        read.message(&message);
    }
    read
}

impl Read {
    fn message(&mut self, message: &Message) {
        let text = match std::str::from_utf8(&message.body) {
            Ok(text) => text,
            Err(error) => {
                let fault = Fault::new("", "utf8", format!("the body is not UTF-8: {error}"));
                return self.reject(message, &message.body, &[fault]);
            }
        };
        match event::split_json(text) {
            Ok(Batch::One(text)) => self.event(message, text),
            Ok(Batch::Many(texts)) => texts.into_iter().for_each(|text| self.event(message, text)),
            Err(fault) => self.reject(message, &message.body, &[fault]),
        }
    }

    fn event(&mut self, message: &Message, text: &str) {
        if text.len() > MAX_EVENT_BYTES {
            let fault = Fault::new(
                "",
                "max_bytes",
                format!("an event may have at most {MAX_EVENT_BYTES} bytes"),
            );
            return self.reject(message, text.as_bytes(), &[fault]);
        }
        match event::parse(text) {
            Ok(Event {
                id: Some(id),
                kind,
                occurred_at,
                objects,
                data,
            }) => {
                let record = EventRecord {
                    uid: EventUid(Uuid::now_v7()),
                    id,
                    kind,
                    objects,
                    data: data.to_owned(),
                    accepted_at: message.accepted_at,
                    traceparent: message.traceparent.clone(),
                };
                self.events.push(NewEvent {
                    body_hash: hash(&record),
                    record: Arc::new(record),
                    account: Arc::clone(&message.account),
                    occurred_at,
                    matches: Vec::new(),
                });
            }
            Ok(Event { id: None, .. }) => {
                let fault = Fault::new("/Id", "required", "Id is required of what comes by the queue");
                self.reject(message, text.as_bytes(), &[fault]);
            }
            Err(faults) => self.reject(message, text.as_bytes(), &faults),
        }
    }

    fn reject(&mut self, message: &Message, body: &[u8], faults: &[Fault]) {
        // Faults are text and numbers; they always serialise.
        let faults = serde_json::to_string(faults).unwrap_or_else(|error| format!("[\"{error}\"]"));
        self.rejected.push(Rejected {
            account: Arc::clone(&message.account),
            faults,
            body: body.to_vec(),
        });
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
