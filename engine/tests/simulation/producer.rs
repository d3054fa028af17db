//! An idempotent producer that never gives up: what is not acknowledged is sent again, in order, with the same numbers.

use std::collections::VecDeque;
use std::net::SocketAddr;

use highwater_protocol::batch::{BatchBuilder, BatchProducer, Compression, NewRecord};
use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::{ProducerId, Timestamp, TopicPartition};
use highwater_protocol::native::{
    Acks, Body, InitProducerReply, MessageKind, ProduceReply, empty_message, produce_head,
};
use highwater_runtime::sim::SimRng;
use rand::RngExt;

use crate::node::World;
use crate::wire::Wire;

/// When records are made, as they say: the time of the simulated world's beginning.
const CREATED_MS: i64 = 1_700_000_000_000;

/// Batches on their way at once: what the broker's window of retries allows.
const IN_FLIGHT_MAX: usize = 5;

pub(crate) struct Producer {
    name: usize,
    to: TopicPartition,
    shard: u16,
    rng: SimRng,
    large: bool,
    wire: Option<Wire>,
    id: Option<ProducerId>,
    /// Number of the next record.
    next: u32,
    /// Records to make in all.
    goal: u32,
    /// Batches that were not acknowledged, in order.
    unacked: VecDeque<Unacked>,
    /// Records with the offset that the acknowledgement gave them.
    pub(crate) acked: Vec<(i64, String)>,
    /// Highest base offset acknowledged.
    last_offset: i64,
}

struct Unacked {
    first: u32,
    values: Vec<String>,
    /// Id of the request on this connection, if it was sent there.
    sent: Option<u64>,
}

impl Producer {
    pub(crate) fn new(
        name: usize,
        to: TopicPartition,
        shard: u16,
        goal: u32,
        large: bool,
        rng: SimRng,
    ) -> Self {
        Self {
            name,
            to,
            shard,
            rng,
            large,
            wire: None,
            id: None,
            next: 0,
            goal,
            unacked: VecDeque::new(),
            acked: Vec::new(),
            last_offset: -1,
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.next >= self.goal && self.unacked.is_empty()
    }

    /// For people, when it waits for ever.
    pub(crate) fn describe(&self) -> String {
        format!(
            "p{} to {}: made {} of {}, {} batches not acknowledged ({} sent), id {:?}",
            self.name,
            self.to.partition,
            self.next,
            self.goal,
            self.unacked.len(),
            self.unacked.iter().filter(|b| b.sent.is_some()).count(),
            self.id
        )
    }

    pub(crate) fn to(&self) -> TopicPartition {
        self.to
    }

    /// Values of a record begin with this.
    pub(crate) fn prefix(&self) -> String {
        format!("p{}-", self.name)
    }

    pub(crate) fn poll(&mut self, world: &mut World, address: SocketAddr) {
        if self.wire.as_ref().is_some_and(Wire::is_over) {
            self.wire = None;
        }
        if self.wire.is_none() {
            let wire = Wire::connect(world, address, Some(self.shard));
            self.unacked.iter_mut().for_each(|batch| batch.sent = None);
            self.wire = Some(wire);
            if self.id.is_none() {
                let init = |id| empty_message(MessageKind::InitProducer, id).to_vec();
                self.wire.as_mut().expect("just made").send_with_id(init);
            }
        }
        if self.receive() {
            self.wire = None;
            return;
        }
        self.send();
    }

    /// Takes answers. True if the connection has to be made anew.
    fn receive(&mut self) -> bool {
        let Some(wire) = &mut self.wire else { return false };
        wire.receive(usize::MAX);
        while let Some(answer) = wire.pop() {
            match (answer.kind, answer.body) {
                (MessageKind::InitProducer, Ok(body)) => {
                    self.id = Some(InitProducerReply::decode(&body).expect("a reply").producer);
                }
                (MessageKind::Produce, Ok(body)) => {
                    let reply = ProduceReply::decode(&body).expect("a reply");
                    let batch = self.unacked.pop_front().expect("something was sent");
                    assert_eq!(batch.sent, Some(answer.id), "replies come in order");
                    let base = reply.base_offset.get();
                    assert!(base > self.last_offset, "batches of a producer stay in order");
                    self.last_offset = base;
                    self.acked.extend((base..).zip(batch.values));
                }
                // Everything behind a batch that was not taken is sent again.
                (_, Err((code, text))) => {
                    assert!(code.is_retryable() || code == ErrorCode::OutOfOrderSequence, "{code}: {text}");
                    return true;
                }
                (kind, Ok(_)) => panic!("nobody asked for {kind:?}"),
            }
        }
        false
    }

    fn send(&mut self) {
        let (Some(wire), Some(id)) = (&mut self.wire, self.id) else { return };
        while self.next < self.goal && self.unacked.len() < IN_FLIGHT_MAX && self.rng.random_bool(0.5) {
            let count = self.rng.random_range(1..=6).min(self.goal - self.next);
            let large = self.large && self.rng.random_bool(0.05);
            let padding = if large { 80_000 } else { self.rng.random_range(0..3000) };
            let values = (self.next..self.next + count)
                .map(|n| format!("p{}-{n}-{}", self.name, "x".repeat(padding / count as usize)))
                .collect();
            self.unacked.push_back(Unacked { first: self.next, values, sent: None });
            self.next += count;
        }
        for batch in self.unacked.iter_mut().filter(|batch| batch.sent.is_none()) {
            let producer = BatchProducer { id, epoch: 0, sequence: batch.first as i32 };
            let bytes = encode(&batch.values, producer);
            let to = self.to;
            batch.sent = Some(
                wire.send_with_id(|id| [&produce_head(id, to, Acks::All, bytes.len())[..], &bytes].concat()),
            );
        }
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
