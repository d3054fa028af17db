//! Rules for the folders of the engine.

use crate::{assert_none, files, read, relative_path, root};

/// Folders of the engine that know no protocol of clients, with what they may therefore not name.
const KNOW_NO_PROTOCOL: [&str; 7] = ["api", "calls", "coord", "meta", "partition", "read", "session"];
const PROTOCOLS: [&str; 3] = ["protocol::native", "protocol::error", "highwater_net"];

/// The adapters, each with the other protocol's types.
const ADAPTERS: [(&str, &[&str]); 2] = [
    ("kafka", &["protocol::native", "ErrorCode", "crate::native"]),
    ("native", &["net::kafka", "crate::kafka"]),
];

/// Returns the lines of a folder of the engine that contain one of `names` outside of comments.
fn lines_with(folder: &str, names: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for path in files(&root().join("engine/src").join(folder), "rs") {
        for (number, line) in read(&path).lines().enumerate() {
            let code = line.split("//").next().unwrap_or(line);
            for name in names.iter().filter(|name| code.contains(**name)) {
                found.push(format!("{}:{}: {name}", relative_path(&path), number + 1));
            }
        }
    }
    found
}

#[test]
fn only_the_reactor_extends_the_shard() {
    let mut violations = Vec::new();
    for path in files(&root().join("engine/src"), "rs") {
        let name = relative_path(&path);
        if name.starts_with("engine/src/shard/") {
            continue;
        }
        for (number, line) in read(&path).lines().enumerate() {
            let extends = line.starts_with("impl") && line.split(['<', ' ', '{']).any(|word| word == "Shard");
            if extends {
                violations.push(format!("{name}:{}: {line}", number + 1));
            }
        }
    }
    assert_none("impl Shard outside engine/src/shard", &violations);
}

#[test]
fn components_behind_the_adapters_use_no_wire_types() {
    let violations: Vec<_> =
        KNOW_NO_PROTOCOL.iter().flat_map(|folder| lines_with(folder, &PROTOCOLS)).collect();
    assert_none("wire types below the adapters", &violations);
}

#[test]
fn adapters_do_not_use_types_of_the_other_protocol() {
    let violations: Vec<_> = ADAPTERS.iter().flat_map(|(folder, names)| lines_with(folder, names)).collect();
    assert_none("wire types of the other protocol", &violations);
}

#[test]
fn unexpected_messages_from_queues_are_not_unreachable() {
    let folders = ["api", "calls", "kafka", "native"];
    let violations: Vec<_> =
        folders.iter().flat_map(|folder| lines_with(folder, &["unreachable!"])).collect();
    assert_none("a reply of the wrong kind fails its request, not the process", &violations);
}
