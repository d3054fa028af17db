//! The end of a log is lost or not durable, and consumers have read further: they must neither begin again nor skip what is there.

use std::net::SocketAddr;
use std::path::Path;

use highwater_engine::repair;
use highwater_net::kafka::KafkaError;
use highwater_net::kafka::api::ApiKey;
use highwater_net::kafka::messages::{
    EpochPartition, EpochTopic, FetchPartition, FetchRequest as KafkaFetchRequest, FetchResponse, FetchTopic,
    OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
};
use highwater_net::kafka::schema::Message;
use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::{LeaderEpoch, Offset, TopicId, TopicPartition};
use highwater_protocol::native::{
    Body, DescribeTopicReply, DescribeTopicRequest, FetchRequest, LogDetail, Start,
};
use highwater_runtime::fs::Fs as _;
use highwater_runtime::sim::{CrashPolicy, Fault, SimNode};

use crate::kafka::wire::Wire as KafkaWire;
use crate::kafka_wire::Answer;
use crate::node::{TICK, World, started};
use crate::run::create;
use crate::wire::Wire;

/// A topic with one partition, on a node.
struct Bed {
    world: World,
    node: SimNode,
    topic: TopicId,
    to: TopicPartition,
    shard: u16,
}

impl Bed {
    /// Starts a node and appends this many records.
    fn with_records(seed: u64, count: usize) -> Self {
        let (mut world, node, address) = started(seed);
        let (topic, partitions) = create(&mut world, address, 1);
        let (to, shard) = partitions[0];
        let mut bed = Self { world, node, topic, to, shard };
        for _ in 0..count {
            bed.produce().expect("there is space");
        }
        bed
    }

    fn address(&self, listener: usize) -> SocketAddr {
        self.world.address(self.node, listener)
    }

    fn wire(&mut self) -> Wire {
        let (address, shard) = (self.address(0), self.shard);
        Wire::connect(&mut self.world, address, Some(shard))
    }

    fn produce(&mut self) -> Result<Vec<u8>, (ErrorCode, String)> {
        let (mut wire, to) = (self.wire(), self.to);
        wire.produce(to, 100);
        wire.wait(&mut self.world).expect("an answer").body
    }

    /// Returns the leader epoch of the partition, and its log.
    fn describe(&mut self) -> (LeaderEpoch, LogDetail) {
        let mut wire = self.wire();
        wire.send(&DescribeTopicRequest { name: "main".into() });
        let reply = wire.wait(&mut self.world).expect("an answer").body.expect("it is there");
        let partition = DescribeTopicReply::decode(&reply).expect("a reply").partitions.remove(0);
        (partition.info.leader_epoch, partition.log.expect("it is led here"))
    }

    /// Reads from an offset with the native protocol. Returns the bytes of the reply.
    fn fetch(&mut self, offset: Offset) -> Result<usize, ErrorCode> {
        let mut wire = self.wire();
        let (topic, partition) = (self.topic, self.to.partition);
        let start = Start::Offset(offset);
        wire.send(&FetchRequest { topic, partition, start, max_bytes: 1 << 20, min_bytes: 1, wait_ms: 10 });
        let reply = wire.wait(&mut self.world).expect("an answer").body;
        reply.map(|body| body.len()).map_err(|(code, _)| code)
    }

    fn kafka<'a>(&mut self, api: ApiKey, version: i16, request: &impl Message<'a>) -> Answer {
        let address = self.address(1);
        let mut wire = KafkaWire::connect(&mut self.world, address);
        wire.send(api, version, request);
        loop {
            self.world.run_for(TICK);
            if let Some((_, answer)) = wire.receive(usize::MAX) {
                return answer;
            }
            assert!(!wire.is_over(), "an answer");
        }
    }

    /// The same with Kafka's. Returns the error and the bytes of the records.
    fn kafka_fetch(&mut self, offset: Offset) -> (KafkaError, usize) {
        let partition = FetchPartition {
            fetch_offset: offset.0,
            current_leader_epoch: -1,
            partition_max_bytes: 1 << 20,
            ..Default::default()
        };
        let topic = FetchTopic { topic: "main", topic_id: [0; 16], partitions: vec![partition] };
        let request = KafkaFetchRequest {
            max_wait_ms: 10,
            min_bytes: 1,
            max_bytes: 1 << 20,
            topics: vec![topic],
            ..Default::default()
        };
        let answer = self.kafka(ApiKey::Fetch, 12, &request);
        let response: FetchResponse<'_> = answer.body();
        let found = &response.responses[0].partitions[0];
        (found.error_code, found.records.unwrap_or_default().len())
    }

    /// Returns where an epoch ends.
    fn epoch_end(&mut self, epoch: i32) -> i64 {
        let partition = EpochPartition { partition: 0, current_leader_epoch: -1, leader_epoch: epoch };
        let topics = vec![EpochTopic { topic: "main", partitions: vec![partition] }];
        let request = OffsetForLeaderEpochRequest { topics, ..Default::default() };
        let answer = self.kafka(ApiKey::OffsetForLeaderEpoch, 4, &request);
        let response: OffsetForLeaderEpochResponse<'_> = answer.body();
        response.topics[0].partitions[0].end_offset
    }

    fn start(&mut self) {
        self.world.start(self.node).expect("it starts");
    }
}

#[test]
fn consumers_after_the_lost_end_of_a_damaged_partition_keep_their_positions() {
    let read = Offset(8);
    let mut tried = 0;
    for seed in 0..8 {
        let mut bed = Bed::with_records(seed, read.0 as usize);
        let epoch = bed.describe().0;
        bed.world.crash(bed.node, CrashPolicy::LOSE_ALL);
        let mut disk = bed.world.disk(bed.node);
        let kept = |store: usize| format!("/data/store-{store:03}/journal");
        for store in 0..2 {
            // One of them may have no journal.
            let _ = disk.rename(kept(store).as_ref(), format!("/kept-{store}").as_ref());
        }
        bed.start();
        let (_, damaged) = bed.describe();
        let end = damaged.high_watermark;
        if !damaged.faulty || end >= read {
            continue;
        }
        tried += 1;
        for _ in 0..2 {
            assert_eq!(bed.fetch(read), Err(ErrorCode::PartitionFaulty), "seed {seed}");
            assert_eq!(bed.kafka_fetch(read), (KafkaError::KAFKA_STORAGE_ERROR, 0), "seed {seed}");
            // At the end, they wait for more. What is there can be read.
            assert!(bed.fetch(end).is_ok(), "seed {seed}");
            assert_eq!(bed.kafka_fetch(end), (KafkaError::NONE, 0), "seed {seed}");
            if end > Offset(0) {
                assert!(bed.kafka_fetch(Offset(0)).1 > 0, "seed {seed}");
            }
            bed.world.crash(bed.node, CrashPolicy::LOSE_ALL);
            bed.start();
        }
        bed.world.crash(bed.node, CrashPolicy::LOSE_ALL);
        let mut disk = bed.world.disk(bed.node);
        if seed % 2 == 0 {
            // The files are restored.
            for store in 0..2 {
                let _ = disk.rename(format!("/kept-{store}").as_ref(), kept(store).as_ref());
            }
            bed.start();
            assert!(!bed.describe().1.faulty, "seed {seed}");
            assert_eq!(bed.kafka_fetch(read), (KafkaError::NONE, 0), "seed {seed}");
            bed.produce().expect("it is in service");
            assert!(bed.kafka_fetch(read).1 > 0 && bed.fetch(read).is_ok(), "seed {seed}");
        } else {
            // The loss is accepted.
            let repaired = repair::apply(&mut disk, Path::new("/data"), &|_| true).expect("it can be");
            assert_eq!(repaired.partitions.len(), 1, "seed {seed}: {repaired:?}");
            bed.start();
            assert!(!bed.describe().1.faulty, "seed {seed}");
            assert_eq!(bed.kafka_fetch(read), (KafkaError::OFFSET_OUT_OF_RANGE, 0), "seed {seed}");
            assert_eq!(bed.fetch(read), Err(ErrorCode::OffsetOutOfRange), "seed {seed}");
            for _ in 0..2 {
                assert_eq!(bed.epoch_end(epoch.0), end.0, "seed {seed}: who asks continues there");
                bed.produce().expect("it is in service");
            }
            assert!(bed.describe().0 > epoch, "seed {seed}");
        }
    }
    assert!(tried > 2, "{tried}");
}

#[test]
fn consumers_of_records_that_a_start_has_no_space_for_wait_for_them() {
    let mut tried = 0;
    for seed in 0..8 {
        let mut bed = Bed::with_records(seed, 3);
        let slab = format!("/data/store-{:03}/slab-000000", bed.shard);
        let journal = format!("/data/store-{:03}/journal", bed.shard);
        for file in [slab, journal] {
            bed.world.disk(bed.node).inject(Fault::write_no_space(&file));
            bed.world.disk(bed.node).inject(Fault::sync_no_space(&file));
        }
        bed.world.kill(bed.node);
        bed.start();
        let end = bed.describe().1.high_watermark;
        if bed.describe().1.faulty || end >= Offset(3) {
            continue;
        }
        tried += 1;
        assert!(bed.fetch(Offset(3)).is_ok(), "seed {seed}");
        assert_eq!(bed.kafka_fetch(Offset(3)), (KafkaError::NONE, 0), "seed {seed}");
        assert!(bed.epoch_end(0) >= 3, "seed {seed}");
        assert_eq!(bed.produce().expect_err("the disk is full").0, ErrorCode::StorageFull, "seed {seed}");
        bed.world.disk(bed.node).clear_faults();
        bed.world.run_for(std::time::Duration::from_secs(3));
        assert!(bed.describe().1.high_watermark >= Offset(3), "seed {seed}");
        bed.produce().expect("there is space");
        assert!(bed.kafka_fetch(Offset(3)).1 > 0, "seed {seed}");
    }
    assert!(tried > 0, "a start had records without space");
}
