//! What the API does, apart from how it is asked and how it answers.

pub(crate) mod accounts;
