//! What the in-memory registry loads: everything that changed since a version.

use crate::accounts::AccountRecord;
use crate::sql::{CLOCK, corrupt, get, one, timestamp};
use crate::{Error, Ledger, accounts, catalogue, subscriptions, version};
use herald_domain::catalogue::{EventTypeSpec, ObjectTypeSpec};
use herald_domain::subscription::Subscription;

/// What has changed in the registry since a version.
#[derive(Debug, Default)]
pub struct Changes {
    /// The version that the registry has with them.
    pub version: i64,
    /// Subscriptions that changed; deleted ones are marked so.
    pub subscriptions: Vec<Subscription>,
    /// Accounts that changed, each with all its keys and grants.
    pub accounts: Vec<AccountRecord>,
    /// Event types that changed; deleted ones are marked so.
    pub event_types: Vec<EventTypeSpec>,
    /// Object types that changed; deleted ones are marked so.
    pub object_types: Vec<ObjectTypeSpec>,
}

/// How many subscriptions one step of a load reads, so that a million of them are never twice in
/// memory.
const PAGE: u64 = 512;

impl Ledger {
    /// The registry's version. It is asked for several times a second, so the clock is told by it too.
    pub async fn registry_version(&self) -> Result<i64, Error> {
        if !self.store.is_shared() {
            return version::of(self.store.registry()).await;
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
        let version = self.store.soon(version::of(&snapshot)).await?;
        if version == since {
            return Ok(());
        }
        let accounts = self.store.soon(accounts::changed_since(&snapshot, since)).await?;
        let (event_types, object_types) = self.store.soon(catalogue::changed_since(&snapshot, since)).await?;
        apply(Changes {
            version: since,
            accounts,
            event_types,
            object_types,
            ..Changes::default()
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
                ..Changes::default()
            });
            if last {
                return Ok(());
            }
        }
    }
}
