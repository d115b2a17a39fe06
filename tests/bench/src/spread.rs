//! The same figure of several rounds: its median with its range.

use std::fmt;

/// The figures, one a round.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Spread(Vec<f64>);

impl Spread {
    /// The one in the middle, or the mean of the two there; none if there is no figure.
    pub(crate) fn median(&self) -> Option<f64> {
        let values = self.in_order();
        let middle = values.len() / 2;
        let upper = *values.get(middle)?;
        match middle.checked_sub(1).and_then(|lower| values.get(lower)) {
            Some(lower) if values.len().is_multiple_of(2) => Some(f64::midpoint(*lower, upper)),
            _ => Some(upper),
        }
    }

    fn in_order(&self) -> Vec<f64> {
        let mut values = self.0.clone();
        values.sort_by(f64::total_cmp);
        values
    }
}

impl FromIterator<f64> for Spread {
    fn from_iter<I: IntoIterator<Item = f64>>(figures: I) -> Self {
        Self(figures.into_iter().collect())
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values = self.in_order();
        let (Some(median), Some(least), Some(most)) = (self.median(), values.first(), values.last()) else {
            return f.write_str("-");
        };
        // As many digits as the median deserves.
        let digits = match median {
            100.0.. => 0,
            10.0.. => 1,
            0.1.. => 2,
            _ => 4,
        };
        write!(f, "{median:.digits$}")?;
        if values.len() > 1 {
            write!(f, " ({least:.digits$}-{most:.digits$})")?;
        }
        Ok(())
    }
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
            (vec![0.0124, 0.5, 0.002], "0.0124 (0.0020-0.5000)"),
        ] {
            assert_eq!(Spread(values).to_string(), shown);
        }
    }
}
