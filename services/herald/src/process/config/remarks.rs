//! What in the settings is allowed, and hardly meant so.

use super::{Config, VARIABLES};

/// Variables that are no settings of a process, but of the commands that talk to one.
const OF_COMMANDS: [&str; 2] = ["HERALD_URL", "HERALD_KEY"];

/// A key of fewer characters can be guessed. It is allowed, because whoever tries things out on a machine of their own
/// has no secrets yet.
const KEY_CHARACTERS: usize = 16;

/// What whoever set this should hear, a sentence each.
pub(crate) fn remarks(config: &Config) -> Vec<String> {
    let environment = std::env::vars_os().filter_map(|(name, value)| {
        let value = value.to_string_lossy().into_owned();
        Some((name.into_string().ok()?, value))
    });
    let mut remarks = unknown(environment);
    remarks.extend(config.operator_key.as_deref().and_then(short));
    remarks
}

/// Variables that are called as if they were Herald's.
fn unknown(environment: impl Iterator<Item = (String, String)>) -> Vec<String> {
    let known: Vec<_> = VARIABLES
        .map(|(_, variable)| variable)
        .into_iter()
        .chain(OF_COMMANDS)
        .collect();
    let mut unknown: Vec<_> = environment
        .filter(|(name, value)| {
            name.starts_with("HERALD_") && !known.contains(&name.as_str()) && !of_a_service(name, value)
        })
        .map(|(name, _)| {
            let meant = closest(&name, known.iter().copied()).map_or_else(
                || "herald check-config shows those that there are".to_owned(),
                |meant| format!("did you mean {meant}?"),
            );
            format!("{name} is no setting of Herald, and does nothing; {meant}")
        })
        .collect();
    unknown.sort();
    unknown
}

/// Kubernetes and Docker describe a service called herald to its neighbours.
fn of_a_service(name: &str, value: &str) -> bool {
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.contains("_PORT_")
        || (name.ends_with("_PORT") && value.contains("://"))
}

fn short(key: &str) -> Option<String> {
    (key.chars().count() < KEY_CHARACTERS).then(|| {
        format!(
            "the operator's key has fewer than {KEY_CHARACTERS} characters, so that it can be guessed, and who has it may \
             do everything: set HERALD_OPERATOR_KEY to random ones, such as from openssl rand -base64 33"
        )
    })
}

/// The word that is most like the one given, if any is like it.
pub(super) fn closest<'a>(given: &str, words: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let (distance, word) = words.map(|word| (distance(given, word), word)).min()?;
    (distance <= 2).then_some(word)
}

/// How many characters must be added, left out or changed to get from one word to the other (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<_> = other.bytes().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (position, byte) in one.bytes().enumerate() {
        let mut next = vec![position + 1];
        for (column, (pair, with)) in row.windows(2).zip(&other).enumerate() {
            let changed = pair[0] + usize::from(byte != *with);
            next.push(changed.min(pair[1] + 1).min(next[column] + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(name: &str, value: &str) -> Vec<String> {
        unknown([(name.to_owned(), value.to_owned())].into_iter())
    }

    #[test]
    fn a_misspelt_variable_is_named_with_what_was_meant() {
        let told_of = told("HERALD_EGRES_ALLOW", "127.0.0.0/8");
        assert_eq!(
            told_of,
            ["HERALD_EGRES_ALLOW is no setting of Herald, and does nothing; did you mean HERALD_EGRESS_ALLOW?"]
        );
        assert!(told("HERALD_PORT", "8080")[0].contains("check-config"));
        for known in VARIABLES.map(|(_, variable)| variable).into_iter().chain(OF_COMMANDS) {
            assert!(told(known, "").is_empty(), "{known}");
        }
    }

    #[test]
    fn what_kubernetes_says_of_a_service_is_no_misspelling() {
        for (name, value) in [
            ("HERALD_SERVICE_HOST", "10.0.0.1"),
            ("HERALD_SERVICE_PORT_HTTP", "8080"),
            ("HERALD_INGEST_PORT", "tcp://10.0.0.1:8080"),
            ("HERALD_PORT_8080_TCP_ADDR", "10.0.0.1"),
            ("PATH", "/bin"),
        ] {
            assert!(told(name, value).is_empty(), "{name}");
        }
    }

    #[test]
    fn distances_are_those_of_levenshtein() {
        for (one, other, expected) in [
            ("", "abc", 3),
            ("kitten", "sitting", 3),
            ("same", "same", 0),
            ("ab", "ba", 2),
        ] {
            assert_eq!((distance(one, other), distance(other, one)), (expected, expected));
        }
    }

    #[test]
    fn a_key_that_can_be_guessed_is_told_and_no_other() {
        assert!(short("abc").is_some_and(|told| told.contains("fewer than 16") && !told.contains("abc")));
        assert_eq!(short("0123456789abcdef"), None);
    }
}
