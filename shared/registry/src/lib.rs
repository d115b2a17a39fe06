//! The live in-memory view of subscriptions, accounts and keys.
//!
//! It follows the ledger by version: every change there bumps a number, and [`Registry::refresh`]
//! loads what changed since. Dispatch compares versions in its own transaction, so matching is exact;
//! attempts ask a view that was compared at most [`MAX_AGE`] ago.
#![warn(missing_docs)]

use futures_util::future::BoxFuture;
use herald_domain::access::{AccessRefusal, Account, Needed, OPERATOR, Roles};
use herald_domain::catalogue::Catalogue;
use herald_domain::delivery::{Closed, Delivery, Reason};
use herald_domain::id::{AccountId, SubscriptionId};
use herald_domain::index::Index;
use herald_domain::subscription::Subscription;
use herald_ledger::registry::Changes;
use herald_ledger::{Error, Ledger};
use herald_telemetry::health::Health;
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// How old a view may be when an attempt begins.
pub const MAX_AGE: Duration = Duration::from_secs(1);

/// How often the version is compared, whether or not there was a hint.
const INTERVAL: Duration = Duration::from_millis(250);

const PART: &str = "registry";

/// SHA-256 of an API key.
pub type KeyHash = [u8; 32];

/// Who a key belongs to and what it may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// The account that the key belongs to.
    pub account: AccountId,
    /// What both the key and the account allow.
    pub roles: Roles,
}

/// The view, kept up to date.
#[derive(Debug)]
pub struct Registry {
    ledger: Ledger,
    view: RwLock<View>,
    /// Held during a refresh.
    checked: tokio::sync::Mutex<()>,
    /// When the last good one began.
    checked_at: RwLock<Instant>,
}

/// What is known at one version.
#[derive(Debug, Default)]
pub struct View {
    version: i64,
    subscriptions: HashMap<SubscriptionId, Arc<Subscription>>,
    index: Index,
    catalogue: Arc<Catalogue>,
    accounts: HashMap<AccountId, Arc<Account>>,
    keys: HashMap<KeyHash, (AccountId, Roles)>,
    /// The hashes of each account's keys, so that a change of one account looks at its own keys only.
    keys_of: HashMap<AccountId, Vec<KeyHash>>,
    /// The operator's key from the configuration, beside those in the ledger.
    operator_key: Option<KeyHash>,
}

impl Registry {
    /// Loads the view. `operator_key` is the operator's key where the configuration gives one.
    pub async fn load(ledger: Ledger, operator_key: Option<KeyHash>) -> Result<Self, Error> {
        let registry = Self {
            ledger,
            view: RwLock::new(View {
                version: -1,
                operator_key,
                ..View::default()
            }),
            checked: tokio::sync::Mutex::new(()),
            checked_at: RwLock::new(Instant::now()),
        };
        registry.refresh().await?;
        Ok(registry)
    }

    /// The present view. Not to be held across an await.
    pub fn view(&self) -> RwLockReadGuard<'_, View> {
        // A view is changed by whole entries, so a panic in between leaves a usable one.
        self.view.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Loads what changed since; one refresh at a time, and one for all who wait for the next. The future is boxed, so
    /// that it is compiled here and not once more wherever it is awaited.
    pub fn refresh(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async {
            let asked = Instant::now();
            let _one_at_a_time = self.checked.lock().await;
            if self.checked_at() > asked {
                return Ok(());
            }
            let began = Instant::now();
            let since = self.view().version;
            if self.ledger.registry_version().await? != since {
                let apply = |changes| self.view.write().unwrap_or_else(PoisonError::into_inner).apply(changes);
                self.ledger.changes_since(since, apply).await?;
            }
            *self.checked_at.write().unwrap_or_else(PoisonError::into_inner) = began;
            Ok(())
        })
    }

    /// [`Registry::refresh`] for somebody who waits; an error if it takes longer than [`MAX_AGE`].
    pub async fn refresh_soon(&self) -> Result<(), Error> {
        let refreshed = timeout(MAX_AGE, self.refresh()).await;
        refreshed.unwrap_or(Err(Error::Slow(MAX_AGE)))
    }

    /// Whether the view was compared with the ledger within [`MAX_AGE`].
    pub fn is_fresh(&self) -> bool {
        self.checked_at().elapsed() <= MAX_AGE
    }

    /// When the last good comparison with the ledger began: the view has every change before that.
    pub fn checked_at(&self) -> Instant {
        *self.checked_at.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whom the key of that hash belongs to. A key that this process does not know may have been made at
    /// another a moment ago, so the ledger is asked before the answer is nobody; where it cannot be asked,
    /// that is not known.
    pub async fn caller(&self, key: &KeyHash) -> Result<Option<Caller>, Error> {
        let known = self.view().caller(key);
        if known.is_some() {
            return Ok(known);
        }
        self.refresh_soon().await?;
        Ok(self.view().caller(key))
    }

    /// Keeps the view up to date until shutdown. Where it goes stale, `health` hears of it.
    pub async fn run(&self, shutdown: CancellationToken, health: Option<Health>) {
        let mut failing = false;
        loop {
            let hint = self.ledger.signals().registry.notified();
            match self.refresh().await {
                Ok(()) => {
                    failing = false;
                    if let Some(health) = &health {
                        health.ok(PART);
                    }
                }
                Err(error) => {
                    // Once, and not four times a second until it is back.
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(
                            error = &error as &dyn std::error::Error,
                            "the registry could not be refreshed; it is tried again"
                        );
                    }
                    if let Some(health) = &health {
                        let why = error.words();
                        health.failing(
                            PART,
                            format!("the ledger cannot be read, so rights and subscriptions may be out of date: {why}"),
                        );
                    }
                }
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = hint => {}
                () = tokio::time::sleep(INTERVAL) => {}
            }
        }
    }
}

impl View {
    /// The registry's version that this view has.
    pub fn version(&self) -> i64 {
        self.version
    }

    /// What event types and object types there are.
    pub fn catalogue(&self) -> &Arc<Catalogue> {
        &self.catalogue
    }

    /// The active subscriptions by what they listen to.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// How many subscriptions there are that are not deleted.
    pub fn len(&self) -> usize {
        self.subscriptions.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.subscriptions.is_empty()
    }

    /// A subscription that is not deleted.
    pub fn subscription(&self, id: SubscriptionId) -> Option<&Arc<Subscription>> {
        self.subscriptions.get(&id)
    }

    /// The account with that id, if there is one.
    pub fn account(&self, id: AccountId) -> Option<&Arc<Account>> {
        self.accounts.get(&id)
    }

    /// Whom the key of that hash belongs to; nobody if its account is inactive.
    pub fn caller(&self, key: &KeyHash) -> Option<Caller> {
        if self.operator_key.as_ref() == Some(key) {
            return Some(Caller {
                account: OPERATOR,
                roles: Roles::OPERATOR,
            });
        }
        let (account, roles) = self.keys.get(key)?;
        let of_account = self.accounts.get(account).filter(|account| account.active)?;
        Some(Caller {
            account: *account,
            roles: of_account.roles.both(*roles),
        })
    }

    /// Whether the delivery may be attempted now, and as what; otherwise how it is to be closed.
    pub fn permit(&self, delivery: &Delivery) -> Result<Arc<Subscription>, (Closed, Reason)> {
        let Some(subscription) = self.subscriptions.get(&delivery.subscription) else {
            return Err((Closed::Cancelled, Reason::SubscriptionDeleted));
        };
        let cancelled = delivery.is_opened_before(subscription.open_from_version, subscription.open_from);
        if !subscription.settings.active || cancelled {
            return Err((Closed::Cancelled, Reason::SubscriptionInactive));
        }
        let refusal = match self.accounts.get(&subscription.owner) {
            Some(owner) => owner.refuses(&Needed::by(&subscription.settings.interest, &self.catalogue)),
            None => Some(AccessRefusal::AccountInactive),
        };
        match refusal {
            None => Ok(Arc::clone(subscription)),
            Some(AccessRefusal::AccountInactive) => Err((Closed::Cancelled, Reason::AccountInactive)),
            Some(AccessRefusal::RoleMissing) => Err((Closed::Refused, Reason::RoleMissing)),
            Some(AccessRefusal::PermissionMissing(_)) => Err((Closed::Refused, Reason::PermissionMissing)),
        }
    }

    fn apply(&mut self, changes: Changes) {
        if !changes.event_types.is_empty() || !changes.object_types.is_empty() {
            let catalogue = Arc::make_mut(&mut self.catalogue);
            changes
                .event_types
                .into_iter()
                .for_each(|spec| catalogue.put_event_type(spec));
            changes
                .object_types
                .into_iter()
                .for_each(|spec| catalogue.put_object_type(spec));
        }
        for record in changes.accounts {
            let id = record.account.id;
            for former in self.keys_of.remove(&id).unwrap_or_default() {
                self.keys.remove(&former);
            }
            let replaced = id == OPERATOR && self.operator_key.is_some();
            if !replaced && !record.keys.is_empty() {
                self.keys_of
                    .insert(id, record.keys.iter().map(|key| key.hash).collect());
                self.keys
                    .extend(record.keys.iter().map(|key| (key.hash, (id, key.roles))));
            }
            self.accounts.insert(id, Arc::new(record.account));
        }
        for subscription in changes.subscriptions {
            if let Some(former) = self.subscriptions.remove(&subscription.id) {
                self.index.remove(&former.settings.interest, former.id);
            }
            if subscription.settings.active && !subscription.deleted {
                self.index.add(&subscription.settings.interest, subscription.id);
            }
            if !subscription.deleted {
                self.subscriptions.insert(subscription.id, Arc::new(subscription));
            }
        }
        self.version = changes.version;
    }
}
