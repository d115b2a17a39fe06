//! When what has come is recorded: at once, beside what is being recorded, or together with what comes next.
//!
//! While few events come, each goes at once, also beside others: nobody waits behind another's transaction. Once many
//! come, small batches side by side would only be more transactions. Then each waits for the one before it, and until it
//! is worth one itself, or its first event has waited for [`COMPANY`].

use herald_queue::Received;
use std::time::Duration;

/// The most batches that are being recorded at a time.
const MAX_RECORDING: usize = 3;

/// What makes a batch large enough not to wait for the one before.
const LARGE: Size = Size {
    events: 128,
    bytes: 1 << 20,
};

/// How many events in a batch say that many more are coming.
const MANY: usize = 8;

/// How many events are worth a transaction when many come.
const ENOUGH: usize = 64;

/// How long an event waits for others at most, when many come.
pub(crate) const COMPANY: Duration = Duration::from_millis(5);

/// How much there is in a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Size {
    events: usize,
    bytes: usize,
}

impl Size {
    pub(crate) fn of(batch: &[Received]) -> Self {
        Self {
            events: batch.iter().map(|received| received.origins.events()).sum(),
            bytes: batch.iter().map(|received| received.body.len()).sum(),
        }
    }

    /// Whether it is worth a transaction of its own while another is under way, and no more is to be added to it.
    pub(crate) fn is_large(self) -> bool {
        self.events >= LARGE.events || self.bytes >= LARGE.bytes
    }
}

/// What to do with the next batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Record it.
    Begin,
    /// Wait for others, or until it has waited for [`COMPANY`].
    Wait,
    /// Wait until something is recorded, or something has come.
    Idle,
}

/// What to do with `next`, whose first event has waited so long: behind a batch of the size `former`, with so many under
/// way.
pub(crate) fn turn(next: Size, former: Size, under_way: usize, waited: Duration) -> Turn {
    let is_few = former.events < MANY && next.events < MANY;
    match under_way {
        _ if next.events == 0 && next.bytes == 0 => Turn::Idle,
        0 if former.events >= MANY && next.events < ENOUGH && !next.is_large() && waited < COMPANY => Turn::Wait,
        0 => Turn::Begin,
        under_way if under_way < MAX_RECORDING && (is_few || next.is_large()) => Turn::Begin,
        _ => Turn::Idle,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(events: usize) -> Size {
        Size { events, bytes: events }
    }

    #[test]
    fn while_few_come_each_goes_at_once() {
        for under_way in 0..MAX_RECORDING {
            assert_eq!(turn(events(1), events(1), under_way, Duration::ZERO), Turn::Begin);
        }
        assert_eq!(turn(events(1), events(1), MAX_RECORDING, COMPANY), Turn::Idle);
        assert_eq!(turn(events(0), events(1), 0, COMPANY), Turn::Idle);
    }

    #[test]
    fn while_many_come_they_go_together() {
        let (few, many) = (events(MANY - 1), events(MANY));
        assert_eq!(turn(few, many, 0, Duration::ZERO), Turn::Wait);
        assert_eq!(turn(few, many, 0, COMPANY), Turn::Begin);
        assert_eq!(turn(few, many, 1, COMPANY), Turn::Idle);
        assert_eq!(turn(many, few, 1, COMPANY), Turn::Idle);
        assert_eq!(turn(events(ENOUGH), many, 0, Duration::ZERO), Turn::Begin);
    }

    #[test]
    fn what_is_large_waits_for_nothing_but_a_place() {
        let heavy = Size {
            events: 1,
            bytes: 1 << 20,
        };
        for large in [events(128), heavy] {
            assert!(large.is_large());
            assert_eq!(turn(large, events(MANY), 0, Duration::ZERO), Turn::Begin);
            assert_eq!(
                turn(large, events(MANY), MAX_RECORDING - 1, Duration::ZERO),
                Turn::Begin
            );
            assert_eq!(turn(large, events(MANY), MAX_RECORDING, COMPANY), Turn::Idle);
        }
        assert!(!events(127).is_large());
    }
}
