//! A delivery is closed once, by whoever's delete finds it; a success counts whenever it comes.

use crate::rig::{Database, EARLIEST, Rig, dead, delivered, open_lanes, retried, under};
use herald_domain::delivery::{Closed, Status};
use herald_domain::lanes::Scope;
use herald_ledger::delivering::{OutcomeRecord, RecordResult};
use herald_ledger::history::retrying::Retried;
use sea_orm::{ConnectionTrait, TransactionTrait};
use std::time::{Duration, Instant};

async fn a_delivery_that_succeeds_at_once_is_one_row_with_its_attempt(database: Database) {
    let rig = Rig::new(database).await;
    let subscription = rig.subscribe(1).await;
    let (event, deliveries) = rig.deliveries(&[subscription]).await;
    assert_eq!(rig.finish(delivered(deliveries[0], event)).await, RecordResult::Done);
    let view = rig.ledger.delivery(deliveries[0].id).await.unwrap().unwrap();
    assert_eq!(
        (view.status, view.attempts, view.last_status_code),
        (Status::Closed(Closed::Delivered), 1, Some(200))
    );
    let attempts = rig.ledger.attempts(&[view]).await.unwrap();
    assert_eq!(attempts[&deliveries[0].id].len(), 1);
    rig.assert_exact().await;
}

async fn a_failure_is_due_again_and_its_attempts_add_up(database: Database) {
    let rig = Rig::new(database).await;
    let subscription = rig.subscribe(1).await;
    let (event, deliveries) = rig.deliveries(&[subscription]).await;
    let due_at = rig.ledger.now().plus(Duration::from_secs(5));
    assert_eq!(
        rig.finish(retried(deliveries[0], event, due_at)).await,
        RecordResult::Done
    );
    rig.assert_exact().await;
    let (again, record) = rig.open(subscription, 10).await.remove(0);
    assert_eq!((again.attempts, again.due_at, record.uid), (1, due_at, event));
    assert_eq!(
        open_lanes(&rig.ledger, rig.owned.shards(), 1000).await,
        [(subscription, due_at)]
    );
    assert_eq!(rig.finish(delivered(again, event)).await, RecordResult::Done);
    let view = rig.ledger.delivery(again.id).await.unwrap().unwrap();
    let attempts = rig.ledger.attempts(std::slice::from_ref(&view)).await.unwrap();
    let told: Vec<_> = attempts[&view.id]
        .iter()
        .map(|a| (a.number, a.status_code, a.error.as_deref(), a.next_due_at))
        .collect();
    assert_eq!(
        told,
        [(1, None, Some("timeout"), Some(due_at)), (2, Some(200), None, None)]
    );
    rig.assert_exact().await;
}

async fn what_is_due_is_read_and_of_the_rest_only_what_is_next(database: Database) {
    let rig = Rig::new(database).await;
    let subscription = rig.subscribe(1).await;
    let mut due = Vec::new();
    for seconds in [9, 7, 0, 8] {
        let (event, deliveries) = rig.deliveries(&[subscription]).await;
        let due_at = rig.ledger.now().plus(Duration::from_secs(seconds));
        rig.finish(retried(deliveries[0], event, due_at)).await;
        due.push(deliveries[0].id);
    }
    let expected = [due[2], due[1]];
    for limit in 1..=4 {
        let read = rig.open(subscription, limit).await;
        let read: Vec<_> = read.iter().map(|(delivery, _)| delivery.id).collect();
        assert_eq!(read, expected[..limit.min(2)], "at most {limit}");
    }
    rig.assert_exact().await;
}

async fn events_are_read_within_the_scope(database: Database) {
    let rig = Rig::new(database).await;
    let subscription = rig.subscribe(1).await;
    for _ in 0..40 {
        rig.deliveries(&[subscription]).await;
    }
    let all = rig.open(subscription, 100).await;
    assert_eq!(all.len(), 40);
    let known = [0, 7, 39].map(|n: usize| all[n].0.id).into();
    let scope = Scope { known, ..Scope::all() };
    let read = rig
        .ledger
        .open_deliveries(subscription.into(), EARLIEST, 100, &scope)
        .await
        .unwrap();
    for ((delivery, event), (expected, record)) in read.iter().zip(&all) {
        assert_eq!(delivery, expected, "every row is shown");
        let event = event.as_ref().map(|event| event.uid);
        assert_eq!(event, (!scope.known.contains(&delivery.id)).then_some(record.uid));
    }
    assert_eq!(read.len(), 40);
    for (bytes, rows, expected) in [(1, 40, 1), (usize::MAX, 7, 7), (usize::MAX, 40, 40)] {
        let scope = Scope {
            rows,
            bytes,
            ..Scope::all()
        };
        let read = rig
            .ledger
            .open_deliveries(subscription.into(), EARLIEST, 100, &scope)
            .await
            .unwrap();
        let with_event = read.iter().take_while(|(_, event)| event.is_some()).count();
        assert_eq!(
            (with_event, read.len()),
            (expected, 40),
            "events are read until there are {rows} or {bytes} bytes"
        );
    }
}

async fn only_the_present_owner_counts_failures_but_a_success_counts_from_anybody(database: Database) {
    let mut rig = Rig::new(database).await;
    let subscription = rig.subscribe(1).await;
    let (event, deliveries) = rig.deliveries(&[subscription]).await;
    let former = rig.owned.clone();
    rig.restart().await;
    let due_at = rig.ledger.now().plus(Duration::from_mins(1));
    for failure in [retried(deliveries[0], event, due_at), dead(deliveries[0], event)] {
        let finished = rig.ledger.record_outcomes(vec![under(&former, failure)]).await.unwrap();
        assert_eq!(finished.results, [RecordResult::Stale]);
    }
    assert_eq!(rig.count("Open").await, 1);
    let finished = rig
        .ledger
        .record_outcomes(vec![under(&former, delivered(deliveries[0], event))])
        .await
        .unwrap();
    assert_eq!(finished.results, [RecordResult::Done]);
    assert_eq!(
        rig.finish(dead(deliveries[0], event)).await,
        RecordResult::Late,
        "delivered absorbs"
    );
    assert_eq!(rig.count("Delivered").await, 1);
    rig.assert_exact().await;
}

async fn a_batch_of_every_kind_is_recorded_in_order(database: Database) {
    let rig = Rig::new(database).await;
    let subscription = rig.subscribe(1).await;
    let mut batch = Vec::new();
    for n in 0..30 {
        let (event, deliveries) = rig.deliveries(&[subscription]).await;
        let due_at = rig.ledger.now().plus(Duration::from_secs(n));
        batch.push(match n % 3 {
            0 => delivered(deliveries[0], event),
            1 => dead(deliveries[0], event),
            _ => retried(deliveries[0], event, due_at),
        });
    }
    let finished = rig.finish_all(batch.clone()).await;
    assert_eq!(finished, vec![RecordResult::Done; 30]);
    assert_eq!(
        [
            rig.count("Delivered").await,
            rig.count("Dead").await,
            rig.count("Open").await
        ],
        [10, 10, 10]
    );
    let finished = rig.finish_all(batch).await;
    assert!(
        finished.iter().all(|finished| *finished == RecordResult::Late),
        "twice is once: {finished:?}"
    );
    rig.assert_exact().await;
}

async fn a_dead_delivery_is_retried_by_hand_with_its_id_and_numbers(database: Database) {
    let rig = Rig::new(database).await;
    let subscription = rig.subscribe(1).await;
    let (event, deliveries) = rig.deliveries(&[subscription]).await;
    let id = deliveries[0].id;
    assert_eq!(rig.ledger.retry(id).await.unwrap(), Retried::NotPossible(Status::Open));
    rig.finish(dead(deliveries[0], event)).await;
    assert_eq!(rig.ledger.retry(id).await.unwrap(), Retried::Done);
    rig.assert_exact().await;
    assert_eq!(
        rig.ledger.take_wakeups(&rig.owned).await.unwrap()[0]
            .lane
            .subscription(),
        subscription
    );
    let (again, _) = rig.open(subscription, 10).await.remove(0);
    assert_eq!((again.id, again.attempts), (id, 1));
    assert!(again.opened_at > again.created_at, "its give-up clock starts again");
    rig.finish(delivered(again, event)).await;
    assert_eq!(
        rig.ledger.retry(id).await.unwrap(),
        Retried::NotPossible(Status::Closed(Closed::Delivered))
    );
    let view = rig.ledger.delivery(id).await.unwrap().unwrap();
    assert_eq!(rig.ledger.attempts(&[view]).await.unwrap()[&id].len(), 2);
    rig.assert_exact().await;
}

async fn an_ending_that_is_recorded_twice_does_not_end_a_manual_retry(database: Database) {
    let rig = Rig::new(database).await;
    let subscription = rig.subscribe(1).await;
    let (event, deliveries) = rig.deliveries(&[subscription, rig.subscribe(2).await]).await;
    let unsent = |delivery| OutcomeRecord {
        attempt: None,
        ..dead(delivery, event)
    };
    for ending in [dead(deliveries[0], event), unsent(deliveries[1])] {
        assert_eq!(rig.finish(ending.clone()).await, RecordResult::Done);
        // Its answer was lost, so it comes again; meanwhile somebody has the delivery sent again.
        assert_eq!(rig.ledger.retry(ending.delivery.id).await.unwrap(), Retried::Done);
        assert_eq!(rig.finish(ending.clone()).await, RecordResult::Late);
        let open = rig.open(ending.delivery.subscription, 10).await;
        assert_eq!(open.len(), 1, "it is sent again");
        assert_eq!(open[0].0.attempts, u32::from(ending.attempt.is_some()));
        rig.assert_exact().await;
        assert_eq!(rig.finish(delivered(open[0].0, event)).await, RecordResult::Done);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_that_is_being_closed_is_retried_by_hand() {
    let rig = Rig::new(Database::Postgres).await;
    let subscription = rig.subscribe(1).await;
    let (_, deliveries) = rig.deliveries(&[subscription]).await;
    let id = deliveries[0].id;
    let other = rig.connection().await;
    let closing = other.begin().await.unwrap();
    for sql in [
        "LOCK TABLE deliveries_open IN ACCESS EXCLUSIVE MODE",
        "INSERT INTO deliveries_closed (id, event, subscription, webhook, status, reason, attempts, created_at, closed_at) \
         SELECT id, event, subscription, webhook, 2, 'gave_up', attempts, created_at, opened_at FROM deliveries_open",
        "DELETE FROM deliveries_open",
    ] {
        closing.execute_unprepared(sql).await.unwrap();
    }
    let ledger = rig.ledger.clone();
    let retry = tokio::spawn(async move { ledger.retry(id).await });
    // Before it waits for the open deliveries, it does not see the closed one.
    let waiting = "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'deliveries_open'::regclass \
                   AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    let deadline = Instant::now() + Duration::from_secs(20);
    while herald_ledger::sql::all(rig.ledger.store().read(), waiting, [])
        .await
        .unwrap()
        .is_empty()
    {
        assert!(Instant::now() < deadline && !retry.is_finished(), "it waits");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    closing.commit().await.unwrap();
    assert_eq!(retry.await.unwrap().unwrap(), Retried::Done);
    assert_eq!(rig.ledger.delivery(id).await.unwrap().unwrap().status, Status::Open);
    rig.assert_exact().await;
}

on_both!(
    a_delivery_that_succeeds_at_once_is_one_row_with_its_attempt,
    a_failure_is_due_again_and_its_attempts_add_up,
    what_is_due_is_read_and_of_the_rest_only_what_is_next,
    events_are_read_within_the_scope,
    only_the_present_owner_counts_failures_but_a_success_counts_from_anybody,
    a_batch_of_every_kind_is_recorded_in_order,
    a_dead_delivery_is_retried_by_hand_with_its_id_and_numbers,
    an_ending_that_is_recorded_twice_does_not_end_a_manual_retry,
);
