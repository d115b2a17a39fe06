//! Subscriptions in the ledger. Every change also bumps the registry's version, in its own transaction. Deactivation
//! and deletion also write the outbox job that cancels the open deliveries.

use crate::sql::{corrupt, for_rows, for_values, timestamp, uuid};
use crate::{Error, Ledger, catalogue, locks, outbox, version};
use herald_domain::catalogue::{ObjectType, Webhook};
use herald_domain::delivery::Reason;
use herald_domain::id::{AccountId, ObjectGuid, SubscriptionId};
use herald_domain::index::{Amendment, Interest, ObjectFilter, Topic, TypeInterest};
use herald_domain::message::Format;
use herald_domain::retry::RetryPolicy;
use herald_domain::signing::{FormerKey, SigningKey};
use herald_domain::subscription::{Deactivation, Settings, Subscription, url_as_kept};
use herald_domain::time::Timestamp;
use sea_orm::entity::prelude::*;
use sea_orm::{DatabaseTransaction, IntoActiveModel, QueryOrder, QuerySelect, Value};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

mod entity {
    #![expect(unreachable_pub, reason = "the derive wants it so")]
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "subscriptions")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub owner: Uuid,
        pub webhook: i16,
        pub object_type: i16,
        pub object: Option<Uuid>,
        pub event_types: Option<String>,
        pub object_name: Option<String>,
        pub format: Option<i16>,
        pub url: String,
        pub custom_header: Option<String>,
        pub custom_header_value: Option<String>,
        pub name: Option<String>,
        pub active: bool,
        pub signing_key: Vec<u8>,
        pub former_key: Option<Vec<u8>>,
        pub former_key_until: Option<i64>,
        pub timeout_ms: i64,
        pub retry_initial_ms: i64,
        pub retry_multiplier: f64,
        pub retry_max_ms: i64,
        pub retry_give_up_ms: i64,
        pub retry_max_attempts: Option<i32>,
        pub max_in_flight: i32,
        pub rate_limit: Option<f64>,
        pub created_at: i64,
        pub updated_at: i64,
        pub open_from: i64,
        pub open_from_version: i64,
        pub deactivated_at: Option<i64>,
        pub deactivation_reason: Option<String>,
        pub deleted: bool,
        pub version: i64,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

use entity::Column;

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

impl Ledger {
    /// Adds a subscription, in the name of the account `by`.
    pub async fn create_subscription(&self, subscription: Subscription, by: AccountId) -> Result<(), Error> {
        self.store
            .write(move |txn, now| {
                Box::pin(async move {
                    let now = locks::change(txn, now).await?;
                    check_types(txn, &subscription).await?;
                    let version = version::bump(txn).await?;
                    version::log(txn, Some(by), "subscription.create", &subscription.id.to_string(), now).await?;
                    let row = to_row(&subscription, version).into_active_model();
                    entity::Entity::insert(row).exec_without_returning(txn).await?;
                    Ok(())
                })
            })
            .await?;
        self.signals.registry.notify_waiters();
        Ok(())
    }

    /// Changes a subscription with `change`, which sees it as it is in the transaction. Returns `None` if there is
    /// none, or not any more. If `change` refuses, nothing is written. A change from active to inactive cancels the
    /// open deliveries.
    pub async fn update_subscription<F, R>(
        &self,
        id: SubscriptionId,
        by: AccountId,
        change: F,
    ) -> Result<Option<Result<Subscription, R>>, Error>
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
                    if let Err(refusal) = change(&mut subscription) {
                        return Ok(Some(Err(refusal)));
                    }
                    check_types(txn, &subscription).await?;
                    subscription.updated_at = now;
                    if was_active || subscription.settings.active {
                        subscription.deactivated = None;
                    }
                    let version = version::bump(txn).await?;
                    if was_active && !subscription.settings.active {
                        cancel_open(txn, &mut subscription, version, now).await?;
                    }
                    save(txn, &subscription, version).await?;
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
                    save(txn, &subscription, version).await?;
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
        let read = async { Ok(entity::Entity::find_by_id(id.0).one(self.store.api()).await?) };
        let row = self.store.ask(read).await?;
        Ok(row.map(|row| AccountId(row.owner)))
    }

    /// The subscriptions before `before` that match the filter, newest first.
    pub async fn subscriptions(
        &self,
        wanted: SubscriptionFilter,
        before: Option<SubscriptionId>,
        limit: u64,
    ) -> Result<Vec<Subscription>, Error> {
        let read = async {
            let query = match &wanted.url {
                None => wanted.asked().limit(limit),
                Some(url) => {
                    let called = self.called(&wanted, url, before, limit).await?;
                    entity::Entity::find().filter(Column::Id.is_in(called))
                }
            };
            let before = before.map(|before| Column::Id.lt(before.0));
            let query = before.into_iter().fold(query, QueryFilter::filter);
            Ok(query.order_by_desc(Column::Id).all(self.store.api()).await?)
        };
        let rows = self.store.ask(read).await?;
        rows.into_iter().map(from_row).collect()
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
            let before_this = before.map(|before| Column::Id.lt(before.0));
            let query = before_this.into_iter().fold(wanted.asked(), QueryFilter::filter);
            let query = query.select_only().columns([Column::Id, Column::Url]);
            let query = query.order_by_desc(Column::Id).limit(PAGE);
            let page: Vec<(Uuid, String)> = query.into_tuple().all(self.store.api()).await?;
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
    /// The part of the filter that the database can compare.
    fn asked(&self) -> Select<entity::Entity> {
        let asked = [
            self.owner.map(|owner| Column::Owner.eq(owner.0)),
            self.webhook.map(|webhook| Column::Webhook.eq(webhook.code())),
            self.object.map(|object| Column::Object.eq(object.0)),
            self.active.map(|active| Column::Active.eq(active)),
        ];
        let there = entity::Entity::find().filter(Column::Deleted.eq(false));
        asked.into_iter().flatten().fold(there, QueryFilter::filter)
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
    let mut query = entity::Entity::find().filter(Column::Version.gt(version));
    if let Some(after) = after {
        query = query.filter(Column::Id.gt(after.0));
    }
    let rows = query.order_by_asc(Column::Id).limit(limit).all(connection).await?;
    rows.into_iter().map(from_row).collect()
}

/// What the subscriptions that have changed since that version listen to now. Nothing if they are more than `limit`.
pub(crate) async fn amendment_since(
    txn: &DatabaseTransaction,
    version: i64,
    limit: u64,
) -> Result<Option<Amendment>, Error> {
    let rows = entity::Entity::find()
        .filter(Column::Version.gt(version))
        .order_by_asc(Column::Version)
        .limit(limit + 1)
        .all(txn)
        .await?;
    if u64::try_from(rows.len()).is_ok_and(|changed| changed > limit) {
        return Ok(None);
    }
    let changes: Result<Vec<_>, Error> = rows
        .iter()
        .map(|row| {
            let listens = row.active && !row.deleted;
            Ok((SubscriptionId(row.id), listens.then(|| interest(row)).transpose()?))
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

/// Refuses a subscription to an event type that was deleted a moment ago: the caller reads the catalogue again.
async fn check_types(txn: &DatabaseTransaction, subscription: &Subscription) -> Result<(), Error> {
    let Interest::EventTypes(types) = &subscription.settings.interest else {
        return Ok(());
    };
    let names: Vec<_> = types.names.iter().map(|name| &**name).collect();
    let names: Vec<_> = names.into_iter().filter(|name| !name.ends_with('*')).collect();
    if catalogue::are_there(txn, &names).await? {
        Ok(())
    } else {
        Err(Error::Busy)
    }
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
    let row = entity::Entity::find_by_id(id.0)
        .filter(Column::Deleted.eq(false))
        .one(connection)
        .await?;
    row.map(from_row).transpose()
}

async fn save(txn: &DatabaseTransaction, subscription: &Subscription, version: i64) -> Result<(), Error> {
    let row = to_row(subscription, version).into_active_model().reset_all();
    entity::Entity::update(row).exec(txn).await?;
    Ok(())
}

fn to_row(subscription: &Subscription, version: i64) -> entity::Model {
    let settings = &subscription.settings;
    let (custom_header, custom_header_value) = settings.custom_header.as_deref().cloned().unzip();
    let filter = settings.interest.filter();
    let (event_types, object_name) = match &settings.interest {
        Interest::Webhook(_) => (None, None),
        Interest::EventTypes(types) => {
            let names: serde_json::Value = types.names.iter().map(|name| &**name).collect();
            let object_name = types.filter.as_ref().map(|filter| filter.name.to_string());
            (Some(names.to_string()), object_name)
        }
    };
    entity::Model {
        id: subscription.id.0,
        owner: subscription.owner.0,
        webhook: settings.interest.webhook().code(),
        object_type: filter.map_or(NO_FILTER, |(kind, _)| kind.number()),
        object: filter.and_then(|(_, object)| object).map(|object| object.0),
        event_types,
        object_name,
        format: Some(settings.format.code()),
        url: settings.url.clone(),
        custom_header,
        custom_header_value,
        name: settings.name.clone(),
        active: settings.active,
        signing_key: subscription.key.as_bytes().to_vec(),
        former_key: subscription
            .former_key
            .as_ref()
            .map(|former| former.key.as_bytes().to_vec()),
        former_key_until: subscription.former_key.as_ref().map(|former| former.until.as_micros()),
        timeout_ms: millis(settings.timeout),
        retry_initial_ms: millis(settings.retry.initial),
        retry_multiplier: settings.retry.multiplier,
        retry_max_ms: millis(settings.retry.max),
        retry_give_up_ms: millis(settings.retry.give_up_after),
        retry_max_attempts: settings.retry.max_attempts.and_then(|most| i32::try_from(most).ok()),
        max_in_flight: settings.max_in_flight.into(),
        rate_limit: settings.rate_limit_per_second,
        created_at: subscription.created_at.as_micros(),
        updated_at: subscription.updated_at.as_micros(),
        open_from: subscription.open_from.as_micros(),
        open_from_version: subscription.open_from_version,
        deactivated_at: subscription.deactivated.map(|why| why.at.as_micros()),
        deactivation_reason: subscription.deactivated.map(|why| why.reason.name().to_owned()),
        deleted: subscription.deleted,
        version,
    }
}

/// The `object_type` of a subscription to event types without a filter.
const NO_FILTER: i16 = 0;

fn interest(row: &entity::Model) -> Result<Interest, Error> {
    let webhook = Webhook::coded(row.webhook).ok_or_else(|| corrupt("an unknown webhook"))?;
    let object = row.object.map(ObjectGuid);
    let kind = ObjectType::numbered(row.object_type.into());
    let Some(names) = &row.event_types else {
        return Ok(Interest::Webhook(Topic {
            webhook,
            object_type: kind.ok_or_else(|| corrupt("an unknown object type"))?,
            object,
        }));
    };
    let filter = kind.zip(row.object_name.as_deref()).map(|(kind, name)| ObjectFilter {
        kind,
        name: name.into(),
        object,
    });
    let names = serde_json::from_str(names).map_err(|_malformed| corrupt("malformed event types"))?;
    Ok(Interest::EventTypes(Arc::new(TypeInterest { names, filter })))
}

fn from_row(row: entity::Model) -> Result<Subscription, Error> {
    let interest = interest(&row)?;
    let deactivated = row
        .deactivated_at
        .zip(row.deactivation_reason.as_deref().and_then(Reason::named));
    let duration = |millis: i64| Duration::from_millis(u64::try_from(millis).unwrap_or(0));
    Ok(Subscription {
        id: SubscriptionId(row.id),
        owner: AccountId(row.owner),
        settings: Settings {
            interest,
            format: row.format.and_then(Format::coded).unwrap_or(Format::Enate),
            // The URL as it is called. Earlier versions kept it as it was given.
            url: url_as_kept(&row.url),
            custom_header: row.custom_header.zip(row.custom_header_value).map(Box::new),
            name: row.name,
            active: row.active,
            timeout: duration(row.timeout_ms),
            retry: RetryPolicy {
                initial: duration(row.retry_initial_ms),
                multiplier: row.retry_multiplier,
                max: duration(row.retry_max_ms),
                give_up_after: duration(row.retry_give_up_ms),
                max_attempts: row.retry_max_attempts.and_then(|most| u32::try_from(most).ok()),
            }
            .shared(),
            max_in_flight: u16::try_from(row.max_in_flight).map_err(|_range| corrupt("an impossible MaxInFlight"))?,
            rate_limit_per_second: row.rate_limit,
        },
        key: SigningKey::from_bytes(row.signing_key),
        former_key: row.former_key.zip(row.former_key_until).map(|(key, until)| FormerKey {
            key: SigningKey::from_bytes(key),
            until: Timestamp::from_micros(until),
        }),
        created_at: Timestamp::from_micros(row.created_at),
        updated_at: Timestamp::from_micros(row.updated_at),
        open_from: Timestamp::from_micros(row.open_from),
        open_from_version: row.open_from_version,
        // A version that does not know of it leaves it where it activates.
        deactivated: deactivated.filter(|_| !row.active).map(|(at, reason)| Deactivation {
            at: Timestamp::from_micros(at),
            reason,
        }),
        deleted: row.deleted,
    })
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
