//! Rules for the documentation: links are valid, invariants name existing tests, and tables are complete.

use std::path::{Path, PathBuf};

use highwater_protocol::error::ErrorCode;
use highwater_protocol::native::MessageKind;

use crate::{assert_none, files, read, relative_path, root};

/// Required documents.
const DOCUMENTS: [&str; 9] = [
    "README.md",
    "ARCHITECTURE.md",
    "LICENSE",
    "docs/benchmarks.md",
    "docs/guarantees.md",
    "docs/operations.md",
    "docs/disk-format.md",
    "docs/wire-format.md",
    "docs/kafka-compatibility.md",
];

fn documents() -> Vec<PathBuf> {
    files(&root(), "md")
}

/// Returns the targets of `[text](target)` outside code blocks, with their line numbers.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut in_code = false;
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code {
            continue;
        }
        for (at, _) in line.match_indices("](") {
            let rest = &line[at + 2..];
            if let Some(end) = rest.find(')') {
                found.push((number + 1, rest[..end].to_owned()));
            }
        }
    }
    found
}

/// Returns the anchor of a heading.
fn anchor(heading: &str) -> String {
    heading
        .trim_start_matches('#')
        .trim()
        .chars()
        .filter_map(|c| match c {
            ' ' => Some('-'),
            c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c.to_ascii_lowercase()),
            _ => None,
        })
        .collect()
}

fn has_anchor(path: &Path, wanted: &str) -> bool {
    read(path).lines().any(|line| line.starts_with('#') && anchor(line) == wanted)
}

#[test]
fn the_required_documents_exist() {
    for name in DOCUMENTS {
        assert!(root().join(name).is_file(), "{name} is missing");
    }
}

#[test]
fn every_link_in_the_documentation_has_a_target() {
    let mut violations = Vec::new();
    for path in documents() {
        for (line, target) in links(&read(&path)) {
            if target.contains("://") {
                continue;
            }
            let (file, fragment) = target.split_once('#').unwrap_or((&target, ""));
            let to = if file.is_empty() { path.clone() } else { path.with_file_name("").join(file) };
            if !to.exists() {
                violations.push(format!("{}:{line}: {target} does not exist", relative_path(&path)));
            } else if !fragment.is_empty() && !has_anchor(&to, fragment) {
                violations.push(format!("{}:{line}: {target} has no such heading", relative_path(&path)));
            }
        }
    }
    assert_none("links", &violations);
}

#[test]
fn every_invariant_that_names_a_test_names_one_that_exists() {
    let text = read(&root().join("ARCHITECTURE.md"));
    let sources: String = files(&root(), "rs").iter().map(|path| read(path)).collect();
    let mut held = 0;
    let mut violations = Vec::new();
    for line in text.lines().filter(|line| line.contains("Held by `")) {
        for (at, _) in line.match_indices("Held by `") {
            let name = line[at + 9..].split('`').next().unwrap_or_default();
            held += 1;
            if !sources.contains(&format!("fn {name}(")) {
                violations.push(format!("there is no test {name}"));
            }
        }
    }
    assert_none("invariants", &violations);
    assert!(held >= 5, "ARCHITECTURE.md names the tests that hold its invariants");
}

#[test]
fn the_wire_format_lists_every_message_and_every_error() {
    let text = read(&root().join("docs/wire-format.md"));
    let mut violations = Vec::new();
    for kind in MessageKind::ALL {
        if !text.contains(&format!("{kind:?}")) {
            violations.push(format!("message {kind:?}"));
        }
    }
    for code in ErrorCode::ALL {
        if !text.contains(&format!("{code:?}")) {
            violations.push(format!("error {code:?}"));
        }
    }
    assert_none("not in docs/wire-format.md", &violations);
}
