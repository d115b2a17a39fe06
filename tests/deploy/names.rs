//! Names: whatever is named anywhere in `deploy/` exists in the binary.

use crate::tools::{commands, deploy, herald};
use herald_tests::tls::Authority;
use herald_tests::{Herald, Stack};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Every file below `deploy/` that is text, with its path.
fn texts() -> Vec<(String, String)> {
    let (mut texts, mut folders) = (Vec::new(), vec![deploy("")]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a readable folder") {
            let path = entry.expect("a readable folder").path();
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(text) = std::fs::read_to_string(&path) {
                texts.push((path.display().to_string(), text));
            }
        }
    }
    assert!(texts.len() > 20, "deploy/ is more than that");
    texts
}

/// The words of a text that begin so, with the files that they are in. A word with a colon beside it is a part of a
/// recording rule's name, and no metric.
fn words(prefix: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut words: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for (path, text) in texts() {
        let of_a_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        for word in text.split(|c| !of_a_name(c)).map(|word| word.trim_end_matches(':')) {
            if word.len() > prefix.len() && word.starts_with(prefix) && !word.contains(':') {
                words.entry(word.to_owned()).or_default().insert(path.clone());
            }
        }
    }
    words
}

#[test]
fn every_setting_exists() {
    let said = herald(&["check-config"]) + &herald(&["up", "--help"]);
    let known: BTreeSet<_> = said.split(|c: char| !c.is_ascii_uppercase() && c != '_').collect();
    let named = words("HERALD_");
    assert!(named.contains_key("HERALD_LISTEN"), "settings are found in the files");
    for (variable, files) in named {
        assert!(
            known.contains(variable.as_str()),
            "{variable}, in {files:?}, is no setting"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_metric_exists() {
    let mut exposed = BTreeSet::new();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let authorities = Authority::default().write_pem(folder.path());
    for stack in [Stack::Embedded, Stack::Cluster] {
        // Of a file of authorities there is a metric where there is one.
        let builder = Herald::builder().stack(stack).arg("--egress-ca").arg(&authorities);
        let herald = builder.start().await;
        let samples = herald.metrics().await.0;
        exposed.extend(
            samples
                .into_keys()
                .filter_map(|sample| Some(sample.split('{').next()?.to_owned())),
        );
    }
    let named = words("herald_");
    assert!(
        named.contains_key("herald_deliveries_oldest_past_due_seconds"),
        "metrics are found in the files"
    );
    for (metric, files) in named {
        assert!(exposed.contains(&metric), "{metric}, in {files:?}, is no metric");
    }
}

/// A command line of the binary's in a document: the command and the flags that follow.
type Invocation = (String, Vec<String>);

/// Those in the code of a Markdown text: in fenced blocks and between backticks.
fn invocations(markdown: &str) -> Vec<Invocation> {
    let (mut code, mut fenced) = (Vec::new(), false);
    for line in markdown.lines() {
        if line.starts_with("```") {
            fenced = !fenced;
        } else if fenced {
            code.push(line);
        } else {
            code.extend(line.split('`').skip(1).step_by(2));
        }
    }
    code.into_iter().flat_map(of_line).collect()
}

fn of_line(line: &str) -> Vec<Invocation> {
    let words: Vec<_> = line.split_whitespace().collect();
    let mut found = Vec::new();
    for (position, pair) in words.windows(2).enumerate() {
        let before = position.checked_sub(1).map_or("", |before| words[before]);
        // A namespace, a name of an image or of an object may be herald too.
        let is_command = pair[0] == "herald" && (before == "--" || !before.starts_with('-'));
        let command = pair[1].trim_end_matches([',', ';']);
        if is_command && command.starts_with(|c: char| c.is_ascii_lowercase()) {
            let rest = words[position + 2..].iter();
            let own = rest.take_while(|word| !["|", "&&", "||", ";", "#", ">"].contains(word));
            let flags = own.filter(|word| word.starts_with("--") && word.len() > 2);
            let flags = flags.map(|flag| flag.trim_end_matches([',', ';']).split('=').next().unwrap_or_default());
            found.push((command.to_owned(), flags.map(str::to_owned).collect()));
        }
    }
    found
}

#[test]
fn invocations_are_told_from_namespaces() {
    let text = "Run `herald up --data x --listen=y`, not herald wild.\n```sh\nkubectl -n herald get pods\n\
                kubectl -n herald exec deploy/x -- herald audit --ids f | head --lines 1\n```\n";
    let told = invocations(text);
    let flags = |flags: &[&str]| flags.iter().map(ToString::to_string).collect::<Vec<_>>();
    let up = ("up".to_owned(), flags(&["--data", "--listen"]));
    let audit = ("audit".to_owned(), flags(&["--ids"]));
    assert_eq!(told, [up, audit]);
}

#[test]
fn every_command_and_flag_in_the_documents_exists() {
    let commands = commands();
    let of_markdown = |path: &str| Path::new(path).extension().is_some_and(|extension| extension == "md");
    let mut found = 0;
    for (path, text) in texts().into_iter().filter(|(path, _)| of_markdown(path)) {
        for (command, flags) in invocations(&text) {
            assert!(commands.contains(&command), "{path}: there is no herald {command}");
            let help = herald(&[&command, "--help"]);
            let known: BTreeSet<_> = help.split(|c: char| !c.is_ascii_lowercase() && c != '-').collect();
            for flag in flags {
                assert!(known.contains(flag.as_str()), "{path}: herald {command} has no {flag}");
            }
            found += 1;
        }
    }
    assert!(found > 5, "deploy/README.md shows how Herald is run");
}
