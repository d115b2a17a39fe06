//! W3C Trace Context, and the choice of the spans that are recorded.
//!
//! A *trace* is everything that follows from one request of a producer. A *span* is one piece of that work, such as an
//! attempt. The context of a span has the trace's id, the span's id and whether the trace is recorded. It travels with
//! the event as `traceparent`: in HTTP, in the queue's messages, in the ledger, and on to the subscriber.
//!
//! A producer that gives a context decides whether its trace is recorded. A share of the traces that begin here is
//! recorded. A span that is not recorded becomes no parent: the context that was given is passed on unchanged, so that
//! the parent of the subscriber's spans exists.

use crate::id::DeliveryId;
use std::fmt;
use std::num::{NonZeroU64, NonZeroU128};
use std::str::FromStr;
use uuid::Uuid;

/// The length of `traceparent` in the known version, 00.
const LENGTH: usize = 55;

/// The flag of a trace that is recorded.
const SAMPLED: u8 = 1;

/// The number of bits of a trace id that are random, however it was made: the last 56.
const RANDOM_BITS: u32 = 56;

/// The error of a text that is no `traceparent` by W3C Trace Context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a traceparent such as 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")]
pub struct NotATraceparent;

/// The id of a trace; shown as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId(NonZeroU128);

impl TraceId {
    /// A trace id of a UUID's bits. If the UUID is random (version 4), so are the bits that sampling looks at.
    pub fn of(id: Uuid) -> Self {
        // All zeros are no trace id; the nil UUID is not used.
        Self(NonZeroU128::new(id.as_u128()).unwrap_or(NonZeroU128::MIN))
    }

    /// The id as 16 bytes.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.get().to_be_bytes()
    }
}

/// The id of a span; shown as 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId(NonZeroU64);

impl SpanId {
    /// A span id of the last half of a UUID's bits.
    pub fn of(id: Uuid) -> Self {
        Self::from_bits(id.as_u64_pair().1)
    }

    /// The span of a delivery's attempt, counted from 1. It follows from the delivery's id, so the next attempt can
    /// name it, hours later and in another process.
    pub fn of_attempt(delivery: DeliveryId, attempt: u32) -> Self {
        Self::from_bits(delivery.0.as_u64_pair().1.wrapping_add(attempt.into()))
    }

    /// The id as 8 bytes.
    pub fn to_bytes(self) -> [u8; 8] {
        self.0.get().to_be_bytes()
    }

    fn from_bits(bits: u64) -> Self {
        // The variant's bits keep those of a UUID from being all zeros, which are no span id.
        Self(NonZeroU64::new(bits).unwrap_or(NonZeroU64::MIN))
    }
}

/// The context of a span, as `traceparent` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace that the span belongs to.
    pub trace_id: TraceId,
    /// The id of the span itself.
    pub span_id: SpanId,
    flags: u8,
}

impl TraceContext {
    /// The context of a span in a trace that is not recorded.
    pub fn unsampled(trace_id: TraceId, span_id: SpanId) -> Self {
        Self {
            trace_id,
            span_id,
            flags: 0,
        }
    }

    /// Whether the trace is recorded.
    pub fn is_sampled(self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The flags as they came; bit 0 says that the trace is recorded.
    pub fn flags(self) -> u8 {
        self.flags
    }

    /// Another span of the same trace.
    #[must_use]
    pub fn with_span(self, span_id: SpanId) -> Self {
        Self { span_id, ..self }
    }
}

impl FromStr for TraceContext {
    type Err = NotATraceparent;

    /// Reads `traceparent`. Of a later version only the known part is read, and it is passed on as version 00, as the
    /// standard asks.
    fn from_str(text: &str) -> Result<Self, NotATraceparent> {
        let (known, more) = text.split_at_checked(LENGTH).ok_or(NotATraceparent)?;
        let mut fields = known.split('-');
        let mut field = |digits| {
            fields
                .next()
                .and_then(|text| hexadecimal(text, digits))
                .ok_or(NotATraceparent)
        };
        let (version, trace_id, span_id, flags) = (field(2)?, field(32)?, field(16)?, field(2)?);
        let complete = match version {
            0 => more.is_empty(),
            0xff => false,
            _ => more.is_empty() || more.starts_with('-'),
        };
        if !complete {
            return Err(NotATraceparent);
        }
        let narrow = |bits: u128| u64::try_from(bits).ok().and_then(NonZeroU64::new);
        Ok(Self {
            trace_id: NonZeroU128::new(trace_id).map(TraceId).ok_or(NotATraceparent)?,
            span_id: narrow(span_id).map(SpanId).ok_or(NotATraceparent)?,
            flags: u8::try_from(flags).map_err(|_impossible| NotATraceparent)?,
        })
    }
}

/// Reads lower-case hexadecimal digits. The standard has no others, and the parser of integers would take a sign.
fn hexadecimal(text: &str, digits: usize) -> Option<u128> {
    let allowed = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if text.len() != digits || !text.bytes().all(allowed) {
        return None;
    }
    u128::from_str_radix(text, 16).ok()
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TraceId({self})")
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SpanId({self})")
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", self.trace_id, self.span_id, self.flags)
    }
}

/// The share of the traces that begin here that is recorded: 0 is none, 1 is all.
///
/// For the same trace id every process decides alike, and a trace that is recorded at one ratio is recorded at every
/// higher one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SampleRatio {
    /// Traces whose random bits are at least this are recorded.
    threshold: u64,
}

impl SampleRatio {
    /// Every trace is recorded.
    pub const ALL: Self = Self { threshold: 0 };

    /// A ratio from 0 to 1; nothing for any other number.
    pub fn new(ratio: f64) -> Option<Self> {
        if !(0.0..=1.0).contains(&ratio) {
            return None;
        }
        #[expect(clippy::cast_precision_loss, reason = "a power of two")]
        let all = (1_u64 << RANDOM_BITS) as f64;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "from 0 to 2^56, and a fraction of one in so many does not matter"
        )]
        let threshold = ((1.0 - ratio) * all) as u64;
        Some(Self { threshold })
    }

    /// Whether a trace that begins here is recorded.
    pub fn takes(self, trace_id: TraceId) -> bool {
        let random = trace_id.0.get() & ((1 << RANDOM_BITS) - 1);
        random >= u128::from(self.threshold)
    }
}

/// Whether spans are recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sampling {
    /// No trace is recorded.
    #[default]
    Off,
    /// Those of traces that came recorded, and of those that begin here a share.
    On(SampleRatio),
}

/// Where a piece of work stands in its trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// No span is recorded; what follows from it has the context that was given, if any was.
    Unrecorded(Option<TraceContext>),
    /// It is a span, and the parent of what follows from it.
    Recorded(SpanPlace),
}

/// The place of a span that is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanPlace {
    /// Its trace and its id.
    pub context: TraceContext,
    /// The span that it follows from; none where the trace begins.
    pub parent: Option<SpanId>,
}

impl Sampling {
    /// Where a piece of work stands that follows from `given`. `begin` names a trace where none was given, and
    /// `span` the span; neither is asked in vain.
    pub fn step(
        self,
        given: Option<TraceContext>,
        begin: impl FnOnce() -> TraceId,
        span: impl FnOnce() -> SpanId,
    ) -> Step {
        let Self::On(ratio) = self else {
            return Step::Unrecorded(given);
        };
        match given {
            Some(given) if given.is_sampled() => Step::Recorded(SpanPlace {
                context: given.with_span(span()),
                parent: Some(given.span_id),
            }),
            Some(_) => Step::Unrecorded(given),
            None => {
                let context = TraceContext::unsampled(begin(), span());
                if ratio.takes(context.trace_id) {
                    let context = TraceContext {
                        flags: SAMPLED,
                        ..context
                    };
                    Step::Recorded(SpanPlace { context, parent: None })
                } else {
                    // Whoever comes next must not decide again.
                    Step::Unrecorded(Some(context))
                }
            }
        }
    }
}

impl Step {
    /// The context of what follows from it.
    pub fn context(self) -> Option<TraceContext> {
        match self {
            Self::Unrecorded(given) => given,
            Self::Recorded(place) => Some(place.context),
        }
    }

    /// The span, if it is one.
    pub fn recorded(self) -> Option<SpanPlace> {
        match self {
            Self::Unrecorded(_) => None,
            Self::Recorded(place) => Some(place),
        }
    }
}

#[cfg(test)]
mod tests;
