//! The manual retry: a delivery that has ended without success is opened again. It is due at once, and keeps its id and
//! its attempts. Its give-up clock starts again.

use crate::rows::{self, LAST, OPEN, delivery, keep_attempts};
use crate::sql::{all, for_update, for_values, uuid};
use crate::{Error, Ledger, locks, retention, wakeups};
use herald_domain::delivery::{Closed, Delivery, Status};
use herald_domain::id::{DeliveryId, Shard, SubscriptionId};
use herald_domain::time::Timestamp;
use sea_orm::{ConnectionTrait, DatabaseTransaction, Value};
use uuid::Uuid;

/// The most deliveries that one transaction opens. Other writes wait for it.
const CHUNK: u64 = 1024;

/// The result of a manual retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retried {
    /// It is open again and due.
    Done,
    /// It is not in a state from which it can be retried.
    NotPossible(Status),
    /// Its subscription is inactive or deleted, so it would be cancelled at once.
    Unwanted,
    /// There is no such delivery.
    Missing,
}

/// The result of a manual retry of several deliveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetriedSome {
    /// So many are open again and due, and there may be more.
    Done {
        /// How many deliveries were opened again.
        deliveries: usize,
        /// Whether there may be more.
        more: bool,
    },
    /// The subscription is inactive or deleted.
    Unwanted,
}

impl Ledger {
    /// Opens a delivery again that has ended without success.
    pub async fn retry(&self, id: DeliveryId) -> Result<Retried, Error> {
        let retried = self.store.write(move |txn, now| Box::pin(retry(txn, id, now))).await?;
        if retried == Retried::Done {
            self.opened_again(1);
        }
        Ok(retried)
    }

    /// Opens deliveries of a subscription again that have ended as `ended` says since `since`, the oldest events first,
    /// until at least `enough` are open.
    pub async fn retry_some(
        &self,
        subscription: SubscriptionId,
        ended: Closed,
        since: Timestamp,
        enough: usize,
    ) -> Result<RetriedSome, Error> {
        if !self.store.ask(is_active(self.store.api(), subscription)).await? {
            return Ok(RetriedSome::Unwanted);
        }
        let (mut deliveries, mut after) = (0, Uuid::nil());
        loop {
            // The search has a connection for which no delivery waits.
            let find = all(
                self.store.api(),
                "SELECT id FROM deliveries_closed WHERE subscription = $1 AND status = $2 AND status <> 1 \
                 AND closed_at >= $3 AND id > $4 ORDER BY id LIMIT $5",
                [
                    subscription.0.into(),
                    ended.code().into(),
                    since.as_micros().into(),
                    after.into(),
                    CHUNK.into(),
                ],
            );
            let found = self.store.ask(find).await?;
            let ids: Vec<Uuid> = found.iter().map(|row| uuid(row, "id")).collect::<Result<_, _>>()?;
            let Some(last) = ids.last().copied() else {
                return Ok(RetriedSome::Done {
                    deliveries,
                    more: false,
                });
            };
            let opened = self
                .store
                .write(move |txn, now| Box::pin(retry_chunk(txn, subscription, ids, ended, now)))
                .await?;
            let Some(opened) = opened else {
                return Ok(RetriedSome::Unwanted);
            };
            self.opened_again(opened);
            (deliveries, after) = (deliveries + opened, last);
            if deliveries >= enough {
                return Ok(RetriedSome::Done { deliveries, more: true });
            }
        }
    }

    fn opened_again(&self, deliveries: usize) {
        self.signals.opened(deliveries);
        self.signals.wakeup.notify_one();
    }
}

async fn retry(txn: &DatabaseTransaction, id: DeliveryId, now: Timestamp) -> Result<Retried, Error> {
    retention::wait_for_removal(txn, id.0, now).await?;
    // While the registry is fenced, a deactivation comes before or after this, and its cancelling knows which.
    let opening = locks::fence(txn, now).await?;
    // An outcome moves the delivery from the open ones to the closed ones while this looks, and another retry moves it
    // back. So this looks among the open ones first and last.
    if is_open(txn, id).await? {
        return Ok(Retried::NotPossible(Status::Open));
    }
    let select = format!("SELECT * FROM deliveries_closed WHERE id = $1{}", for_update(txn));
    let closed = all(txn, &select, [id.0.into()]).await?;
    let Some(row) = closed.first() else {
        return Ok(if is_open(txn, id).await? {
            Retried::NotPossible(Status::Open)
        } else {
            Retried::Missing
        });
    };
    let status = super::closed_status(row)?;
    if !status.can_be_retried() {
        return Ok(Retried::NotPossible(Status::Closed(status)));
    }
    let subscription = SubscriptionId(uuid(row, "subscription")?);
    if !is_active(txn, subscription).await? {
        return Ok(Retried::Unwanted);
    }
    open_again(txn, subscription, vec![id.0.into()], opening).await?;
    Ok(Retried::Done)
}

async fn is_open(txn: &DatabaseTransaction, id: DeliveryId) -> Result<bool, Error> {
    let open = all(txn, "SELECT 1 FROM deliveries_open WHERE id = $1", [id.0.into()]).await?;
    Ok(!open.is_empty())
}

/// Opens those of these deliveries again that still have the status `ended`. Returns how many, or nothing if the
/// subscription is not active.
async fn retry_chunk(
    txn: &DatabaseTransaction,
    subscription: SubscriptionId,
    ids: Vec<Uuid>,
    ended: Closed,
    now: Timestamp,
) -> Result<Option<usize>, Error> {
    if let Some(oldest) = ids.first() {
        retention::wait_for_removal(txn, *oldest, now).await?;
    }
    let opening = locks::fence(txn, now).await?;
    if !is_active(txn, subscription).await? {
        return Ok(None);
    }
    let still = format!(
        "SELECT id FROM deliveries_closed WHERE status = {} AND id",
        ended.code()
    );
    let lock = format!("ORDER BY id{}", for_update(txn));
    let ids = ids.into_iter().map(Value::from).collect();
    let rows = for_values(txn, &still, ids, &lock).await?;
    let ids = rows.iter().map(|row| Ok(uuid(row, "id")?.into()));
    let ids: Vec<Value> = ids.collect::<Result<_, Error>>()?;
    open_again(txn, subscription, ids, opening).await.map(Some)
}

async fn is_active<C: ConnectionTrait>(connection: &C, subscription: SubscriptionId) -> Result<bool, Error> {
    let active = "SELECT 1 FROM subscriptions WHERE id = $1 AND active";
    Ok(!all(connection, active, [subscription.0.into()]).await?.is_empty())
}

/// Moves closed deliveries of a subscription back among the open ones, at that version of the registry, which must be
/// fenced. Returns how many.
async fn open_again(
    txn: &DatabaseTransaction,
    subscription: SubscriptionId,
    ids: Vec<Value>,
    (version, now): (i64, Timestamp),
) -> Result<usize, Error> {
    keep_attempts(txn, ids.clone()).await?;
    let (shard, at) = (Shard::of(subscription).0, now.as_micros());
    let insert = format!(
        "INSERT INTO deliveries_open ({OPEN}, {LAST}) SELECT id, event, subscription, {shard}, webhook, attempts, {at}, \
         created_at, {at}, {version}, {LAST} FROM deliveries_closed WHERE id"
    );
    let returning = format!("RETURNING {}", rows::selected("due_at"));
    let rows = for_values(txn, &insert, ids.clone(), &returning).await?;
    for_values(txn, "DELETE FROM deliveries_closed WHERE id", ids, "").await?;
    let opened: Vec<Delivery> = rows.iter().map(delivery).collect::<Result<_, _>>()?;
    wakeups::wake(txn, &opened).await?;
    Ok(opened.len())
}
