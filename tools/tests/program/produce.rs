//! `produce`: input, encodings, acknowledgements and errors; and other commands' handling of several names.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;

use crate::support::{Broker, Guard, Place, fails_with, output, program};

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("text")
}

fn with_topic(partitions: &str) -> (Place, Broker) {
    let place = Place::new();
    let broker = place.start_with(&["--cores", "1"]);
    broker.run(&["topic", "create", "t", "--partitions", partitions], b"");
    (place, broker)
}

fn fails_with_input(code: i32, broker: &Broker, arguments: &[&str], stdin: &[u8]) -> String {
    let done = output(broker.command(arguments), stdin);
    let said = text(done.stderr);
    assert_eq!(done.status.code(), Some(code), "{said}");
    said
}

#[test]
fn an_acknowledgement_is_printed_before_the_next_line_arrives() {
    let (_place, broker) = with_topic("1");
    let mut producing = broker
        .command(&["produce", "t", "--verbose"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let guard = Guard::new(&producing);
    let mut stdin = producing.stdin.take().expect("stdin is piped");
    let mut acknowledged = BufReader::new(producing.stdout.take().expect("stdout is piped")).lines();
    for offset in 0..3 {
        writeln!(stdin, "typed {offset}").expect("it reads");
        let line = acknowledged.next().expect("a line").expect("text");
        assert_eq!(line, format!("t/0 offset {offset}"));
    }
    drop(stdin);
    assert!(acknowledged.next().is_none());
    assert!(producing.wait().expect("a child can be waited for").success());
    guard.release();
    assert_eq!(text(broker.run(&["consume", "t"], b"")), "typed 0\ntyped 1\ntyped 2\n");
    broker.stop();
}

#[test]
fn a_rejected_record_ends_produce_before_the_next_line_arrives() {
    let (_place, broker) = with_topic("1");
    broker.run(&["topic", "alter", "t", "--config", "message.timestamp.before.max.ms=60000"], b"");
    let mut producing = broker
        .command(&["produce", "t", "--json"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let guard = Guard::new(&producing);
    let mut stdin = producing.stdin.take().expect("stdin is piped");
    writeln!(stdin, r#"{{"value":"of 1970","timestamp":1000}}"#).expect("it reads");
    let mut said = String::new();
    BufReader::new(producing.stderr.take().expect("stderr is piped")).read_line(&mut said).expect("text");
    assert!(said.contains("line 1") && said.contains("timestamp"), "{said}");
    assert_eq!(producing.wait().expect("a child can be waited for").code(), Some(1));
    guard.release();
    drop(stdin);
    broker.stop();
}

#[test]
fn records_can_be_given_as_arguments_with_one_key_for_all() {
    let (_place, broker) = with_topic("1");
    broker.run(&["produce", "t", "-k", "k", "first", "two\nlines"], b"not read");
    broker.run(&["produce", "t", "-K", ":", "a:b"], b"");
    broker.run(&["produce", "t", "--json", r#"{"value":"of JSON"}"#], b"");
    broker.run(&["produce", "t", "-k", "gone", "--tombstone", ""], b"");
    broker.run(&["produce", "t", "-k", "empty", ""], b"");
    let shown = text(broker.run(&["consume", "t", "--format", r"%o[%k](%K)[%v](%V)\n"], b""));
    let expect = concat!(
        "0[k](1)[first](5)\n1[k](1)[two\nlines](9)\n2[a](1)[b](1)\n3[](-1)[of JSON](7)\n",
        "4[gone](4)[](-1)\n5[empty](5)[](0)\n"
    );
    assert_eq!(shown, expect);
    let said = fails_with(2, broker.command(&["produce", "t", "-k", "k", "-K", ":", "x"]));
    assert!(said.contains("--key-separator"), "{said}");
    broker.stop();
}

#[test]
fn binary_keys_and_values_can_be_sent_and_printed_in_hexadecimal_and_base64() {
    let (_place, broker) = with_topic("1");
    broker.run(
        &["produce", "t", "-K", ":", "--key-encoding", "hex", "--value-encoding", "base64"],
        b"00ff:AP8=\nFF:\n",
    );
    let shown = text(broker.run(&["consume", "t", "--format", r"%k{hex} %v{base64} %v{hex} %V\n"], b""));
    assert_eq!(shown, "00ff AP8= 00ff 2\nff   0\n");
    let said = fails_with_input(1, &broker, &["produce", "t", "--value-encoding", "hex"], b"00\n0x00\n00\n");
    assert!(said.contains("line 2") && said.contains("value is not hexadecimal"), "{said}");
    assert!(said.contains("1 record before it was acknowledged"), "{said}");
    fails_with(2, broker.command(&["produce", "t", "--key-encoding", "hex", "-k", "xyz", "v"]));
    broker.stop();
}

#[test]
fn a_json_line_can_set_its_partition_and_must_have_a_value_or_null() {
    let (_place, broker) = with_topic("6");
    let line = br#"{"value":"here","partition":5,"headers":{"trace":"abc","none":null}}"#;
    broker.run(&["produce", "t", "--json"], line);
    broker.run(&["produce", "t", "--json", "--partition", "2"], line);
    let shown = text(broker.run(&["consume", "t", "--format", r"%p %v %h\n"], b""));
    let mut shown: Vec<&str> = shown.lines().collect();
    shown.sort_unstable();
    assert_eq!(shown, ["2 here trace=abc,none=", "5 here trace=abc,none="]);

    for (line, words) in [
        (&b"{}"[..], &["line 1", "`value` is missing", "null"][..]),
        (
            b"{\"value\":\"a\"}\n\n{\"vlaue\":\"b\"}",
            &["line 3", "unknown field `vlaue`", "1 record before it"],
        ),
        (b"{\"value\":\"x\",\"partition\":6}", &["line 1", "topic t", "6 partitions"]),
        (b"{\"value\":\"a\"}\nnot json\n", &["line 2", "not JSON"]),
    ] {
        let said = fails_with_input(1, &broker, &["produce", "t", "--json"], line);
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
    }
    let copied = broker.run(&["consume", "t", "--json", "--limit", "2"], b"");
    broker.run(&["topic", "create", "narrow"], b"");
    let said = fails_with_input(1, &broker, &["produce", "narrow", "--json"], &copied);
    assert!(said.contains("narrow") && said.contains("1 partition,"), "{said}");
    broker.run(&["produce", "narrow", "--json", "--partition", "any"], &copied);
    broker.stop();
}

#[test]
fn a_failure_for_one_of_several_names_does_not_stop_the_others() {
    let (_place, broker) = with_topic("1");
    assert_eq!(
        broker.run(&["topic", "create", "b", "-p", "1200"], b""),
        b"created b with 1,200 partitions\n"
    );
    assert_eq!(broker.run(&["topic", "create", "a"], b""), b"created a with 1 partition\n");
    let done = output(broker.command(&["topic", "describe", "nope", "a", "t"]), b"");
    assert_eq!(done.status.code(), Some(1));
    let (shown, said) = (text(done.stdout), text(done.stderr));
    assert!(shown.starts_with("a  id ") && shown.contains("\n\nt  id "), "{shown}");
    assert!(said.contains("nope") && said.lines().count() == 1, "{said}");
    let done = output(broker.command(&["topic", "delete", "nope", "a", "nope-either", "b"]), b"");
    assert_eq!(done.status.code(), Some(1));
    assert_eq!(text(done.stdout), "deleted a\ndeleted b\n");
    assert_eq!(text(done.stderr).lines().count(), 2);
    broker.stop();
}

#[test]
fn an_unknown_environment_variable_causes_a_warning_with_a_suggestion() {
    let mut command = program(&["completions", "bash"]);
    command.env("HIGHWATER_SEVRER", "elsewhere").env("HIGHWATER_LISTEN", "127.0.0.1:1");
    let done = output(command, b"");
    assert!(done.status.success());
    let said = text(done.stderr);
    assert!(said.contains("HIGHWATER_SEVRER") && said.contains("HIGHWATER_SERVER?"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}
