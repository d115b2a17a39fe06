//! The times at which batches of events are recorded: at once, beside others, or together with what comes next.
//!
//! While few events come, each is recorded at once, also beside others: no event waits for another's transaction. When
//! many come, small batches side by side would only mean more transactions. Then each batch waits for the one before
//! it, and until it is large enough or its first event has waited for [`COMPANY`].

use herald_queue::Received;
use std::time::Duration;

/// The most batches that are being recorded at a time.
const MAX_RECORDING: usize = 3;

/// The size at which a batch does not wait for the one before.
const LARGE: Size = Size {
    events: 128,
    bytes: 1 << 20,
};

/// The number of events in a batch at which many more are expected.
const MANY: usize = 8;

/// The number of events at which a batch is recorded without further wait, when many come.
const ENOUGH: usize = 64;

/// The longest time that an event waits for others, when many come.
pub(crate) const COMPANY: Duration = Duration::from_millis(5);

/// The size of a batch.
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

    /// Whether the batch is recorded even while another is under way. No more is added to it.
    pub(crate) fn is_large(self) -> bool {
        self.events >= LARGE.events || self.bytes >= LARGE.bytes
    }
}

/// What to do with the next batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// The batch is to be recorded now.
    Begin,
    /// Wait for others, or until it has waited for [`COMPANY`].
    Wait,
    /// Wait until a batch is recorded, or events have come.
    Idle,
}

/// What to do with the batch `next`, whose first event has `waited` so long. The batch before had the size `former`,
/// and so many are under way.
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
