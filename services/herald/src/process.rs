//! The process that serves: which roles it has, how it is set, how it starts and how it stops.

pub(crate) mod config;
pub(crate) mod data;
pub(crate) mod limits;
pub(crate) mod listener;
pub(crate) mod roles;
pub(crate) mod signals;
pub(crate) mod start;
pub(crate) mod stop;
pub(crate) mod stores;

mod clocks;
mod dead_letters;
mod http;
mod in_hand;
mod metrics;
mod retention;
mod server;
mod tasks;
mod unread;
