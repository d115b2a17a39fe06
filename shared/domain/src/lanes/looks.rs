//! Which deliveries may have been brought here by reads of the ledger.

use crate::time::Timestamp;
use std::collections::VecDeque;

/// A moment in the life of the lanes; see [`super::Lanes::ticket`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub(super) u64);

/// How many reads are remembered one by one: as many as end while a transaction lasts.
const REMEMBERED: usize = 16;

/// The reads of a lane's rows that have ended.
#[derive(Debug, Default)]
pub(super) struct Looks {
    /// When the last ended that may have shown anything.
    whole: Ticket,
    /// When those since ended that showed nothing due after a time, and that time.
    partial: VecDeque<(Ticket, Timestamp)>,
}

impl Looks {
    /// Of a lane of which it is not known what was shown before that moment.
    pub(super) fn since(moment: Ticket) -> Self {
        Self {
            whole: moment,
            partial: VecDeque::new(),
        }
    }

    /// A read ended at that moment. If there were more rows than it was to read, it showed none that is due
    /// after the last that it did show.
    pub(super) fn ended(&mut self, moment: Ticket, up_to: Option<Timestamp>) {
        match up_to {
            None => *self = Self::since(moment),
            Some(up_to) => {
                if self.partial.len() >= REMEMBERED
                    && let Some((moment, _)) = self.partial.pop_front()
                {
                    self.whole = moment;
                }
                self.partial.push_back((moment, up_to));
            }
        }
    }

    /// Whether a read that ended after `ticket` was drawn may have shown a delivery that is due then.
    pub(super) fn may_have_shown(&self, ticket: Ticket, due_at: Timestamp) -> bool {
        let mut partial = self.partial.iter();
        self.whole > ticket || partial.any(|(moment, up_to)| *moment > ticket && due_at <= *up_to)
    }

    /// When the last ended.
    pub(super) fn last(&self) -> Ticket {
        self.partial.back().map_or(self.whole, |(moment, _)| *moment)
    }
}
