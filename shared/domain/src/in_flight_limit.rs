//! The limit of attempts in flight to one subscriber: additive increase, multiplicative decrease.
//!
//! The limit starts at `MaxInFlight`, which most subscribers can bear. It is halved when the subscriber says that it
//! has too much (429, 503) or does not answer in time. That happens at most once a round, because an attempt that
//! began before the last decrease says nothing about the limit after it. Each round of successes raises the limit by a
//! sixteenth of `MaxInFlight`, so it is back after some 20 rounds: seconds, if answers take a fraction of one. After
//! [`InFlightLimit::ramp`] it starts from 1 and doubles each round.
//!
//! Latency is left out on purpose: on a busy machine it rises through no fault of the subscriber, and a healthy one
//! would be slowed down.

use std::num::NonZeroU16;

/// The number of rounds of successes that raise the limit by `MaxInFlight`.
const ROUNDS_TO_RECOVER: f64 = 16.0;

/// The limit of one subscriber; see the module.
#[derive(Debug, Clone, Default)]
pub struct InFlightLimit {
    /// The reduced limit; `None` while it is `MaxInFlight`.
    reduced: Option<Reduced>,
    begun: u64,
    /// The first attempt that began after the last decrease.
    round_from: u64,
}

#[derive(Debug, Clone, Copy)]
struct Reduced {
    limit: f64,
    ramping: bool,
}

/// The number of an attempt, among those to one subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn(u64);

impl InFlightLimit {
    /// The most attempts at a time, from 1 to `most`.
    pub fn get(&self, most: NonZeroU16) -> usize {
        let most = f64::from(most.get());
        let limit = self.reduced.map_or(most, |reduced| reduced.limit.min(most));
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 1 and MaxInFlight"
        )]
        let whole = limit as usize;
        whole.max(1)
    }

    /// Whether the limit is below `MaxInFlight`.
    pub fn is_reduced(&self) -> bool {
        self.reduced.is_some()
    }

    /// Counts an attempt that begins.
    pub fn begin(&mut self) -> Turn {
        self.begun += 1;
        Turn(self.begun)
    }

    /// Takes in an attempt that succeeded.
    pub fn succeeded(&mut self, most: NonZeroU16) {
        let Some(reduced) = &mut self.reduced else {
            return;
        };
        let most = f64::from(most.get());
        reduced.limit += if reduced.ramping {
            1.0
        } else {
            (most / ROUNDS_TO_RECOVER).max(1.0) / reduced.limit
        };
        if reduced.limit >= most {
            self.reduced = None;
        }
    }

    /// Takes in an attempt that was too much: 429, 503, or no answer in time.
    pub fn overloaded(&mut self, turn: Turn, most: NonZeroU16) {
        if turn.0 < self.round_from {
            return;
        }
        let most = f64::from(most.get());
        let limit = self.reduced.map_or(most, |reduced| reduced.limit.min(most));
        self.reduced = Some(Reduced {
            limit: (limit / 2.0).max(1.0),
            ramping: false,
        });
        self.round_from = self.begun + 1;
    }

    /// Starts again from 1, because the subscriber is back after a fault.
    pub fn ramp(&mut self) {
        self.reduced = Some(Reduced {
            limit: 1.0,
            ramping: true,
        });
        self.round_from = self.begun + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn most(n: u16) -> NonZeroU16 {
        NonZeroU16::new(n).unwrap()
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Begin,
        Succeed,
        Overload(prop::sample::Index),
        Ramp,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Begin),
            3 => Just(Step::Succeed),
            3 => any::<prop::sample::Index>().prop_map(Step::Overload),
            1 => Just(Step::Ramp),
        ]
    }

    fn after(steps: &[Step], most: NonZeroU16) -> InFlightLimit {
        let mut limit = InFlightLimit::default();
        let mut turns = vec![limit.begin()];
        for step in steps {
            match step {
                Step::Begin => turns.push(limit.begin()),
                Step::Succeed => limit.succeeded(most),
                Step::Overload(which) => limit.overloaded(*which.get(&turns), most),
                Step::Ramp => limit.ramp(),
            }
        }
        limit
    }

    proptest! {
        #[test]
        fn it_lies_between_one_and_the_cap_and_is_back_within_24_rounds(
            steps in prop::collection::vec(step(), 0..100), cap in 1u16..=1000, other_cap in 1u16..=1000,
        ) {
            let mut limit = after(&steps, most(cap));
            prop_assert!((1..=usize::from(cap)).contains(&limit.get(most(cap))));
            prop_assert!((1..=usize::from(other_cap)).contains(&limit.get(most(other_cap))));
            let mut rounds = 0;
            while limit.is_reduced() {
                for _ in 0..limit.get(most(cap)) {
                    limit.succeeded(most(cap));
                }
                rounds += 1;
                // More than 16, for in a round each addition is the smaller for those before it.
                prop_assert!(rounds <= 24, "still {}", limit.get(most(cap)));
            }
            prop_assert_eq!(limit.get(most(cap)), usize::from(cap));
        }

        #[test]
        fn a_burst_of_failures_counts_once(cap in 2u16..=1000, burst in 1usize..200) {
            let mut limit = InFlightLimit::default();
            let turns: Vec<_> = (0..burst).map(|_| limit.begin()).collect();
            for turn in turns {
                limit.overloaded(turn, most(cap));
            }
            prop_assert_eq!(limit.get(most(cap)), usize::from(cap / 2).max(1));
            let next = limit.begin();
            limit.overloaded(next, most(cap));
            prop_assert_eq!(limit.get(most(cap)), usize::from(cap / 4).max(1));
        }
    }

    #[test]
    fn after_a_fault_it_doubles_each_round() {
        let mut limit = InFlightLimit::default();
        limit.ramp();
        let rounds = std::iter::from_fn(|| {
            let now = limit.get(most(64));
            (0..now).for_each(|_| limit.succeeded(most(64)));
            Some(now)
        });
        assert_eq!(rounds.take(8).collect::<Vec<_>>(), [1, 2, 4, 8, 16, 32, 64, 64]);
    }

    /// A subscriber that does 8 requests at a time in 1 s. From 2 s in all it answers none in time, and from
    /// the 17th request on all that it does is in vain: the load at which a fixed limit fails.
    #[test]
    fn where_a_fixed_limit_gets_nothing_through_this_one_does() {
        let (capacity, timeout) = (8, 2.0);
        let seconds = |at_a_time: usize| f64::from(u32::try_from(at_a_time).unwrap()) / f64::from(capacity);
        let fixed = most(64);
        assert!(
            seconds(fixed.get().into()) > timeout,
            "every request of 64 at a time times out"
        );
        let mut limit = InFlightLimit::default();
        let mut done = 0;
        for _ in 0..20 {
            let round: Vec<_> = (0..limit.get(fixed)).map(|_| limit.begin()).collect();
            let in_time = seconds(round.len()) <= timeout;
            for turn in round {
                if in_time {
                    done += 1;
                    limit.succeeded(fixed);
                } else {
                    limit.overloaded(turn, fixed);
                }
            }
        }
        assert!(done >= 100, "{done} of what 20 rounds could do, at most 320");
    }
}
