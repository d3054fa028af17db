//! Rules for the `Cargo.toml` files: dependencies between crates, and descriptions.

use std::collections::{BTreeMap, BTreeSet};

use toml::{Table, Value};

use crate::{FOLDERS, assert_none, files, read, relative_path, root};

/// Allowed dev-dependencies that the crate itself must not use, with the reason.
const TEST_ARROWS: [(&str, &str, &str); 4] = [
    ("client", "engine", "the documentation's examples run against an in-process broker"),
    ("bench", "engine", "short runs of the load generator against an in-process broker"),
    ("bench", "net", "micro benchmarks of parsing requests"),
    ("bench", "storage", "micro benchmarks of appending"),
];

fn manifest(folder: &str) -> Table {
    let path = root().join(folder).join("Cargo.toml");
    read(&path).parse().unwrap_or_else(|e| panic!("{}: {e}", relative_path(&path)))
}

fn dependencies(manifest: &Table, section: &str) -> Vec<String> {
    manifest.get(section).and_then(Value::as_table).map(|t| t.keys().cloned().collect()).unwrap_or_default()
}

/// Returns the folders that each folder may use, from the table in ARCHITECTURE.md.
fn arrows() -> BTreeMap<String, BTreeSet<String>> {
    let text = read(&root().join("ARCHITECTURE.md"));
    let mut arrows = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [folder, _, _, may_use] = cells[..] else { continue };
        let folder = folder.trim_matches('`').trim_end_matches('/').to_owned();
        let may_use = match may_use {
            "–" => BTreeSet::new(),
            list => list.split(", ").map(str::to_owned).collect(),
        };
        arrows.insert(folder, may_use);
    }
    arrows
}

#[test]
fn every_folder_is_in_the_table_of_architecture_md_and_in_the_workspace() {
    let table: BTreeSet<String> = arrows().into_keys().collect();
    assert_eq!(table, FOLDERS.iter().map(ToString::to_string).collect());
    let workspace: Table = read(&root().join("Cargo.toml")).parse().expect("the workspace's Cargo.toml");
    let members = workspace["workspace"]["members"].as_array().expect("members");
    let members: BTreeSet<&str> = members.iter().filter_map(Value::as_str).collect();
    assert_eq!(members, FOLDERS.into());
}

#[test]
fn crates_depend_on_each_other_only_as_the_table_says() {
    let arrows = arrows();
    let mut violations = Vec::new();
    for folder in FOLDERS {
        let manifest = manifest(folder);
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            for name in dependencies(&manifest, section) {
                let Some(used) = name.strip_prefix("highwater-") else { continue };
                let allowed = arrows[folder].contains(used)
                    || section == "dev-dependencies"
                        && TEST_ARROWS.iter().any(|(from, to, _)| *from == folder && *to == used);
                if !allowed {
                    violations.push(format!("{folder}/Cargo.toml [{section}]: {folder} may not use {used}"));
                }
            }
        }
    }
    assert_none("arrows against ARCHITECTURE.md", &violations);
}

#[test]
fn dependencies_between_crates_have_no_cycle() {
    let arrows = arrows();
    let rank = |folder: &str| FOLDERS.iter().position(|f| *f == folder).expect("a folder of the table");
    for (folder, used) in &arrows {
        for used in used {
            assert!(rank(used) < rank(folder), "{folder} -> {used} points up the table");
        }
    }
}

#[test]
fn glommio_and_io_uring_are_dependencies_of_the_runtime_alone() {
    for folder in FOLDERS.iter().filter(|folder| **folder != "runtime") {
        let manifest = manifest(folder);
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            for name in dependencies(&manifest, section) {
                assert!(
                    name != "glommio" && name != "io-uring",
                    "{folder}/Cargo.toml [{section}] names {name}"
                );
            }
        }
    }
}

#[test]
fn every_crate_has_documentation_and_uses_the_workspaces_lints() {
    let mut violations = Vec::new();
    for folder in FOLDERS {
        let manifest = manifest(folder);
        let package = manifest["package"].as_table().expect("a package");
        if package.get("description").and_then(Value::as_str).is_none_or(|text| text.len() < 20) {
            violations.push(format!("{folder}/Cargo.toml: no description"));
        }
        let inherits = |table: &Table, key: &str| {
            table.get(key).and_then(|v| v.get("workspace")).and_then(Value::as_bool) == Some(true)
        };
        if !inherits(package, "license") || !inherits(package, "version") || !inherits(&manifest, "lints") {
            violations.push(format!(
                "{folder}/Cargo.toml: license, version and lints must be inherited from the workspace"
            ));
        }
        let source = root().join(folder).join("src");
        let top = if source.join("lib.rs").exists() { "lib.rs" } else { "main.rs" };
        let text = read(&source.join(top));
        if !text.starts_with("//! ") || text.lines().next().is_some_and(|line| line.len() < 30) {
            violations.push(format!("{folder}/src/{top}: does not begin with a description of the crate"));
        }
        if folder != "runtime" && !text.contains("#![forbid(unsafe_code)]") {
            violations.push(format!("{folder}/src/{top}: no #![forbid(unsafe_code)]"));
        }
    }
    assert_none("crates", &violations);
}

#[test]
fn no_crate_has_unused_dependencies() {
    let mut violations = Vec::new();
    for folder in FOLDERS {
        let manifest = manifest(folder);
        let source = |sub: &str| {
            let dir = root().join(folder).join(sub);
            if dir.is_dir() {
                files(&dir, "rs").iter().map(|path| read(path)).collect()
            } else {
                String::new()
            }
        };
        let library = source("src");
        let everything: String =
            [library.clone(), source("tests"), source("benches"), source("examples")].concat();
        for (section, text) in [("dependencies", &library), ("dev-dependencies", &everything)] {
            for name in dependencies(&manifest, section) {
                if !text.contains(&name.replace('-', "_")) {
                    violations.push(format!("{folder}/Cargo.toml [{section}]: {name} is not used"));
                }
            }
        }
    }
    assert_none("unused dependencies", &violations);
}
