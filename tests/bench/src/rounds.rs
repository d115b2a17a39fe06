//! Runs what is compared one after the other, round for round, and keeps what came out by round.

use crate::say;
use crate::spread::Spread;
use crate::stack::Kind;
use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::time::Instant;

/// The results of each case: one for each round in which it came to its end.
#[derive(Debug)]
pub(crate) struct Rounds<C, T> {
    runs: BTreeMap<C, BTreeMap<u32, T>>,
    failures: Vec<String>,
}

impl<C: Copy + Ord + Display, T: Display> Rounds<C, T> {
    /// Runs every case once a round, every second round the other way round, so that what else the
    /// machine does falls on all of them. A run that fails is told of and leaves a gap.
    pub(crate) async fn run(count: u32, cases: &[C], mut run: impl AsyncFnMut(C) -> anyhow::Result<T>) -> Self {
        let mut rounds = Self {
            runs: BTreeMap::new(),
            failures: Vec::new(),
        };
        for round in 1..=count {
            let mut order = cases.to_vec();
            if round % 2 == 0 {
                order.reverse();
            }
            for case in order {
                let (what, began) = (format!("round {round} of {count}, {case}"), Instant::now());
                match run(case).await {
                    Ok(result) => {
                        say(&format!("{what}: {result}, in {:.0} s", began.elapsed().as_secs_f64()));
                        rounds.runs.entry(case).or_default().insert(round, result);
                    }
                    Err(error) => {
                        say(&format!("{what} failed: {error:#}"));
                        rounds.failures.push(format!("{what}: {error:#}"));
                    }
                }
            }
        }
        rounds
    }

    /// A figure of a case.
    pub(crate) fn of(&self, case: C, figure: impl Fn(&T) -> f64) -> Spread {
        self.results(case).map(|(_, result)| figure(result)).collect()
    }

    /// A figure of a case as a multiple of another case's of the same round.
    pub(crate) fn against(&self, case: C, base: C, figure: impl Fn(&T) -> f64) -> Spread {
        self.both(case, base, |one, other| figure(one) / figure(other))
    }

    /// A figure of two cases of the same round.
    pub(crate) fn both(&self, case: C, base: C, figure: impl Fn(&T, &T) -> f64) -> Spread {
        let base = self.runs.get(&base);
        let pairs = self
            .results(case)
            .filter_map(|(round, one)| Some((one, base?.get(round)?)));
        pairs.map(|(one, other)| figure(one, other)).collect()
    }

    /// The sum of a count over all rounds.
    pub(crate) fn total(&self, case: C, count: impl Fn(&T) -> u64) -> u64 {
        self.results(case).map(|(_, result)| count(result)).sum()
    }

    /// A result of a case, to see what it consists of.
    pub(crate) fn sample(&self, case: C) -> Option<&T> {
        self.results(case).map(|(_, result)| result).next()
    }

    /// The runs that failed, and why.
    pub(crate) fn failures(&self) -> &[String] {
        &self.failures
    }

    fn results(&self, case: C) -> impl Iterator<Item = (&u32, &T)> {
        self.runs.get(&case).into_iter().flatten()
    }
}

/// A case of a scenario that does different things to each stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Case<V> {
    pub(crate) kind: Kind,
    /// What is done to it.
    pub(crate) variant: V,
}

impl<V: Display> Display for Case<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.kind, self.variant)
    }
}

impl<V: Copy> Case<V> {
    /// Every variant of every stack, a stack's own beside each other.
    pub(crate) fn all(kinds: impl IntoIterator<Item = Kind>, variants: &[V]) -> Vec<Self> {
        let of = |kind| {
            variants.iter().map(move |variant| Self {
                kind,
                variant: *variant,
            })
        };
        kinds.into_iter().flat_map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::bail;

    #[tokio::test]
    async fn rounds_alternate_and_ratios_are_of_the_same_round() {
        let (mut order, mut figures) = (Vec::new(), [2.0, 1.0, 9.0, 3.0].into_iter());
        let rounds = Rounds::run(2, &["base", "case"], async |case| {
            order.push(case);
            Ok(figures.next().unwrap())
        })
        .await;
        assert_eq!(order, ["base", "case", "case", "base"]);
        assert_eq!(rounds.of("case", |figure| *figure).to_string(), "5.00 (1.00-9.00)");
        let ratio = rounds.against("case", "base", |figure| *figure);
        assert_eq!(ratio.to_string(), "1.75 (0.50-3.00)");
        assert_eq!(rounds.total("case", |_| 4), 8);
    }

    #[tokio::test]
    async fn a_run_that_fails_leaves_a_gap_and_is_told_of() {
        let mut count = 0.0;
        let rounds = Rounds::run(2, &["base", "case"], async |case| {
            count += 1.0;
            if case == "base" && count < 2.0 {
                bail!("no")
            }
            Ok(count)
        })
        .await;
        // The case's first round has nothing to be compared to.
        assert_eq!(rounds.against("case", "base", |figure| *figure).to_string(), "0.75");
        assert_eq!(rounds.failures(), ["round 1 of 2, base: no"]);
    }
}
