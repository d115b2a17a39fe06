//! Spans for OpenTelemetry: recorded where work happens, exported in the background to a collector (OTLP over
//! HTTP, protobuf).
//!
//! [`Traces`] is a handle that every service has. Off, which is the default, it costs a branch. On, a span goes
//! into a bounded queue whose other end is the [`Exporter`], a task of its own: nobody waits for the collector,
//! and what it does not take is dropped and counted. Which spans are recorded, and what their ids are, is decided
//! in [`herald_domain::trace`]; names and attributes are those of OpenTelemetry's semantic conventions, and
//! `herald.*` for what they do not know.
//!
//! The messages on the wire are OpenTelemetry's own types; its SDK is not used. There a span's id is made up, and an
//! attempt's must follow from its delivery; and its batch processor keeps the number of spans that it dropped to
//! itself.

mod exporter;
mod metrics;
mod otlp;

pub use exporter::Exporter;
use herald_domain::time::Timestamp;
use herald_domain::trace::{SampleRatio, Sampling, SpanId, SpanPlace, Step, TraceContext, TraceId};
use metrics::{Dropped, Metrics};
use reqwest::Url;
use std::borrow::Cow;
use std::sync::Arc;
use tokio::sync::mpsc;
use uuid::Uuid;

/// How many spans wait for the exporter at most: some 16 MB of them, and what 30,000 a second make while one batch
/// is under way.
const QUEUE: usize = 16_384;

/// What to record, and where it goes.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The collector's base URL; `v1/traces` is appended to its path.
    pub endpoint: Url,
    /// Of the traces that begin here, how many are recorded.
    pub ratio: SampleRatio,
    /// The version of the program.
    pub version: &'static str,
    /// What the process is for.
    pub role: &'static str,
}

/// Why traces cannot be exported at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The client could not be made, such as for want of the system's certificates.
    #[error("no client for the collector")]
    Client(#[from] reqwest::Error),
    /// The endpoint cannot have a path.
    #[error("the collector's URL has no room for a path")]
    Endpoint,
    /// A metric of that name exists already.
    #[error("a metric could not be registered")]
    Metrics(#[from] prometheus::Error),
}

/// Records spans, if anybody wants them. Cheap to clone; the default is off.
#[derive(Debug, Clone, Default)]
pub struct Traces(Option<Arc<On>>);

#[derive(Debug)]
struct On {
    ratio: SampleRatio,
    spans: mpsc::Sender<Span>,
    metrics: Metrics,
}

/// A span that has ended.
#[derive(Debug)]
pub struct Span {
    /// What kind of work it was, of few different values.
    pub name: Cow<'static, str>,
    /// Which side of a call it was.
    pub kind: Kind,
    /// Where it stands in its trace.
    pub place: SpanPlace,
    /// Another span that it has to do with.
    pub link: Option<TraceContext>,
    /// When the span began.
    pub began: Timestamp,
    /// When the span ended.
    pub ended: Timestamp,
    /// What else is known of it; never a secret, a payload, or more of a URL than its host.
    pub attributes: Vec<(&'static str, Value)>,
    /// How it failed, if it did: one of few words, as `error.type` has it.
    pub error: Option<Cow<'static, str>>,
}

/// Which side of a call a span is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It answered a request.
    Server,
    /// It made a request.
    Client,
    /// It put a message into a queue.
    Producer,
    /// It took a message out of a queue.
    Consumer,
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A value that is a text.
    Text(Cow<'static, str>),
    /// A value that is a whole number.
    Number(i64),
    /// A value that is true or false.
    Truth(bool),
}

impl Traces {
    /// With settings traces are on, and the exporter is to be run; its metrics go to `registry` in any case.
    pub fn new(settings: Option<Settings>, registry: &prometheus::Registry) -> Result<(Self, Option<Exporter>), Error> {
        let metrics = Metrics::register(registry)?;
        let Some(settings) = settings else {
            return Ok((Self(None), None));
        };
        let (spans, to_export) = mpsc::channel(QUEUE);
        let exporter = Exporter::new(&settings, to_export, metrics.clone())?;
        let on = On {
            ratio: settings.ratio,
            spans,
            metrics,
        };
        Ok((Self(Some(Arc::new(on))), Some(exporter)))
    }

    /// Where a piece of work stands that follows from `given`, see [`Sampling::step`].
    pub fn step(
        &self,
        given: Option<TraceContext>,
        begin: impl FnOnce() -> TraceId,
        span: impl FnOnce() -> SpanId,
    ) -> Step {
        let sampling = self.0.as_ref().map_or(Sampling::Off, |on| Sampling::On(on.ratio));
        sampling.step(given, begin, span)
    }

    /// The same with random ids.
    pub fn random_step(&self, given: Option<TraceContext>) -> Step {
        self.step(given, || TraceId::of(Uuid::new_v4()), || SpanId::of(Uuid::new_v4()))
    }

    /// Takes a span that has ended; never waits.
    pub fn record(&self, span: Span) {
        let Some(on) = &self.0 else { return };
        if on.spans.try_send(span).is_err() {
            // Full; or the process is ending, and its exporter has had its time.
            on.metrics.dropped(Dropped::QueueFull, 1);
        }
    }
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

impl From<u16> for Value {
    fn from(number: u16) -> Self {
        Self::Number(number.into())
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

impl From<usize> for Value {
    fn from(number: usize) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<bool> for Value {
    fn from(truth: bool) -> Self {
        Self::Truth(truth)
    }
}

#[cfg(test)]
mod tests;
