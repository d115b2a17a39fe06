//! What the in-memory registry loads: everything that changed since a version.

use crate::accounts::AccountRecord;
use crate::notices::Notice;
use crate::sql::{CLOCK, corrupt, execute, for_rows, get, one, timestamp};
use crate::{Error, Ledger, accounts, notices, subscriptions};
use herald_domain::id::AccountId;
use herald_domain::subscription::Subscription;
use herald_domain::time::Timestamp;
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend};

/// What changed.
#[derive(Debug)]
pub struct Changes {
    /// The version that the registry has with them.
    pub version: i64,
    /// Subscriptions that changed; deleted ones are marked so.
    pub subscriptions: Vec<Subscription>,
    /// Accounts that changed, each with all its keys and grants.
    pub accounts: Vec<AccountRecord>,
}

/// How many subscriptions one step of a load reads, so that a million of them are never twice in
/// memory.
const PAGE: u64 = 512;

impl Ledger {
    /// The registry's version. It is asked for several times a second, so the clock is told by it too.
    pub async fn registry_version(&self) -> Result<i64, Error> {
        if !self.store.is_shared() {
            return version(self.store.registry()).await;
        }
        let mut version = 0;
        let ask = async {
            let sql = format!(
                "SELECT version, {CLOCK} AS now, current_setting('transaction_read_only') = 'on' AS read_only \
                 FROM registry_version"
            );
            let row = self.store.soon(one(self.store.registry(), &sql, [])).await?;
            let row = row.ok_or_else(|| corrupt("no registry version"))?;
            // After a failover a standby answers for a while as if nothing had happened.
            if get(&row, "read_only")? {
                return Err(self.store.reads_only());
            }
            version = get(&row, "version")?;
            timestamp(&row, "now")
        };
        self.store.tell_time(ask).await?;
        Ok(version)
    }

    /// Hands what changed since `since` to `apply`, in one or more pieces of one snapshot, the last of
    /// which carries the new version; before that the version is `since`.
    pub async fn changes_since(&self, since: i64, mut apply: impl FnMut(Changes) + Send) -> Result<(), Error> {
        let snapshot = self.store.soon(crate::sql::snapshot(self.store.registry())).await?;
        let version = self.store.soon(version(&snapshot)).await?;
        if version == since {
            return Ok(());
        }
        let accounts = self.store.soon(accounts::changed_since(&snapshot, since)).await?;
        apply(Changes {
            version: since,
            subscriptions: Vec::new(),
            accounts,
        });
        let mut after = None;
        loop {
            let page = subscriptions::changed_since(&snapshot, since, after, PAGE);
            let page = self.store.soon(page).await?;
            after = page.last().map(|subscription| subscription.id);
            let last = u64::try_from(page.len()).is_ok_and(|length| length < PAGE);
            apply(Changes {
                version: if last { version } else { since },
                subscriptions: page,
                accounts: Vec::new(),
            });
            if last {
                return Ok(());
            }
        }
    }
}

/// The version, as this connection sees it.
pub(crate) async fn version<C: ConnectionTrait>(connection: &C) -> Result<i64, Error> {
    let row = one(connection, "SELECT version FROM registry_version", []).await?;
    get(&row.ok_or_else(|| corrupt("no registry version"))?, "version")
}

/// Holds the registry and the ownership of shards as they are until the transaction ends: the version,
/// and a time that is after every change before and before every change after. Many may hold at once.
pub(crate) async fn hold(txn: &DatabaseTransaction, now: Timestamp) -> Result<(i64, Timestamp), Error> {
    if txn.get_database_backend() != DbBackend::Postgres {
        return Ok((version(txn).await?, now));
    }
    held(txn, "SELECT version, now FROM herald_hold()").await
}

/// Waits until nobody holds what [`hold`] holds, and then has it alone until the transaction ends; the
/// time of the change. Every change of the registry begins with it, so changes come one after the other.
pub(crate) async fn change(txn: &DatabaseTransaction, now: Timestamp) -> Result<Timestamp, Error> {
    if txn.get_database_backend() != DbBackend::Postgres {
        return Ok(now);
    }
    Ok(held(txn, "SELECT version, now FROM herald_change()").await?.1)
}

/// Moves the version on; the new one. After [`change`].
pub(crate) async fn bump(txn: &DatabaseTransaction) -> Result<i64, Error> {
    let next = "UPDATE registry_version SET version = version + 1 RETURNING version";
    let row = one(txn, next, []).await?;
    let version = get(&row.ok_or_else(|| corrupt("no registry version"))?, "version")?;
    notices::tell(txn, Notice::Registry).await?;
    Ok(version)
}

async fn held(txn: &DatabaseTransaction, sql: &str) -> Result<(i64, Timestamp), Error> {
    let row = one(txn, sql, []).await?.ok_or_else(|| corrupt("no registry version"))?;
    Ok((get(&row, "version")?, timestamp(&row, "now")?))
}

/// Writes down who changed what.
pub(crate) async fn log(
    txn: &DatabaseTransaction,
    by: Option<AccountId>,
    action: &str,
    subject: &str,
    now: Timestamp,
) -> Result<(), Error> {
    execute(
        txn,
        "INSERT INTO audit_log (at, account, action, subject) VALUES ($1, $2, $3, $4)",
        [
            now.as_micros().into(),
            by.map(|account| account.0).into(),
            action.into(),
            subject.into(),
        ],
    )
    .await?;
    Ok(())
}

/// Writes down what was changed of each of these, by nobody's request.
pub(crate) async fn log_all(
    txn: &DatabaseTransaction,
    action: &str,
    subjects: impl Iterator<Item = impl ToString>,
    now: Timestamp,
) -> Result<(), Error> {
    let row = |subject: String| [now.as_micros().into(), action.into(), subject.into()];
    let rows = subjects.map(|subject| row(subject.to_string())).collect();
    for_rows::<3, _>(txn, "INSERT INTO audit_log (at, action, subject)", rows, "").await?;
    Ok(())
}
