use super::*;
use crate::id::{EventUid, SubscriptionId};
use proptest::prelude::*;

const GIVEN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn ratio(ratio: f64) -> SampleRatio {
    SampleRatio::new(ratio).unwrap()
}

/// A step whose ids are these.
fn step(sampling: Sampling, given: Option<TraceContext>, ids: u128) -> Step {
    let id = Uuid::from_u128(ids);
    sampling.step(given, || TraceId::of(id), || SpanId::of(id))
}

#[test]
fn what_is_a_traceparent_and_what_is_not() {
    let later = GIVEN.replacen("00", "cc", 1);
    for text in [GIVEN, later.as_str(), &format!("{later}-what-the-future-will-be-like")] {
        let context: TraceContext = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(context.to_string(), GIVEN, "{text}");
    }
    for text in [
        "",
        "00",
        GIVEN.strip_suffix('1').unwrap(),
        &format!("{GIVEN}-more"),
        &format!("{later}.more"),
        &GIVEN.to_uppercase(),
        &GIVEN.replacen("00", "ff", 1),
        &GIVEN.replacen("-4b", "-+4", 1),
        &GIVEN.replace('-', "_"),
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        "00-4bf92f3577b34da6a3ce929d0e0e473-600f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0g",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b\u{e9}-1",
    ] {
        assert_eq!(text.parse::<TraceContext>(), Err(NotATraceparent), "{text}");
    }
}

#[test]
fn a_ratio_is_from_0_to_1() {
    assert_eq!(ratio(1.0), SampleRatio::ALL);
    for number in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
        assert_eq!(SampleRatio::new(number), None, "{number}");
    }
}

#[test]
fn a_quarter_of_the_traces_are_those_with_the_highest_random_bits() {
    let with = |random: u128| TraceId::of(Uuid::from_u128((7 << RANDOM_BITS) | random));
    let quarter = ratio(0.25);
    let threshold = 3 << (RANDOM_BITS - 2);
    assert!(!quarter.takes(with(0)) && !quarter.takes(with(threshold - 1)));
    assert!(quarter.takes(with(threshold)) && quarter.takes(with((1 << RANDOM_BITS) - 1)));
}

#[test]
fn an_attempt_has_a_span_of_its_own_that_follows_from_what_it_is_an_attempt_of() {
    let event = EventUid(Uuid::from_u128(0x0193_f1a0_7c1e_7d1a_b1f0_3a5c_7e9d_1b2f));
    let delivery = |subscription| DeliveryId::derive(event, SubscriptionId(Uuid::from_u128(subscription)), Uuid::nil());
    let (one, other) = (delivery(1), delivery(2));
    assert_eq!(SpanId::of_attempt(one, 1), SpanId::of_attempt(one, 1));
    assert_ne!(SpanId::of_attempt(one, 1), SpanId::of_attempt(one, 2));
    assert_ne!(SpanId::of_attempt(one, 1), SpanId::of_attempt(other, 1));
}

fn contexts() -> impl Strategy<Value = TraceContext> {
    (1..=u128::MAX, 1..=u64::MAX, any::<u8>()).prop_map(|(trace, span, flags)| TraceContext {
        trace_id: TraceId(NonZeroU128::new(trace).unwrap()),
        span_id: SpanId(NonZeroU64::new(span).unwrap()),
        flags,
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(context in contexts()) {
        let text = context.to_string();
        prop_assert_eq!(text.len(), LENGTH);
        prop_assert_eq!(text.parse::<TraceContext>(), Ok(context));
    }

    #[test]
    fn any_text_is_read_or_refused(context in contexts(), at in 0..LENGTH, other: char, text in "\\PC{0,60}") {
        let changed = context.to_string().chars().enumerate().map(|(n, c)| if n == at { other } else { c }).collect();
        for text in [text, changed] {
            if let Ok(read) = text.parse::<TraceContext>() {
                prop_assert_eq!(read.to_string().parse::<TraceContext>(), Ok(read));
            }
        }
    }

    #[test]
    fn what_is_taken_at_one_ratio_is_taken_at_every_higher_one(id in 1..=u128::MAX, low in 0.0..=1.0, high in 0.0..=1.0) {
        let trace = TraceId::of(Uuid::from_u128(id));
        prop_assert!(ratio(1.0).takes(trace) && !ratio(0.0).takes(trace));
        let (low, high) = if low <= high { (low, high) } else { (high, low) };
        prop_assert!(!ratio(low).takes(trace) || ratio(high).takes(trace));
    }

    #[test]
    fn off_nothing_is_recorded_and_what_came_goes_on(given in proptest::option::of(contexts()), ids: u128) {
        prop_assert_eq!(step(Sampling::Off, given, ids), Step::Unrecorded(given));
    }

    #[test]
    fn who_gives_a_context_decides(given in contexts(), ids in 1..=u128::MAX, share in 0.0..=1.0) {
        let step = step(Sampling::On(ratio(share)), Some(given), ids);
        if given.is_sampled() {
            let place = step.recorded().unwrap();
            prop_assert_eq!(place.parent, Some(given.span_id));
            prop_assert_eq!(place.context, given.with_span(SpanId::of(Uuid::from_u128(ids))));
        } else {
            prop_assert_eq!(step, Step::Unrecorded(Some(given)));
        }
    }

    #[test]
    fn of_a_trace_that_begins_here_it_is_decided_once(ids in 1..=u128::MAX, share in 0.0..=1.0) {
        let sampling = Sampling::On(ratio(share));
        let first = step(sampling, None, ids);
        let context = first.context().unwrap();
        prop_assert_eq!(first.recorded().is_some(), ratio(share).takes(context.trace_id));
        prop_assert_eq!(context.is_sampled(), first.recorded().is_some());
        prop_assert_eq!(first.recorded().and_then(|place| place.parent), None);
        let next = step(sampling, Some(context), ids.wrapping_add(1));
        prop_assert_eq!(next.recorded().is_some(), first.recorded().is_some());
        prop_assert_eq!(next.context().unwrap().trace_id, context.trace_id);
    }
}
