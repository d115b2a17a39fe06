//! What tasks report to the worker's shell.

use herald_domain::delivery::Delivery;
use herald_domain::lanes::Work;
use herald_domain::worker::{Input, NextStep, RecordResult};
use herald_egress::Want;
use herald_ledger::dispatching::EventRecord;
use std::sync::Arc;

/// What is sent for a delivery.
pub(crate) type Payload = Arc<EventRecord>;

/// A delivery with its event.
pub(crate) type Item = Work<Payload>;

/// What a task reports.
#[derive(Debug)]
pub(crate) enum Report {
    /// Something that the worker hears.
    Heard(Input<Payload>),
    /// Outcomes are in the ledger, each with its result.
    Recorded(Vec<(Delivery, NextStep, RecordResult)>),
    /// An attempt was not made, because this process is short of something.
    Postponed(Item, Want),
}
