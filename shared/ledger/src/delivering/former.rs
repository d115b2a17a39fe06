//! Outcomes from a process that no longer owns the delivery's shard: whether they count.

use super::OutcomeRecord;
use crate::Error;
use crate::shards::epochs;
use crate::sql::{for_values, uuid};
use herald_domain::id::{DeliveryId, Shard};
use herald_domain::time::Timestamp;
use sea_orm::DatabaseTransaction;
use std::collections::{HashMap, HashSet};

/// Whether an outcome counts that does not come from the shard's present owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Former {
    /// It counts: when the former owner gave the shard back, it reserved the delivery until `busy_until`, and that
    /// time has not come.
    Busy,
    /// It does not count: the present owner may have sent the delivery too.
    Void,
}

/// The outcomes, other than successes, whose shard has changed its owner since. The transaction must have fenced
/// the registry, so that no shard is taken between this and what it writes.
pub(super) async fn outcomes(
    txn: &DatabaseTransaction,
    batch: &[OutcomeRecord],
    now: Timestamp,
) -> Result<HashMap<DeliveryId, Former>, Error> {
    let owners: Vec<&OutcomeRecord> = batch.iter().filter(|outcome| !outcome.is_success()).collect();
    let shards: HashSet<Shard> = owners.iter().map(|outcome| shard(outcome)).collect();
    let epochs = epochs(txn, shards).await?;
    let mut former: HashMap<_, _> = owners
        .into_iter()
        .filter(|outcome| epochs.get(&shard(outcome)) != Some(&outcome.epoch))
        .map(|outcome| (outcome.delivery.id, Former::Void))
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

fn shard(outcome: &OutcomeRecord) -> Shard {
    Shard::of(outcome.delivery.subscription)
}
