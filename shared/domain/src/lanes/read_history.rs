//! The read history of a lane: which deliveries its reads of the ledger may have brought here.

use crate::time::Timestamp;
use std::collections::VecDeque;

/// A read mark: a moment in the life of the lanes, see [`super::Lanes::mark`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReadMark(pub(super) u64);

/// How many reads are remembered one by one: as many as end while a transaction lasts.
const REMEMBERED: usize = 16;

/// The reads of a lane's rows that have ended.
#[derive(Debug, Default)]
pub(super) struct ReadHistory {
    /// When the last read ended that may have shown any delivery.
    whole: ReadMark,
    /// The reads since then that hit their limit: when each ended, and the latest due time that it may have shown.
    partial: VecDeque<(ReadMark, Timestamp)>,
}

impl ReadHistory {
    /// The history of a lane of which it is not known what reads have shown up to `moment`.
    pub(super) fn since(moment: ReadMark) -> Self {
        Self {
            whole: moment,
            partial: VecDeque::new(),
        }
    }

    /// Takes note that a read ended at that moment. A read that hit its limit shows nothing that is due later
    /// than its last row, `up_to`.
    pub(super) fn ended(&mut self, moment: ReadMark, up_to: Option<Timestamp>) {
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

    /// Whether a read that ended after `mark` was drawn may have shown a delivery that is due at `due_at`.
    pub(super) fn may_have_shown(&self, mark: ReadMark, due_at: Timestamp) -> bool {
        let mut partial = self.partial.iter();
        self.whole > mark || partial.any(|(moment, up_to)| *moment > mark && due_at <= *up_to)
    }

    /// When the last read ended.
    pub(super) fn last(&self) -> ReadMark {
        self.partial.back().map_or(self.whole, |(moment, _)| *moment)
    }
}
