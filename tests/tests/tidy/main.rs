//! Tidy: the rules of ARCHITECTURE.md that a test can hold, and docs in step with the tree.
#![forbid(unsafe_code)]

mod crates;
mod docs;
mod sources;

use std::fs;
use std::path::{Path, PathBuf};

/// The folders of the workspace, in the order of ARCHITECTURE.md's table.
const FOLDERS: [&str; 10] =
    ["protocol", "runtime", "storage", "replication", "net", "engine", "client", "bench", "tools", "tests"];

/// The top of the workspace.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is a folder of the workspace").to_owned()
}

/// A file's text.
fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("cannot read {}: {e}", path.display()))
}

/// Every file below `dir` with this extension, sorted; build output and broker data left out.
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

/// `path` as people write it, from the top of the workspace.
fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

/// Fails with every complaint at once.
fn none_of(what: &str, complaints: &[String]) {
    assert!(complaints.is_empty(), "{what}:\n  {}", complaints.join("\n  "));
}
