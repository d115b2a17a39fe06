//! Who owns which shard: the row of a shard names its owner and an epoch that grows with every
//! change of owner.
//!
//! On SQLite one process has the data folder to itself, so it takes every shard when it starts. What
//! a former process may still have believed is void with its epoch.

use crate::sql::{all, execute, for_rows, for_values, get, uuid};
use crate::{Error, Ledger};
use herald_domain::delivery::Delivery;
use herald_domain::id::Shard;
use sea_orm::{DatabaseTransaction, Value};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use uuid::Uuid;

/// The shards that a process owns, each at its epoch; cheap to clone.
#[derive(Debug, Clone)]
pub struct Ownership {
    owner: Uuid,
    epochs: Arc<HashMap<Shard, i64>>,
}

impl Ownership {
    /// Owns nothing: what such a process records, others send.
    pub fn none() -> Self {
        Self {
            owner: Uuid::nil(),
            epochs: Arc::default(),
        }
    }

    /// The epoch at which the process owns that shard.
    pub fn epoch(&self, shard: Shard) -> Option<i64> {
        self.epochs.get(&shard).copied()
    }

    /// The shards, in no order.
    pub fn shards(&self) -> impl Iterator<Item = Shard> {
        self.epochs.keys().copied()
    }

    /// Keeps the deliveries whose shards are, in this transaction, still this process's; for the
    /// others, writes wake-ups for whoever owns them. Each comes with whatever belongs to it.
    pub(crate) async fn keep_mine<T: Send>(
        &self,
        txn: &DatabaseTransaction,
        mut deliveries: Vec<(T, Delivery)>,
    ) -> Result<Vec<(T, Delivery)>, Error> {
        let shards: HashSet<Shard> = deliveries
            .iter()
            .map(|(_, delivery)| Shard::of(delivery.subscription))
            .collect();
        if shards.is_empty() {
            return Ok(deliveries);
        }
        let numbers = shards.into_iter().map(|shard| i16::from(shard.0).into()).collect();
        let rows = for_values(
            txn,
            "SELECT shard, owner, epoch FROM shards WHERE shard IN",
            numbers,
            "",
        )
        .await?;
        let mut mine = HashSet::new();
        for row in &rows {
            let shard = shard(row)?;
            let owner: Option<Uuid> = get(row, "owner")?;
            if owner == Some(self.owner) && self.epoch(shard) == Some(get(row, "epoch")?) {
                mine.insert(shard);
            }
        }
        let others = deliveries.extract_if(.., |(_, delivery)| !mine.contains(&Shard::of(delivery.subscription)));
        let others: Vec<_> = others.map(|(_, delivery)| delivery).collect();
        wake(txn, &others).await?;
        Ok(deliveries)
    }
}

fn shard(row: &sea_orm::QueryResult) -> Result<Shard, Error> {
    let number: i16 = get(row, "shard")?;
    u8::try_from(number)
        .map(Shard)
        .map_err(|_out_of_range| Error::Corrupt("a shard above 255"))
}

/// Writes wake-ups for the lanes of these deliveries.
pub(crate) async fn wake(txn: &DatabaseTransaction, deliveries: &[Delivery]) -> Result<(), Error> {
    let mut lanes = HashMap::new();
    for delivery in deliveries {
        let due = lanes.entry(delivery.subscription).or_insert(delivery.due_at);
        *due = delivery.due_at.min(*due);
    }
    let mut rows: Vec<[Value; 3]> = Vec::with_capacity(lanes.len());
    for (subscription, due_at) in lanes {
        let shard = Shard::of(subscription);
        rows.push([
            i16::from(shard.0).into(),
            subscription.0.into(),
            due_at.as_micros().into(),
        ]);
    }
    for_rows(
        txn,
        "INSERT INTO wakeups (shard, subscription, due_at) VALUES",
        rows,
        "ON CONFLICT (shard, subscription) DO UPDATE SET due_at = min(wakeups.due_at, excluded.due_at)",
    )
    .await?;
    Ok(())
}

/// Whether a finish that claims these epochs may count its failures: the epochs as they are.
pub(crate) async fn epochs(txn: &DatabaseTransaction) -> Result<HashMap<Shard, i64>, Error> {
    let rows = all(txn, "SELECT shard, epoch FROM shards", []).await?;
    rows.iter().map(|row| Ok((shard(row)?, get(row, "epoch")?))).collect()
}

impl Ledger {
    /// Takes every shard for `owner`, a fresh id of this process. For a process that has the data
    /// folder to itself.
    pub async fn take_all_shards(&self, owner: Uuid) -> Result<Ownership, Error> {
        let epochs = self
            .store
            .write(move |txn, _now| {
                Box::pin(async move {
                    execute(txn, "UPDATE shards SET owner = $1, epoch = epoch + 1", [owner.into()]).await?;
                    epochs(txn).await
                })
            })
            .await?;
        Ok(Ownership {
            owner,
            epochs: Arc::new(epochs),
        })
    }

    /// Takes the wake-ups of the shards that are owned.
    pub async fn take_wakeups(&self, owned: &Ownership) -> Result<Vec<Wakeup>, Error> {
        // Read first: mostly there is none, and a read is no write.
        let waiting = all(self.store.read(), "SELECT 1 FROM wakeups LIMIT 1", []).await?;
        if waiting.is_empty() {
            return Ok(Vec::new());
        }
        let shards: Vec<Value> = owned.shards().map(|shard| i16::from(shard.0).into()).collect();
        let rows = self
            .store
            .write(move |txn, _now| {
                Box::pin(async move {
                    for_values(
                        txn,
                        "DELETE FROM wakeups WHERE shard IN",
                        shards,
                        "RETURNING subscription, due_at",
                    )
                    .await
                })
            })
            .await?;
        rows.iter()
            .map(|row| {
                Ok(Wakeup {
                    subscription: herald_domain::id::SubscriptionId(uuid(row, "subscription")?),
                    due_at: crate::sql::timestamp(row, "due_at")?,
                })
            })
            .collect()
    }
}

/// A lane to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wakeup {
    /// Whose.
    pub subscription: herald_domain::id::SubscriptionId,
    /// When the earliest of its deliveries is due.
    pub due_at: herald_domain::time::Timestamp,
}
