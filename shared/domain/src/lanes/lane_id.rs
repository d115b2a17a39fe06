//! The name of a lane.

use crate::delivery::Delivery;
use crate::id::{Shard, SubscriptionId};

/// Names a lane: the queue of all deliveries of one subscription.
///
/// Flow control (rate, breaker, limits) belongs to the subscriber and goes by [`SubscriptionId`]. Whatever queues
/// deliveries goes by `LaneId`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneId {
    subscription: SubscriptionId,
}

impl LaneId {
    /// The lane of all deliveries of that subscription.
    pub const fn of(subscription: SubscriptionId) -> Self {
        Self { subscription }
    }

    /// The subscription that the lane's deliveries are for.
    pub const fn subscription(self) -> SubscriptionId {
        self.subscription
    }

    /// The shard of the lane, which is its subscription's.
    pub fn shard(self) -> Shard {
        Shard::of(self.subscription)
    }
}

impl From<SubscriptionId> for LaneId {
    fn from(subscription: SubscriptionId) -> Self {
        Self::of(subscription)
    }
}

impl Delivery {
    /// The lane in which the delivery waits for its turn.
    pub const fn lane(&self) -> LaneId {
        LaneId::of(self.subscription)
    }
}
