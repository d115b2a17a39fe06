//! What has expired goes, what must stay stays, and the account is exact throughout.

use crate::rig::{Database, Rig, dead, delivered, event, retried};
use herald_domain::delivery::{Closed, Delivery, Status};
use herald_domain::id::{DeliveryId, EventUid, SubscriptionId};
use herald_domain::retention::{Days, Retention};
use herald_domain::time::Timestamp;
use herald_ledger::audit::Account;
use herald_ledger::delivering::{OutcomeRecord, RecordResult};
use herald_ledger::dispatching::EventResult;
use herald_ledger::history::retrying::Retried;
use herald_ledger::rejected::Rejected;
use herald_ledger::retention::Removed;
use herald_ledger::{Cause, Error};
use sea_orm::{ConnectionTrait, TransactionTrait};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use uuid::Uuid;

const DAY: Duration = Duration::from_hours(24);

pub(crate) fn retention(events: u32, dead: u32) -> Retention {
    Retention {
        events: Days::new(events),
        dead: Days::new(dead),
        audit_log: Days::new(365),
    }
}

async fn expire(rig: &Rig, retention: &Retention, now: Timestamp) -> Removed {
    let mut removed = Removed::default();
    rig.ledger.remove_expired(retention, now, &mut removed).await.unwrap();
    rig.assert_exact().await;
    removed
}

/// How many there are and were, by status: what must not change by expiring.
fn ever(account: &Account) -> (i64, i64, BTreeMap<&'static str, i64>) {
    let mut deliveries: BTreeMap<_, _> = account.deliveries.iter().map(|(s, n)| (s.name(), *n)).collect();
    for (end, n) in &account.expired.deliveries {
        *deliveries.entry(Status::Closed(*end).name()).or_default() += n;
    }
    (
        account.events + account.expired.events,
        account.rejected + account.expired.rejected,
        deliveries,
    )
}

async fn what_is_over_goes_and_what_is_open_or_dead_keeps_its_event(database: Database) {
    let rig = Rig::new(database).await;
    let subscriptions = [rig.subscribe(1).await, rig.subscribe(2).await];
    let (done, of_done) = rig.deliveries(&subscriptions).await;
    for delivery in &of_done {
        rig.finish(delivered(*delivery, done)).await;
    }
    let unmatched = event(Uuid::now_v7(), "a", &[]);
    rig.record(vec![unmatched.clone()]).await;
    let (half, of_half) = rig.deliveries(&subscriptions).await;
    rig.finish(delivered(of_half[0], half)).await;
    rig.finish(retried(of_half[1], half, Timestamp::from_micros(7))).await;
    let (given_up, of_given_up) = rig.deliveries(&subscriptions).await;
    rig.finish(delivered(of_given_up[0], given_up)).await;
    let failed = retried(of_given_up[1], given_up, Timestamp::from_micros(7));
    rig.finish(failed).await;
    let again = Delivery {
        attempts: 1,
        ..of_given_up[1]
    };
    rig.finish(dead(again, given_up)).await;
    let rejected = Rejected {
        account: "a".into(),
        faults: "[]".to_owned(),
        body: vec![1],
        body_bytes: 1,
    };
    rig.ledger.reject(Uuid::now_v7(), rejected).await.unwrap();
    let before = rig.ledger.audit().await.unwrap();
    let now = rig.ledger.now();

    // Within the idempotency window nothing goes, not even the keys.
    assert_eq!(
        expire(&rig, &retention(30, 90), now.plus(DAY * 6)).await,
        Removed::default()
    );
    assert_eq!(expire(&rig, &retention(30, 90), now.plus(DAY * 8)).await.keys, 4);
    assert_eq!(
        rig.ledger.audit().await.unwrap(),
        before,
        "keys are no part of the account"
    );

    let removed = expire(&rig, &retention(30, 90), now.plus(DAY * 31)).await;
    let expected = Removed {
        events: 2,
        deliveries: 4,
        rejected: 1,
        ..Removed::default()
    };
    assert_eq!(removed, expected);
    let account = rig.ledger.audit().await.unwrap();
    assert_eq!(ever(&account), ever(&before));
    assert_eq!((account.events, account.matched, account.rejected), (2, 2, 0));
    assert!(rig.ledger.event(done).await.unwrap().is_none());
    assert!(rig.ledger.events(unmatched.record.id).await.unwrap().is_empty());
    assert_eq!(rig.ledger.delivery(of_done[0].id).await.unwrap(), None);
    assert_eq!(rig.ledger.retry(of_done[0].id).await.unwrap(), Retried::Missing);
    assert_eq!(rig.ledger.delivery(of_half[0].id).await.unwrap(), None);

    // What is open is still sent, and can end.
    let open = rig.open(subscriptions[1], 10).await;
    assert_eq!(open.len(), 1);
    assert_eq!((open[0].0.id, open[0].1.uid), (of_half[1].id, half));
    assert_eq!(rig.finish(delivered(open[0].0, half)).await, RecordResult::Done);
    rig.assert_exact().await;
    assert_eq!(attempts(&rig, of_half[1].id).await, 2);

    // What is dead is found with its attempts, and can be tried again.
    assert_eq!(attempts(&rig, of_given_up[1].id).await, 2);
    assert_eq!(rig.ledger.event(given_up).await.unwrap().unwrap().matched_count, 2);
    assert_eq!(rig.ledger.retry(of_given_up[1].id).await.unwrap(), Retried::Done);
    rig.assert_exact().await;
    let open = rig.open(subscriptions[1], 10).await;
    assert_eq!(rig.finish(dead(open[0].0, given_up)).await, RecordResult::Done);
    assert_eq!(attempts(&rig, of_given_up[1].id).await, 3);
    rig.assert_exact().await;

    // The Id of an event that is gone is a new one's.
    let new = rig.record(vec![unmatched]).await;
    assert!(matches!(new[0], EventResult::New { .. }));
}

async fn attempts(rig: &Rig, id: DeliveryId) -> usize {
    let view = rig.ledger.delivery(id).await.unwrap().expect("it is kept");
    let attempts = rig.ledger.attempts(std::slice::from_ref(&view)).await.unwrap();
    attempts.get(&id).map_or(0, Vec::len)
}

async fn an_id_is_recognised_for_as_long_as_before(database: Database) {
    let rig = Rig::new(database).await;
    let first = event(Uuid::now_v7(), "a", &[]);
    rig.record(vec![first.clone()]).await;
    let now = rig.ledger.now();
    for days in 1..7 {
        assert_eq!(
            expire(&rig, &retention(7, 7), now.plus(DAY * days)).await,
            Removed::default()
        );
    }
    rig.pass(DAY * 6).await;
    let again = rig.record(vec![first]).await;
    assert!(matches!(again[0], EventResult::Repeated { .. }));
}

async fn what_is_kept_for_ever_is_not_touched(database: Database) {
    let rig = Rig::new(database).await;
    let subscription = rig.subscribe(1).await;
    let (uid, deliveries) = rig.deliveries(&[subscription]).await;
    rig.finish(delivered(deliveries[0], uid)).await;
    let for_ever = Retention {
        events: None,
        dead: None,
        audit_log: None,
    };
    let before = rig.ledger.audit().await.unwrap();
    let removed = expire(&rig, &for_ever, rig.ledger.now().plus(DAY * 4000)).await;
    assert_eq!(
        removed,
        Removed {
            keys: 1,
            ..Removed::default()
        }
    );
    assert_eq!(rig.ledger.audit().await.unwrap(), before);
    let log = Retention {
        audit_log: Days::new(365),
        ..for_ever
    };
    let removed = expire(&rig, &log, rig.ledger.now().plus(DAY * 367)).await;
    assert_eq!(
        removed,
        Removed {
            audit_log: 1,
            ..Removed::default()
        }
    );
}

async fn an_event_whose_account_does_not_add_up_is_kept_for_the_audit(database: Database) {
    let rig = Rig::new(database).await;
    let subscription = rig.subscribe(1).await;
    let (uid, deliveries) = rig.deliveries(&[subscription]).await;
    rig.finish(delivered(deliveries[0], uid)).await;
    rig.execute("UPDATE events SET matched_count = 2".to_owned())
        .await
        .unwrap();
    let mut removed = Removed::default();
    // PostgreSQL keeps the whole day, and says so.
    let ended = rig
        .ledger
        .remove_expired(&retention(30, 90), rig.ledger.now().plus(DAY * 31), &mut removed)
        .await;
    assert_eq!(ended.is_ok(), database == Database::Sqlite, "{ended:?}");
    assert_eq!(removed.events, 0);
    assert_eq!(rig.ledger.audit().await.unwrap().differences.len(), 1);
}

/// What the model knows of a delivery.
#[derive(Debug, Clone, Copy)]
struct Known {
    event: EventUid,
    delivery: Delivery,
    /// How it ended and when; nothing while it is open.
    end: Option<(Closed, Timestamp)>,
}

/// Small numbers that look random, the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// Ends a delivery in one of the ways that there are, at that time.
async fn end(rig: &Rig, known: &mut Known, dice: &mut Dice, at: Timestamp) {
    let finish = |finish: fn(Delivery, EventUid) -> OutcomeRecord| finish(known.delivery, known.event);
    let (finish, end) = if dice.roll(2) == 0 {
        (finish(delivered), Closed::Delivered)
    } else {
        (finish(dead), Closed::Dead)
    };
    assert_eq!(rig.finish(finish).await, RecordResult::Done);
    known.end = Some((end, at));
    let sql = format!(
        "UPDATE deliveries_closed SET closed_at = {} WHERE id = ",
        at.as_micros()
    );
    let id = match rig.database() {
        Database::Sqlite => format!("x'{}'", known.delivery.id.0.simple()),
        Database::Postgres => format!("'{}'", known.delivery.id),
    };
    assert_eq!(rig.execute(sql + &id).await.unwrap(), 1);
}

/// Deliveries end at any time and are retried by hand between passes; after each pass there is what the rule
/// says, and nothing else.
async fn any_history_expires_as_the_rule_says(database: Database) {
    let seeds = if std::env::var_os("HERALD_LONG").is_some() {
        50
    } else {
        3
    };
    for seed in 1..=seeds {
        history(database, Dice(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed))).await;
    }
}

async fn history(database: Database, mut dice: Dice) {
    let rig = Rig::new(database).await;
    let subscriptions = [rig.subscribe(1).await, rig.subscribe(2).await, rig.subscribe(3).await];
    let (mut all, mut events) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        let matched = usize::try_from(dice.roll(4)).unwrap();
        let (event, deliveries) = rig.deliveries(&subscriptions[..matched]).await;
        events.push(event);
        all.extend(deliveries.into_iter().map(|delivery| Known {
            event,
            delivery,
            end: None,
        }));
    }
    let start = rig.ledger.now();
    for known in &mut all {
        if dice.roll(4) > 0 {
            let at = start.minus(DAY * 4).plus(DAY * u32::try_from(dice.roll(11)).unwrap());
            end(&rig, known, &mut dice, at).await;
        }
    }
    let retention = retention(7, 10);
    // From then on a day goes with every pass; there are partitions for seven.
    for days in 8..14 {
        let now = start.plus(DAY * days);
        let before = ever(&rig.ledger.audit().await.unwrap());
        expire(&rig, &retention, now).await;
        assert_eq!(ever(&rig.ledger.audit().await.unwrap()), before, "after {days} days");
        let limits = retention.limits(now).unwrap();
        all.retain(|known| known.end.is_none_or(|(end, at)| limits.keeps(end, at)));
        events.retain(|event| all.iter().any(|known| known.event == *event));
        let account = rig.ledger.audit().await.unwrap();
        assert_eq!(
            account.events,
            i64::try_from(events.len()).unwrap(),
            "after {days} days"
        );
        assert_eq!(account.matched, i64::try_from(all.len()).unwrap(), "after {days} days");
        for known in &mut all {
            let view = rig
                .ledger
                .delivery(known.delivery.id)
                .await
                .unwrap()
                .expect("it is kept");
            let status = known.end.map_or(Status::Open, |(end, _)| Status::Closed(end));
            assert_eq!(view.status, status, "after {days} days");
            assert!(rig.ledger.event(known.event).await.unwrap().is_some());
            match known.end {
                None if dice.roll(3) == 0 => end(&rig, known, &mut dice, now).await,
                Some((Closed::Dead, _)) if dice.roll(3) == 0 => {
                    assert_eq!(rig.ledger.retry(known.delivery.id).await.unwrap(), Retried::Done);
                    known.end = None;
                    let open = rig.open(known.delivery.subscription, 100).await;
                    let mut open = open.into_iter().map(|(delivery, _)| delivery);
                    known.delivery = open.find(|delivery| delivery.id == view.id).unwrap();
                }
                _ => {}
            }
        }
        rig.assert_exact().await;
    }
    assert!(!all.is_empty(), "a history in which everything goes says little");
}

async fn who_died_and_what_was_deleted_long_ago_is_forgotten(database: Database) {
    let rig = Rig::new(database).await;
    let subscriptions = [rig.subscribe(1).await, rig.subscribe(2).await, rig.subscribe(3).await];
    rig.deliveries(&subscriptions[..1]).await;
    for id in &subscriptions[..2] {
        assert!(rig.delete(*id).await);
    }
    rig.ledger.renew(Uuid::now_v7(), Duration::from_secs(15)).await.unwrap();
    let left = async |table: &str| {
        let sql = format!("SELECT id FROM {table}");
        let rows = herald_ledger::sql::all(rig.ledger.store().queries(), &sql, []);
        rows.await.unwrap().len()
    };
    let now = rig.ledger.now();
    expire(&rig, &retention(7, 90), now.plus(6 * DAY)).await;
    assert_eq!((left("subscriptions").await, left("workers").await), (3, 0));
    // Dead deliveries are kept for longest, and so is what explains deliveries.
    expire(&rig, &retention(7, 90), now.plus(80 * DAY)).await;
    assert_eq!(left("subscriptions").await, 3);
    assert_eq!(
        expire(&rig, &retention(7, 90), now.plus(92 * DAY)).await.subscriptions,
        0,
        "jobs are left"
    );
    rig.execute("DELETE FROM outbox".to_owned()).await.unwrap();
    let removed = expire(&rig, &retention(7, 90), now.plus(92 * DAY)).await;
    assert_eq!(removed.subscriptions, 1, "one explains a delivery");
    assert_eq!(left("subscriptions").await, 2);
}

on_both!(
    who_died_and_what_was_deleted_long_ago_is_forgotten,
    what_is_over_goes_and_what_is_open_or_dead_keeps_its_event,
    an_id_is_recognised_for_as_long_as_before,
    what_is_kept_for_ever_is_not_touched,
    an_event_whose_account_does_not_add_up_is_kept_for_the_audit,
    any_history_expires_as_the_rule_says,
);

/// A ledger whose oldest day is today.
async fn without_days_before() -> Rig {
    let rig = Rig::new(Database::Postgres).await;
    expire(&rig, &retention(30, 90), rig.ledger.now().plus(DAY * 30)).await;
    rig
}

/// Runs a pass while somebody reads, and what is given until the pass waits for the reader; lets both end.
async fn expire_beside_a_reader(rig: &Rig, meanwhile: impl AsyncFnOnce(), release: bool) -> Result<Removed, Error> {
    let reader = rig.another().await;
    let reading = reader.store().queries().begin().await.unwrap();
    for sql in [
        "SET LOCAL idle_in_transaction_session_timeout = 0",
        "SELECT count(*) FROM events",
    ] {
        reading.execute_unprepared(sql).await.unwrap();
    }
    let now = rig.ledger.now().plus(DAY * 31);
    let ledger = rig.ledger.clone();
    let pass = tokio::spawn(async move {
        let mut removed = Removed::default();
        let ended = ledger.remove_expired(&retention(30, 90), now, &mut removed).await;
        ended.map(|()| removed)
    });
    // Between two tries all that takes time is done.
    let waiting = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";
    let deadline = Instant::now() + Duration::from_secs(20);
    while herald_ledger::sql::all(rig.ledger.store().read(), waiting, [])
        .await
        .unwrap()
        .is_empty()
    {
        assert!(
            Instant::now() < deadline && !pass.is_finished(),
            "it waits for the reader"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    meanwhile().await;
    if release {
        reading.commit().await.unwrap();
        pass.await.unwrap()
    } else {
        let ended = pass.await.unwrap();
        reading.commit().await.unwrap();
        ended
    }
}

async fn partitions(rig: &Rig) -> usize {
    let rows = herald_ledger::sql::all(rig.ledger.store().read(), "SELECT 1 FROM pg_inherits", []).await;
    rows.unwrap().len()
}

fn is_for_later(ended: Result<Removed, Error>) -> bool {
    ended.is_err_and(|error| error.cause() == Cause::Away)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_day_that_is_being_read_is_dropped_later_and_nobody_waits_for_it() {
    let rig = without_days_before().await;
    let subscription = rig.subscribe(1).await;
    let (uid, deliveries) = rig.deliveries(&[subscription]).await;
    rig.finish(delivered(deliveries[0], uid)).await;
    let tables = partitions(&rig).await;
    let beside = async || {
        for _ in 0..10 {
            let began = Instant::now();
            let (uid, deliveries) = rig.deliveries(&[subscription]).await;
            rig.finish(delivered(deliveries[0], uid)).await;
            // Two statements, each of which may come just when the tables are asked for.
            assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
        }
    };
    assert!(is_for_later(expire_beside_a_reader(&rig, beside, false).await));
    assert_eq!(partitions(&rig).await, tables, "nothing is left behind");
    assert_eq!(rig.ledger.audit().await.unwrap().events, 11);
    assert_eq!(
        expire(&rig, &retention(30, 90), rig.ledger.now().plus(DAY * 31))
            .await
            .events,
        11
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happens_while_a_day_is_being_dropped_is_kept() {
    let rig = without_days_before().await;
    let subscription = rig.subscribe(1).await;
    let mut open = Vec::new();
    for _ in 0..3 {
        let (uid, deliveries) = rig.deliveries(&[subscription]).await;
        open.push((uid, deliveries[0]));
    }
    let ids: Vec<_> = open.iter().map(|(_, delivery)| delivery.id).collect();
    let meanwhile = async || {
        let [(first, one), (second, two), _] = open[..] else {
            panic!("there are three")
        };
        rig.finish(delivered(one, first)).await;
        rig.finish(retried(two, second, Timestamp::from_micros(7))).await;
    };
    let removed = expire_beside_a_reader(&rig, meanwhile, true).await.unwrap();
    assert_eq!(removed.events, 0);
    rig.assert_exact().await;
    let mut statuses = Vec::new();
    for id in ids {
        let view = rig.ledger.delivery(id).await.unwrap().unwrap();
        statuses.push((view.status.name(), view.attempts, attempts(&rig, id).await));
    }
    assert_eq!(statuses, [("Delivered", 1, 1), ("Open", 1, 1), ("Open", 0, 0)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_that_does_not_wait_puts_the_drop_off() {
    let rig = without_days_before().await;
    let subscription: SubscriptionId = rig.subscribe(1).await;
    let (uid, deliveries) = rig.deliveries(&[subscription]).await;
    rig.finish(dead(deliveries[0], uid)).await;
    let id = deliveries[0].id;
    let meanwhile = async || assert_eq!(rig.ledger.retry(id).await.unwrap(), Retried::Done);
    assert!(is_for_later(expire_beside_a_reader(&rig, meanwhile, true).await));
    rig.assert_exact().await;
    expire(&rig, &retention(30, 90), rig.ledger.now().plus(DAY * 31)).await;
    assert_eq!(rig.ledger.delivery(id).await.unwrap().unwrap().status, Status::Open);
}
