//! What tasks report to the owner of the lanes.

use herald_domain::catalogue::Webhook;
use herald_domain::delivery::{Attempt, Closed, Delivery};
use herald_domain::id::{DeliveryId, SubscriptionId};
use herald_domain::lanes::{Progress, Work};
use herald_domain::subscription::Subscription;
use herald_domain::time::Timestamp;
use herald_egress::Want;
use herald_ledger::dispatching::EventRecord;
use herald_ledger::wakeups::Wakeup;
use std::sync::Arc;

/// A delivery with its event.
pub(crate) type Item = Work<Arc<EventRecord>>;

/// An attempt that began.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(crate) work: Item,
    /// The subscription as it was then.
    pub(crate) subscription: Arc<Subscription>,
    /// The epoch of the shard when the attempt began.
    pub(crate) epoch: i64,
}

/// An outcome that is in the ledger.
#[derive(Debug)]
pub(crate) struct Recorded {
    pub(crate) subscription: SubscriptionId,
    pub(crate) id: DeliveryId,
    /// When the delivery is due again, if it is.
    pub(crate) due_at: Option<Timestamp>,
    /// When to read the ledger for what has become of the delivery, if that is not known here.
    pub(crate) look_at: Option<Timestamp>,
    /// How the delivery was closed, if this outcome closed it.
    pub(crate) closed: Option<Closed>,
    /// The webhook of the delivery.
    pub(crate) webhook: Webhook,
}

/// What a task reports to the owner.
#[derive(Debug)]
pub(crate) enum Report {
    /// An attempt is over.
    Attempted(Begun, Attempt),
    /// An attempt broke off without an outcome.
    Abandoned(Item),
    /// An attempt was not made, because this process is short of something.
    Postponed(Item, Want),
    /// Outcomes are in the ledger.
    Recorded(Vec<Recorded>),
    /// A lane's rows were read, or could not be.
    Fetched(SubscriptionId, usize, Option<Vec<(Delivery, Option<Arc<EventRecord>>)>>),
    /// A read failed because the ledger is away.
    Away,
    /// The wake-ups were read, or could not be.
    Woken(Option<Vec<Wakeup>>),
    /// A page of the search for lanes was read, or could not be.
    Searched(Option<(Vec<Wakeup>, Progress)>),
    /// Rights were looked up, with success or without.
    RightsChecked,
}
