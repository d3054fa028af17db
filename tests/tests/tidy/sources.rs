//! Rules for source files.

use std::path::Path;

use crate::{FOLDERS, assert_none, files, read, relative_path, root};

/// Maximum number of lines of a source file.
const LINES_MAX: usize = 500;

/// Crates that run unchanged in simulation: time, threads, randomness and files come from the plane.
const SIMULATED: [&str; 5] = ["protocol", "storage", "replication", "net", "engine"];

/// Names that these crates must not use, with the alternative.
const BANNED: [(&str, &str); 13] = [
    ("Instant::now", "time comes from plane.now()"),
    ("SystemTime", "the wall clock comes from plane.wall_clock_ms()"),
    ("std::thread", "a shard is one thread; blocking work is a file job"),
    ("thread::spawn", "a shard is one thread; blocking work is a file job"),
    ("thread::sleep", "waiting is a timer of the plane"),
    ("std::fs", "files come from the plane"),
    ("std::net::Tcp", "connections come from the plane"),
    ("std::net::Udp", "connections come from the plane"),
    ("collections::HashMap", "its order differs between runs; use ahash with fixed keys or BTreeMap"),
    ("collections::HashSet", "its order differs between runs; use ahash with fixed keys or BTreeSet"),
    ("HashMap, HashSet", "their order differs between runs"),
    ("rand::rng()", "randomness comes from plane.random_u64()"),
    ("tokio::", "a shard is driven by completions"),
];

/// Exceptions: file, call and reason.
const ALLOWED: [(&str, &str, &str); 10] = [
    ("engine/src/broker/membership.rs", "std::fs", "holds the lock file while the node joins a cluster"),
    ("engine/src/broker/names.rs", "std::thread", "the resolver of the operating system blocks"),
    ("engine/src/broker/lock.rs", "std::fs", "the lock of the data directory, taken before the plane exists"),
    ("engine/src/broker/signals.rs", "std::thread", "waits for signals, outside the shards"),
    ("engine/src/broker/start.rs", "std::fs", "holds the lock file of the data directory"),
    ("engine/src/broker/start.rs", "Instant::now", "duration of the start"),
    ("engine/src/broker/lock.rs", "Instant::now", "timeout of the lock, before the plane exists"),
    ("engine/src/broker/lock.rs", "std::thread", "waits for the lock, before the plane exists"),
    ("engine/src/broker/lock.rs", "thread::sleep", "waits for the lock, before the plane exists"),
    ("engine/src/broker/offline.rs", "std::fs", "the lock of a stopped broker's data directory"),
];

/// Markers of unfinished work, split so that this file does not contain them.
const UNFINISHED: [&str; 6] = [
    concat!("to", "do!("),
    concat!("unimple", "mented!("),
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("dbg", "!("),
];

/// Returns the lines of production code with their numbers: without comments and the test module.
pub(crate) fn product_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines: Vec<&str> = text.lines().collect();
    let tests_at = lines
        .windows(2)
        .position(
            |pair| matches!(pair, ["#[cfg(test)]", next] if next.contains("mod ") && next.ends_with('{')),
        )
        .unwrap_or(lines.len());
    lines
        .into_iter()
        .take(tests_at)
        .enumerate()
        .map(|(i, line)| (i + 1, line.split("//").next().unwrap_or(line)))
}

pub(crate) fn is_test_file(path: &Path) -> bool {
    let in_tests = path.components().any(|part| part.as_os_str() == "tests" || part.as_os_str() == "benches");
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    in_tests || name == "tests" || name.ends_with("_tests") || name.ends_with("_test")
}

#[test]
fn code_that_runs_in_simulation_gets_time_threads_files_and_randomness_from_the_plane() {
    let mut violations = Vec::new();
    let mut used = [false; ALLOWED.len()];
    for folder in SIMULATED {
        for path in files(&root().join(folder).join("src"), "rs") {
            let name = relative_path(&path);
            if is_test_file(Path::new(&name)) {
                continue;
            }
            let text = read(&path);
            for (number, line) in product_lines(&text) {
                for (call, instead) in BANNED.iter().filter(|(call, _)| line.contains(call)) {
                    match ALLOWED.iter().position(|(file, allowed, _)| *file == name && allowed == call) {
                        Some(entry) => used[entry] = true,
                        None => violations.push(format!("{name}:{number}: {call}: {instead}")),
                    }
                }
            }
        }
    }
    for (entry, _) in ALLOWED.iter().zip(used).filter(|(_, used)| !used) {
        violations.push(format!("the exception {entry:?} is no longer needed"));
    }
    assert_none("calls that cannot be simulated", &violations);
}

#[test]
fn glommio_and_io_uring_are_named_in_the_runtime_alone() {
    let mut violations = Vec::new();
    for folder in FOLDERS.iter().filter(|folder| **folder != "runtime") {
        for path in files(&root().join(folder), "rs") {
            let text = read(&path);
            for (number, line) in text.lines().enumerate() {
                let code = line.split("//").next().unwrap_or(line);
                if code.contains("glommio::") || code.contains("io_uring::") {
                    violations.push(format!("{}:{}", relative_path(&path), number + 1));
                }
            }
        }
    }
    // This file contains the names to search for.
    violations.retain(|line| !line.starts_with("tests/tests/tidy/sources.rs"));
    assert_none("glommio or io_uring outside runtime/", &violations);
}

#[test]
fn no_source_file_exceeds_the_maximum_length() {
    let mut violations = Vec::new();
    for path in files(&root(), "rs") {
        let lines = read(&path).lines().count();
        if lines > LINES_MAX {
            violations.push(format!("{}: {lines} lines", relative_path(&path)));
        }
    }
    assert_none(&format!("files over {LINES_MAX} lines"), &violations);
}

#[test]
fn there_are_no_todo_markers() {
    let mut violations = Vec::new();
    for extension in ["rs", "toml", "md"] {
        for path in files(&root(), extension) {
            let text = read(&path);
            for (number, line) in text.lines().enumerate() {
                for word in UNFINISHED.iter().filter(|word| line.contains(**word)) {
                    violations.push(format!("{}:{}: {word}", relative_path(&path), number + 1));
                }
            }
        }
    }
    assert_none("unfinished", &violations);
}

#[test]
fn no_file_contains_paths_of_a_developers_machine() {
    let mut violations = Vec::new();
    for extension in ["rs", "toml", "md"] {
        for path in files(&root(), extension) {
            let text = read(&path);
            for (number, line) in text.lines().enumerate() {
                let own = [concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/wo", "rk/")];
                let named = own.iter().any(|dir| {
                    line.match_indices(dir).any(|(at, _)| {
                        !line[..at].ends_with(|c: char| c.is_alphanumeric() || "._-~".contains(c))
                    })
                });
                if named {
                    violations.push(format!("{}:{}: {}", relative_path(&path), number + 1, line.trim()));
                }
            }
        }
    }
    assert_none("paths of one machine", &violations);
}

#[test]
fn source_lines_have_no_trailing_white_space() {
    let mut violations = Vec::new();
    for path in files(&root(), "rs") {
        let text = read(&path);
        for (number, line) in text.lines().enumerate() {
            if line.ends_with([' ', '\t', '\r']) {
                violations.push(format!("{}:{}", relative_path(&path), number + 1));
            }
        }
    }
    assert_none("white space at the end of lines", &violations);
}
