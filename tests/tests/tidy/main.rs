//! Tidy: checks the rules of ARCHITECTURE.md, and that the documentation agrees with the sources.
#![forbid(unsafe_code)]

mod circles;
mod crates;
mod docs;
mod rooms;
mod sources;

use std::fs;
use std::path::{Path, PathBuf};

/// The folders of the workspace, in the order of ARCHITECTURE.md's table.
const FOLDERS: [&str; 10] =
    ["protocol", "runtime", "storage", "replication", "net", "engine", "client", "bench", "tools", "tests"];

/// Returns the root of the workspace.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is a folder of the workspace").to_owned()
}

/// Reads a text file.
fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("cannot read {}: {e}", path.display()))
}

/// Returns all files below `dir` with this extension, sorted, without build output and broker data.
fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    const SKIPPED: [&str; 5] = ["target", ".git", "highwater-data", "corpus", "artifacts"];
    let mut found = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        let entries = fs::read_dir(&dir).unwrap_or_else(|e| panic!("cannot list {}: {e}", dir.display()));
        for entry in entries {
            let entry = entry.unwrap_or_else(|e| panic!("cannot list {}: {e}", dir.display()));
            let path = entry.path();
            let name = entry.file_name();
            if path.is_dir() {
                if !SKIPPED.iter().any(|skipped| name == *skipped) {
                    open.push(path);
                }
            } else if path.extension().is_some_and(|e| e == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Returns `path` relative to the root of the workspace.
fn relative_path(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

/// Asserts that there are no violations, and prints all of them otherwise.
fn assert_none(what: &str, violations: &[String]) {
    assert!(violations.is_empty(), "{what}:\n  {}", violations.join("\n  "));
}
