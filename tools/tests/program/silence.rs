//! Messages that the program prints while it runs: outages, administrative changes, and nothing else.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{ChildStderr, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Broker, Guard, Place, program, start_command};

/// Restarts a broker on the address that clients know.
fn start_again(place: &Place, address: &str) -> Broker {
    let started = Broker::start(start_command(&place.data(), &["--listen", address]));
    started.unwrap_or_else(|ended| panic!("{}", String::from_utf8_lossy(&ended.stderr)))
}

fn next_line(from: &mut std::io::Lines<impl std::io::BufRead>) -> String {
    from.next().expect("another line").expect("text")
}

/// Asserts that a command reports a lost connection, then calls `restore`, and asserts that it reports the restored connection.
fn expect_outage(said: &mut std::io::Lines<BufReader<ChildStderr>>, address: &str, restore: impl FnOnce()) {
    let lost = next_line(said);
    assert!(
        lost.contains("connection to") && lost.contains(address) && lost.ends_with("reconnecting"),
        "{lost}"
    );
    restore();
    let again = next_line(said);
    assert!(again.contains(address) && again.ends_with("again"), "{again}");
}

#[test]
fn a_following_consumer_reports_a_lost_and_a_restored_connection_once_each() {
    let place = Place::new();
    let broker = place.start();
    let address = broker.address();
    broker.run(&["topic", "create", "t", "--partitions", "2"], b"");
    broker.run(&["produce", "t"], b"one\n");
    let mut follow = broker
        .command(&["consume", "t", "--follow"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let guard = Guard::new(&follow);
    let mut printed = BufReader::new(follow.stdout.take().expect("stdout is piped")).lines();
    let mut said = BufReader::new(follow.stderr.take().expect("stderr is piped")).lines();
    assert_eq!(next_line(&mut printed), "one");
    broker.kill();
    let mut broker = None;
    expect_outage(&mut said, &address, || {
        let started = start_again(&place, &address);
        started.run(&["produce", "t"], b"two\n");
        assert_eq!(next_line(&mut printed), "two");
        broker = Some(started);
    });
    kill_process(Pid::from_child(&follow), Signal::INT).expect("it follows");
    follow.wait().expect("a child can be waited for");
    guard.release();
    assert!(said.next().is_none(), "no other messages");
    drop(broker);
}

#[test]
fn a_producer_reports_a_lost_and_a_restored_connection_once_each() {
    let place = Place::new();
    let broker = place.start();
    let address = broker.address();
    broker.run(&["topic", "create", "t"], b"");
    let mut produce = broker
        .command(&["produce", "t"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let guard = Guard::new(&produce);
    let mut typed = produce.stdin.take().expect("stdin is piped");
    let mut said = BufReader::new(produce.stderr.take().expect("stderr is piped")).lines();
    typed.write_all(b"one\n").expect("it reads");
    assert_eq!(broker.run(&["consume", "t", "--limit", "1"], b""), b"one\n");
    broker.kill();
    let mut broker = None;
    expect_outage(&mut said, &address, || {
        broker = Some(start_again(&place, &address));
        typed.write_all(b"two\n").expect("it reads");
        drop(typed);
    });
    assert!(produce.wait().expect("a child can be waited for").success());
    guard.release();
    assert!(said.next().is_none(), "no other messages");
    let broker = broker.expect("the broker was restarted");
    assert_eq!(broker.run(&["consume", "t"], b""), b"one\ntwo\n");
    broker.stop();
}

#[test]
fn a_broker_started_with_nohup_ignores_sighup() {
    const HANGUP_BIT: u64 = 1;
    let signals = |broker: &Broker, name: &str| {
        let status = std::fs::read_to_string(format!("/proc/{}/status", broker.pid())).expect("it runs");
        let hex = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line of signals").trim();
        u64::from_str_radix(hex, 16).expect("a number")
    };
    let place = Place::new();
    let direct = start_command(&place.data(), &[]);
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$0\" \"$@\""]).arg(direct.get_program()).args(direct.get_args());
    for (name, value) in direct.get_envs() {
        assert!(value.is_none(), "`start_command` only removes variables");
        command.env_remove(name);
    }
    let broker = Broker::start(command).unwrap_or_else(|ended| panic!("{}", ended.status));
    assert_eq!(signals(&broker, "SigIgn:") & HANGUP_BIT, 1);
    broker.stop();
    let broker = place.start();
    assert_eq!(signals(&broker, "SigCgt:") & HANGUP_BIT, 1);
    broker.stop();
}

#[test]
fn administrative_changes_are_logged_at_info() {
    let place = Place::new();
    let broker = place.start_with(&["--log-level", "info"]);
    broker.run(&["topic", "create", "orders", "--partitions", "2", "--config", "retention.ms=7d"], b"");
    broker.run(&["topic", "alter", "orders", "--partitions", "3", "--config", "retention.ms=1d"], b"");
    broker.run(&["topic", "alter", "orders", "--unset", "retention.ms"], b"");
    broker.run(&["produce", "orders"], b"one\n");
    broker.run(&["consume", "orders", "--group", "billing"], b"");
    broker.run(&["group", "delete", "billing"], b"");
    broker.run(&["topic", "delete", "orders"], b"");
    let (status, log) = broker.end(Signal::TERM);
    assert!(status.success(), "{log}");
    for words in [
        &["INFO", "topic created", "topic=\"orders\"", "partitions=2", "retention.ms"][..],
        &["INFO", "partitions added", "topic=\"orders\"", "from=2 to=3"],
        &["INFO", "topic setting changed", "setting=\"retention.ms\"", "old=\"604800000\" new=\"86400000\""],
        &["INFO", "topic setting returned to its default", "setting=\"retention.ms\""],
        &["INFO", "group deleted", "group=\"billing\""],
        &["INFO", "topic deleted", "topic=\"orders\"", "partitions=3"],
        &["INFO", "stopping on a signal", "SIGTERM"],
    ] {
        assert!(
            log.lines().any(|line| words.iter().all(|word| line.contains(word))),
            "{words:?} is not in\n{log}"
        );
    }
}

#[test]
fn a_command_that_cannot_connect_prints_one_error() {
    let output = crate::support::output(program(&["topic", "list", "--server", "127.0.0.1:1"]), b"");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), said.lines().count()), (Some(1), 1), "{said}");
}
