//! Medians with their ranges, as Markdown.

use crate::scenario::{Latency, RATES, Throughput};
use crate::stack::Kind;
use std::collections::BTreeMap;
use std::fmt;

/// The results of a scenario: for each stack, one a round.
pub(crate) type Results<T> = BTreeMap<Kind, Vec<T>>;

/// The same figure of several rounds.
#[derive(Debug)]
struct Spread(Vec<f64>);

impl Spread {
    fn of<T>(results: &[T], figure: impl Fn(&T) -> f64) -> Self {
        Self(results.iter().map(figure).collect())
    }

    /// As a multiple of the floor's of the same round.
    fn against<T>(results: &[T], floor: &[T], figure: impl Fn(&T) -> f64) -> Self {
        let rounds = results.iter().zip(floor);
        Self(rounds.map(|(one, floor)| figure(one) / figure(floor)).collect())
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut values = self.0.clone();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let (Some(least), Some(most), Some(upper)) = (values.first(), values.last(), values.get(middle)) else {
            return f.write_str("-");
        };
        let median = match middle.checked_sub(1).and_then(|lower| values.get(lower)) {
            Some(lower) if values.len().is_multiple_of(2) => f64::midpoint(*lower, *upper),
            _ => *upper,
        };
        // As many digits as the median deserves.
        let digits = match median {
            100.0.. => 0,
            10.0.. => 1,
            _ => 2,
        };
        write!(f, "{median:.digits$}")?;
        if values.len() > 1 {
            write!(f, " ({least:.digits$}-{most:.digits$})")?;
        }
        Ok(())
    }
}

/// A table with those heads.
fn table<const N: usize>(heads: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let rule = format!("{}|\n", "|---".repeat(N));
    let rows = rows.into_iter().map(|cells| line(&cells));
    [line(&heads.map(str::to_owned)), rule]
        .into_iter()
        .chain(rows)
        .collect()
}

/// The tables of a closed loop. `floor` is what the ratios are to.
pub(crate) fn throughput(title: &str, results: &Results<Throughput>, floor: &[Throughput]) -> String {
    let heads = [
        "stack",
        "deliveries/s",
        "to the floor's",
        "CPU a delivery, µs",
        "to the floor's",
        "generator and receiver, µs",
        "cores in use",
        "refused",
        "repeated",
    ];
    let stacks = results.iter().map(|(stack, rounds)| {
        let rate = |round: &Throughput| round.rate;
        let total = |count: fn(&Throughput) -> u64| rounds.iter().map(count).sum::<u64>();
        [
            stack.to_string(),
            Spread::of(rounds, rate).to_string(),
            Spread::against(rounds, floor, rate).to_string(),
            Spread::of(rounds, Throughput::cost).to_string(),
            Spread::against(rounds, floor, Throughput::cost).to_string(),
            Spread::of(rounds, |round| round.load).to_string(),
            Spread::of(rounds, Throughput::cores).to_string(),
            total(|round| round.refused).to_string(),
            total(|round| round.repeated).to_string(),
        ]
    });
    let processes = results.iter().flat_map(|(stack, rounds)| {
        // Every round has the same processes in the same order.
        let first = rounds.first().map(|round| round.cpu.as_slice()).unwrap_or_default();
        first.iter().enumerate().map(|(place, (name, _))| {
            let cost = |round: &Throughput| round.cpu.get(place).map_or(f64::NAN, |(_, cost)| *cost);
            [
                stack.to_string(),
                (*name).to_owned(),
                Spread::of(rounds, cost).to_string(),
            ]
        })
    });
    format!(
        "### {title}\n\n{}\n{}",
        table(heads, stacks),
        table(["stack", "process", "CPU a delivery, µs"], processes)
    )
}

/// The table of the open loops.
pub(crate) fn latency(results: &Results<Vec<Latency>>) -> String {
    let heads = [
        "events/s",
        "stack",
        "p50",
        "to the floor's",
        "p99",
        "to the floor's",
        "longest",
    ];
    let at = |rate: u32, rounds: &[Vec<Latency>]| -> Vec<Latency> {
        let all = rounds.iter().flatten();
        all.filter(|one| one.rate == rate).copied().collect()
    };
    let rows = RATES.into_iter().flat_map(|rate| {
        let floor = results.get(&Kind::Floor).map(|rounds| at(rate, rounds));
        let floor = floor.unwrap_or_default();
        results.iter().map(move |(stack, rounds)| {
            let rounds = at(rate, rounds);
            [
                rate.to_string(),
                stack.to_string(),
                Spread::of(&rounds, |one| one.p50).to_string(),
                Spread::against(&rounds, &floor, |one| one.p50).to_string(),
                Spread::of(&rounds, |one| one.p99).to_string(),
                Spread::against(&rounds, &floor, |one| one.p99).to_string(),
                Spread::of(&rounds, |one| one.longest).to_string(),
            ]
        })
    });
    format!(
        "### Latency, from when an event was meant to be sent until its message had arrived, ms\n\n{}",
        table(heads, rows)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_a_median_with_its_range() {
        for (values, shown) in [
            (vec![], "-"),
            (vec![1.5], "1.50"),
            (vec![30.0, 10.0, 20.0], "20.0 (10.0-30.0)"),
            (vec![400.0, 100.0], "250 (100-400)"),
        ] {
            assert_eq!(Spread(values).to_string(), shown);
        }
    }

    #[test]
    fn ratios_are_to_the_floor_of_the_same_round() {
        let ratio = Spread::against(&[1.0, 9.0], &[2.0, 3.0], |figure| *figure);
        assert_eq!(ratio.to_string(), "1.75 (0.50-3.00)");
    }

    #[test]
    fn a_table_has_a_head_a_rule_and_rows() {
        let rows = [["a", "b"], ["c", "d"]].map(|row| row.map(str::to_owned));
        assert_eq!(
            table(["one", "two"], rows),
            "| one | two |\n|---|---|\n| a | b |\n| c | d |\n"
        );
    }
}
