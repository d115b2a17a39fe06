//! Dispatch, and the hand-over of what it recorded to the worker.

use super::{Move, Process, work};
use crate::ledger::{Epoch, Key, Ledger, Plan};
use crate::outside::{Message, Queue, Tag};
use herald_domain::delivery::Delivery;
use herald_domain::id::EventUid;
use herald_domain::lanes::{ReadMark, Wakeup};
use herald_domain::worker::Input;

const BATCH: usize = 3;

/// The most deliveries that wait in the hand-over.
const MAX_WAITING: usize = 3;

/// Where a batch stands.
#[derive(Debug)]
pub(super) enum Dispatch {
    Idle,
    Pulled(Vec<Message>),
    /// With the version of the registry that was matched against, which is not always the newest here.
    Matched(Vec<Message>, Vec<Plan>, i64, ReadMark),
    Recorded(Batch),
    Acknowledged(Batch),
}

#[derive(Debug)]
pub(super) struct Batch {
    complete: Vec<Tag>,
    again: Vec<Message>,
    offers: Vec<(Delivery, Epoch)>,
    mark: ReadMark,
}

/// What was handed over and waits to be taken.
#[derive(Debug, Default)]
pub(super) struct HandOver {
    /// The mark that dispatch draws.
    pub(super) mark: ReadMark,
    offers: Vec<(Delivery, Epoch, ReadMark)>,
    behind: Vec<Wakeup>,
    look_everywhere: bool,
}

impl HandOver {
    pub(super) fn is_empty(&self) -> bool {
        self.offers.is_empty() && self.behind.is_empty() && !self.look_everywhere
    }

    /// What the worker is told of it.
    pub(super) fn take(&mut self) -> Vec<Input<Epoch>> {
        let waiting = std::mem::take(self);
        self.mark = waiting.mark;
        let offers = waiting.offers.into_iter();
        let offers = offers.map(|(delivery, epoch, mark)| Input::Offered(work(delivery, epoch), mark));
        let everywhere = waiting.look_everywhere.then_some(Input::LookEverywhere);
        offers
            .chain(waiting.behind.into_iter().map(Input::Noted))
            .chain(everywhere)
            .collect()
    }
}

impl Dispatch {
    pub(super) fn pending(&self, moves: &mut Vec<Move>, faults: bool) {
        match self {
            Self::Idle => {}
            Self::Pulled(_) => moves.push(Move::Match),
            Self::Matched(..) => {
                moves.push(Move::Record);
                moves.extend(faults.then_some(Move::RecordUnheard));
            }
            Self::Recorded(_) => moves.push(Move::Acknowledge),
            Self::Acknowledged(_) => moves.push(Move::HandOver),
        }
    }
}

impl Process {
    pub(super) fn dispatch(&mut self, what: Move, ledger: &mut Ledger, queue: &mut Queue, dice: u16) {
        self.dispatch = match std::mem::replace(&mut self.dispatch, Dispatch::Idle) {
            Dispatch::Idle if matches!(what, Move::Sweep) => {
                let key = ledger.incomplete();
                Dispatch::Pulled(key.map(|key| Message { tag: None, key }).into_iter().collect())
            }
            Dispatch::Idle => Dispatch::Pulled(queue.pull(self.id, BATCH, dice.into())),
            Dispatch::Pulled(messages) => {
                let mark = self.hand_over.mark;
                let plans = messages
                    .iter()
                    .enumerate()
                    .map(|(i, message)| self.plan(message.key, ledger, i))
                    .collect();
                Dispatch::Matched(messages, plans, self.registry.version, mark)
            }
            Dispatch::Matched(messages, plans, version, mark) => {
                let Some(recorded) = ledger.record(self.id, &self.keeper.epochs, version, &plans) else {
                    ledger.refresh(&mut self.registry);
                    self.dispatch = Dispatch::Pulled(messages);
                    return;
                };
                if matches!(what, Move::RecordUnheard) {
                    // Nobody will hand over what was recorded for the shards of this process, and the repetition
                    // inserts nothing: only reading them again finds it.
                    self.hand_over.look_everywhere = true;
                    self.dispatch = Dispatch::Pulled(messages);
                    return;
                }
                let mut batch = Batch {
                    complete: Vec::new(),
                    again: Vec::new(),
                    offers: Vec::new(),
                    mark,
                };
                for (message, recorded) in messages.into_iter().zip(recorded) {
                    batch.offers.extend(recorded.mine);
                    if recorded.complete {
                        batch.complete.extend(message.tag);
                    } else {
                        batch.again.push(message);
                    }
                }
                Dispatch::Recorded(batch)
            }
            Dispatch::Recorded(batch) => {
                for tag in &batch.complete {
                    queue.acknowledge(self.id, *tag);
                }
                Dispatch::Acknowledged(batch)
            }
            Dispatch::Acknowledged(batch) => {
                for (delivery, epoch) in batch.offers {
                    if self.hand_over.offers.len() < MAX_WAITING {
                        self.hand_over.offers.push((delivery, epoch, batch.mark));
                    } else {
                        self.hand_over.behind.push(Wakeup {
                            lane: delivery.lane(),
                            due_at: delivery.due_at,
                        });
                    }
                }
                if batch.again.is_empty() {
                    Dispatch::Idle
                } else {
                    Dispatch::Pulled(batch.again)
                }
            }
        }
    }

    fn plan(&self, key: Key, ledger: &Ledger, nth: usize) -> Plan {
        let content = crate::outside::content_of(key);
        let unique = (u128::from(self.id.0) << 64)
            | u128::from(ledger.now.as_micros().unsigned_abs().wrapping_mul(4) + nth as u64);
        let mut random = [0; 10];
        random.copy_from_slice(&unique.to_be_bytes()[6..]);
        let uid = uuid::Builder::from_unix_timestamp_millis(ledger.now.as_unix_millis(), &random).into_uuid();
        Plan {
            key,
            known: ledger.look_up(key),
            new_uid: EventUid(uid),
            matches: self.registry.index.matches(&content.kind, &content.objects),
        }
    }
}
