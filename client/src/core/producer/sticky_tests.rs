//! Placement of records without a key.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use highwater_protocol::batch::Compression;
use highwater_protocol::ids::{ProducerId, Timestamp};

use super::*;
use crate::core::lane::{BatchSend, LaneLimits};
use crate::core::producer::ProducerAction;
use crate::core::ticket::Acked;
use crate::record::Record;

const IN_FLIGHT_MAX: usize = 5;

/// A producer, and brokers that acknowledge immediately unless a partition is unreachable or silent.
struct StickyHarness {
    core: ProducerCore,
    now: Instant,
    /// Partitions whose leader cannot be reached.
    away: BTreeSet<u32>,
    /// Partitions that do not answer.
    silent: BTreeSet<u32>,
    /// Partition and number of records of each batch sent.
    sent: Vec<(u32, u32)>,
}

impl StickyHarness {
    fn new(partitions: u32, linger: Duration) -> Self {
        let limits = LaneLimits {
            linger,
            in_flight_max: IN_FLIGHT_MAX,
            delivery_timeout: Duration::from_mins(2),
            idempotent: true,
        };
        let mut core = ProducerCore::new(limits, Compression::None, 1000, 10_000, 5);
        core.set_partitions(partitions);
        let (away, silent) = (BTreeSet::new(), BTreeSet::new());
        Self { core, now: Instant::now(), away, silent, sent: Vec::new() }
    }

    fn send(&mut self, bytes: usize) -> u32 {
        let record = Record::new(vec![7; bytes]);
        self.core.append(&record, Timestamp(0), record.charge(), || self.now).unwrap().partition
    }

    /// Runs all actions that are ready.
    fn drive(&mut self) {
        while let Some(action) = self.core.poll_send(self.now) {
            match action {
                ProducerAction::Route { lane, .. } if self.away.contains(&lane) => {}
                ProducerAction::Route { lane, .. } => self.core.handle_route(lane, true),
                ProducerAction::InitProducer => drop(self.core.handle_identity(ProducerId(1), 0)),
                ProducerAction::Send { lane, send } => {
                    let BatchSend::Fresh { batch, mut buffer, stamp } = send else {
                        panic!("nothing is lost")
                    };
                    let bytes: Bytes = buffer.finish(stamp).unwrap().freeze();
                    let records = u32::from_be_bytes(bytes[57..61].try_into().unwrap());
                    self.core.handle_encoded(lane, batch, &bytes);
                    self.sent.push((lane, records));
                    if !self.silent.contains(&lane) {
                        let acked = Acked { base_offset: None, log_append_time: None };
                        self.core.handle_acked(lane, batch, acked);
                    }
                }
            }
        }
        self.core.take_settled();
    }

    fn batches_of_each(&self) -> Vec<usize> {
        let of = |partition| self.sent.iter().filter(|(at, _)| *at == partition).count();
        (0..self.core.partitions()).map(of).collect()
    }
}

#[test]
fn a_hundred_full_batches_spread_evenly_over_eight_partitions() {
    let mut producing = StickyHarness::new(8, Duration::ZERO);
    for n in 0..4000 {
        producing.send(20);
        // The driver runs now and then, as in a loop of sends.
        if n % 128 == 0 {
            producing.drive();
        }
    }
    producing.core.flush();
    producing.drive();
    let batches = producing.sent.len();
    let each = producing.batches_of_each();
    assert!(batches >= 100, "{batches}");
    assert!(each.iter().all(|of| of.abs_diff(batches / 8) <= 3), "{each:?}");
}

#[test]
fn a_slow_trickle_of_records_rotates_over_the_partitions() {
    let linger = Duration::from_millis(5);
    let mut producing = StickyHarness::new(8, linger);
    for _ in 0..96 {
        producing.send(20);
        producing.drive();
        producing.now += linger;
        producing.drive();
    }
    assert_eq!(producing.batches_of_each(), [12; 8]);
}

#[test]
fn a_full_batch_is_not_followed_by_a_batch_of_one_record() {
    let mut producing = StickyHarness::new(4, Duration::from_secs(1));
    for _ in 0..2000 {
        producing.send(20);
        producing.drive();
    }
    assert!(producing.sent.len() > 30);
    assert!(producing.sent.iter().all(|(_, records)| *records > 20), "{:?}", producing.sent);
}

#[test]
fn a_silent_partition_gets_at_most_the_batches_allowed_in_flight() {
    let mut producing = StickyHarness::new(4, Duration::ZERO);
    for _ in 0..4 {
        producing.send(20);
        producing.drive();
    }
    producing.silent.insert(2);
    for _ in 0..100 {
        producing.send(20);
        producing.drive();
    }
    let each = producing.batches_of_each();
    assert!(each[2] <= 1 + IN_FLIGHT_MAX, "{each:?}");
    assert!([0, 1, 3].iter().all(|at| each[*at] >= 30), "{each:?}");
    assert!(!producing.core.lanes[2].has_open(), "nothing waits for it that could go elsewhere");
}

#[test]
fn a_disconnected_partition_delays_only_the_first_records() {
    let mut producing = StickyHarness::new(4, Duration::ZERO);
    producing.away.insert(1);
    let mut stuck = 0;
    for _ in 0..100 {
        let partition = producing.send(20);
        stuck += u32::from(partition == 1);
        producing.drive();
        producing.now += Duration::from_millis(5);
    }
    assert!(stuck <= 3, "{stuck}");
    let each = producing.batches_of_each();
    assert!([0, 2, 3].iter().all(|at| each[*at] >= 30), "{each:?}");
    // Once its leader is reachable again, the partition gets its share.
    producing.away.clear();
    producing.core.handle_route(1, true);
    producing.drive();
    for _ in 0..100 {
        producing.send(20);
        producing.drive();
    }
    assert!(producing.batches_of_each()[1] >= 20, "{:?}", producing.batches_of_each());
}

#[test]
fn unreachable_partitions_get_equal_shares_of_the_buffered_records() {
    let mut producing = StickyHarness::new(4, Duration::ZERO);
    producing.away.extend(0..4);
    let mut records = [0; 4];
    for n in 0..4000 {
        records[producing.send(20) as usize] += 1;
        if n % 10 == 0 {
            producing.drive();
        }
    }
    assert!(records.iter().all(|of| (900..1100).contains(of)), "{records:?}");
}

#[test]
fn all_partitions_of_a_large_topic_are_used() {
    let mut producing = StickyHarness::new(500, Duration::ZERO);
    for _ in 0..1000 {
        producing.send(20);
        producing.drive();
    }
    assert_eq!(producing.batches_of_each(), [2; 500]);
}
