//! The rules of Herald, as pure functions and types: no I/O, no clock, no randomness of their own.
//!
//! | module | what it decides |
//! |---|---|
//! | [`id`] | the identifiers, and how a delivery's id follows from its event |
//! | [`time`] | instants, and the clock that is handed in |
//! | [`problem`] | how a fault in a request is named |
//! | [`text`] | which bytes are a text, and which characters it may have |
//! | [`catalogue`] | the event types, webhooks and fields that exist |
//! | [`event`] | whether an event is well formed |
//! | [`subscription`] | whether a subscription is well formed, and its defaults |
//! | [`access`] | roles, grants and who may subscribe to what |
//! | [`index`] | which subscriptions an event matches |
//! | [`message`], [`signing`] | the bytes that are sent and their signature |
//! | [`trace`] | which trace a piece of work belongs to, and whether it is recorded |
//! | [`address`] | which addresses a request may go to |
//! | [`delivery`], [`retry`] | what follows from an attempt |
//! | [`lanes`] | which delivery is attempted next |
//! | [`worker`] | what a worker does about all that it hears |
//! | [`retention`] | how long what is over is kept |
//! | [`breaker`], [`in_flight_limit`], [`rate_limit`] | how much a subscriber is sent |
#![warn(missing_docs, clippy::wildcard_enum_match_arm)]

pub mod access;
pub mod address;
pub mod breaker;
pub mod catalogue;
pub mod delivery;
pub mod event;
pub mod id;
pub mod in_flight_limit;
pub mod index;
mod json;
pub mod lanes;
pub mod message;
pub mod problem;
pub mod rate_limit;
pub mod retention;
pub mod retry;
pub mod signing;
pub mod subscription;
pub mod text;
pub mod time;
pub mod trace;
pub mod worker;
