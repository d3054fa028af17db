//! Clients that request much and do not receive: their data stays within its memory limits, other clients are served, and all memory is free after
//! they have disconnected.

use std::time::Duration;

use highwater_engine::limits::{SHORTAGE_INTERVAL, SLOW_READER_TIME_MAX, ShardLimits};
use highwater_net::kafka::KafkaError;
use highwater_net::kafka::api::ApiKey;
use highwater_net::kafka::messages::{
    FetchPartition, FetchRequest, FetchResponse, FetchTopic, ListOffsetsPartition, ListOffsetsRequest,
    ListOffsetsResponse, ListOffsetsTopic,
};
use highwater_protocol::batch::BatchHeader;
use highwater_protocol::ids::{Offset, TopicPartition};
use highwater_protocol::native::{
    DataPrefix, FetchRequest as NativeFetch, MessageKind, Start, SubscribeRequest,
};
use highwater_runtime::sim::{NetworkConfig, SimNode};

use crate::kafka::wire::Wire as Kafka;
use crate::node::{SHARDS, World, started, takes_large_batches};
use crate::run::create;
use crate::wire::Wire;

/// Interval at which clients check for data.
const LOOK: Duration = Duration::from_micros(200);

/// Maximum number of checks before every client has what it requested.
const LOOKS_MAX: usize = 300_000;

/// Memory that is charged when it is queued, because it cannot wait: heads of responses, and replies.
const ROUNDING_BYTES: usize = 16 << 10;

struct Bed {
    world: World,
    node: SimNode,
    /// The partitions, one on each shard.
    partitions: Vec<(TopicPartition, u16)>,
    records: i64,
    /// The send budget of a shard.
    memory_bytes_max: usize,
    /// Bytes of the disk reads that a shard may have in flight.
    reads_bytes_max: usize,
}

impl Bed {
    /// Creates a node whose partitions have this many records each, most of them not in its cache.
    fn new(seed: u64, records: i64, bytes: usize) -> Self {
        let (mut world, node, address) = started(seed);
        let (_, mut partitions) = create(&mut world, address, u32::from(SHARDS));
        partitions.sort_by_key(|(_, shard)| *shard);
        assert!(partitions.iter().map(|(_, shard)| *shard).eq(0..SHARDS));
        let memory_bytes_max = ShardLimits::tiny().send_bytes_max + ROUNDING_BYTES;
        let reads_bytes_max = ShardLimits::tiny().store.reads_inflight_bytes_max;
        let mut bed = Self { world, node, partitions, records, memory_bytes_max, reads_bytes_max };
        for (to, shard) in bed.partitions.clone() {
            let mut wire = bed.native(shard);
            for _ in 0..records {
                wire.produce(to, bytes);
                bed.answer(&mut wire).expect("it is taken");
            }
        }
        // The network buffers little, so unreceived data stays with the broker.
        bed.world.set_network(NetworkConfig { window_bytes: 4096, ..NetworkConfig::default() });
        bed
    }

    fn native(&mut self, shard: u16) -> Wire {
        let address = self.world.address(self.node, 0);
        Wire::connect(&mut self.world, address, Some(shard))
    }

    fn kafka(&mut self) -> Kafka {
        let address = self.world.address(self.node, 1);
        Kafka::connect(&mut self.world, address)
    }

    /// Lets time pass, and checks that no shard exceeds its send budget.
    fn advance(&mut self) {
        self.world.run_for(LOOK);
        assert_eq!(self.world.end(self.node), None, "the node keeps running");
        for shard in 0..SHARDS {
            let app = self.world.app(self.node, shard).expect("it runs");
            app.assert_memory_adds_up();
            let (bytes, most) = (app.send_bytes(), self.memory_bytes_max);
            assert!(bytes <= most, "shard {shard} has {bytes} bytes of {most}");
            let reads = self.world.disk_read_bytes_inflight(self.node, shard);
            assert!(reads <= bytes, "shard {shard} reads {reads} bytes and counts {bytes}");
        }
        let busiest = self.world.busiest_turn(self.node);
        assert!(busiest.disk_read_bytes_inflight <= self.reads_bytes_max, "{busiest:?}");
    }

    fn held(&self) -> usize {
        (0..SHARDS).map(|shard| self.world.app(self.node, shard).expect("it runs").send_bytes()).sum()
    }

    /// Checks that no memory is used after all clients have disconnected.
    fn assert_all_is_free(&mut self) {
        for _ in 0..LOOKS_MAX {
            if self.held() == 0 {
                return;
            }
            self.advance();
        }
        panic!("{} bytes are held for nobody", self.held());
    }

    /// Returns the body of the next reply.
    fn answer(&mut self, wire: &mut Wire) -> Option<Vec<u8>> {
        for _ in 0..LOOKS_MAX {
            self.advance();
            wire.receive(usize::MAX);
            if let Some(answer) = wire.pop() {
                return Some(answer.body.expect("no error"));
            }
            if wire.is_over() {
                return None;
            }
        }
        panic!("no answer");
    }

    /// Returns a fetch of all partitions from these offsets on.
    fn fetch(&self, from: &[i64], wait_ms: i32) -> FetchRequest<'static> {
        let partition = |(tp, _): &(TopicPartition, u16)| FetchPartition {
            partition: tp.partition.0 as i32,
            fetch_offset: from[tp.partition.0 as usize],
            current_leader_epoch: -1,
            partition_max_bytes: 1 << 20,
            ..Default::default()
        };
        let partitions = self.partitions.iter().map(partition).collect();
        FetchRequest {
            max_wait_ms: wait_ms,
            min_bytes: 1,
            max_bytes: 1 << 20,
            topics: vec![FetchTopic { topic: "main", topic_id: [0; 16], partitions }],
            ..Default::default()
        }
    }

    /// Checks that a well-behaved Kafka client reads everything while a native one writes.
    fn serve_honest_clients(&mut self) {
        let mut consumer = self.kafka();
        let (to, shard) = self.partitions[0];
        let mut producer = self.native(shard);
        producer.produce(to, 100);
        let mut next = vec![0; self.partitions.len()];
        consumer.send(ApiKey::Fetch, 11, &self.fetch(&next, 10));
        let mut written = 0;
        for _ in 0..LOOKS_MAX {
            self.advance();
            producer.receive(usize::MAX);
            if let Some(answer) = producer.pop() {
                answer.body.expect("it is taken");
                written += 1;
                producer.produce(to, 100);
            }
            assert!(!consumer.is_over() && !producer.is_over(), "who takes what is theirs stays");
            let Some((_, answer)) = consumer.receive(usize::MAX) else { continue };
            take_fetched(&answer.body(), &mut next);
            if written > 20 && next.iter().all(|next| *next >= self.records) {
                return;
            }
            consumer.send(ApiKey::Fetch, 11, &self.fetch(&next, 10));
        }
        panic!("read up to {next:?}, wrote {written}");
    }
}

/// Advances the offsets by the records of a response, which must have no gaps.
fn take_fetched(response: &FetchResponse<'_>, next: &mut [i64]) {
    assert_eq!(response.error_code, KafkaError::NONE);
    for got in response.responses.iter().flat_map(|topic| &topic.partitions) {
        assert_eq!(got.error_code, KafkaError::NONE);
        let next = &mut next[got.partition_index as usize];
        let mut rest = got.records.unwrap_or_default();
        while !rest.is_empty() {
            let header = BatchHeader::parse(rest).expect("a batch");
            assert!(header.base_offset.get() <= *next, "there are no gaps");
            *next = header.base_offset.get() + i64::from(header.last_offset_delta.get()) + 1;
            rest = &rest[header.batch_bytes()..];
        }
    }
}

#[test]
fn unreceived_fetch_responses_stay_within_their_memory_and_other_clients_are_served() {
    for seed in 0..2 {
        let mut bed = Bed::new(seed, 40, 9000);
        let mut unread: Vec<Kafka> = (0..60).map(|_| bed.kafka()).collect();
        for wire in &mut unread {
            for _ in 0..3 {
                wire.send(ApiKey::Fetch, 11, &bed.fetch(&[0, 0], 0));
            }
        }
        let mut most = 0;
        for _ in 0..500 {
            bed.advance();
            most = most.max(bed.held());
        }
        assert!(most > ShardLimits::tiny().send_bytes_max, "{most} bytes at most: the memory was used");
        bed.serve_honest_clients();
        drop(unread);
        bed.assert_all_is_free();
    }
}

#[test]
fn unreceived_subscription_data_stays_within_its_memory_and_other_clients_are_served() {
    for seed in 0..2 {
        let mut bed = Bed::new(seed, 40, 9000);
        let mut unread = Vec::new();
        for _ in 0..10 {
            for (tp, shard) in bed.partitions.clone() {
                let mut wire = bed.native(shard);
                for _ in 0..100 {
                    let (topic, partition) = (tp.topic, tp.partition);
                    let start = Start::Earliest;
                    wire.send(&SubscribeRequest { topic, partition, start, credit_bytes: 1 << 20 });
                }
                unread.push(wire);
            }
        }
        for _ in 0..500 {
            bed.advance();
        }
        assert!(bed.held() > 0);
        bed.serve_honest_clients();
        drop(unread);
        bed.assert_all_is_free();
    }
}

#[test]
fn batches_larger_than_the_read_memory_are_read_one_at_a_time() {
    let bytes = 150_000;
    assert!(takes_large_batches(2) && bytes > ShardLimits::tiny().send_bytes_max);
    let mut bed = Bed::new(2, 3, bytes);
    // It begins when half of the memory is free; a disk read is a little larger.
    bed.memory_bytes_max += bytes;
    // A single one may exceed the limit for all reads.
    bed.reads_bytes_max = 2 * bytes;
    // They have to be disconnected one after the other.
    let mut unread: Vec<Kafka> = (0..3).map(|_| bed.kafka()).collect();
    for wire in &mut unread {
        wire.send(ApiKey::Fetch, 11, &bed.fetch(&[0, 0], 0));
    }
    bed.serve_honest_clients();
    for (tp, shard) in bed.partitions.clone() {
        let mut wire = bed.native(shard);
        let (topic, partition, start) = (tp.topic, tp.partition, Start::Offset(Offset(1)));
        wire.send(&NativeFetch { topic, partition, start, max_bytes: 1, min_bytes: 1, wait_ms: 0 });
        let body = bed.answer(&mut wire).expect("it stays");
        assert!(DataPrefix::split(&body).expect("a prefix").1.len() > bytes);
    }
    drop(unread);
    bed.assert_all_is_free();
}

#[test]
fn pipelined_fetches_on_many_connections_over_both_shards_are_all_answered() {
    for seed in 0..4 {
        let mut bed = Bed::new(seed, 30, 9000);
        let mut wires: Vec<Kafka> = (0..20).map(|_| bed.kafka()).collect();
        let mut natives = Vec::new();
        for wire in &mut wires {
            for n in 0..6 {
                wire.send(ApiKey::Fetch, 11, &bed.fetch(&[n, n * 2], 1));
            }
        }
        for (tp, shard) in bed.partitions.clone() {
            for _ in 0..5 {
                let mut wire = bed.native(shard);
                for n in 0..6 {
                    let (topic, partition) = (tp.topic, tp.partition);
                    let (start, max_bytes) = (Start::Offset(Offset(n)), 1 << 20);
                    wire.send(&NativeFetch { topic, partition, start, max_bytes, min_bytes: 1, wait_ms: 1 });
                }
                natives.push(wire);
            }
        }
        let mut answered = 0;
        for _ in 0..LOOKS_MAX {
            bed.advance();
            for wire in &mut wires {
                assert!(!wire.is_over());
                if let Some((_, answer)) = wire.receive(3000) {
                    let response: FetchResponse<'_> = answer.body();
                    let records = response.responses.iter().flat_map(|topic| &topic.partitions);
                    assert!(records.filter_map(|p| p.records).any(|records| !records.is_empty()));
                    answered += 1;
                }
            }
            for wire in &mut natives {
                wire.receive(3000);
                while let Some(answer) = wire.pop() {
                    let body = answer.body.expect("no error");
                    let (_, frames) = DataPrefix::split(&body).expect("a prefix");
                    assert!(answer.kind == MessageKind::Fetch && !frames.is_empty());
                    answered += 1;
                }
            }
            if answered == 6 * (wires.len() + natives.len()) {
                break;
            }
        }
        assert_eq!(answered, 6 * (wires.len() + natives.len()), "seed {seed}");
        drop((wires, natives));
        bed.assert_all_is_free();
    }
}

#[test]
fn searches_by_time_of_many_clients_stay_within_their_memory_and_are_all_answered() {
    for (seed, bytes) in [(0, 9000), (2, 150_000)] {
        let mut bed = Bed::new(seed, 12, bytes);
        if takes_large_batches(seed) {
            bed.memory_bytes_max += 2 * bytes;
            bed.reads_bytes_max = 2 * bytes;
        }
        let partition = |timestamp| {
            move |(tp, _): &(TopicPartition, u16)| ListOffsetsPartition {
                partition_index: tp.partition.0 as i32,
                timestamp,
                ..Default::default()
            }
        };
        let of_all = |timestamp| ListOffsetsRequest {
            replica_id: -1,
            topics: vec![ListOffsetsTopic {
                name: "main",
                partitions: bed.partitions.iter().map(partition(timestamp)).collect(),
            }],
            ..Default::default()
        };
        let (first, none) = (of_all(1), of_all(i64::MAX));
        let mut wires: Vec<Kafka> = (0..20).map(|_| bed.kafka()).collect();
        for wire in &mut wires {
            for _ in 0..5 {
                wire.send(ApiKey::ListOffsets, 7, &first);
                wire.send(ApiKey::ListOffsets, 7, &none);
            }
        }
        let (mut answered, mut most) = (0, 0);
        for _ in 0..LOOKS_MAX {
            bed.advance();
            most = most.max(bed.held());
            for wire in &mut wires {
                let Some((_, answer)) = wire.receive(usize::MAX) else { continue };
                let response: ListOffsetsResponse<'_> = answer.body();
                // The first of each two requests finds the first record, the second one none.
                let expected = if wire.pending() % 2 == 1 { 0 } else { -1 };
                for got in &response.topics[0].partitions {
                    assert_eq!((got.error_code, got.offset), (KafkaError::NONE, expected));
                }
                answered += 1;
            }
            if answered == 10 * wires.len() {
                break;
            }
        }
        assert_eq!(answered, 10 * wires.len(), "seed {seed}");
        assert!(most > bytes, "{most} bytes were held");
        bed.serve_honest_clients();
        drop(wires);
        bed.assert_all_is_free();
    }
}

#[test]
fn a_client_that_does_not_receive_is_disconnected_only_when_others_wait_for_memory() {
    let mut bed = Bed::new(0, 40, 9000);
    let (tp, shard) = bed.partitions[0];
    let subscribe = |bed: &mut Bed| {
        let mut wire = bed.native(shard);
        let (topic, partition, start) = (tp.topic, tp.partition, Start::Earliest);
        wire.send(&SubscribeRequest { topic, partition, start, credit_bytes: 1 << 20 });
        wire
    };
    let mut lonely = subscribe(&mut bed);
    bed.world.run_for(4 * SLOW_READER_TIME_MAX);
    assert!(!lonely.is_over(), "nobody wants its memory");
    let others: Vec<Wire> = (0..20).map(|_| subscribe(&mut bed)).collect();
    bed.world.run_for(SLOW_READER_TIME_MAX / 2);
    assert!(others.iter().all(|wire| !wire.is_over()), "they have time");
    bed.world.run_for(SLOW_READER_TIME_MAX / 2 + 2 * SHORTAGE_INTERVAL);
    lonely.receive(usize::MAX);
    bed.advance();
    lonely.receive(usize::MAX);
    assert!(lonely.is_over());
    drop((lonely, others));
    bed.assert_all_is_free();
}
