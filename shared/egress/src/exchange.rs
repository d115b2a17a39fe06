//! What an exchange is made of: a request, and what came of it.

use crate::answer::{Answer, MAX_DESCRIBED_BYTES};
use crate::failure::Failure;
use crate::target::Target;
use bytes::Bytes;
use http::HeaderMap;
use std::time::Duration;

/// A request with the method POST.
#[derive(Debug)]
pub struct Request<'a> {
    /// Where it goes.
    pub target: &'a Target,
    /// All of its headers: those of [`Target::headers`], and more.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// How much of the answer's body is of interest.
    pub limits: BodyLimits,
}

/// How much of an answer's body is read and kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyLimits {
    /// The most bytes that are kept, from the beginning of the body.
    pub kept: usize,
    /// The most bytes that are read. The next request may have the connection if the body ends within them.
    pub read: usize,
}

impl Default for BodyLimits {
    /// As much as [`Answer::describe`] tells.
    fn default() -> Self {
        Self {
            kept: MAX_DESCRIBED_BYTES,
            read: 16 * 1024,
        }
    }
}

/// A request that was made, and what came of it.
#[derive(Debug)]
pub struct Exchange {
    /// What came of it.
    pub outcome: ExchangeOutcome,
    /// How long it took.
    pub timing: Timing,
}

/// What came of a request.
#[derive(Debug)]
pub enum ExchangeOutcome {
    /// The head of an answer came before the deadline, with any status.
    Answered(Answer),
    /// The request could not be sent, or the connection ended without an answer.
    Failed(Failure),
    /// No answer came before the deadline.
    TimedOut,
}

/// How long an exchange took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timing {
    /// From its beginning until the body was read, as far as it is read, or the request had failed.
    pub total: Duration,
}
