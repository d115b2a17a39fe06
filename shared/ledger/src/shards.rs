//! The leases of shards. The row of a shard names its owner, an epoch that grows with every change of owner, and
//! the end of the owner's lease (the pattern of Kinesis' lease table).
//!
//! On SQLite one process has the data folder to itself, so it takes every shard for good when it starts. What a
//! former process still reports is void, because its epoch is over. On PostgreSQL every process that delivers
//! renews its lease, takes free shards up to its share, and gives back those above its share; see
//! [`Ledger::renew`], [`Ledger::take_free`] and [`Ledger::release`].

mod sleep;

use crate::sql::{self, all, execute, for_rows, for_values, get};
use crate::store::DatabaseClock;
use crate::{Error, Ledger, locks};
use herald_domain::id::{DeliveryId, Shard};
use herald_domain::time::Timestamp;
pub use herald_domain::worker::ShardLeases;
use sea_orm::sea_query::ArrayType;
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend, Value};
pub use sleep::uptime;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

pub(crate) fn shard(row: &sea_orm::QueryResult) -> Result<Shard, Error> {
    let number: i16 = get(row, "shard")?;
    u8::try_from(number)
        .map(Shard)
        .map_err(|_out_of_range| Error::Corrupt("a shard above 255"))
}

/// The epochs of these shards. If the transaction has fenced the registry, they stay as they are until it ends, because a
/// process that takes shards waits for that.
pub(crate) async fn epochs(
    txn: &DatabaseTransaction,
    shards: impl IntoIterator<Item = Shard>,
) -> Result<HashMap<Shard, i64>, Error> {
    epochs_of(&for_values(txn, "SELECT shard, epoch FROM shards WHERE shard", numbers(shards), "").await?)
}

fn epochs_of(rows: &[sea_orm::QueryResult]) -> Result<HashMap<Shard, i64>, Error> {
    rows.iter().map(|row| Ok((shard(row)?, get(row, "epoch")?))).collect()
}

pub(crate) fn numbers(shards: impl IntoIterator<Item = Shard>) -> Vec<Value> {
    shards.into_iter().map(|shard| i16::from(shard.0).into()).collect()
}

/// The result of a renewal.
#[derive(Debug, Clone)]
pub struct Renewal {
    /// The shards that the process still owns, each at its epoch.
    pub epochs: HashMap<Shard, i64>,
    /// How many processes deliver, this one included.
    pub workers: usize,
}

/// How many shards are free, and how many processes deliver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// Shards that nobody owns, or whose owner's lease ran out.
    pub free: usize,
    /// How many processes deliver.
    pub workers: usize,
}

/// The shards that were taken.
#[derive(Debug, Clone)]
pub struct Taken {
    /// The shards, each at its new epoch.
    pub epochs: HashMap<Shard, i64>,
    /// How many of them had an owner whose lease ran out.
    pub from_dead: usize,
}

/// How far in the future a lease may end, in lengths of a lease. One that ends later was given before the database's
/// clock was set back, and was not renewed since: its shard is free.
const LEASES: u32 = 4;

/// The condition for a free shard, with `$1` for the time and `$2` for the latest end that a lease can have.
const FREE: &str = "(owner IS NULL OR lease_until NOT BETWEEN $1 AND $2)";

async fn take_free(
    txn: &DatabaseTransaction,
    owner: Uuid,
    most: u64,
    lease: Duration,
    (now, clock): (Timestamp, Option<Arc<DatabaseClock>>),
) -> Result<Taken, Error> {
    // A batch that is recorded meanwhile is either recorded before this change, and the search for lanes finds its
    // deliveries, or it sees the new owner, and wakes it.
    let now = locks::change(txn, now).await?;
    // After the clock was set all leases look over. Living owners renew theirs by the new time within a lease's length,
    // so until then only shards without an owner are taken.
    let stepped = clock.is_some_and(|clock| clock.stepped(lease, now));
    let free = if stepped {
        "owner IS NULL AND $1::bigint <= $2::bigint"
    } else {
        FREE
    };
    let far = now.plus(lease * LEASES).as_micros();
    let free = all(
        txn,
        &format!("SELECT shard, owner FROM shards WHERE {free} ORDER BY shard LIMIT $3"),
        [now.as_micros().into(), far.into(), most.into()],
    )
    .await?;
    let mut abandoned = HashSet::new();
    for row in &free {
        if get::<Option<Uuid>>(row, "owner")?.is_some() {
            abandoned.insert(shard(row)?);
        }
    }
    let until = now.plus(lease).as_micros();
    let rows = free
        .iter()
        .map(|row| {
            Ok([
                i16::from(shard(row)?.0).into(),
                owner.into(),
                until.into(),
                now.as_micros().into(),
                far.into(),
            ])
        })
        .collect::<Result<Vec<[Value; 5]>, Error>>()?;
    // The update checks the condition again: a renewal may have come in between, and its owner was told so.
    let taken = for_rows(
        txn,
        "WITH taken (shard, owner, until, now, far) AS (",
        rows,
        ") UPDATE shards SET owner = taken.owner, epoch = epoch + 1, lease_until = taken.until FROM taken \
         WHERE shards.shard = taken.shard AND (shards.owner IS NULL OR shards.lease_until NOT BETWEEN taken.now AND taken.far) \
         RETURNING shards.shard, shards.epoch",
    )
    .await?;
    let epochs = epochs_of(&taken)?;
    let from_dead = epochs.keys().filter(|shard| abandoned.contains(shard)).count();
    Ok(Taken { epochs, from_dead })
}

/// Reserves deliveries of shards that `owner` still owns: the next owner leaves each alone until the given time.
async fn mark_busy(
    txn: &DatabaseTransaction,
    owner: Uuid,
    mut in_flight: Vec<(DeliveryId, Timestamp)>,
) -> Result<(), Error> {
    if txn.get_database_backend() != DbBackend::Postgres {
        let busy: Vec<[Value; 3]> = in_flight
            .into_iter()
            .map(|(id, until)| [id.0.into(), until.as_micros().into(), owner.into()])
            .collect();
        for_rows(
            txn,
            "WITH busy (id, until, owner) AS (",
            busy,
            ") UPDATE deliveries_open SET busy_until = busy.until FROM busy WHERE deliveries_open.id = busy.id \
             AND deliveries_open.shard IN (SELECT shard FROM shards WHERE owner = busy.owner) RETURNING deliveries_open.id",
        )
        .await?;
        return Ok(());
    }
    if in_flight.is_empty() {
        return Ok(());
    }
    // In one order, as in every statement that locks many rows.
    in_flight.sort_unstable_by_key(|(id, _)| *id);
    let ids = sql::array(ArrayType::Uuid, in_flight.iter().map(|(id, _)| id.0.into()));
    let untils = in_flight.iter().map(|(_, until)| until.as_micros().into());
    let values = [ids, sql::array(ArrayType::BigInt, untils), owner.into()];
    execute(txn, "SELECT herald_mark_busy($1, $2, $3)", values).await?;
    Ok(())
}

impl Ledger {
    /// Takes every shard for good, for a process that has the data folder to itself. `owner` is a fresh id of the
    /// process.
    pub async fn take_all_shards(&self, owner: Uuid) -> Result<ShardLeases, Error> {
        let epochs = self
            .store
            .write(move |txn, _now| {
                Box::pin(async move {
                    let take = "UPDATE shards SET owner = $1, epoch = epoch + 1 RETURNING shard, epoch";
                    epochs_of(&all(txn, take, [owner.into()]).await?)
                })
            })
            .await?;
        Ok(ShardLeases::for_good(owner, epochs))
    }

    /// Renews the lease of a process on all its shards, and counts it among the workers.
    pub async fn renew(&self, owner: Uuid, lease: Duration) -> Result<Renewal, Error> {
        self.store
            .write(move |txn, now| {
                Box::pin(async move {
                    let now = sql::time(txn, now).await?;
                    let until: Value = now.plus(lease).as_micros().into();
                    execute(
                        txn,
                        "INSERT INTO workers (id, lease_until) VALUES ($1, $2) \
                         ON CONFLICT (id) DO UPDATE SET lease_until = excluded.lease_until",
                        [owner.into(), until.clone()],
                    )
                    .await?;
                    let epochs = epochs_of(
                        &all(
                            txn,
                            "UPDATE shards SET lease_until = $2 WHERE owner = $1 RETURNING shard, epoch",
                            [owner.into(), until],
                        )
                        .await?,
                    )?;
                    let far = now.plus(lease * LEASES).as_micros();
                    let rows = all(
                        txn,
                        "SELECT count(*) AS n FROM workers WHERE lease_until BETWEEN $1 AND $2",
                        [now.as_micros().into(), far.into()],
                    )
                    .await?;
                    let workers: i64 = rows.first().map_or(Ok(1), |row| get(row, "n"))?;
                    Ok(Renewal {
                        epochs,
                        workers: usize::try_from(workers).unwrap_or(1),
                    })
                })
            })
            .await
    }

    /// How many shards are free and how many processes deliver, without taking a lock.
    pub async fn look_at_shards(&self, lease: Duration) -> Result<Look, Error> {
        let now = self.now();
        let rows = self
            .ask(
                &format!(
                    "SELECT (SELECT count(*) FROM shards WHERE {FREE}) AS free, \
                     (SELECT count(*) FROM workers WHERE lease_until BETWEEN $1 AND $2) AS workers"
                ),
                [now.as_micros().into(), now.plus(lease * LEASES).as_micros().into()],
            )
            .await?;
        let number = |column| {
            let n: i64 = rows.first().map_or(Ok(0), |row| get(row, column))?;
            Ok::<_, Error>(usize::try_from(n).unwrap_or(0))
        };
        Ok(Look {
            free: number("free")?,
            workers: number("workers")?,
        })
    }

    /// Takes at most that many of the shards that nobody owns or whose owner's lease ran out.
    pub async fn take_free(&self, owner: Uuid, most: usize, lease: Duration) -> Result<Taken, Error> {
        let most = u64::try_from(most).unwrap_or(u64::MAX);
        let clock = self.store.database_clock();
        self.store
            .write(move |txn, now| Box::pin(take_free(txn, owner, most, lease, (now, clock))))
            .await
    }

    /// Gives shards back at once. The next owner leaves each delivery of `in_flight` alone until the time beside it.
    pub async fn release(
        &self,
        owner: Uuid,
        shards: Vec<Shard>,
        in_flight: Vec<(DeliveryId, Timestamp)>,
    ) -> Result<(), Error> {
        self.store
            .write(move |txn, _now| {
                Box::pin(async move {
                    // Only on shards that are still its own: on others the present owner decides.
                    mark_busy(txn, owner, in_flight).await?;
                    // Only shards that are still its own: another may have taken one whose lease ran out.
                    let rows = shards
                        .into_iter()
                        .map(|shard| [i16::from(shard.0).into(), owner.into()])
                        .collect::<Vec<[Value; 2]>>();
                    for_rows(
                        txn,
                        "WITH given (shard, owner) AS (",
                        rows,
                        ") UPDATE shards SET owner = NULL, lease_until = 0, epoch = epoch + 1 FROM given \
                         WHERE shards.shard = given.shard AND shards.owner = given.owner RETURNING shards.shard",
                    )
                    .await?;
                    Ok(())
                })
            })
            .await
    }

    /// Takes a process that delivers no more out of the workers.
    pub async fn leave(&self, owner: Uuid) -> Result<(), Error> {
        self.store
            .write(move |txn, _now| {
                Box::pin(async move {
                    execute(txn, "DELETE FROM workers WHERE id = $1", [owner.into()]).await?;
                    Ok(())
                })
            })
            .await
    }
}
