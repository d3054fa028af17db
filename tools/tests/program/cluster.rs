//! Several processes that are nodes of a cluster.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Broker, Guard, Place, output, program, start_command};

/// Returns addresses that were free a moment ago: nodes have to know those of each other before they start.
fn free_addresses<const N: usize>() -> [String; N] {
    let held = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    held.map(|socket| socket.local_addr().expect("it has an address").to_string())
}

/// Starts nodes at the same time, and waits until all are ready.
fn start_all(place: &Place, addresses: &[String], flags: &[&str]) -> Vec<Broker> {
    let seeds = addresses.join(",");
    std::thread::scope(|scope| {
        let starting: Vec<_> = addresses
            .iter()
            .enumerate()
            .map(|(number, address)| {
                let data = place.path(&format!("node-{number}"));
                let flags = [&["--cores", "1", "--peer-listen", address, "--seeds", &seeds], flags].concat();
                let command = start_command(&data, &flags);
                scope.spawn(move || {
                    Broker::start(command).unwrap_or_else(|ended| {
                        panic!("node {number}: {}\n{}", ended.status, String::from_utf8_lossy(&ended.stderr))
                    })
                })
            })
            .collect();
        starting.into_iter().map(|thread| thread.join().expect("it has started")).collect()
    })
}

#[test]
fn three_processes_with_the_same_seeds_are_one_cluster_and_are_it_again_after_a_restart() {
    let place = Place::new();
    let addresses = free_addresses::<3>();
    let nodes = start_all(&place, &addresses, &[]);
    let ids: Vec<String> = nodes.iter().map(|node| node.field("node")).collect();
    let mut sorted = ids.clone();
    sorted.sort();
    assert_eq!((sorted.join(","), ids[0].as_str()), ("0,1,2".to_owned(), "0"));
    for node in nodes {
        let (status, stderr) = node.end(Signal::TERM);
        assert!(status.success(), "{status}: {stderr}");
    }
    // All of them know who they are.
    let again = start_all(&place, &addresses, &[]);
    for (node, id) in again.iter().zip(&ids) {
        assert_eq!(node.field("node"), *id);
    }
    let peers: Vec<String> = again.iter().map(|node| node.field("peers")).collect();
    assert_eq!(peers, addresses);
}

#[test]
fn a_cluster_for_development_keeps_topics_on_all_of_its_nodes_and_ends_on_a_signal() {
    let place = Place::new();
    let mut command = program(&["dev-cluster"]);
    command.env("TMPDIR", place.path(""));
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("the program runs");
    let guard = Guard::new(&child);
    let mut stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
    let mut said = String::new();
    while !said.contains("ready: a cluster of 3 nodes") {
        assert!(stdout.read_line(&mut said).is_ok_and(|bytes| bytes > 0), "it has ended: {said}");
    }
    let addresses: Vec<&str> =
        said.split("native=").skip(1).filter_map(|rest| rest.split_whitespace().next()).collect();
    assert_eq!(addresses.len(), 3, "{said}");
    let run = |arguments: &[&str]| {
        let output = output(program(arguments), b"");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    run(&["topic", "create", "orders", "--partitions", "3", "--server", addresses[0]]);
    assert!(run(&["info", "--server", addresses[0]]).contains("node 2"));
    kill_process(Pid::from_child(&child), Signal::TERM).expect("it runs");
    let status = child.wait().expect("a child can be waited for");
    guard.release();
    assert!(status.success(), "{status}: {said}");
    let left = std::fs::read_dir(place.path("")).expect("the directory is there").count();
    assert_eq!(left, 0, "its data is removed");
}

#[test]
fn a_node_that_waits_for_its_seeds_says_so_and_stops_on_a_signal() {
    let place = Place::new();
    let [mine, other] = free_addresses::<2>();
    let flags = ["--cores", "1", "--peer-listen", &mine, "--seeds", &format!("{mine},{other}")];
    let mut command = start_command(&place.data(), &flags);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program runs");
    let guard = Guard::new(&child);
    let mut stderr = BufReader::new(child.stderr.take().expect("stderr is piped"));
    let mut said = String::new();
    while !said.contains(&format!("{other}: cannot connect")) {
        assert!(stderr.read_line(&mut said).is_ok_and(|bytes| bytes > 0), "it has ended: {said}");
    }
    kill_process(Pid::from_child(&child), Signal::INT).expect("it runs");
    let output = child.wait_with_output().expect("a child can be waited for");
    guard.release();
    assert!(output.status.success() && output.stdout.is_empty(), "{}: {said}", output.status);
}

#[test]
fn a_node_that_cannot_be_a_member_says_why() {
    let place = Place::new();
    let [founder, second, third] = free_addresses::<3>();
    let flags = ["--cores", "1", "--peer-listen", &founder, "--node-id", "3"];
    let founder_node =
        Broker::start(start_command(&place.path("founder"), &flags)).expect("it founds a cluster");
    assert_eq!(founder_node.field("node"), "3");
    let flags = ["--cores", "1", "--peer-listen", &second, "--seeds", &founder, "--node-id", "3"];
    let refused = Broker::start(start_command(&place.path("second"), &flags)).err().expect("refused");
    let stderr = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains(&format!("node 3 is running at {founder}")), "{stderr}");
    let flags = ["--cores", "1", "--peer-listen", &third, "--seeds", &founder];
    let joined = Broker::start(start_command(&place.path("third"), &flags)).expect("it joins");
    assert_eq!(joined.field("node"), "0", "the smallest free one");
}
