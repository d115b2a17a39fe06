//! The metrics' names, help, types and labels, and what `promtool` thinks of them.

use crate::{builder, expositions};
use herald_tests::Stack;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::process::{Command, Stdio};

/// A metric as it is before anything happened.
#[derive(Debug, Default)]
struct Family {
    kind: String,
    help: String,
    /// The values of each label.
    labels: BTreeMap<String, BTreeSet<String>>,
}

/// All that some process of Herald says, by name.
type Families = BTreeMap<String, Family>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_help_types_and_labels_are_those_that_dashboards_and_alerts_rely_on() {
    let mut families = Families::new();
    for stack in [Stack::Embedded, Stack::Cluster] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let herald = builder(stack, folder.path()).start().await;
        for text in expositions(&herald).await {
            let said = check(&text);
            assert_eq!(said, "", "promtool objects to what a process says, {stack:?}");
            read(&text, &mut families);
        }
    }
    insta::assert_snapshot!("metrics", described(&families));
}

#[test]
fn promtool_objects_to_what_breaks_the_conventions() {
    let said = check("# HELP herald_things Things.\n# TYPE herald_things counter\nherald_things 1\n");
    assert!(said.contains("_total"), "{said}");
}

/// What `promtool check metrics` says of it; nothing if all is well.
fn check(text: &str) -> String {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is installed; tests/install installs it or says what to install");
    let mut input = promtool.stdin.take().expect("a pipe");
    std::io::Write::write_all(&mut input, text.as_bytes()).expect("promtool reads");
    drop(input);
    let output = promtool.wait_with_output().expect("promtool ends");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).trim().to_owned();
    assert!(output.status.success() || !said.is_empty(), "{}", output.status);
    said
}

/// Adds what a process says.
fn read(text: &str, families: &mut Families) {
    let mut current = String::new();
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').expect("every metric has help");
            name.clone_into(&mut current);
            help.clone_into(&mut families.entry(current.clone()).or_default().help);
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').expect("every metric has a type");
            assert_eq!(name, current);
            kind.clone_into(&mut families.entry(current.clone()).or_default().kind);
        } else {
            let family = families.get_mut(&current).expect("help and type come first");
            for (label, value) in labels(line) {
                family.labels.entry(label).or_default().insert(value);
            }
        }
    }
}

/// The labels of a sample. No value of Herald's has a quotation mark or a comma in it.
fn labels(line: &str) -> Vec<(String, String)> {
    let inside = line.split_once('{').and_then(|(_, rest)| rest.rsplit_once('}'));
    let pairs = inside.map_or("", |(inside, _)| inside).split(',');
    let pairs = pairs.filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(label, value)| (label.to_owned(), value.trim_matches('"').to_owned()))
        .collect()
}

/// One metric a paragraph. Buckets are left out, and the version is the build's.
fn described(families: &Families) -> String {
    let mut text = String::new();
    for (name, Family { kind, help, labels }) in families {
        writeln!(text, "{name} ({kind})\n  {help}").expect("a text takes all");
        for (label, values) in labels.iter().filter(|(label, _)| *label != "le") {
            let values: Vec<_> = values.iter().map(String::as_str).collect();
            let values = if label == "version" {
                "…".to_owned()
            } else {
                values.join(" | ")
            };
            writeln!(text, "  {label}: {values}").expect("a text takes all");
        }
    }
    text
}
