//! The documentation agrees with the program: commands and flags exist, and all settings are documented.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{output, program};

fn documents() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tools/ is in the workspace");
    let mut found = vec![root.join("README.md"), root.join("ARCHITECTURE.md")];
    for entry in fs::read_dir(root.join("docs")).expect("there are docs") {
        let path = entry.expect("a folder can be listed").path();
        if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
    found
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn help(words: &[&str]) -> Option<String> {
    let shown = output(program(&[words, &["--help"]].concat()), b"");
    shown.status.success().then(|| String::from_utf8(shown.stdout).expect("help is text"))
}

/// Returns every `highwater ...` in code blocks and inline code, with its file and line.
fn command_lines() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for path in documents() {
        let text = read(&path);
        let mut in_block = false;
        for (number, line) in text.lines().enumerate() {
            if line.starts_with("```") {
                in_block = !in_block;
                continue;
            }
            let place = format!("{}:{}", path.file_name().unwrap_or_default().to_string_lossy(), number + 1);
            if in_block {
                found.extend(line.starts_with("highwater ").then(|| (place, line.to_owned())));
            } else {
                let code = line.split('`').skip(1).step_by(2).filter(|code| code.starts_with("highwater "));
                found.extend(code.map(|code| (place.clone(), code.to_owned())));
            }
        }
    }
    found
}

#[test]
fn every_command_and_flag_in_the_documentation_exists() {
    let lines = command_lines();
    assert!(lines.len() >= 10, "the documentation shows how to use the program");
    for (place, line) in lines {
        let words: Vec<&str> =
            line.split_whitespace().skip(1).take_while(|word| !["#", "<", ">", "|"].contains(word)).collect();
        if words.first() == Some(&"help") {
            assert!(help(&words[1..]).is_some(), "{place}: {line}");
            continue;
        }
        let two = words.get(..2).filter(|two| help(two).is_some_and(|text| text.contains(&two.join(" "))));
        let Some(text) = help(two.unwrap_or(&words[..1])) else { panic!("{place}: there is no `{line}`") };
        for flag in words.iter().filter(|word| word.starts_with("--")) {
            let name = flag.split('=').next().unwrap_or(flag);
            assert!(text.contains(name), "{place}: {name} in `{line}`");
        }
    }
}

#[test]
fn every_setting_in_the_documentation_is_a_flag_and_the_reverse() {
    let operations =
        documents().into_iter().find(|path| path.ends_with("operations.md")).expect("docs/operations.md");
    let rows: Vec<Vec<String>> = read(&operations)
        .lines()
        .filter(|line| line.starts_with("| `--"))
        .map(|line| {
            line.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`').to_owned()).collect()
        })
        .collect();
    let text = help(&["start"]).expect("start has help");
    let printed = output(program(&["start", "--print-config"]), b"");
    let printed = String::from_utf8(printed.stdout).expect("a configuration file is text");
    for row in &rows {
        let [flag, variable, name, default] = &row[..] else { panic!("not a row of settings: {row:?}") };
        assert!(
            text.contains(&format!("{flag} <")) || text.contains(&format!("{flag}[")),
            "{flag} is not a flag of `start`"
        );
        assert!(text.contains(&format!("[env: {variable}]")), "{variable} is not a variable of `start`");
        assert_eq!(&flag.trim_start_matches("--").replace('-', "_"), name);
        assert_eq!(variable, &format!("HIGHWATER_{}", name.to_uppercase()));
        let line = printed.lines().find(|line| {
            line.starts_with(&format!("{name} = ")) || line.starts_with(&format!("# {name} is not set"))
        });
        let line = line.unwrap_or_else(|| panic!("--print-config does not show {name}"));
        assert!(line.contains(default), "{name}: the documentation says {default}, the program {line}");
    }
    let documented: BTreeSet<&str> = rows.iter().map(|row| row[1].as_str()).collect();
    let known: BTreeSet<&str> =
        text.split("[env: ").skip(1).filter_map(|rest| rest.split(']').next()).collect();
    let undocumented: Vec<_> =
        known.difference(&documented).filter(|name| **name != "HIGHWATER_CONFIG").collect();
    assert!(undocumented.is_empty(), "not in docs/operations.md: {undocumented:?}");
}
