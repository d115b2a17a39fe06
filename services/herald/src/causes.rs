//! Errors in words: what failed, and why, each cause once.

use std::error::Error;

/// The causes of an error, outermost first. Libraries often repeat the inner one in the outer one's words.
pub(crate) fn of(error: &anyhow::Error) -> String {
    let mut words: Vec<String> = Vec::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        match words.last() {
            Some(outer) if outer.contains(&cause) => {}
            _ => words.push(cause),
        }
    }
    words.join(": ")
}

/// The innermost cause, where the outer ones only name what was tried.
pub(crate) fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot connect: {0}")]
    struct Twice(#[source] std::io::Error);

    #[test]
    fn each_cause_is_said_once() {
        let refused = || Twice(std::io::Error::other("refused"));
        let error = anyhow::Error::new(refused()).context("--database");
        assert_eq!(of(&error), "--database: cannot connect: refused");
        assert_eq!(format!("{error:#}"), "--database: cannot connect: refused: refused");
        assert_eq!(innermost(&refused()), "refused");
    }
}
