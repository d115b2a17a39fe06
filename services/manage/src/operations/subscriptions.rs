//! Subscriptions: created, listed, read, changed, deleted, given a new secret, and their deliveries tried again.

use super::sight::{Sight, permit};
use crate::{Manage, fresh_id, ledger_away, secrets};
use herald_access::Caller;
use herald_access::problem::Problem;
use herald_domain::access::Role;
use herald_domain::delivery::Closed;
use herald_domain::id::{AccountId, SubscriptionId};
use herald_domain::problem::Fault;
use herald_domain::signing::SigningKey;
use herald_domain::subscription::{Draft, Subscription, no_event_type, no_object_type};
use herald_domain::time::Timestamp;
use herald_ledger::history::retrying::RetriedSome;
use herald_ledger::subscriptions::{NoSuchType, Refusal, SubscriptionFilter};
use herald_registry::Registry;
use std::sync::Arc;
use std::time::Duration;

/// Until how many deliveries are tried again with one request.
const RETRIED_AT_A_TIME: usize = 10_000;

/// A secret as it is shown, and the key that it stands for.
pub(crate) type Secret = (String, SigningKey);

/// Creates a subscription; it, and its secret.
pub(crate) async fn create(manage: &Manage, caller: Caller, draft: Draft) -> Result<(Subscription, String), Problem> {
    let settings = draft.settings.as_kept();
    let owner = owner(manage, caller, draft.owner)?;
    permit(&manage.registry, owner, &settings.interest)?;
    let (secret, key) = draft.secret.map_or_else(generate, Ok)?;
    let id = SubscriptionId(fresh_id());
    let mut subscription = Subscription::new(id, owner, settings, key, manage.ledger.now());
    complete(&mut subscription)?;
    let created = manage
        .ledger
        .create_subscription(subscription.clone(), caller.account());
    created.await.map_err(ledger_away)?.map_err(no_such_type)?;
    manage.refresh().await;
    Ok((subscription, secret))
}

/// Whose a subscription is to be: the caller's own, or for an operator any account's.
fn owner(manage: &Manage, caller: Caller, given: Option<AccountId>) -> Result<AccountId, Problem> {
    let owner = given.unwrap_or_else(|| caller.account());
    if owner == caller.account() {
        return Ok(owner);
    }
    if !caller.has(Role::Operator) {
        return Err(Problem::forbidden(
            "Owner may name another account only with a key that has the role Operator; leave it out",
        ));
    }
    if manage.registry.view().account(owner).is_none() {
        let detail = "Owner must be the Id of an account; there is none of that Id";
        return Err(Problem::faults(vec![Fault::new("/Owner", "account", detail)]));
    }
    Ok(owner)
}

/// The subscriptions that the caller sees of those that are wanted, newest first; those before `before`, at most `limit`.
pub(crate) async fn list(
    manage: &Manage,
    caller: Caller,
    wanted: SubscriptionFilter,
    before: Option<SubscriptionId>,
    limit: usize,
) -> Result<Vec<Subscription>, Problem> {
    let sight = Sight::of(caller);
    if wanted.owner.is_some_and(|owner| !sight.includes(owner)) {
        return Ok(Vec::new());
    }
    let wanted = SubscriptionFilter {
        owner: wanted.owner.or_else(|| sight.account()),
        ..wanted
    };
    let limit = u64::try_from(limit).unwrap_or(u64::MAX);
    manage
        .ledger
        .subscriptions(wanted, before, limit)
        .await
        .map_err(ledger_away)
}

/// The subscription, if the caller may see it.
pub(crate) async fn find(manage: &Manage, caller: Caller, id: SubscriptionId) -> Result<Subscription, Problem> {
    let found = manage.ledger.subscription(id).await.map_err(ledger_away)?;
    let seen = found.filter(|subscription| Sight::of(caller).includes(subscription.owner));
    seen.ok_or_else(|| Problem::not_found("subscription"))
}

/// Makes of the subscription what `draft` says, which sees it as it is in the transaction, so that of
/// two changes at a time neither undoes the other. What is refused is not changed.
pub(crate) async fn change(
    manage: &Manage,
    caller: Caller,
    id: SubscriptionId,
    draft: impl FnOnce(&Subscription) -> Result<Draft, Problem> + Send + 'static,
) -> Result<Subscription, Problem> {
    let registry = Arc::clone(&manage.registry);
    let now = manage.ledger.now();
    let changed = update(manage, caller, id, move |subscription| {
        if !Sight::of(caller).includes(subscription.owner) {
            return Err(Problem::not_found("subscription"));
        }
        let draft = draft(subscription)?;
        let settings = draft.settings.as_kept();
        if draft.owner.is_some_and(|owner| owner != subscription.owner) {
            let detail = "Owner cannot be changed; create the subscription anew with another Owner";
            return Err(Problem::faults(vec![Fault::new("/Owner", "read_only", detail)]));
        }
        let interest = &settings.interest;
        if *interest == subscription.settings.interest {
            may_change(&registry, caller, subscription)?;
        } else {
            permit(&registry, subscription.owner, interest)?;
        }
        subscription.settings = settings;
        if let Some((_, key)) = draft.secret {
            let asymmetric = subscription.asymmetric_key.take();
            subscription.rotate(key, asymmetric, Duration::ZERO, now);
        }
        complete(subscription)
    });
    changed.await
}

/// Gives a subscription that secret, or one that is made, and where it has `v1a` a new key for that. The former ones sign
/// too for `overlap`. `check` sees the
/// subscription as it is in the transaction. The subscription, and its secret.
pub(crate) async fn rotate(
    manage: &Manage,
    caller: Caller,
    id: SubscriptionId,
    check: impl FnOnce(&Subscription) -> Result<(), Problem> + Send + 'static,
    (given, overlap): (Option<Secret>, Duration),
) -> Result<(Subscription, String), Problem> {
    let (secret, key) = given.map_or_else(generate, Ok)?;
    let registry = Arc::clone(&manage.registry);
    let now = manage.ledger.now();
    let changed = update(manage, caller, id, move |subscription| {
        may_change(&registry, caller, subscription)?;
        check(subscription)?;
        subscription.rotate(key, None, overlap, now);
        complete(subscription)
    });
    Ok((changed.await?, secret))
}

/// Deletes a subscription. `check` sees it as it is in the transaction.
pub(crate) async fn delete(
    manage: &Manage,
    caller: Caller,
    id: SubscriptionId,
    check: impl FnOnce(&Subscription) -> Result<(), Problem> + Send + 'static,
) -> Result<(), Problem> {
    let registry = Arc::clone(&manage.registry);
    let check = move |present: &Subscription| {
        may_change(&registry, caller, present)?;
        check(present)
    };
    let deleted = manage.ledger.delete_subscription(id, caller.account(), check).await;
    deleted
        .map_err(ledger_away)?
        .ok_or_else(|| Problem::not_found("subscription"))??;
    manage.refresh().await;
    Ok(())
}

/// Tries deliveries of a subscription again that have ended so since then; how many, and whether there may be more.
pub(crate) async fn retry(
    manage: &Manage,
    caller: Caller,
    id: SubscriptionId,
    ended: Closed,
    since: Timestamp,
) -> Result<(usize, bool), Problem> {
    let subscription = find(manage, caller, id).await?;
    permit(&manage.registry, subscription.owner, &subscription.settings.interest)?;
    let retried = manage.ledger.retry_some(id, ended, since, RETRIED_AT_A_TIME).await;
    match retried.map_err(ledger_away)? {
        RetriedSome::Done { deliveries, more } => Ok((deliveries, more)),
        RetriedSome::Unwanted => Err(Problem::conflict(
            "the subscription is inactive, so what is tried again would be cancelled at once; set Active to true first",
        )),
    }
}

/// Answers 403 where the subscription's owner may not have it (any more).
pub(crate) async fn permit_owner(manage: &Manage, id: SubscriptionId) -> Result<(), Problem> {
    match manage.ledger.subscription(id).await.map_err(ledger_away)? {
        Some(subscription) => permit(&manage.registry, subscription.owner, &subscription.settings.interest),
        // What is deleted has another answer.
        None => Ok(()),
    }
}

fn generate() -> Result<Secret, Problem> {
    let key = secrets::signing_key(secrets::system)?;
    Ok((key.to_signing_secret(), key))
}

/// Makes the asymmetric key, where the subscription is to have one and has none.
fn complete(subscription: &mut Subscription) -> Result<(), Problem> {
    if subscription.lacks_asymmetric_key() {
        subscription.asymmetric_key = Some(secrets::asymmetric_key(secrets::system)?);
    }
    Ok(())
}

/// Changes the subscription in a transaction; what is refused is not changed.
async fn update(
    manage: &Manage,
    caller: Caller,
    id: SubscriptionId,
    change: impl FnOnce(&mut Subscription) -> Result<(), Problem> + Send + 'static,
) -> Result<Subscription, Problem> {
    let changed = manage.ledger.update_subscription(id, caller.account(), change).await;
    let changed = changed
        .map_err(ledger_away)?
        .ok_or_else(|| Problem::not_found("subscription"))?;
    let subscription = changed.map_err(|refusal| match refusal {
        Refusal::Change(problem) => problem,
        Refusal::NoSuchType(missing) => no_such_type(missing),
    })?;
    manage.refresh().await;
    Ok(subscription)
}

/// The answer where a type was deleted since the request was read: the same as if it had been deleted before.
fn no_such_type(missing: NoSuchType) -> Problem {
    Problem::faults(match missing {
        NoSuchType::Event { at, name } => Fault::new(format!("/EventTypes/{at}"), "event_type", no_event_type(&name)),
        NoSuchType::Object => Fault::new("/FilterObjectType", "one_of", no_object_type()),
    })
}

/// Answers 404 where the caller does not see the subscription, and 403 where its owner has not the role
/// or the permission any more. An operator may mend and delete what its owner no longer may.
fn may_change(registry: &Registry, caller: Caller, subscription: &Subscription) -> Result<(), Problem> {
    match Sight::of(caller) {
        Sight::Everything => Ok(()),
        Sight::Of(account) if account == subscription.owner => {
            permit(registry, subscription.owner, &subscription.settings.interest)
        }
        Sight::Of(_) => Err(Problem::not_found("subscription")),
    }
}
