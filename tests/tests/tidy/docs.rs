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

/// Names with at least this many words are those of tests.
const WORDS_OF_A_TEST: usize = 6;

#[test]
fn every_test_that_the_documentation_names_exists() {
    let sources: String = files(&root(), "rs").iter().map(|path| read(path)).collect();
    let is_test = |name: &&str| {
        name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
            && name.split('_').count() >= WORDS_OF_A_TEST
    };
    let mut named = 0;
    let mut violations = Vec::new();
    for path in documents() {
        let text = read(&path);
        for name in text.split('`').skip(1).step_by(2).filter(is_test) {
            named += 1;
            if !sources.contains(&format!("fn {name}(")) {
                violations.push(format!("{}: there is no test {name}", path.display()));
            }
        }
    }
    assert_none("tests named in the documentation", &violations);
    assert!(named >= 50, "the documentation names the tests of its claims");
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
