//! Commands and flags, as scripts use them.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Broker, Guard, Place, fails_with, output, program};

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("text")
}

fn json(line: &str) -> serde_json::Value {
    serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"))
}

fn with_topic(partitions: &str) -> (Place, Broker) {
    let place = Place::new();
    let broker = place.start();
    broker.run(&["topic", "create", "t", "--partitions", partitions], b"");
    (place, broker)
}

#[test]
fn a_topic_is_created_listed_described_altered_and_deleted() {
    let place = Place::new();
    let broker = place.start();
    broker.run(&["topic", "create", "b", "--partitions", "2", "--config", "retention.ms=7d"], b"");
    broker.run(&["topic", "create", "a"], b"");

    let listed = text(broker.run(&["topic", "list", "--json"], b""));
    let topics: Vec<_> =
        listed.lines().map(|line| (json(line)["topic"].clone(), json(line)["partitions"].clone())).collect();
    assert_eq!(topics, [("a".into(), 1.into()), ("b".into(), 2.into())]);
    assert!(text(broker.run(&["topic", "list"], b"")).lines().any(|line| line.starts_with("b ")));

    let described = json(&text(broker.run(&["topic", "describe", "b", "--json"], b"")));
    assert_eq!(described["partitions"].as_array().map(Vec::len), Some(2));
    assert_eq!(described["configs"]["retention.ms"]["value"], "604800000");
    assert_eq!(described["configs"]["retention.ms"]["set"], true);
    let shown = text(broker.run(&["topic", "describe", "b"], b""));
    assert!(shown.contains("retention.ms") && shown.contains("604800000"), "{shown}");
    assert!(
        !shown.contains("cleanup.policy") && shown.lines().count() < 12,
        "settings at their defaults are omitted: {shown}"
    );
    let all = text(broker.run(&["topic", "describe", "b", "--all"], b""));
    assert!(all.contains("cleanup.policy") && all.lines().count() > 20, "{all}");
    assert!(all.lines().last().is_some_and(|line| line.starts_with("1 ")), "partitions come last: {all}");
    assert!(text(broker.run(&["topic", "describe", "a"], b"")).contains("1 partition  0 records"));

    broker.run(
        &[
            "topic",
            "alter",
            "b",
            "--partitions",
            "5",
            "--unset",
            "retention.ms",
            "--config",
            "retention.bytes=1GiB",
        ],
        b"",
    );
    let described = json(&text(broker.run(&["topic", "describe", "b", "--json"], b"")));
    assert_eq!(described["partitions"].as_array().map(Vec::len), Some(5));
    assert_eq!(described["configs"]["retention.ms"]["set"], false);
    assert_eq!(described["configs"]["retention.bytes"]["value"], "1073741824");

    let outcome = |arguments: &[&str]| text(broker.run(&[&["topic", "alter", "b"], arguments].concat(), b""));
    for unchanged in [
        &["--unset", "retention.ms"][..],
        &["--partitions", "5", "--config", "retention.bytes=1GiB", "--unset", "segment.ms"],
    ] {
        assert_eq!(outcome(unchanged), "nothing to change in b\n", "{unchanged:?}");
    }
    assert_eq!(outcome(&["--unset", "retention.ms", "--unset", "retention.bytes"]), "changed b\n");
    assert_eq!(outcome(&["--partitions", "6"]), "changed b\n");

    broker.run(&["topic", "delete", "a", "b"], b"");
    assert_eq!(text(broker.run(&["topic", "list", "--json"], b"")), "");
    broker.stop();
}

#[test]
fn the_topic_that_keeps_groups_is_listed_unless_internal_topics_are_excluded() {
    let (_place, broker) = with_topic("1");
    broker.run(&["group", "seek", "g", "--topic", "t", "--to", "earliest"], b"");
    let listed = |arguments: &[&str]| -> Vec<(String, bool)> {
        let lines = text(broker.run(&[&["topic", "list", "--json"], arguments].concat(), b""));
        let of = |line: serde_json::Value| {
            (line["topic"].as_str().expect("a name").to_owned(), line["internal"].as_bool().expect("a flag"))
        };
        lines.lines().map(|line| of(json(line))).collect()
    };
    assert_eq!(listed(&[]), [("__consumer_offsets".to_owned(), true), ("t".to_owned(), false)]);
    assert_eq!(listed(&["--exclude-internal"]), [("t".to_owned(), false)]);
}

#[test]
fn a_failing_topic_command_prints_the_reason_in_one_line() {
    let (_place, broker) = with_topic("3");
    for (arguments, word) in [
        (&["topic", "create", "t"][..], "exists"),
        (&["topic", "create", "no/slashes"], "no/slashes"),
        (&["topic", "create", "x", "--partitions", "1000000"], "at most 100000 partitions"),
        (&["topic", "create", "x", "--config", "no.such=1"], "no.such"),
        (&["topic", "create", "x", "--config", "retention.ms=soon"], "retention.ms"),
        (&["topic", "alter", "t", "--partitions", "2"], "partition"),
        (&["topic", "alter", "t", "--unset", "nope"], "Unknown topic config name: nope"),
        (&["topic", "describe", "missing"], "missing"),
        (&["topic", "delete", "missing"], "missing"),
        (&["consume", "missing"], "missing"),
        (&["produce", "missing"], "missing"),
        (&["consume", "t", "--partition", "9"], "9"),
        (&["produce", "t", "--partition", "9"], "9"),
    ] {
        let said = fails_with(1, broker.command(arguments));
        assert!(said.contains(word), "{arguments:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{arguments:?}: {said}");
    }
    broker.run(&["topic", "create", "t", "--if-not-exists"], b"");
    for command in ["create", "alter"] {
        for none in ["0", "-1"] {
            let said = fails_with(2, broker.command(&["topic", command, "x", "-p", none]));
            assert!(said.contains("'--partitions <N>'") && said.contains("1.."), "{command} {none}: {said}");
        }
    }
    broker.stop();
}

#[test]
fn a_line_is_a_value_or_with_a_separator_a_key_and_a_value() {
    let (_place, broker) = with_topic("1");
    broker.run(&["produce", "t"], b"a:b\n\nlast");
    broker.run(&["produce", "t", "--key-separator", ":"], b"k:v:w\nno key\n:empty key\nkey:\n");
    broker.run(&["produce", "t", "-K", r"\t"], b"tab\tbed\n");
    let shown = text(broker.run(&["consume", "t", "--format", r"%o[%k](%K)[%v](%V)\n"], b""));
    assert_eq!(
        shown.lines().collect::<Vec<_>>(),
        [
            "0[](-1)[a:b](3)",
            "1[](-1)[](0)",
            "2[](-1)[last](4)",
            "3[k](1)[v:w](3)",
            "4[](-1)[no key](6)",
            "5[](0)[empty key](9)",
            "6[key](3)[](0)",
            "7[tab](3)[bed](3)",
        ]
    );
    broker.stop();
}

#[test]
fn header_and_partition_flags_apply_to_all_records() {
    let (_place, broker) = with_topic("4");
    broker.run(
        &["produce", "t", "--header", "a=1", "-H", "b=x=y", "--partition", "3", "-K", ":"],
        b"k:v\nk2:v2\n",
    );
    let shown = text(broker.run(&["consume", "t", "--format", r"%t/%p/%o %k=%v %h %H\n"], b""));
    assert_eq!(shown, "t/3/0 k=v a=1,b=x=y 2\nt/3/1 k2=v2 a=1,b=x=y 2\n");
    assert_eq!(broker.run(&["consume", "t", "--partition", "0", "--partition", "1"], b""), b"");
    broker.stop();
}

#[test]
fn json_lines_copy_records_exactly_from_one_topic_to_another() {
    let (_place, broker) = with_topic("1");
    broker.run(&["topic", "create", "copy"], b"");
    let lines = concat!(
        r#"{"key":"k","value":"text ü","headers":[{"key":"h","value":"1"},{"key":"n","value":null}],"timestamp":1700000000123}"#,
        "\n",
        r#"{"key_base64":"AP8=","value_base64":"/w=="}"#,
        "\n",
        r#"{"key":"gone","value":null}"#,
        "\n"
    );
    broker.run(&["produce", "t", "--json"], lines.as_bytes());
    let printed = broker.run(&["consume", "t", "--json"], b"");
    broker.run(&["produce", "copy", "--json"], &printed);
    let copied = text(broker.run(&["consume", "copy", "--json"], b""));
    assert_eq!(copied.replace(r#""topic":"copy""#, r#""topic":"t""#), text(printed.clone()));
    let first = json(copied.lines().next().expect("three lines"));
    assert_eq!(first["timestamp"], 1_700_000_000_123_i64);
    assert_eq!(first["headers"][0]["value"], "1");
    broker.stop();
}

#[test]
fn reading_starts_at_the_position_given_by_from() {
    let (_place, broker) = with_topic("1");
    let mut lines = String::new();
    for i in 0..100 {
        let _ = writeln!(lines, r#"{{"value":"{i}","timestamp":{}}}"#, 1_700_000_000_000_i64 + i * 60_000);
    }
    broker.run(&["produce", "t", "--json"], lines.as_bytes());
    let from = |start: &str| {
        text(broker.run(&["consume", "t", "--from", start], b""))
            .lines()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(from("earliest").len(), 100);
    assert_eq!(from("latest").len(), 0);
    assert_eq!(from("97"), ["97", "98", "99"]);
    assert_eq!(from("-2"), ["98", "99"]);
    assert_eq!(from("-1000").len(), 100);
    assert_eq!(from("@1700000000000").len(), 100);
    assert_eq!(from("@1700005880000"), ["98", "99"], "two minutes before the end");
    assert_eq!(from("@1700005820001"), ["98", "99"], "between two records: the later one");
    assert_eq!(from("2023-11-14T23:51:20Z"), ["98", "99"]);
    assert_eq!(from("2099-01-01").len(), 0, "a time in the future");
    let said = fails_with(1, broker.command(&["consume", "t", "--from", "5000"]));
    assert!(said.contains("5000"), "{said}");
    broker.stop();
}

#[test]
fn reading_stops_at_an_offset_or_a_time() {
    let (_place, broker) = with_topic("2");
    let mut lines = String::new();
    for i in 0..20 {
        let (partition, timestamp) = (i % 2, 1_700_000_000_000_i64 + i * 60_000);
        let _ = writeln!(lines, r#"{{"value":"{i}","partition":{partition},"timestamp":{timestamp}}}"#);
    }
    broker.run(&["produce", "t", "--json"], lines.as_bytes());
    let read = |flags: &[&str]| {
        let printed = text(broker.run(&[&["consume", "t"], flags].concat(), b""));
        let mut read: Vec<u32> = printed.lines().map(|line| line.parse().expect("a number")).collect();
        read.sort_unstable();
        read
    };
    assert_eq!(read(&["--until", "2"]), [0, 1, 2, 3], "two from each partition");
    assert_eq!(read(&["--until", "2", "--follow"]), [0, 1, 2, 3], "--follow also ends there");
    assert_eq!(read(&["--from", "1", "--until", "2"]), [2, 3]);
    assert_eq!(read(&["--from", "2", "--until", "2"]), [0; 0]);
    assert_eq!(read(&["--until", "-9"]), [0, 1]);
    assert_eq!(read(&["--until", "latest"]).len(), 20);
    assert_eq!(read(&["--until", "1000"]).len(), 20, "without --follow it does not wait");
    assert_eq!(read(&["--from", "@1700000060000", "--until", "@1700000240000"]), [1, 2, 3]);
    assert_eq!(read(&["--until", "2", "--limit", "3"]).len(), 3);
    for value in ["20", "21"] {
        let line = format!(r#"{{"value":"{value}","partition":1}}"#);
        broker.run(&["produce", "t", "--json", &line], b"");
    }
    assert_eq!(read(&["--consumer", "c", "--until", "4", "-p", "1"]), [1, 3, 5, 7]);
    assert_eq!(
        read(&["--consumer", "c", "-p", "1"]),
        [9, 11, 13, 15, 17, 19, 20, 21],
        "it resumes where it stopped"
    );
    broker.stop();
}

#[test]
fn several_topics_are_read_by_name_or_by_regular_expression() {
    let (_place, broker) = with_topic("1");
    for topic in ["orders-a", "orders-b", "payments"] {
        broker.run(&["topic", "create", topic], b"");
        broker.run(&["produce", topic, "one"], b"");
    }
    let read = |arguments: &[&str]| {
        let arguments = [&["consume", "--format", r"%t=%v\n"], arguments].concat();
        let printed = text(broker.run(&arguments, b""));
        let mut read: Vec<String> = printed.lines().map(str::to_owned).collect();
        read.sort_unstable();
        read
    };
    assert_eq!(read(&["payments", "orders-b"]), ["orders-b=one", "payments=one"]);
    assert_eq!(read(&["--regex", "orders-.*", "x"]), ["orders-a=one", "orders-b=one"]);
    let said = fails_with(1, broker.command(&["consume", "-r", "payment"]));
    assert!(said.contains("payment"), "the whole name must match: {said}");
    assert_eq!(read(&["-r", "orders-.*", "--group", "g"]), ["orders-a=one", "orders-b=one"]);
    assert_eq!(read(&["orders-a", "payments", "--consumer", "c"]), ["orders-a=one", "payments=one"]);
    assert_eq!(
        read(&["orders-a", "payments", "--consumer", "c"]),
        [""; 0],
        "positions are kept for each topic"
    );
    assert_eq!(read(&["orders-a", "orders-b", "--limit", "1"]).len(), 1);
    let said = fails_with(1, broker.command(&["consume", "orders-a", "nope"]));
    assert!(said.contains("nope"), "{said}");
    fails_with(2, broker.command(&["consume", "-r", "("]));
    broker.stop();
}

#[test]
fn a_named_consumer_resumes_where_it_stopped() {
    let (_place, broker) = with_topic("3");
    let numbers = |n: std::ops::Range<u32>| n.map(|i| format!("{i}:{i}\n")).collect::<Vec<_>>().concat();
    let read = |flags: &[&str]| {
        let mut arguments = vec!["consume", "t", "--consumer", "billing"];
        arguments.extend(flags);
        let mut got: Vec<u32> =
            text(broker.run(&arguments, b"")).lines().map(|line| line.parse().expect("a number")).collect();
        got.sort_unstable();
        got
    };
    broker.run(&["produce", "t", "-K", ":"], numbers(0..100).as_bytes());
    let first = read(&["--limit", "30"]);
    assert_eq!(first.len(), 30);
    let second = read(&[]);
    let mut both = [first, second].concat();
    both.sort_unstable();
    assert_eq!(both, (0..100).collect::<Vec<_>>(), "every record exactly once");
    assert!(read(&[]).is_empty());
    broker.run(&["produce", "t", "-K", ":"], numbers(100..110).as_bytes());
    assert_eq!(read(&[]), (100..110).collect::<Vec<_>>());
    assert!(text(broker.run(&["consume", "t", "--consumer", "other", "--from", "latest"], b"")).is_empty());
    broker.stop();
}

#[test]
fn follow_prints_new_records_and_ends_on_ctrl_c() {
    let (_place, broker) = with_topic("2");
    broker.run(&["produce", "t"], b"one\n");
    let mut follow = broker
        .command(&["consume", "t", "--follow"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let guard = Guard::new(&follow);
    let mut lines = BufReader::new(follow.stdout.take().expect("stdout is piped")).lines();
    let mut next = || lines.next().expect("it follows").expect("text");
    assert_eq!(next(), "one");
    broker.run(&["produce", "t"], b"two\n");
    assert_eq!(next(), "two");
    kill_process(Pid::from_child(&follow), Signal::INT).expect("it follows");
    let status = follow.wait().expect("a child can be waited for");
    guard.release();
    use std::os::unix::process::ExitStatusExt as _;
    assert!(status.signal() == Some(2) || status.code() == Some(130), "as a shell sees Ctrl-C: {status}");
    broker.stop();
}

#[test]
fn consume_waits_for_new_records_up_to_the_limit() {
    let (_place, broker) = with_topic("2");
    broker.run(&["produce", "t"], b"one\n");
    let mut waiting = broker
        .command(&["consume", "t", "--limit", "2"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let guard = Guard::new(&waiting);
    let mut lines = BufReader::new(waiting.stdout.take().expect("stdout is piped")).lines();
    assert_eq!(lines.next().expect("a line").expect("text"), "one");
    broker.run(&["produce", "t"], b"two\nthree\n");
    assert!(lines.next().is_some());
    assert!(lines.next().is_none(), "exactly two records");
    assert!(waiting.wait().expect("a child can be waited for").success());
    guard.release();
    assert_eq!(broker.run(&["consume", "t", "--limit", "0"], b""), b"");
    broker.stop();
}

#[test]
fn consume_ends_quietly_when_its_reader_closes_the_pipe() {
    let (_place, broker) = with_topic("1");
    broker.run(&["produce", "t"], "a line of some length\n".repeat(50_000).as_bytes());
    let mut reading = broker
        .command(&["consume", "t"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let guard = Guard::new(&reading);
    let mut stdout = reading.stdout.take().expect("stdout is piped");
    let mut some = [0; 10];
    stdout.read_exact(&mut some).expect("something is printed");
    drop(stdout);
    let ended = reading.wait_with_output().expect("a child can be waited for");
    guard.release();
    assert_eq!(ended.status.code(), Some(141));
    assert_eq!(text(ended.stderr), "");
    broker.stop();
}

#[test]
fn without_a_broker_each_command_fails_with_one_line() {
    // A port that was just free, so that nothing listens on it.
    let address = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|l| l.local_addr())
        .expect("a free port")
        .to_string();
    for arguments in
        [&["topic", "list"][..], &["topic", "create", "t"], &["produce", "t"], &["consume", "t", "--follow"]]
    {
        let mut command = program(arguments);
        command.args(["--server", &address]);
        let said = fails_with(1, command);
        assert!(said.contains(&address), "{arguments:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{arguments:?}: {said}");
    }
    let said = fails_with(1, {
        let mut command = program(&["topic", "list", "--server", "no-such-host.invalid:1"]);
        command.env_remove("HIGHWATER_SERVER");
        command
    });
    assert!(said.contains("no-such-host.invalid"), "{said}");
    let said = fails_with(1, program(&["topic", "list", "--server", "no-such-host.invalid"]));
    assert!(said.contains("no-such-host.invalid:9191"), "a missing port is the default port: {said}");
}

#[test]
fn commands_that_miss_a_topic_or_a_group_say_how_to_find_them() {
    let place = Place::new();
    let broker = place.start();
    for arguments in [
        &["topic", "trim", "nope", "--before", "latest"][..],
        &["topic", "describe", "nope"],
        &["topic", "alter", "nope", "--partitions", "3"],
        &["topic", "delete", "nope"],
        &["produce", "nope", "a record"],
        &["consume", "nope"],
        &["consume", "nope", "--consumer", "c"],
        &["consume", "nope", "--group", "g"],
        &["group", "seek", "g", "--topic", "nope", "--to", "earliest"],
    ] {
        let said = fails_with(1, broker.command(arguments));
        let wanted = "highwater: topic nope does not exist; `highwater topic list` lists the topics";
        assert_eq!(said.trim_end(), wanted, "{arguments:?}");
    }
    for arguments in [&["group", "describe", "nope"], &["group", "delete", "nope"]] {
        let said = fails_with(1, broker.command(arguments));
        let wanted = "highwater: group nope does not exist; `highwater group list` lists the groups";
        assert_eq!(said.trim_end(), wanted, "{arguments:?}");
    }
    broker.stop();
}

#[test]
fn one_reachable_bootstrap_address_is_enough() {
    let (_place, broker) = with_topic("1");
    let dead = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port");
    let both = format!("{dead},{}", broker.address());
    let listed = output(program(&["topic", "list", "--server", &both]), b"");
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    broker.stop();
}

#[test]
fn info_summarises_a_cluster_and_stats_shows_its_rates() {
    let (_place, broker) = with_topic("3");
    broker.run(&["produce", "t", "one", "two"], b"");
    let info = json(&text(broker.run(&["info", "--json"], b"")));
    let number = |name: &str| info[name].as_u64();
    assert_eq!((number("topics"), number("partitions")), (Some(1), Some(3)));
    assert_eq!((number("groups"), number("records_appended")), (Some(0), Some(2)));
    assert_eq!(info["nodes"][0]["address"], broker.address());
    let shown = text(broker.run(&["info"], b""));
    assert!(shown.contains("1 topic, 3 partitions") && shown.contains("2 records appended"), "{shown}");
    // Looking for groups creates nothing.
    broker.run(&["group", "list"], b"");
    assert!(text(broker.run(&["info"], b"")).contains("1 topic, 3 partitions"));

    let stats = text(broker.run(&["stats", "--every", "10ms", "-n", "2"], b""));
    assert!(stats.lines().count() == 3 && stats.contains("RECORDS/s"), "{stats}");
    let stats = text(broker.run(&["stats", "--every", "10ms", "-n", "1", "--json"], b""));
    let stats = json(&stats);
    assert_eq!(stats["records.appended"], 0, "no records are sent meanwhile");
    assert!(stats["connections.now"].as_u64() >= Some(1) && stats["seconds"].as_f64() >= Some(0.01));
    broker.stop();
}

#[test]
fn completions_are_generated_for_bash_zsh_and_fish() {
    for shell in ["bash", "zsh", "fish"] {
        let script = output(program(&["completions", shell]), b"");
        assert!(script.status.success());
        let script = text(script.stdout);
        assert!(script.contains("highwater") && script.contains("key-separator"), "{shell}");
    }
}
