use super::*;
use crate::Origin;
use crate::rabbitmq::wire;
use herald_domain::catalogue::{EnateEvent, EventType};
use herald_domain::id::EventId;
use herald_domain::time::Timestamp;
use lapin::message::Delivery;
use proptest::prelude::*;
use serde_json::Value;
use uuid::Uuid;

const USER: &str = "herald";
const ALL: usize = MAX_REQUESTS;

/// A request of that many events, each with a number of its own from `first` on; a single one is no array.
fn request(account: usize, first: usize, events: usize, padding: usize) -> (Message, Route) {
    let id = |n: usize| EventId(Uuid::from_u128(n as u128 + 1));
    let event = |n: usize| format!(r#"{{"Id":"{}","Data":"{}"}}"#, id(n), "x".repeat(padding));
    let (body, route) = if events == 1 {
        (
            event(first),
            Route::Event(EventType::Enate(EnateEvent::PacketCreated), id(first)),
        )
    } else {
        let texts: Vec<_> = (first..first + events).map(event).collect();
        (format!("[{}]", texts.join(",")), Route::Batch)
    };
    let traced = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let origin = Origin {
        account: Uuid::from_u128(account as u128).to_string().into(),
        accepted_at: Timestamp::from_micros(i64::try_from(first).unwrap()),
        traceparent: first.is_multiple_of(2).then(|| traced.parse().unwrap()),
        events,
    };
    let body = body.into_bytes();
    (Message { origin, body }, route)
}

/// A message as dispatch has it: each event with its origin, read from what is sent.
fn received(group: Vec<(Message, Route)>) -> Vec<(Value, Origin)> {
    let (key, properties, body) = message(group, USER).unwrap();
    let mut delivery = Delivery::mock(1, "herald.events".into(), key, false, body);
    delivery.properties = properties;
    let received = wire::read(delivery, 1, &[USER.to_owned()], Timestamp::from_micros(9));
    let events = match serde_json::from_slice(&received.body).unwrap() {
        Value::Array(events) => events,
        event => vec![event],
    };
    assert_eq!(events.len(), received.origins.events());
    events.into_iter().zip(received.origins.of_each().cloned()).collect()
}

#[test]
fn one_request_is_what_it_was() {
    for events in [1, 3] {
        let (request, route) = request(7, 0, events, 0);
        let (key, properties, body) = message(vec![(request.clone(), route.clone())], USER).unwrap();
        assert_eq!((key.as_str(), &body), (route.key(), &request.body));
        assert_eq!(properties, wire::properties(&request.origin, &route, USER));
    }
}

#[test]
fn nothing_is_no_message() {
    assert!(message(Vec::new(), USER).is_none());
    assert!(take(&mut VecDeque::<(Message, Route)>::new(), ALL, |(message, _)| message).is_empty());
}

#[test]
fn what_does_not_fit_alone_goes_alone() {
    let mut waiting: VecDeque<_> = [
        request(1, 0, MAX_EVENTS + 1, 0),
        request(1, 1000, 1, MAX_BYTES),
        request(1, 1001, 1, 0),
        request(1, 1002, MAX_EVENTS, 0),
    ]
    .into();
    for left in [3, 2, 1, 0] {
        assert_eq!(take(&mut waiting, ALL, |(message, _)| message).len(), 1);
        assert_eq!(waiting.len(), left);
    }
}

#[test]
fn the_header_stays_within_half_a_frame() {
    assert_eq!(most_requests(131_072), MAX_REQUESTS);
    assert_eq!(most_requests(u32::MAX), MAX_REQUESTS);
    assert_eq!(most_requests(1), 1);
    for frame in [4096, 8192, 131_072] {
        let most = most_requests(frame);
        // The longest of each: the end of time, all events in one, and a trace.
        let origin = Origin {
            accepted_at: Timestamp::from_micros(i64::MIN),
            events: MAX_EVENTS,
            ..request(0, 0, 1, 0).0.origin
        };
        let lines = wire::line(&origin).len() * most;
        assert!(
            most == 1 || lines <= usize::try_from(frame).unwrap() / 2,
            "{frame}: {lines}"
        );
    }
}

proptest! {
    /// Each event that was accepted is in exactly one message, in its place, with its own origin, and a message is
    /// within its bounds, but for a request that alone is beyond them.
    #[test]
    fn each_event_is_in_exactly_one_message(
        sizes in prop::collection::vec((0usize..4, prop_oneof![4 => 1usize..4, 1 => 1usize..300], 0usize..2000), 1..60),
        most in 1usize..40,
    ) {
        let mut first = 0;
        let requests: Vec<_> = sizes.iter().map(|(account, events, padding)| {
            let padding = if *events > 4 { 0 } else { *padding };
            let request = request(*account, first, *events, padding);
            first += events;
            request
        }).collect();
        let sent: Vec<_> = requests.iter().flat_map(|(message, route)| received(vec![(message.clone(), route.clone())])).collect();
        let mut waiting: VecDeque<_> = requests.into();
        let mut arrived = Vec::new();
        while !waiting.is_empty() {
            let group = take(&mut waiting, most, |(message, _)| message);
            let size = group.iter().fold(Size::default(), |size, (message, _)| size.with(message));
            prop_assert!(size.requests == 1 || size.fits(most), "{:?}", size);
            arrived.extend(received(group));
        }
        prop_assert_eq!(arrived, sent);
    }
}
