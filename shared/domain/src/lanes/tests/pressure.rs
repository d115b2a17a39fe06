//! What a bad subscriber may have, and what the others get.

use super::examples::{attempts, fetch, fetch_from, most, offer};
use super::*;

fn lane16(n: u16) -> LaneId {
    LaneId::of(SubscriptionId(Uuid::from_u128(0x1000 + u128::from(n))))
}

fn retry(n: u128, lane_id: LaneId) -> Work<()> {
    let mut work = work(n, lane_id, at(0));
    work.delivery.attempts = 1;
    work
}

/// Those of another account.
fn others(in_flight: u16) -> Terms {
    Terms {
        owner: AccountId(Uuid::max()),
        ..most(in_flight)
    }
}

/// What is attempted at that time, with what the ledger has.
fn begun(lanes: &mut Lanes<()>, ledger: &[Work<()>], terms: Terms, now: Timestamp) -> Vec<Work<()>> {
    let mut begun = Vec::new();
    loop {
        let actions = lanes.poll(now, |_| terms);
        if actions.is_empty() {
            return begun;
        }
        for action in actions {
            match action {
                Action::Attempt(work) => begun.push(work),
                Action::GiveUp(work) => panic!("{work:?}"),
                Action::Fetch {
                    lane: lane_id,
                    from,
                    limit,
                } => {
                    let rows = ledger.iter().filter(|work| work.delivery.due_at >= from);
                    let rows: Vec<_> = rows.take(limit).cloned().collect();
                    lanes.fetched(lane_id, rows, limit, now);
                }
            }
        }
    }
}

/// Offers that many, which nobody answers; gives how many began.
fn hang(lanes: &mut Lanes<()>, lane_id: LaneId, most: Terms, from: u128, count: u128) -> usize {
    for n in from..from + count {
        let mark = lanes.mark();
        lanes.offer(work(n, lane_id, at(0)), mark, at(0));
    }
    attempts(lanes.poll(at(0), |_| most)).len()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn whoever_hangs_a_new_lane_begins_at_once(
        hanging in prop::collection::vec((1u16..=1000, 1u128..130), 0..300), at_a_time in 8usize..400, lanes_at_a_time in 8usize..400,
    ) {
        let mut lanes = on_all_shards(Limits { in_flight: at_a_time, lanes_in_flight: lanes_at_a_time, ..Limits::default() });
        for (n, (in_flight, count)) in (0..).zip(&hanging) {
            let began = hang(&mut lanes, lane16(n), most(*in_flight), u128::from(n) * 1000, *count);
            prop_assert!(began >= 1 || usize::from(n) >= 20.min(lanes_at_a_time / 2), "the {n}th began none");
            prop_assert!(began <= 2 + at_a_time / 4, "one has {began} of {at_a_time}");
        }
        prop_assert_eq!(hang(&mut lanes, lane16(999), others(1), 999_000, 1), 1, "though another account's hang");
    }

    #[test]
    fn no_lane_fills_the_common_buffer_or_its_bytes(
        sizes in prop::collection::vec((1u16..20, 1usize..40_000), 1..600),
    ) {
        let (buffered, bytes) = (100, 1_000_000);
        let mut lanes = on_all_shards(Limits { buffered, bytes, lanes_in_flight: 1, in_flight: 0, ..Limits::default() });
        for (n, (to, bytes)) in (0..).zip(&sizes) {
            let mark = lanes.mark();
            lanes.offer(Work { bytes: *bytes, ..work(n, lane16(*to), at(0)) }, mark, at(0));
        }
        for lane in lanes.by_id.values() {
            prop_assert!(lane.waits() <= buffered / 4, "{} wait", lane.waits());
            prop_assert!(lane.bytes <= bytes / 4 + 40_000, "{} bytes", lane.bytes);
        }
    }
}

#[test]
fn twenty_that_hang_leave_room_for_more_than_one() {
    let mut lanes = on_all_shards(Limits::default());
    for n in 0..20 {
        hang(&mut lanes, lane16(n), most(64), u128::from(n) * 1000, 128);
    }
    let began = hang(&mut lanes, lane16(99), others(64), 99_000, 128);
    assert!(began >= 10, "{began}");
}

#[test]
fn a_lane_that_is_full_goes_on_when_another_ends() {
    let mut lanes = on_all_shards(Limits {
        in_flight: 4,
        ..Limits::default()
    });
    for n in 0..8 {
        offer(&mut lanes, n, 1);
    }
    let begun = attempts(lanes.poll(at(0), |_| most(64)));
    assert_eq!(begun.len(), 2, "its first, and a quarter of four");
    assert_eq!(attempts(lanes.poll(at(0), |_| most(64))).len(), 0);
    lanes.answered(&begun[0], WELL, at(0), 0.5);
    assert_eq!(attempts(lanes.poll(at(0), |_| most(64))).len(), 1);
}

#[test]
fn what_is_new_takes_turns_with_retries_however_many() {
    let mut lanes = on_all_shards(Limits::default());
    lanes.note(lane(1), at(0));
    assert_eq!(lanes.poll(at(0), |_| most(1)), [fetch(1, 128)]);
    lanes.fetched(
        lane(1),
        (0..128).map(|n| retry(n, lane(1))).collect::<Vec<_>>(),
        128,
        at(0),
    );
    let first = attempts(lanes.poll(at(0), |_| most(1))).remove(0);
    assert!(first.is_retry());
    // A million more lie in the ledger, and these come in fresh.
    for n in 1000..1010 {
        offer(&mut lanes, n, 1);
    }
    lanes.answered(&first, WELL, at(0), 0.5);
    let mut retries = Vec::new();
    for _ in 0..20 {
        let next = attempts(lanes.poll(at(0), |_| most(1))).remove(0);
        retries.push(next.is_retry());
        lanes.answered(&next, WELL, at(0), 0.5);
    }
    assert_eq!(retries.iter().filter(|is_retry| !**is_retry).count(), 10, "{retries:?}");
}

#[test]
fn what_is_new_finds_room_beside_retries_that_hang() {
    let mut lanes = on_all_shards(Limits::default());
    lanes.note(lane(1), at(0));
    assert_eq!(lanes.poll(at(0), |_| most(64)), [fetch(1, 128)]);
    lanes.fetched(
        lane(1),
        (0..128).map(|n| retry(n, lane(1))).collect::<Vec<_>>(),
        128,
        at(0),
    );
    assert_eq!(attempts(lanes.poll(at(0), |_| most(64))).len(), 48);
    offer(&mut lanes, 1000, 1);
    let [fresh] = attempts(lanes.poll(at(0), |_| most(64))).try_into().unwrap();
    assert!(!fresh.is_retry());
}

#[test]
fn retries_of_all_lanes_leave_room_for_a_first_attempt_and_go_on_when_one_ends() {
    let mut lanes = on_all_shards(Limits {
        in_flight: 8,
        lanes_in_flight: 16,
        ..Limits::default()
    });
    let mut begun = Vec::new();
    for n in 0..8 {
        lanes.note(lane16(n), at(0));
        begun.extend(attempts(lanes.poll(at(0), |_| most(1))));
        lanes.fetched(lane16(n), vec![retry(n.into(), lane16(n))], 128, at(0));
    }
    begun.extend(attempts(lanes.poll(at(0), |_| most(1))));
    assert_eq!(begun.len(), 6);
    assert_eq!(
        hang(&mut lanes, lane16(7), most(1), 100, 1),
        1,
        "though its retry waits"
    );
    lanes.answered(&begun[0], WELL, at(0), 0.5);
    assert_eq!(attempts(lanes.poll(at(0), |_| most(1))).len(), 1);
}

#[test]
fn what_is_new_does_not_wait_behind_a_fetch_that_cannot_have_shown_it() {
    let mut lanes = on_all_shards(Limits::default());
    let mark = lanes.mark();
    lanes.note(lane(1), at(0));
    assert_eq!(lanes.poll(at(5), |_| most(1)), [fetch(1, 128)]);
    // Full, and the last is due before what is new: that was not among them.
    lanes.fetched(
        lane(1),
        (0..128).map(|n| retry(n, lane(1))).collect::<Vec<_>>(),
        128,
        at(5),
    );
    lanes.offer(work(1000, lane(1), at(5)), mark, at(5));
    assert_eq!(lanes.load().buffered, 129);
    lanes.offer(work(1001, lane(1), at(0)), mark, at(5));
    assert_eq!(lanes.load().buffered, 129, "as old as the last: it may have been");
}

#[test]
fn a_rate_is_kept_and_wakes_in_time() {
    let terms = Terms {
        rate: Rate::per_second(10.0),
        ..most(64)
    };
    let mut lanes = on_all_shards(Limits::default());
    for n in 0..50 {
        offer(&mut lanes, n, 1);
    }
    let (mut now, mut begun) = (at(0), Vec::new());
    while begun.len() < 50 {
        for work in attempts(lanes.poll(now, |_| terms)) {
            begun.push(now);
            lanes.answered(&work, WELL, now, 0.5);
            lanes.recorded(lane(1), work.delivery.id, None);
        }
        now = lanes.next_wake().unwrap_or(now);
    }
    for (n, pair) in begun.windows(11).enumerate() {
        assert!(
            pair[10].since(pair[0]) >= Duration::from_millis(950),
            "at {n}: {pair:?}"
        );
    }
    assert!(begun[49].since(begun[0]) <= Duration::from_millis(4950));
    assert_eq!(lanes.load().lanes, 1, "the rate is remembered while it matters");
    lanes.poll(now.plus(Duration::from_secs(1)), |_| terms);
    assert_eq!(lanes.load().lanes, 0);
}

#[test]
fn an_answer_that_asks_for_a_pause_pauses_the_lane_for_a_minute_at_most() {
    let mut lanes = on_all_shards(Limits::default());
    let mut ledger: Vec<_> = (0..3).map(|n| work(n, lane(1), at(0))).collect();
    for n in 0..3 {
        offer(&mut lanes, n, 1);
    }
    let mut now = at(0);
    for (asked, paused) in [(5, 5), (3600, 60)] {
        let [work] = begun(&mut lanes, &ledger, most(1), now).try_into().unwrap();
        let pause = Some(Duration::from_secs(asked));
        let verdict = Verdict::Overload;
        lanes.answered(&work, Answer { verdict, pause }, now, 0.5);
        ledger.retain(|row| row.delivery.id != work.delivery.id);
        lanes.recorded(lane(1), work.delivery.id, None);
        assert_eq!(lanes.poll(now, |_| most(1)), []);
        assert_eq!(lanes.load().buffered, 0, "what waits so long is left to the ledger");
        let then = now.plus(Duration::from_secs(paused));
        assert_eq!(lanes.next_wake(), Some(then));
        now = then;
    }
    assert_eq!(begun(&mut lanes, &ledger, most(1), now).len(), 1);
}

#[test]
fn a_lane_that_is_held_back_waits_and_loses_nothing() {
    let mut lanes = on_all_shards(Limits::default());
    for n in 0..3 {
        offer(&mut lanes, n, 1);
        offer(&mut lanes, n + 10, 2);
    }
    let begun = attempts(lanes.poll(at(0), |_| most(1)));
    let work = begun.iter().find(|work| work.lane() == lane(1)).expect("one of each");
    let then = at(0).plus(Duration::from_secs(1));
    lanes.pause(lane(1).subscription(), Duration::from_secs(1), at(0));
    lanes.abandoned(work, then, at(0));
    assert_eq!(lanes.poll(at(0), |_| most(1)), []);
    let again = lanes.poll(then, |_| most(1));
    assert_eq!(
        attempts(again).len(),
        1,
        "of the lane that waited, and the other still has one in flight"
    );
}

#[test]
fn a_success_ends_the_pause_of_a_503_and_not_that_of_a_429() {
    for (verdict, goes_on) in [(Verdict::Unavailable, true), (Verdict::Overload, false)] {
        let mut lanes = on_all_shards(Limits::default());
        for n in 0..3 {
            offer(&mut lanes, n, 1);
        }
        let begun = attempts(lanes.poll(at(0), |_| most(2)));
        let pause = Some(Duration::from_secs(5));
        lanes.answered(&begun[0], Answer { verdict, pause }, at(0), 0.5);
        lanes.recorded(lane(1), begun[0].delivery.id, None);
        assert_eq!(lanes.poll(at(0), |_| most(2)), []);
        lanes.answered(&begun[1], WELL, at(0), 0.5);
        lanes.recorded(lane(1), begun[1].delivery.id, None);
        assert_eq!(!lanes.poll(at(0), |_| most(2)).is_empty(), goes_on, "{verdict:?}");
    }
}

/// A lane with three deliveries in the ledger, the first two older by a day, whose breaker opened at 1 s.
fn broken() -> (World, Terms) {
    let mut world = World::new(Limits::default());
    let terms = Terms {
        give_up_after: Duration::from_hours(1),
        ..most(64)
    };
    for n in 0..2 {
        let mut old = work(n, lane(1), at(n.try_into().unwrap()));
        old.delivery.opened_at = at(0).minus(Duration::from_hours(24));
        world.open.insert(old.delivery.id, old);
    }
    for n in 2..4 {
        let fresh = work(n, lane(1), at(n.try_into().unwrap()));
        world.open.insert(fresh.delivery.id, fresh);
    }
    world.now = at(1000);
    world.lanes.note(lane(1), at(0));
    world.lanes.poll(world.now, |_| Terms {
        changed_at: at(0),
        ..terms
    });
    world
        .lanes
        .fetched(lane(1), world.rows(lane(1), at(0), 128), 128, world.now);
    world.break_open(lane(1));
    (
        world,
        Terms {
            changed_at: at(0),
            ..terms
        },
    )
}

#[test]
fn while_a_breaker_is_open_nothing_is_in_memory_or_read_but_for_a_probe() {
    let (mut world, terms) = broken();
    let lanes = &mut world.lanes;
    assert_eq!(lanes.load().buffered, 0);
    assert_eq!(lanes.poll(at(1000), |_| terms), []);
    offer(lanes, 5, 1);
    assert_eq!(lanes.load().buffered, 0, "what is new lies in the ledger too");
    assert_eq!(lanes.poll(at(1000), |_| terms), []);
    assert_eq!(lanes.next_wake(), Some(at(2000)));
    assert_eq!(lanes.poll(at(2000), |_| terms), [fetch(1, 128)]);
}

#[test]
fn a_probe_closes_what_has_expired_sends_one_and_lets_go_of_the_rest() {
    let (mut world, terms) = broken();
    assert_eq!(world.lanes.poll(at(2000), |_| terms), [fetch(1, 128)]);
    let rows = world.rows(lane(1), at(0), 128);
    let lanes = &mut world.lanes;
    lanes.fetched(lane(1), rows.clone(), 128, at(2000));
    let actions = lanes.poll(at(2000), |_| terms);
    let probe = rows[2].clone();
    let expected = [
        Action::GiveUp(rows[0].clone()),
        Action::GiveUp(rows[1].clone()),
        Action::Attempt(probe.clone()),
    ];
    assert_eq!(actions, expected);
    assert_eq!((lanes.load().buffered, lanes.load().recording), (0, 2));
    for row in &rows[..2] {
        lanes.recorded(lane(1), row.delivery.id, None);
    }
    assert_eq!(lanes.poll(at(2000), |_| terms), [], "until it is answered");

    lanes.answered(&probe, answer(Verdict::Failure), at(2100), 0.5);
    lanes.recorded(lane(1), probe.delivery.id, Some(at(9000)));
    assert_eq!(lanes.poll(at(5099), |_| terms), []);
    assert_eq!(
        lanes.poll(at(5100), |_| terms),
        [fetch_from(1, at(3), 128)],
        "after twice as long, and half of that for what is new"
    );
    lanes.fetched(lane(1), vec![rows[3].clone()], 128, at(5100));
    let probe = attempts(lanes.poll(at(5100), |_| terms)).remove(0);
    assert_eq!(lanes.answered(&probe, WELL, at(5200), 0.5), Some(Turned::Closed));
    let lane = &lanes.by_id[&lane(1)];
    assert_eq!(lane.flow.limit(), 1, "it starts from one");
}

#[test]
fn however_many_have_expired_they_are_closed_in_batches_without_a_pause() {
    let (mut world, terms) = broken();
    let now = at(2000).plus(Duration::from_hours(48));
    world.open = (0..2000)
        .map(|n| work(n, lane(1), at(0)))
        .map(|work| (work.delivery.id, work))
        .collect();
    let mut largest = 0;
    while !world.open.is_empty() {
        let actions = world.lanes.poll(now, |_| terms);
        assert!(!actions.is_empty(), "{} are left", world.open.len());
        for action in actions {
            match action {
                Action::Fetch {
                    lane: lane_id,
                    from,
                    limit,
                } => {
                    let rows = world.rows(lane_id, from, limit);
                    world.lanes.fetched(lane_id, rows, limit, now);
                    largest = largest.max(world.lanes.load().buffered);
                }
                Action::GiveUp(work) => {
                    world.open.remove(&work.delivery.id);
                    world.lanes.recorded(lane(1), work.delivery.id, None);
                }
                Action::Attempt(work) => panic!("{work:?}"),
            }
        }
    }
    assert_eq!(largest, 128);
}

#[test]
fn a_change_of_the_subscription_or_its_shard_closes_the_breaker() {
    let (mut world, terms) = broken();
    let changed = Terms {
        changed_at: at(1500),
        ..terms
    };
    world.lanes.terms_changed();
    assert_eq!(world.lanes.poll(at(1500), |_| changed), [fetch(1, 128)]);

    let (mut world, terms) = broken();
    let shard = lane(1).shard();
    world.lanes.release([shard]);
    assert_eq!(world.lanes.load().lanes, 0);
    world.lanes.own([shard]);
    world.lanes.note(lane(1), at(0));
    assert_eq!(world.lanes.poll(at(1500), |_| terms), [fetch(1, 128)]);
}

#[test]
fn what_is_new_may_be_the_probe_before_what_failed_so_often() {
    let (mut world, terms) = broken();
    let new = work(10, lane(1), at(2000));
    let mark = world.lanes.mark();
    world.lanes.offer(new.clone(), mark, at(1500));
    assert_eq!(world.lanes.poll(at(1500), |_| terms), [], "it is not time for one");
    world.lanes.offer(new.clone(), mark, at(2000));
    assert_eq!(world.lanes.poll(at(2000), |_| terms), [Action::Attempt(new.clone())]);
    world.lanes.answered(&new, answer(Verdict::Failure), at(2000), 0.5);
    world.lanes.recorded(lane(1), new.delivery.id, Some(at(9000)));
    let next = at(4000);
    assert_eq!(
        world.lanes.poll(next, |_| terms),
        [],
        "that one is for what is new, at first"
    );
    assert_eq!(world.lanes.next_wake(), Some(at(5000)));
    assert_eq!(world.lanes.poll(at(5000), |_| terms), [fetch(1, 128)]);
}

#[test]
fn an_open_breaker_is_remembered_while_it_matters_and_no_longer() {
    let (mut world, terms) = broken();
    assert_eq!(world.lanes.poll(at(2000), |_| terms), [fetch(1, 128)]);
    world.lanes.fetched(lane(1), Vec::<Work<()>>::new(), 128, at(2000));
    world.lanes.poll(at(2000), |_| terms);
    let broken: Vec<_> = world
        .lanes
        .survey(at(2000))
        .into_iter()
        .filter(|it| it.lanes > 0)
        .collect();
    assert_eq!(broken.len(), 1);
    assert_eq!((broken[0].state, broken[0].lanes), (LaneState::BreakerOpen, 1));
    assert!(!world.lanes.was_free_since(lane(1).subscription(), at(2000)));
    assert!(
        world.lanes.was_free_since(lane(1).subscription(), at(2001)),
        "what came later was not held back"
    );
    assert!(
        world.lanes.was_free_since(lane(2).subscription(), at(0)),
        "nor another's"
    );
    let end = world.lanes.next_wake().unwrap();
    assert_eq!(end, at(2000).plus(crate::breaker::MAX_PROBE_INTERVAL));
    world.lanes.poll(end, |_| terms);
    assert_eq!(world.lanes.load().lanes, 0);
}

#[test]
fn outcomes_say_what_they_mean_for_the_lane() {
    use crate::delivery::{AttemptError, Outcome};
    use crate::retry::RetryPolicy;
    let policy = RetryPolicy {
        max: Duration::from_secs(20),
        ..RetryPolicy::default()
    };
    let answered = |status, seconds: Option<u64>| {
        let retry_after = seconds.map(Duration::from_secs);
        Answer::of(Outcome::Answered { status, retry_after }, &policy)
    };
    assert_eq!(answered(204, None), WELL);
    assert_eq!(answered(429, Some(10)).pause, Some(Duration::from_secs(10)));
    assert_eq!(
        answered(503, Some(30)).pause,
        Some(policy.max),
        "no longer than a retry waits"
    );
    assert_eq!(answered(429, None), answer(Verdict::Overload));
    assert_eq!(answered(503, None), answer(Verdict::Unavailable));
    assert_eq!(answered(500, None), answer(Verdict::Error));
    assert_eq!(answered(502, None), answer(Verdict::Failure));
    assert_eq!(answered(504, None), answer(Verdict::Overload));
    assert_eq!(answered(422, None), WELL);
    for (status, pauses) in [
        (403, true),
        (500, true),
        (404, false),
        (408, false),
        (413, false),
        (425, false),
    ] {
        assert_eq!(answered(status, Some(10)).pause.is_some(), pauses, "{status}");
    }
    let failed = |error| Answer::of(Outcome::Failed(error), &policy).verdict;
    assert_eq!(failed(AttemptError::Timeout), Verdict::Overload);
    assert_eq!(failed(AttemptError::Reset), Verdict::Failure);
    assert_eq!(failed(AttemptError::AddressRefused), Verdict::Unsent);
}
