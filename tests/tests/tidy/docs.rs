//! Documentation in step with the tree: links lead somewhere, invariants name a test that exists, tables list what there is.

use std::path::{Path, PathBuf};

use highwater_protocol::error::ErrorCode;
use highwater_protocol::native::MessageKind;

use crate::{files, none_of, read, root, shown};

/// What a project has to have at its top.
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

/// The targets of `[text](target)` in a text, with their line numbers; code blocks left out.
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

/// The anchor that a heading gets.
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
fn the_documents_of_the_project_are_there() {
    for name in DOCUMENTS {
        assert!(root().join(name).is_file(), "{name} is missing");
    }
}

#[test]
fn every_link_in_the_documentation_leads_somewhere() {
    let mut complaints = Vec::new();
    for path in documents() {
        for (line, target) in links(&read(&path)) {
            if target.contains("://") {
                continue;
            }
            let (file, fragment) = target.split_once('#').unwrap_or((&target, ""));
            let to = if file.is_empty() { path.clone() } else { path.with_file_name("").join(file) };
            if !to.exists() {
                complaints.push(format!("{}:{line}: {target} is not there", shown(&path)));
            } else if !fragment.is_empty() && !has_anchor(&to, fragment) {
                complaints.push(format!("{}:{line}: {target} has no such heading", shown(&path)));
            }
        }
    }
    none_of("links", &complaints);
}

#[test]
fn every_invariant_that_names_a_test_names_one_that_exists() {
    let text = read(&root().join("ARCHITECTURE.md"));
    let sources: String = files(&root(), "rs").iter().map(|path| read(path)).collect();
    let mut held = 0;
    let mut complaints = Vec::new();
    for line in text.lines().filter(|line| line.contains("Held by `")) {
        for (at, _) in line.match_indices("Held by `") {
            let name = line[at + 9..].split('`').next().unwrap_or_default();
            held += 1;
            if !sources.contains(&format!("fn {name}(")) {
                complaints.push(format!("no test is called {name}"));
            }
        }
    }
    none_of("invariants", &complaints);
    assert!(held >= 5, "ARCHITECTURE.md names the tests that hold its invariants");
}

#[test]
fn the_wire_format_lists_every_message_and_every_error() {
    let text = read(&root().join("docs/wire-format.md"));
    let mut complaints = Vec::new();
    for kind in MessageKind::ALL {
        if !text.contains(&format!("{kind:?}")) {
            complaints.push(format!("message {kind:?}"));
        }
    }
    for code in ErrorCode::ALL {
        if !text.contains(&format!("{code:?}")) {
            complaints.push(format!("error {code:?}"));
        }
    }
    none_of("not in docs/wire-format.md", &complaints);
}
