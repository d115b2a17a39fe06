//! A subscription that ends cancels what is open, and nothing that is in flight: a success counts whenever it
//! comes.

use crate::rig::{Database, Rig, dead, delivered, retried, under};
use herald_domain::delivery::{Closed, Delivery, Reason, Status};
use herald_domain::id::{DeliveryId, EventUid, Shard, SubscriptionId};
use herald_domain::time::Timestamp;
use herald_ledger::delivering::{NextStep, OutcomeRecord, RecordResult};
use herald_ledger::history::retrying::{Retried, RetriedSome};
use herald_ledger::sql::{execute, get, one};
use std::time::Duration;
use uuid::Uuid;

const CANCELLED: Status = Status::Closed(Closed::Cancelled);
const DELIVERED: Status = Status::Closed(Closed::Delivered);

/// So many deliveries of events of their own.
async fn several(rig: &Rig, subscription: SubscriptionId, count: usize) -> Vec<(EventUid, Delivery)> {
    let mut all = Vec::with_capacity(count);
    for _ in 0..count {
        let (event, mut deliveries) = rig.deliveries(&[subscription]).await;
        all.push((event, deliveries.remove(0)));
    }
    all
}

/// The answer 410 to a subscription as it is now.
async fn gone(rig: &Rig, delivery: Delivery, event: EventUid) -> OutcomeRecord {
    let subscription = rig.ledger.subscription(delivery.subscription).await.unwrap();
    let next = NextStep::Close {
        status: Closed::Dead,
        reason: Some(Reason::Gone),
        deactivate: Some(subscription.unwrap().updated_at),
    };
    OutcomeRecord {
        next,
        ..dead(delivery, event)
    }
}

/// Where a delivery stands: status, `AttemptCount`, the last status code, and the status codes of its attempts.
async fn seen(rig: &Rig, delivery: Delivery) -> (Status, i64, Option<i32>, Vec<Option<i32>>) {
    let view = rig.ledger.delivery(delivery.id).await.unwrap().unwrap();
    let (status, count, last) = (view.status, view.attempts, view.last_status_code);
    let attempts = rig.ledger.attempts(&[view]).await.unwrap().remove(&delivery.id);
    let attempts = attempts.unwrap_or_default();
    let codes = attempts.iter().map(|attempt| attempt.status_code);
    (status, count, last, codes.collect())
}

async fn what_is_in_flight_is_not_cancelled_until_its_outcome_is_known(database: Database) {
    let rig = Rig::new(database).await;
    let subscription = rig.subscribe(1).await;
    let all = several(&rig, subscription, 5).await;
    rig.set_active(subscription, false).await;
    let [(first, one), (second, two), ..] = all[..] else {
        unreachable!()
    };
    assert_eq!(rig.cancel(&[one, two]).await, 3);
    assert_eq!([rig.count("Cancelled").await, rig.count("Open").await], [3, 2]);
    assert_eq!(
        rig.ledger.retry(one.id).await.unwrap(),
        Retried::NotPossible(Status::Open),
        "nothing that is in flight is sent a second time by hand"
    );
    assert_eq!(rig.cancel(&[one, two]).await, 0);

    assert_eq!(rig.finish(delivered(one, first)).await, RecordResult::Done);
    let due_at = rig.ledger.now().plus(Duration::from_hours(6));
    assert_eq!(rig.finish(retried(two, second, due_at)).await, RecordResult::Done);
    assert_eq!(rig.cancel(&[]).await, 1, "what failed is not tried again");
    assert_eq!(
        rig.ledger.cancel_jobs(&rig.owned, 1).await.unwrap(),
        [],
        "the job is done"
    );
    assert_eq!(seen(&rig, one).await, (DELIVERED, 1, Some(200), vec![Some(200)]));
    assert_eq!(seen(&rig, two).await, (CANCELLED, 1, None, vec![None]));
    rig.assert_exact().await;
}

async fn a_success_counts_after_a_cancellation_and_after_the_end(database: Database) {
    let rig = Rig::new(database).await;
    let subscription = rig.subscribe(1).await;
    let all = several(&rig, subscription, 2).await;
    let [(first, cancelled), (second, ended)] = all[..] else {
        unreachable!()
    };
    assert_eq!(rig.finish(dead(ended, second)).await, RecordResult::Done);
    rig.set_active(subscription, false).await;
    assert_eq!(rig.cancel(&[]).await, 1);

    let mut after_the_end = delivered(ended, second);
    after_the_end.attempt.as_mut().unwrap().number = 2;
    let late = vec![delivered(cancelled, first), after_the_end];
    assert_eq!(rig.finish_all(late.clone()).await, [RecordResult::Corrected; 2]);
    assert_eq!(seen(&rig, cancelled).await, (DELIVERED, 1, Some(200), vec![Some(200)]));
    assert_eq!(
        seen(&rig, ended).await,
        (DELIVERED, 2, Some(200), vec![Some(500), Some(200)])
    );
    assert_eq!(rig.ledger.delivery(ended.id).await.unwrap().unwrap().reason, None);
    rig.assert_exact().await;

    assert_eq!(rig.finish_all(late).await, [RecordResult::Late; 2], "twice is once");
    assert_eq!(
        rig.ledger.retry(ended.id).await.unwrap(),
        Retried::NotPossible(DELIVERED),
        "it is not sent again"
    );
    assert_eq!(seen(&rig, ended).await.1, 2);
    rig.assert_exact().await;
}

async fn a_failure_after_a_cancellation_counts_as_an_attempt(database: Database) {
    let rig = Rig::new(database).await;
    let subscription = rig.subscribe(1).await;
    let (event, delivery) = several(&rig, subscription, 1).await.remove(0);
    rig.set_active(subscription, false).await;
    assert_eq!(rig.cancel(&[]).await, 1);
    assert_eq!(rig.finish(dead(delivery, event)).await, RecordResult::Late);
    assert_eq!(seen(&rig, delivery).await, (CANCELLED, 1, Some(500), vec![Some(500)]));
    let due_at = rig.ledger.now();
    assert_eq!(rig.finish(retried(delivery, event, due_at)).await, RecordResult::Late);
    assert_eq!(seen(&rig, delivery).await.1, 1, "the same attempt again");
    rig.assert_exact().await;
}

async fn who_owns_the_shard_cancels_and_not_what_a_former_owner_has_in_flight(database: Database) {
    let mut rig = Rig::new(database).await;
    let subscription = rig.subscribe(1).await;
    let all = several(&rig, subscription, 3).await;
    rig.set_active(subscription, false).await;
    let former = rig.owned.clone();
    let job = rig.ledger.cancel_jobs(&former, 1).await.unwrap().remove(0);
    let shard = Shard::of(subscription);
    let until = rig.ledger.now().plus(Duration::from_secs(30));
    let in_flight = vec![(all[0].1.id, until)];
    rig.ledger
        .release(former.worker(), vec![shard], in_flight)
        .await
        .unwrap();
    rig.restart().await;
    let none = std::collections::HashSet::new();
    let cancelled = rig.ledger.work_on(job, &former, &none).await.unwrap();
    assert_eq!(cancelled.webhooks.len(), 0, "it is no longer its shard");
    assert_eq!(
        rig.cancel(&[]).await,
        2,
        "what the former owner said is in flight is left"
    );
    assert_eq!(rig.cancel(&[]).await, 0);
    let success = under(&former, delivered(all[0].1, all[0].0));
    assert_eq!(
        rig.ledger.record_outcomes(vec![success]).await.unwrap().results,
        [RecordResult::Done]
    );
    assert_eq!(rig.cancel(&[]).await, 0);
    assert_eq!(rig.ledger.cancel_jobs(&rig.owned, 1).await.unwrap(), []);
    assert_eq!([rig.count("Delivered").await, rig.count("Cancelled").await], [1, 2]);
    rig.assert_exact().await;
}

async fn what_is_opened_after_a_deactivation_is_not_cancelled_by_it(database: Database) {
    let rig = Rig::new(database).await;
    let subscription = rig.subscribe(1).await;
    rig.deliveries(&[subscription]).await;
    rig.set_active(subscription, false).await;
    rig.set_active(subscription, true).await;
    let (_, deliveries) = rig.deliveries(&[subscription]).await;
    assert_eq!(rig.cancel(&[]).await, 1);
    let left = rig.open(subscription, 10).await;
    assert_eq!(
        left.iter().map(|(delivery, _)| delivery.id).collect::<Vec<_>>(),
        [deliveries[0].id]
    );
    rig.assert_exact().await;
}

async fn a_gone_subscriber_is_deactivated_and_what_is_open_cancelled(database: Database) {
    let rig = Rig::new(database).await;
    let subscription = rig.subscribe(1).await;
    let all = several(&rig, subscription, 5).await;
    let (event, delivery) = all[0];
    let version = rig.version().await;
    let outcome = under(&rig.owned, gone(&rig, delivery, event).await);
    let recorded = rig.ledger.record_outcomes(vec![outcome.clone()]).await.unwrap();
    assert_eq!(
        (recorded.results, recorded.deactivated),
        (vec![RecordResult::Done], vec![subscription])
    );
    assert!(rig.version().await > version, "the registry is told");
    let deactivated = rig.ledger.subscription(subscription).await.unwrap().unwrap();
    assert!(!deactivated.settings.active);
    let why = deactivated.deactivated.unwrap();
    assert_eq!((why.at, why.reason), (deactivated.updated_at, Reason::Gone));
    assert_eq!(rig.ledger.retry(delivery.id).await.unwrap(), Retried::Unwanted);
    assert_eq!(rig.cancel(&[]).await, 4);
    let counts = [
        rig.count("Dead").await,
        rig.count("Cancelled").await,
        rig.count("Open").await,
    ];
    assert_eq!(counts, [1, 4, 0]);
    let version = rig.version().await;
    let again = rig.ledger.record_outcomes(vec![outcome]).await.unwrap();
    assert_eq!((again.results, again.deactivated), (vec![RecordResult::Late], vec![]));
    assert_eq!(rig.version().await, version, "nothing changed");
    rig.assert_exact().await;
}

async fn a_subscription_forgets_why_it_was_deactivated_when_it_is_active_or_deactivated_by_hand(database: Database) {
    let rig = Rig::new(database).await;
    let subscription = rig.subscribe(1).await;
    let deactivated = async || {
        let found = rig.ledger.subscription(subscription).await.unwrap().unwrap();
        found.deactivated.map(|why| why.reason)
    };
    let (event, delivery) = several(&rig, subscription, 1).await.remove(0);
    let outcome = gone(&rig, delivery, event).await;
    rig.finish(outcome).await;
    assert_eq!(deactivated().await, Some(Reason::Gone));
    rig.set_active(subscription, false).await;
    assert_eq!(deactivated().await, Some(Reason::Gone), "it was inactive before");
    rig.set_active(subscription, true).await;
    assert_eq!(deactivated().await, None);
    rig.set_active(subscription, false).await;
    assert_eq!(deactivated().await, None);
}

/// What was opened before a deactivation is cancelled and what was opened after it is not, whether the clock was set
/// back in between or had been ahead before.
async fn versions_tell_what_a_deactivation_cancels_however_the_clock_is_set(database: Database) {
    const HOUR: i64 = 3_600_000_000;
    for step in [-HOUR, HOUR] {
        let rig = Rig::new(database).await;
        let subscription = rig.subscribe(1).await;
        let (_, before) = several(&rig, subscription, 1).await.remove(0);
        let set = format!("UPDATE deliveries_open SET opened_at = opened_at + {step}");
        rig.execute(set).await.unwrap();
        rig.set_active(subscription, false).await;
        rig.set_active(subscription, true).await;
        let (_, after) = several(&rig, subscription, 1).await.remove(0);
        let set = format!(
            "UPDATE deliveries_open SET opened_at = opened_at - {step} WHERE opened_version = {}",
            rig.version().await
        );
        rig.execute(set).await.unwrap();
        assert_eq!(cancelled(&rig, subscription).await, [before.id], "a step of {step}");
        assert_eq!(rig.cancel(&[]).await, 1, "a step of {step}");
        assert_eq!(rig.open(subscription, 10).await[0].0.id, after.id);
        rig.assert_exact().await;
    }
}

/// A version of Herald that notes no versions ran before this one: the times tell.
async fn times_tell_what_a_deactivation_cancels_where_no_version_was_noted(database: Database) {
    let forgets = [
        vec!["outbox SET opened_before_version"],
        vec!["deliveries_open SET opened_version"],
        vec!["subscriptions SET open_from_version"],
        vec![
            "subscriptions SET open_from_version",
            "outbox SET opened_before_version",
        ],
    ];
    for forget in forgets {
        let rig = Rig::new(database).await;
        let subscription = rig.subscribe(1).await;
        let (_, before) = several(&rig, subscription, 1).await.remove(0);
        rig.set_active(subscription, false).await;
        rig.set_active(subscription, true).await;
        let (_, after) = several(&rig, subscription, 1).await.remove(0);
        for noted in &forget {
            rig.execute(format!("UPDATE {noted} = 0")).await.unwrap();
        }
        assert_eq!(cancelled(&rig, subscription).await, [before.id], "{forget:?}");
        assert_eq!(rig.cancel(&[]).await, 1, "{forget:?}");
        assert_eq!(rig.open(subscription, 10).await[0].0.id, after.id);
    }
}

/// The open deliveries that a worker would not send any more, because a deactivation cancels them.
pub(crate) async fn cancelled(rig: &Rig, subscription: SubscriptionId) -> Vec<DeliveryId> {
    let seen = rig.ledger.subscription(subscription).await.unwrap().unwrap();
    let open = rig.open(subscription, 10).await;
    let cancelled = open
        .iter()
        .filter(|(delivery, _)| delivery.is_opened_before(seen.open_from_version, seen.open_from));
    cancelled.map(|(delivery, _)| delivery.id).collect()
}

async fn what_was_cancelled_is_retried_at_once_and_nothing_else(database: Database) {
    let rig = Rig::new(database).await;
    let (subscription, another) = (rig.subscribe(1).await, rig.subscribe(2).await);
    let all = several(&rig, subscription, 4).await;
    let others = several(&rig, another, 1).await;
    let due_at = rig.ledger.now();
    rig.finish(retried(all[0].1, all[0].0, due_at)).await;
    rig.finish(delivered(all[3].1, all[3].0)).await;
    rig.set_active(subscription, false).await;
    rig.set_active(another, false).await;
    assert_eq!((rig.cancel(&[]).await, rig.cancel(&[]).await), (3, 1));
    // The database's clock may be a little ahead of what is known of it here.
    let since = rig.ledger.now().plus(Duration::from_mins(1));
    let retry = async |ended, since, enough| rig.ledger.retry_some(subscription, ended, since, enough).await.unwrap();
    let start = Timestamp::from_micros(0);
    assert_eq!(retry(Closed::Cancelled, start, 10).await, RetriedSome::Unwanted);
    rig.set_active(subscription, true).await;
    let none = RetriedSome::Done {
        deliveries: 0,
        more: false,
    };
    assert_eq!(retry(Closed::Cancelled, since, 10).await, none, "it ended before");
    assert_eq!(retry(Closed::Dead, start, 10).await, none);
    let done = RetriedSome::Done {
        deliveries: 3,
        more: false,
    };
    assert_eq!(retry(Closed::Cancelled, start, 10).await, done);
    assert_eq!(retry(Closed::Cancelled, start, 10).await, none);
    let woken = rig.ledger.take_wakeups(&rig.owned).await.unwrap();
    assert!(woken.iter().any(|lane| lane.lane.subscription() == subscription));
    let open = rig.open(subscription, 10).await;
    let attempts: Vec<_> = open.iter().map(|(delivery, _)| delivery.attempts).collect();
    assert_eq!(attempts.iter().sum::<u32>(), 1, "numbers go on: {attempts:?}");
    assert_eq!(open.len(), 3);
    assert_eq!(seen(&rig, others[0].1).await.0, CANCELLED);
    rig.assert_exact().await;
}

async fn an_answer_to_what_a_subscription_was_does_not_deactivate_it(database: Database) {
    let rig = Rig::new(database).await;
    let subscription = rig.subscribe(1).await;
    let (event, delivery) = several(&rig, subscription, 1).await.remove(0);
    let outcome = gone(&rig, delivery, event).await;
    rig.set_active(subscription, true).await;
    let recorded = rig
        .ledger
        .record_outcomes(vec![under(&rig.owned, outcome)])
        .await
        .unwrap();
    assert_eq!(
        (recorded.results, recorded.deactivated),
        (vec![RecordResult::Done], vec![])
    );
    assert!(
        rig.ledger
            .subscription(subscription)
            .await
            .unwrap()
            .unwrap()
            .settings
            .active
    );
}

/// A batch of outcomes is one transaction, which everybody waits for who changes the registry or records events.
async fn many_subscribers_that_are_gone_at_once_are_one_change(database: Database) {
    const MANY: u128 = 512;
    let rig = Rig::new(database).await;
    let mut subscriptions = Vec::new();
    for _ in 0..MANY {
        subscriptions.push(rig.subscribe(Uuid::new_v4().as_u128()).await);
    }
    let (event, deliveries) = rig.deliveries(&subscriptions).await;
    let mut batch = Vec::new();
    for delivery in deliveries {
        batch.push(under(&rig.owned, gone(&rig, delivery, event).await));
    }
    let version = rig.version().await;
    let recorded = rig.ledger.record_outcomes(batch).await.unwrap();
    assert!(recorded.results.iter().all(|finished| *finished == RecordResult::Done));
    assert_eq!(recorded.deactivated.len(), subscriptions.len());
    assert_eq!(rig.version().await, version + 1, "one change of the registry");
    let jobs = rig.ledger.cancel_jobs(&rig.owned, 10_000).await.unwrap();
    assert_eq!(jobs.len(), subscriptions.len());
    assert_eq!(rig.ledger.cancel_jobs(&rig.owned, 7).await.unwrap(), jobs[..7]);
    rig.assert_exact().await;
}

on_both!(
    what_is_in_flight_is_not_cancelled_until_its_outcome_is_known,
    a_success_counts_after_a_cancellation_and_after_the_end,
    a_failure_after_a_cancellation_counts_as_an_attempt,
    who_owns_the_shard_cancels_and_not_what_a_former_owner_has_in_flight,
    what_is_opened_after_a_deactivation_is_not_cancelled_by_it,
    a_gone_subscriber_is_deactivated_and_what_is_open_cancelled,
    a_subscription_forgets_why_it_was_deactivated_when_it_is_active_or_deactivated_by_hand,
    versions_tell_what_a_deactivation_cancels_however_the_clock_is_set,
    times_tell_what_a_deactivation_cancels_where_no_version_was_noted,
    what_was_cancelled_is_retried_at_once_and_nothing_else,
    an_answer_to_what_a_subscription_was_does_not_deactivate_it,
    many_subscribers_that_are_gone_at_once_are_one_change,
);

/// Deactivates or activates as a version of Herald does that knows no versions: in its order, and with its columns.
async fn set_active_as_before(rig: &Rig, subscription: SubscriptionId, active: bool) {
    let write = rig.ledger.store().write(move |txn, _now| {
        Box::pin(async move {
            let row = one(txn, "SELECT now FROM herald_change()", []).await?;
            let (id, now) = (subscription.0, get::<i64>(&row.unwrap(), "now")?);
            if !active {
                let job = "INSERT INTO outbox (kind, subscription, opened_before, created_at) \
                           VALUES ('cancel_deliveries', $1, $2, $2)";
                execute(txn, job, [id.into(), now.into()]).await?;
            }
            execute(txn, "UPDATE registry_version SET version = version + 1", []).await?;
            let save = "UPDATE subscriptions SET active = $1, updated_at = $2, \
                        open_from = CASE WHEN $1 THEN open_from ELSE $2 END, \
                        version = (SELECT version FROM registry_version) WHERE id = $3";
            execute(txn, save, [active.into(), now.into(), id.into()]).await
        })
    });
    assert_eq!(write.await.unwrap(), 1);
}

/// In the middle of an upgrade a version of Herald that notes no versions may deactivate and activate.
#[tokio::test]
async fn the_version_of_a_deactivation_is_noted_for_one_that_does_not() {
    const HOUR: i64 = 3_600_000_000;
    for known in [false, true] {
        let rig = Rig::new(Database::Postgres).await;
        let subscription = rig.subscribe(1).await;
        if known {
            // Its version stays behind in the row.
            rig.set_active(subscription, false).await;
            rig.set_active(subscription, true).await;
            assert_eq!(rig.cancel(&[]).await, 0);
        }
        let (_, before) = several(&rig, subscription, 1).await.remove(0);
        // So that the times tell nothing.
        let later = format!("UPDATE deliveries_open SET opened_at = opened_at + {HOUR}");
        rig.execute(later).await.unwrap();
        set_active_as_before(&rig, subscription, false).await;
        let version = rig.version().await;
        set_active_as_before(&rig, subscription, true).await;
        let (_, after) = several(&rig, subscription, 1).await.remove(0);
        let seen = rig.ledger.subscription(subscription).await.unwrap().unwrap();
        assert_eq!(seen.open_from_version, version);
        assert_eq!(cancelled(&rig, subscription).await, [before.id]);
        assert_eq!(rig.cancel(&[]).await, 1);
        assert_eq!(rig.open(subscription, 10).await[0].0.id, after.id);
        rig.assert_exact().await;
    }
}
