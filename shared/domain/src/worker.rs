//! The decisions of a worker that delivers: what it does about all that it hears.
//!
//! ```text
//!  leases, offers, wake-ups, rows, ──▶ on ──┐
//!  ends of attempts, results                ├──▶ effects: attempt, record, read, search, check rights
//!  rights, time ────────────────────▶ turn ─┘
//! ```
//! A [`Worker`] has no clock, no randomness and no I/O. `services/deliver` carries out its effects and tells it what
//! came of them. The model in `tests/model` does the same with a ledger in memory, and crashes, freezes or loses
//! answers between any two effects. So what the model proves is what runs.
//!
//! The worker follows the leases of its process: the lanes have a shard while the [`ShardLeases`] heard last have it,
//! at the same epoch. The epoch goes with each attempt to its outcome, however late that comes. An attempt begins
//! only while
//! - the leases run, both when it is decided and when it is carried out;
//! - the registry was compared with the ledger a moment ago, and permits it;
//! - the subscriber has not answered 410 since its subscription was last changed.
//!
//! What the registry does not permit is closed, but not before the registry was compared with the ledger once more.

mod effect;
mod leases;
mod reads;

use crate::delivery::{Attempt, Closed, Decision, Delivery, Reason, decide};
use crate::id::{DeliveryId, Shard, SubscriptionId};
use crate::lanes::{Action, Answer, LaneState, Lanes, Limits, Load, Search, Survey, Terms, Work};
use crate::rate_limit::Rate;
use crate::subscription::Subscription;
use crate::time::Timestamp;
pub use effect::{Begun, Busy, Effect, Input, NextStep, Outcome, RecordResult, Rights};
pub use leases::{ShardLeases, Uptime};
use reads::WakeupReads;
use std::collections::{HashMap, HashSet, VecDeque};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often wake-ups are looked for without a hint.
pub const WAKEUP_INTERVAL: Duration = Duration::from_millis(250);

/// The time that an outcome may take to the ledger, with one write that hangs. The next worker leaves a delivery that
/// was in flight alone for so long after its attempt must have ended. It waits in vain only if this process dies.
pub const GRACE: Duration = Duration::from_secs(10);

/// How long to wait before a failed read of the ledger is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How soon a delivery that is not permitted is looked at again. Meanwhile the registry is compared with the ledger.
const CERTAIN_AFTER: Duration = Duration::from_millis(20);

/// How long to remember that a delivery was not permitted. After that time it is closed, or gone.
const DOUBT: Duration = Duration::from_mins(1);

/// How long after its outcome was found impossible to record a delivery is attempted again.
const UNRECORDABLE: Duration = Duration::from_mins(5);

/// The longest sleep, because the clock may be set.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// The time.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// By the ledger's clock: deliveries are due and busy by it.
    pub time: Timestamp,
    /// By the process's own: leases end by it.
    pub uptime: Uptime,
}

/// A 410 that is not in the registry yet.
#[derive(Debug)]
struct Gone {
    /// The delivery that was answered so.
    delivery: DeliveryId,
    /// When the subscription was last changed, as the attempt saw it; the deactivation is a change.
    updated_at: Timestamp,
}

/// The worker of a process. `E` is what is sent.
#[derive(Debug)]
pub struct Worker<E> {
    leases: ShardLeases,
    lanes: Lanes<E>,
    /// When each attempt under way must have ended.
    under_way: HashMap<DeliveryId, Timestamp>,
    /// Subscriptions whose subscriber answered 410, until the registry knows it. Nothing more is sent to them.
    gone: HashMap<SubscriptionId, Gone>,
    /// Deliveries that the registry does not permit, and when it was first asked about each.
    doubted: HashMap<DeliveryId, Instant>,
    /// The registry's version that the lanes follow.
    followed: i64,
    /// Whether rights are being looked up.
    checking: bool,
    wakeups: WakeupReads,
    /// How often in succession the ledger was away when a lane's rows were read.
    row_reads_failed: u32,
    search: Search,
    /// Whether the last turn waited for the leases or for rights.
    waits: bool,
    stopping: bool,
}

impl<E> Worker<E> {
    /// A worker without shards.
    pub fn new(limits: Limits) -> Self {
        Self {
            leases: ShardLeases::none(),
            lanes: Lanes::new(limits),
            under_way: HashMap::new(),
            gone: HashMap::new(),
            doubted: HashMap::new(),
            followed: -1,
            checking: false,
            wakeups: WakeupReads::default(),
            row_reads_failed: 0,
            search: Search::default(),
            waits: false,
            stopping: false,
        }
    }

    /// Takes in what happened. What is to be done about it is added to `effects`, to be carried out in order.
    pub fn on(&mut self, input: Input<E>, now: Now, effects: &mut VecDeque<Effect<E>>) {
        match input {
            Input::Leases(leases) => self.follow(leases, effects),
            Input::Offered(work, mark) => self.lanes.offer(work, mark, now.time),
            Input::Noted(wakeup) => self.lanes.note(wakeup.lane, wakeup.due_at),
            Input::LookEverywhere => self.look_everywhere(effects),
            Input::WakeupsDue => self.take_wakeups(effects),
            Input::Woken { wakeups, more } => self.woken(wakeups, more, effects),
            Input::WakeupsFailed => self.wakeups_failed(effects),
            Input::Rows { lane, limit, rows } => {
                self.row_reads_failed = 0;
                self.lanes.fetched(lane, rows, limit, now.time);
                effects.push_back(Effect::Mark(self.lanes.mark()));
            }
            Input::RowsFailed { lane, is_away } => self.rows_failed(lane, is_away, now.time),
            Input::Found(lanes, progress) => self.found(lanes, &progress, effects),
            Input::SearchFailed => self.search_failed(effects),
            Input::Attempted(begun, attempt, random) => self.conclude(begun, attempt, random, now.time, effects),
            Input::Abandoned(work) => self.abandon(&work, RETRY_AFTER, now.time),
            Input::Postponed(work) => {
                self.lanes.pause(work.delivery.subscription, RETRY_AFTER, now.time);
                self.abandon(&work, RETRY_AFTER, now.time);
            }
            Input::Recorded(delivery, next, result) => self.recorded(&delivery, next, result, now.time, effects),
            Input::Unrecordable(delivery) => {
                self.not_gone(&delivery);
                self.lanes.recorded(delivery.lane(), delivery.id, None);
                self.lanes.look(delivery.lane(), now.time.plus(UNRECORDABLE));
            }
            Input::RightsChecked => self.checking = false,
            Input::Tick => {
                let now = now.uptime.instant;
                self.doubted
                    .retain(|_, since| now.saturating_duration_since(*since) < DOUBT);
            }
            Input::Stop => self.stopping = true,
        }
    }

    /// Begins what may begin now.
    pub fn turn(&mut self, rights: &impl Rights, now: Now, effects: &mut VecDeque<Effect<E>>) {
        self.waits = true;
        if !self.may_begin(now) {
            return;
        }
        if !rights.is_fresh() {
            return self.check_rights(effects);
        }
        self.waits = false;
        self.gone.retain(|id, gone| {
            rights
                .subscription(*id)
                .is_some_and(|it| it.updated_at == gone.updated_at)
        });
        if std::mem::replace(&mut self.followed, rights.version()) != rights.version() {
            self.lanes.terms_changed();
        }
        let terms_of = |id| rights.subscription(id).map_or(Terms::UNKNOWN, terms);
        for action in self.lanes.poll(now.time, terms_of) {
            match action {
                Action::Attempt(work) => self.attempt(work, rights, now, effects),
                Action::GiveUp(work) => match self.epoch(&work) {
                    Some(epoch) => effects.push_back(unsent(work, epoch, Closed::Dead, Reason::GaveUp)),
                    None => self.lanes.recorded(work.lane(), work.delivery.id, Some(now.time)),
                },
                Action::Fetch { lane, from, limit } => {
                    let scope = self.lanes.scope(lane);
                    effects.push_back(Effect::ReadRows {
                        lane,
                        from,
                        limit,
                        scope,
                    });
                }
            }
        }
    }

    /// Whether an attempt may begin now, as far as the leases say. It is asked again when an attempt is carried out,
    /// because the process may have been frozen since it was decided.
    pub fn may_begin(&self, now: Now) -> bool {
        !self.stopping && self.leases.run_at(now.uptime)
    }

    /// The deliveries of these shards that are in flight, or not known to be recorded. No other process should send
    /// them yet.
    pub fn busy(&self, shards: &HashSet<Shard>, now: Timestamp) -> Vec<Busy> {
        let until = |id| self.under_way.get(&id).map_or(now, |end| now.max(*end)).plus(GRACE);
        let busy = self.lanes.busy(shards).into_iter();
        busy.map(|(shard, delivery)| Busy {
            shard,
            delivery,
            until: until(delivery),
        })
        .collect()
    }

    /// How long there is nothing to do, if nothing is heard.
    pub fn sleep(&self, now: Timestamp) -> Duration {
        if self.waits {
            return WAKEUP_INTERVAL;
        }
        let wake = self.lanes.next_wake();
        wake.map_or(LONGEST_SLEEP, |due| due.since(now).min(LONGEST_SLEEP))
    }

    /// How full the lanes are.
    pub fn load(&self) -> Load {
        self.lanes.load()
    }

    /// Whether every attempt has ended and every outcome is recorded.
    pub fn is_drained(&self) -> bool {
        let load = self.lanes.load();
        load.in_flight == 0 && load.recording == 0
    }

    /// See [`Lanes::survey`].
    pub fn survey(&mut self, now: Timestamp) -> [Survey; LaneState::ALL.len()] {
        self.lanes.survey(now)
    }

    /// See [`Lanes::was_free_since`].
    pub fn was_free_since(&self, subscription: SubscriptionId, then: Timestamp) -> bool {
        self.lanes.was_free_since(subscription, then)
    }

    /// Makes the lanes have what this process has now. A shard at another epoch had another worker in between.
    fn follow(&mut self, leases: ShardLeases, effects: &mut VecDeque<Effect<E>>) {
        let (lost, new) = (self.leases.not_in(&leases), leases.not_in(&self.leases));
        self.leases = leases;
        if !lost.is_empty() {
            // The next worker asks the registry anew.
            self.doubted.clear();
            self.search.release(lost.iter().copied());
            self.lanes.release(lost);
        }
        if !new.is_empty() {
            self.lanes.own(new.iter().copied());
            effects.push_back(Effect::Mark(self.lanes.mark()));
            self.find_lanes(new, effects);
        }
    }

    fn attempt(&mut self, work: Work<E>, rights: &impl Rights, now: Now, effects: &mut VecDeque<Effect<E>>) {
        let Some(epoch) = self.epoch(&work) else {
            return self.lanes.abandoned(&work, now.time, now.time);
        };
        let id = work.delivery.id;
        match self.permit(rights, &work.delivery) {
            Ok(subscription) => {
                self.doubted.remove(&id);
                self.under_way.insert(id, now.time.plus(subscription.settings.timeout));
                effects.push_back(Effect::Attempt(Begun {
                    work,
                    subscription,
                    epoch,
                }));
            }
            Err((status, reason)) if self.is_certain(id, rights, now) => {
                // No randomness is needed where nobody was asked.
                let turned = self.lanes.answered(&work, Answer::UNSENT, now.time, 0.0);
                effects.extend(turned.map(|turned| Effect::BreakerTurned(work.delivery.subscription, turned)));
                effects.push_back(unsent(work, epoch, status, reason));
            }
            Err(_) => {
                self.lanes.abandoned(&work, now.time.plus(CERTAIN_AFTER), now.time);
                self.check_rights(effects);
            }
        }
    }

    /// Whether the delivery may be attempted, as far as is known here.
    fn permit(&self, rights: &impl Rights, delivery: &Delivery) -> Result<Arc<Subscription>, (Closed, Reason)> {
        if self.gone.contains_key(&delivery.subscription) {
            return Err((Closed::Cancelled, Reason::SubscriptionInactive));
        }
        rights.permit(delivery)
    }

    /// Whether it is certain that a delivery is not permitted: the registry was compared with the ledger since the
    /// question first came up. Before that, another process may have recorded the delivery after a change that this
    /// one has not heard of, such as a new subscription.
    fn is_certain(&mut self, id: DeliveryId, rights: &impl Rights, now: Now) -> bool {
        let doubted = *self.doubted.entry(id).or_insert(now.uptime.instant);
        let certain = rights.checked_at() > doubted;
        if certain {
            self.doubted.remove(&id);
        }
        certain
    }

    /// The epoch of the delivery's shard. The lanes give no delivery of a shard that has none.
    fn epoch(&self, work: &Work<E>) -> Option<i64> {
        self.leases.epoch(work.lane().shard())
    }

    fn check_rights(&mut self, effects: &mut VecDeque<Effect<E>>) {
        if !std::mem::replace(&mut self.checking, true) {
            effects.push_back(Effect::CheckRights);
        }
    }

    fn conclude(
        &mut self,
        begun: Begun<E>,
        attempt: Attempt,
        random: f64,
        now: Timestamp,
        effects: &mut VecDeque<Effect<E>>,
    ) {
        let Begun {
            work,
            subscription,
            epoch,
        } = begun;
        let (delivery, policy) = (work.delivery, &subscription.settings.retry);
        self.under_way.remove(&delivery.id);
        let answer = Answer::of(attempt.outcome, policy);
        let turned = self.lanes.answered(&work, answer, now, random);
        effects.extend(turned.map(|turned| Effect::BreakerTurned(subscription.id, turned)));
        let close = |status, reason, deactivate| NextStep::Close {
            status,
            reason,
            deactivate,
        };
        let next = match decide(&delivery, &attempt, policy, now, random) {
            Decision::Close(status, reason) => close(status, reason, None),
            Decision::CloseAndDeactivate => {
                let updated_at = subscription.updated_at;
                let gone = Gone {
                    delivery: delivery.id,
                    updated_at,
                };
                self.gone.insert(subscription.id, gone);
                close(Closed::Dead, Some(Reason::Gone), Some(updated_at))
            }
            Decision::Retry(due_at) => NextStep::Retry(due_at),
        };
        effects.push_back(Effect::Record(Outcome {
            work,
            epoch,
            attempt: Some(attempt),
            next,
        }));
    }

    /// Takes back an attempt without an outcome. It is not counted.
    fn abandon(&mut self, work: &Work<E>, wait: Duration, now: Timestamp) {
        self.under_way.remove(&work.delivery.id);
        self.lanes.abandoned(work, now.plus(wait), now);
    }

    fn recorded(
        &mut self,
        delivery: &Delivery,
        next: NextStep,
        result: RecordResult,
        now: Timestamp,
        effects: &mut VecDeque<Effect<E>>,
    ) {
        let lane = delivery.lane();
        match result.closes(next) {
            Some(end) => effects.push_back(Effect::Closed(end, delivery.webhook)),
            // If the answer was a 410, it did not count.
            None => self.not_gone(delivery),
        }
        let due_at = match (next, result) {
            (NextStep::Retry(due_at), RecordResult::Done | RecordResult::Corrected) => Some(due_at),
            (NextStep::Retry(_), RecordResult::Late | RecordResult::Stale) | (NextStep::Close { .. }, _) => None,
        };
        self.lanes.recorded(lane, delivery.id, due_at);
        // A late outcome may be this very one, recorded before its answer was lost, and a manual retry may have opened
        // the delivery again. After a stale one the shard, which had another worker in between, may have come back
        // meanwhile. In each case only the ledger can tell.
        if matches!(result, RecordResult::Late | RecordResult::Stale) {
            self.lanes.look(lane, now);
        }
    }

    /// Forgets a 410 that this delivery was answered with.
    fn not_gone(&mut self, delivery: &Delivery) {
        let gone = self.gone.get(&delivery.subscription);
        if gone.is_some_and(|gone| gone.delivery == delivery.id) {
            self.gone.remove(&delivery.subscription);
        }
    }
}

/// The effect of closing a delivery without an attempt.
fn unsent<E>(work: Work<E>, epoch: i64, status: Closed, reason: Reason) -> Effect<E> {
    Effect::Record(Outcome {
        work,
        epoch,
        attempt: None,
        next: NextStep::Close {
            status,
            reason: Some(reason),
            deactivate: None,
        },
    })
}

/// What a subscription says about its lane.
fn terms(subscription: &Subscription) -> Terms {
    let settings = &subscription.settings;
    Terms {
        owner: subscription.owner,
        max_in_flight: NonZeroU16::new(settings.max_in_flight).unwrap_or(NonZeroU16::MIN),
        rate: settings.rate_limit_per_second.and_then(Rate::per_second),
        give_up_after: settings.retry.give_up_after,
        changed_at: subscription.updated_at,
    }
}

#[cfg(test)]
mod tests;
