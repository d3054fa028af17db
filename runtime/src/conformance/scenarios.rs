//! The scenarios that every plane must pass. Each one starts a fresh machine.

use rand::{Rng as _, RngExt as _};

use super::machine::{ClientId, Machine, expect, receive_exact, receive_to_end};
use super::mesh::IN_ORDER;
use super::sending::ALL_SENT;
use super::timers::IN_TIME;
use super::{checksum, disk, pattern};

fn some_bytes(machine: &mut dyn Machine, bytes: usize) -> Vec<u8> {
    let mut data = vec![0; bytes];
    machine.random().fill_bytes(&mut data);
    data
}

/// Sends chunks of random size and checks that the same bytes come back.
pub(super) fn echo(machine: &mut dyn Machine, client: ClientId, bytes: usize) {
    let data = some_bytes(machine, bytes);
    let (mut sent, mut back) = (0, Vec::with_capacity(bytes));
    while back.len() < bytes {
        if sent < bytes && sent - back.len() < 100_000 {
            let chunk = machine.random().random_range(1..=(bytes - sent).min(30_000));
            machine.send(client, &data[sent..sent + chunk]);
            sent += chunk;
        } else {
            let part = machine.receive(client, 64 << 10);
            assert!(!part.is_empty(), "the connection ended");
            back.extend(part);
        }
    }
    assert!(back == data, "other bytes came back");
}

pub(super) fn check_pattern(data: &[u8]) {
    for (at, byte) in (0..).zip(data) {
        assert_eq!(*byte, pattern(at), "at {at} of {}", data.len());
    }
}

/// Bytes come back in order, over several connections at once, both in and after hello mode.
pub fn echo_returns_every_byte_in_order(machine: &mut dyn Machine) {
    machine.start(2, 1);
    let clients: Vec<_> = (0..6).map(|_| machine.connect(0)).collect();
    for (n, client) in clients.iter().enumerate() {
        machine.send(*client, if n % 2 == 0 { b"E" } else { b"H" });
    }
    for _ in 0..2 {
        for client in &clients {
            echo(machine, *client, 150_000);
        }
    }
}

/// A connection reports the listener that accepted it.
pub fn connections_know_their_listener(machine: &mut dyn Machine) {
    machine.start(2, 3);
    for listener in 0..3 {
        let client = machine.connect(listener);
        machine.send(client, b"W");
        let who = receive_exact(machine, client, 3);
        assert!(who[0] < 2);
        assert_eq!(who[1..], [listener as u8, 0]);
    }
}

/// A connection reports the address that its client connected to, on every shard it moves to.
pub fn connections_know_the_address_they_were_made_to(machine: &mut dyn Machine) {
    machine.start(2, 2);
    for listener in 0..2 {
        for path in [&b""[..], b"M\x00", b"M\x01M\x00M\x01"] {
            let client = machine.connect(listener);
            machine.send(client, path);
            machine.send(client, b"A");
            let address = machine.address(client);
            expect(machine, client, format!("{address}\n").as_bytes());
        }
    }
}

/// Small parcels and bulks arrive complete in any sequence, and bytes around them are not touched.
pub fn bulks_and_small_messages_mix(machine: &mut dyn Machine) {
    machine.start(1, 1);
    let client = machine.connect(0);
    let mut stream = b"B".to_vec();
    let mut replies = Vec::new();
    for n in 0..60 {
        let bulk = machine.random().random_range(1..300_000_u32) & !(n & 1);
        let (kind, a, b): (u8, u32, u32) = match machine.random().random_range(0..4_u8) {
            0 => (1, bulk.max(1), 64),
            1 => (1, 65_536, 8192),
            2 => (2, bulk.max(1), machine.random().random_range(1..100_000)),
            _ => (0, machine.random().random_range(0..5000), 0_u32),
        };
        stream.push(kind);
        stream.extend_from_slice(&a.to_le_bytes());
        stream.extend_from_slice(&b.to_le_bytes());
        let parts = if kind == 2 { vec![a, b] } else { vec![a] };
        for part in parts {
            let payload = some_bytes(machine, part as usize);
            replies.push(kind);
            replies.extend_from_slice(&checksum(&payload).to_le_bytes());
            stream.extend_from_slice(&payload);
        }
    }
    let mut rest = &stream[..];
    while !rest.is_empty() {
        let most = [20, 3000, 100_000, 1 << 20][machine.random().random_range(0..4)];
        let chunk = machine.random().random_range(1..=rest.len().min(most));
        machine.send(client, &rest[..chunk]);
        rest = &rest[chunk..];
    }
    let got = receive_exact(machine, client, replies.len());
    for (n, (got, expected)) in got.chunks(9).zip(replies.chunks(9)).enumerate() {
        assert_eq!(got, expected, "parcel {n}");
    }
}

/// Bulks whose remaining bytes arrive later, on several connections at once, while another connection is served.
pub fn bulks_wait_for_their_bytes(machine: &mut dyn Machine) {
    machine.start(1, 1);
    let clients: Vec<_> = (0..4).map(|_| machine.connect(0)).collect();
    let payload = some_bytes(machine, 200_000);
    for client in &clients {
        let mut head = b"B\x01".to_vec();
        head.extend_from_slice(&200_000_u32.to_le_bytes());
        head.extend_from_slice(&64_u32.to_le_bytes());
        machine.send(*client, &head);
        machine.send(*client, &payload[..70_000]);
    }
    // Meanwhile another client is served.
    let other = machine.connect(0);
    machine.send(other, b"E");
    echo(machine, other, 50_000);
    for client in clients {
        machine.send(client, &payload[70_000..]);
        machine.send(client, &[0, 2, 0, 0, 0, 0, 0, 0, 0, 7, 7]);
        let mut replies = vec![1];
        replies.extend_from_slice(&checksum(&payload).to_le_bytes());
        replies.push(0);
        replies.extend_from_slice(&checksum(&[7, 7]).to_le_bytes());
        assert_eq!(receive_exact(machine, client, replies.len()), replies);
    }
}

/// Pausing and resuming neither loses nor reorders bytes.
pub fn pause_and_resume_lose_nothing(machine: &mut dyn Machine) {
    machine.start(1, 1);
    for quota in [1_u32, 1000, 40_000] {
        let client = machine.connect(0);
        machine.send(client, b"P");
        machine.send(client, &quota.to_le_bytes());
        echo(machine, client, 300_000);
    }
}

/// A slow reader receives everything in order, and `on_sent` reports exactly the bytes that were sent.
pub fn a_slow_reader_gets_everything_in_order(machine: &mut dyn Machine) {
    machine.start(1, 1);
    let bytes = 12 << 20;
    let slow = machine.connect(0);
    machine.send(slow, b"S");
    machine.send(slow, &(bytes as u64).to_le_bytes());
    // Other connections do not wait for it.
    let other = machine.connect(0);
    machine.send(other, b"E");
    echo(machine, other, 200_000);
    let mut got = receive_exact(machine, slow, 1000);
    echo(machine, other, 200_000);
    got.extend(receive_exact(machine, slow, bytes - 1000));
    check_pattern(&got);
    expect(machine, slow, ALL_SENT);
}

/// Closing after sends delivers everything, even if the client keeps sending; closing now ends the connection immediately. Both end
/// with the reason `Local`.
pub fn closing_after_sends_delivers_and_closing_now_does_not_wait(machine: &mut dyn Machine) {
    machine.start(1, 1);
    for (label, how, bytes) in [(1, b'A', 3_000_000_u32), (2, b'A', 0), (3, b'N', 3_000_000), (4, b'A', 10)] {
        let client = machine.connect(0);
        let mut ask = vec![b'C', label, how];
        ask.extend_from_slice(&bytes.to_le_bytes());
        machine.send(client, &ask);
        machine.send(client, &vec![0; 20_000]);
        let got = receive_to_end(machine, client);
        check_pattern(&got);
        if how == b'A' {
            assert_eq!(got.len(), bytes as usize, "the data was truncated");
        }
        let observer = machine.connect(0);
        machine.send(observer, &[b'O', label]);
        expect(machine, observer, b"local.");
    }
}

/// Closing during a bulk, or during a close that takes too long, ends the connection and does not disturb others.
pub fn closing_now_ends_whatever_is_going_on(machine: &mut dyn Machine) {
    machine.start(1, 1);
    let observed = machine.connect(0);
    machine.send(observed, b"E");
    for (label, how) in (0..).zip(b"OSPIOSPI") {
        let client = machine.connect(0);
        machine.send(client, &[b'V', label, *how]);
        machine.send(client, &vec![label; 3 << 20]);
        echo(machine, observed, 50_000);
        let observer = machine.connect(0);
        machine.send(observer, &[b'O', label]);
        expect(machine, observer, b"local.");
    }
    echo(machine, observed, 100_000);
}

/// Clients that disconnect in the middle of a bulk do not disturb others.
pub fn clients_that_vanish_within_a_bulk_disturb_nobody(machine: &mut dyn Machine) {
    machine.start(2, 1);
    for n in 0..12_u32 {
        let client = machine.connect(0);
        let mut head = b"B\x01".to_vec();
        head.extend_from_slice(&(1_000_000 + n).to_le_bytes());
        head.extend_from_slice(&64_u32.to_le_bytes());
        machine.send(client, &head);
        let part = machine.random().random_range(0..900_000);
        machine.send(client, &vec![7; part]);
        match n % 3 {
            0 => machine.reset(client),
            1 => machine.close(client),
            _ => {
                machine.finish(client);
                assert!(receive_to_end(machine, client).is_empty());
            }
        }
    }
    let client = machine.connect(0);
    machine.send(client, b"E");
    echo(machine, client, 200_000);
}

/// Many connections that send at once are all served, whatever the capacity of the plane's buffers.
pub fn many_connections_at_once_are_all_served(machine: &mut dyn Machine) {
    machine.start(2, 1);
    let clients: Vec<_> = (0..100).map(|_| machine.connect(0)).collect();
    let data = some_bytes(machine, 120_000);
    for client in &clients {
        machine.send(*client, b"E");
        machine.send(*client, &data);
    }
    for client in clients {
        assert!(receive_exact(machine, client, data.len()) == data, "other bytes came back");
    }
}

/// The peer's end is reported after its last byte; replies that were queued are still sent.
pub fn the_peers_end_is_reported_and_its_replies_still_arrive(machine: &mut dyn Machine) {
    machine.start(1, 1);
    let label = 9;
    let client = machine.connect(0);
    machine.send(client, &[b'L', label]);
    machine.send(client, &vec![0; 100_000]);
    machine.finish(client);
    assert!(receive_to_end(machine, client).is_empty());
    let observer = machine.connect(0);
    machine.send(observer, &[b'O', label]);
    expect(machine, observer, b"peer.");

    let client = machine.connect(0);
    let data = some_bytes(machine, 1_500_000);
    machine.send(client, b"E");
    machine.send(client, &data);
    machine.finish(client);
    let got = receive_to_end(machine, client);
    assert!(got == data, "{} of {} bytes came back", got.len(), data.len());
}

/// A broken connection is reported as an error, exactly once.
pub fn a_broken_connection_is_reported(machine: &mut dyn Machine) {
    machine.start(1, 1);
    let label = 7;
    let client = machine.connect(0);
    machine.send(client, &[b'L', label]);
    machine.send(client, &[0; 1000]);
    let settle = machine.connect(0);
    machine.send(settle, b"E");
    echo(machine, settle, 1000);
    machine.reset(client);
    let observer = machine.connect(0);
    machine.send(observer, &[b'O', label]);
    expect(machine, observer, b"error.");
}

/// Connections move between shards with their unread bytes, also several times, and keep their listener.
pub fn migration_keeps_unread_bytes_and_order(machine: &mut dyn Machine) {
    machine.start(3, 2);
    for path in [vec![0], vec![1], vec![2], vec![2, 0, 1], vec![1, 1, 1]] {
        let listener = (path.len() % 2) as u16;
        let client = machine.connect(listener);
        for to in &path {
            machine.send(client, &[b'M', *to]);
        }
        machine.send(client, b"Wand the rest");
        let who = receive_exact(machine, client, 3);
        assert_eq!(who, [path[path.len() - 1], listener as u8, path.len() as u8]);
        expect(machine, client, b"and the rest");
        echo(machine, client, 100_000);
    }
    // The command arrives byte by byte, the rest in one chunk.
    let client = machine.connect(0);
    for byte in b"M\x01M\x02E" {
        machine.send(client, &[*byte]);
    }
    echo(machine, client, 100_000);
}

/// Messages between shards arrive in order and none is lost, even if there are more than any queue holds.
pub fn messages_between_shards_arrive_in_order(machine: &mut dyn Machine) {
    machine.start(3, 1);
    let count = 20_000_u32;
    let clients: Vec<_> = (0..3).map(|_| machine.connect(0)).collect();
    for (shard, client) in (0..).zip(&clients) {
        machine.send(*client, &[b'M', shard, b'X']);
        machine.send(*client, &count.to_le_bytes());
    }
    for client in clients {
        expect(machine, client, IN_ORDER);
    }
}

/// Timers fire once, not early, and in order.
pub fn timers_fire_once_and_in_order(machine: &mut dyn Machine) {
    machine.start(2, 1);
    let clients: Vec<_> = (0..4).map(|_| machine.connect(0)).collect();
    for client in &clients {
        machine.send(*client, b"T");
    }
    for client in clients {
        expect(machine, client, IN_TIME);
    }
}

/// Disk operations and file jobs: with many in flight, each completes exactly once, and reads return what was written.
pub fn disk_operations_complete_once_and_read_what_was_written(machine: &mut dyn Machine) {
    machine.start(2, 1);
    let clients: Vec<_> = (0..3).map(|_| machine.connect(0)).collect();
    for (seed, client) in (0_u64..).zip(&clients) {
        machine.send(*client, b"D");
        machine.send(*client, &seed.to_le_bytes());
    }
    for client in clients {
        expect(machine, client, disk::DISK_OK);
    }
}

/// Every completed file job wakes a sleeping shard.
pub fn every_file_job_wakes_a_sleeping_shard(machine: &mut dyn Machine) {
    machine.start(1, 1);
    let client = machine.connect(0);
    machine.send(client, b"J");
    expect(machine, client, disk::DISK_OK);
}

/// The plane calls `on_turn_end` before it sleeps.
pub fn the_end_of_a_turn_comes_before_sleep(machine: &mut dyn Machine) {
    machine.start(1, 1);
    let client = machine.connect(0);
    machine.send(client, b"U");
    for n in 0..50_u8 {
        machine.send(client, &[n]);
        assert_eq!(receive_exact(machine, client, 1), [n]);
    }
}

/// Every shard gets `on_shutdown` once, queued replies are still sent, and the machine stops.
pub fn shutdown_is_reported_once_and_every_shard_ends(machine: &mut dyn Machine) {
    machine.start(3, 1);
    let clients: Vec<_> = (0..5).map(|_| machine.connect(0)).collect();
    for client in &clients {
        machine.send(*client, b"E");
        echo(machine, *client, 1000);
    }
    machine.shutdown();
    machine.shutdown();
    for client in clients {
        assert_eq!(receive_to_end(machine, client), b"bye");
    }
    machine.wait();
}

/// A shard that exits ends alone; the others continue until they exit too.
pub fn a_shard_exits_alone(machine: &mut dyn Machine) {
    machine.start(2, 1);
    let others = machine.connect(0);
    machine.send(others, b"M\x01E");
    echo(machine, others, 1000);
    let client = machine.connect(0);
    machine.send(client, b"M\x00Z");
    assert!(receive_to_end(machine, client).is_empty());
    echo(machine, others, 10_000);
    machine.send(others, b"");
    machine.shutdown();
    assert_eq!(receive_to_end(machine, others), b"bye");
    machine.wait();
}
