//! What source files may say.

use std::path::Path;

use crate::{FOLDERS, files, none_of, read, root, shown};

/// Lines of a source file.
const LINES_MAX: usize = 600;

/// Crates that run unchanged in simulation: time, threads, randomness and files come from the plane.
const SIMULATED: [&str; 5] = ["protocol", "storage", "replication", "net", "engine"];

/// What those may not call, and why.
const BANNED: [(&str, &str); 13] = [
    ("Instant::now", "time comes from plane.now()"),
    ("SystemTime", "the wall clock comes from plane.wall_clock_ms()"),
    ("std::thread", "a shard is one thread; work beside it is a file job"),
    ("thread::spawn", "a shard is one thread; work beside it is a file job"),
    ("thread::sleep", "waiting is a timer of the plane"),
    ("std::fs", "files come from the plane"),
    ("std::net::Tcp", "connections come from the plane"),
    ("std::net::Udp", "connections come from the plane"),
    ("collections::HashMap", "its order differs from run to run; ahash with fixed keys or BTreeMap"),
    ("collections::HashSet", "its order differs from run to run; ahash with fixed keys or BTreeSet"),
    ("HashMap, HashSet", "their order differs from run to run"),
    ("rand::rng()", "randomness comes from plane.random_u64()"),
    ("tokio::", "a shard is driven by completions"),
];

/// Where a banned call stands all the same: file, call, reason.
const ALLOWED: [(&str, &str, &str); 5] = [
    ("engine/src/broker.rs", "std::fs", "the lock of the data directory, taken before there is a plane"),
    ("engine/src/broker.rs", "std::thread", "waits for signals, beside the shards"),
    (
        "engine/src/broker.rs",
        "Instant::now",
        "how long the start took, for people, and how long to wait for the lock",
    ),
    ("engine/src/broker.rs", "thread::sleep", "waits for the lock, before there is a plane"),
    ("engine/src/offline.rs", "std::fs", "the lock of a data directory that no broker uses"),
];

/// Words that mean unfinished. Written in halves so that this file does not contain them.
const UNFINISHED: [&str; 6] = [
    concat!("to", "do!("),
    concat!("unimple", "mented!("),
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("dbg", "!("),
];

/// The lines of a file that are code of the product: no comments, nothing from the module of tests on.
fn product_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
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

fn is_test_file(path: &Path) -> bool {
    let in_tests = path.components().any(|part| part.as_os_str() == "tests" || part.as_os_str() == "benches");
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    in_tests || name == "tests" || name.ends_with("_tests") || name.ends_with("_test")
}

#[test]
fn code_that_runs_in_simulation_asks_the_plane_for_time_threads_files_and_chance() {
    let mut complaints = Vec::new();
    let mut used = [false; ALLOWED.len()];
    for folder in SIMULATED {
        for path in files(&root().join(folder).join("src"), "rs") {
            let name = shown(&path);
            if is_test_file(Path::new(&name)) {
                continue;
            }
            let text = read(&path);
            for (number, line) in product_lines(&text) {
                for (call, instead) in BANNED.iter().filter(|(call, _)| line.contains(call)) {
                    match ALLOWED.iter().position(|(file, allowed, _)| *file == name && allowed == call) {
                        Some(entry) => used[entry] = true,
                        None => complaints.push(format!("{name}:{number}: {call}: {instead}")),
                    }
                }
            }
        }
    }
    for (entry, _) in ALLOWED.iter().zip(used).filter(|(_, used)| !used) {
        complaints.push(format!("the exception {entry:?} is not needed any more"));
    }
    none_of("calls that cannot be simulated", &complaints);
}

#[test]
fn glommio_and_io_uring_are_named_in_the_runtime_alone() {
    let mut complaints = Vec::new();
    for folder in FOLDERS.iter().filter(|folder| **folder != "runtime") {
        for path in files(&root().join(folder), "rs") {
            let text = read(&path);
            for (number, line) in text.lines().enumerate() {
                let code = line.split("//").next().unwrap_or(line);
                if code.contains("glommio::") || code.contains("io_uring::") {
                    complaints.push(format!("{}:{}", shown(&path), number + 1));
                }
            }
        }
    }
    // This file names them to look for them.
    complaints.retain(|line| !line.starts_with("tests/tests/tidy/sources.rs"));
    none_of("glommio or io_uring outside runtime/", &complaints);
}

#[test]
fn no_file_is_longer_than_one_idea() {
    let mut complaints = Vec::new();
    for path in files(&root(), "rs") {
        let lines = read(&path).lines().count();
        if lines > LINES_MAX {
            complaints.push(format!("{}: {lines} lines", shown(&path)));
        }
    }
    none_of(&format!("files over {LINES_MAX} lines"), &complaints);
}

#[test]
fn nothing_is_left_unfinished() {
    let mut complaints = Vec::new();
    for extension in ["rs", "toml", "md"] {
        for path in files(&root(), extension) {
            let text = read(&path);
            for (number, line) in text.lines().enumerate() {
                for word in UNFINISHED.iter().filter(|word| line.contains(**word)) {
                    complaints.push(format!("{}:{}: {word}", shown(&path), number + 1));
                }
            }
        }
    }
    none_of("unfinished", &complaints);
}

#[test]
fn no_file_names_a_path_of_one_machine() {
    let mut complaints = Vec::new();
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
                    complaints.push(format!("{}:{}: {}", shown(&path), number + 1, line.trim()));
                }
            }
        }
    }
    none_of("paths of one machine", &complaints);
}

#[test]
fn source_lines_end_where_their_text_ends() {
    let mut complaints = Vec::new();
    for path in files(&root(), "rs") {
        let text = read(&path);
        for (number, line) in text.lines().enumerate() {
            if line.ends_with([' ', '\t', '\r']) {
                complaints.push(format!("{}:{}", shown(&path), number + 1));
            }
        }
    }
    none_of("white space at the end of lines", &complaints);
}
