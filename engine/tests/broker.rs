//! A whole broker on the real runtime, over real sockets.

mod common;

use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use common::{Client, batch, config, partition, start, stop, try_start};
use highwater_engine::{Broker, BrokerConfig, HostKind};
use highwater_protocol::batch::BatchProducer;
use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::{Offset, TopicPartition};
use highwater_protocol::native::{Acks, DataPrefix, Start};

#[test]
fn topics_are_created_once_survive_a_restart_and_can_be_deleted() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = start(dir.path(), 1, HostKind::Thread);
    let mut client = Client::connect(broker.native_addr());
    let id = client.created("orders", 3, &[("retention.ms", "1000")]);
    assert_eq!(client.create_topic("orders", 1, &[]).err().0, ErrorCode::TopicExists);
    assert_eq!(client.create_topic("or ders", 1, &[]).err().0, ErrorCode::InvalidTopicName);
    assert_eq!(client.create_topic("t", 0, &[]).err().0, ErrorCode::InvalidArgument);
    assert_eq!(client.create_topic("t", 1, &[("no.such", "1")]).err().0, ErrorCode::InvalidConfig);
    stop(broker);

    let broker = start(dir.path(), 2, HostKind::Glommio);
    let mut client = Client::connect(broker.native_addr());
    let metadata = client.metadata();
    assert_eq!(metadata.topics.len(), 1);
    assert_eq!((metadata.topics[0].id, metadata.topics[0].partitions.len()), (id, 3));
    let described = client.describe("orders");
    assert!(described.configs.contains(&("retention.ms".into(), "1000".into(), true)));
    client.delete_topic("orders").ok();
    assert_eq!(client.delete_topic("orders").err().0, ErrorCode::UnknownTopic);
    assert_ne!(client.created("orders", 2, &[]), id, "another topic, although it has the name");
    stop(broker);
}

#[test]
fn a_second_broker_cannot_open_the_directory() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = start(dir.path(), 1, HostKind::Thread);
    let error = try_start(dir.path(), 1, HostKind::Thread).expect_err("refused");
    assert_eq!(error.exit_code(), 73);
    drop(broker);
    drop(start(dir.path(), 1, HostKind::Thread));
}

#[test]
fn a_broker_listens_for_other_nodes_if_it_is_told_to_and_closes_the_connections_of_strangers() {
    let dir = tempfile::tempdir().expect("a directory");
    let peer_listen = vec![SocketAddr::from(([127, 0, 0, 1], 0)).into()];
    let broker = Broker::start(BrokerConfig { peer_listen, ..config(dir.path(), 1, HostKind::Thread) });
    let broker = broker.expect("the broker starts");
    let mut stranger = TcpStream::connect(broker.ready().peers[0]).expect("it listens");
    stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("it has accepted the connection");
    let mut answer = Vec::new();
    // The connection may be reset, because what was sent is not read.
    let _ = stranger.read_to_end(&mut answer);
    assert!(answer.is_empty());
    stop(broker);
}

#[test]
fn connections_move_to_the_shard_that_they_name() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = start(dir.path(), 2, HostKind::Glommio);
    for shard in [0, 1, 1, 0] {
        let client = Client::connect_to(broker.native_addr(), Some(shard));
        assert_eq!((client.hello.shard.0, client.hello.shards), (shard, 2));
    }
    let mut client = Client::connect_to(broker.native_addr(), Some(1));
    let topic = client.created("t", 2, &[]);
    let metadata = client.metadata();
    for info in &metadata.topics[0].partitions {
        let refused = client.produce(partition(topic, info.index.0), &["x"]);
        assert_eq!(refused.error == Some(ErrorCode::WrongShard), info.shard.0 != 1);
    }
    stop(broker);
}

#[test]
fn records_are_acknowledged_pushed_fetched_and_readable_after_a_restart() {
    for host in [HostKind::Thread, HostKind::Glommio] {
        let dir = tempfile::tempdir().expect("a directory");
        let broker = start(dir.path(), 1, host);
        let mut client = Client::connect(broker.native_addr());
        let to = partition(client.created("t", 1, &[]), 0);
        assert_eq!(client.produced(to, &["a", "b"]), 0);

        let mut reader = Client::connect(broker.native_addr());
        let (number, reply) = reader.subscribe(to, Start::Earliest, 1 << 20);
        assert_eq!((reply.start.get(), reply.high_watermark.get()), (0, 2));
        assert_eq!(reader.pushed_records(number, 2), [(0, "a".into()), (1, "b".into())]);
        assert_eq!(client.produced(to, &["c"]), 2);
        assert_eq!(reader.pushed_records(number, 1), [(2, "c".into())]);

        // Large batches are received into pages, and many requests may be in flight.
        let large = "x".repeat(200_000);
        let ids: Vec<u64> = (0..20)
            .map(|n| {
                let value = format!("{n}");
                let values = if n % 3 == 0 { vec![large.as_str()] } else { vec![value.as_str(), "y"] };
                client.send_batch(to, Acks::All, &batch(&values, BatchProducer::NONE))
            })
            .collect();
        for id in ids {
            client.reply_to(id).ok();
        }
        let all = client.read_all(to, 0);
        assert!(all.iter().map(|(offset, _)| *offset).eq(0..all.len() as i64), "no gap");
        assert_eq!(all.len(), 3 + 7 + 2 * 13);
        assert_eq!(reader.pushed_records(number, all.len() - 3), all[3..]);
        stop(broker);

        let broker = start(dir.path(), 1, host);
        let mut client = Client::connect(broker.native_addr());
        assert_eq!(client.read_all(to, 0), all);
        assert_eq!(client.produced(to, &["d"]), all.len() as i64);
        stop(broker);
    }
}

/// Flips a bit of the first occurrence of `needle` in a slab of the first store.
fn damage(data_dir: &Path, needle: &[u8]) {
    let slab = data_dir.join("store-000").join("slab-000000");
    let mut file = std::fs::File::options().read(true).write(true).open(slab).expect("the slab");
    let mut content = Vec::new();
    file.read_to_end(&mut content).expect("read");
    let at = content.windows(needle.len()).position(|w| w == needle).expect("it rests there");
    file.seek(SeekFrom::Start(at as u64)).expect("there");
    file.write_all(&[needle[0] ^ 1]).expect("damaged");
}

#[test]
fn damage_is_reported_only_for_records_that_are_damaged() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = start(dir.path(), 1, HostKind::Thread);
    let mut client = Client::connect(broker.native_addr());
    let to: TopicPartition = partition(client.created("t", 1, &[]), 0);
    for value in ["first", "unlucky-record", "third"] {
        client.produced(to, &[value]);
    }
    stop(broker);
    damage(dir.path(), b"unlucky-record");
    let broker = start(dir.path(), 1, HostKind::Thread);
    let mut client = Client::connect(broker.native_addr());
    let body = client.fetch(to, Start::Earliest, 0).ok();
    let (prefix, frames) = DataPrefix::split(&body).expect("a prefix");
    assert_eq!((prefix.next_offset.get(), common::records_of(frames)), (1, vec![(0, "first".into())]));
    let (code, text) = client.fetch(to, Start::Offset(Offset(1)), 0).err();
    assert_eq!(code, ErrorCode::PartitionFaulty);
    assert!(text.contains("t/0") && text.contains("offset 2"), "{text}");
    assert_eq!(client.read_all(to, 2), [(2, "third".into())]);
    let (number, _) = client.subscribe(to, Start::Offset(Offset(1)), 1000);
    let reply = client.data();
    assert_eq!((reply.id, reply.err().0), (number, ErrorCode::PartitionFaulty));
    stop(broker);
}

#[test]
fn ten_thousand_partitions_are_created_and_recovered() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = start(dir.path(), 2, HostKind::Thread);
    let mut client = Client::connect(broker.native_addr());
    for n in 0..50 {
        client.created(&format!("many-{n}"), 180, &[]);
    }
    client.created("wide", 1000, &[]);
    stop(broker);
    let broker = start(dir.path(), 2, HostKind::Thread);
    assert_eq!((broker.ready().topics, broker.ready().partitions), (51, 10_000));
    println!("ready after {:?}", broker.ready().took);
    let described = Client::connect(broker.native_addr()).describe("wide");
    assert!(described.partitions.iter().all(|p| p.log.is_some_and(|log| log.high_watermark == Offset(0))));
    stop(broker);
}
