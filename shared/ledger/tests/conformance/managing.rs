//! What the management API changes is found again, and the registry hears of it.

use crate::rig::{Database, Rig, guid, topic};
use herald_domain::access::{Account, Grant, OPERATOR, Role, Roles};
use herald_domain::address::EgressPolicy;
use herald_domain::catalogue::{Catalogue, ObjectType, Webhook};
use herald_domain::id::{AccountId, KeyId, SubscriptionId};
use herald_domain::index::Interest;
use herald_domain::signing::{AsymmetricKey, SEED_BYTES, SigningKey};
use herald_domain::subscription::{Column, Settings, Subscription, parse};
use herald_ledger::accounts::{AccountChange, AccountRecord, ApiKey};
use herald_ledger::subscriptions::{Refusal, SubscriptionFilter};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

async fn a_subscription_is_found_as_it_was_made_until_it_is_deleted(database: Database) {
    let rig = Rig::new(database).await;
    let id = rig.subscribe(7).await;
    let found = rig.ledger.subscription(id).await.unwrap().unwrap();
    assert_eq!(found.settings.interest, Interest::Webhook(topic()));
    let changed = rig
        .ledger
        .update_subscription(id, OPERATOR, |it| {
            it.settings.custom_header = Some(Box::new(("X-Key".to_owned(), "v".to_owned())));
            it.settings.rate_limit_per_second = Some(0.5);
            it.asymmetric_key = Some(AsymmetricKey::from_seed([3; SEED_BYTES]));
            it.rotate(
                SigningKey::from_bytes(vec![2; 32]),
                Some(AsymmetricKey::from_seed([4; SEED_BYTES])),
                Duration::from_mins(1),
                it.created_at,
            );
            Arc::make_mut(&mut it.settings.retry).max_attempts = Some(3);
            Ok::<(), ()>(())
        })
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert!(changed.former_key.as_ref().unwrap().asymmetric.is_some());
    let refused = rig
        .ledger
        .update_subscription(id, OPERATOR, |_| Err("no"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(refused, Err(Refusal::Change("no")));
    assert_eq!(rig.ledger.subscription(id).await.unwrap().unwrap(), changed);
    let refused = rig.ledger.delete_subscription(id, OPERATOR, |_| Err("no")).await;
    assert_eq!(refused.unwrap(), Some(Err("no")));
    assert!(rig.ledger.subscription(id).await.unwrap().is_some());
    assert!(rig.delete(id).await);
    assert!(!rig.delete(id).await);
    assert_eq!(rig.ledger.subscription(id).await.unwrap(), None);
    assert!(
        rig.ledger
            .subscriptions(SubscriptionFilter::default(), None, 10)
            .await
            .unwrap()
            .is_empty()
    );
}

/// Each setting by its declaration alone, so that this holds for new ones as well.
async fn every_setting_is_found_as_it_was_written(database: Database) {
    let rig = Rig::new(database).await;
    let id = rig.subscribe(7).await;
    let subscription = rig.ledger.subscription(id).await.unwrap().unwrap();
    let usual = subscription.settings.to_json();
    let mut body = usual.clone();
    for field in Settings::fields().filter(|field| field.name != "EventTypes") {
        if !["Webhook", "FilterObjectType", "FilterObjectGUID", "SubscriberURL"].contains(&field.name) {
            body.insert(field.name.to_owned(), field.sample());
        }
    }
    let read = |body| {
        let (catalogue, egress) = (Catalogue::default(), EgressPolicy::default());
        parse(&serde_json::Value::Object(body), &catalogue, &egress)
            .unwrap()
            .settings
    };
    // Every one written anew, and every one changed.
    for (n, settings) in [(8, read(usual)), (9, read(body))] {
        let new = Subscription {
            id: SubscriptionId(Uuid::from_u128(n)),
            settings: settings.clone(),
            ..subscription.clone()
        };
        rig.ledger
            .create_subscription(new.clone(), OPERATOR)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(rig.ledger.subscription(new.id).await.unwrap().unwrap(), new);
        let changed = rig.ledger.update_subscription(id, OPERATOR, move |it| {
            it.settings = settings;
            Ok::<(), ()>(())
        });
        let changed = changed.await.unwrap().unwrap().unwrap();
        assert_eq!(rig.ledger.subscription(id).await.unwrap().unwrap(), changed);
    }
    // A version writes nothing into the columns that it does not know.
    let usual = SubscriptionId(Uuid::from_u128(8));
    let written = rig.ledger.subscription(usual).await.unwrap();
    let later = |column: &&Column| !FIRST_COLUMNS.contains(&column.name);
    let nothing: Vec<_> = Settings::columns()
        .filter(later)
        .map(|column| format!("{} = NULL", column.name))
        .collect();
    rig.execute(format!("UPDATE subscriptions SET {}", nothing.join(", ")))
        .await
        .unwrap();
    assert_eq!(rig.ledger.subscription(usual).await.unwrap(), written);
}

/// The columns of settings that every version writes.
const FIRST_COLUMNS: [&str; 11] = [
    "webhook",
    "object_type",
    "object",
    "url",
    "active",
    "timeout_ms",
    "retry_initial_ms",
    "retry_multiplier",
    "retry_max_ms",
    "retry_give_up_ms",
    "max_in_flight",
];

async fn subscriptions_are_listed_newest_first_in_pages(database: Database) {
    let rig = Rig::new(database).await;
    let mut ids = Vec::new();
    for n in 1..=5 {
        ids.push(rig.subscribe(n).await);
    }
    ids.reverse();
    let wanted = || SubscriptionFilter {
        owner: Some(OPERATOR),
        webhook: Some(topic().webhook),
        object: topic().object,
        url: Some("https://example.com/".to_owned()),
        active: Some(true),
    };
    let others = [
        SubscriptionFilter {
            owner: Some(AccountId(Uuid::from_u128(9))),
            ..wanted()
        },
        SubscriptionFilter {
            webhook: Some(Webhook::PacketCreated),
            ..wanted()
        },
        SubscriptionFilter {
            object: Some(guid(9)),
            ..wanted()
        },
        SubscriptionFilter {
            url: Some("https://example.com/other".to_owned()),
            ..wanted()
        },
        SubscriptionFilter {
            active: Some(false),
            ..wanted()
        },
    ];
    for other in others {
        assert!(
            rig.ledger
                .subscriptions(other.clone(), None, 10)
                .await
                .unwrap()
                .is_empty(),
            "{other:?}"
        );
    }
    let mut listed = Vec::new();
    let mut before = None;
    loop {
        let page = rig.ledger.subscriptions(wanted(), before, 2).await.unwrap();
        before = page.last().map(|subscription| subscription.id);
        if page.is_empty() {
            break;
        }
        listed.extend(page.into_iter().map(|subscription| subscription.id));
    }
    assert_eq!(listed, ids);
    let somebody = AccountId(Uuid::from_u128(9));
    let of_somebody = SubscriptionFilter {
        owner: Some(somebody),
        ..SubscriptionFilter::default()
    };
    assert!(
        rig.ledger
            .subscriptions(of_somebody, None, 10)
            .await
            .unwrap()
            .is_empty()
    );
}

async fn the_registry_hears_of_every_change_and_of_nothing_else(database: Database) {
    let rig = Rig::new(database).await;
    let changes = async |since| {
        let mut all = (Vec::new(), Vec::new(), since);
        let collect = |changes: herald_ledger::registry::Changes| {
            all.0.extend(changes.subscriptions);
            all.1.extend(changes.accounts);
            all.2 = changes.version;
        };
        rig.ledger.changes_since(since, collect).await.unwrap();
        all
    };
    let first = rig.subscribe(1).await;
    let second = rig.subscribe(2).await;
    let (subscriptions, _, version) = changes(-1).await;
    assert_eq!(
        subscriptions.iter().map(|it| it.id).collect::<Vec<_>>(),
        [first, second]
    );
    assert_eq!(version, rig.version().await);
    assert!(changes(version).await.0.is_empty());
    assert!(rig.delete(first).await);
    let (subscriptions, _, version) = changes(version).await;
    assert!(subscriptions.len() == 1 && subscriptions[0].deleted);

    let id = AccountId(Uuid::from_u128(5));
    let account = Account {
        id,
        name: "five".to_owned(),
        active: true,
        roles: Roles::NONE.with(Role::Producer),
        grants: Vec::new(),
    };
    rig.ledger.create_account(account.clone(), OPERATOR).await.unwrap();
    let key = ApiKey {
        id: KeyId(Uuid::from_u128(6)),
        account: id,
        name: None,
        hash: [7; 32],
        roles: account.roles,
        created_at: rig.ledger.now(),
    };
    change(&rig, id, AccountChange::AddKey(key.clone())).await.unwrap();
    let grant = Grant {
        object_type: ObjectType::PACKET,
        object: Some(guid(3)),
    };
    let of_type = Grant {
        object_type: ObjectType::COMPANY,
        object: None,
    };
    for grant in [grant, grant, of_type] {
        change(&rig, id, AccountChange::AddGrant(grant)).await.unwrap();
    }
    let (_, accounts, version) = changes(version).await;
    assert_eq!(accounts[0].keys, std::slice::from_ref(&key));
    assert_eq!(accounts[0].account.grants.len(), 2);
    change(&rig, id, AccountChange::RemoveGrant(grant)).await.unwrap();
    change(&rig, id, AccountChange::RemoveKey(key.id)).await.unwrap();
    let inactive = AccountChange::Settings {
        name: account.name,
        active: false,
        roles: account.roles,
    };
    let changed = change(&rig, id, inactive).await.unwrap();
    assert_eq!(Some(changed), rig.ledger.account(id).await.unwrap());
    assert!(
        change(&rig, AccountId(Uuid::from_u128(9)), AccountChange::RemoveKey(key.id))
            .await
            .is_none()
    );
    let (_, accounts, _) = changes(version).await;
    assert_eq!(accounts[0].account.grants, [of_type]);
    assert!(accounts[0].keys.is_empty() && !accounts[0].account.active);
    assert_eq!(rig.ledger.accounts(None, 10).await.unwrap().len(), 1);
}

async fn of_two_changes_of_an_account_neither_undoes_the_other(database: Database) {
    let rig = Rig::new(database).await;
    rig.ledger.ensure_operator(None).await.unwrap();
    let rename = |record: &AccountRecord| -> Result<AccountChange, Infallible> {
        Ok(AccountChange::Settings {
            name: format!("{}x", record.account.name),
            active: record.account.active,
            roles: record.account.roles,
        })
    };
    let (one, two) = tokio::join!(
        rig.ledger.change_account(OPERATOR, OPERATOR, rename),
        rig.ledger.change_account(OPERATOR, OPERATOR, rename),
    );
    assert!(one.unwrap().is_some() && two.unwrap().is_some());
    let changed = rig.ledger.account(OPERATOR).await.unwrap().unwrap();
    assert_eq!(changed.account.name, "operatorxx");
    let version = rig.version().await;
    let refused = rig.ledger.change_account(OPERATOR, OPERATOR, |_| Err("no")).await;
    assert_eq!(refused.unwrap(), Some(Err("no")));
    assert_eq!(rig.version().await, version);
}

async fn the_operators_first_key_is_made_once(database: Database) {
    let rig = Rig::new(database).await;
    let key = |n: u8| ApiKey {
        id: KeyId(Uuid::from_u128(n.into())),
        account: OPERATOR,
        name: None,
        hash: [n; 32],
        roles: Roles::OPERATOR,
        created_at: rig.ledger.now(),
    };
    assert!(!rig.ledger.ensure_operator(None).await.unwrap());
    assert!(rig.ledger.ensure_operator(Some(key(1))).await.unwrap());
    assert!(!rig.ledger.ensure_operator(Some(key(2))).await.unwrap());
    let operator = rig.ledger.account(OPERATOR).await.unwrap().unwrap();
    assert_eq!(operator.keys.iter().map(|key| key.hash[0]).collect::<Vec<_>>(), [1]);
}

async fn change(rig: &Rig, id: AccountId, change: AccountChange) -> Option<AccountRecord> {
    let changed = rig
        .ledger
        .change_account(id, OPERATOR, |_| Ok::<_, Infallible>(change))
        .await;
    let Ok(record) = changed.unwrap()?;
    Some(record)
}

on_both!(
    of_two_changes_of_an_account_neither_undoes_the_other,
    a_subscription_is_found_as_it_was_made_until_it_is_deleted,
    every_setting_is_found_as_it_was_written,
    subscriptions_are_listed_newest_first_in_pages,
    the_registry_hears_of_every_change_and_of_nothing_else,
    the_operators_first_key_is_made_once,
);
