//! No circles of files: of two modules side by side, one may use the other, and not both each other, whether directly
//! or by way of further ones.
//!
//! A module and those below it are one: that a parent holds what its children share, and calls them, is the usual
//! shape. So the modules of each folder are looked at, each with all that is below it. What counts as use is a path,
//! and of a name that a module only passes on (`pub use`) the module that has it.

mod tokens;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use tokens::tokens;

/// Where a module stands in its crate; the crate itself is nowhere.
type Place = Vec<String>;

/// A crate's modules.
struct Crate(BTreeMap<Place, Module>);

#[derive(Default)]
struct Module {
    /// What it imports: the path, and the name that it has here.
    imports: Vec<(Vec<String>, String)>,
    /// The paths in it that begin at the crate, at its parent or at itself.
    paths: Vec<Vec<String>>,
}

impl Module {
    fn read(source: &str) -> Self {
        let (tokens, mut module, mut at) = (tokens(source), Self::default(), 0);
        let follows = |at: usize| tokens.get(at + 1).is_some_and(|next| next == "::");
        while let Some(token) = tokens.get(at) {
            at += 1;
            if token == "use" && tokens.get(at).is_some_and(|next| next != "<") {
                module.import(&tokens, &mut at, &[]);
            } else if ["crate", "super", "self"].contains(&token.as_str()) && follows(at - 1) {
                let mut path = vec![token.clone()];
                while tokens.get(at).is_some_and(|next| next == "::") {
                    path.extend(tokens.get(at + 1).cloned());
                    at += 2;
                }
                module.paths.push(path);
            }
        }
        module
    }

    /// Reads a tree of imports, whose beginning is `before`.
    fn import(&mut self, tokens: &[String], at: &mut usize, before: &[String]) {
        let mut path = before.to_vec();
        let mut name = None;
        while let Some(token) = tokens.get(*at) {
            match token.as_str() {
                ";" | "," | "}" => break,
                "{" => {
                    while tokens.get(*at).is_some_and(|token| token == "{" || token == ",") {
                        *at += 1;
                        self.import(tokens, at, &path);
                    }
                    *at += 1;
                    return;
                }
                "::" => {}
                "as" => {
                    *at += 1;
                    name = tokens.get(*at).cloned();
                }
                _ => path.push(token.clone()),
            }
            *at += 1;
        }
        if path.len() == before.len() {
            return;
        }
        if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
            path.pop();
        }
        if let Some(name) = name.or_else(|| path.last().cloned()) {
            self.imports.push((path, name));
        }
    }
}

impl Crate {
    fn read(src: &Path) -> Self {
        let (mut modules, mut folders) = (BTreeMap::new(), vec![src.to_owned()]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                let place = path.strip_prefix(src).unwrap().with_extension("");
                let place: Place = place.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
                // Programs beside a library are crates of their own.
                if place.last().is_some_and(|name| name == "tests") || place == ["bin"] {
                    continue;
                }
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    let is_root = place == ["lib"] || place == ["main"];
                    let module = Module::read(&fs::read_to_string(&path).unwrap());
                    modules.insert(if is_root { Place::new() } else { place }, module);
                }
            }
        }
        Self(modules)
    }

    /// A path from the crate on; none where it leads out of the crate, or to an item of the module itself.
    fn absolute(&self, from: &[String], path: &[String]) -> Option<Vec<String>> {
        let mut base = from.to_vec();
        let mut rest = path;
        match path.first()?.as_str() {
            "crate" => base.clear(),
            "super" | "self" => {}
            child => {
                base.push(child.to_owned());
                return self.0.contains_key(&base).then(|| [from, path].concat());
            }
        }
        while let Some((first, after)) = rest.split_first() {
            match first.as_str() {
                "super" => drop(base.pop()?),
                "crate" | "self" => {}
                _ => break,
            }
            rest = after;
        }
        base.extend_from_slice(rest);
        Some(base)
    }

    /// The module that has what a path from the crate on leads to.
    fn resolve(&self, path: &[String], passed: &mut BTreeSet<Vec<String>>) -> Place {
        let known = (1..=path.len()).take_while(|length| self.0.contains_key(&path[..*length]));
        let (place, rest) = path.split_at(known.last().unwrap_or(0));
        let Some((name, rest)) = rest.split_first() else {
            return place.to_vec();
        };
        let imports = self
            .0
            .get(place)
            .map(|module| module.imports.as_slice())
            .unwrap_or_default();
        let passed_on = imports.iter().filter(|(_, known)| known == name);
        let mut passed_on = passed_on.filter_map(|(path, _)| self.absolute(place, path));
        match passed_on.next() {
            Some(next) if passed.insert(path.to_vec()) => self.resolve(&[next.as_slice(), rest].concat(), passed),
            _ => place.to_vec(),
        }
    }

    /// Of each pair of modules the paths by which the first uses the second.
    fn uses(&self) -> BTreeMap<(Place, Place), BTreeSet<String>> {
        let mut uses: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
        for (place, module) in &self.0 {
            for path in module.imports.iter().map(|(path, _)| path).chain(&module.paths) {
                if let Some(absolute) = self.absolute(place, path) {
                    let used = self.resolve(&absolute, &mut BTreeSet::new());
                    uses.entry((place.clone(), used)).or_default().insert(path.join("::"));
                }
            }
        }
        uses
    }

    /// The uses that are parts of a circle, in words.
    fn circles(&self) -> Vec<String> {
        let uses = self.uses();
        let mut circles = Vec::new();
        for parent in self.0.keys() {
            let below = |place: &Place| Some(place.strip_prefix(parent.as_slice())?.first()?.clone());
            let mut direct: BTreeMap<String, BTreeMap<String, Vec<String>>> = BTreeMap::new();
            for ((by, used), paths) in &uses {
                if let (Some(one), Some(other)) = (below(by), below(used))
                    && one != other
                {
                    let why = paths.iter().map(|path| format!("{} uses {path}", by.join("::")));
                    direct.entry(one).or_default().entry(other).or_default().extend(why);
                }
            }
            for (one, others) in &direct {
                for (_, why) in others.iter().filter(|(other, _)| leads_to(&direct, other, one)) {
                    circles.extend(why.iter().cloned());
                }
            }
        }
        circles
    }
}

/// Whether one leads to the other, directly or by way of others.
fn leads_to<T>(direct: &BTreeMap<String, BTreeMap<String, T>>, from: &str, to: &str) -> bool {
    let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
    while let Some(one) = next.pop() {
        if one == to {
            return true;
        }
        if seen.insert(one) {
            next.extend(direct.get(one).into_iter().flatten().map(|(other, _)| other.as_str()));
        }
    }
    false
}

#[test]
fn no_files_use_each_other_in_a_circle() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let (mut crates, mut folders, mut circles) = (0, vec![repository.to_owned()], Vec::new());
    while let Some(folder) = folders.pop() {
        let src = folder.join("src");
        if folder.join("Cargo.toml").is_file() && src.is_dir() {
            crates += 1;
            let found = Crate::read(&src).circles();
            circles.extend(found.into_iter().map(|use_| format!("{}: {use_}", src.display())));
        }
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() && !name.starts_with('.') && !["target", "src"].contains(&name) {
                folders.push(path);
            }
        }
    }
    assert!(crates > 12, "the workspace has more crates than {crates}");
    assert!(
        circles.is_empty(),
        "files use each other in a circle:\n{}",
        circles.join("\n")
    );
}

/// What is found in a crate of these files.
fn found(files: &[(&str, &str)]) -> Vec<String> {
    let place = |path: &str| {
        path.split('/')
            .filter(|part| !part.is_empty())
            .map(str::to_owned)
            .collect()
    };
    Crate(
        files
            .iter()
            .map(|(path, source)| (place(path), Module::read(source)))
            .collect(),
    )
    .circles()
}

#[test]
fn a_circle_is_found_however_it_is_written() {
    let root = ("", "mod a;\nmod b;\nmod c;\npub use c::Thing;");
    let b = ("b", "use crate::c;");
    for a in [
        "use crate::b::B;",
        "use crate::{c, b::{self, B}};",
        "fn f() { crate::b::g() }",
        "use super::b as other;",
        "impl super::b::B {}",
    ] {
        let circles = found(&[root, ("a", a), b, ("c", "use crate::a::A;")]);
        for part in ["a uses ", "b uses crate::c", "c uses crate::a::A"] {
            assert!(circles.iter().any(|use_| use_.starts_with(part)), "{a}: {circles:?}");
        }
    }
    let passed_on = found(&[root, ("a", "use crate::Thing;"), b, ("c", "use crate::{a, b};")]);
    assert_eq!(
        passed_on,
        [
            "a uses crate::Thing",
            "b uses crate::c",
            "c uses crate::a",
            "c uses crate::b"
        ]
    );
}

#[test]
fn a_circle_below_a_module_is_found_and_one_with_its_parent_is_none() {
    let files = [
        ("", "mod p;"),
        ("p", "mod a;\nmod b;\nuse a::A;\npub(crate) struct P;"),
        ("p/a", "use super::P;\nuse super::b::B;"),
        ("p/b", "use super::A;"),
    ];
    assert_eq!(found(&files), ["p::a uses super::b::B", "p::b uses super::A"]);
    assert!(found(&files[..3]).is_empty());
}

#[test]
fn comments_texts_and_tests_use_nothing() {
    let b = ("b", "use crate::a;");
    for a in [
        "// use crate::b;\n/* /* */ use crate::b; */",
        r##"const A: &str = "\" crate::b::B"; const B: &str = r#" " crate::b::B "#;"##,
        "const A: char = '\"'; const B: char = '\\''; fn f<'a>() {}",
        "#[cfg(test)]\nuse crate::b;\n#[cfg(test)]\nmod tests { fn f() { crate::b::g() } }",
        "pub(crate) struct A;",
    ] {
        assert!(found(&[("", ""), ("a", a), b]).is_empty(), "{a}");
    }
    let after = "const A: char = '\"'; #[cfg(test)]\nmod tests { }\nuse crate::b;";
    assert_eq!(found(&[("", ""), ("a", after), b]).len(), 2);
}
