//! Shards: leased, renewed, given back, taken over; and what counts from whom meanwhile.

use crate::rig::{Database, Rig, dead, delivered, event, open_lanes, retried, under};
use herald_domain::id::Shard;
use herald_ledger::Ledger;
use herald_ledger::delivering::RecordResult;
use herald_ledger::dispatching::{BatchResult, EventResult};
use herald_ledger::shards::{ShardLeases, uptime};
use sea_orm::{ConnectionTrait, TransactionTrait};
use std::collections::HashMap;
use std::time::Duration;
use uuid::Uuid;

const LEASE: Duration = Duration::from_secs(15);

fn leased(owner: Uuid, epochs: HashMap<Shard, i64>) -> ShardLeases {
    ShardLeases::until(owner, epochs, uptime().plus(LEASE))
}

/// A process that has taken what was free.
async fn worker(ledger: &Ledger, most: usize) -> ShardLeases {
    let owner = Uuid::now_v7();
    ledger.renew(owner, LEASE).await.unwrap();
    leased(owner, ledger.take_free(owner, most, LEASE).await.unwrap().epochs)
}

/// Gives back what the rig took.
async fn free_all(rig: &Rig) {
    let all = rig.owned.shards().collect();
    rig.ledger.release(rig.owned.worker(), all, Vec::new()).await.unwrap();
}

async fn a_lease_is_taken_once_renewed_and_taken_over_when_it_ran_out(database: Database) {
    let rig = Rig::new(database).await;
    free_all(&rig).await;
    let first = worker(&rig.ledger, 200).await;
    let second = worker(&rig.ledger, 200).await;
    assert_eq!((first.shards().count(), second.shards().count()), (200, 56));
    assert!(first.shards().all(|shard| second.epoch(shard).is_none()));
    rig.pass(LEASE.mul_f64(0.7)).await;
    let renewed = rig.ledger.renew(first.worker(), LEASE).await.unwrap();
    assert_eq!((renewed.epochs.len(), renewed.workers), (200, 2));
    assert_eq!(
        rig.ledger.take_free(first.worker(), 256, LEASE).await.unwrap().epochs,
        HashMap::new()
    );
    rig.pass(LEASE.mul_f64(0.5)).await;
    let taken = rig.ledger.take_free(first.worker(), 256, LEASE).await.unwrap();
    assert_eq!((taken.epochs.len(), taken.from_dead), (56, 56));
    assert!(
        taken
            .epochs
            .iter()
            .all(|(shard, epoch)| Some(*epoch) > second.epoch(*shard))
    );
    // It wakes up, and learns that it owns nothing.
    let renewed = rig.ledger.renew(second.worker(), LEASE).await.unwrap();
    assert!(renewed.epochs.is_empty());
    rig.ledger.leave(second.worker()).await.unwrap();
    let renewed = rig.ledger.renew(first.worker(), LEASE).await.unwrap();
    assert_eq!((renewed.epochs.len(), renewed.workers), (256, 1));
}

async fn what_is_given_back_in_flight_is_left_alone_and_its_outcome_counts(database: Database) {
    let rig = Rig::new(database).await;
    let subscription = rig.subscribe(1).await;
    let (event, deliveries) = rig.deliveries(&[subscription]).await;
    let (_other, _) = rig.deliveries(&[subscription]).await;
    let shard = Shard::of(subscription);
    let busy_until = rig.ledger.now().plus(Duration::from_secs(30));
    rig.ledger
        .release(
            rig.owned.worker(),
            rig.owned.shards().collect(),
            vec![(deliveries[0].id, busy_until)],
        )
        .await
        .unwrap();
    let next = worker(&rig.ledger, 256).await;
    let open = rig.open(subscription, 10).await;
    assert_eq!(open.len(), 2);
    assert_eq!(open[1].0.id, deliveries[0].id, "the busy one is due later");
    assert_eq!(open[1].0.due_at, busy_until);
    // The former owner's failure counts, and the present owner is woken for it.
    let due_at = rig.ledger.now().plus(Duration::from_secs(5));
    assert_eq!(
        rig.finish(retried(deliveries[0], event, due_at)).await,
        RecordResult::Done
    );
    let woken = rig.ledger.take_wakeups(&next).await.unwrap();
    assert_eq!((woken[0].lane.subscription(), woken[0].due_at), (subscription, due_at));
    // It cannot say once more that something of them is in flight.
    let much_later = rig.ledger.now().plus(Duration::from_hours(1));
    rig.ledger
        .release(rig.owned.worker(), vec![shard], vec![(deliveries[0].id, much_later)])
        .await
        .unwrap();
    // A second one does not: the present owner may have sent it meanwhile.
    let again = rig.open(subscription, 10).await[1].0;
    assert_eq!((again.id, again.attempts, again.due_at), (deliveries[0].id, 1, due_at));
    assert_eq!(rig.finish(dead(again, event)).await, RecordResult::Stale);
    let of_next = under(&next, dead(again, event));
    assert_eq!(
        rig.ledger.record_outcomes(vec![of_next]).await.unwrap().results,
        [RecordResult::Done]
    );
    assert_eq!(next.epoch(shard), rig.owned.epoch(shard).map(|epoch| epoch + 2));
    rig.assert_exact().await;
}

async fn what_was_busy_too_long_is_the_next_owners(database: Database) {
    let rig = Rig::new(database).await;
    let subscription = rig.subscribe(1).await;
    let (event, deliveries) = rig.deliveries(&[subscription]).await;
    let busy_until = rig.ledger.now().plus(Duration::from_secs(30));
    let all = rig.owned.shards().collect();
    rig.ledger
        .release(rig.owned.worker(), all, vec![(deliveries[0].id, busy_until)])
        .await
        .unwrap();
    rig.pass(Duration::from_secs(31)).await;
    let next = worker(&rig.ledger, 256).await;
    let open = rig.open(subscription, 10).await;
    assert!(open[0].0.due_at <= rig.ledger.now());
    assert_eq!(rig.finish(dead(deliveries[0], event)).await, RecordResult::Stale);
    let of_next = under(&next, delivered(deliveries[0], event));
    assert_eq!(
        rig.ledger.record_outcomes(vec![of_next]).await.unwrap().results,
        [RecordResult::Done]
    );
}

/// A failure counts from the owner of the shard, so nobody takes the shard between that look and the end of the
/// transaction. On SQLite there is nothing in between.
#[tokio::test]
async fn no_shard_is_taken_while_a_failure_of_its_owner_is_recorded() {
    let rig = Rig::new(Database::Postgres).await;
    let subscription = rig.subscribe(1).await;
    let (event, deliveries) = rig.deliveries(&[subscription]).await;
    let connection = rig.connection().await;
    let looking_on = rig.connection().await;
    // Another transaction has locked the row, so the outcome waits in the middle of its transaction.
    let locking = connection.begin().await.unwrap();
    let lock = format!(
        "SELECT 1 FROM deliveries_open WHERE id = '{}' FOR UPDATE",
        deliveries[0].id
    );
    locking.execute_unprepared(&lock).await.unwrap();
    let waits = async |query: &str| {
        let sql = format!(
            "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' \
             AND query LIKE '{query}%'"
        );
        !herald_ledger::sql::all(&looking_on, &sql, []).await.unwrap().is_empty()
    };
    let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
    let ledger = rig.ledger.clone();
    let failure = under(&rig.owned, dead(deliveries[0], event));
    let finish = tokio::spawn(async move { ledger.record_outcomes(vec![failure]).await.unwrap().results });
    while !waits("SELECT id, opened_at FROM deliveries_open").await {
        assert!(
            tokio::time::Instant::now() < deadline,
            "the outcome does not wait for the row"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let other = rig.another().await;
    let take = tokio::spawn(async move { other.take_free(Uuid::now_v7(), 256, Duration::from_secs(15)).await });
    while !waits("SELECT version, now FROM herald_change").await {
        assert!(!take.is_finished(), "the shard was taken in between");
        assert!(tokio::time::Instant::now() < deadline, "the takeover does not wait");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    locking.rollback().await.unwrap();
    assert_eq!(finish.await.unwrap(), [RecordResult::Done]);
    assert_eq!(take.await.unwrap().unwrap().epochs.len(), 256);
    assert_eq!(rig.count("Dead").await, 1);
}

/// However dispatch and takeovers fall together, a delivery is handed over, or its lane is woken, or the
/// look after the takeover finds it.
async fn nothing_falls_between_dispatch_and_takeover(database: Database) {
    let rig = Rig::new(database).await;
    let subscription = rig.subscribe(1).await;
    let shard = Shard::of(subscription);
    let version = rig.version().await;
    let mut owned = rig.owned.clone();
    for _ in 0..20 {
        let former = owned.clone();
        let new = event(Uuid::now_v7(), "a", &[subscription]);
        let record = rig.ledger.record(vec![new], version, former.clone());
        let take_over = async {
            rig.ledger
                .release(former.worker(), vec![shard], Vec::new())
                .await
                .unwrap();
            let owner = Uuid::now_v7();
            let taken = rig.ledger.take_free(owner, 256, LEASE).await.unwrap();
            let owned = leased(owner, taken.epochs);
            let found = open_lanes(&rig.ledger, owned.shards(), 1000).await;
            (owned, found)
        };
        let (recorded, (next, found)) = tokio::join!(record, take_over);
        let BatchResult::Done(_, recorded) = recorded.unwrap() else {
            panic!("the registry did not change")
        };
        let EventResult::New { mine, .. } = &recorded[0] else {
            panic!("it is new")
        };
        let woken = rig.ledger.take_wakeups(&next).await.unwrap();
        assert!(!found.is_empty() || !woken.is_empty(), "mine: {mine:?}");
        for (delivery, record) in rig.open(subscription, 10).await {
            let finish = under(&next, delivered(delivery, record.uid));
            rig.ledger.record_outcomes(vec![finish]).await.unwrap();
        }
        owned = next;
    }
    rig.assert_exact().await;
}

async fn wake_ups_are_the_owners_alone(database: Database) {
    let rig = Rig::new(database).await;
    let subscription = rig.subscribe(1).await;
    let version = rig.version().await;
    let new = event(Uuid::now_v7(), "a", &[subscription]);
    rig.ledger
        .record(vec![new], version, ShardLeases::none())
        .await
        .unwrap();
    let stranger = leased(Uuid::now_v7(), HashMap::from([(Shard::of(subscription), 99)]));
    assert!(rig.ledger.take_wakeups(&stranger).await.unwrap().is_empty());
    assert_eq!(rig.ledger.take_wakeups(&rig.owned).await.unwrap().len(), 1);
}

async fn consumers_tell_what_they_have_in_hand(database: Database) {
    let rig = Rig::new(database).await;
    let before = rig.ledger.database_time().await.unwrap();
    let (a, b) = (Uuid::now_v7(), Uuid::now_v7());
    rig.ledger.report_in_hand(a, 3, rig.ledger.now()).await.unwrap();
    let now = rig.ledger.database_time().await.unwrap();
    rig.ledger.report_in_hand(b, 4, now).await.unwrap();
    let now = rig.ledger.database_time().await.unwrap();
    rig.ledger.report_in_hand(a, 5, now).await.unwrap();
    let reports = rig.ledger.reports_since(before).await.unwrap();
    assert_eq!((reports.consumers, reports.in_hand), (2, 9));
    let after = rig.ledger.database_time().await.unwrap();
    rig.ledger.forget_consumer(a).await.unwrap();
    assert_eq!(rig.ledger.reports_since(before).await.unwrap().consumers, 1);
    assert_eq!(rig.ledger.reports_since(after).await.unwrap().consumers, 0);
}

async fn a_lease_that_a_clock_set_back_has_made_long_is_over(database: Database) {
    let rig = Rig::new(database).await;
    free_all(&rig).await;
    assert_eq!(worker(&rig.ledger, 256).await.shards().count(), 256);
    let look = rig.ledger.look_at_shards(LEASE).await.unwrap();
    assert_eq!((look.free, look.workers), (0, 1));
    // As if its last renewal had been by a clock that was an hour ahead.
    for sql in [
        "UPDATE shards SET lease_until = lease_until + 3600000000",
        "UPDATE workers SET lease_until = lease_until + 3600000000",
    ] {
        rig.execute(sql.to_owned()).await.unwrap();
    }
    let look = rig.ledger.look_at_shards(LEASE).await.unwrap();
    assert_eq!((look.free, look.workers), (256, 0));
    assert_eq!(worker(&rig.ledger, 256).await.shards().count(), 256);
}

on_both!(
    a_lease_that_a_clock_set_back_has_made_long_is_over,
    consumers_tell_what_they_have_in_hand,
    a_lease_is_taken_once_renewed_and_taken_over_when_it_ran_out,
    what_is_given_back_in_flight_is_left_alone_and_its_outcome_counts,
    what_was_busy_too_long_is_the_next_owners,
    nothing_falls_between_dispatch_and_takeover,
    wake_ups_are_the_owners_alone,
);
