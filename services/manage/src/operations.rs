//! What can be asked for: who may, what is read and changed, and what came of it. How that was asked, and how it is
//! answered, is for whoever calls.

pub(crate) mod accounts;
pub(crate) mod deliveries;
pub(crate) mod events;
pub(crate) mod rejected;
pub(crate) mod sight;
pub(crate) mod subscriptions;
