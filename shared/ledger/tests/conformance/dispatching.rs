//! Events are recorded once, with exactly the deliveries that follow from them.

use crate::rig::{Database, Rig, event, open_lanes};
use herald_domain::access::OPERATOR;
use herald_domain::catalogue::Webhook;
use herald_domain::id::{DeliveryId, EventUid, SubscriptionId};
use herald_domain::subscription::Subscription;
use herald_ledger::Cause;
use herald_ledger::dispatching::{
    BatchResult, CHUNK, EventRecord, EventResult, Extended, IDEMPOTENCY_WINDOW, MAX_AMENDED, NewEvent,
};
use herald_ledger::shards::ShardLeases;
use std::convert::Infallible;
use std::time::Duration;
use uuid::Uuid;

async fn an_event_is_recorded_once_per_account(database: Database) {
    let rig = Rig::new(database).await;
    let subscription = rig.subscribe(1).await;
    let id = Uuid::now_v7();
    let first = event(id, "a", &[subscription]);
    let again = NewEvent {
        body_hash: 2,
        ..event(id, "a", &[subscription])
    };
    let elsewhere = event(id, "b", &[subscription]);
    let results = rig.record(vec![first.clone(), again, elsewhere]).await;
    assert!(matches!(&results[0], EventResult::New { mine, cursor: None } if mine.len() == 1));
    assert_eq!(results[1], EventResult::Repeated { differs: true });
    assert!(matches!(&results[2], EventResult::New { mine, .. } if mine.len() == 1));
    let again = rig.record(vec![event(id, "a", &[subscription])]).await;
    assert_eq!(again, [EventResult::Repeated { differs: false }]);
    let events = rig.ledger.events(first.record.id).await.unwrap();
    assert_eq!(events.len(), 2);
    assert_eq!(events[0].data, first.record.data, "to the byte");
    rig.assert_exact().await;
}

async fn the_same_id_is_a_new_event_after_the_window(database: Database) {
    let rig = Rig::new(database).await;
    let id = Uuid::now_v7();
    rig.record(vec![event(id, "a", &[])]).await;
    rig.pass(IDEMPOTENCY_WINDOW.mul_f64(0.999)).await;
    assert!(matches!(
        rig.record(vec![event(id, "a", &[])]).await[0],
        EventResult::Repeated { .. }
    ));
    rig.pass(IDEMPOTENCY_WINDOW.mul_f64(0.002)).await;
    assert!(matches!(
        rig.record(vec![event(id, "a", &[])]).await[0],
        EventResult::New { .. }
    ));
    rig.assert_exact().await;
}

/// Activates or deactivates a subscription.
async fn set_active(rig: &Rig, id: SubscriptionId, active: bool) {
    let change = move |subscription: &mut Subscription| {
        subscription.settings.active = active;
        Ok::<_, Infallible>(())
    };
    let changed = rig.ledger.update_subscription(id, OPERATOR, change).await;
    assert!(matches!(changed, Ok(Some(Ok(_)))));
}

/// One subscription stays, one is made, one comes back, one goes and one is deleted after the batch was matched.
async fn a_batch_is_recorded_by_the_registry_as_it_is_then(database: Database) {
    let rig = Rig::new(database).await;
    let [stays, returns, goes, deleted] = [
        rig.subscribe(1).await,
        rig.subscribe(2).await,
        rig.subscribe(3).await,
        rig.subscribe(4).await,
    ];
    set_active(&rig, returns, false).await;
    let version = rig.version().await;
    let matched = event(Uuid::now_v7(), "a", &[stays, goes, deleted]);
    let made = rig.subscribe(5).await;
    set_active(&rig, returns, true).await;
    set_active(&rig, goes, false).await;
    assert!(rig.delete(deleted).await);
    let recorded = rig
        .ledger
        .record(vec![matched.clone()], version, rig.owned.clone())
        .await
        .unwrap();
    let BatchResult::Done(events, results) = recorded else {
        panic!("a few changes are made up for")
    };
    let ids = |matches: &[(SubscriptionId, Webhook)]| matches.iter().map(|(id, _)| *id).collect::<Vec<_>>();
    assert_eq!(ids(&events[0].matches), [stays, returns, made]);
    let EventResult::New { mine, cursor: None } = &results[0] else {
        panic!("{results:?}")
    };
    let mut opened: Vec<_> = mine.iter().map(|delivery| delivery.subscription).collect();
    opened.sort_unstable();
    assert_eq!(opened, [stays, returns, made]);
    rig.assert_exact().await;
}

/// More changes than a transaction makes up for.
async fn a_batch_matched_against_a_much_older_registry_is_not_recorded(database: Database) {
    let rig = Rig::new(database).await;
    let version = rig.version().await;
    for n in 0..=MAX_AMENDED {
        rig.subscribe(n.into()).await;
    }
    let stale = rig
        .ledger
        .record(vec![event(Uuid::now_v7(), "a", &[])], version, rig.owned.clone())
        .await
        .unwrap();
    assert!(matches!(stale, BatchResult::Stale));
    assert_eq!(rig.ledger.audit().await.unwrap().events, 0);
}

async fn large_and_small_batches_are_recorded_alike(database: Database) {
    let rig = Rig::new(database).await;
    let subscriptions = [rig.subscribe(1).await, rig.subscribe(2).await];
    let mut recorded = 0;
    for size in [1, 2, 3, 5, 17, 70, 300] {
        let events: Vec<_> = (0..size).map(|_| event(Uuid::now_v7(), "a", &subscriptions)).collect();
        let uids: Vec<_> = events.iter().map(|event| event.record.uid).collect();
        for (result, uid) in rig.record(events).await.iter().zip(uids) {
            let EventResult::New { mine, .. } = result else {
                panic!("{result:?}")
            };
            let ids: Vec<_> = mine.iter().map(|delivery| delivery.id).collect();
            assert_eq!(
                ids,
                subscriptions.map(|subscription| DeliveryId::derive(uid, subscription, Uuid::nil()))
            );
        }
        recorded += size;
    }
    let account = rig.ledger.audit().await.unwrap();
    assert_eq!((account.events, account.matched), (recorded, recorded * 2));
    rig.assert_exact().await;
}

async fn a_large_fan_out_goes_on_from_its_cursor_once(database: Database) {
    let mut rig = Rig::new(database).await;
    let subscriptions: Vec<_> = (0..CHUNK * 2 + 10)
        .map(|n| SubscriptionId(Uuid::from_u128(n as u128)))
        .collect();
    let event = event(Uuid::now_v7(), "a", &subscriptions);
    let all = event.matches.clone();
    let version = rig.version().await;
    let first = rig.record(vec![event]).await.remove(0);
    assert!(matches!(first, EventResult::New { cursor: Some(cursor), .. } if cursor == subscriptions[CHUNK - 1]));
    rig.assert_exact().await;
    rig.restart().await;
    let incomplete = rig.ledger.incomplete(10).await.unwrap().remove(0);
    assert_eq!(incomplete.cursor, subscriptions[CHUNK - 1]);
    // Made after the other process matched the event: it is the last of all, in the last chunk.
    let made = rig.subscribe(u128::MAX).await;
    let extend = async |cursor| {
        rig.ledger
            .extend(
                incomplete.record.clone(),
                cursor,
                all.clone(),
                version,
                rig.owned.clone(),
            )
            .await
            .unwrap()
    };
    let is_done = |extended: &Extended| matches!(extended, Extended::Done { .. });
    let (one, other) = tokio::join!(extend(incomplete.cursor), extend(incomplete.cursor));
    assert_eq!(
        [&one, &other].into_iter().filter(|extended| is_done(extended)).count(),
        1,
        "the cursor is the gate"
    );
    rig.assert_exact().await;
    let Extended::Done { cursor: Some(next), .. } = (if is_done(&one) { one } else { other }) else {
        panic!("more is left")
    };
    let Extended::Done {
        recorded, cursor: None, ..
    } = extend(next).await
    else {
        panic!("it is the last chunk")
    };
    assert_eq!(
        recorded.last().map(|(id, _)| *id),
        Some(made),
        "matched by the registry as it is then"
    );
    assert!(rig.ledger.incomplete(10).await.unwrap().is_empty());
    assert_eq!(rig.count("Open").await, i64::try_from(subscriptions.len() + 1).unwrap());
    rig.assert_exact().await;
}

async fn what_another_process_owns_is_left_to_it_with_a_wake_up(database: Database) {
    let rig = Rig::new(database).await;
    let subscriptions = [rig.subscribe(1).await, rig.subscribe(2).await];
    let event = event(Uuid::now_v7(), "a", &subscriptions);
    let version = rig.version().await;
    let recorded = rig
        .ledger
        .record(vec![event], version, ShardLeases::none())
        .await
        .unwrap();
    assert!(
        matches!(recorded, BatchResult::Done(_, all) if matches!(&all[0], EventResult::New { mine, .. } if mine.is_empty()))
    );
    let mut woken: Vec<_> = rig
        .ledger
        .take_wakeups(&rig.owned)
        .await
        .unwrap()
        .iter()
        .map(|wakeup| wakeup.lane.subscription())
        .collect();
    woken.sort_unstable();
    assert_eq!(woken, subscriptions);
    assert!(
        rig.ledger.take_wakeups(&rig.owned).await.unwrap().is_empty(),
        "taken once"
    );
    assert_eq!(open_lanes(&rig.ledger, rig.owned.shards(), 1000).await.len(), 2);
}

async fn the_like_of_an_event_is_a_trial_and_leaves_nothing(database: Database) {
    let rig = Rig::new(database).await;
    let subscription = rig.subscribe(1).await;
    let new = event(Uuid::now_v7(), "a", &[subscription]);
    let version = rig.version().await;
    let trial = || rig.ledger.records_the_like(&new, version, ShardLeases::none());
    trial().await.unwrap();
    trial().await.unwrap();
    rig.assert_exact().await;
    assert_eq!(rig.ledger.audit().await.unwrap().events, 0);
    assert!(rig.ledger.take_wakeups(&rig.owned).await.unwrap().is_empty());
    rig.execute("ALTER TABLE deliveries_open RENAME TO away".to_owned())
        .await
        .unwrap();
    let refused = trial().await.unwrap_err();
    assert_eq!(refused.cause(), Cause::Unknown, "{refused:?}");
}

/// A worker with a clock of its own ten days ahead would ask for a day that nobody has made.
#[tokio::test]
async fn an_event_of_a_day_that_is_not_there_is_not_the_events_fault() {
    let rig = Rig::new(Database::Postgres).await;
    let record = async |uid| {
        let new = event(Uuid::now_v7(), "a", &[]);
        let record = EventRecord {
            uid: EventUid(uid),
            ..(*new.record).clone()
        };
        let new = NewEvent {
            record: record.into(),
            ..new
        };
        rig.ledger
            .record(vec![new], rig.version().await, ShardLeases::none())
            .await
    };
    let month = Duration::from_hours(30 * 24);
    let now = rig.ledger.now();
    for far in [now.plus(month), now.minus(month)] {
        let millis = u128::from(far.as_unix_millis());
        let refused = record(Uuid::from_u128(millis << 80)).await.unwrap_err();
        assert!(refused.lacks_a_day(), "{refused:?}");
        assert_eq!(refused.cause(), Cause::Away);
    }
    record(rig.ledger.ids().next()).await.unwrap();
    let broken = "INSERT INTO shards (shard, epoch, lease_until) VALUES (256, 0, 0)".to_owned();
    let refused = rig.execute(broken).await.unwrap_err();
    assert!(!refused.lacks_a_day());
    assert_eq!(
        refused.cause(),
        Cause::Data,
        "a rule of the schema's is the data's affair"
    );
}

on_both!(
    the_like_of_an_event_is_a_trial_and_leaves_nothing,
    an_event_is_recorded_once_per_account,
    the_same_id_is_a_new_event_after_the_window,
    a_batch_is_recorded_by_the_registry_as_it_is_then,
    a_batch_matched_against_a_much_older_registry_is_not_recorded,
    large_and_small_batches_are_recorded_alike,
    a_large_fan_out_goes_on_from_its_cursor_once,
    what_another_process_owns_is_left_to_it_with_a_wake_up,
);
