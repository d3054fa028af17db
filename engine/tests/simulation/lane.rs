//! The batches of an idempotent producer for one partition, and their acknowledgements.

use std::collections::VecDeque;

use highwater_protocol::batch::{BatchBuilder, BatchProducer, Compression, NewRecord};
use highwater_protocol::ids::{ProducerId, Timestamp, TopicPartition};
use highwater_runtime::sim::SimRng;
use rand::RngExt;

/// The timestamp of records: the start of the simulated world.
const CREATED_MS: i64 = 1_700_000_000_000;

/// Maximum number of batches in flight: the broker's deduplication window.
const IN_FLIGHT_MAX: usize = 5;

pub(crate) struct Lane {
    name: String,
    to: TopicPartition,
    large: bool,
    /// Number of the next record.
    next: u32,
    /// Total number of records to create.
    goal: u32,
    /// Unacknowledged batches, in order.
    unacked: VecDeque<Unacked>,
    /// Acknowledged records, by offset.
    pub(crate) acked: Vec<(i64, String)>,
    /// Highest base offset acknowledged.
    last_offset: i64,
}

struct Unacked {
    first: u32,
    values: Vec<String>,
    /// The request that it was sent in on this connection, if any.
    sent: Option<u64>,
}

impl Lane {
    /// Creates a lane whose values begin with `name`.
    pub(crate) fn new(name: String, to: TopicPartition, goal: u32, large: bool) -> Self {
        let unacked = VecDeque::new();
        Self { name, to, large, next: 0, goal, unacked, acked: Vec::new(), last_offset: -1 }
    }

    pub(crate) fn to(&self) -> TopicPartition {
        self.to
    }

    pub(crate) fn is_done(&self) -> bool {
        self.next >= self.goal && self.unacked.is_empty()
    }

    /// Returns the prefix of record values.
    pub(crate) fn prefix(&self) -> String {
        format!("{}-", self.name)
    }

    /// Describes its state, for a run that does not finish.
    pub(crate) fn describe(&self) -> String {
        format!(
            "{} to {}: made {} of {}, {} batches not acknowledged ({} sent)",
            self.name,
            self.to.partition,
            self.next,
            self.goal,
            self.unacked.len(),
            self.unacked.iter().filter(|b| b.sent.is_some()).count(),
        )
    }

    /// Creates some batches, up to the limit in flight.
    pub(crate) fn create_batches(&mut self, rng: &mut SimRng) {
        while self.next < self.goal && self.unacked.len() < IN_FLIGHT_MAX && rng.random_bool(0.5) {
            let count = rng.random_range(1..=6).min(self.goal - self.next);
            let large = self.large && rng.random_bool(0.05);
            let padding = if large { 80_000 } else { rng.random_range(0..3000) };
            let values = (self.next..self.next + count)
                .map(|n| format!("{}-{n}-{}", self.name, "x".repeat(padding / count as usize)))
                .collect();
            self.unacked.push_back(Unacked { first: self.next, values, sent: None });
            self.next += count;
        }
    }

    /// Resets the lane for a new connection: everything is sent again.
    pub(crate) fn start_again(&mut self) {
        self.unacked.iter_mut().for_each(|batch| batch.sent = None);
    }

    /// Returns the next batch to send, and notes that it is sent in `request`.
    pub(crate) fn send_next(&mut self, id: ProducerId, request: u64) -> Option<Vec<u8>> {
        let batch = self.unacked.iter_mut().find(|batch| batch.sent.is_none())?;
        batch.sent = Some(request);
        Some(encode(&batch.values, BatchProducer { id, epoch: 0, sequence: batch.first as i32 }))
    }

    /// Handles the acknowledgement of the oldest batch.
    pub(crate) fn acknowledged(&mut self, request: u64, base: i64) {
        let batch = self.unacked.pop_front().expect("something was sent");
        assert_eq!(batch.sent, Some(request), "replies come in order");
        assert!(base > self.last_offset, "batches of a producer stay in order");
        self.last_offset = base;
        self.acked.extend((base..).zip(batch.values));
    }
}

fn encode(values: &[String], producer: BatchProducer) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Compression::None, 0);
    for value in values {
        let record = NewRecord::new(Timestamp(CREATED_MS), None, Some(value.as_bytes()));
        builder.append(&record).expect("it fits");
    }
    builder.finish(producer).expect("there are records").to_vec()
}
