//! The task around the worker: it carries out the effects, tells what came of them, and checks what they would break.

use super::{MOST_WAKEUPS, Move, Outside, Process, work};
use crate::ensure;
use crate::ledger::{Epoch, Ledger};
use crate::registry::{Consulted, MAX_AGE};
use herald_domain::delivery::{Attempt, Closed, Delivery, Outcome as Came};
use herald_domain::id::{DeliveryId, Shard, SubscriptionId};
use herald_domain::lanes::{LaneId, Page, Progress, Row, Scope, Wakeup};
use herald_domain::time::Timestamp;
use herald_domain::worker::{Begun, Busy, Effect, GRACE, Input, Outcome, RecordResult, ShardLeases, Uptime};
use std::collections::{BTreeMap, HashSet};
use uuid::Uuid;

/// A request that is not answered yet.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) begun: Begun<Epoch>,
    pub(super) began: Timestamp,
    pub(super) generation: u32,
}

/// An outcome on its way into the ledger.
#[derive(Debug)]
pub(super) struct PendingOutcome {
    outcome: Outcome<Epoch>,
    answered: Timestamp,
    pub(super) result: Option<RecordResult>,
}

/// A read of a lane under way. The rows are those of the moment at which the ledger answered.
#[derive(Debug)]
pub(super) struct RowsRead {
    lane: LaneId,
    from: Timestamp,
    limit: usize,
    scope: Scope,
    pub(super) rows: Option<Vec<Row<Epoch>>>,
}

#[derive(Debug, Default)]
pub(super) struct WakeupsRead {
    pub(super) taken: Option<Vec<Wakeup>>,
}

#[derive(Debug)]
pub(super) struct PageRead {
    page: Page,
    pub(super) found: Option<(Vec<Wakeup>, Progress)>,
}

/// The processes that heard 410 of a subscriber, each with the delivery that was answered so and the time of the
/// subscription's last change before.
pub(crate) type GoneSubscribers = BTreeMap<(u32, SubscriptionId), (DeliveryId, Timestamp)>;

impl Process {
    pub(super) fn deliver(&mut self, what: Move, outside: &mut Outside<'_>, dice: u16) -> Result<(), String> {
        let ledger = &mut *outside.ledger;
        match what {
            Move::Turn => return self.turn(outside, dice),
            Move::Follow => self.follow(ledger),
            Move::TakeOffers => {
                for input in self.hand_over.take() {
                    self.hear(input, ledger);
                }
            }
            Move::WakeupsDue => self.hear(Input::WakeupsDue, ledger),
            Move::Tick => self.hear(Input::Tick, ledger),
            Move::RightsChecked => {
                ledger.refresh(&mut self.registry);
                self.checking_rights = false;
                self.hear(Input::RightsChecked, ledger);
            }
            Move::TakeWakeups => {
                if let Some(read) = &mut self.wakeups {
                    read.taken = Some(ledger.take_wakeups(self.id));
                }
            }
            Move::Woken => {
                let wakeups = self.wakeups.take().and_then(|read| read.taken).unwrap_or_default();
                let more = wakeups.len() >= MOST_WAKEUPS;
                self.hear(Input::Woken { wakeups, more }, ledger);
            }
            Move::WakeupsFailed => {
                self.wakeups = None;
                self.hear(Input::WakeupsFailed, ledger);
            }
            Move::ReadPage => {
                if let Some(read) = &mut self.page {
                    read.found = Some(ledger.open_lanes(&read.page));
                }
            }
            Move::Found => {
                if let Some((lanes, progress)) = self.page.take().and_then(|read| read.found) {
                    self.hear(Input::Found(lanes, progress), ledger);
                }
            }
            Move::SearchFailed => {
                self.page = None;
                self.hear(Input::SearchFailed, ledger);
            }
            Move::Read(i) => self.reads[i].answer(ledger),
            Move::Rows(i) => {
                let RowsRead { lane, limit, rows, .. } = self.reads.remove(i);
                let rows = rows.unwrap_or_default();
                self.hear(Input::Rows { lane, limit, rows }, ledger);
            }
            Move::RowsFailed(i) => {
                let lane = self.reads.remove(i).lane;
                let is_away = dice.is_multiple_of(2);
                self.hear(Input::RowsFailed { lane, is_away }, ledger);
            }
            Move::Answer(i) => self.answer(i, outside, dice),
            Move::Abandon(i) | Move::Postpone(i) => {
                let Request { begun, generation, .. } = self.requests.remove(i);
                let work = begun.work;
                outside.subscribers.forget(work.delivery.id, begun.epoch, generation);
                let input = match what {
                    Move::Abandon(_) => Input::Abandoned(work),
                    _ => Input::Postponed(work),
                };
                self.hear(input, ledger);
            }
            Move::RecordOutcome(i) | Move::RecordOutcomeUnheard(i) => {
                let result = self.record(i, outside)?;
                if matches!(what, Move::RecordOutcome(_)) {
                    self.outcomes[i].result = Some(result);
                }
            }
            Move::Recorded(i) => {
                let PendingOutcome { outcome, result, .. } = self.outcomes.remove(i);
                let (delivery, result) = (outcome.work.delivery, result.unwrap_or(RecordResult::Stale));
                if result.closes(outcome.next).is_none() {
                    let gone = &mut *outside.gone;
                    gone.retain(|(process, _), (id, _)| *process != self.id.0 || *id != delivery.id);
                }
                self.hear(Input::Recorded(delivery, outcome.next, result), ledger);
            }
            Move::CarryOn => self.carry_out_one(outside)?,
            _ => {}
        }
        let is_heard = !matches!(
            what,
            Move::TakeWakeups | Move::ReadPage | Move::Read(_) | Move::RecordOutcome(_) | Move::RecordOutcomeUnheard(_)
        );
        if !is_heard {
            return Ok(());
        }
        self.carry_on(outside, dice)?;
        // Whatever was heard, a turn follows, unless the process is frozen in between.
        if self.effects.is_empty() && dice % 8 != 5 {
            self.turn(outside, dice / 8)?;
        }
        Ok(())
    }

    /// The worker hears something. Its effects are carried out after what is left of others.
    fn hear(&mut self, input: Input<Epoch>, ledger: &Ledger) {
        self.worker.on(input, ledger.clocks(), &mut self.effects);
    }

    fn follow(&mut self, ledger: &Ledger) {
        if std::mem::take(&mut self.keeper.unheard) {
            let epochs = self
                .keeper
                .epochs
                .iter()
                .map(|(shard, epoch)| (*shard, *epoch))
                .collect();
            let now = ledger.clocks();
            let left = self.keeper.until.since(now.time);
            let ended = now.time.since(self.keeper.until);
            let instant = (now.uptime.instant + left).checked_sub(ended);
            let until = Uptime {
                instant: instant.unwrap_or(now.uptime.instant),
                ..now.uptime
            };
            self.hear(
                Input::Leases(ShardLeases::until(Uuid::from_u128(self.id.0.into()), epochs, until)),
                ledger,
            );
        }
    }

    /// What the worker has in flight of these shards, once it has heard of the leases as they are.
    pub(super) fn busy(&mut self, shards: &HashSet<Shard>, ledger: &Ledger) -> Vec<Busy> {
        self.follow(ledger);
        self.worker.busy(shards, ledger.now)
    }

    fn turn(&mut self, outside: &mut Outside<'_>, dice: u16) -> Result<(), String> {
        if dice % 8 != 7 {
            // The registry is compared every quarter of a second, by itself.
            outside.ledger.refresh(&mut self.registry);
        }
        let now = outside.ledger.clocks();
        let rights = Consulted(&self.registry, now.uptime.instant);
        self.worker.turn(&rights, now, &mut self.effects);
        for effect in &self.effects {
            if let Effect::Attempt(begun) = effect {
                self.check_rights(begun, outside)?;
            }
        }
        self.carry_on(outside, dice)
    }

    /// Whether the attempt was decided by rights that were right a moment ago.
    fn check_rights(&self, begun: &Begun<Epoch>, outside: &Outside<'_>) -> Result<(), String> {
        let (delivery, ledger) = (&begun.work.delivery, &*outside.ledger);
        let changed_at = ledger.subscriptions[&delivery.subscription].updated_at;
        ensure!(
            ledger.permits(delivery) || changed_at.plus(MAX_AGE) >= ledger.now,
            "{} is sent, and its subscription was deactivated long ago",
            delivery.id
        );
        let gone = outside.gone.get(&(self.id.0, delivery.subscription));
        ensure!(
            gone.is_none_or(|(_, updated_at)| *updated_at != changed_at),
            "{} is sent, and its subscriber has answered 410",
            delivery.id
        );
        Ok(())
    }

    /// Carries out what is to be done; with faults, the process may be frozen before, in between.
    pub(super) fn carry_on(&mut self, outside: &mut Outside<'_>, dice: u16) -> Result<(), String> {
        let mut left = if self.faults && dice.is_multiple_of(4) {
            usize::from(dice / 4) % 3
        } else {
            usize::MAX
        };
        while left > 0
            && let Some(effect) = self.effects.pop_front()
        {
            left -= 1;
            self.carry_out(effect, outside)?;
        }
        Ok(())
    }

    fn carry_out_one(&mut self, outside: &mut Outside<'_>) -> Result<(), String> {
        match self.effects.pop_front() {
            Some(effect) => self.carry_out(effect, outside),
            None => Ok(()),
        }
    }

    fn carry_out(&mut self, effect: Effect<Epoch>, outside: &mut Outside<'_>) -> Result<(), String> {
        let now = outside.ledger.now;
        match effect {
            Effect::Attempt(begun) => {
                if !self.worker.may_begin(outside.ledger.clocks()) {
                    self.hear(Input::Abandoned(begun.work), outside.ledger);
                    return Ok(());
                }
                return self.begin(begun, outside);
            }
            Effect::Record(outcome) => self.outcomes.push(PendingOutcome {
                outcome,
                answered: now,
                result: None,
            }),
            Effect::ReadRows {
                lane,
                from,
                limit,
                scope,
            } => self.reads.push(RowsRead {
                lane,
                from,
                limit,
                scope,
                rows: None,
            }),
            Effect::TakeWakeups(_) => {
                ensure!(self.wakeups.is_none(), "wake-ups are read twice at a time");
                self.wakeups = Some(WakeupsRead::default());
            }
            Effect::Search(page) => {
                ensure!(self.page.is_none(), "two searches at a time");
                self.page = Some(PageRead { page, found: None });
            }
            Effect::CheckRights => self.checking_rights = true,
            Effect::Mark(mark) => self.hand_over.mark = mark,
            Effect::Closed(..) | Effect::BreakerTurned(..) => {}
        }
        Ok(())
    }

    /// A request begins: its sender has the shard, in the ledger too, and nobody else has sent the delivery.
    fn begin(&mut self, begun: Begun<Epoch>, outside: &mut Outside<'_>) -> Result<(), String> {
        let ledger = &*outside.ledger;
        let Delivery {
            id,
            subscription,
            attempts,
            ..
        } = begun.work.delivery;
        ensure!(begun.epoch == begun.work.payload, "{id} was read at another epoch");
        ensure!(
            ledger.owns(self.id, Shard::of(subscription), begun.epoch),
            "{id} is sent by a process that does not have its shard any more"
        );
        if let Some(row) = ledger.open.get(&id) {
            ensure!(row.delivery.due_at <= ledger.now, "{id} is not due");
            ensure!(row.busy_until <= ledger.now, "{id} is reserved for a former worker");
            ensure!(
                row.delivery.attempts == attempts,
                "{id} was attempted by somebody else at this epoch"
            );
        }
        let generation = ledger.generation(id);
        outside.subscribers.begin(id, begun.epoch, generation, self.faults)?;
        self.requests.push(Request {
            begun,
            began: ledger.now,
            generation,
        });
        Ok(())
    }

    fn answer(&mut self, i: usize, outside: &mut Outside<'_>, dice: u16) {
        let Request {
            begun,
            began,
            generation,
        } = self.requests.remove(i);
        let delivery = begun.work.delivery;
        let outcome = outside.subscribers.answer(delivery.id, begun.epoch, generation, dice);
        if matches!(outcome, Came::Answered { status: 410, .. }) {
            let key = (self.id.0, delivery.subscription);
            outside.gone.insert(key, (delivery.id, begun.subscription.updated_at));
        }
        let attempt = Attempt {
            number: delivery.attempts + 1,
            at: began,
            duration: outside.ledger.now.since(began),
            outcome,
            detail: None,
        };
        let random = f64::from(dice % 8) / 8.0;
        self.hear(Input::Attempted(begun, attempt, random), outside.ledger);
    }

    /// The outcome reaches the ledger.
    fn record(&self, i: usize, outside: &mut Outside<'_>) -> Result<RecordResult, String> {
        let ledger = &mut *outside.ledger;
        let Outcome {
            work,
            epoch,
            attempt,
            next,
        } = &self.outcomes[i].outcome;
        let Delivery { id, subscription, .. } = work.delivery;
        let is_success = attempt.as_ref().is_some_and(|attempt| attempt.outcome.is_success());
        let busy = ledger.is_busy(id);
        let owns = ledger.owns(self.id, Shard::of(subscription), *epoch);
        let permitted = ledger.permits(&work.delivery) && ledger.open.contains_key(&id);
        let result = ledger.record_outcome(self.id, *epoch, &work.delivery, attempt.as_ref(), *next);
        ensure!(
            is_success || busy || owns || result == RecordResult::Stale,
            "promise 4: a failure of an old epoch counted for {id}"
        );
        ensure!(
            self.faults || !busy || result != RecordResult::Stale,
            "promise 4: an attempt at {id} that was handed over does not count"
        );
        ensure!(
            ledger
                .open
                .get(&id)
                .is_none_or(|row| row.delivery.attempts <= outside.subscribers.begun(id)),
            "promise 4: an attempt at {id} was counted twice"
        );
        ensure!(
            !is_success || !ledger.open.contains_key(&id),
            "promise 4: a success did not count for {id}"
        );
        let cancels = result.closes(*next) == Some(Closed::Cancelled);
        let gone = outside.gone.contains_key(&(self.id.0, subscription));
        ensure!(
            !cancels || !permitted || gone,
            "{id} was cancelled, and its subscription wants it"
        );
        if is_success {
            outside.subscribers.recorded.insert(id);
        }
        Ok(result)
    }

    /// What a healthy process must have done by then: requests time out, and outcomes are recorded.
    pub(crate) fn overdue(&self, by: Timestamp) -> Option<Move> {
        let timed_out = |it: &Request| it.began.plus(it.begun.subscription.settings.timeout) <= by;
        let request = self.requests.iter().position(timed_out);
        let unrecorded = |it: &PendingOutcome| it.result.is_none() && it.answered.plus(GRACE) <= by;
        let outcome = self.outcomes.iter().position(unrecorded);
        request.map(Move::Answer).or_else(|| outcome.map(Move::RecordOutcome))
    }
}

impl RowsRead {
    /// The ledger answers: each row whole, or bare if it is outside of the scope.
    fn answer(&mut self, ledger: &Ledger) {
        let epoch = ledger.epoch(self.lane.shard());
        let mut whole = self.scope.rows;
        let row = |delivery: Delivery| {
            if whole == 0 || self.scope.known.contains(&delivery.id) {
                return Row::Bare(delivery);
            }
            whole -= 1;
            Row::Whole(work(delivery, epoch))
        };
        let rows = ledger.open_deliveries(self.lane, self.from, self.limit);
        self.rows = Some(rows.into_iter().map(row).collect());
    }
}
