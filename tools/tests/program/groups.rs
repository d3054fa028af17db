//! `consume --group`: several processes share a topic.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Broker, Guard, Place, fails_with};

/// A `consume` process. Its output lines are sent to a channel, with its number.
struct Member {
    child: Child,
    guard: Guard,
}

impl Member {
    fn start(broker: &Broker, number: usize, printed: mpsc::Sender<(usize, String)>) -> Self {
        let mut command =
            broker.command(&["consume", "t", "--group", "g", "--follow", "--format", "%p %v\\n"]);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the program runs");
        let guard = Guard::new(&child);
        let stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        std::thread::spawn(move || {
            for line in stdout.lines() {
                // Fails only after the test has ended.
                let _ = printed.send((number, line.expect("text")));
            }
        });
        Self { child, guard }
    }

    fn end(mut self, signal: Signal) -> Option<i32> {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
        let status = self.child.wait().expect("a child can be waited for");
        self.guard.release();
        status.code()
    }
}

fn describe(broker: &Broker) -> serde_json::Value {
    let described = broker.run(&["group", "describe", "g", "--json"], b"");
    serde_json::from_slice(&described).expect("JSON")
}

/// Waits until the partitions are divided evenly among that many members.
fn wait_for_members(broker: &Broker, members: usize) {
    // The group does not exist before the first member joins.
    while String::from_utf8_lossy(&broker.run(&["group", "list"], b"")).lines().count() < 2 {}
    loop {
        let group = describe(broker);
        let described = group["members"].as_array().expect("a list");
        let owned: Vec<u64> = described.iter().filter_map(|m| m["partitions"].as_u64()).collect();
        let is_even = owned.len() == members && owned.iter().all(|n| *n == 4 / members as u64);
        if group["state"] == "Stable" && is_even {
            return;
        }
    }
}

fn lines(from: u64, to: u64) -> Vec<u8> {
    (from..to).flat_map(|n| format!("{n}:{n}\n").into_bytes()).collect()
}

#[test]
fn members_of_a_group_share_the_partitions_and_take_over_those_of_members_that_leave() {
    let place = Place::new();
    let broker =
        place.start_with(&["--group-heartbeat-interval-ms", "50", "--group-session-timeout-ms", "2000"]);
    broker.run(&["topic", "create", "t", "--partitions", "4"], b"");
    let (printed, from_members) = mpsc::channel();
    let first = Member::start(&broker, 1, printed.clone());
    let second = Member::start(&broker, 2, printed.clone());
    wait_for_members(&broker, 2);
    let mut seen = Vec::new();
    let mut by_member = [0; 4];
    let mut until = |count: usize, seen: &mut Vec<u64>| {
        while seen.len() < count {
            let (number, line) = from_members.recv().expect("a member is running");
            by_member[number] += 1;
            seen.push(line.split(' ').nth(1).expect("a value").parse().expect("a number"));
        }
    };
    broker.run(&["produce", "t", "--key-separator", ":"], &lines(0, 1000));
    until(1000, &mut seen);
    // On Ctrl-C, SIGTERM or a closed terminal, a member leaves, and the other takes over its partitions.
    assert_eq!(first.end(Signal::INT), Some(130));
    wait_for_members(&broker, 1);
    for (signal, code) in [(Signal::TERM, 143), (Signal::HUP, 129)] {
        let third = Member::start(&broker, 3, printed.clone());
        wait_for_members(&broker, 2);
        assert_eq!(third.end(signal), Some(code));
        wait_for_members(&broker, 1);
    }
    drop(printed);
    broker.run(&["produce", "t", "--key-separator", ":"], &lines(1000, 1500));
    until(1500, &mut seen);
    seen.sort_unstable();
    assert!(seen.iter().copied().eq(0..1500), "each record exactly once");
    assert!(by_member[1] > 0 && by_member[2] > 500, "{by_member:?}");

    // A killed member is removed when its session times out. The next member of the group loses no records.
    second.end(Signal::KILL);
    loop {
        let group = describe(&broker);
        if group["members"].as_array().is_some_and(Vec::is_empty) {
            break;
        }
    }
    broker.run(&["produce", "t", "--key-separator", ":"], &lines(1500, 1600));
    let rest = broker.run(&["consume", "t", "--group", "g", "--format", "%v\\n"], b"");
    let rest: Vec<u64> =
        String::from_utf8_lossy(&rest).lines().map(|line| line.parse().expect("a number")).collect();
    assert!((1500..1600).all(|n| rest.contains(&n)), "{rest:?}");
    let group = describe(&broker);
    let lag: u64 =
        group["partitions"].as_array().expect("a list").iter().filter_map(|p| p["lag"].as_u64()).sum();
    assert_eq!((lag, &group["state"]), (0, &"Empty".into()));

    broker.run(&["group", "delete", "g"], b"");
    assert_eq!(broker.run(&["group", "list", "--json"], b""), b"");
    broker.stop();
}

#[test]
fn a_limit_within_a_batch_commits_there_and_the_next_member_resumes_there() {
    let place = Place::new();
    let broker = place.start();
    broker.run(&["topic", "create", "t"], b"");
    broker.run(&["produce", "t", "--key-separator", ":"], &lines(0, 10));
    for numbers in ["0\n1\n2\n", "3\n4\n5\n"] {
        let out = broker.run(&["consume", "t", "--group", "g", "--limit", "3", "--format", "%v\\n"], b"");
        assert_eq!(String::from_utf8_lossy(&out), numbers);
    }
    let shown = String::from_utf8_lossy(&broker.run(&["group", "describe", "g"], b"")).into_owned();
    let row: Vec<&str> = shown.lines().last().expect("a row").split_whitespace().collect();
    assert_eq!(row, ["t", "0", "6", "10", "4", "-"], "{shown}");
    for (arguments, word) in [
        (&["group", "describe", "missing"][..], "missing"),
        (&["group", "delete", "missing"], "missing"),
        (&["consume", "no-such-topic", "--group", "g"], "no-such-topic"),
    ] {
        let said = fails_with(1, broker.command(arguments));
        assert!(said.contains(word), "{said}");
    }
    let said = fails_with(1, broker.command(&["group", "describe", "missing", "g", "missing-too"]));
    assert_eq!(said.lines().count(), 2, "{said}");
    for empty in [["consume", "t", "--group", ""], ["consume", "t", "--consumer", ""]] {
        let said = fails_with(2, broker.command(&empty));
        assert!(said.contains(empty[2]), "{said}");
    }
    broker.run(&["consume", "t", "--consumer", "reader", "--limit", "4"], b"");
    let listed = String::from_utf8_lossy(&broker.run(&["group", "list"], b"")).into_owned();
    assert!(listed.contains("reader  named"), "{listed}");
    let described = String::from_utf8_lossy(&broker.run(&["group", "describe", "reader"], b"")).into_owned();
    assert!(described.starts_with("reader  named  Empty  0 members  lag 6\n"), "{described}");
    fails_with(2, broker.command(&["consume", "t", "--group", "g", "--partition", "1"]));
    fails_with(2, broker.command(&["consume", "t", "--group", "g", "--from", "-5"]));
    broker.stop();
}
