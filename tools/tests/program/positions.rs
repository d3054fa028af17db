//! `group seek` and `topic trim`: positions of groups and starts of partitions, changed from the command line.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use crate::support::{Broker, Guard, Place, fails_with, output};

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("text")
}

fn json_lines(bytes: &[u8]) -> Vec<serde_json::Value> {
    let lines = bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).expect("JSON")).collect()
}

/// Starts a broker with topic `t`: two partitions of 10 records each, one minute apart, starting at 2023-11-14T22:13:20Z.
fn with_records() -> (Place, Broker) {
    let place = Place::new();
    let broker = place.start_with(&["--cores", "1"]);
    broker.run(&["topic", "create", "t", "-p", "2"], b"");
    let mut lines = String::new();
    for n in 0..10 {
        for partition in 0..2 {
            let timestamp = 1_700_000_000_000_i64 + n * 60_000;
            let _ = writeln!(
                lines,
                r#"{{"value":"{partition}-{n}","partition":{partition},"timestamp":{timestamp}}}"#
            );
        }
    }
    broker.run(&["produce", "t", "--json"], lines.as_bytes());
    (place, broker)
}

/// Returns the group's position in each partition.
fn positions(broker: &Broker, group: &str) -> Vec<Option<i64>> {
    let described = &json_lines(&broker.run(&["group", "describe", group, "--json"], b""))[0];
    described["partitions"].as_array().expect("a list").iter().map(|p| p["position"].as_i64()).collect()
}

#[test]
fn a_group_seeks_to_either_end_an_offset_or_a_time() {
    let (_place, broker) = with_records();
    broker.run(&["consume", "t", "--group", "g"], b"");
    assert_eq!(positions(&broker, "g"), [Some(10), Some(10)]);
    for (to, expect) in [
        ("earliest", [0, 0]),
        ("latest", [10, 10]),
        ("3", [3, 3]),
        ("-2", [8, 8]),
        ("99", [10, 10]),
        ("@1700000300000", [5, 5]),
        ("@1700000300001", [6, 6]),
        ("2099-01-01", [10, 10]),
    ] {
        let before = positions(&broker, "g");
        let dry = text(broker.run(&["group", "seek", "g", "--to", to, "--dry-run"], b""));
        assert!(dry.contains("dry run") && dry.contains(&expect[0].to_string()), "{to}: {dry}");
        assert_eq!(positions(&broker, "g"), before, "{to}: a dry run changes nothing");
        broker.run(&["group", "reset", "g", "--to", to], b"");
        assert_eq!(positions(&broker, "g"), expect.map(Some), "{to}");
    }
    let moved = broker.run(&["group", "seek", "g", "--to", "4", "--topic", "t", "-p", "1", "--json"], b"");
    let moved = &json_lines(&moved)[..];
    let [moved] = moved else { panic!("one partition: {moved:?}") };
    assert_eq!((&moved["from"], &moved["to"], &moved["lag"]), (&10.into(), &4.into(), &6.into()));
    assert_eq!(positions(&broker, "g"), [Some(10), Some(4)]);
    let read = text(broker.run(&["consume", "t", "--group", "g"], b""));
    assert_eq!(read.lines().collect::<Vec<_>>(), ["1-4", "1-5", "1-6", "1-7", "1-8", "1-9"]);
    broker.stop();
}

#[test]
fn a_new_group_or_named_consumer_starts_at_the_position_set_by_seek() {
    let (_place, broker) = with_records();
    let said = fails_with(1, broker.command(&["group", "seek", "new", "--to", "8"]));
    assert!(said.contains("new") && said.contains("--topic"), "{said}");
    broker.run(&["group", "seek", "new", "--to", "8", "--topic", "t"], b"");
    let read = text(broker.run(&["consume", "t", "--group", "new"], b""));
    assert_eq!(read.lines().count(), 4, "{read}");

    broker.run(&["consume", "t", "--consumer", "reader"], b"");
    broker.run(&["group", "seek", "reader", "--to", "-1"], b"");
    let read = text(broker.run(&["consume", "t", "--consumer", "reader"], b""));
    assert_eq!(read.lines().count(), 2, "{read}");
    for (arguments, word) in [
        (&["group", "seek", "new", "--to", "0", "--topic", "nope"][..], "nope"),
        (&["group", "seek", "new", "--to", "0", "--topic", "t", "-p", "7"], "no partition 7"),
    ] {
        let said = fails_with(1, broker.command(arguments));
        assert!(said.contains(word), "{said}");
    }
    fails_with(2, broker.command(&["group", "seek", "new"]));
    fails_with(2, broker.command(&["group", "seek", "new", "--to", "0", "-p", "1"]));
    broker.stop();
}

#[test]
fn a_position_before_the_first_record_is_reset_to_the_first_record_with_one_message() {
    let (_place, broker) = with_records();
    for name in ["reader", "billing"] {
        broker.run(&["group", "seek", name, "--to", "2", "--topic", "t"], b"");
    }
    broker.run(&["topic", "trim", "t", "--before", "7", "-p", "0"], b"");
    for kept in [["--consumer", "reader"], ["--group", "billing"]] {
        let consumed = output(broker.command(&["consume", "t", kept[0], kept[1]]), b"");
        let (read, said) = (text(consumed.stdout), text(consumed.stderr));
        assert!(consumed.status.success(), "{kept:?}: {said}");
        let count = |partition: &str| read.lines().filter(|line| line.starts_with(partition)).count();
        assert_eq!((count("0-"), count("1-")), (3, 8), "{kept:?}: {read}");
        let expected = "t/0: offset 2 does not exist";
        assert!(said.lines().count() == 1 && said.contains(expected), "{kept:?}: {said}");
        let consumed = output(broker.command(&["consume", "t", kept[0], kept[1]]), b"");
        assert_eq!(
            (text(consumed.stdout), text(consumed.stderr)),
            (String::new(), String::new()),
            "{kept:?}"
        );
    }
    // An offset given with --from must exist; otherwise the command fails at once.
    let said = fails_with(1, broker.command(&["consume", "t", "--from", "2"]));
    assert!(said.contains("t/0 at offset 2") && said.contains("7 to 10"), "{said}");
    broker.stop();
}

#[test]
fn seeking_a_group_with_active_members_fails() {
    let (_place, broker) = with_records();
    let mut member = broker
        .command(&["consume", "t", "--group", "g", "--follow"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let guard = Guard::new(&member);
    // Kept open, because a member whose stdout is closed leaves its group.
    let mut stdout = BufReader::new(member.stdout.take().expect("stdout is piped")).lines();
    stdout.next().expect("a line").expect("text");
    let said = fails_with(1, broker.command(&["group", "seek", "g", "--to", "earliest"]));
    assert!(said.contains("g has 1 member") && said.contains("stop"), "{said}");
    member.kill().expect("it runs");
    let _ = member.wait();
    guard.release();
    broker.stop();
}

#[test]
fn trim_deletes_the_oldest_records_by_offset_time_or_count() {
    let (_place, broker) = with_records();
    let trim = |flags: &[&str]| text(broker.run(&[&["topic", "trim", "t"], flags].concat(), b""));
    let count = || text(broker.run(&["consume", "t"], b"")).lines().count();
    let dry = trim(&["--before", "3", "--dry-run"]);
    assert!(dry.ends_with("dry run: 6 records would be deleted, 14 remaining\n"), "{dry}");
    assert_eq!(count(), 20);
    assert!(trim(&["--before", "3"]).ends_with("6 records deleted, 14 remaining\n"));
    assert_eq!(count(), 14);
    assert!(
        trim(&["--before", "1"]).ends_with("0 records deleted, 14 remaining\n"),
        "the start never moves back"
    );
    assert!(trim(&["--before", "@1700000300000", "-p", "1"]).ends_with("2 records deleted, 5 remaining\n"));
    assert_eq!(count(), 12);
    let lines = json_lines(trim(&["--before", "-1", "--json"]).as_bytes());
    assert_eq!((&lines[0]["from"], &lines[0]["to"]), (&3.into(), &9.into()));
    assert_eq!(text(broker.run(&["consume", "t"], b"")).lines().count(), 2);
    assert!(trim(&["--before", "latest"]).ends_with("2 records deleted, 0 remaining\n"));
    assert_eq!(count(), 0);
    let said = fails_with(1, broker.command(&["topic", "trim", "nope", "--before", "1"]));
    assert!(said.contains("nope"), "{said}");
    broker.stop();
}
