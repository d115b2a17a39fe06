//! The Dockerfile, by a linter, by the binary, and by what the build needs.

use crate::tools::{commands, deploy, output, python, read, repository, settings};
use serde_json::Value;
use std::collections::BTreeMap;

/// The arguments of each instruction of that name, continued lines joined.
fn instructions(name: &str) -> Vec<String> {
    let file = read("Dockerfile").replace("\\\n", " ");
    let lines = file.lines().filter_map(|line| line.split_once(' '));
    let named = lines.filter(|(instruction, _)| *instruction == name);
    named.map(|(_, arguments)| arguments.trim().to_owned()).collect()
}

#[test]
fn the_linter_has_nothing_to_say() {
    output(
        python("hadolint")
            .args(["--failure-threshold", "style"])
            .arg(deploy("Dockerfile")),
    );
}

#[test]
fn the_image_runs_what_the_binary_has_as_nobody_special() {
    let commands = commands();
    let default: Vec<String> = serde_json::from_str(&instructions("CMD")[0]).expect("the form of a list");
    assert!(commands.contains(&default[0]), "herald {default:?}");
    let check = &instructions("HEALTHCHECK")[0];
    let (_, check) = check.split_once("CMD ").expect("a command");
    let check: Vec<String> = serde_json::from_str(check).expect("the form of a list, because there is no shell");
    assert!(commands.contains(&check[1]), "{check:?}");
    let user = &instructions("USER")[0];
    let numbers = user.split(':').map(str::parse::<u32>);
    assert!(
        numbers.into_iter().all(|number| number.is_ok_and(|number| number > 0)),
        "USER {user}"
    );
}

#[test]
fn the_image_listens_where_it_says() {
    let words: Vec<_> = instructions("ENV")
        .join(" ")
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    let pairs = words.iter().filter_map(|word| word.split_once('='));
    let environment: BTreeMap<_, _> = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let settings = settings(&[], &environment);
    let exposed = &instructions("EXPOSE")[0];
    assert_eq!(settings["listen"], format!("[::]:{exposed}"));
    let copied = instructions("COPY");
    assert!(
        copied.iter().any(|copy| copy.ends_with(&settings["data"])),
        "{settings:?} {copied:?}"
    );
}

/// What the build needs comes through, and nothing in it is too old.
#[test]
fn the_build_has_the_whole_workspace() {
    let manifest = std::fs::read_to_string(repository().join("Cargo.toml")).unwrap();
    let value_of = |key: &str| {
        let mut lines = manifest.lines();
        let line = lines.find_map(|line| line.strip_prefix(key)?.trim_start().strip_prefix('='));
        let line = line.unwrap_or_else(|| panic!("{key} in Cargo.toml"));
        serde_json::from_str::<Value>(line).expect("written as in JSON")
    };
    let ignored = std::fs::read_to_string(repository().join(".dockerignore")).unwrap();
    let let_in: Vec<_> = ignored.lines().filter_map(|line| line.strip_prefix('!')).collect();
    let members = value_of("members");
    let members = members.as_array().expect("a list").iter().filter_map(Value::as_str);
    for member in members.chain(["Cargo.toml", "Cargo.lock"]) {
        let top = member.split('/').next().unwrap();
        assert!(let_in.contains(&top), "{member} does not come into the build");
    }
    let version = |text: &str| {
        let numbers = text.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
        numbers.take(2).collect::<Vec<_>>()
    };
    let from = instructions("FROM");
    let compiler = from[0]
        .strip_prefix("rust:")
        .expect("the first stage is of the compiler");
    let needed = value_of("rust-version");
    assert!(
        version(compiler) >= version(needed.as_str().unwrap()),
        "rust {compiler}, and {needed} is needed"
    );
}
