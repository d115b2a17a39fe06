//! Groups of requests that are published together.
//!
//! A small message costs the broker of a quorum queue about as much as one of some hundred events. So requests that
//! arrive while others are being confirmed are published together, as one message, whichever account they come from.
//! No request waits for others while fewer groups are under way than may be.

use super::wire;
use crate::{Message, Origins, Route};
use herald_domain::event::MAX_EVENT_BYTES;
use lapin::BasicProperties;
use lapin::types::ShortString;
use std::collections::VecDeque;

/// The largest request that goes together with others, in bytes.
pub(super) const MAX_SMALL_BYTES: usize = 64 << 10;

/// The most bytes of a group: every consumer of events takes a message of this size.
const MAX_BYTES: usize = MAX_EVENT_BYTES;

/// The most events of a group; dispatch records some groups in one transaction.
const MAX_EVENTS: usize = 256;

/// The most requests of a group. Each has a line in a header, which is one frame.
const MAX_REQUESTS: usize = 256;

/// How many requests a group may have if a frame has at most so many bytes. The properties must fit into one frame.
pub(super) fn most_requests(frame_max: u32) -> usize {
    let frame = usize::try_from(frame_max).unwrap_or(usize::MAX);
    (frame / 2 / wire::ORIGIN_BYTES).clamp(1, MAX_REQUESTS)
}

/// The size of a group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Size {
    requests: usize,
    events: usize,
    bytes: usize,
}

impl Size {
    fn with(self, message: &Message) -> Self {
        Self {
            requests: self.requests + 1,
            events: self.events + message.origin.events,
            bytes: self.bytes + message.body.len(),
        }
    }

    fn fits(self, most_requests: usize) -> bool {
        self.requests <= most_requests && self.events <= MAX_EVENTS && self.bytes <= MAX_BYTES
    }
}

/// Takes a group of requests from the front: as many as fit, and at least one.
pub(super) fn take<T>(waiting: &mut VecDeque<T>, most_requests: usize, message: impl Fn(&T) -> &Message) -> Vec<T> {
    let mut size = Size::default();
    let fits = waiting.iter().take_while(|waiting| {
        size = size.with(message(waiting));
        size.requests == 1 || size.fits(most_requests)
    });
    let fits = fits.count();
    waiting.drain(..fits).collect()
}

/// A group as one message: its routing key, properties and body.
pub(super) fn message(group: Vec<(Message, Route)>, user: &str) -> Option<(ShortString, BasicProperties, Vec<u8>)> {
    let mut group = group.into_iter();
    let (first, route) = group.next()?;
    if group.len() == 0 {
        let properties = wire::properties(&first.origin, &route, user);
        return Some((wire::short(route.key()), properties, first.body));
    }
    let bytes = group
        .as_slice()
        .iter()
        .map(|(message, _)| message.body.len() + 1)
        .sum::<usize>();
    let mut body = Vec::with_capacity(first.body.len() + bytes + 2);
    let mut origins = Origins {
        first: first.origin,
        others: Vec::with_capacity(group.len()),
    };
    body.push(b'[');
    body.extend_from_slice(inner(&first.body, &route));
    for (Message { origin, body: events }, route) in group {
        body.push(b',');
        body.extend_from_slice(inner(&events, &route));
        origins.others.push(origin);
    }
    body.push(b']');
    Some((
        wire::short(Route::Batch.key()),
        wire::properties_of_several(&origins, user),
        body,
    ))
}

/// The events of a request, as they stand in an array.
fn inner<'a>(events: &'a [u8], route: &Route) -> &'a [u8] {
    match route {
        Route::Event(..) => events,
        Route::Batch => events
            .strip_prefix(b"[")
            .and_then(|events| events.strip_suffix(b"]"))
            .unwrap_or(events),
    }
}

#[cfg(test)]
mod tests;
