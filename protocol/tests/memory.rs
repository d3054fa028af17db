//! Decoding any message takes at most a small multiple of the message's own size in memory.
//!
//! This file has a single test, so that nothing else allocates at the same time.

use std::hint::black_box;

use bytes::{BufMut, BytesMut};
use highwater_protocol::batch::{Compression, RecordRules, check as check_batch, validate};
use highwater_protocol::error::ErrorCode;
use highwater_protocol::frame::Frames;
use highwater_protocol::ids::{
    ClusterId, LeaderEpoch, NodeId, Offset, PartitionIndex, ShardId, Timestamp, TopicId,
};
use highwater_protocol::native::*;
use peak_alloc::PeakAlloc;
use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

type Decode = fn(&[u8]) -> bool;

fn decode<B: Body>(bytes: &[u8]) -> bool {
    black_box(B::decode(bytes)).is_ok()
}

/// Returns the peak of what `decode` allocates.
fn peak_of(decode: Decode, bytes: &[u8]) -> usize {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    black_box(decode(bytes));
    MEMORY.peak_usage() - before
}

fn check(name: &str, decode: Decode, bytes: &[u8]) {
    let peak = peak_of(decode, bytes);
    assert!(
        peak <= 8 * bytes.len() + (64 << 10),
        "{name}: {peak} bytes for {} of input: {:?}",
        bytes.len(),
        &bytes[..bytes.len().min(64)]
    );
}

fn encoded(body: &impl Body) -> Vec<u8> {
    let mut out = BytesMut::new();
    body.encode(&mut out);
    out.to_vec()
}

/// Entries in each list of a dense message.
const N: usize = 50_000;

/// A message, how it is decoded, and its bytes.
type Sample = (&'static str, Decode, Vec<u8>);

/// The densest form of every list: as many entries as possible for its bytes.
fn dense() -> Vec<Sample> {
    [dense_metadata(), dense_offsets(), dense_statistics(), dense_groups()].concat()
}

fn dense_metadata() -> Vec<Sample> {
    let topic = TopicId([1; 16]);
    let info = |n: usize| PartitionInfo {
        index: PartitionIndex(n as u32),
        leader: Some(NodeId(1)),
        shard: ShardId(1),
        leader_epoch: LeaderEpoch(0),
    };
    let names: Vec<String> = (0..N).map(|_| String::new()).collect();
    let one_letter: Vec<String> = (0..N).map(|_| "x".to_owned()).collect();
    let topics = names.iter().map(|name| TopicInfo {
        name: name.clone(),
        error: Some(ErrorCode::UnknownTopic),
        id: topic,
        partitions: vec![],
    });
    let nodes =
        names.iter().map(|name| NodeInfo { node: NodeId(1), address: name.clone(), shards: 1 }).collect();
    let partitions = vec![TopicInfo {
        name: String::new(),
        error: None,
        id: topic,
        partitions: (0..N).map(info).collect(),
    }];
    let cluster = ClusterId([2; 16]);
    let no_nodes = MetadataReply { cluster, nodes: vec![], topics: topics.collect() };
    vec![
        ("metadata request", decode::<MetadataRequest>, encoded(&MetadataRequest { topics: Some(names) })),
        ("short names", decode::<MetadataRequest>, encoded(&MetadataRequest { topics: Some(one_letter) })),
        ("topics", decode::<MetadataReply>, encoded(&no_nodes)),
        ("nodes", decode::<MetadataReply>, encoded(&MetadataReply { cluster, nodes, topics: vec![] })),
        (
            "partitions",
            decode::<MetadataReply>,
            encoded(&MetadataReply { cluster, nodes: vec![], topics: partitions }),
        ),
    ]
}

fn dense_offsets() -> Vec<Sample> {
    let topic = TopicId([1; 16]);
    let position = |n: usize| CommittedOffset {
        partition: PartitionIndex(n as u32),
        offset: Offset(0),
        leader_epoch: -1,
        metadata: String::new(),
    };
    let listed = |n: usize| ListedOffset { partition: PartitionIndex(n as u32), found: Ok(None) };
    vec![
        (
            "positions",
            decode::<ReadOffsetsReply>,
            encoded(&ReadOffsetsReply { positions: (0..N).map(position).collect() }),
        ),
        (
            "list offsets",
            decode::<ListOffsetsRequest>,
            encoded(&ListOffsetsRequest {
                topic,
                partitions: (0..N).map(|n| (PartitionIndex(n as u32), Start::Latest)).collect(),
            }),
        ),
        (
            "listed offsets",
            decode::<ListOffsetsReply>,
            encoded(&ListOffsetsReply { partitions: (0..N).map(listed).collect() }),
        ),
        (
            "delete records",
            decode::<DeleteRecordsRequest>,
            encoded(&DeleteRecordsRequest {
                topic,
                partitions: (0..N).map(|n| (PartitionIndex(n as u32), Offset(1))).collect(),
            }),
        ),
        (
            "a timestamp",
            decode::<ListOffsetsRequest>,
            encoded(&ListOffsetsRequest {
                topic,
                partitions: vec![(PartitionIndex(0), Start::Timestamp(Timestamp(1)))],
            }),
        ),
    ]
}

fn dense_statistics() -> Vec<Sample> {
    vec![
        (
            "shards",
            decode::<StatsReply>,
            encoded(&StatsReply {
                shards: (0..N).map(|n| ShardStats { shard: ShardId(n as u16), counters: vec![] }).collect(),
            }),
        ),
        (
            "counters",
            decode::<StatsReply>,
            encoded(&StatsReply {
                shards: (0..200)
                    .map(|n| ShardStats { shard: ShardId(n), counters: vec![("x".to_owned(), 1); 256] })
                    .collect(),
            }),
        ),
    ]
}

fn dense_groups() -> Vec<Sample> {
    let topic = TopicId([1; 16]);
    let topic_partitions = TopicPartitions { topic, partitions: Vec::new() };
    vec![
        (
            "partitions of topics",
            decode::<ReadGroupOffsetsRequest>,
            encoded(&ReadGroupOffsetsRequest {
                group: String::new(),
                member: None,
                partitions: Some(vec![topic_partitions; N]),
            }),
        ),
        (
            "positions of topics",
            decode::<ReadGroupOffsetsReply>,
            encoded(&ReadGroupOffsetsReply { topics: vec![TopicPositions { topic, positions: vec![] }; N] }),
        ),
        (
            "rejected positions",
            decode::<CommitGroupOffsetsReply>,
            encoded(&CommitGroupOffsetsReply {
                rejected: vec![
                    RejectedPosition {
                        topic,
                        partition: PartitionIndex(0),
                        error: ErrorCode::StaleEpoch
                    };
                    N
                ],
            }),
        ),
        (
            "groups",
            decode::<ListGroupsReply>,
            encoded(&ListGroupsReply {
                groups: vec![
                    GroupInfo { name: String::new(), protocol: String::new(), state: String::new() };
                    N
                ],
                more: false,
            }),
        ),
        (
            "members",
            decode::<DescribeGroupReply>,
            encoded(&DescribeGroupReply {
                protocol: String::new(),
                state: String::new(),
                epoch: 0,
                assignor: String::new(),
                members: vec![
                    GroupMemberInfo {
                        member: String::new(),
                        instance: None,
                        client_name: String::new(),
                        host: String::new(),
                        epoch: 0,
                        topics: vec![],
                        assignment: vec![],
                        target: vec![],
                    };
                    N
                ],
            }),
        ),
    ]
}

const DECODERS: &[(&str, Decode)] = &[
    ("hello", decode::<Hello>),
    ("hello reply", decode::<HelloReply>),
    ("metadata request", decode::<MetadataRequest>),
    ("metadata reply", decode::<MetadataReply>),
    ("create topic", decode::<CreateTopicRequest>),
    ("alter topic", decode::<AlterTopicRequest>),
    ("describe topic reply", decode::<DescribeTopicReply>),
    ("fetch", decode::<FetchRequest>),
    ("list offsets", decode::<ListOffsetsRequest>),
    ("listed offsets", decode::<ListOffsetsReply>),
    ("commit offsets", decode::<CommitOffsetsRequest>),
    ("read offsets reply", decode::<ReadOffsetsReply>),
    ("delete records", decode::<DeleteRecordsRequest>),
    ("stats reply", decode::<StatsReply>),
    ("group heartbeat", decode::<GroupHeartbeatRequest>),
    ("group heartbeat reply", decode::<GroupHeartbeatReply>),
    ("commit group offsets", decode::<CommitGroupOffsetsRequest>),
    ("rejected positions", decode::<CommitGroupOffsetsReply>),
    ("read group offsets", decode::<ReadGroupOffsetsRequest>),
    ("group offsets", decode::<ReadGroupOffsetsReply>),
    ("groups", decode::<ListGroupsReply>),
    ("group", decode::<DescribeGroupReply>),
    ("batch", |bytes| validate(bytes).is_ok()),
    ("checked batch", |bytes| check_batch(bytes, RecordRules::FORMAT).is_ok()),
    ("frames", |bytes| Frames::new(bytes).all(|frame| frame.is_ok_and(|frame| frame.check().is_ok()))),
    ("snappy", |bytes| Compression::Snappy.decompress(bytes, &mut Vec::new()).is_ok()),
];

#[test]
fn decoding_takes_a_small_multiple_of_the_input_size() {
    for (name, decode, bytes) in dense() {
        assert!(decode(&bytes), "{name} is a message");
        check(name, decode, &bytes);
    }

    let mut rng = SmallRng::seed_from_u64(17);
    let mut bytes = Vec::new();
    for round in 0..4000 {
        bytes.clear();
        let len = rng.random_range(0..600);
        bytes.resize(len, 0);
        rng.fill_bytes(&mut bytes);
        if round % 2 == 0 {
            // Large counts where a list may begin after fixed fields.
            let at = rng.random_range(0..40);
            if let Some(count) = bytes.get_mut(at..at + 4) {
                let claim = u32::MAX >> rng.random_range(0..32);
                count.copy_from_slice(&claim.to_le_bytes());
            }
            bytes.iter_mut().take(4).for_each(|byte| *byte &= 1);
        }
        for (name, decode) in DECODERS {
            check(name, *decode, &bytes);
        }
    }

    let mut bomb = BytesMut::new();
    bomb.put_slice(&[0xff, 0xff, 0xff, 0x7f]);
    bomb.put_bytes(0, 100);
    check(
        "snappy that claims 256 MiB",
        |b| Compression::Snappy.decompress(b, &mut Vec::new()).is_ok(),
        &bomb,
    );
}
