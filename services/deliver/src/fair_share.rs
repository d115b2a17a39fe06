//! How many shards a process should have.

use herald_domain::id::{SHARDS, Shard};
use std::collections::HashMap;

/// What to do about the number of shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// There are enough.
    None,
    /// Take at most that many, if any is free.
    Take(usize),
    /// Give that many back.
    Give(usize),
}

/// The most shards that each of so many processes may have. It is rounded up, so that the shares together are
/// never fewer than all shards, and none stays free.
pub(crate) fn share(workers: usize) -> usize {
    usize::from(SHARDS).div_ceil(workers.max(1))
}

/// What a process with so many shards does, if it is one of so many processes.
pub(crate) fn change(has: usize, workers: usize) -> Change {
    let share = share(workers);
    match has.cmp(&share) {
        std::cmp::Ordering::Less => Change::Take(share - has),
        std::cmp::Ordering::Equal => Change::None,
        std::cmp::Ordering::Greater => Change::Give(has - share),
    }
}

/// Which shards to give: those with the fewest attempts under way, because the next owner must wait for these
/// attempts to end.
pub(crate) fn to_give(
    has: impl IntoIterator<Item = Shard>,
    busy: &HashMap<Shard, usize>,
    how_many: usize,
) -> Vec<Shard> {
    let mut shards: Vec<_> = has.into_iter().collect();
    shards.sort_unstable_by_key(|shard| (busy.get(shard).copied().unwrap_or(0), *shard));
    shards.truncate(how_many);
    shards
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn whatever_they_begin_with_all_shards_are_taken_fairly_and_then_stay(
            steps in prop::collection::vec((0usize..300, any::<bool>()), 1..30),
        ) {
            let mut has: Vec<usize> = vec![0];
            for (which, joins) in steps {
                if joins || has.len() == 1 {
                    has.push(0);
                } else {
                    has.remove(which % has.len());
                }
                for _round in 0..2 {
                    for worker in 0..has.len() {
                        let free = usize::from(SHARDS) - has.iter().sum::<usize>();
                        match change(has[worker], has.len()) {
                            Change::None => {}
                            Change::Take(most) => has[worker] += most.min(free),
                            Change::Give(surplus) => has[worker] -= surplus,
                        }
                    }
                }
                prop_assert_eq!(has.iter().sum::<usize>(), usize::from(SHARDS));
                let share = share(has.len());
                prop_assert!(has.iter().all(|has| *has <= share));
            }
        }

        #[test]
        fn those_with_nothing_in_flight_are_given_first(
            busy in prop::collection::hash_map(any::<u8>().prop_map(Shard), 1usize..9, 0..200), how_many in 0usize..300,
        ) {
            let given = to_give(Shard::all(), &busy, how_many);
            prop_assert_eq!(given.len(), how_many.min(SHARDS.into()));
            let of = |shard: &Shard| busy.get(shard).copied().unwrap_or(0);
            let most = given.iter().map(of).max().unwrap_or(0);
            let kept = Shard::all().filter(|shard| !given.contains(shard));
            prop_assert!(kept.into_iter().all(|shard| of(&shard) >= most));
        }
    }

    #[test]
    fn a_worker_beyond_the_number_of_shards_has_none_to_take() {
        assert_eq!(share(256), 1);
        assert_eq!(share(1000), 1, "the rest finds none free");
        assert_eq!(share(0), 256);
    }
}
