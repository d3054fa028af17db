//! Passes the commit to the program at build time, so that reports can name it.

use std::path::Path;
use std::process::Command;

/// Runs `git` and returns its output, if git is available and this is a work tree.
fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
}

fn main() {
    // Any source of the program can make the tree dirty. Only this crate is rebuilt for that.
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src");
    println!("cargo::rerun-if-changed=Cargo.toml");
    println!("cargo::rerun-if-changed=../Cargo.lock");
    for folder in ["protocol", "runtime", "storage", "replication", "net", "engine", "client", "tools"] {
        println!("cargo::rerun-if-changed=../{folder}/src");
    }
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"])
        && Path::new(&log).exists()
    {
        println!("cargo::rerun-if-changed={log}");
    }
    if let Some(commit) = git(&["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]) {
        println!("cargo::rustc-env=HIGHWATER_COMMIT={commit}");
    }
}
