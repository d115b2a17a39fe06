//! How long messages took, of many.

use std::fmt;
use std::time::Duration;

/// Of the times of an open loop, in milliseconds. Each is one that was seen, none is interpolated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Quantiles {
    pub(crate) p50: f64,
    /// Not exceeded by 99 in a hundred.
    pub(crate) p99: f64,
    pub(crate) longest: f64,
}

impl Quantiles {
    /// Of times in any order; none of none.
    pub(crate) fn of(mut times: Vec<Duration>) -> Option<Self> {
        times.sort_unstable();
        Some(Self {
            p50: percentile(&times, 50)?,
            p99: percentile(&times, 99)?,
            longest: percentile(&times, 100)?,
        })
    }
}

impl fmt::Display for Quantiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p50 {:.1} ms, p99 {:.1} ms", self.p50, self.p99)
    }
}

/// The least of them, in order, that so many in a hundred do not exceed.
fn percentile(times: &[Duration], percent: usize) -> Option<f64> {
    let rank = (times.len() * percent).div_ceil(100).saturating_sub(1);
    times.get(rank).map(|time| time.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_times_that_were_seen() {
        let times = (1..=200).rev().map(Duration::from_millis).collect();
        let Quantiles { p50, p99, longest } = Quantiles::of(times).unwrap();
        for (seen, meant) in [(p50, 100.0), (p99, 198.0), (longest, 200.0)] {
            assert!((seen - meant).abs() < 1e-6, "{seen} is not {meant}");
        }
        assert_eq!(Quantiles::of(Vec::new()), None);
    }

    #[test]
    fn one_time_is_every_quantile() {
        let only = Quantiles::of(vec![Duration::from_millis(7)]).unwrap();
        assert_eq!(only.to_string(), "p50 7.0 ms, p99 7.0 ms");
    }
}
