//! Whose outcomes count: those of the present owner of a delivery's shard, and whose else.

use super::Finish;
use crate::Error;
use crate::shards::epochs;
use crate::sql::{for_values, uuid};
use herald_domain::id::{DeliveryId, Shard};
use herald_domain::time::Timestamp;
use sea_orm::DatabaseTransaction;
use std::collections::{HashMap, HashSet};

/// What an outcome counts that is not the present owner's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Former {
    /// The delivery is the former owner's until then, as it said when it gave the shard back.
    Busy,
    /// Nothing: the present owner may have sent the delivery too.
    Void,
}

/// Of the outcomes that count only from an owner, those whose shard has changed hands since. For a transaction
/// that holds the registry: so no shard is taken between this and what it writes.
pub(super) async fn outcomes(
    txn: &DatabaseTransaction,
    batch: &[Finish],
    now: Timestamp,
) -> Result<HashMap<DeliveryId, Former>, Error> {
    let owners: Vec<&Finish> = batch.iter().filter(|finish| !finish.is_success()).collect();
    let shards: HashSet<Shard> = owners.iter().map(|finish| shard(finish)).collect();
    let epochs = epochs(txn, shards).await?;
    let mut former: HashMap<_, _> = owners
        .into_iter()
        .filter(|finish| epochs.get(&shard(finish)) != Some(&finish.epoch))
        .map(|finish| (finish.delivery.id, Former::Void))
        .collect();
    if former.is_empty() {
        return Ok(former);
    }
    let ids = former.keys().map(|id| id.0.into()).collect();
    let busy = format!("AND busy_until > {} ", now.as_micros());
    for row in for_values(txn, "SELECT id FROM deliveries_open WHERE id", ids, &busy).await? {
        former.insert(DeliveryId(uuid(&row, "id")?), Former::Busy);
    }
    Ok(former)
}

fn shard(finish: &Finish) -> Shard {
    Shard::of(finish.delivery.subscription)
}
