//! Fetches of records that are on disk only: what is read, how often, and what is read before it is asked for.

use std::time::Duration;

use highwater_engine::limits::READ_AHEAD_TIME_MAX;
use highwater_protocol::batch::BatchProducer;
use highwater_protocol::native::{Body as _, MessageKind, StatsReply};

use crate::client::Fetch;
use crate::common::simulated::{Settings, SimBroker};
use crate::common::{Client, batch};

/// Four of these are about as much as a fetch returns of a partition.
const RECORD_BYTES: usize = 250_000;
const RECORDS: i64 = 24;

/// Long enough for a few disk reads.
const WHILE: Duration = Duration::from_millis(100);

/// A broker whose partitions have [`RECORDS`] each on disk, and none in memory.
fn broker(partitions: u32) -> SimBroker {
    let broker = SimBroker::with(Settings { shards: 1, ..Settings::default() });
    broker.native().created("t", partitions, &[]);
    let mut kafka = broker.kafka();
    let bytes = batch(&[&"x".repeat(RECORD_BYTES)], BatchProducer::NONE);
    for _ in 0..RECORDS {
        for partition in 0..partitions as i32 {
            kafka.produce("t", &[(partition, &bytes)]);
        }
    }
    broker.restart();
    broker
}

#[derive(Clone, Copy, Debug)]
struct Stats {
    reads: u64,
    bytes: u64,
    memory: u64,
}

fn stats(client: &mut Client) -> Stats {
    client.send_empty(MessageKind::Stats, 0);
    let reply = StatsReply::decode(&client.reply_to(0).ok()).expect("statistics");
    let total = |name| reply.total(name).expect("it is counted");
    Stats {
        reads: total("disk.reads"),
        bytes: total("disk.bytes.read"),
        memory: total("memory.requests.now"),
    }
}

#[test]
fn what_a_client_fetches_next_is_read_while_it_processes_what_it_has_and_each_byte_once() {
    let broker = broker(1);
    let (mut native, mut kafka) = (broker.native(), broker.kafka());
    let (mut offset, mut fetches) = (0, 0);
    while offset < RECORDS {
        let before = stats(&mut native).reads;
        assert!(fetches == 0 || before > fetches, "fetch {fetches} finds its records in memory");
        let got = kafka.fetch(12, &Fetch::of("t", &[(0, offset)]));
        assert_eq!(got[0].records.first().map(|(offset, _)| *offset), Some(offset));
        offset += got[0].records.len() as i64;
        fetches += 1;
        broker.run_for(WHILE);
    }
    let Stats { reads, bytes, .. } = stats(&mut native);
    assert_eq!(reads, fetches, "one read for each fetch");
    assert!(bytes < RECORDS as u64 * RECORD_BYTES as u64 * 11 / 10, "{bytes} bytes read");
}

#[test]
fn the_partitions_of_a_fetch_are_read_once_each_and_all_of_them() {
    const PARTITIONS: i32 = 12;
    let broker = broker(PARTITIONS as u32);
    let (mut native, mut kafka) = (broker.native(), broker.kafka());
    let mut offsets = [0; PARTITIONS as usize];
    let mut first = 0;
    while offsets.iter().any(|offset| *offset < RECORDS) {
        // Clients ask for other partitions first each time: a response has room for some of them only.
        let order = (0..PARTITIONS).map(|n| (first + n) % PARTITIONS);
        let from: Vec<_> = order.map(|partition| (partition, offsets[partition as usize])).collect();
        let got = kafka.fetch(12, &Fetch::of("t", &from));
        assert!(got.iter().any(|got| !got.records.is_empty()), "{offsets:?}");
        for got in got {
            for (offset, _) in got.records {
                let next = &mut offsets[got.partition as usize];
                assert_eq!(offset, *next);
                *next += 1;
            }
        }
        first += 8;
    }
    let Stats { reads, bytes, .. } = stats(&mut native);
    let all = PARTITIONS as u64 * RECORDS as u64 * RECORD_BYTES as u64;
    assert!(bytes < all * 5 / 4, "{bytes} bytes read of {all} in {reads} reads");
}

#[test]
fn an_unused_read_ahead_is_dropped() {
    let broker = broker(1);
    let (mut native, mut kafka) = (broker.native(), broker.kafka());
    let idle = stats(&mut native).memory;
    for leaves in [false, true] {
        assert!(!kafka.fetch(12, &Fetch::of("t", &[(0, 8)]))[0].records.is_empty());
        broker.run_for(WHILE);
        let held = stats(&mut native).memory;
        assert!(held > idle + 2 * RECORD_BYTES as u64, "{held} bytes are held, {idle} before");
        if leaves {
            kafka = broker.kafka();
            broker.run_for(WHILE);
        } else {
            broker.run_for(2 * READ_AHEAD_TIME_MAX);
        }
        let held = stats(&mut native).memory;
        assert!(held < idle + RECORD_BYTES as u64, "{held} bytes are held, {idle} before");
    }
    // What was dropped is read again.
    let got = kafka.fetch(12, &Fetch::of("t", &[(0, 12)]));
    assert_eq!(got[0].records.first().map(|(offset, _)| *offset), Some(12));
}

#[test]
fn a_client_that_goes_elsewhere_gets_what_it_asks_for() {
    let broker = broker(1);
    let mut kafka = broker.kafka();
    for offset in [0, 12, 5, 9, 22, 0] {
        for bytes_max in [1 << 20, 300_000] {
            let from = [(0, offset)];
            let got = kafka.fetch(12, &Fetch { partition_max_bytes: bytes_max, ..Fetch::of("t", &from) });
            let offsets: Vec<_> = got[0].records.iter().map(|(offset, _)| *offset).collect();
            assert!((1..=bytes_max as usize / RECORD_BYTES).contains(&offsets.len()), "{offsets:?}");
            assert_eq!(offsets, (offset..offset + offsets.len() as i64).collect::<Vec<_>>());
        }
    }
}
