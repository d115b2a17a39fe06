use super::*;
use crate::access::OPERATOR;
use crate::address::EgressPolicy;
use crate::catalogue::{Catalogue, ObjectType, Webhook};
use crate::delivery::Outcome as Came;
use crate::id::ObjectGuid;
use crate::index::{Interest, Topic};
use crate::lanes::{LaneId, Wakeup};
use crate::message::Format;
use crate::signing::SigningKey;
use crate::subscription::parse;
use uuid::Uuid;

const TO: SubscriptionId = SubscriptionId(Uuid::nil());

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_micros(1_800_000_000_000_000).plus(Duration::from_secs(seconds))
}

/// A registry with one subscription, which may be inactive, and the moment of its comparison.
struct Registry {
    subscription: Arc<Subscription>,
    checked_at: Instant,
    is_fresh: bool,
}

impl Rights for Registry {
    fn version(&self) -> i64 {
        1
    }

    fn is_fresh(&self) -> bool {
        self.is_fresh
    }

    fn checked_at(&self) -> Instant {
        self.checked_at
    }

    fn subscription(&self, _id: SubscriptionId) -> Option<&Subscription> {
        Some(&self.subscription)
    }

    fn permit(&self, _delivery: &Delivery) -> Result<Arc<Subscription>, (Closed, Reason)> {
        if self.subscription.settings.active {
            Ok(Arc::clone(&self.subscription))
        } else {
            Err((Closed::Cancelled, Reason::SubscriptionInactive))
        }
    }
}

/// A worker that has the shard of the subscription, until second 15.
struct Rig {
    worker: Worker<()>,
    registry: Registry,
    began: Instant,
    effects: VecDeque<Effect<()>>,
}

impl Rig {
    fn new() -> Self {
        let began = Instant::now();
        let body = serde_json::json!({"EventTypes": ["*"], "SubscriberURL": "https://a.example/", "TimeoutSeconds": 5});
        let mut settings = parse(&body, &Catalogue::default(), &EgressPolicy::default())
            .unwrap()
            .settings;
        settings.interest = Interest::Webhook(Topic {
            webhook: Webhook::PacketCreated,
            object_type: ObjectType::COMPANY,
            object: Some(ObjectGuid(Uuid::nil())),
        });
        settings.format = Format::Enate;
        let key = SigningKey::from_bytes(vec![1; 32]);
        let subscription = Arc::new(Subscription::new(TO, OPERATOR, settings, key, at(0)));
        let mut rig = Self {
            worker: Worker::new(Limits::default()),
            registry: Registry {
                subscription,
                checked_at: began,
                is_fresh: true,
            },
            began,
            effects: VecDeque::new(),
        };
        rig.lease(0, 7);
        rig
    }

    /// The shard is had at that epoch, until second 15.
    fn lease(&mut self, seconds: u64, epoch: i64) {
        let until = self.now(15).uptime;
        let epochs = HashMap::from([(Shard::of(TO), epoch)]);
        self.hear(seconds, Input::Leases(ShardLeases::until(Uuid::nil(), epochs, until)));
    }

    fn now(&self, seconds: u64) -> Now {
        Now {
            time: at(seconds),
            uptime: Uptime {
                instant: self.began + Duration::from_secs(seconds),
                slept: Duration::ZERO,
            },
        }
    }

    fn hear(&mut self, seconds: u64, input: Input<()>) -> Vec<Effect<()>> {
        self.worker.on(input, self.now(seconds), &mut self.effects);
        self.effects.drain(..).collect()
    }

    fn turn(&mut self, seconds: u64) -> Vec<Effect<()>> {
        self.worker.turn(&self.registry, self.now(seconds), &mut self.effects);
        self.effects.drain(..).collect()
    }

    fn offer(&mut self, seconds: u64, n: u128) {
        let delivery = Delivery {
            id: DeliveryId(Uuid::from_u128(n)),
            subscription: TO,
            webhook: Webhook::PacketCreated,
            attempts: 0,
            due_at: at(seconds),
            created_at: at(seconds),
            opened_at: at(seconds),
            opened_version: 1,
        };
        let work = Work {
            delivery,
            payload: (),
            bytes: 1,
        };
        let mark = self.worker.lanes.mark();
        assert!(self.hear(seconds, Input::Offered(work, mark)).is_empty());
    }

    /// The attempt that begins with this turn.
    fn begun(&mut self, seconds: u64) -> Begun<()> {
        let mut effects = self.turn(seconds).into_iter();
        match effects.find(|effect| matches!(effect, Effect::Attempt(_))) {
            Some(Effect::Attempt(begun)) => begun,
            other => panic!("{other:?}"),
        }
    }

    /// The outcome of the attempt that is answered so.
    fn answer(&mut self, seconds: u64, begun: Begun<()>, status: u16) -> Outcome<()> {
        let attempt = Attempt {
            number: 1,
            at: at(seconds),
            duration: Duration::ZERO,
            outcome: Came::Answered {
                status,
                retry_after: None,
            },
            detail: None,
        };
        match self.hear(seconds, Input::Attempted(begun, attempt, 0.5)).pop() {
            Some(Effect::Record(outcome)) => outcome,
            other => panic!("{other:?}"),
        }
    }

    fn record(&mut self, seconds: u64, outcome: &Outcome<()>, result: RecordResult) -> Vec<Effect<()>> {
        self.hear(seconds, Input::Recorded(outcome.work.delivery, outcome.next, result))
    }
}

#[test]
fn a_delivery_is_sent_and_its_outcome_recorded_at_the_epoch_of_its_attempt() {
    let mut rig = Rig::new();
    rig.offer(1, 1);
    let begun = rig.begun(1);
    assert_eq!(begun.epoch, 7);
    let busy = rig.worker.busy(&HashSet::from([Shard::of(TO)]), at(2));
    let until = at(1).plus(Duration::from_secs(5) + GRACE);
    assert_eq!((busy.len(), busy[0].until), (1, until));
    rig.hear(3, Input::Leases(ShardLeases::none()));
    rig.lease(3, 9);
    let outcome = rig.answer(3, begun, 200);
    assert_eq!(
        outcome.epoch, 7,
        "however late it comes, and though the shard is back since"
    );
    let closed = rig.record(4, &outcome, RecordResult::Done);
    assert!(matches!(
        closed[..],
        [Effect::Closed(Closed::Delivered, Webhook::PacketCreated)]
    ));
    assert!(rig.worker.is_drained());
}

#[test]
fn nothing_begins_when_the_lease_has_ended_or_rights_are_old() {
    let mut rig = Rig::new();
    rig.offer(1, 1);
    rig.registry.is_fresh = false;
    assert!(matches!(rig.turn(1)[..], [Effect::CheckRights]));
    assert!(rig.turn(1).is_empty(), "they are looked up once at a time");
    assert_eq!(rig.worker.sleep(at(1)), WAKEUP_INTERVAL);
    rig.hear(2, Input::RightsChecked);
    rig.registry.is_fresh = true;
    assert!(rig.turn(15).is_empty(), "the lease has ended");
    let begun = rig.begun(14);
    assert!(!rig.worker.may_begin(rig.now(15)), "it has ended since");
    rig.hear(15, Input::Abandoned(begun.work));
    rig.hear(15, Input::Stop);
    assert!(!rig.worker.may_begin(rig.now(1)), "the process ends");
}

#[test]
fn after_410_nothing_more_is_sent_until_the_subscription_is_changed() {
    let mut rig = Rig::new();
    rig.offer(1, 1);
    let begun = rig.begun(1);
    let gone = rig.answer(1, begun, 410);
    assert!(matches!(
        gone.next,
        NextStep::Close { status: Closed::Dead, deactivate: Some(updated_at), .. } if updated_at == at(0)
    ));
    rig.offer(2, 2);
    assert!(matches!(rig.turn(2)[..], [Effect::CheckRights]), "it is not sent");
    rig.hear(2, Input::RightsChecked);
    rig.registry.checked_at = rig.began + Duration::from_secs(3);
    // The answer did not count: the shard had another worker by then.
    rig.record(3, &gone, RecordResult::Stale);
    rig.offer(3, 3);
    assert_eq!(rig.begun(3).work.delivery.id, DeliveryId(Uuid::from_u128(3)));
}

#[test]
fn what_is_not_permitted_is_closed_once_that_is_certain() {
    let mut rig = Rig::new();
    Arc::make_mut(&mut rig.registry.subscription).settings.active = false;
    rig.offer(1, 1);
    assert!(
        matches!(rig.turn(1)[..], [Effect::CheckRights]),
        "another process may know more"
    );
    rig.hear(2, Input::RightsChecked);
    rig.registry.checked_at = rig.began + Duration::from_secs(2);
    let Some(Effect::ReadRows { lane, limit, .. }) = rig.turn(3).pop() else {
        panic!("the ledger has it");
    };
    rig.hear(
        3,
        Input::Rows {
            lane,
            limit,
            rows: Vec::new(),
        },
    );
    rig.offer(4, 1);
    match rig.turn(4).pop() {
        Some(Effect::Record(Outcome { attempt, next, .. })) => {
            let closed = RecordResult::Done.closes(next);
            assert_eq!((attempt.is_none(), closed), (true, Some(Closed::Cancelled)));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn wake_ups_are_read_one_after_the_other_and_all_lanes_are_looked_up_if_some_may_be_lost() {
    let mut rig = Rig::new();
    let none = || Input::Woken {
        wakeups: Vec::new(),
        more: false,
    };
    let takes = |effects: &[Effect<()>]| matches!(effects, [Effect::TakeWakeups(_)]);
    assert!(takes(&rig.hear(1, Input::WakeupsDue)));
    assert!(rig.hear(1, Input::WakeupsDue).is_empty());
    assert!(takes(&rig.hear(1, none())), "there was a hint meanwhile");
    let wakeups = vec![Wakeup {
        lane: LaneId::of(TO),
        due_at: at(1),
    }];
    assert!(takes(&rig.hear(1, Input::Woken { wakeups, more: true })));
    assert!(
        rig.turn(1)
            .iter()
            .any(|effect| matches!(effect, Effect::ReadRows { .. }))
    );
    // The search for the lanes of the new shard is under way since the beginning.
    let all = |rig: &mut Rig| {
        let progress = crate::lanes::Progress {
            ended: Shard::all().collect(),
            ..Default::default()
        };
        rig.hear(2, Input::Found(Vec::new(), progress))
    };
    assert!(all(&mut rig).is_empty());
    assert!(matches!(rig.hear(2, Input::WakeupsFailed)[..], [Effect::Search(_)]));
}

#[test]
fn after_a_stale_outcome_the_ledger_is_read() {
    let mut rig = Rig::new();
    rig.offer(1, 1);
    let begun = rig.begun(1);
    let failed = rig.answer(1, begun, 500);
    assert!(matches!(failed.next, NextStep::Retry(_)));
    rig.record(2, &failed, RecordResult::Stale);
    let reads = rig.turn(2);
    assert!(matches!(reads[..], [Effect::ReadRows { .. }]));
    rig.hear(
        2,
        Input::RowsFailed {
            lane: LaneId::of(TO),
            is_away: true,
        },
    );
}
