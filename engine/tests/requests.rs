//! Requests other than Produce and Subscribe, on a simulated broker with two shards.

mod common;

use common::simulated::{Settings, SimBroker};
use common::{Client, batch, partition};
use highwater_protocol::batch::BatchProducer;
use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::{Offset, PartitionIndex, Timestamp, TopicId};
use highwater_protocol::native::{
    Acks, AlterTopicRequest, Body, CommitOffsetsRequest, CommittedOffset, CreateTopicRequest, DataPrefix,
    DeleteRecordsRequest, InitProducerReply, ListOffsetsReply, ListOffsetsRequest, MessageKind, ProduceReply,
    ReadOffsetsReply, ReadOffsetsRequest, Start, StatsReply,
};

/// Connects a client to the shard that owns a partition.
fn connect_to_owner(broker: &SimBroker, topic: &str, number: u32) -> Client {
    let metadata = broker.native().metadata();
    let topic = metadata.topics.iter().find(|t| t.name == topic).expect("it exists");
    let shard = topic.partitions[number as usize].shard.0;
    broker.native_on(shard)
}

fn one_shard() -> SimBroker {
    SimBroker::with(Settings { shards: 1, ..Settings::default() })
}

#[test]
fn list_offsets_works_by_kind_and_time_on_every_shard() {
    let broker = SimBroker::start();
    let mut admin = broker.native_on(1);
    let topic = admin.created("t", 4, &[]);
    let base = common::now_ms() - 10_000;
    for number in 0..4 {
        let mut home = connect_to_owner(&broker, "t", number);
        for n in 0..3_i64 {
            let bytes = common::batch_at(&["x", "y"], BatchProducer::NONE, base + n * 1000);
            let id = home.send_batch(partition(topic, number), Acks::All, &bytes);
            home.reply_to(id).ok();
        }
    }
    let at = |ms: i64| Start::Timestamp(Timestamp(base + ms));
    let mut ask = |starts: &[Start]| {
        let partitions =
            (0..4).flat_map(|p| starts.iter().map(move |s| (PartitionIndex(p), *s))).collect::<Vec<_>>();
        let reply = admin.call(&ListOffsetsRequest { topic, partitions }).ok();
        let found = ListOffsetsReply::decode(&reply).expect("a reply").partitions;
        assert_eq!(found.len(), 4 * starts.len());
        let first: Vec<_> = found[..starts.len()].iter().map(|f| f.found).collect();
        for chunk in found.chunks(starts.len()) {
            assert!(chunk.iter().map(|f| f.found).eq(first.iter().copied()), "all partitions are alike");
        }
        first
    };
    let stamp = |ms: i64| Some(Timestamp(base + ms));
    assert_eq!(
        ask(&[Start::Earliest, Start::Latest, at(-5), at(1), at(1000), at(2001), Start::Offset(Offset(9))]),
        [
            Ok(Some((Offset(0), None))),
            Ok(Some((Offset(6), None))),
            Ok(Some((Offset(0), stamp(0)))),
            Ok(Some((Offset(2), stamp(1000)))),
            Ok(Some((Offset(2), stamp(1000)))),
            Ok(None),
            Err(ErrorCode::OffsetOutOfRange),
        ]
    );
    let nobody = admin.call(&ListOffsetsRequest {
        topic: TopicId([9; 16]),
        partitions: vec![(PartitionIndex(0), Start::Latest)],
    });
    let found = ListOffsetsReply::decode(&nobody.ok()).expect("a reply").partitions;
    assert_eq!(found[0].found, Err(ErrorCode::UnknownTopic));
    broker.stop();
}

#[test]
fn committed_positions_survive_a_restart() {
    let broker = SimBroker::start();
    let mut client = broker.native_on(1);
    let topic = client.created("t", 2, &[]);
    let commit = |offset: i64| CommitOffsetsRequest {
        consumer: "billing".into(),
        topic,
        positions: vec![CommittedOffset {
            partition: PartitionIndex(1),
            offset: Offset(offset),
            leader_epoch: -1,
            metadata: "m".into(),
        }],
    };
    for offset in 1..50 {
        client.send(&commit(offset));
    }
    let last = client.send(&commit(50));
    for _ in 1..50 {
        client.read().expect("a reply").ok();
    }
    client.reply_to(last).ok();
    assert_eq!(
        client.call(&CommitOffsetsRequest { topic: TopicId([9; 16]), ..commit(1) }).err().0,
        ErrorCode::UnknownTopic
    );
    broker.restart();
    let mut client = broker.native();
    let request = ReadOffsetsRequest { consumer: "billing".into(), topic };
    let reply = ReadOffsetsReply::decode(&client.call(&request).ok()).expect("a reply");
    assert_eq!(reply.positions, commit(50).positions);
    let other = ReadOffsetsRequest { consumer: "shipping".into(), topic };
    assert_eq!(ReadOffsetsReply::decode(&client.call(&other).ok()).expect("a reply").positions, []);
    broker.stop();
}

#[test]
fn records_are_deleted_up_to_an_offset_and_stay_deleted() {
    let broker = SimBroker::start();
    let mut client = broker.native_on(1);
    let topic = client.created("t", 2, &[]);
    for number in 0..2 {
        connect_to_owner(&broker, "t", number).produced(partition(topic, number), &["a", "b", "c"]);
    }
    let up_to = |offset: i64| DeleteRecordsRequest {
        topic,
        partitions: vec![(PartitionIndex(0), Offset(offset)), (PartitionIndex(1), Offset(offset))],
    };
    client.call(&up_to(2)).ok();
    client.call(&up_to(1)).ok();
    assert_eq!(client.call(&up_to(4)).err().0, ErrorCode::OffsetOutOfRange);
    broker.restart();
    let described = broker.native().describe("t");
    for number in 0..2 {
        let detail = described.partitions[number as usize].log.expect("it is led here");
        assert_eq!((detail.log_start, detail.high_watermark, detail.faulty), (Offset(2), Offset(3), false));
        let mut home = connect_to_owner(&broker, "t", number);
        let to = partition(topic, number);
        assert_eq!(home.read_all(to, 2), [(2, "c".into())]);
        let refused = home.fetch(to, Start::Offset(Offset(1)), 0).err();
        assert_eq!(refused.0, ErrorCode::OffsetOutOfRange);
    }
    broker.stop();
}

#[test]
fn topics_are_altered_and_their_settings_take_effect() {
    let broker = SimBroker::start();
    let mut client = broker.native();
    let topic = client.created("t", 1, &[("message.timestamp.type", "LogAppendTime")]);
    let mut home = connect_to_owner(&broker, "t", 0);
    let old = common::batch_at(&["x"], BatchProducer::NONE, 5);
    let id = home.send_batch(partition(topic, 0), Acks::All, &old);
    let reply = ProduceReply::decode(&home.reply_to(id).ok()).expect("a reply");
    assert!(reply.log_append_time.get() > 5, "the broker's own time");
    let alter = |configs: &[(&str, Option<&str>)], partitions| AlterTopicRequest {
        name: "t".into(),
        configs: configs.iter().map(|(k, v)| ((*k).into(), v.map(Into::into))).collect(),
        partitions,
    };
    client
        .call(&alter(&[("message.timestamp.type", None), ("max.message.bytes", Some("300"))], Some(3)))
        .ok();
    assert_eq!(client.call(&alter(&[], Some(2))).err().0, ErrorCode::InvalidArgument);
    for value in [Some("1"), None] {
        let (code, why) = client.call(&alter(&[("x", value)], None)).err();
        assert_eq!((code, &*why), (ErrorCode::InvalidConfig, "Unknown topic config name: x"));
    }
    client.call(&alter(&[("retention.ms", None)], None)).ok();
    let described = client.describe("t");
    assert_eq!(described.partitions.len(), 3);
    assert!(described.configs.contains(&("max.message.bytes".into(), "300".into(), true)));
    assert_eq!(home.produce(partition(topic, 0), &[&"x".repeat(500)]).err().0, ErrorCode::TooLarge);
    assert_eq!(connect_to_owner(&broker, "t", 2).produced(partition(topic, 2), &["new"]), 0);
    broker.stop();
}

#[test]
fn a_topic_has_at_most_as_many_replicas_as_there_are_nodes() {
    let broker = SimBroker::start();
    let mut client = broker.native();
    for (name, replicas, is_possible) in
        [("default", None, true), ("one", Some(1), true), ("two", Some(2), false), ("none", Some(0), false)]
    {
        let request = CreateTopicRequest {
            name: name.into(),
            partitions: 2,
            configs: Vec::new(),
            validate_only: false,
            replicas,
        };
        let answer = client.call(&request);
        let expected = (!is_possible).then_some(ErrorCode::InvalidArgument);
        assert_eq!(answer.error, expected, "{name}");
    }
    let metadata = client.metadata();
    assert_eq!(
        metadata.topics.iter().map(|topic| topic.name.as_str()).collect::<Vec<_>>(),
        ["default", "one"]
    );
    assert_eq!(metadata.nodes.len(), 1, "a node that has registered itself is listed once");
    broker.stop();
}

#[test]
fn producer_ids_are_never_assigned_twice() {
    let broker = SimBroker::start();
    let mut ids = Vec::new();
    for _ in 0..2 {
        for shard in [0, 1] {
            let mut client = broker.native_on(shard);
            for id in 1..=5 {
                client.send_empty(MessageKind::InitProducer, id);
            }
            for id in 1..=5 {
                let reply = InitProducerReply::decode(&client.reply_to(id).ok()).expect("a reply");
                ids.push(reply.producer);
            }
        }
        broker.restart();
    }
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((ids.len(), count), (20, 20));
}

#[test]
fn acknowledged_records_are_in_the_statistics_of_their_shard_whichever_shard_replies() {
    let broker = SimBroker::start();
    let mut asking = [0, 1].map(|shard| broker.native_on(shard));
    let mut ask = |shard: usize, id| {
        asking[shard].send_empty(MessageKind::Stats, id);
        StatsReply::decode(&asking[shard].reply_to(id).ok()).expect("a reply")
    };
    let topic = broker.native().created("t", 4, &[]);
    let before = ask(0, 1);
    assert_eq!(before.shards.iter().map(|s| s.shard.0).collect::<Vec<_>>(), [0, 1]);
    for n in 0..4 {
        let mut home = connect_to_owner(&broker, "t", n);
        for _ in 0..3 {
            home.produced(partition(topic, n), &["one", "two"]);
        }
    }
    let large = "x".repeat(200_000);
    let mut home = connect_to_owner(&broker, "t", 0);
    home.produced(partition(topic, 0), &[&large]);
    home.produce(partition(topic, 9), &["nowhere"]).err();
    for shard in [0, 1] {
        let after = ask(shard, 2);
        let more = |name| after.total(name).expect("known") - before.total(name).expect("known");
        assert_eq!((more("batches.appended"), more("records.appended")), (13, 25));
        assert_eq!(more("requests.failed"), 1);
        assert!(more("requests") >= 14);
        assert!(
            more("bytes.received") > 200_000,
            "a large batch is received otherwise, and counted all the same"
        );
        assert!(more("disk.bytes.written") >= more("frames.bytes") && more("frames.bytes") > 200_000);
        assert!(more("disk.writes") >= 4 && more("rounds") >= 4);
        let durable = more("disk.writes.durable");
        assert!(durable <= more("disk.writes") && durable + more("disk.syncs") > 0);
        assert!(after.total("connections.now") >= Some(2));
    }
    let of = |stats: &StatsReply, shard: usize| {
        let counters = &stats.shards[shard].counters;
        counters.iter().find(|(name, _)| name == "records.appended").map(|(_, value)| *value)
    };
    let after = ask(1, 3);
    assert!((0..2).all(|shard| of(&after, shard) > of(&before, shard)), "each shard has its own");
    broker.stop();
}

#[test]
fn a_batch_sent_again_is_acknowledged_with_its_first_offset_and_a_gap_is_rejected() {
    let broker = one_shard();
    let mut client = broker.native();
    let to = partition(client.created("t", 1, &[]), 0);
    client.send_empty(MessageKind::InitProducer, 1);
    let id = InitProducerReply::decode(&client.reply_to(1).ok()).expect("a reply").producer;
    let mut send = |sequence, epoch, values: &[&str]| {
        let producer = BatchProducer { id, epoch, sequence };
        let id = client.send_batch(to, Acks::All, &batch(values, producer));
        let answer = client.reply_to(id);
        match answer.error {
            None => Ok(ProduceReply::decode(&answer.body).expect("a reply").base_offset.get()),
            Some(code) => Err(code),
        }
    };
    assert_eq!(send(0, 0, &["a", "b"]), Ok(0));
    assert_eq!(send(2, 0, &["c"]), Ok(2));
    assert_eq!(send(0, 0, &["a", "b"]), Ok(0), "again");
    assert_eq!(send(4, 0, &["e"]), Err(ErrorCode::OutOfOrderSequence));
    assert_eq!(send(0, 1, &["d"]), Ok(3), "a new epoch begins at 0");
    assert_eq!(send(3, 0, &["d"]), Err(ErrorCode::ProducerFenced));
    assert_eq!(client.read_all(to, 0).len(), 4);
    broker.stop();
}

#[test]
fn a_fetch_waits_for_records_up_to_its_maximum_wait() {
    let broker = one_shard();
    let mut client = broker.native();
    let to = partition(client.created("t", 1, &[]), 0);
    let body = client.fetch(to, Start::Latest, 20).ok();
    let (prefix, frames) = DataPrefix::split(&body).expect("a prefix");
    assert_eq!((prefix.next_offset.get(), frames.len()), (0, 0), "nothing came");
    let mut reader = broker.native();
    let waiting = reader.send(&highwater_protocol::native::FetchRequest {
        topic: to.topic,
        partition: to.partition,
        start: Start::Latest,
        max_bytes: 1 << 20,
        min_bytes: 1,
        wait_ms: 30_000,
    });
    client.produced(to, &["x"]);
    let body = reader.reply_to(waiting).ok();
    let (prefix, frames) = DataPrefix::split(&body).expect("a prefix");
    assert_eq!((prefix.next_offset.get(), common::records_of(frames)), (1, vec![(0, "x".into())]));
    broker.stop();
}

#[test]
fn a_fetch_that_leaves_records_unread_does_not_wait_for_more() {
    let broker = one_shard();
    let mut client = broker.native();
    let to = partition(client.created("t", 1, &[]), 0);
    for _ in 0..20 {
        client.produced(to, &[&"x".repeat(1000)]);
    }
    // Frames are whole, so the reply is a little smaller than this. If the fetch waited, it would wait for longer than the test may take.
    let body = client.call(&highwater_protocol::native::FetchRequest {
        topic: to.topic,
        partition: to.partition,
        start: Start::Earliest,
        max_bytes: 10_000,
        min_bytes: 10_000,
        wait_ms: 600_000,
    });
    let body = body.ok();
    let (_, frames) = DataPrefix::split(&body).expect("a prefix");
    assert!((1..10_000).contains(&frames.len()), "{}", frames.len());
    broker.stop();
}
