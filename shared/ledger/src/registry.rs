//! What the in-memory registry loads: everything that changed since a version.

use crate::accounts::AccountRecord;
use crate::sql::{corrupt, execute, get, one};
use crate::{Error, Ledger, accounts, subscriptions};
use herald_domain::id::AccountId;
use herald_domain::subscription::Subscription;
use herald_domain::time::Timestamp;
use sea_orm::{ConnectionTrait, DatabaseTransaction, TransactionTrait};

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
const PAGE: u64 = 4096;

impl Ledger {
    /// The registry's version.
    pub async fn registry_version(&self) -> Result<i64, Error> {
        version(self.store.read()).await
    }

    /// Hands what changed since `since` to `apply`, in one or more pieces of one snapshot, the last of
    /// which carries the new version; before that the version is `since`.
    pub async fn changes_since(&self, since: i64, mut apply: impl FnMut(Changes) + Send) -> Result<(), Error> {
        let snapshot = self.store.read().begin().await?;
        let version = version(&snapshot).await?;
        if version == since {
            return Ok(());
        }
        let accounts = accounts::changed_since(&snapshot, since).await?;
        apply(Changes {
            version: since,
            subscriptions: Vec::new(),
            accounts,
        });
        let mut after = None;
        loop {
            let page = subscriptions::changed_since(&snapshot, since, after, PAGE).await?;
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

/// Moves the version on; the new one.
pub(crate) async fn bump(txn: &DatabaseTransaction) -> Result<i64, Error> {
    let row = one(
        txn,
        "UPDATE registry_version SET version = version + 1 RETURNING version",
        [],
    )
    .await?;
    get(&row.ok_or_else(|| corrupt("no registry version"))?, "version")
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
