//! The top-level modules of a crate form layers: no circle of modules that use each other.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use crate::sources::{is_test_file, product_lines};
use crate::{assert_none, files, read, relative_path, root};

/// Crates without circles.
const LAYERED: [&str; 9] =
    ["bench", "client", "engine", "net", "protocol", "replication", "runtime", "storage", "tools"];

/// For each top-level module the modules that it uses, each with the files that do.
type Graph = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

/// Returns the first segment of each path after one of `prefixes`, through groups: `a` and `b` of `crate::{a::X, b::{Y, Z}}`.
fn first_segments<'a>(code: &'a str, prefixes: &[&str]) -> Vec<&'a str> {
    let mut found = Vec::new();
    for prefix in prefixes {
        for (at, _) in code.match_indices(prefix) {
            // `$crate` is the crate of a macro, and `my_crate` another one.
            if code[..at].ends_with(|c: char| c == '$' || c == '_' || c.is_alphanumeric()) {
                continue;
            }
            let rest = &code[at + prefix.len()..];
            match rest.strip_prefix('{') {
                Some(group) => found.extend(group_segments(group)),
                None => found.push(identifier(rest)),
            }
        }
    }
    found
}

/// Returns the first segment of each path of a group, given what follows its opening brace.
fn group_segments(group: &str) -> Vec<&str> {
    let mut found = vec![identifier(group.trim_start())];
    let mut depth = 1;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => found.push(identifier(group[at + 1..].trim_start())),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    found
}

/// Returns the identifier at the start of `code`; empty if there is none.
fn identifier(code: &str) -> &str {
    let end = code.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(code.len());
    &code[..end]
}

/// Returns the production code of a file, without comments and items for tests.
fn product_code(text: &str) -> String {
    let mut code = String::new();
    let mut is_for_tests = false;
    for (_, line) in product_lines(text) {
        is_for_tests |= line.trim() == "#[cfg(test)]";
        if !is_for_tests {
            code.push_str(line);
            code.push('\n');
        } else if line.trim_end().ends_with([';', '}']) {
            is_for_tests = false;
        }
    }
    code
}

/// Returns the names that the root of a crate re-exports, each with its module, so that `crate::Name` counts as a use of that module.
fn exports(code: &str, modules: &BTreeSet<String>) -> BTreeMap<String, String> {
    let mut exports = BTreeMap::new();
    for statement in code.split(';') {
        let Some((_, path)) = statement.split_once("use ") else { continue };
        let module = identifier(path.trim_start());
        if modules.contains(module) {
            let words = path.split(|c: char| c != '_' && !c.is_alphanumeric());
            exports.extend(words.map(|word| (word.to_owned(), module.to_owned())));
        }
    }
    exports.retain(|name, _| !modules.contains(name));
    exports
}

/// Returns which top-level modules of a crate use which.
fn graph(folder: &str) -> Graph {
    let source = root().join(folder).join("src");
    let entries = fs::read_dir(&source).unwrap_or_else(|e| panic!("cannot list {folder}/src: {e}"));
    let modules: BTreeSet<String> = entries
        .map(|entry| entry.expect("an entry").path().file_stem().expect("a name").to_string_lossy().into())
        .filter(|name: &String| name != "lib" && name != "main")
        .collect();
    let lib = source.join("lib.rs");
    let exports = if lib.exists() { exports(&product_code(&read(&lib)), &modules) } else { BTreeMap::new() };
    let mut graph = Graph::new();
    for path in files(&source, "rs").into_iter().filter(|path| !is_test_file(path)) {
        let inside = path.strip_prefix(&source).expect("a file of the crate").with_extension("");
        let parts: Vec<_> = inside.iter().map(|part| part.to_string_lossy()).collect();
        let module = parts[0].to_string();
        if !modules.contains(&module) {
            continue;
        }
        let depth = parts.len() - usize::from(parts.last().is_some_and(|part| part == "mod"));
        let prefixes: &[&str] = match depth {
            1 => &["crate::", "super::"],
            2 => &["crate::", "super::super::"],
            _ => &["crate::"],
        };
        let code = product_code(&read(&path));
        for name in first_segments(&code, prefixes) {
            let used = exports.get(name).map_or(name, String::as_str);
            if used != module && modules.contains(used) {
                let uses = graph.entry(module.clone()).or_default();
                uses.entry(used.to_owned()).or_default().insert(relative_path(&path));
            }
        }
    }
    graph
}

/// Returns whether a module leads to another.
fn leads_to(graph: &Graph, from: &str, to: &str) -> bool {
    let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(module) = open.pop() {
        if module == to {
            return true;
        }
        if seen.insert(module) {
            open.extend(graph.get(module).into_iter().flat_map(|uses| uses.keys().map(String::as_str)));
        }
    }
    false
}

/// Returns the arrows of all circles, with the files that make them.
fn circles(graph: &Graph) -> Vec<String> {
    let mut arrows = Vec::new();
    for (module, uses) in graph {
        for (used, files) in uses.iter().filter(|(used, _)| leads_to(graph, used, module)) {
            let files: Vec<_> = files.iter().map(String::as_str).collect();
            arrows.push(format!("{module} -> {used}: {}", files.join(", ")));
        }
    }
    arrows
}

#[test]
fn modules_of_a_crate_use_each_other_in_one_direction() {
    let arrows: Vec<_> = LAYERED
        .iter()
        .flat_map(|folder| circles(&graph(folder)).into_iter().map(move |arrow| format!("{folder}: {arrow}")))
        .collect();
    assert_none("circles of modules", &arrows);
}

#[test]
fn modules_of_the_engine_use_those_below_them_in_the_table() {
    let text = read(&root().join("ARCHITECTURE.md"));
    let (_, section) = text.split_once("## The rooms of the engine").expect("a section about the engine");
    let section = section.split("\n## ").next().unwrap_or(section);
    let mut rows = BTreeMap::new();
    for (row, line) in section.lines().filter(|line| line.starts_with("| `")).enumerate() {
        let cell = line.trim_start_matches("| ").split(" |").next().unwrap_or(line);
        let names = cell.split(", ").map(|name| name.trim_matches('`').trim_end_matches('/'));
        rows.extend(names.map(|name| (name.trim_end_matches(".rs").to_owned(), row)));
    }
    let mut violations = Vec::new();
    for (module, uses) in graph("engine") {
        for (used, files) in uses {
            let down = rows.get(&module).zip(rows.get(&used)).is_some_and(|(from, to)| from < to);
            if !down {
                violations.push(format!("{module} -> {used}: {}", Vec::from_iter(files).join(", ")));
            }
        }
    }
    assert_none("uses against the table of modules in ARCHITECTURE.md", &violations);
}

#[test]
fn the_check_for_circles_sees_groups_re_exports_and_the_whole_circle() {
    let code = "use crate::{a::X, b::{Y, z::Z}};\nlet c = crate::c::d(); my_crate::e(); $crate::f!();";
    assert_eq!(first_segments(code, &["crate::"]), ["a", "b", "c"]);
    let modules = BTreeSet::from(["store".to_owned()]);
    let exports = exports("mod store; pub use store::{Store, error::StoreError as Error};", &modules);
    assert_eq!(exports.get("Store").map(String::as_str), Some("store"));
    assert_eq!(exports.get("Error").map(String::as_str), Some("store"));
    let mut graph = Graph::new();
    for (module, used) in [("a", "b"), ("b", "c"), ("c", "a"), ("a", "d")] {
        graph.entry(module.into()).or_default().entry(used.into()).or_default().insert("f.rs".into());
    }
    assert_eq!(circles(&graph), ["a -> b: f.rs", "b -> c: f.rs", "c -> a: f.rs"]);
}
