//! Scenarios with connections that the application opens.

use std::net::SocketAddr;

use super::machine::{ClientId, Machine, expect, receive_exact, receive_to_end};
use super::scenarios::{check_pattern, echo};
use super::sending::ALL_SENT;

/// A deadline that is never reached.
const LONG_MS: u16 = 10_000;

/// Has the application open a connection.
fn open(machine: &mut dyn Machine, how: u8, to: SocketAddr, within_ms: u16) -> ClientId {
    let client = machine.connect(0);
    let mut command = vec![b'G', how];
    command.extend_from_slice(&within_ms.to_le_bytes());
    command.extend_from_slice(format!("{to}\n").as_bytes());
    machine.send(client, &command);
    client
}

fn line(machine: &mut dyn Machine, client: ClientId) -> String {
    let mut line = Vec::new();
    loop {
        match receive_exact(machine, client, 1)[0] {
            b'\n' => return String::from_utf8(line).expect("lines are text"),
            byte => line.push(byte),
        }
    }
}

/// Receives the outcome of a connect that succeeds. Returns the address of the connecting side.
fn connected(machine: &mut dyn Machine, client: ClientId) -> SocketAddr {
    let line = line(machine, client);
    let address = line.strip_prefix("connected ").unwrap_or_else(|| panic!("not connected: {line}"));
    address.parse().expect("an address")
}

/// Has the application open a connection whose other side sends back what it receives.
fn open_echo(machine: &mut dyn Machine, to: SocketAddr) -> ClientId {
    let client = open(machine, b'R', to, LONG_MS);
    connected(machine, client);
    machine.send(client, b"E");
    client
}

/// Returns the address of a listener of the machine.
fn listener(machine: &mut dyn Machine, listener: u16) -> SocketAddr {
    let client = machine.connect(listener);
    machine.address(client)
}

/// Bytes pass in order through connections that a shard has opened, to the shards of its own process.
pub fn outgoing_connections_carry_bytes_both_ways(machine: &mut dyn Machine) {
    machine.start(2, 1);
    let to = listener(machine, 0);
    let clients: Vec<_> = (0..4).map(|_| open(machine, b'R', to, LONG_MS)).collect();
    for (n, client) in clients.iter().enumerate() {
        connected(machine, *client);
        machine.send(*client, if n % 2 == 0 { b"E" } else { b"H" });
    }
    for _ in 0..2 {
        for client in &clients {
            echo(machine, *client, 150_000);
        }
    }
}

/// The shard that accepts an outgoing connection can hand it to another, with bytes that were sent before the connection was open.
pub fn outgoing_connections_reach_every_shard_of_their_own_process(machine: &mut dyn Machine) {
    machine.start(3, 2);
    for path in [vec![], vec![0], vec![1], vec![2], vec![2, 0, 1], vec![1, 1, 1]] {
        let at = (path.len() % 2) as u16;
        let to = listener(machine, at);
        let client = open(machine, b'R', to, LONG_MS);
        for shard in &path {
            machine.send(client, &[b'M', *shard]);
        }
        machine.send(client, b"Wand the rest");
        connected(machine, client);
        let who = receive_exact(machine, client, 3);
        assert_eq!(who[1..], [at as u8, path.len() as u8]);
        assert!(path.last().is_none_or(|shard| *shard == who[0]));
        expect(machine, client, b"and the rest");
        echo(machine, client, 100_000);
    }
}

/// The side that connects and the side that accepts agree about their addresses.
pub fn both_ends_of_an_outgoing_connection_have_the_same_addresses(machine: &mut dyn Machine) {
    machine.start(2, 1);
    let to = listener(machine, 0);
    for path in [&b""[..], b"M\x00", b"M\x01"] {
        let client = open(machine, b'R', to, LONG_MS);
        let local = connected(machine, client);
        assert!(local.port() != 0, "{local}");
        machine.send(client, path);
        machine.send(client, b"N");
        expect(machine, client, format!("{local}\n").as_bytes());
        let client = open(machine, b'R', to, LONG_MS);
        connected(machine, client);
        machine.send(client, path);
        machine.send(client, b"A");
        expect(machine, client, format!("{to}\n").as_bytes());
    }
}

/// A connect to a port where nobody listens fails with that reason.
pub fn a_connect_to_a_port_without_a_listener_is_refused(machine: &mut dyn Machine) {
    machine.start(1, 1);
    let (refusing, to) = (machine.refusing(), listener(machine, 0));
    for _ in 0..3 {
        let client = open(machine, b'R', refusing, LONG_MS);
        assert_eq!(line(machine, client), "refused");
        let client = open_echo(machine, to);
        echo(machine, client, 10_000);
    }
}

/// A connect that nobody answers ends at its deadline, and not before it. Others go on meanwhile.
pub fn a_connect_that_nobody_answers_ends_at_its_deadline(machine: &mut dyn Machine) {
    machine.start(1, 1);
    let (unanswering, to) = (machine.unanswering(), listener(machine, 0));
    let waiting: Vec<_> = [1, 80, 40, 0].map(|ms| open(machine, b'R', unanswering, ms)).into();
    let client = open_echo(machine, to);
    echo(machine, client, 100_000);
    for client in waiting {
        assert_eq!(line(machine, client), "timed out");
    }
    echo(machine, client, 10_000);
}

/// A connection that is closed before it is connected reports that, exactly once, whatever would have become of it.
pub fn a_connection_that_is_closed_before_it_is_connected_has_one_outcome(machine: &mut dyn Machine) {
    machine.start(1, 1);
    let to = listener(machine, 0);
    let (unanswering, refusing) = (machine.unanswering(), machine.refusing());
    for _ in 0..3 {
        for (how, to) in [(b'C', to), (b'C', unanswering), (b'C', refusing), (b'L', unanswering)] {
            let client = open(machine, how, to, LONG_MS);
            assert_eq!(line(machine, client), "closed");
        }
        let client = open_echo(machine, to);
        echo(machine, client, 10_000);
    }
}

/// Large messages are received in place by the side that connected and by the side that accepted, at the same time.
pub fn both_ends_of_an_outgoing_connection_receive_in_place(machine: &mut dyn Machine) {
    machine.start(2, 1);
    let to = listener(machine, 0);
    let clients: Vec<_> = (0..3).map(|_| open(machine, b'X', to, LONG_MS)).collect();
    for client in clients {
        connected(machine, client);
        assert_eq!(line(machine, client), "exchanged");
    }
}

/// Pausing and resuming an outgoing connection neither loses nor reorders bytes.
pub fn pausing_an_outgoing_connection_loses_nothing(machine: &mut dyn Machine) {
    machine.start(1, 1);
    let to = listener(machine, 0);
    let bytes = 2 << 20;
    let client = open(machine, b'P', to, LONG_MS);
    machine.send(client, b"S");
    machine.send(client, &(bytes as u64).to_le_bytes());
    connected(machine, client);
    check_pattern(&receive_exact(machine, client, bytes));
    expect(machine, client, ALL_SENT);
}

/// An outgoing connection ends like an accepted one: its end is reported once, after everything that was sent before it.
pub fn the_end_of_an_outgoing_connection_is_reported_once(machine: &mut dyn Machine) {
    machine.start(2, 4);
    let to = listener(machine, 0);
    // The other side sends, and closes.
    let client = open(machine, b'R', to, LONG_MS);
    machine.send(client, b"C\x01A\x40\x9c\x00\x00");
    connected(machine, client);
    check_pattern(&receive_exact(machine, client, 40_000));
    assert_eq!(receive_to_end(machine, client), b"end: peer\n");
    // The other side closes as soon as it has accepted.
    let closing = listener(machine, 3);
    for _ in 0..3 {
        let client = open(machine, b'R', closing, LONG_MS);
        connected(machine, client);
        assert_eq!(receive_to_end(machine, client), b"end: peer\n");
    }
    // This side closes.
    let client = open(machine, b'R', to, LONG_MS);
    machine.send(client, b"M\x00L\x05and what else there is");
    connected(machine, client);
    machine.finish(client);
    receive_to_end(machine, client);
    let observer = machine.connect(0);
    machine.send(observer, b"M\x00O\x05");
    expect(machine, observer, b"peer.");
}

/// A shard that ends closes the connections that it has opened, and gives up those that are not connected.
pub fn shutdown_ends_outgoing_connections_and_connects(machine: &mut dyn Machine) {
    machine.start(2, 1);
    let (unanswering, to) = (machine.unanswering(), listener(machine, 0));
    let clients: Vec<_> = (0..3).map(|_| open(machine, b'R', to, LONG_MS)).collect();
    for client in &clients {
        connected(machine, *client);
        machine.send(*client, b"E");
        echo(machine, *client, 10_000);
    }
    let waiting: Vec<_> = (0..3).map(|_| open(machine, b'R', unanswering, LONG_MS)).collect();
    echo(machine, clients[0], 10_000);
    machine.shutdown();
    for client in clients.into_iter().chain(waiting) {
        receive_to_end(machine, client);
    }
    machine.wait();
}
