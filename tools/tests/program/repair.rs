//! `log repair`: real damage of data directories, and how a broker runs on them afterwards.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::data::{flip, json_lines, log, slabs, stopped, text};
use crate::support::{Broker, Place, fails_with, output, start_fails_with};

fn repair(place: &Place, arguments: &[&str]) -> Output {
    let repair: Command = log(place, &[&["repair"], arguments].concat());
    output(repair, b"")
}

/// Runs a repair that ends with this code, and returns what it prints.
fn repaired(code: i32, place: &Place, arguments: &[&str]) -> String {
    let done = repair(place, arguments);
    let said = text(&done.stdout) + &text(&done.stderr);
    assert_eq!(done.status.code(), Some(code), "{said}");
    said
}

/// The content of every file, except the lock.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(contents(&path));
        } else if !path.ends_with("LOCK") {
            found.insert(path.clone(), fs::read(&path).expect("a file"));
        }
    }
    found
}

/// The data of a killed broker, without a journal: topic `t` with two partitions of 1,000 records each in batches of 250.
fn killed() -> Place {
    let place = Place::new();
    let broker = place.start_with(&["--journal-tail-bytes-max", "0"]);
    broker.run(&["topic", "create", "t", "--partitions", "2"], b"");
    for partition in ["0", "1"] {
        let lines: Vec<String> = (0..1000).map(|n| format!("{partition}-{n}\n")).collect();
        for part in lines.chunks(250) {
            broker.run(&["produce", "t", "--partition", partition], part.concat().as_bytes());
        }
    }
    broker.kill();
    place
}

/// What `consume` prints of a partition, sorted, and on stderr.
fn consumed(broker: &Broker, partition: &str) -> (usize, String) {
    let done = output(broker.command(&["consume", "t", "--partition", partition]), b"");
    (text(&done.stdout).lines().count(), text(&done.stderr))
}

#[test]
fn data_without_damage_needs_no_repair_and_is_not_changed() {
    let place = stopped();
    let before = contents(&place.data());
    let said = repaired(0, &place, &[]);
    assert!(said.contains("no partition is out of service"), "{said}");
    assert_eq!(repaired(0, &place, &["--json"]), "");
    repaired(0, &place, &["--apply"]);
    assert!(before == contents(&place.data()), "nothing was to be done");
    fails_with(2, log(&place, &["repair", "--partition", "1"]));
    fails_with(1, log(&place, &["repair", "nothing"]));
    let broker = place.start();
    let said = fails_with(73, log(&place, &["repair", "--apply"]));
    assert!(said.contains("runs on"), "{said}");
    broker.stop();
}

#[test]
fn a_partition_with_a_damaged_frame_is_repaired_without_the_records_of_its_batch() {
    let place = killed();
    flip(&place, "0-300");
    let before = contents(&place.data());
    let said = repaired(1, &place, &[]);
    assert!(said.contains("t/0 is out of service") && said.contains("lost: offsets 250 to 499"), "{said}");
    assert!(said.contains("new records follow from offset 1000") && said.contains("--apply"), "{said}");
    assert!(!said.contains("t/1"), "{said}");
    let lines = json_lines(&repaired(1, &place, &["--json"]));
    assert_eq!(lines.len(), 1);
    assert_eq!((&lines[0]["topic"], &lines[0]["partition"]), (&"t".into(), &0.into()));
    assert_eq!(lines[0]["lost"].to_string(), "[[250,499]]");
    assert!(before == contents(&place.data()), "a plan changes nothing");
    // It is what a start finds.
    let broker = place.start();
    let refused = output(broker.command(&["produce", "t", "--partition", "0", "--timeout", "2s"]), b"new\n");
    assert!(!refused.status.success());
    broker.kill();

    let said = repaired(1, &place, &["t", "--partition", "1", "--apply"]);
    assert!(said.contains("not selected"), "{said}");
    let said = repaired(0, &place, &["t", "--partition", "0", "--apply"]);
    assert!(
        said.contains("1 partition put back into service") && said.contains("quarantine/repair-1"),
        "{said}"
    );
    assert!(place.path("data/quarantine/repair-1/store-000/state.a").exists());
    assert!(repaired(0, &place, &[]).contains("no partition is out of service"));

    for start in 0..2 {
        let broker = place.start();
        broker.run(&["produce", "t", "--partition", "0"], b"new\n");
        let (records, said) = consumed(&broker, "0");
        assert_eq!(records, 751 + start, "{said}");
        assert!(said.contains("offsets 250 to 499 are"), "{said}");
        assert_eq!(consumed(&broker, "1"), (1000, String::new()));
        if start == 0 {
            broker.kill();
        } else {
            broker.stop();
        }
    }
}

#[test]
fn messages_about_damaged_partitions_name_their_topics() {
    let place = killed();
    let id = json_lines(&text(&output(log(&place, &["ls", "--json"]), b"").stdout))[0]["id"].to_string();
    let id = id.trim_matches('"');
    let extents = json_lines(&text(&output(log(&place, &["ls", "--extents", "--json"]), b"").stdout));
    let extent = extents.iter().find(|extent| extent["partition"] == 0).expect("an extent");
    let slab = place.data().join(extent["file"].as_str().expect("a file"));
    let at = extent["at"].as_u64().expect("a position") as usize;
    let mut bytes = fs::read(&slab).expect("a slab");
    bytes[at..at + 4096].fill(0xA5);
    fs::write(slab, bytes).expect("a slab");
    flip(&place, "1-300");
    for command in ["verify", "repair"] {
        let done = output(log(&place, &[command]), b"");
        let said = text(&done.stdout) + &text(&done.stderr);
        assert!(said.contains("t/0") && said.contains("t/1") && !said.contains(id), "{command}: {said}");
    }
    let broker = place.start();
    let said = broker.stderr();
    assert!(said.contains("t/0: ") && said.contains("header"), "{said}");
    assert!(said.contains("partition t/1 is damaged at offset 250") && !said.contains(id), "{said}");
    broker.stop();
}

#[test]
fn partitions_in_a_lost_slab_go_on_where_they_ended() {
    let place = stopped();
    for slab in slabs(&place.data()) {
        fs::remove_file(slab).expect("a slab");
    }
    let said = repaired(1, &place, &[]);
    for partition in ["t/0", "t/1"] {
        assert!(said.contains(&format!("{partition} is out of service")), "{said}");
    }
    assert!(said.contains("lost: offsets 0 to 999"), "{said}");
    repaired(0, &place, &["--apply"]);
    let broker = place.start();
    for partition in ["0", "1"] {
        broker.run(&["produce", "t", "--partition", partition], b"new\n");
        assert_eq!(consumed(&broker, partition), (1, String::new()));
    }
    let described = text(&broker.run(&["topic", "describe", "t"], b""));
    assert!(described.contains("1000") && described.contains("1001"), "{described}");
    broker.stop();
}

#[test]
fn partitions_whose_journal_is_lost_go_on_with_what_their_extents_have() {
    let place = Place::new();
    let broker = place.start();
    broker.run(&["topic", "create", "t"], b"");
    // The journal is made when the first records come.
    for line in [&b"first\n"[..], b"second\n", b"third\n"] {
        broker.run(&["produce", "t", "--partition", "0"], line);
    }
    broker.kill();
    let journals = contents(&place.data()).into_keys().filter(|path| path.ends_with("journal"));
    journals.for_each(|journal| fs::remove_file(journal).expect("a journal"));
    let said = repaired(1, &place, &[]);
    assert!(said.contains("journal") && said.contains("t/0 is out of service"), "{said}");
    repaired(0, &place, &["--apply"]);
    let broker = place.start();
    broker.run(&["produce", "t", "--partition", "0"], b"fourth\n");
    let (records, said) = consumed(&broker, "0");
    assert!(records >= 1, "{said}");
    broker.kill();
    let broker = place.start();
    assert_eq!(consumed(&broker, "0").0, records);
    broker.stop();
}

#[test]
fn a_repair_names_what_it_cannot_repair_and_a_start_refuses() {
    let place = stopped();
    for copy in ["meta.a", "meta.b"] {
        let path = place.path("data").join(copy);
        let bytes = fs::read(&path).expect("a state log").len();
        fs::write(&path, vec![0xA5; bytes]).expect("a state log");
    }
    start_fails_with(75, crate::support::start_command(&place.data(), &[]));
    let before = contents(&place.data());
    for apply in [&[][..], &["--apply"]] {
        let said = repaired(1, &place, apply);
        assert!(said.contains("a start is refused") && said.contains("meta.forget"), "{said}");
    }
    assert!(before == contents(&place.data()), "the damaged files are as they were");
}

#[test]
fn a_lost_map_and_a_damaged_copy_are_repaired_as_by_a_start() {
    let place = stopped();
    for entry in fs::read_dir(place.path("data/store-000")).expect("a store") {
        let path = entry.expect("an entry").path();
        if path.file_name().is_some_and(|name| name == "state.a" || name == "state.b") {
            fs::remove_file(path).expect("a copy of the map");
        }
    }
    fs::remove_file(place.path("data/meta.b")).expect("a copy of the metadata");
    let said = repaired(0, &place, &[]);
    assert!(said.contains("map") && said.contains("meta.b"), "{said}");
    assert!(!place.path("data/meta.b").exists(), "a plan changes nothing");
    repaired(0, &place, &["--apply"]);
    assert!(place.path("data/meta.b").exists() && place.path("data/store-000/state.a").exists());
    let said = repaired(0, &place, &[]);
    assert_eq!(said, "no partition is out of service\n");
    let broker = place.start();
    assert_eq!((consumed(&broker, "0").0, consumed(&broker, "1").0), (1000, 1000));
    broker.stop();
}
