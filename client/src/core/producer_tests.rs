//! A producer against a simple model of a broker, over connections that break at any moment.
//!
//! Invariants: an acknowledged record is in the log at the offset returned for it; a record reported as not written is
//! not in the log; no record is in the log twice; each partition's records are in the order in which they were
//! appended.

use std::collections::{HashMap, VecDeque};

use highwater_protocol::batch::{BatchView, stamp_producer};
use highwater_protocol::ids::{Offset, Timestamp};
use highwater_protocol::partitioner::partition_for_key;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::core::failures::Failures;
use crate::record::Record;

/// A broker's state of a producer id: the next sequence, and the base offsets of the last batches by first sequence.
#[derive(Default)]
struct ProducerState {
    next_sequence: i32,
    window: VecDeque<(i32, i64)>,
}

#[derive(Default)]
struct Partition {
    log: Vec<u64>,
    producers: HashMap<i64, ProducerState>,
}

impl Partition {
    fn produce(&mut self, bytes: &[u8]) -> Result<i64, ErrorCode> {
        let batch = BatchView::parse(bytes).unwrap();
        batch.check_checksum().unwrap();
        let producer = batch.header().producer().expect("idempotent");
        let sequence = producer.sequence;
        if let Some(known) = self.producers.get(&producer.id.0) {
            if let Some((_, base)) = known.window.iter().find(|(first, _)| *first == sequence) {
                return Ok(*base);
            }
            if known.next_sequence != sequence {
                return Err(ErrorCode::OutOfOrderSequence);
            }
        }
        let base = self.log.len() as i64;
        let mut scratch = Vec::new();
        for record in batch.records(&mut scratch).unwrap() {
            let value = record.unwrap().value.unwrap();
            self.log.push(u64::from_le_bytes(value.try_into().unwrap()));
        }
        let known = self.producers.entry(producer.id.0).or_default();
        known.next_sequence = producer.sequence_after(batch.header().count());
        known.window.push_back((sequence, base));
        if known.window.len() > 5 {
            known.window.pop_front();
        }
        Ok(base)
    }
}

type Request = (u32, u64, Bytes);
type Reply = (u32, u64, Result<i64, ErrorCode>);

struct Simulation {
    rng: StdRng,
    now: Instant,
    core: ProducerCore,
    partitions: Vec<Partition>,
    requests: VecDeque<Request>,
    replies: VecDeque<Reply>,
    next_producer: i64,
    next_value: u64,
    deliveries: Vec<(u32, u64, Arc<Ticket>, u32)>,
    /// Whether to inject faults.
    stormy: bool,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let limits = LaneLimits {
            linger: Duration::from_millis(rng.random_range(0..3)),
            in_flight_max: rng.random_range(1..=5),
            delivery_timeout: Duration::from_millis(rng.random_range(200..5000)),
            idempotent: true,
        };
        let partitions = rng.random_range(1..4);
        let mut core = ProducerCore::new(limits, Compression::None, rng.random_range(80..300), 1000, 0);
        core.set_partitions(partitions);
        Self {
            rng,
            now: Instant::now(),
            core,
            partitions: (0..partitions).map(|_| Partition::default()).collect(),
            requests: VecDeque::new(),
            replies: VecDeque::new(),
            next_producer: 1,
            next_value: 0,
            deliveries: Vec::new(),
            stormy: true,
        }
    }

    fn take_record(&mut self) {
        let value = self.next_value;
        self.next_value += 1;
        let partition = self.rng.random_range(0..self.core.partitions());
        let record = Record::new(Bytes::copy_from_slice(&value.to_le_bytes())).partition(partition);
        let appended = self.core.append(&record, Timestamp(0), record.charge(), || self.now).unwrap();
        self.deliveries.push((appended.partition, value, appended.ticket, appended.index));
    }

    fn drive_producer(&mut self) {
        while let Some(action) = self.core.poll_send(self.now) {
            match action {
                ProducerAction::Route { lane, .. } => self.core.handle_route(lane, true),
                ProducerAction::InitProducer => {
                    self.core.handle_identity(ProducerId(self.next_producer), 0);
                    self.next_producer += 1;
                }
                ProducerAction::Send { lane, send } => {
                    let (batch, bytes) = match send {
                        BatchSend::Fresh { batch, mut buffer, stamp } => {
                            (batch, buffer.finish(stamp).unwrap().freeze())
                        }
                        BatchSend::Renumber { batch, bytes, stamp } => {
                            let mut bytes = BytesMut::from(bytes);
                            stamp_producer(&mut bytes, stamp);
                            (batch, bytes.freeze())
                        }
                        BatchSend::Retry { batch, bytes } => (batch, bytes),
                    };
                    self.core.handle_encoded(lane, batch, &bytes);
                    self.requests.push_back((lane, batch, bytes));
                }
            }
        }
        self.settle();
    }

    fn settle(&mut self) {
        for SettledBatch { batch, settlement, .. } in self.core.take_settled() {
            let failed = |outcome| {
                let kind = crate::error::ProduceErrorKind::TimedOut;
                let error = crate::error::ProduceError::new(kind, outcome, "in a test");
                Err(Failures::default().add(batch.records, error, |_| Vec::new(), false))
            };
            batch.ticket.resolve(match settlement {
                Settlement::Acked(acked) => Ok(acked),
                Settlement::Rejected { outcome, .. }
                | Settlement::TimedOut(outcome)
                | Settlement::Closed(outcome) => failed(outcome),
            });
        }
    }

    fn broker_takes_one(&mut self) {
        let Some((lane, batch, bytes)) = self.requests.pop_front() else { return };
        let roll = if self.stormy { self.rng.random_range(0..100) } else { 99 };
        let result = match roll {
            0..5 => Err(ErrorCode::Overloaded),
            5..7 => Err(ErrorCode::WrongShard),
            7..9 => Err(ErrorCode::InvalidTimestamp),
            _ => self.partitions[lane as usize].produce(&bytes),
        };
        self.replies.push_back((lane, batch, result));
    }

    fn producer_hears_one(&mut self) {
        let Some((lane, batch, result)) = self.replies.pop_front() else { return };
        match result {
            Ok(base) => {
                let acked = Acked { base_offset: Some(Offset(base)), log_append_time: None };
                self.core.handle_acked(lane, batch, acked);
            }
            Err(code) => {
                let jitter = self.rng.random();
                self.core.handle_rejection(lane, batch, (code, String::new()), self.now, jitter);
            }
        }
        self.settle();
    }

    /// Breaks the connection. The broker may still read some of the outstanding requests.
    fn connection_breaks(&mut self) {
        let lost: Vec<_> = self.replies.iter().map(|(lane, batch, _)| (*lane, *batch)).collect();
        let unread: Vec<_> = self.requests.iter().map(|(lane, batch, _)| (*lane, *batch)).collect();
        let still_read = self.rng.random_range(0..=self.requests.len());
        for _ in 0..still_read {
            self.broker_takes_one();
        }
        self.requests.clear();
        self.replies.clear();
        for (lane, batch) in lost.into_iter().chain(unread) {
            self.core.handle_lost(lane, batch, true);
        }
        self.settle();
    }

    fn step(&mut self) {
        match self.rng.random_range(0..100) {
            0..40 => self.take_record(),
            40..60 => self.drive_producer(),
            60..78 => self.broker_takes_one(),
            78..94 => self.producer_hears_one(),
            94..97 => self.now += Duration::from_millis(self.rng.random_range(1..60)),
            97 => drop(self.core.flush()),
            _ if self.stormy => self.connection_breaks(),
            _ => {}
        }
    }

    fn calm_down(&mut self) {
        self.stormy = false;
        for _ in 0..10_000 {
            if self.core.is_empty() && self.requests.is_empty() && self.replies.is_empty() {
                return;
            }
            self.drive_producer();
            self.broker_takes_one();
            self.producer_hears_one();
            if let Some(at) = self.core.next_deadline().filter(|_| self.requests.is_empty()) {
                self.now = self.now.max(at);
            }
        }
        panic!("the producer is stuck");
    }

    fn check(&self) {
        for (number, partition) in self.partitions.iter().enumerate() {
            let mut seen = std::collections::HashSet::new();
            assert!(partition.log.iter().all(|value| seen.insert(*value)), "a record was written twice");
            assert!(partition.log.is_sorted(), "records were written out of order: {:?}", partition.log);
            for (_, value, ticket, index) in self.deliveries.iter().filter(|(at, ..)| *at == number as u32) {
                match ticket.result().expect("every record has its result") {
                    Ok(acked) => {
                        let at = acked.base_offset.unwrap().0 as usize + *index as usize;
                        assert_eq!(partition.log.get(at), Some(value), "acknowledged and not in its place");
                    }
                    Err(failed) => match failed.error.outcome() {
                        WriteOutcome::NotWritten => {
                            assert!(!seen.contains(value), "not written, and there it is");
                        }
                        WriteOutcome::Unknown => {}
                        WriteOutcome::Written => panic!("an error never says that it was written"),
                    },
                }
            }
        }
    }
}

#[test]
fn nothing_is_lost_duplicated_or_reordered_whatever_happens() {
    let (mut acked, mut failed, mut renumbered) = (0, 0, 0);
    for seed in 0..1500 {
        let mut simulation = Simulation::new(seed);
        for _ in 0..600 {
            simulation.step();
        }
        simulation.calm_down();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| simulation.check()));
        assert!(result.is_ok(), "seed {seed}");
        acked +=
            simulation.deliveries.iter().filter(|(_, _, ticket, _)| ticket.result().unwrap().is_ok()).count();
        failed += simulation
            .deliveries
            .iter()
            .filter(|(_, _, ticket, _)| ticket.result().unwrap().is_err())
            .count();
        renumbered += simulation.next_producer - 2;
    }
    // Check that the test covers the interesting cases.
    assert!(acked > 100_000 && failed > 5_000 && renumbered > 500, "{acked} {failed} {renumbered}");
}

#[test]
fn records_without_a_key_change_the_partition_with_the_batch() {
    let limits = LaneLimits {
        linger: Duration::ZERO,
        in_flight_max: 5,
        delivery_timeout: Duration::from_secs(1),
        idempotent: false,
    };
    let mut core = ProducerCore::new(limits, Compression::None, 200, 1000, 0);
    core.set_partitions(3);
    let mut partitions: Vec<u32> = (0..60)
        .map(|_| {
            let record = Record::new(vec![0u8; 20]);
            core.append(&record, Timestamp(0), record.charge(), Instant::now).unwrap().partition
        })
        .collect();
    let of_each = |partition| partitions.iter().filter(|at| **at == partition).count();
    assert!((0..3).all(|partition| of_each(partition) >= 15), "{partitions:?}");
    partitions.dedup();
    assert!(partitions.len() < 20, "several to a batch: {partitions:?}");
}

#[test]
fn a_batch_with_as_many_records_as_allowed_is_sent_without_lingering() {
    let limits = LaneLimits {
        linger: Duration::from_mins(1),
        in_flight_max: 5,
        delivery_timeout: Duration::from_mins(10),
        idempotent: false,
    };
    for records in [1, 3] {
        let mut core = ProducerCore::new(limits.clone(), Compression::None, 10_000, 100_000, 0);
        core.set_partitions(1);
        core.set_batch_records_max(records);
        let (now, mut wakes, mut indexes) = (Instant::now(), Vec::new(), Vec::new());
        for _ in 0..2 * records {
            let record = Record::new(vec![0u8; 20]);
            let appended = core.append(&record, Timestamp(0), record.charge(), || now).unwrap();
            wakes.push(appended.wake);
            indexes.push(appended.index);
        }
        assert!(
            wakes[records as usize - 1] && wakes[2 * records as usize - 1],
            "the driver has something to send"
        );
        let expected: Vec<u32> = (0..records).chain(0..records).collect();
        assert_eq!(indexes, expected);
        assert!(matches!(core.poll_send(now), Some(ProducerAction::Route { lane: 0, .. })));
        core.handle_route(0, true);
        for _ in 0..2 {
            assert!(matches!(core.poll_send(now), Some(ProducerAction::Send { lane: 0, .. })));
        }
        assert!(core.poll_send(now).is_none());
    }
}

#[test]
fn keys_map_to_kafkas_partitions_and_named_partitions_take_precedence() {
    let limits = LaneLimits {
        linger: Duration::ZERO,
        in_flight_max: 5,
        delivery_timeout: Duration::from_secs(1),
        idempotent: false,
    };
    let mut core = ProducerCore::new(limits, Compression::None, 200, 1000, 0);
    core.set_partitions(10);
    let record = Record::new("v").key("u-42");
    let to = core.append(&record, Timestamp(0), record.charge(), Instant::now).unwrap().partition;
    assert_eq!(to, partition_for_key(b"u-42", 10));
    let named = record.partition((to + 1) % 10);
    assert_eq!(
        core.append(&named, Timestamp(0), named.charge(), Instant::now).unwrap().partition,
        (to + 1) % 10
    );
    let nowhere = Record::new("v").partition(10);
    let rejected = core.append(&nowhere, Timestamp(0), nowhere.charge(), Instant::now).unwrap_err();
    assert_eq!(rejected, NotAppended::NoPartition { partition: 10, partitions: 10 });
}

#[test]
fn a_record_over_the_limit_is_rejected_and_one_over_the_batch_size_is_sent_alone() {
    let limits = LaneLimits {
        linger: Duration::from_secs(1),
        in_flight_max: 5,
        delivery_timeout: Duration::from_secs(1),
        idempotent: false,
    };
    let mut core = ProducerCore::new(limits, Compression::None, 200, 1000, 0);
    core.set_partitions(1);
    let mut append = |bytes: usize| {
        let record = Record::new(vec![0u8; bytes]);
        core.append(&record, Timestamp(0), record.charge(), Instant::now)
    };
    assert!(matches!(append(1000), Err(NotAppended::TooLarge { max: 1000, .. })));
    let small = append(10).unwrap();
    let large = append(500).unwrap();
    assert_eq!(large.index, 0);
    assert!(!Arc::ptr_eq(&small.ticket, &large.ticket));
}
