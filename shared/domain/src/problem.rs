//! Faults in what somebody sent: which field, which rule, in words.

use serde::Serialize;

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

/// `/name`, with the two characters escaped that RFC 6901 says to.
pub fn pointer_to(name: &str) -> String {
    format!("/{}", name.replace('~', "~0").replace('/', "~1"))
}
