//! What the management API changes is found again, and the registry hears of it.

use crate::rig::{Database, Rig, guid, topic};
use herald_domain::access::{Account, Grant, OPERATOR, Role, Roles};
use herald_domain::catalogue::ObjectType;
use herald_domain::id::{AccountId, KeyId};
use herald_ledger::accounts::ApiKey;
use std::sync::Arc;
use uuid::Uuid;

async fn a_subscription_is_found_as_it_was_made_until_it_is_deleted(database: Database) {
    let rig = Rig::new(database).await;
    let id = rig.subscribe(7).await;
    let found = rig.ledger.subscription(id).await.unwrap().unwrap();
    assert_eq!(found.settings.topic, topic());
    let changed = rig
        .ledger
        .update_subscription(id, OPERATOR, |it| {
            it.settings.custom_header = Some(Box::new(("X-Key".to_owned(), "v".to_owned())));
            it.settings.rate_limit_per_second = Some(0.5);
            Arc::make_mut(&mut it.settings.retry).max_attempts = Some(3);
            Ok::<(), ()>(())
        })
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    let refused = rig
        .ledger
        .update_subscription(id, OPERATOR, |_| Err("no"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(refused, Err("no"));
    assert_eq!(rig.ledger.subscription(id).await.unwrap().unwrap(), changed);
    assert!(rig.ledger.delete_subscription(id, OPERATOR).await.unwrap());
    assert!(!rig.ledger.delete_subscription(id, OPERATOR).await.unwrap());
    assert_eq!(rig.ledger.subscription(id).await.unwrap(), None);
    assert!(rig.ledger.subscriptions(None, None, 10).await.unwrap().is_empty());
}

async fn subscriptions_are_listed_newest_first_in_pages(database: Database) {
    let rig = Rig::new(database).await;
    let mut ids = Vec::new();
    for n in 1..=5 {
        ids.push(rig.subscribe(n).await);
    }
    ids.reverse();
    let mut listed = Vec::new();
    let mut before = None;
    loop {
        let page = rig.ledger.subscriptions(Some(OPERATOR), before, 2).await.unwrap();
        before = page.last().map(|subscription| subscription.id);
        if page.is_empty() {
            break;
        }
        listed.extend(page.into_iter().map(|subscription| subscription.id));
    }
    assert_eq!(listed, ids);
    let somebody = AccountId(Uuid::from_u128(9));
    assert!(
        rig.ledger
            .subscriptions(Some(somebody), None, 10)
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
    rig.ledger.delete_subscription(first, OPERATOR).await.unwrap();
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
    rig.ledger.create_account(account.clone()).await.unwrap();
    let key = ApiKey {
        id: KeyId(Uuid::from_u128(6)),
        account: id,
        name: None,
        hash: [7; 32],
        roles: account.roles,
        created_at: rig.ledger.now(),
    };
    assert!(rig.ledger.create_key(key.clone()).await.unwrap());
    let grant = Grant {
        object_type: ObjectType::Packet,
        object: Some(guid(3)),
    };
    let of_type = Grant {
        object_type: ObjectType::Company,
        object: None,
    };
    for grant in [grant, grant, of_type] {
        assert!(rig.ledger.add_grant(id, grant).await.unwrap());
    }
    let (_, accounts, version) = changes(version).await;
    assert_eq!(accounts[0].keys, std::slice::from_ref(&key));
    assert_eq!(accounts[0].account.grants.len(), 2);
    assert!(rig.ledger.remove_grant(id, grant).await.unwrap());
    assert!(rig.ledger.delete_key(id, key.id).await.unwrap());
    assert!(
        rig.ledger
            .update_account(Account {
                active: false,
                ..account
            })
            .await
            .unwrap()
    );
    let (_, accounts, _) = changes(version).await;
    assert_eq!(accounts[0].account.grants, [of_type]);
    assert!(accounts[0].keys.is_empty() && !accounts[0].account.active);
    assert_eq!(rig.ledger.accounts(None, 10).await.unwrap().len(), 1);
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

on_both!(
    a_subscription_is_found_as_it_was_made_until_it_is_deleted,
    subscriptions_are_listed_newest_first_in_pages,
    the_registry_hears_of_every_change_and_of_nothing_else,
    the_operators_first_key_is_made_once,
);
