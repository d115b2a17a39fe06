//! What the API lists: the right rows, read without what does not concern them, and in nobody's way.

use crate::rig::{Database, EARLIEST, Rig, event};
use herald_domain::id::{EventUid, SubscriptionId};
use herald_domain::lanes::Scope;
use herald_domain::time::Timestamp;
use herald_ledger::history::DeliveryFilter;
use herald_ledger::rejected::Rejected;
use herald_ledger::subscriptions::SubscriptionFilter;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// Records an event that was read at that time.
async fn read_at(rig: &Rig, time: Timestamp, subscription: SubscriptionId) -> EventUid {
    let mut read = event(Uuid::now_v7(), "a", &[subscription]);
    let random = Uuid::now_v7().into_bytes();
    let uid = uuid::Builder::from_unix_timestamp_millis(time.as_unix_millis(), random.last_chunk().unwrap());
    Arc::make_mut(&mut read.record).uid = EventUid(uid.into_uuid());
    rig.record(vec![read.clone()]).await;
    read.record.uid
}

async fn a_list_by_time_goes_by_when_a_delivery_was_made(database: Database) {
    let rig = Rig::new(database).await;
    let subscription = rig.subscribe(1).await;
    let now = rig.ledger.now();
    // The ledger was away while one of them waited, and the other's process had a clock that was ahead.
    let waited = read_at(&rig, now.minus(Duration::from_hours(5)), subscription).await;
    let ahead = read_at(&rig, now.plus(Duration::from_mins(30)), subscription).await;
    let list = async |since: Option<Timestamp>, until: Option<Timestamp>| {
        let filter = DeliveryFilter {
            since,
            until,
            ..DeliveryFilter::default()
        };
        let found = rig.ledger.deliveries(&filter, 10).await.unwrap();
        found
            .into_iter()
            .map(|delivery| (delivery.event, delivery.created_at))
            .collect::<Vec<_>>()
    };
    let all = list(None, None).await;
    assert_eq!(all.iter().map(|(event, _)| *event).collect::<Vec<_>>(), [ahead, waited]);
    let first = all.iter().map(|(_, at)| *at).min().unwrap();
    let last = all.iter().map(|(_, at)| *at).max().unwrap();
    let after = Timestamp::from_micros(last.as_micros() + 1);
    assert_eq!(list(Some(first), Some(after)).await, all);
    assert_eq!(list(Some(after), None).await, []);
    assert_eq!(list(None, Some(first)).await, []);
}

async fn an_account_lists_its_own_rejected_messages(database: Database) {
    let rig = Rig::new(database).await;
    let mut own = Vec::new();
    for n in 0..6 {
        let id = Uuid::now_v7();
        let account = if n % 2 == 0 { "a" } else { "b" };
        let rejected = Rejected {
            account: account.into(),
            faults: "[]".to_owned(),
            body: vec![n],
            body_bytes: 1,
        };
        // When an answer is lost, it is tried again.
        for _ in 0..2 {
            rig.ledger.reject(id, rejected.clone()).await.unwrap();
        }
        if account == "a" {
            own.insert(0, id);
        }
    }
    let list = async |account, before, limit| {
        let found = rig.ledger.rejected(account, before, limit).await.unwrap();
        found.into_iter().map(|rejected| rejected.id).collect::<Vec<_>>()
    };
    assert_eq!(list(Some("a"), None, 2).await, own[..2]);
    assert_eq!(list(Some("a"), Some(own[1]), 9).await, own[2..]);
    assert_eq!(list(None, None, 9).await.len(), 6);
    assert_eq!(list(Some("c"), None, 9).await.len(), 0);
    assert_eq!(rig.ledger.audit().await.unwrap().rejected, 6);
}

on_both!(
    a_list_by_time_goes_by_when_a_delivery_was_made,
    an_account_lists_its_own_rejected_messages,
);

#[tokio::test]
async fn lists_that_wait_hold_up_no_delivery() {
    let rig = Rig::new(Database::Postgres).await;
    let subscription = rig.subscribe(1).await;
    rig.record(vec![event(Uuid::now_v7(), "a", &[subscription])]).await;
    let other = rig.another().await;
    let locking = sea_orm::TransactionTrait::begin(other.store().queries()).await.unwrap();
    let lock = "LOCK TABLE subscriptions, accounts, ONLY deliveries_closed IN ACCESS EXCLUSIVE MODE";
    sea_orm::ConnectionTrait::execute_unprepared(&locking, lock)
        .await
        .unwrap();
    let mut lists = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let ledger = rig.ledger.clone();
        lists.spawn(async move {
            ledger
                .subscriptions(SubscriptionFilter::default(), None, 10)
                .await
                .map(drop)
        });
        let ledger = rig.ledger.clone();
        lists.spawn(async move { ledger.accounts(None, 10).await.map(drop) });
        let ledger = rig.ledger.clone();
        lists.spawn(async move { ledger.deliveries(&DeliveryFilter::default(), 10).await.map(drop) });
    }
    // As many as there are connections for wait in the database.
    let sql = "SELECT count(*) AS n FROM pg_locks WHERE NOT granted AND database = (SELECT oid FROM pg_database WHERE \
               datname = current_database())";
    loop {
        let row = herald_ledger::sql::one(other.store().read(), sql, [])
            .await
            .unwrap()
            .unwrap();
        if herald_ledger::sql::get::<i64>(&row, "n").unwrap() >= 6 {
            break;
        }
    }
    let all = Scope::all();
    let open = rig.ledger.open_deliveries(subscription.into(), EARLIEST, 10, &all);
    let open = tokio::time::timeout(Duration::from_secs(5), open)
        .await
        .expect("it does not wait");
    assert_eq!(open.unwrap().len(), 1);
    locking.rollback().await.unwrap();
    while let Some(listed) = lists.join_next().await {
        listed.unwrap().unwrap();
    }
}
