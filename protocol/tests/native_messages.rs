//! Every native message round-trips through its bytes, and truncated or damaged messages do no harm.

mod common;

use bytes::BytesMut;
use common::{check, position, text};
use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::{
    ClusterId, LeaderEpoch, NodeId, Offset, PartitionIndex, ProducerId, ShardId, Timestamp, TopicId,
    TopicPartition,
};
use highwater_protocol::limits::{CREDIT_BYTES_MAX, ERROR_TEXT_BYTES_MAX, REPLICAS_PER_PARTITION_MAX};
use highwater_protocol::native::*;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use zerocopy::IntoBytes;

prop_compose! {
    fn partition_info()(index: u32, leader: Option<u32>, shard: u16, epoch: i32) -> PartitionInfo {
        PartitionInfo {
            index: PartitionIndex(index), leader: leader.map(NodeId), shard: ShardId(shard), leader_epoch: LeaderEpoch(epoch),
        }
    }
}

prop_compose! {
    fn topic_info()(
        name in text(249),
        error in option::of(proptest::sample::select(ErrorCode::ALL)),
        id: [u8; 16],
        partitions in vec(partition_info(), 0..5),
    ) -> TopicInfo {
        TopicInfo { name, error, id: TopicId(id), partitions }
    }
}

prop_compose! {
    fn compaction()(to in 0..i64::MAX, last: Option<i64>, numbers: [u64; 5]) -> CompactionDetail {
        let [a, b, c, d, e] = numbers;
        CompactionDetail {
            clean_bytes: a,
            dirty_bytes: b,
            compacted_to: Offset(to),
            passes: c,
            last_pass: last.map(Timestamp),
            bytes_before: d,
            bytes_after: e,
        }
    }
}

prop_compose! {
    fn log_detail()(
        a in 0..i64::MAX, b in 0..i64::MAX, bytes: u64, faulty: bool, compaction in option::of(compaction()),
    ) -> LogDetail {
        LogDetail { log_start: Offset(a), high_watermark: Offset(b), bytes, faulty, compaction }
    }
}

prop_compose! {
    fn detail()(
        info in partition_info(),
        replicas in vec(any::<u32>(), 0..=REPLICAS_PER_PARTITION_MAX),
        in_sync in vec(any::<u32>(), 0..4),
        log in option::of(log_detail()),
    ) -> PartitionDetail {
        let nodes = |ids: Vec<u32>| ids.into_iter().map(NodeId).collect();
        PartitionDetail { info, replicas: nodes(replicas), in_sync: nodes(in_sync), log }
    }
}

fn start_at() -> impl Strategy<Value = Start> {
    prop_oneof![
        Just(Start::Earliest),
        Just(Start::Latest),
        (0..=i64::MAX).prop_map(|n| Start::Offset(Offset(n))),
        any::<i64>().prop_map(|n| Start::Timestamp(Timestamp(n))),
    ]
}

fn listed() -> impl Strategy<Value = ListedOffset> {
    let found = prop_oneof![
        proptest::sample::select(ErrorCode::ALL).prop_map(Err),
        Just(Ok(None)),
        (0..=i64::MAX, option::of(any::<i64>()))
            .prop_map(|(offset, at)| Ok(Some((Offset(offset), at.map(Timestamp))))),
    ];
    (any::<u32>(), found)
        .prop_map(|(partition, found)| ListedOffset { partition: PartitionIndex(partition), found })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn hello_round_trips(
        versions: (u16, u16), features: u64, shard in option::of(any::<u16>()), cluster in option::of(any::<[u8; 16]>()), name in text(255),
    ) {
        check(&Hello {
            version_min: versions.0, version_max: versions.1, features, shard: shard.map(ShardId),
            cluster: cluster.map(ClusterId), client_name: name,
        })?;
    }

    #[test]
    fn hello_reply_round_trips(version: u16, features: u64, node: u32, shards: (u16, u16), cluster: [u8; 16], name in text(255)) {
        check(&HelloReply {
            version, features, node: NodeId(node), shard: ShardId(shards.0), shards: shards.1, cluster: ClusterId(cluster),
            broker_version: name,
        })?;
    }

    #[test]
    fn metadata_round_trips(
        requested in option::of(vec(text(249), 0..4)), cluster: [u8; 16],
        nodes in vec((any::<u32>(), text(263), any::<u16>()), 0..4), topics in vec(topic_info(), 0..4),
    ) {
        check(&MetadataRequest { topics: requested })?;
        let nodes = nodes.into_iter()
            .map(|(node, address, shards)| NodeInfo { node: NodeId(node), address, shards }).collect();
        check(&MetadataReply { cluster: ClusterId(cluster), nodes, topics })?;
    }

    #[test]
    fn topic_changes_round_trip(
        name in text(249), partitions: u32, configs in vec((text(64), text(64)), 0..5), validate_only: bool, replicas: Option<u8>, id: [u8; 16],
        changes in vec((text(64), option::of(text(64))), 0..5), more in option::of(any::<u32>()),
    ) {
        check(&CreateTopicRequest { name: name.clone(), partitions, configs, validate_only, replicas })?;
        check(&CreateTopicReply { id: TopicId(id) })?;
        check(&AlterTopicRequest { name: name.clone(), configs: changes, partitions: more })?;
        check(&DescribeTopicRequest { name: name.clone() })?;
        check(&DeleteTopicRequest { name })?;
    }

    #[test]
    fn describe_topic_reply_round_trips(
        id: [u8; 16], configs in vec((text(64), text(64), any::<bool>()), 0..5), partitions in vec(detail(), 0..5),
    ) {
        check(&DescribeTopicReply { id: TopicId(id), configs, partitions })?;
    }

    #[test]
    fn replies_of_the_data_path_round_trip(a: i64, b: i64, c: i64, bytes: u64, id in 0..i64::MAX, epoch in 0..i16::MAX) {
        check(&ProduceReply { base_offset: a.into(), log_append_time: b.into(), log_start: c.into() })?;
        check(&SubscribeReply { start: a.into(), log_start: b.into(), high_watermark: c.into() })?;
        check(&Credit { bytes: bytes.into() })?;
        check(&InitProducerReply { producer: ProducerId(id), epoch })?;
    }

    #[test]
    fn read_requests_round_trip(
        topic: [u8; 16], partition: u32, start in start_at(), credit in 0..=CREDIT_BYTES_MAX, limits: (u32, u32, u32),
        requested in vec((any::<u32>(), start_at()), 0..5), listed in vec(listed(), 0..5),
    ) {
        let (topic, partition) = (TopicId(topic), PartitionIndex(partition));
        check(&SubscribeRequest { topic, partition, start, credit_bytes: credit })?;
        let (max_bytes, min_bytes, wait_ms) = limits;
        check(&FetchRequest { topic, partition, start, max_bytes, min_bytes, wait_ms })?;
        let partitions = requested.into_iter().map(|(n, start)| (PartitionIndex(n), start)).collect();
        check(&ListOffsetsRequest { topic, partitions })?;
        check(&ListOffsetsReply { partitions: listed })?;
    }

    #[test]
    fn positions_round_trip(
        topic: [u8; 16], consumer in text(255), positions in vec(position(), 0..5), cuts in vec((any::<u32>(), 0..i64::MAX), 0..5),
    ) {
        let topic = TopicId(topic);
        check(&CommitOffsetsRequest { consumer: consumer.clone(), topic, positions: positions.clone() })?;
        check(&ReadOffsetsRequest { consumer, topic })?;
        check(&ReadOffsetsReply { positions })?;
        let partitions = cuts.into_iter().map(|(n, offset)| (PartitionIndex(n), Offset(offset))).collect();
        check(&DeleteRecordsRequest { topic, partitions })?;
    }

    #[test]
    fn statistics_and_requests_for_space_round_trip(
        shards in vec((any::<u16>(), vec((text(255), any::<u64>()), 0..5)), 0..4), kept_bytes: u64,
    ) {
        check(&ReleaseSpaceRequest { kept_bytes })?;
        let shards = shards.into_iter().map(|(n, counters)| ShardStats { shard: ShardId(n), counters }).collect();
        check(&StatsReply { shards })?;
    }

    #[test]
    fn the_head_of_a_produce_request_names_the_partition(
        request_id: u64, topic: [u8; 16], partition: u32, acks in proptest::sample::select(vec![Acks::None, Acks::Leader, Acks::All]),
    ) {
        let to = TopicPartition { topic: TopicId(topic), partition: PartitionIndex(partition) };
        let head = produce_head(request_id, to, acks, 1000);
        let header = WireHeader::parse(&head).unwrap();
        prop_assert_eq!(header.kind(), Some(MessageKind::Produce));
        prop_assert_eq!(header.request_id.get(), request_id);
        prop_assert_eq!(header.body_bytes.get() as usize, PRODUCE_PREFIX_BYTES + 1000);
        let (prefix, batch) = ProducePrefix::split(&head[WIRE_HEADER_BYTES..]).unwrap();
        prop_assert_eq!(prefix.target(), Ok((to, acks)));
        prop_assert!(batch.is_empty());
    }
}

#[test]
fn a_counter_is_summed_over_the_shards() {
    let shard = |n, counters: &[(&str, u64)]| ShardStats {
        shard: ShardId(n),
        counters: counters.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect(),
    };
    let reply = StatsReply { shards: vec![shard(0, &[("a", 1), ("b", 0)]), shard(1, &[("a", 2)])] };
    assert_eq!([reply.total("a"), reply.total("b"), reply.total("c")], [Some(3), Some(0), None]);
}

#[test]
fn every_kind_and_code_keeps_its_number() {
    for kind in MessageKind::ALL {
        assert_eq!(MessageKind::from_u16(*kind as u16), Some(*kind));
        assert!(kind.request_bytes_max() > 0 && kind.reply_bytes_max() > 0);
    }
    assert_eq!(MessageKind::from_u16(0), None);
    for code in ErrorCode::ALL {
        assert_eq!(ErrorCode::from_u16(*code as u16), *code);
    }
    assert_eq!(ErrorCode::from_u16(0xfffe), ErrorCode::Unknown);
}

#[test]
fn an_error_reply_carries_its_code_and_a_text_cut_at_a_character_boundary() {
    let long = "ä".repeat(ERROR_TEXT_BYTES_MAX);
    let bytes = error_message(999, 5, ErrorCode::WrongShard, &format!("x{long}"));
    let header = WireHeader::parse(&bytes).unwrap();
    assert_eq!((header.kind.get(), header.kind()), (999, None));
    assert_eq!(header.error(), Some(ErrorCode::WrongShard));
    let text = error_text(&bytes[WIRE_HEADER_BYTES..]);
    assert_eq!(text.len(), ERROR_TEXT_BYTES_MAX - 1);
    assert!(text.starts_with("xää"));
    assert_eq!(error_text(&[0xff, b'a']), "\u{fffd}a");
}

#[test]
fn messages_are_appended_one_after_another() {
    let mut out = BytesMut::new();
    put_empty(&mut out, MessageKind::InitProducer, 1);
    put_message(&mut out, 2, &Credit { bytes: 9.into() });
    put_error(&mut out, MessageKind::Produce as u16, 3, ErrorCode::Overloaded, "later");
    let mut rest = &out[..];
    let mut seen = Vec::new();
    while let Some(header) = WireHeader::parse(rest) {
        let end = WIRE_HEADER_BYTES + header.body_bytes.get() as usize;
        seen.push((header.request_id.get(), header.kind().unwrap(), end));
        rest = &rest[end..];
    }
    assert_eq!(
        seen,
        [(1, MessageKind::InitProducer, 16), (2, MessageKind::Credit, 24), (3, MessageKind::Produce, 21)]
    );
    assert_eq!(&empty_message(MessageKind::InitProducer, 1)[..], &out[..16]);
}

#[test]
fn out_of_range_values_are_rejected_with_the_field_name() {
    let mut prefix = ProducePrefix::new(
        TopicPartition { topic: TopicId([1; 16]), partition: PartitionIndex(3) },
        Acks::All,
    );
    prefix.acks = 3;
    assert_eq!(prefix.target(), Err(DecodeError::Invalid { field: "acks", value: 3 }));
    (prefix.acks, prefix.reserved) = (0, [0, 7, 0]);
    assert_eq!(prefix.target(), Err(DecodeError::Invalid { field: "produce reserved", value: 7 }));
    assert!(ProducePrefix::split(&[0; 23]).is_err());

    let data = DataPrefix { next_offset: 9.into(), log_start: (-1).into(), high_watermark: 9.into() };
    assert_eq!(
        DataPrefix::split(data.as_bytes()),
        Err(DecodeError::Invalid { field: "log start", value: -1 })
    );
    assert!(DataPrefix::split(&[0; 23]).is_err());

    let mut subscribe = Vec::new();
    SubscribeRequest {
        topic: TopicId([0; 16]),
        partition: PartitionIndex(0),
        start: Start::Latest,
        credit_bytes: CREDIT_BYTES_MAX + 1,
    }
    .encode(&mut subscribe);
    let error = SubscribeRequest::decode(&subscribe).unwrap_err();
    assert_eq!(error.code(), ErrorCode::TooLarge);

    let hello = b"POST / HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(Hello::decode(hello).unwrap_err().code(), ErrorCode::Malformed);
}

#[test]
fn the_head_of_a_data_message_can_be_read_back() {
    let prefix = DataPrefix { next_offset: 9.into(), log_start: 1.into(), high_watermark: 12.into() };
    let mut bytes = data_head(MessageKind::Data, 4, &prefix, 3).to_vec();
    bytes.extend(b"abc");
    let header = WireHeader::parse(&bytes).unwrap();
    assert_eq!((header.kind(), header.body_bytes.get()), (Some(MessageKind::Data), 27));
    let (read, frames) = DataPrefix::split(&bytes[WIRE_HEADER_BYTES..]).unwrap();
    assert_eq!((*read, frames), (prefix, &b"abc"[..]));
}
