//! What `/metrics` says, checked for its form.

use crate::api::Reply;
use std::collections::BTreeMap;

/// The samples, each by its name with labels; where several processes were asked, summed.
#[derive(Debug, Default)]
pub struct Metrics(pub BTreeMap<String, f64>);

impl Metrics {
    /// Adds the samples of one process.
    pub fn add(&mut self, reply: &Reply) {
        assert!(
            reply.header("content-type").starts_with("text/plain"),
            "{:?}",
            reply.headers
        );
        let lines = reply.text().lines();
        for line in lines.filter(|line| !line.starts_with('#') && !line.is_empty()) {
            let (name, value) = sample(line);
            *self.0.entry(name).or_default() += value;
        }
    }

    /// The sum of the samples whose names, labels included, are meant.
    pub fn sum(&self, meant: impl Fn(&str) -> bool) -> f64 {
        let samples = self.0.iter().filter(|(name, _)| meant(name));
        samples.map(|(_, value)| value).sum()
    }
}

fn sample(line: &str) -> (String, f64) {
    let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value in {line:?}"));
    let bare = name.split('{').next().unwrap_or_default();
    let letters = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    assert!(!bare.is_empty() && bare.chars().all(letters), "{line:?}");
    assert!(!name.contains('{') || name.ends_with('}'), "{line:?}");
    (
        name.to_owned(),
        value.parse().unwrap_or_else(|error| panic!("{error} in {line:?}")),
    )
}
