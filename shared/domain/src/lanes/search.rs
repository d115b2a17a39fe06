//! The search for lanes that have open deliveries. It is needed for shards that were taken over, and whenever
//! deliveries may have been recorded without a notice to the lanes.
//!
//! The search reads one page after the other, so it gets on however many lanes there are, and what a page shows is
//! sent while the next is read. One page is read at a time. A search that is asked for meanwhile becomes one more
//! pass after this one: a hundred requests that fail during an outage are one search after it.

use super::LaneId;
use crate::id::Shard;
use crate::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The most rows of a page. One row is an index look-up or two.
const MOST_ROWS: usize = 1024;

/// The longest pause between two reads of a ledger that is away.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How long to wait after that many failed reads in succession.
pub fn pause_after(failures: u32) -> Duration {
    LONGEST_PAUSE.min(Duration::from_millis(250) * (1 << failures.min(8)))
}

/// A lane to look at, because the ledger has deliveries of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wakeup {
    /// The lane.
    pub lane: LaneId,
    /// When the earliest of its deliveries is due.
    pub due_at: Timestamp,
}

/// What is to be read next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Where it begins in each shard: after that lane, or with the first.
    pub from: Vec<(Shard, Option<LaneId>)>,
    /// The most rows.
    pub limit: usize,
    /// How long to wait before a failure of the read is reported.
    pub pause: Duration,
}

/// How far a page came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// Of each shard of which the page showed a lane, the last one.
    pub last: BTreeMap<Shard, LaneId>,
    /// The shards whose lanes the page showed to their end.
    pub ended: BTreeSet<Shard>,
}

/// The search of one process.
#[derive(Debug, Default)]
pub struct Search {
    /// The shards that this pass has not seen to their end, each with the last lane that it saw.
    pass: BTreeMap<Shard, Option<LaneId>>,
    /// The shards of the next pass.
    again: BTreeSet<Shard>,
    under_way: bool,
    failures: u32,
}

impl Search {
    /// Asks for a search that sees everything that is open on these shards now.
    pub fn ask(&mut self, shards: impl IntoIterator<Item = Shard>) {
        for shard in shards {
            let unseen = self.pass.get(&shard).is_none_or(Option::is_none);
            if unseen && !self.under_way {
                self.pass.insert(shard, None);
            } else {
                self.again.insert(shard);
            }
        }
    }

    /// Drops these shards from the search: they are another process's now.
    pub fn release(&mut self, shards: impl IntoIterator<Item = Shard>) {
        for shard in shards {
            self.pass.remove(&shard);
            self.again.remove(&shard);
        }
    }

    /// The page to read now, if any. [`Search::found`] or [`Search::failed`] must follow.
    pub fn next_page(&mut self) -> Option<Page> {
        if self.under_way {
            return None;
        }
        if self.pass.is_empty() {
            self.pass = std::mem::take(&mut self.again)
                .into_iter()
                .map(|shard| (shard, None))
                .collect();
        }
        if self.pass.is_empty() {
            return None;
        }
        self.under_way = true;
        Some(Page {
            from: self.pass.iter().map(|(shard, last)| (*shard, *last)).collect(),
            // Fewer rows are read sooner: a read may have failed because it took too long.
            limit: MOST_ROWS >> self.failures,
            pause: pause_after(self.failures),
        })
    }

    /// Takes note that the page was read.
    pub fn found(&mut self, progress: &Progress) {
        (self.under_way, self.failures) = (false, self.failures / 2);
        for (shard, last) in &progress.last {
            if let Some(place) = self.pass.get_mut(shard) {
                *place = Some(*last);
            }
        }
        self.pass.retain(|shard, _| !progress.ended.contains(shard));
    }

    /// Takes note that the page could not be read.
    pub fn failed(&mut self) {
        (self.under_way, self.failures) = (false, MOST_ROWS.ilog2().min(self.failures + 1));
    }

    /// Whether nothing is left to look up.
    pub fn is_done(&self) -> bool {
        self.pass.is_empty() && self.again.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::SubscriptionId;
    use proptest::prelude::*;
    use uuid::Uuid;

    #[derive(Debug, Clone)]
    enum Step {
        /// A delivery is recorded of which nobody hears, and a search is asked for.
        Record(u8, u8),
        /// The page under way is read in the ledger; then its answer comes, or is lost.
        Read,
        Answer,
        Fail,
        Release(u8),
        Own(u8),
    }

    const SHARDS: u8 = 4;

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..SHARDS, any::<u8>()).prop_map(|(shard, lane)| Step::Record(shard, lane)),
            3 => Just(Step::Read),
            3 => Just(Step::Answer),
            1 => Just(Step::Fail),
            1 => (0..SHARDS).prop_map(Step::Release),
            1 => (0..SHARDS).prop_map(Step::Own),
        ]
    }

    #[derive(Default)]
    struct World {
        search: Search,
        owned: BTreeSet<Shard>,
        open: BTreeSet<(Shard, LaneId)>,
        seen: BTreeSet<(Shard, LaneId)>,
        page: Option<Page>,
        answer: Option<(Vec<(Shard, LaneId)>, Progress)>,
        pages: usize,
    }

    impl World {
        fn read(&mut self) {
            let Some(page) = &self.page else { return };
            let (mut shown, mut progress) = (Vec::new(), Progress::default());
            // Few at a time, whatever the limit, so that passes are long.
            let mut room = page.limit.min(3);
            for (shard, after) in &page.from {
                let lanes = self
                    .open
                    .iter()
                    .filter(|(of, lane)| of == shard && after.is_none_or(|after| *lane > after));
                for row in lanes.map(Some).chain([None]) {
                    if room == 0 {
                        break;
                    }
                    room -= 1;
                    match row {
                        Some((_, lane)) => {
                            shown.push((*shard, *lane));
                            progress.last.insert(*shard, *lane);
                        }
                        None => drop(progress.ended.insert(*shard)),
                    }
                }
            }
            self.answer = Some((shown, progress));
        }

        fn answer(&mut self) {
            if let Some((shown, progress)) = self.answer.take() {
                self.page = None;
                self.search.found(&progress);
                // What is another's is not noted, and must be shown again once it is not.
                self.seen
                    .extend(shown.into_iter().filter(|(shard, _)| self.owned.contains(shard)));
            }
        }

        fn do_step(&mut self, step: &Step) -> Result<(), TestCaseError> {
            match *step {
                Step::Record(shard, lane) => {
                    let lane = (
                        Shard(shard),
                        LaneId::of(SubscriptionId(Uuid::from_u128(1 + u128::from(lane)))),
                    );
                    self.open.insert(lane);
                    self.seen.remove(&lane);
                    self.search
                        .ask([lane.0].into_iter().filter(|shard| self.owned.contains(shard)));
                }
                Step::Read => self.read(),
                Step::Answer => self.answer(),
                Step::Fail => {
                    if let Some(page) = self.page.take() {
                        prop_assert!(page.pause <= LONGEST_PAUSE);
                        self.answer = None;
                        self.search.failed();
                    }
                }
                Step::Release(shard) => {
                    self.owned.remove(&Shard(shard));
                    self.search.release([Shard(shard)]);
                    self.seen.retain(|(of, _)| *of != Shard(shard));
                }
                Step::Own(shard) => {
                    self.owned.insert(Shard(shard));
                    self.search.ask([Shard(shard)]);
                }
            }
            if let Some(page) = self.search.next_page() {
                prop_assert!(self.page.is_none(), "two at a time");
                prop_assert!(page.from.iter().all(|(shard, _)| self.owned.contains(shard)));
                prop_assert!(page.limit >= 1 && !page.from.is_empty());
                self.page = Some(page);
                self.pages += 1;
            }
            Ok(())
        }
    }

    proptest! {
        #[test]
        fn whatever_fails_or_comes_between_all_that_is_open_is_seen(
            steps in prop::collection::vec(step(), 0..200),
        ) {
            let mut world = World::default();
            for step in &steps {
                world.do_step(step)?;
            }
            // Two passes at most: the one under way, and one more for all that was asked for meanwhile.
            let (before, lanes) = (world.pages, world.open.len() + usize::from(SHARDS));
            while world.page.is_some() {
                world.do_step(&Step::Read)?;
                world.do_step(&Step::Answer)?;
                prop_assert!(world.pages - before <= 2 * lanes.div_ceil(3), "it goes on for ever");
            }
            prop_assert!(world.search.is_done());
            let owned = world.open.iter().filter(|(shard, _)| world.owned.contains(shard));
            prop_assert!(owned.copied().all(|lane| world.seen.contains(&lane)));
        }
    }

    #[test]
    fn during_an_outage_it_waits_longer_each_time_and_reads_less_and_recovers() {
        let mut search = Search::default();
        search.ask(Shard::all());
        let (mut waited, mut reads) = (Duration::ZERO, 0);
        while waited < Duration::from_mins(10) {
            let page = search.next_page().unwrap();
            assert_eq!(search.next_page(), None, "one at a time");
            for _ in 0..40 {
                search.ask(Shard::all());
            }
            search.failed();
            waited += page.pause;
            reads += 1;
        }
        assert!(reads < 130, "{reads} in ten minutes");
        let page = search.next_page().unwrap();
        assert_eq!(page.limit, 1);
        let all = Progress {
            ended: Shard::all().collect(),
            ..Progress::default()
        };
        search.found(&all);
        let once_more = search.next_page().unwrap();
        assert!(once_more.limit > 1);
        search.found(&all);
        assert_eq!(search.next_page(), None, "all those that failed are one");
    }
}
