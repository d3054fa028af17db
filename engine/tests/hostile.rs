//! Clients that send garbage: the broker answers with one error and keeps serving the others.

mod common;

use std::io::{Read, Write};

use common::{Client, batch, hello, partition, raw, read_answer, start, stop};
use highwater_engine::{HostKind, TestBroker};
use highwater_protocol::batch::BatchProducer;
use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::{ClusterId, PartitionIndex, ShardId};
use highwater_protocol::native::{
    Acks, Credit, Hello, MessageKind, Start, SubscribeRequest, empty_message, message,
};

fn address(broker: &TestBroker) -> std::net::SocketAddr {
    broker.broker().native_addr()
}

#[track_caller]
fn check_dropped(broker: &TestBroker, bytes: &[u8], code: ErrorCode) {
    let mut stream = raw(address(broker));
    stream.write_all(bytes).expect("sent");
    let answer = read_answer(&mut stream).expect("an error");
    assert_eq!(answer.err().0, code);
    let mut rest = Vec::new();
    // The connection is closed, or reset because of unread bytes.
    let _ = stream.read_to_end(&mut rest);
    assert_eq!(rest, [], "and nothing else");
}

#[test]
fn garbage_is_answered_once_and_the_broker_keeps_running() {
    let broker = TestBroker::start();
    check_dropped(&broker, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", ErrorCode::BadHello);
    check_dropped(&broker, &empty_message(MessageKind::Metadata, 1), ErrorCode::BadHello);
    check_dropped(&broker, &[0xff; 4096], ErrorCode::BadHello);
    let mut large = empty_message(MessageKind::Hello, 1).to_vec();
    large[..4].copy_from_slice(&u32::MAX.to_le_bytes());
    check_dropped(&broker, &large, ErrorCode::TooLarge);
    check_dropped(
        &broker,
        &message(1, &Hello { version_min: 7, version_max: 9, ..hello(None) }),
        ErrorCode::UnsupportedVersion,
    );
    let other = Hello { cluster: Some(ClusterId([9; 16])), ..hello(None) };
    check_dropped(&broker, &message(1, &other), ErrorCode::BadHello);
    let nowhere = Hello { shard: Some(ShardId(99)), ..hello(None) };
    check_dropped(&broker, &message(1, &nowhere), ErrorCode::BadHello);
    Client::connect(address(&broker)).created("still-here", 1, &[]);
}

#[test]
fn garbage_after_the_hello_closes_only_that_connection() {
    let broker = TestBroker::start();
    let mut witness = Client::connect(address(&broker));
    let topic = witness.created("t", 1, &[]);
    for (bytes, code) in [
        (empty_message(MessageKind::Data, 1).to_vec(), ErrorCode::Malformed),
        (message(1, &hello(None)).to_vec(), ErrorCode::BadHello),
        (
            [&empty_message(MessageKind::InitProducer, 1)[..4], &[0xff, 0xff], &[0; 10]].concat(),
            ErrorCode::UnsupportedVersion,
        ),
    ] {
        let mut client = Client::connect(address(&broker));
        client.send_raw(&bytes);
        assert_eq!(client.read().expect("an error").err().0, code);
        assert!(client.read().is_none());
    }
    let mut client = Client::connect(address(&broker));
    let request = SubscribeRequest {
        topic,
        partition: PartitionIndex(0),
        start: Start::Earliest,
        credit_bytes: 1 << 20,
    };
    let number = client.send(&request);
    client.reply_to(number).ok();
    let too_much = message(number, &Credit { bytes: u64::MAX.into() });
    client.send_raw(&too_much);
    assert_eq!(client.read().expect("an error").err().0, ErrorCode::TooLarge);
    assert!(client.read().is_none());
    assert_eq!(witness.metadata().topics.len(), 1);
}

#[test]
fn invalid_batches_are_rejected_and_the_connection_stays_open() {
    let broker = TestBroker::start();
    let mut client = Client::connect(address(&broker));
    let topic = client.created("t", 1, &[("max.message.bytes", "2000")]);
    let to = partition(topic, 0);
    let good = batch(&["x"], BatchProducer::NONE);
    let mut flipped = good.clone();
    let last = flipped.len() - 1;
    flipped[last] ^= 1;
    let mut offset = good.clone();
    offset[7] = 1;
    let large = batch(&[&"x".repeat(3000)], BatchProducer::NONE);
    let late = common::batch_at(&["x"], BatchProducer::NONE, common::now_ms() + 7_200_000);
    for (bytes, code) in [
        (&flipped[..], ErrorCode::CorruptBatch),
        (&offset, ErrorCode::InvalidBatch),
        (&good[..30], ErrorCode::CorruptBatch),
        (&[], ErrorCode::CorruptBatch),
        (&large, ErrorCode::TooLarge),
        (&late, ErrorCode::InvalidTimestamp),
    ] {
        let id = client.send_batch(to, Acks::All, bytes);
        assert_eq!(client.reply_to(id).err().0, code, "{} bytes", bytes.len());
    }
    let id = client.send_batch(partition(topic, 7), Acks::All, &good);
    assert_eq!(client.reply_to(id).err().0, ErrorCode::UnknownPartition);
    let id = client.send_batch(partition(highwater_protocol::ids::TopicId([5; 16]), 0), Acks::All, &good);
    assert_eq!(client.reply_to(id).err().0, ErrorCode::UnknownTopic);
}

#[test]
fn unknown_and_duplicate_subscriptions_are_rejected() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = start(dir.path(), 1, HostKind::Thread);
    let mut client = Client::connect(broker.native_addr());
    let topic = client.created("t", 1, &[]);
    client.send_empty(MessageKind::Unsubscribe, 77);
    assert_eq!(client.reply_to(77).err().0, ErrorCode::BadSubscription);
    let (number, _) = client.subscribe(partition(topic, 0), Start::Latest, 1000);
    let again =
        SubscribeRequest { topic, partition: PartitionIndex(0), start: Start::Latest, credit_bytes: 1 };
    client.send_raw(&message(number, &again));
    assert_eq!(client.reply_to(number).err().0, ErrorCode::BadSubscription);
    client.send_empty(MessageKind::Unsubscribe, number);
    client.reply_to(number).ok();
    let outside = SubscribeRequest {
        topic,
        partition: PartitionIndex(0),
        start: Start::Offset(highwater_protocol::ids::Offset(5)),
        credit_bytes: 1,
    };
    assert_eq!(client.call(&outside).err().0, ErrorCode::OffsetOutOfRange);
    // Credit for a subscription that has ended may have been in flight.
    client.send_raw(&message(number, &Credit { bytes: 10.into() }));
    assert_eq!(client.metadata().topics.len(), 1);
    stop(broker);
}
