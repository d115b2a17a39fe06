//! What each guarantee means, by example.

use super::*;

pub(super) fn most(in_flight: u16) -> Terms {
    Terms {
        max_in_flight: NonZeroU16::new(in_flight).unwrap(),
        ..Terms::UNKNOWN
    }
}

pub(super) fn attempts(actions: Vec<Action<()>>) -> Vec<Work<()>> {
    let attempt = |action| match action {
        Action::Attempt(work) => Some(work),
        Action::GiveUp(_) | Action::Fetch { .. } => None,
    };
    actions.into_iter().filter_map(attempt).collect()
}

pub(super) fn fetch(lane: u8, limit: usize) -> Action<()> {
    fetch_from(lane, at(0), limit)
}

pub(super) fn fetch_from(lane: u8, from: Timestamp, limit: usize) -> Action<()> {
    Action::Fetch {
        lane: self::lane(lane),
        from,
        limit,
    }
}

fn small(lane_buffer: usize, buffered: usize) -> Lanes<()> {
    on_all_shards(Limits {
        lane_buffer,
        buffered,
        ..Limits::default()
    })
}

pub(super) fn offer(lanes: &mut Lanes<()>, n: u128, to: u8) {
    let mark = lanes.mark();
    lanes.offer(work(n, lane(to), at(0)), mark, at(0));
}

#[test]
fn a_lane_at_its_limit_does_not_hold_up_the_others() {
    let mut lanes = small(8, 100);
    for n in 0..4 {
        offer(&mut lanes, n, 1);
    }
    offer(&mut lanes, 9, 2);
    let begun = attempts(lanes.poll(at(0), |_| most(1)));
    let whose: Vec<_> = begun.iter().map(Work::lane).collect();
    assert_eq!(whose, [lane(1), lane(2)]);
    lanes.answered(&begun[1], WELL, at(0), 0.5);
    assert_eq!(lanes.poll(at(0), |_| most(1)), [], "lane 1 is still at its limit");
    lanes.answered(&begun[0], WELL, at(0), 0.5);
    assert_eq!(attempts(lanes.poll(at(0), |_| most(1))).len(), 1);
}

#[test]
fn a_fetch_brings_what_is_not_known_and_has_room_and_the_rest_is_fetched_later() {
    let mut lanes = on_all_shards(Limits {
        bytes: 80,
        ..Limits::default()
    });
    assert_eq!(
        lanes.scope(lane(1)),
        Scope {
            known: HashSet::new(),
            rows: 0,
            bytes: 1
        },
        "it does not fetch"
    );
    offer(&mut lanes, 1, 1);
    assert_eq!(attempts(lanes.poll(at(0), |_| most(1))).len(), 1);
    lanes.note(lane(1), at(0));
    let known = work(1, lane(1), at(0));
    let Action::Fetch { limit, .. } = lanes.poll(at(0), |_| most(1)).remove(0) else {
        panic!("what was noted is fetched")
    };
    assert_eq!(
        lanes.scope(lane(1)),
        Scope {
            known: HashSet::from([known.delivery.id]),
            rows: limit - 1,
            bytes: 15
        },
        "a quarter of the seven eighths that are not kept for fast ones and are free, less what it has"
    );
    let [next, later] = [2, 3].map(|n| work(n, lane(1), at(0)));
    let rows = vec![Row::Bare(known.delivery), Row::Whole(next), Row::Bare(later.delivery)];
    lanes.fetched(lane(1), rows, limit, at(0));
    assert_eq!(
        lanes.load().buffered,
        1,
        "what is known is no second time, and what has no room waits"
    );
    lanes.answered(&known, WELL, at(0), 0.5);
    lanes.recorded(lane(1), known.delivery.id, None);
    let actions = lanes.poll(at(0), |_| most(1));
    assert_eq!(actions.len(), 2, "{actions:?}");
    assert!(matches!(actions[1], Action::Fetch { .. }), "{actions:?}");
}

#[test]
fn what_was_closed_during_a_fetch_is_not_sent_again_by_its_rows() {
    let mut lanes = small(8, 100);
    let closing = work(1, lane(1), at(0));
    offer(&mut lanes, 1, 1);
    assert_eq!(attempts(lanes.poll(at(0), |_| most(1))), std::slice::from_ref(&closing));
    lanes.note(lane(1), at(0));
    assert_eq!(lanes.poll(at(0), |_| most(1)), [fetch(1, 9)]);
    let snapshot = vec![closing.clone()];
    lanes.answered(&closing, WELL, at(0), 0.5);
    lanes.recorded(lane(1), closing.delivery.id, None);
    lanes.fetched(lane(1), snapshot, 9, at(0));
    assert_eq!(lanes.poll(at(0), |_| most(1)), [fetch(1, 8)], "the ledger is asked");
    lanes.fetched(lane(1), Vec::<Work<()>>::new(), 8, at(0));
    assert_eq!(lanes.poll(at(0), |_| most(1)), []);
    assert_eq!(lanes.load().lanes, 0);
}

#[test]
fn what_is_opened_again_before_its_end_is_known_here_is_not_forgotten() {
    for recorded_first in [true, false] {
        let mut lanes = small(8, 100);
        let reopened = work(1, lane(1), at(0));
        offer(&mut lanes, 1, 1);
        assert_eq!(attempts(lanes.poll(at(0), |_| most(1))).len(), 1);
        lanes.answered(&reopened, WELL, at(0), 0.5);
        // Now its end is committed, and it is retried by hand.
        lanes.note(lane(1), at(0));
        assert_eq!(lanes.poll(at(0), |_| most(1)), [fetch(1, 9)]);
        if recorded_first {
            lanes.recorded(lane(1), reopened.delivery.id, None);
            lanes.fetched(lane(1), vec![reopened.clone()], 9, at(0));
        } else {
            lanes.fetched(lane(1), vec![reopened.clone()], 9, at(0));
            lanes.recorded(lane(1), reopened.delivery.id, None);
        }
        assert_eq!(lanes.poll(at(0), |_| most(1)), [fetch(1, 8)]);
    }
}

#[test]
fn a_retry_is_fetched_when_it_is_due_and_not_before() {
    let mut lanes = small(8, 100);
    offer(&mut lanes, 1, 1);
    let mut retried = attempts(lanes.poll(at(0), |_| most(1))).remove(0);
    lanes.answered(&retried, WELL, at(0), 0.5);
    lanes.recorded(lane(1), retried.delivery.id, Some(at(5000)));
    assert_eq!(lanes.poll(at(4999), |_| most(1)), []);
    assert_eq!(lanes.next_wake(), Some(at(5000)));
    assert_eq!(lanes.poll(at(5000), |_| most(1)), [fetch_from(1, at(5000), 8)]);
    retried.delivery.due_at = at(6000); // brought back by hand, say
    lanes.fetched(lane(1), vec![retried.clone()], 8, at(5000));
    assert_eq!(lanes.poll(at(5999), |_| most(1)), []);
    assert_eq!(lanes.poll(at(6000), |_| most(1)), [fetch_from(1, at(6000), 8)]);
    lanes.fetched(lane(1), vec![retried.clone()], 8, at(6000));
    assert_eq!(attempts(lanes.poll(at(6000), |_| most(1))), [retried]);
}

#[test]
fn what_is_noted_during_a_fetch_that_fails_is_fetched_by_the_next() {
    let mut lanes = small(8, 100);
    lanes.note(lane(1), at(0));
    assert_eq!(lanes.poll(at(0), |_| most(1)), [fetch(1, 8)]);
    lanes.note(lane(1), at(0));
    assert_eq!(lanes.poll(at(0), |_| most(1)), []);
    lanes.fetch_failed(lane(1), at(1000));
    assert_eq!(lanes.poll(at(999), |_| most(1)), [], "the ledger is left in peace");
    assert_eq!(lanes.next_wake(), Some(at(1000)));
    assert_eq!(lanes.poll(at(1000), |_| most(1)), [fetch(1, 8)]);
}

#[test]
fn a_fetch_that_finds_nothing_leaves_no_lane() {
    let mut lanes = small(8, 100);
    lanes.note(lane(1), at(0));
    assert_eq!(lanes.poll(at(0), |_| most(1)), [fetch(1, 8)]);
    lanes.fetched(lane(1), Vec::<Work<()>>::new(), 8, at(0));
    assert_eq!(lanes.poll(at(0), |_| most(1)), []);
    assert_eq!(lanes.load().lanes, 0);
}

#[test]
fn a_hand_over_that_comes_after_a_fetch_has_shown_it_is_not_sent_again() {
    let mut lanes = small(8, 100);
    let late = work(1, lane(1), at(0));
    let before_recording = lanes.mark();
    lanes.note(lane(1), at(0));
    assert_eq!(lanes.poll(at(0), |_| most(1)), [fetch(1, 8)]);
    lanes.fetched(lane(1), vec![late.clone()], 8, at(0));
    assert_eq!(attempts(lanes.poll(at(0), |_| most(1))), std::slice::from_ref(&late));
    lanes.answered(&late, WELL, at(0), 0.5);
    lanes.recorded(lane(1), late.delivery.id, None);
    lanes.offer(late, before_recording, at(0));
    assert_eq!(lanes.poll(at(0), |_| most(1)), [fetch(1, 8)], "the ledger is asked");
}

#[test]
fn a_buffer_takes_no_more_than_its_size_even_when_all_that_was_known_has_gone() {
    let mut lanes = small(4, 100);
    for n in 0..4 {
        offer(&mut lanes, n, 1);
    }
    let begun = attempts(lanes.poll(at(0), |_| most(4)));
    lanes.note(lane(1), at(0));
    assert_eq!(lanes.poll(at(0), |_| most(4)), [fetch(1, 8)]);
    for work in &begun {
        lanes.answered(work, WELL, at(0), 0.5);
        lanes.recorded(lane(1), work.delivery.id, None);
    }
    let rows = (10..18).map(|n| work(n, lane(1), at(0))).collect();
    lanes.fetched(lane(1), rows, 8, at(0));
    assert_eq!(lanes.load().buffered, 4);
    assert_eq!(lanes.oldest_due(at(0)), Some(at(0)), "the rest is noted as due");
}

#[test]
fn a_lane_with_all_in_flight_that_it_may_have_waits_for_its_subscriber() {
    let mut lanes = small(4, 100);
    offer(&mut lanes, 1, 1);
    let begun = attempts(lanes.poll(at(0), |_| most(1)));
    let state = |lanes: &mut Lanes<()>| {
        let surveys = lanes.survey(at(5));
        let (state, oldest) = surveys
            .iter()
            .find(|it| it.lanes > 0)
            .map(|it| (it.state, it.oldest_due))
            .unwrap();
        (state, oldest)
    };
    assert_eq!(state(&mut lanes), (LaneState::Free, None), "nothing more waits");
    offer(&mut lanes, 2, 1);
    assert_eq!(lanes.poll(at(0), |_| most(1)), []);
    assert_eq!(state(&mut lanes), (LaneState::Full, Some(at(0))));
    assert!(!lanes.was_free_since(lane(1).subscription(), at(5)));
    lanes.answered(&begun[0], WELL, at(6), 0.5);
    assert_eq!(
        state(&mut lanes),
        (LaneState::Free, Some(at(0))),
        "it is for this process to send it"
    );
    assert!(lanes.was_free_since(lane(1).subscription(), at(6)));
}

#[test]
fn nothing_of_a_shard_that_is_not_owned_is_taken() {
    let mut lanes: Lanes<()> = Lanes::new(Limits::default());
    offer(&mut lanes, 1, 1);
    lanes.note(lane(1), at(0));
    assert_eq!(lanes.poll(at(0), |_| most(1)), []);
    assert_eq!(lanes.next_wake(), None);
    assert_eq!(lanes.load().lanes, 0);
}

#[test]
fn what_is_in_flight_when_its_shard_is_released_is_known_until_it_is_recorded() {
    let mut lanes = small(8, 100);
    for n in 1..4 {
        offer(&mut lanes, n, 1);
    }
    let shard = lane(1).shard();
    let begun = attempts(lanes.poll(at(0), |_| most(1))).remove(0);
    lanes.release([shard]);
    assert_eq!(lanes.load().buffered, 0, "they lie in the ledger");
    assert_eq!(lanes.busy(&HashSet::from([shard])), [(shard, begun.delivery.id)]);

    lanes.own([shard]);
    lanes.note(lane(1), at(0));
    assert_eq!(lanes.poll(at(0), |_| most(2)), [fetch(1, 9)]);
    let rows = (1..4).map(|n| work(n, lane(1), at(0))).collect();
    lanes.fetched(lane(1), rows, 9, at(0));
    let next = attempts(lanes.poll(at(0), |_| most(2))).remove(0);
    assert_ne!(next.delivery.id, begun.delivery.id, "it is in flight still");
    lanes.answered(&begun, WELL, at(0), 0.5);
    lanes.recorded(lane(1), begun.delivery.id, None);
    assert_eq!(lanes.busy(&HashSet::from([shard])), [(shard, next.delivery.id)]);
}

#[test]
fn a_fetch_from_before_a_release_brings_nothing_in() {
    let mut lanes = small(8, 100);
    let shard = lane(1).shard();
    lanes.note(lane(1), at(0));
    assert_eq!(lanes.poll(at(0), |_| most(1)), [fetch(1, 8)]);
    lanes.release([shard]);
    lanes.own([shard]);
    lanes.note(lane(1), at(0));
    assert_eq!(lanes.poll(at(0), |_| most(1)), [], "one fetch at a time");
    lanes.fetched(lane(1), vec![work(1, lane(1), at(0))], 8, at(0));
    assert_eq!(
        lanes.poll(at(0), |_| most(1)),
        [fetch(1, 8)],
        "the ledger is asked again"
    );
}

#[test]
fn a_hand_over_from_before_a_release_is_looked_up() {
    let mut lanes = small(8, 100);
    let shard = lane(1).shard();
    let mark = lanes.mark();
    lanes.release([shard]);
    lanes.own([shard]);
    lanes.offer(work(1, lane(1), at(0)), mark, at(0));
    assert_eq!(
        lanes.poll(at(0), |_| most(1)),
        [fetch(1, 8)],
        "another may have sent it"
    );
}

#[test]
fn a_row_that_was_not_due_when_it_was_read_is_read_again() {
    let mut lanes = small(8, 100);
    lanes.note(lane(1), at(0));
    assert_eq!(lanes.poll(at(0), |_| most(1)), [fetch(1, 8)]);
    // In flight at a former owner until 5 s, as the ledger says; it may be closed by the time of the answer.
    lanes.fetched(lane(1), vec![work(1, lane(1), at(5000))], 8, at(6000));
    assert_eq!(lanes.poll(at(6000), |_| most(1)), []);
    let again = lanes.next_wake().unwrap();
    assert!(again <= at(6100), "it is read again at {again}");
    assert_eq!(lanes.poll(again, |_| most(1)), [fetch_from(1, at(5000), 8)]);
}

#[test]
fn retries_that_fall_due_one_by_one_are_read_several_at_a_time() {
    let mut lanes = on_all_shards(Limits::default());
    let mut ledger: Vec<Work<()>> = (1..=1000)
        .map(|n| {
            let mut retry = work(n, lane(1), at(u64::try_from(n).unwrap()));
            retry.delivery.attempts = 1;
            retry
        })
        .collect();
    lanes.note(lane(1), at(1));
    let (mut reads, mut sent, mut latest) = (0, 0, Duration::ZERO);
    for millis in 1..=1100 {
        let mut actions = lanes.poll(at(millis), |_| most(1000));
        while !actions.is_empty() {
            for action in actions {
                match action {
                    Action::Fetch {
                        lane: lane_id,
                        from,
                        limit,
                    } => {
                        reads += 1;
                        let open = ledger.iter().filter(|work| work.delivery.due_at >= from);
                        let due = open.clone().filter(|work| work.delivery.due_at <= at(millis)).count();
                        let rows = open.take((due + 1).min(limit)).cloned().collect::<Vec<_>>();
                        lanes.fetched(lane_id, rows, limit, at(millis));
                    }
                    Action::Attempt(work) => {
                        sent += 1;
                        latest = latest.max(at(millis).since(work.delivery.due_at));
                        ledger.retain(|open| open.delivery.id != work.delivery.id);
                        lanes.answered(&work, WELL, at(millis), 0.5);
                        lanes.recorded(work.lane(), work.delivery.id, None);
                    }
                    Action::GiveUp(work) => panic!("{work:?}"),
                }
            }
            actions = lanes.poll(at(millis), |_| most(1000));
        }
    }
    assert_eq!(sent, 1000);
    assert!(reads <= 25, "{reads} reads");
    assert!(latest <= Duration::from_millis(60), "one was sent {latest:?} late");
}
