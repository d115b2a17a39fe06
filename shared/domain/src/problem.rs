//! Faults in what somebody sent: which field, which rule, in words.

use serde::Serialize;
use std::ops::Deref;

/// The most faults that one answer lists; whoever has more has the same one many times over.
pub const MAX_FAULTS: usize = 100;

/// One fault of a request, as the `errors` of the problem answer have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// JSON Pointer (RFC 6901) to the field at fault; empty for the whole.
    pub pointer: String,
    /// The rule's short, stable name, such as `required`.
    pub rule: &'static str,
    /// What is wrong and what would be right.
    pub detail: String,
}

impl Fault {
    /// A fault at `pointer`.
    pub fn new(pointer: impl Into<String>, rule: &'static str, detail: impl Into<String>) -> Self {
        Self {
            pointer: pointer.into(),
            rule,
            detail: detail.into(),
        }
    }

    /// The same fault, seen from one level further out.
    #[must_use]
    pub fn within(mut self, parent: &str) -> Self {
        self.pointer.insert_str(0, parent);
        self
    }
}

/// The faults of one request: the first [`MAX_FAULTS`] are kept, and those after them are only counted. So
/// a request cannot make more faults than fit into an answer, however many fields it has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults {
    listed: Vec<Fault>,
    more: usize,
    by_catalogue: bool,
}

impl Faults {
    /// Adds a fault at this pointer.
    pub fn add(&mut self, pointer: impl Into<String>, rule: &'static str, detail: impl Into<String>) {
        self.push_with(|| Fault::new(pointer, rule, detail));
    }

    /// Adds a fault, which is not made where it would only be counted.
    pub fn push_with(&mut self, fault: impl FnOnce() -> Fault) {
        if self.listed.len() < MAX_FAULTS {
            self.listed.push(fault());
        } else {
            self.more += 1;
        }
    }

    /// Adds the faults of a part that stands at `parent`.
    pub fn append_within(&mut self, parent: &str, part: Self) {
        for fault in part.listed {
            self.push_with(|| fault.within(parent));
        }
        self.more += part.more;
        self.by_catalogue |= part.by_catalogue;
    }

    /// What `change` makes of those that are kept; where it makes none of one, that one is left out.
    #[must_use]
    pub fn filter_map(self, change: impl FnMut(Fault) -> Option<Fault>) -> Self {
        let listed = self.listed.into_iter().filter_map(change).collect();
        Self { listed, ..self }
    }

    /// Notes that one of them is a fault by the catalogue, so that a newer one may judge otherwise.
    pub fn note_catalogue(&mut self) {
        self.by_catalogue = true;
    }

    /// Whether a newer catalogue may judge otherwise.
    pub fn may_be_outdated(&self) -> bool {
        self.by_catalogue
    }

    /// How many there are, those that are only counted included.
    pub fn count(&self) -> usize {
        self.listed.len() + self.more
    }

    /// The value, unless there are faults.
    pub fn into_result<T>(self, value: T) -> Result<T, Self> {
        if self.listed.is_empty() { Ok(value) } else { Err(self) }
    }

    /// The faults that are kept.
    pub fn into_listed(self) -> Vec<Fault> {
        self.listed
    }
}

impl Deref for Faults {
    type Target = [Fault];

    fn deref(&self) -> &[Fault] {
        &self.listed
    }
}

impl From<Fault> for Faults {
    fn from(fault: Fault) -> Self {
        Self {
            listed: vec![fault],
            ..Self::default()
        }
    }
}

impl From<Vec<Fault>> for Faults {
    fn from(faults: Vec<Fault>) -> Self {
        let mut all = Self::default();
        for fault in faults {
            all.push_with(|| fault);
        }
        all
    }
}

/// `/name`, with the two characters escaped that RFC 6901 says to.
pub fn pointer_to(name: &str) -> String {
    format!("/{}", name.replace('~', "~0").replace('/', "~1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_faults_are_kept_and_the_rest_counted() {
        let mut part = Faults::default();
        for n in 0..150 {
            part.add(format!("/{n}"), "known_field", "no");
        }
        assert_eq!((part.len(), part.count()), (MAX_FAULTS, 150));
        part.push_with(|| unreachable!("a fault that is only counted is not made"));
        let mut whole = Faults::default();
        whole.add("", "object", "no");
        whole.append_within("/7", part);
        assert_eq!((whole.len(), whole.count()), (MAX_FAULTS, 152));
        assert_eq!(whole[1].pointer, "/7/0");
        assert!(whole.into_result(()).is_err());
        assert!(Faults::default().into_result(()).is_ok());
    }
}
