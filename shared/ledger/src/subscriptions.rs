//! Subscriptions in the ledger. Every change also bumps the registry's version, in its own transaction. Deactivation
//! and deletion also write the outbox job that cancels the open deliveries.

mod rows;

use crate::sql::{all, for_rows, for_values, get, one, timestamp, uuid};
use crate::{Error, Ledger, catalogue, locks, outbox, version};
use herald_domain::catalogue::Webhook;
use herald_domain::delivery::Reason;
use herald_domain::id::{AccountId, ObjectGuid, SubscriptionId};
use herald_domain::index::{Amendment, Interest};
use herald_domain::subscription::{Subscription, url_as_kept};
use herald_domain::time::Timestamp;
use rows::SELECT;
use sea_orm::{ConnectionTrait, DatabaseTransaction, Value};
use std::collections::{HashMap, HashSet};
use uuid::Uuid;

/// The number of subscriptions whose URLs are compared at a time.
const PAGE: u64 = 2000;

/// The filter of a list of subscriptions.
#[derive(Debug, Clone, Default)]
pub struct SubscriptionFilter {
    /// Only subscriptions of this account.
    pub owner: Option<AccountId>,
    /// Only of this webhook.
    pub webhook: Option<Webhook>,
    /// Only those that filter by this object.
    pub object: Option<ObjectGuid>,
    /// Only to this URL, as [`url_as_kept`] gives it.
    pub url: Option<String>,
    /// Only active ones, or only inactive ones.
    pub active: Option<bool>,
}

/// A type that a subscription is to name, and that is not there, or not any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoSuchType {
    /// An event type.
    Event {
        /// Its place among the names.
        at: usize,
        /// Its name.
        name: String,
    },
    /// The object type of the filter.
    Object,
}

/// Why a subscription is not changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal<R> {
    /// The caller's own `change` refuses.
    Change(R),
    /// A type that it would name is not there.
    NoSuchType(NoSuchType),
}

impl Ledger {
    /// Adds a subscription, in the name of the account `by`, if there are the types that it names.
    pub async fn create_subscription(
        &self,
        subscription: Subscription,
        by: AccountId,
    ) -> Result<Result<(), NoSuchType>, Error> {
        let created = self
            .store
            .write(move |txn, now| {
                Box::pin(async move {
                    let now = locks::change(txn, now).await?;
                    if let Some(missing) = missing_type(txn, &subscription.settings.interest, None).await? {
                        return Ok(Err(missing));
                    }
                    let version = version::bump(txn).await?;
                    version::log(txn, Some(by), "subscription.create", &subscription.id.to_string(), now).await?;
                    rows::insert(txn, &subscription, version).await?;
                    Ok(Ok(()))
                })
            })
            .await?;
        self.signals.registry.notify_waiters();
        Ok(created)
    }

    /// Changes a subscription with `change`, which sees it as it is in the transaction. Returns `None` if there is
    /// none, or not any more. If `change` refuses, or a type is not there that it did not name before, nothing is
    /// written. A change from active to inactive cancels the open deliveries.
    pub async fn update_subscription<F, R>(
        &self,
        id: SubscriptionId,
        by: AccountId,
        change: F,
    ) -> Result<Option<Result<Subscription, Refusal<R>>>, Error>
    where
        F: FnOnce(&mut Subscription) -> Result<(), R> + Send + 'static,
        R: Send + 'static,
    {
        let changed = self
            .store
            .write(move |txn, now| {
                Box::pin(async move {
                    let now = locks::change(txn, now).await?;
                    let Some(mut subscription) = find(txn, id).await? else {
                        return Ok(None);
                    };
                    let was_active = subscription.settings.active;
                    let held = subscription.settings.interest.clone();
                    if let Err(refusal) = change(&mut subscription) {
                        return Ok(Some(Err(Refusal::Change(refusal))));
                    }
                    if let Some(missing) = missing_type(txn, &subscription.settings.interest, Some(&held)).await? {
                        return Ok(Some(Err(Refusal::NoSuchType(missing))));
                    }
                    subscription.updated_at = now;
                    if was_active || subscription.settings.active {
                        subscription.deactivated = None;
                    }
                    let version = version::bump(txn).await?;
                    if was_active && !subscription.settings.active {
                        cancel_open(txn, &mut subscription, version, now).await?;
                    }
                    rows::update(txn, &subscription, version).await?;
                    version::log(txn, Some(by), "subscription.update", &id.to_string(), now).await?;
                    Ok(Some(Ok(subscription)))
                })
            })
            .await?;
        self.hint_subscription_changed();
        Ok(changed)
    }

    /// Deletes a subscription unless `check` refuses, which sees it as it is in the transaction. Returns `None` if
    /// there was none. The open deliveries are cancelled.
    pub async fn delete_subscription<F, R>(
        &self,
        id: SubscriptionId,
        by: AccountId,
        check: F,
    ) -> Result<Option<Result<(), R>>, Error>
    where
        F: FnOnce(&Subscription) -> Result<(), R> + Send + 'static,
        R: Send + 'static,
    {
        let found = self
            .store
            .write(move |txn, now| {
                Box::pin(async move {
                    let now = locks::change(txn, now).await?;
                    let Some(mut subscription) = find(txn, id).await? else {
                        return Ok(None);
                    };
                    if let Err(refusal) = check(&subscription) {
                        return Ok(Some(Err(refusal)));
                    }
                    subscription.settings.active = false;
                    subscription.deleted = true;
                    subscription.updated_at = now;
                    let version = version::bump(txn).await?;
                    cancel_open(txn, &mut subscription, version, now).await?;
                    rows::update(txn, &subscription, version).await?;
                    version::log(txn, Some(by), "subscription.delete", &id.to_string(), now).await?;
                    Ok(Some(Ok(())))
                })
            })
            .await?;
        self.hint_subscription_changed();
        Ok(found)
    }

    fn hint_subscription_changed(&self) {
        self.signals.registry.notify_waiters();
        self.signals.outbox.notify_one();
    }

    /// A subscription that is not deleted.
    pub async fn subscription(&self, id: SubscriptionId) -> Result<Option<Subscription>, Error> {
        self.store.ask(find(self.store.api(), id)).await
    }

    /// The account to which a subscription belongs, or belonged before it was deleted.
    pub async fn subscription_owner(&self, id: SubscriptionId) -> Result<Option<AccountId>, Error> {
        let sql = "SELECT owner FROM subscriptions WHERE id = $1";
        let row = self.store.ask(one(self.store.api(), sql, [id.0.into()])).await?;
        row.map(|row| Ok(AccountId(uuid(&row, "owner")?))).transpose()
    }

    /// The subscriptions before `before` that match the filter, newest first.
    pub async fn subscriptions(
        &self,
        wanted: SubscriptionFilter,
        before: Option<SubscriptionId>,
        limit: u64,
    ) -> Result<Vec<Subscription>, Error> {
        let read = async {
            let api = self.store.api();
            let Some(url) = &wanted.url else {
                let (end, values) = wanted.newest(before, limit);
                return all(api, &format!("{} {end}", *SELECT), values).await;
            };
            // Newest first, as they are read again.
            let called = self.called(&wanted, url, before, limit).await?;
            let called = called.into_iter().map(Value::from).collect();
            for_values(
                api,
                &format!("{} WHERE NOT deleted AND id", *SELECT),
                called,
                "ORDER BY id DESC",
            )
            .await
        };
        let rows = self.store.ask(read).await?;
        rows.iter().map(rows::subscription).collect()
    }

    /// The newest subscriptions that match the filter and have that URL. Earlier versions kept URLs as they were given,
    /// so the database cannot compare them, and each is compared here.
    async fn called(
        &self,
        wanted: &SubscriptionFilter,
        url: &str,
        mut before: Option<SubscriptionId>,
        limit: u64,
    ) -> Result<Vec<Uuid>, Error> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut called = Vec::new();
        loop {
            let (end, values) = wanted.newest(before, PAGE);
            let sql = format!("SELECT id, url FROM subscriptions {end}");
            let page = all(self.store.api(), &sql, values).await?;
            let page = page.iter().map(|row| Ok((uuid(row, "id")?, get(row, "url")?)));
            let page: Vec<(Uuid, String)> = page.collect::<Result<_, Error>>()?;
            before = page.last().map(|(id, _)| SubscriptionId(*id));
            let is_called = |kept: &str| kept == url || url_as_kept(kept) == url;
            called.extend(page.iter().filter(|(_, kept)| is_called(kept)).map(|(id, _)| *id));
            if called.len() >= limit || u64::try_from(page.len()).is_ok_and(|rows| rows < PAGE) {
                called.truncate(limit);
                return Ok(called);
            }
        }
    }
}

impl SubscriptionFilter {
    /// The end of a SELECT of the newest `limit` before `before`, by the part of the filter that the database can compare.
    fn newest(&self, before: Option<SubscriptionId>, limit: u64) -> (String, Vec<Value>) {
        let wanted = [
            ("owner =", self.owner.map(|owner| owner.0.into())),
            ("webhook =", self.webhook.map(|webhook| webhook.code().into())),
            ("object =", self.object.map(|object| object.0.into())),
            ("active =", self.active.map(Value::from)),
            ("id <", before.map(|before| before.0.into())),
        ];
        let given = wanted
            .into_iter()
            .filter_map(|(comparison, value)| Some((comparison, value?)));
        let (comparisons, mut values): (Vec<_>, Vec<_>) = given.unzip();
        let numbered = (1..)
            .zip(comparisons)
            .map(|(n, comparison)| format!(" AND {comparison} ${n}"));
        let rest = format!("WHERE NOT deleted{} ORDER BY id DESC", numbered.collect::<String>());
        values.push(i64::try_from(limit).unwrap_or(i64::MAX).into());
        (format!("{rest} LIMIT ${}", values.len()), values)
    }
}

/// The subscriptions that have changed since that version, deleted ones included, in the order of their ids: those
/// behind `after`, at most `limit`.
pub(crate) async fn changed_since<C: ConnectionTrait>(
    connection: &C,
    version: i64,
    after: Option<SubscriptionId>,
    limit: u64,
) -> Result<Vec<Subscription>, Error> {
    let (behind, after) = match after {
        None => ("", None),
        Some(after) => ("AND id > $2", Some(after.0.into())),
    };
    let sql = format!("{} WHERE version > $1 {behind} ORDER BY id LIMIT {limit}", *SELECT);
    let rows = all(connection, &sql, std::iter::once(version.into()).chain(after)).await?;
    rows.iter().map(rows::subscription).collect()
}

/// What the subscriptions that have changed since that version listen to now. Nothing if they are more than `limit`.
pub(crate) async fn amendment_since(
    txn: &DatabaseTransaction,
    version: i64,
    limit: u64,
) -> Result<Option<Amendment>, Error> {
    let sql = format!("{} WHERE version > $1 ORDER BY version LIMIT {}", *SELECT, limit + 1);
    let rows = all(txn, &sql, [version.into()]).await?;
    if u64::try_from(rows.len()).is_ok_and(|changed| changed > limit) {
        return Ok(None);
    }
    let changes: Result<Vec<_>, Error> = rows
        .iter()
        .map(|row| {
            let changed = rows::subscription(row)?;
            let listens = changed.settings.active && !changed.deleted;
            Ok((changed.id, listens.then_some(changed.settings.interest)))
        })
        .collect();
    Ok(Some(Amendment::new(changes?)))
}

/// The subscriptions, of these whose subscribers answered 410, that are active and have not changed since that time. An
/// answer from before a change does not count. This takes no lock, so [`deactivate_gone`] looks again.
pub(crate) async fn still_active(
    txn: &DatabaseTransaction,
    gone: impl Iterator<Item = (SubscriptionId, Timestamp)>,
) -> Result<HashSet<SubscriptionId>, Error> {
    let gone: HashMap<SubscriptionId, Timestamp> = gone.collect();
    let ids = gone.keys().map(|id| id.0.into()).collect();
    let active = for_values(
        txn,
        "SELECT id, updated_at FROM subscriptions WHERE active AND id",
        ids,
        "",
    )
    .await?;
    let mut still = HashSet::new();
    for row in &active {
        let id = SubscriptionId(uuid(row, "id")?);
        if gone.get(&id) == Some(&timestamp(row, "updated_at")?) {
            still.insert(id);
        }
    }
    Ok(still)
}

/// Deactivates subscriptions whose subscribers answered 410, unless they have changed since. Returns those that were
/// deactivated. It needs only a few statements for any number. [`locks::change`] must come before it.
pub(crate) async fn deactivate_gone(
    txn: &DatabaseTransaction,
    gone: HashMap<SubscriptionId, Timestamp>,
    now: Timestamp,
) -> Result<Vec<SubscriptionId>, Error> {
    if gone.is_empty() {
        return Ok(Vec::new());
    }
    let version = version::bump(txn).await?;
    let rows = gone
        .into_iter()
        .map(|(id, seen)| [id.0.into(), seen.as_micros().into()]);
    let at = now.as_micros();
    let rows = for_rows(
        txn,
        "WITH gone (id, seen) AS (",
        rows.collect::<Vec<[Value; 2]>>(),
        &format!(
            ") UPDATE subscriptions SET active = FALSE, updated_at = {at}, open_from = {at}, version = {version}, \
             open_from_version = {version}, deactivated_at = {at}, deactivation_reason = '{}' FROM gone \
             WHERE subscriptions.id = gone.id AND active AND updated_at = gone.seen RETURNING subscriptions.id",
            Reason::Gone.name()
        ),
    )
    .await?;
    let deactivated = rows.iter().map(|row| Ok(SubscriptionId(uuid(row, "id")?)));
    let deactivated: Vec<_> = deactivated.collect::<Result<_, Error>>()?;
    outbox::cancel_deliveries(txn, &deactivated, (version, now)).await?;
    version::log_all(txn, "subscription.gone", deactivated.iter(), now).await?;
    Ok(deactivated)
}

/// The first type of that interest that is not there, because it was deleted since the request was read. What `held`
/// names already is not looked at. [`locks::change`] must come before it.
async fn missing_type(
    txn: &DatabaseTransaction,
    interest: &Interest,
    held: Option<&Interest>,
) -> Result<Option<NoSuchType>, Error> {
    let held_names = held.map(Interest::event_types).unwrap_or_default();
    let names = interest.event_types().iter().enumerate();
    let new: Vec<(usize, &str)> = names
        .filter(|(_, name)| !name.ends_with('*') && !held_names.contains(name))
        .map(|(at, name)| (at, &**name))
        .collect();
    let there = catalogue::event_types_there(txn, new.iter().map(|(_, name)| *name).collect()).await?;
    if let Some((at, name)) = new.into_iter().find(|(_, name)| !there.contains(*name)) {
        let name = name.to_owned();
        return Ok(Some(NoSuchType::Event { at, name }));
    }
    let kind = interest.filter().map(|(kind, _)| kind);
    let held_kind = held.and_then(Interest::filter).map(|(kind, _)| kind);
    if let Some(kind) = kind.filter(|kind| held_kind != Some(*kind)) {
        let there = catalogue::is_object_type(txn, kind).await?;
        return Ok((!there).then_some(NoSuchType::Object));
    }
    Ok(None)
}

async fn cancel_open(
    txn: &DatabaseTransaction,
    subscription: &mut Subscription,
    version: i64,
    now: Timestamp,
) -> Result<(), Error> {
    (subscription.open_from_version, subscription.open_from) = (version, now);
    outbox::cancel_deliveries(txn, &[subscription.id], (version, now)).await
}

async fn find<C: ConnectionTrait>(connection: &C, id: SubscriptionId) -> Result<Option<Subscription>, Error> {
    let sql = format!("{} WHERE id = $1 AND NOT deleted", *SELECT);
    let row = one(connection, &sql, [id.0.into()]).await?;
    row.as_ref().map(rows::subscription).transpose()
}
