//! The house: what a top module may know of the others.
//!
//! Invariant: there is no circle among the modules directly under `src/`. Only
//! what the program consists of counts: tests may use whatever they like.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Who uses whom.
type Uses = BTreeMap<String, BTreeSet<String>>;

/// What a text uses of the crate: every `crate::name` outside comments and
/// before its own tests, also in a group.
fn names(text: &str) -> BTreeSet<String> {
    let mut lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let mut code = String::new();
    while let Some(line) = lines.next() {
        if line.trim() != "#[cfg(test)]" {
            code.push_str(line);
            code.push('\n');
        } else if lines.next().is_some_and(|of_tests| of_tests.ends_with('{')) {
            // Its own tests are the end of a file.
            break;
        }
    }
    let mut found = BTreeSet::new();
    for (place, _) in code.match_indices("crate::") {
        let rest = &code[place + "crate::".len()..];
        let (group, is_group) = match rest.strip_prefix('{') {
            Some(group) => (group.split('}').next().unwrap_or_default(), true),
            None => (rest, false),
        };
        let items = group.split(',').take(if is_group { usize::MAX } else { 1 });
        let name =
            |item: &str| item.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
        found.extend(items.map(name).filter(|name| !name.is_empty()));
    }
    found
}

/// Files that are tests as a whole.
fn is_test(path: &Path) -> bool {
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    stem.split('_').any(|word| matches!(word, "test" | "tests" | "testing" | "fake"))
}

fn read(path: &Path, top: &str, uses: &mut Uses) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            read(&entry.unwrap().path(), top, uses);
        }
    } else if path.extension().is_some_and(|extension| extension == "rs") && !is_test(path) {
        uses.entry(top.to_owned()).or_default().extend(names(&fs::read_to_string(path).unwrap()));
    }
}

fn of_the_program() -> Uses {
    let mut uses = Uses::new();
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap() {
        let path = entry.unwrap().path();
        let top = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if !matches!(top.as_str(), "lib" | "main") {
            read(&path, &top, &mut uses);
        }
    }
    for (top, used) in &mut uses {
        used.remove(top);
    }
    uses
}

/// What is left when modules that use nothing that is left are taken away, again
/// and again: circles, and what uses them.
fn circles(mut uses: Uses) -> Uses {
    loop {
        let left: BTreeSet<String> = uses.keys().cloned().collect();
        let before = uses.len();
        uses.retain(|_, used| used.iter().any(|name| left.contains(name)));
        if uses.len() == before {
            return uses;
        }
    }
}

#[test]
fn a_circle_is_found_and_a_chain_is_none() {
    let uses = |pairs: &[(&str, &str)]| {
        let mut uses = Uses::new();
        for (one, other) in pairs {
            uses.entry((*one).to_owned()).or_default().insert((*other).to_owned());
        }
        uses
    };
    assert!(circles(uses(&[("a", "b"), ("b", "c"), ("a", "c")])).is_empty());
    let found = circles(uses(&[("a", "b"), ("b", "c"), ("c", "b"), ("d", "e")]));
    assert!(found.contains_key("b") && found.contains_key("c") && !found.contains_key("d"), "{found:?}");
    let text = "#[cfg(test)]\nmod kit;\nuse crate::wire::X;\nuse crate::{lsn, state::State};\n// crate::no\nfn f() { crate::sql::g() }\n#[cfg(test)]\nmod tests {\n    use crate::run;\n}";
    assert_eq!(names(text).into_iter().collect::<Vec<_>>(), ["lsn", "sql", "state", "wire"]);
}

#[test]
fn no_top_modules_use_each_other_in_a_circle() {
    let uses = of_the_program();
    assert!(uses.get("run").is_some_and(|used| used.contains("copy")), "the sources are read: {uses:?}");
    let found = circles(uses);
    assert!(found.is_empty(), "modules in a circle, or that use one: {found:#?}");
}
