//! What a scenario prints: a table in Markdown, each row judged by the targets that it has.

use crate::spread::Spread;
use std::fmt;

/// What a ratio or a size should be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Target {
    /// That much or more.
    AtLeast(f64),
    /// That much or less.
    AtMost(f64),
}

impl Target {
    /// Whether the median is within it. What has no figure, or none that is a number, is not.
    pub(crate) fn met(self, figures: &Spread) -> bool {
        figures.median().is_some_and(|median| match self {
            Self::AtLeast(bound) => median >= bound,
            Self::AtMost(bound) => median <= bound,
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(bound) => write!(f, "at least {bound}"),
            Self::AtMost(bound) => write!(f, "at most {bound}"),
        }
    }
}

/// A table under a title.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    title: String,
    heads: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Report {
    /// With these columns, and behind them the row's targets and whether they were met.
    pub(crate) fn new(title: impl Into<String>, heads: &[&'static str]) -> Self {
        Self {
            title: title.into(),
            heads: [heads, &["target", "met"]].concat(),
            rows: Vec::new(),
        }
    }

    /// With these columns alone, for what nothing is asked of.
    pub(crate) fn without_targets(title: impl Into<String>, heads: &[&'static str]) -> Self {
        Self {
            title: title.into(),
            heads: heads.to_vec(),
            rows: Vec::new(),
        }
    }

    /// A row that is not judged: all of a table without targets, and the base of the comparison elsewhere.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        let blank = std::iter::repeat_n("-".to_owned(), self.heads.len().saturating_sub(N));
        self.rows.push(cells.into_iter().chain(blank).collect());
    }

    /// A row, and what of it is judged by what. Several targets are in the order of their columns.
    pub(crate) fn judged_row<const N: usize>(&mut self, cells: [String; N], judged: &[(Target, &Spread)]) {
        if judged.is_empty() {
            return self.row(cells);
        }
        let targets: Vec<_> = judged.iter().map(|(target, _)| target.to_string()).collect();
        let met = judged.iter().map(|(target, figures)| target.met(figures));
        let met: Vec<_> = met.map(|met| if met { "yes" } else { "no" }).collect();
        let judgement = [targets.join("; "), met.join("; ")];
        self.rows.push(cells.into_iter().chain(judgement).collect());
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "### {}\n", self.title)?;
        writeln!(f, "| {} |", self.heads.join(" | "))?;
        writeln!(f, "{}|", "|---".repeat(self.heads.len()))?;
        self.rows
            .iter()
            .try_for_each(|cells| writeln!(f, "| {} |", cells.join(" | ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_met_by_the_median_and_by_its_bound() {
        let figures = |figures: &[f64]| figures.iter().copied().collect::<Spread>();
        for (target, of, met) in [
            (Target::AtLeast(0.8), figures(&[0.5, 0.8, 0.9]), true),
            (Target::AtLeast(0.8), figures(&[0.5, 0.79, 0.9]), false),
            (Target::AtMost(1.5), figures(&[1.5]), true),
            (Target::AtMost(1.5), figures(&[1.51]), false),
            (Target::AtMost(1.5), figures(&[]), false),
            (Target::AtMost(1.5), figures(&[f64::NAN]), false),
        ] {
            assert_eq!(target.met(&of), met, "{target}: {of}");
        }
    }

    #[test]
    fn a_report_is_a_title_heads_a_rule_and_judged_rows() {
        let mut report = Report::new("Speed", &["stack", "rate"]);
        let (rate, cost): (Spread, Spread) = ([0.9].into_iter().collect(), [2.0].into_iter().collect());
        let judged = [(Target::AtLeast(0.8), &rate), (Target::AtMost(1.3), &cost)];
        report.judged_row(["shared".to_owned(), rate.to_string()], &judged);
        report.row(["floor".to_owned(), "1.00".to_owned()]);
        assert_eq!(
            report.to_string(),
            "### Speed\n\n| stack | rate | target | met |\n|---|---|---|---|\n\
             | shared | 0.90 | at least 0.8; at most 1.3 | yes; no |\n| floor | 1.00 | - | - |\n"
        );
        let mut plain = Report::without_targets("Parts", &["process"]);
        plain.row(["herald".to_owned()]);
        assert_eq!(plain.to_string(), "### Parts\n\n| process |\n|---|\n| herald |\n");
    }
}
