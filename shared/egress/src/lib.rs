//! Egress makes one HTTP exchange with a receiver: [`Client::exchange`] sends a request and gives what came of it by a
//! deadline, with a bounded part of the answer.
//!
//! Every address is checked after name resolution, at every connect. A literal address in a URL never reaches the
//! resolver, so [`Client::target`] checks it. Names are judged by what they resolve to, at each connect, so an answer
//! that changes between two look-ups gets nobody past the check. Redirects are not followed, and proxies from the
//! environment are ignored, because either could lead elsewhere.
//!
//! Receivers that offer HTTP/2 over TLS (ALPN) get it, and requests to a host share connections. Requests that hang
//! would use these up for every other target on that host. So a target with a request that was not answered in time
//! is isolated: it has connections of its own for some minutes, over HTTP/1.1, whether its request hung or only waited
//! for others. A target whose receiver says that it wants HTTP/1.1 (RFC 9113, 7) is isolated too. A receiver that
//! speaks only HTTP/2 refuses such a connection (RFC 7301, 3.2); then its requests share connections again.
//!
//! A request is sent again at once, in the same exchange, if the receiver has not failed: it says that it did nothing
//! with the request (RFC 9113, 8.7), it wants HTTP/1.1 or only HTTP/2, or it closed an idle connection before a byte
//! of the answer came (RFC 9112, 9.3.1), as it may at any time. So whoever makes requests gives each of them an
//! identity that stays the same, such as a `webhook-id`.
#![warn(missing_docs)]

mod answer;
mod chain;
mod client;
mod connect;
mod credentials;
mod exchange;
mod failure;
mod names;
mod pool;
mod target;
mod tls;
mod want;

pub use answer::Answer;
pub use client::{Client, EgressError};
pub use exchange::{BodyLimits, Exchange, ExchangeOutcome, Request, Timing};
pub use failure::{Failure, Want};
pub use target::{Target, TargetError};
pub use tls::parse_certificates;
